//! `[[occasions]]` of `agents.toml`: which agent does what when an event says that its time has come.
//!
//! Schedules, deadlines and daily tasks are published by other systems, which know when, and not who nor what. One table makes a task of one such event; the
//! event's data is the task's context. Always true: of two tables that fit an event the one that asks for its name counts, and no two tables ask for the same.
//!
//! The task's text is not made of the event's fields: text of others within instructions is how agents are led astray. They have it in the context.

use fte_events::limits::{TASK_CHARS_MAX, is_task_text};
use fte_events::{AgentName, Decoded, Origin, Priority, TaskId, TaskRequested};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

/// Most tables.
const OCCASIONS_MAX: usize = 200;
/// Longest name of a schedule or a daily task.
const NAME_BYTES_MAX: usize = 1000;

/// What to do on an occasion.
#[derive(Clone, Debug, PartialEq)]
struct Occasion {
    /// The event's type: `fte.deadline.passed`, `fte.daily-task.due` or `fte.schedule.fired`.
    on: &'static str,
    /// Only of this name: a daily task's `task_type`, a schedule's `schedule`.
    name: Option<String>,
    agent: AgentName,
    task: String,
    require_approval: bool,
    priority: Priority,
}

impl Occasion {
    /// The type of the event, and the name it must have if there is one.
    fn key(&self) -> (&'static str, Option<&str>) {
        (self.on, self.name.as_deref())
    }
}

/// What there is to do on the occasions of a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Occasions(Vec<Occasion>);

impl Occasions {
    /// The task to do on this occasion, if anybody is to do anything. `at` is when the event says that it happened.
    pub fn request(&self, occasion: &Decoded, task_id: TaskId, at: Timestamp) -> Option<TaskRequested> {
        let (on, name) = key_of(occasion)?;
        let exact = self.0.iter().find(|candidate| name.is_some() && candidate.key() == (on, name));
        let found = exact.or_else(|| self.0.iter().find(|candidate| candidate.key() == (on, None)))?;
        let mut request = TaskRequested::new(task_id, found.task.clone(), Origin::Schedule, at);
        request.agent = Some(found.agent.to_string());
        request.context = data_of(occasion);
        request.require_approval = found.require_approval;
        request.priority = found.priority;
        Some(request)
    }
}

fn key_of(occasion: &Decoded) -> Option<(&'static str, Option<&str>)> {
    match occasion {
        Decoded::DeadlinePassed(_) => Some(("fte.deadline.passed", None)),
        Decoded::DailyTaskDue(due) => Some(("fte.daily-task.due", Some(&due.task_type))),
        Decoded::ScheduleFired(fired) => Some(("fte.schedule.fired", Some(&fired.schedule))),
        _ => None,
    }
}

