//! What a task request may say. Pure: the body's JSON in, the event's payload out, or everything that is wrong with it.
//!
//! The body is read field by field and not into a struct, because a struct stops at its first error. An unknown field is an error: a misspelt
//! `require_approval` must not start an agent unasked. `null` counts as absent.

use std::time::Duration;

use fte_events::limits::{
    AHEAD_MAX, CONTEXT_BYTES_MAX, METADATA_BYTES_MAX, TASK_CHARS_MAX, is_budget, is_near, is_token_budget, json_bytes,
};
use fte_events::{Origin, Priority, TaskId, TaskRequested};
use fte_service::agents::Agents;
use fte_service::{FieldError, parse_duration};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Most unknown fields that are named.
const UNKNOWN_NAMED_MAX: usize = 10;
/// All that there are, as in [`NewTask`].
const FIELDS: [&str; 10] =
    ["task", "agent", "context", "require_approval", "priority", "deadline", "delay", "budget_usd", "budget_tokens", "metadata"];

/// A task to be done: the body of `POST /v1/tasks`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct NewTask {
    /// What to do, in words: 1 to 32 000 characters.
    #[schema(min_length = 1, max_length = 32_000, example = "summarise the minutes")]
    pub task: String,
    /// Who shall do it; the default agent otherwise. `GET /v1/agents` lists them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "echo")]
    pub agent: Option<String>,
    /// What the agent should know: an object of at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
    /// Ask a person before the start; no by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_approval: Option<bool>,
    /// How urgent, `P1` to `P3`; `P2` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Timed out after this moment, which must be in the future.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Start no sooner than after this time: `30s`, `15m`, `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "30s")]
    pub delay: Option<String>,
    /// What it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1_000_000)]
    pub budget_usd: Option<f64>,
    /// How many tokens of its model it may take, in and out together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000_000_000u64)]
    pub budget_tokens: Option<u64>,
    /// Your own notes, passed through: an object of at most 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// Why a body is no task request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Each wrong field.
    pub(crate) errors: Vec<FieldError>,
    /// The agent's name is sound, but nobody has it, and nothing else is wrong.
    pub(crate) agent_unknown: bool,
}

