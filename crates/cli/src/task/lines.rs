//! What happens to a task as lines for a person: each change once, however many events tell of it.

use fte_events::Status;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::hints::Hints;
use crate::output::{printable, shortened, took};

/// What the commands read of a CloudEvent.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type", default)]
    pub(super) event_type: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    pub(super) data: Value,
}

const DETAIL_CHARS_MAX: usize = 160;

impl Event {
    fn text(&self, field: &str) -> Option<&str> {
        self.data.get(field)?.as_str()
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.data.get(field)?.as_u64()
    }

    fn detail(&self, field: &str) -> Option<&Value> {
        self.data.get("details")?.get(field)
    }

    /// When it happened.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// The status that this event gives the task, if it gives one.
    pub(super) fn status(&self) -> Option<&str> {
        self.text("status").filter(|_| self.event_type == "fte.status.changed")
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.status().and_then(|status| status.parse::<Status>().ok()).is_some_and(Status::is_terminal)
    }

    pub(super) fn is_result(&self) -> bool {
        self.event_type.starts_with("fte.result.")
    }

    /// Its place among what happened at the same time, where one follows from the other. `ends` says that its task ended then.
    pub(super) fn place(&self, ends: bool) -> (u8, u64) {
        match self.event_type.as_str() {
            "fte.task.requested" | "fte.handoff.requested" => (0, 0),
            "fte.sandbox.released" | "fte.sandbox.expired" if !ends => (1, 0),
            "fte.sandbox.claimed" | "fte.sandbox.claim-failed" => (2, 0),
            "fte.status.changed" => (3, self.number("sequence").unwrap_or_default()),
            _ if self.is_result() => (5, 0),
            "fte.sandbox.released" | "fte.sandbox.expired" => (6, 0),
            _ => (4, 0),
        }
    }

    fn reason(&self) -> Option<String> {
        self.text("reason").map(str::to_owned)
    }

    fn handed_on(&self) -> Option<String> {
        Some(format!("from {} to {}", self.text("from_agent")?, self.text("to_agent")?))
    }

    /// The hand-off that this step tells of, if it does.
    fn handoff(&self) -> Option<String> {
        let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
        if let Some(reply) = self.detail("reply") {
            return Some(format!("{} has answered: {}", text(reply, "to"), text(reply, "status")));
        }
        let handoff = self.detail("handoff")?;
        Some(format!("handed to {}, task {}", text(handoff, "to"), text(handoff, "task_id")))
    }

    /// What the agent did, made or said in this step.
    fn deed(&self) -> Option<String> {
        let action = self.detail("action").and_then(Value::as_str).map(|action| format!("action {action}"));
        let artifact = self.detail("artifact").and_then(|artifact| artifact.get("name")?.as_str()).map(|name| format!("made {name}"));
        let log = self.detail("log").and_then(Value::as_array).map(|lines| {
            let lines: Vec<_> = lines.iter().filter_map(Value::as_str).collect();
            lines.join(" / ")
        });
        let told = self.detail("message").and_then(|message| message.get("text")?.as_str()).map(|text| format!("told: {text}"));
        Some(joined([action, artifact, log, told]))
    }
}

/// What a person has been told of a task.
#[derive(Debug)]
pub(super) struct Story<'a> {
    task_id: &'a str,
    hints: &'a Hints,
    /// When it ended, and how.
    ended: Option<(Option<Timestamp>, String)>,
    /// When it was taken up again last, and why.
    resumed: Option<(Option<Timestamp>, String)>,
    /// When it was queued last.
    queued: Option<Timestamp>,
    said: Said,
}

/// The last that was said of each.
#[derive(Debug, Default)]
struct Said {
    status: String,
    detail: String,
    agent: String,
    attempt: u64,
    stage: String,
    progress_pct: Option<u64>,
    /// The number of the question that was asked.
    question: u64,
    decision: String,
}

impl<'a> Story<'a> {
    pub(super) fn new(task_id: &'a str, hints: &'a Hints) -> Self {
        let said = Said { attempt: 1, ..Said::default() };
        Self { task_id, hints, ended: None, resumed: None, queued: None, said }
    }

