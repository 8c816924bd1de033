//! An event about a task as one line for a person.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::hints::Hints;
use crate::output::{printable, shortened};

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

    /// When it happened.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }

    /// The status that this event gives the task, if it gives one.
    pub(super) fn status(&self) -> Option<&str> {
        self.text("status").filter(|_| self.event_type == "fte.status.changed")
    }

    pub(super) fn is_result(&self) -> bool {
        self.event_type.starts_with("fte.result.")
    }

    /// `09:15:02.123  running  agent writer`.
    pub(super) fn line(&self, task_id: &str, hints: &Hints) -> String {
        let time = self.time.parse::<jiff::Timestamp>().map_or_else(|_| self.time.clone(), |time| format!("{time:.3}"));
        let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock);
        let clock: String = clock.trim_end_matches('Z').chars().take(12).collect();
        let (word, detail) = self.words();
        // However long the question is: what to type is shown whole.
        let hint = self.hint(task_id, hints).map_or_else(String::new, |hint| format!(" → {hint}"));
        let line = format!("{clock:<12}  {word:<17}  {}{hint}", shortened(&detail, DETAIL_CHARS_MAX));
        printable(line.trim_end()).into_owned()
    }

    fn hint(&self, task_id: &str, hints: &Hints) -> Option<String> {
        what_to_do(task_id, self.status()?, self.text("agent"), self.data.get("approval"), hints)
    }

    fn words(&self) -> (String, String) {
        let agent = self.text("agent").map(|agent| format!("agent {agent}"));
        match self.event_type.as_str() {
            "fte.task.requested" => ("requested".to_owned(), joined([agent, self.text("task").map(str::to_owned)])),
            "fte.task.resumed" => ("resumed".to_owned(), joined([self.text("reason").map(str::to_owned), self.number("turn", "turn")])),
            "fte.status.changed" => (self.text("status").unwrap_or("?").to_owned(), self.status_detail()),
            "fte.sandbox.claimed" => {
                let warm = self.data.get("warm").and_then(Value::as_bool).unwrap_or(false);
                let warm = warm.then(|| "warm".to_owned());
                ("sandbox claimed".to_owned(), joined([agent, warm, self.number("waited_ms", "waited ms")]))
            }
            "fte.sandbox.released" => ("sandbox released".to_owned(), joined([self.text("reason").map(str::to_owned)])),
            "fte.sandbox.claim-failed" => ("sandbox failed".to_owned(), joined([agent, self.text("reason").map(str::to_owned)])),
            "fte.sandbox.expired" => ("sandbox expired".to_owned(), joined([self.text("reason").map(str::to_owned)])),
            "fte.handoff.requested" => ("handed off".to_owned(), joined([self.handed_on(), self.text("task").map(str::to_owned)])),
            "fte.handoff.withdrawn" => ("called off".to_owned(), joined([self.handed_on(), self.text("reason").map(str::to_owned)])),
            result if result.starts_with("fte.result.") => ("result".to_owned(), self.result_detail()),
            other => (other.strip_prefix("fte.").unwrap_or(other).to_owned(), String::new()),
        }
    }

    fn handed_on(&self) -> Option<String> {
        Some(format!("from {} to {}", self.text("from_agent")?, self.text("to_agent")?))
    }

    /// The hand-off that this step tells of, if it does.
    fn handoff(&self) -> Option<String> {
        let details = self.data.get("details")?;
        let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or("?").to_owned();
        if let Some(reply) = details.get("reply") {
            return Some(format!("{} has answered: {}", text(reply, "to"), text(reply, "status")));
        }
        let handoff = details.get("handoff")?;
        Some(format!("handed to {}, task {}", text(handoff, "to"), text(handoff, "task_id")))
    }

    /// Who answered the question before, if this step follows from that.
    fn decision(&self) -> Option<String> {
        let decision = self.data.get("details")?.get("decision")?;
        let word = if decision.get("approved")?.as_bool()? { "approved" } else { "rejected" };
        Some(format!("{word} by {}", decision.get("by")?.as_str()?))
    }

    fn status_detail(&self) -> String {
        let attempt = self.data.get("attempt").and_then(Value::as_u64).filter(|attempt| *attempt > 1).map(|n| format!("attempt {n}"));
        let progress = self.data.get("progress_pct").and_then(Value::as_u64).map(|pct| format!("{pct} %"));
        let error = self.data.get("error").and_then(|error| error.get("message")?.as_str()).map(str::to_owned);
        let question = self.data.get("approval").and_then(|approval| approval.get("reason")?.as_str()).map(str::to_owned);
        let said =
            self.data.get("details").and_then(|details| details.get("message")?.get("text")?.as_str()).map(|text| format!("told: {text}"));
        let agent = (self.status() == Some("running") && self.text("stage").is_none()).then(|| self.text("agent")).flatten();
        joined([
            agent.map(|agent| format!("agent {agent}")),
            attempt,
            self.decision(),
            self.text("stage").map(str::to_owned),
            progress,
            self.text("message").map(str::to_owned),
            error,
            question,
            self.handoff(),
            said,
        ])
    }

    fn result_detail(&self) -> String {
        let duration = self.number("duration_ms", "in ms");
        joined([self.text("status").map(str::to_owned), duration])
    }

    fn number(&self, field: &str, label: &str) -> Option<String> {
        self.data.get(field).and_then(Value::as_u64).map(|number| match label.split_once(" ms") {
            Some((before, _)) => format!("{before} {number} ms"),
            None => format!("{label} {number}"),
        })
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

    fn check(event: &str, expected: &str) {
        let event: Event = serde_json::from_str(event).unwrap();
        assert_eq!(event.line("T", &Hints::default()), expected);
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
        let line = serde_json::from_str::<Event>(&asked).unwrap().line("T", &Hints::default());
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
            "              result             completed, in 12 ms",
        );
        check(r#"{"type":"fte.something.new","data":{}}"#, "              something.new");
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