/// Reads the body as the request of the task `task_id`, submitted `now`.
pub(crate) fn read(body: Map<String, Value>, task_id: TaskId, agents: &Agents, now: Timestamp) -> Result<TaskRequested, Refusal> {
    let mut fields = Fields { body, errors: Vec::new() };
    let task = fields.task();
    let (agent, agent_unknown) = fields.agent(agents);
    let context = fields.object("context", CONTEXT_BYTES_MAX);
    let require_approval = fields.take("require_approval", "true or false", |value| value.as_bool()).unwrap_or_default();
    let priority = fields.take("priority", r#""P1", "P2" or "P3""#, priority).unwrap_or_default();
    let not_before = fields.take("delay", r#"a duration of at most 366 days, such as "30s" or "24h""#, |value| delay(value, now));
    let deadline = fields.deadline(now, not_before);
    let budget_usd = fields.take("budget_usd", "a number above 0 and at most 1000000", budget);
    let budget_tokens = fields
        .take("budget_tokens", "a whole number from 1 to 1000000000000", |value| value.as_u64().filter(|tokens| is_token_budget(*tokens)));
    let metadata = fields.object("metadata", METADATA_BYTES_MAX);
    fields.refuse_unknown();

    match task {
        Some(task) if fields.errors.is_empty() => Ok(TaskRequested {
            agent: Some(agent),
            context,
            require_approval,
            priority,
            budget_usd,
            budget_tokens,
            deadline,
            not_before,
            metadata,
            ..TaskRequested::new(task_id, task, Origin::Http, now)
        }),
        _ => Err(Refusal { agent_unknown: agent_unknown && fields.errors.len() == 1, errors: fields.errors }),
    }
}

/// The fields that are not read yet, and what was wrong with the others.
struct Fields {
    body: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        // JSON Pointer (RFC 6901).
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.errors.push(FieldError { pointer, detail: detail.into() });
    }

    /// Takes a field out of the body; `null` is absent.
    fn remove(&mut self, name: &str) -> Option<Value> {
        self.body.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must have a certain form.
    fn take<T>(&mut self, name: &str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.remove(name)?;
        let taken = read(&value);
        if taken.is_none() {
            self.refuse(name, format!("expected {expected}"));
        }
        taken
    }

    fn task(&mut self) -> Option<String> {
        let expected = format!("expected a text of 1 to {TASK_CHARS_MAX} characters");
        let Some(Value::String(task)) = self.remove("task") else {
            self.refuse("task", expected);
            return None;
        };
        // Bytes bound characters from above, so that a usual task is not counted.
        let chars = if task.len() <= TASK_CHARS_MAX { task.len() } else { task.chars().count() };
        if chars > TASK_CHARS_MAX {
            self.refuse("task", format!("{expected}, not {chars}; pass what is long as context or by reference"));
        } else if task.trim().is_empty() {
            self.refuse("task", format!("{expected} that are not all spaces"));
        } else {
            return Some(task);
        }
        None
    }

    /// The agent's name, or the default's; and whether it is one that nobody has.
    fn agent(&mut self, agents: &Agents) -> (String, bool) {
        let known = || agents.agents.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        match self.remove("agent") {
            None => (agents.default.to_string(), false),
            Some(Value::String(name)) if agents.agents.contains_key(name.as_str()) => (name, false),
            Some(Value::String(_)) => {
                self.refuse("agent", format!("there is no such agent; there are: {}", known()));
                (String::new(), true)
            }
            Some(_) => {
                self.refuse("agent", format!("expected one of: {}", known()));
                (String::new(), false)
            }
        }
    }

    fn object(&mut self, name: &str, bytes_max: usize) -> Map<String, Value> {
        let expected = format!("expected an object of at most {bytes_max} bytes as JSON");
        match self.remove(name) {
            None => return Map::new(),
            Some(Value::Object(map)) => {
                let bytes = json_bytes(&map);
                if bytes <= bytes_max {
                    return map;
                }
                self.refuse(name, format!("{expected}, not {bytes}; pass large inputs by reference"));
            }
            Some(_) => self.refuse(name, expected),
        }
        Map::new()
    }

    fn deadline(&mut self, now: Timestamp, not_before: Option<Timestamp>) -> Option<Timestamp> {
        let expected = r#"a time in RFC 3339, such as "2030-01-31T12:00:00Z", in the future and within 366 days"#;
        let in_reach = |deadline: &Timestamp| *deadline > now && is_near(*deadline, now);
        let deadline = self.take("deadline", expected, |value| value.as_str()?.parse().ok().filter(in_reach))?;
        if not_before.is_some_and(|start| deadline <= start) {
            self.refuse("deadline", "the deadline is over before the delay is");
        }
        Some(deadline)
    }

    fn refuse_unknown(&mut self) {
        let unknown: Vec<String> = self.body.keys().take(UNKNOWN_NAMED_MAX).map(|name| name.chars().take(64).collect()).collect();
        for name in unknown {
            self.refuse(&name, format!("there is no such field; there are: {}", FIELDS.join(", ")));
        }
    }
}

fn priority(value: &Value) -> Option<Priority> {
    [Priority::P1, Priority::P2, Priority::P3].into_iter().find(|priority| Some(priority.as_str()) == value.as_str())
}

fn delay(value: &Value, now: Timestamp) -> Option<Timestamp> {
    let delay = parse_duration(value.as_str()?).filter(|delay| *delay <= AHEAD_MAX)?;
    ahead(now, delay)
}

fn budget(value: &Value) -> Option<f64> {
    value.as_f64().filter(|budget| is_budget(*budget))
}

fn ahead(now: Timestamp, wait: Duration) -> Option<Timestamp> {
    now.checked_add(jiff::SignedDuration::try_from(wait).ok()?).ok()
}

#[cfg(test)]
mod tests;