    /// The lines of events that came together: `09:15:02.123  running  agent writer`.
    pub(super) fn lines<'e>(&mut self, events: impl Iterator<Item = &'e Event> + Clone) -> Vec<String> {
        // Several topics tell of one change, and none waits for the others.
        events.clone().for_each(|event| self.hear(event));
        events.filter_map(|event| self.line(event)).collect()
    }

    fn hear(&mut self, event: &Event) {
        if event.is_result() {
            self.ended = Some((event.at(), event.text("status").unwrap_or("?").to_owned()));
        } else if event.event_type == "fte.task.resumed" {
            self.resumed = Some((event.at(), event.text("reason").unwrap_or_default().replace('_', " ")));
        } else if event.status() == Some("queued") {
            self.queued = event.at();
        }
    }

    fn line(&mut self, event: &Event) -> Option<String> {
        let time = fte_bus::time::normal(&event.time);
        let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock);
        let clock: String = clock.trim_end_matches('Z').chars().take(12).collect();
        let (word, detail) = if event.status().is_some() { self.step(event)? } else { self.words(event)? };
        // However long the question is: what to type is shown whole.
        let hint = self.hint(event).map_or_else(String::new, |hint| format!(" → {hint}"));
        let line = format!("{clock:<12}  {word:<17}  {}{hint}", shortened(&detail, DETAIL_CHARS_MAX));
        Some(printable(line.trim_end()).into_owned())
    }

    /// What a step asks a person to do. What an agent reports while it waits asks nothing new.
    fn hint(&self, event: &Event) -> Option<String> {
        let (status, approval) = (event.status()?, event.data.get("approval"));
        if status == "awaiting_approval" && approval.is_none() {
            return None;
        }
        what_to_do(self.task_id, status, event.text("agent"), approval, self.hints)
    }

    fn words(&mut self, event: &Event) -> Option<(String, String)> {
        let text = |field: &str| event.text(field).map(str::to_owned);
        let (word, detail) = match event.event_type.as_str() {
            "fte.task.requested" => ("requested", joined([self.agent(event), text("task")])),
            // The step that queues it says so, too.
            "fte.task.resumed" if self.queued.is_some() && self.queued == event.at() => return None,
            "fte.task.resumed" => {
                let reason = text("reason").unwrap_or_default().replace('_', " ");
                (self.said.status, self.said.detail) = ("queued".to_owned(), reason.clone());
                ("queued", reason)
            }
            "fte.sandbox.claimed" => {
                let warm = event.data.get("warm").and_then(Value::as_bool).unwrap_or(false);
                let waited = event.number("waited_ms").filter(|ms| *ms > 0).map(|ms| format!("waited {}", took(ms)));
                ("sandbox claimed", joined([self.agent(event), warm.then(|| "warm".to_owned()), waited]))
            }
            "fte.sandbox.released" => ("sandbox released", self.given_back(event).unwrap_or_default()),
            "fte.sandbox.claim-failed" => ("sandbox failed", joined([self.agent(event), event.reason()])),
            "fte.sandbox.expired" => ("sandbox expired", event.reason().unwrap_or_default()),
            "fte.handoff.requested" => ("handed off", joined([event.handed_on(), text("task")])),
            "fte.handoff.withdrawn" => ("called off", joined([event.handed_on(), event.reason()])),
            _ if event.is_result() => {
                // One that never began took no time.
                let took = event.number("duration_ms").filter(|ms| *ms > 0).map(|ms| format!("in {}", took(ms)));
                (event.text("status").unwrap_or("?"), took.unwrap_or_default())
            }
            other => (other.strip_prefix("fte.").unwrap_or(other), joined([text("schedule"), text("task_type"), text("date")])),
        };
        Some((word.to_owned(), detail))
    }

    /// Why it was given back: a task that ends other than by failing says so with more words than a sandbox has.
    fn given_back(&self, event: &Event) -> Option<String> {
        let reason = event.reason()?;
        let ended = self.ended.as_ref().filter(|(at, _)| reason == "failed" && at.is_some() && *at == event.at());
        Some(ended.map_or(reason, |(_, status)| status.clone()))
    }

    /// A step of the task, as far as it is news.
    fn step(&mut self, event: &Event) -> Option<(String, String)> {
        // Its result says so, too.
        if event.is_terminal() {
            return None;
        }
        let status = event.status().unwrap_or("?").to_owned();
        let number = event.data.get("approval").and_then(|approval| approval.get("question")?.as_u64());
        let is_new = status != self.said.status || number.is_some_and(|number| number != self.said.question);
        let attempt = event.number("attempt").filter(|attempt| *attempt != self.said.attempt);
        if attempt.is_some() {
            // Each try begins anew.
            (self.said.stage, self.said.progress_pct) = (String::new(), None);
        }
        let stage = event.text("stage").filter(|stage| *stage != self.said.stage).map(str::to_owned);
        let progress_pct = event.number("progress_pct").filter(|pct| Some(*pct) != self.said.progress_pct);
        let agent = if status == "running" && event.text("stage").is_none() { self.agent(event) } else { None };
        let error = event.data.get("error").and_then(|error| error.get("message")?.as_str()).map(str::to_owned);
        let question = event.data.get("approval").and_then(|approval| approval.get("reason")?.as_str()).map(str::to_owned);
        let decision = self.decision(event);
        let detail = joined([
            agent,
            attempt.map(|attempt| format!("attempt {attempt}")),
            self.why_queued(event, decision.is_some()),
            decision,
            stage.clone(),
            progress_pct.map(|pct| format!("{pct} %")),
            event.text("message").map(str::to_owned),
            event.deed(),
            error,
            question,
            event.handoff(),
        ]);
        let said = &mut self.said;
        said.attempt = attempt.unwrap_or(said.attempt);
        said.progress_pct = progress_pct.or(said.progress_pct);
        said.question = number.unwrap_or(said.question);
        if let Some(stage) = stage {
            said.stage = stage;
        }
        if !is_new && (detail.is_empty() || detail == said.detail) {
            return None;
        }
        (said.status, said.detail) = (status.clone(), detail.clone());
        Some((status, detail))
    }

    /// Who does it, where that has not been said.
    fn agent(&mut self, event: &Event) -> Option<String> {
        let agent = event.text("agent").filter(|agent| *agent != self.said.agent)?;
        agent.clone_into(&mut self.said.agent);
        Some(format!("agent {agent}"))
    }

    /// Who answered the question before, if this step follows from that.
    fn decision(&mut self, event: &Event) -> Option<String> {
        let decision = event.detail("decision")?;
        let word = if decision.get("approved")?.as_bool()? { "approved" } else { "rejected" };
        let said = format!("{word} by {}", decision.get("by")?.as_str()?);
        // Said when it is queued, and again when its agent hears of it.
        let known = format!("{} {said}", decision.get("question").and_then(Value::as_u64).unwrap_or_default());
        if known == self.said.decision {
            return None;
        }
        self.said.decision = known;
        Some(said)
    }

    fn why_queued(&self, event: &Event, is_decided: bool) -> Option<String> {
        let (at, reason) = self.resumed.as_ref().filter(|_| event.status() == Some("queued") && !is_decided)?;
        (at.is_some() && *at == event.at()).then(|| reason.clone())
    }
}