fn data_of(occasion: &Decoded) -> Map<String, Value> {
    let data = match occasion {
        Decoded::DeadlinePassed(passed) => serde_json::to_value(passed),
        Decoded::DailyTaskDue(due) => serde_json::to_value(due),
        Decoded::ScheduleFired(fired) => serde_json::to_value(fired),
        _ => return Map::new(),
    };
    match data {
        Ok(Value::Object(data)) => data,
        // What was read from JSON can be written as JSON.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// A table as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOccasion {
    on: Spanned<On>,
    name: Option<Spanned<String>>,
    agent: Option<Spanned<AgentName>>,
    task: Spanned<String>,
    #[serde(default)]
    require_approval: bool,
    #[serde(default)]
    priority: Priority,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
enum On {
    #[serde(rename = "fte.deadline.passed")]
    DeadlinePassed,
    #[serde(rename = "fte.daily-task.due")]
    DailyTaskDue,
    #[serde(rename = "fte.schedule.fired")]
    ScheduleFired,
}

/// What is wrong with a table: its key, where its value stands, and what was expected.
pub(super) struct WrongOccasion(pub &'static str, pub usize, pub String);

/// The tables of a file whose agents are known.
pub(super) fn check(
    tables: Vec<RawOccasion>,
    default: &AgentName,
    is_known: impl Fn(&AgentName) -> bool,
    known: impl Fn() -> String,
) -> Result<Occasions, WrongOccasion> {
    let mut occasions: Vec<Occasion> = Vec::new();
    for table in tables {
        let wrong = |key, at: usize, problem: String| Err(WrongOccasion(key, at, problem));
        let start = table.on.span().start;
        if occasions.len() == OCCASIONS_MAX {
            return wrong("on", start, format!("one table too many: at most {OCCASIONS_MAX}"));
        }
        let on = match (table.on.get_ref(), &table.name) {
            (On::DeadlinePassed, Some(name)) => return wrong("name", name.span().start, "a deadline has no name".to_owned()),
            (On::DeadlinePassed, None) => "fte.deadline.passed",
            (On::DailyTaskDue, _) => "fte.daily-task.due",
            (On::ScheduleFired, _) => "fte.schedule.fired",
        };
        if let Some(name) = table.name.as_ref().filter(|name| !(1..=NAME_BYTES_MAX).contains(&name.get_ref().len())) {
            return wrong("name", name.span().start, format!("expected a text of 1 to {NAME_BYTES_MAX} bytes"));
        }
        if let Some(unknown) = table.agent.as_ref().filter(|agent| !is_known(agent.get_ref())) {
            return wrong("agent", unknown.span().start, format!("expected one of {}", known()));
        }
        if !is_task_text(table.task.get_ref()) {
            return wrong("task", table.task.span().start, format!("expected a text of 1 to {TASK_CHARS_MAX} characters"));
        }
        let occasion = Occasion {
            on,
            name: table.name.map(Spanned::into_inner),
            agent: table.agent.map_or_else(|| default.clone(), Spanned::into_inner),
            task: table.task.into_inner(),
            require_approval: table.require_approval,
            priority: table.priority,
        };
        if occasions.iter().any(|earlier| earlier.key() == occasion.key()) {
            return wrong("on", start, "another table is for the same occasion: one event starts one task".to_owned());
        }
        occasions.push(occasion);
    }
    Ok(Occasions(occasions))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fte_events::sample;
    use serde_json::json;

    use super::super::Agents;
    use super::*;

    const ECHO: &str = "[agents.echo]\nkind = \"builtin\"\n";

    fn parse(tables: &str) -> Result<Agents, String> {
        Agents::parse(Path::new("agents.toml"), &format!("{ECHO}{tables}")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_event_starts_what_the_table_for_it_says() {
        let tables = r#"
[[occasions]]
on = "fte.schedule.fired"
task = "look who it is for"
[[occasions]]
on = "fte.schedule.fired"
name = "weekly-report"
agent = "echo"
task = "write the report"
require_approval = true
priority = "P3"
"#;
        let occasions = parse(tables).unwrap().occasions;
        let fired = sample::schedule_fired();
        let (id, at) = (TaskId::from_source("/cron", "1"), fired.due_at);
        let report = occasions.request(&Decoded::ScheduleFired(fired.clone()), id, at).unwrap();
        assert_eq!((report.task.as_str(), report.agent.as_deref()), ("write the report", Some("echo")));
        assert_eq!((report.task_id, report.submitted_at, report.origin), (id, at, Origin::Schedule));
        assert_eq!((report.require_approval, report.priority), (true, Priority::P3));
        assert_eq!(
            Value::Object(report.context),
            json!({"schedule": "weekly-report", "due_at": fte_bus::time::text(fired.due_at), "data": {"week": 27}})
        );
        let other = fte_events::ScheduleFired { schedule: "monthly".into(), ..fired };
        assert_eq!(occasions.request(&Decoded::ScheduleFired(other), id, at).unwrap().task, "look who it is for");
        assert_eq!(occasions.request(&Decoded::DeadlinePassed(sample::deadline_passed()), id, at), None);
    }

    #[test]
    fn a_wrong_table_is_named_by_its_line_and_key() {
        let check = |table: &str, place: &str, problem: &str| {
            let error = parse(table).unwrap_err();
            assert!(error.starts_with(&format!("agents.toml {place}")), "{error}");
            assert!(error.contains(problem), "{error}");
        };
        check("[[occasions]]\non = \"fte.task.requested\"\ntask = \"x\"\n", "line 4, occasions.on:", "`fte.deadline.passed`");
        check("[[occasions]]\non = \"fte.deadline.passed\"\n", "line 3, occasions:", "missing field `task`");
        check("[[occasions]]\non = \"fte.deadline.passed\"\ntask = \"\"\n", "line 5, occasions.task:", "1 to 32000 characters");
        check("[[occasions]]\non = \"fte.deadline.passed\"\nname = \"x\"\ntask = \"x\"\n", "line 5, occasions.name:", "has no name");
        check(
            "[[occasions]]\non = \"fte.deadline.passed\"\nagent = \"nobody\"\ntask = \"x\"\n",
            "line 5, occasions.agent:",
            "expected one of echo",
        );
        let twice = "[[occasions]]\non = \"fte.daily-task.due\"\ntask = \"x\"\n".repeat(2);
        check(&twice, "line 7, occasions.on:", "another table");
    }
}