/// What a person can do about a task that waits for one: to answer this question, and no later one, or to reply.
pub(crate) fn what_to_do(task_id: &str, status: &str, agent: Option<&str>, approval: Option<&Value>, hints: &Hints) -> Option<String> {
    match status {
        "awaiting_approval" => {
            let question = approval.and_then(|approval| approval.get("question")?.as_u64());
            let question = question.map_or_else(String::new, |number| format!(" --question {number}"));
            let link = approval.and_then(|approval| approval.get("link")?.as_str());
            let link = link.map_or_else(String::new, |link| format!("{link} or "));
            Some(format!("{link}{}   (or with --reject)", hints.line(format_args!("approve {task_id}{question}"))))
        }
        "awaiting_handoff" if agent == Some("human") => Some(hints.line(format_args!("reply {task_id} RESULT"))),
        _ => None,
    }
}

/// The result of a result event as text: what the agent said, or why there is none.
pub(super) fn result_text(data: &Value) -> String {
    let error = || {
        let error = data.get("error")?;
        let code = error.get("code").and_then(Value::as_str).unwrap_or("error");
        Some(format!("{code}: {}", error.get("message").and_then(Value::as_str).unwrap_or_default()))
    };
    let text = match data.get("result") {
        None | Some(Value::Null) => error().unwrap_or_default(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    printable(&text).into_owned()
}

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(events: &[&str]) -> Vec<String> {
        let events: Vec<Event> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        Story::new("T", &Hints::default()).lines(events.iter())
    }

    fn check(event: &str, expected: &str) {
        assert_eq!(lines(&[event]), [expected]);
    }

    #[test]
    fn events_read_as_lines() {
        check(
            r#"{"type":"fte.task.requested","time":"2026-01-02T09:15:02.123456Z","data":{"task":"Say\nhello","agent":"echo"}}"#,
            "09:15:02.123  requested          agent echo, Say hello",
        );
        check(
            r#"{"type":"fte.status.changed","time":"2026-01-02T09:15:02Z","data":{"status":"running","attempt":2,"stage":"drafting","progress_pct":40}}"#,
            "09:15:02.000  running            attempt 2, drafting, 40 %",
        );
        check(
            r#"{"type":"fte.status.changed","time":"","data":{"status":"awaiting_approval","attempt":1,"approval":{"reason":"costs 5 USD"}}}"#,
            "              awaiting_approval  costs 5 USD → fte approve T   (or with --reject)",
        );
        check(
            r#"{"type":"fte.status.changed","data":{"status":"awaiting_approval","approval":{"question":2}}}"#,
            "              awaiting_approval   → fte approve T --question 2   (or with --reject)",
        );
        check(
            r#"{"type":"fte.status.changed","data":{"status":"awaiting_approval","approval":{"question":2,"link":"http://h/v1/approvals/T"}}}"#,
            "              awaiting_approval   → http://h/v1/approvals/T or fte approve T --question 2   (or with --reject)",
        );
        check(
            r#"{"type":"fte.status.changed","data":{"status":"queued","details":{"decision":{"question":1,"approved":true,"by":"ada"}}}}"#,
            "              queued             approved by ada",
        );
        let long = "x".repeat(500);
        let asked = format!(r#"{{"type":"fte.status.changed","data":{{"status":"awaiting_approval","approval":{{"reason":"{long}"}}}}}}"#);
        let line = lines(&[&asked]).remove(0);
        assert!(line.chars().count() < 250 && line.ends_with("… → fte approve T   (or with --reject)"), "{line}");
        check(
            r#"{"type":"fte.sandbox.claimed","data":{"agent":"echo","warm":true,"waited_ms":3}}"#,
            "              sandbox claimed    agent echo, warm, waited 3 ms",
        );
        check(
            r#"{"type":"fte.sandbox.claim-failed","data":{"agent":"echo","reason":"failed"}}"#,
            "              sandbox failed     agent echo, failed",
        );
        check(
            r#"{"type":"fte.result.completed","data":{"status":"completed","duration_ms":12}}"#,
            "              completed          in 12 ms",
        );
        check(r#"{"type":"fte.schedule.fired","data":{"schedule":"weekly"}}"#, "              schedule.fired     weekly");
        check(r#"{"type":"fte.something.new","data":{}}"#, "              something.new");
    }

    /// What is told of these events, without the times: `at` says which happened together.
    fn told(events: &[(u32, &str, &str)]) -> Vec<String> {
        let event =
            |(at, kind, data): &(u32, &str, &str)| format!(r#"{{"type":"fte.{kind}","time":"2026-01-02T09:15:{at:02}Z","data":{data}}}"#);
        let events: Vec<String> = events.iter().map(event).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let words = |line: String| line[14..].split_whitespace().collect::<Vec<_>>().join(" ");
        lines(&events).into_iter().map(words).collect()
    }

    #[test]
    fn each_change_is_one_line_however_many_events_tell_of_it() {
        let running = r#"{"status":"running","agent":"a","stage":"drafting","progress_pct":40}"#;
        let decided = r#"{"status":"queued","agent":"a","stage":"drafting","progress_pct":40,"details":{"decision":{"question":1,"approved":true,"by":"ada"}}}"#;
        let heard = decided.replace("queued", "running");
        let made = running.replace('}', r#","details":{"artifact":{"name":"draft.md"}}}"#);
        let events = [
            (1, "task.requested", r#"{"task":"write","agent":"a"}"#),
            (2, "sandbox.claimed", r#"{"agent":"a","waited_ms":0}"#),
            (2, "status.changed", r#"{"status":"running","agent":"a"}"#),
            (3, "status.changed", running),
            // It said what it costs, and nothing that is shown.
            (4, "status.changed", running),
            (5, "status.changed", &made),
            (
                6,
                "status.changed",
                r#"{"status":"awaiting_approval","agent":"a","stage":"drafting","progress_pct":40,"approval":{"reason":"ok?"}}"#,
            ),
            (7, "sandbox.released", r#"{"reason":"parked"}"#),
            (8, "task.resumed", r#"{"reason":"approved","turn":1}"#),
            (8, "status.changed", decided),
            (9, "status.changed", &heard),
            (10, "status.changed", r#"{"status":"completed","agent":"a"}"#),
            (10, "result.completed", r#"{"status":"completed","duration_ms":9}"#),
            (10, "sandbox.released", r#"{"reason":"completed"}"#),
        ];
        let expected = [
            "requested agent a, write",
            "sandbox claimed",
            "running",
            "running drafting, 40 %",
            "running made draft.md",
            "awaiting_approval ok? → fte approve T (or with --reject)",
            "sandbox released parked",
            "queued approved by ada",
            "running",
            "completed in 9 ms",
            "sandbox released completed",
        ];
        assert_eq!(told(&events), expected);
    }

    #[test]
    fn what_is_reported_beside_a_question_does_not_ask_it_again_and_each_try_begins_anew() {
        let asked = |number: u32| format!(r#"{{"status":"awaiting_approval","approval":{{"question":{number},"reason":"ok?"}}}}"#);
        let (first, second) = (asked(1), asked(2));
        let events = [
            (1, "status.changed", &*first),
            (2, "status.changed", r#"{"status":"awaiting_approval"}"#),
            (3, "status.changed", r#"{"status":"awaiting_approval","stage":"reading"}"#),
            (4, "status.changed", &*second),
            (5, "status.changed", r#"{"status":"queued","attempt":2,"error":{"code":"x","message":"exit 1"}}"#),
            (6, "status.changed", r#"{"status":"running","attempt":2,"stage":"reading"}"#),
        ];
        let expected = [
            "awaiting_approval ok? → fte approve T --question 1 (or with --reject)",
            "awaiting_approval reading",
            "awaiting_approval ok? → fte approve T --question 2 (or with --reject)",
            "queued attempt 2, exit 1",
            "running reading",
        ];
        assert_eq!(told(&events), expected);
    }

    #[test]
    fn why_a_task_was_taken_up_again_is_said_once_in_whatever_order_it_comes() {
        let resumed = (3, "task.resumed", r#"{"reason":"handoff_replied","turn":1}"#);
        let queued = (3, "status.changed", r#"{"status":"queued"}"#);
        assert_eq!(told(&[queued, resumed]), ["queued handoff replied"]);
        assert_eq!(told(&[resumed, queued]), ["queued handoff replied"]);
        assert_eq!(told(&[(2, "status.changed", r#"{"status":"queued"}"#), resumed]), ["queued", "queued handoff replied"]);
    }

    #[test]
    fn a_sandbox_is_given_back_for_what_its_task_ended_as() {
        let back = |at| (at, "sandbox.released", r#"{"reason":"failed"}"#);
        let result = (3, "result.rejected", r#"{"status":"rejected","duration_ms":9}"#);
        assert_eq!(told(&[back(3), result]), ["sandbox released rejected", "rejected in 9 ms"]);
        assert_eq!(told(&[result, back(3)]), ["rejected in 9 ms", "sandbox released rejected"]);
        // A try that failed before.
        assert_eq!(told(&[back(1), result]), ["sandbox released failed", "rejected in 9 ms"]);
    }

    #[test]
    fn a_result_is_what_the_agent_said_or_why_there_is_none() {
        let text = |json: &str| result_text(&serde_json::from_str(json).unwrap());
        assert_eq!(text(r#"{"result":"hello\nyou"}"#), "hello\nyou");
        assert_eq!(text(r#"{"result":{"a":1}}"#), "{\n  \"a\": 1\n}");
        assert_eq!(text(r#"{"error":{"code":"agent_crashed","message":"exit 1"}}"#), "agent_crashed: exit 1");
        assert_eq!(text("{}"), "");
    }
}
