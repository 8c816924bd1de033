//! What people say to a task while it is under way.
//!
//! Always true: a message is in the document before its sender has a 2xx, and stays there until a checkpoint of the agent says that it includes it, or the
//! task ends; each session of the agent is told all that are there, in their order. So an agent that starts over hears what it had heard before, and tells
//! it by its id. (To take a message for heard with the next checkpoint, as with answers, lost: an agent may have written that checkpoint before it read the
//! message, and nobody waits for a message as one waits for an answer.)

use fte_events::limits::json_bytes;
use fte_events::{ActionOutcome, Actor, ActorType, json_sha256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::TaskDoc;

/// Most messages that wait, or were told and are in no checkpoint.
const WAITING_MAX: usize = 50;
/// Most bytes of them, as JSON.
const WAITING_BYTES_MAX: usize = 128 * 1024;
/// Most messages of a task in all: their ids are remembered until its end.
pub const MESSAGES_MAX: usize = 200;
/// So much of a message's text is shown in the task's events.
const SHOWN_CHARS_MAX: usize = 1000;

/// A message to a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id within the task.
    pub id: String,
    /// In words.
    pub text: String,
    /// And as data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// What the agent does now is to wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupt: bool,
    /// Who says it.
    pub from: String,
    /// A session of the agent was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// A message that was accepted: who sends it again is told so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its id.
    pub id: String,
    /// What it says, as a digest.
    pub sha256: String,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Too many, or too large ones, are in no checkpoint yet.
    Waiting,
    /// The task has had all that it may have.
    Task,
}

impl Message {
    /// What tells one message from another.
    pub fn sha256(&self) -> String {
        json_sha256(&json!([self.text, self.data]))
    }
}

impl TaskDoc {
    /// What was accepted under this id, as a digest.
    pub fn accepted(&self, id: &str) -> Option<&str> {
        self.accepted.iter().find(|accepted| accepted.id == id).map(|accepted| accepted.sha256.as_str())
    }

    /// Takes a message in; whoever owns the task tells its agent.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn accept(&mut self, now: Timestamp, message: Message) -> Result<(), NoRoom> {
        if self.accepted.len() >= MESSAGES_MAX {
            return Err(NoRoom::Task);
        }
        let bytes: usize = self.messages.iter().map(json_bytes).sum();
        if self.messages.len() >= WAITING_MAX || bytes + json_bytes(&message) > WAITING_BYTES_MAX {
            return Err(NoRoom::Waiting);
        }
        let sha256 = message.sha256();
        self.say_message(now, "message.accepted", Actor::new(ActorType::User, &message.from), ActionOutcome::Success, &message);
        self.accepted.push(Accepted { id: message.id.clone(), sha256 });
        self.messages.push(message);
        Ok(())
    }

    /// The agent is told this message. Shown once, however often it has to be told.
    pub fn tell_message(&mut self, now: Timestamp, id: &str) {
        let Some(message) = self.messages.iter_mut().find(|message| message.id == id && !message.told) else { return };
        message.told = true;
        let text: String = message.text.chars().take(SHOWN_CHARS_MAX).collect();
        let shown = json!({ "id": message.id, "from": message.from, "text": text });
        let at_work = self.status_at_work(false);
        self.say_status(now, at_work, |event| drop(event.details.insert("message".to_owned(), shown)));
    }

    /// A checkpoint includes these messages: they are not told again.
    pub fn confirm_messages(&mut self, ids: &[String]) {
        self.messages.retain(|message| !message.told || !ids.contains(&message.id));
    }

    /// Whether a message waits that no session was told.
    pub fn has_news(&self) -> bool {
        self.messages.iter().any(|message| !message.told)
    }

    /// The task ends: what nobody was told is on record.
    pub(super) fn drop_messages(&mut self, now: Timestamp) {
        for message in std::mem::take(&mut self.messages) {
            if !message.told {
                let runner = Actor::new(ActorType::Service, super::SERVICE);
                self.say_message(now, "message.undelivered", runner, ActionOutcome::Failure, &message);
            }
        }
    }

    fn say_message(&mut self, now: Timestamp, action: &str, actor: Actor, outcome: ActionOutcome, message: &Message) {
        self.say_action(now, action, actor, outcome, |event| {
            event.resource = Some(message.id.clone());
            event.input_sha256 = Some(message.sha256());
        });
    }
}

#[cfg(test)]
mod tests {
    use fte_events::{ResultKind, TaskId};

    use super::super::{End, Report};
    use super::*;

    fn message(id: &str, text: &str) -> Message {
        Message { id: id.to_owned(), text: text.to_owned(), data: None, interrupt: false, from: "ada".to_owned(), told: false }
    }

    fn records(doc: &TaskDoc, action: &str) -> usize {
        doc.outbox.iter().filter(|event| event.body.get().contains(action)).count()
    }

    #[test]
    fn a_message_stays_until_a_checkpoint_names_it() {
        let now = Timestamp::now();
        let mut doc = TaskDoc::blank(TaskId::now());
        doc.accept(now, message("a", "first")).unwrap();
        doc.accept(now, message("b", "second")).unwrap();
        doc.confirm_messages(&["a".to_owned()]);
        assert_eq!(doc.messages.len(), 2, "nobody has heard it yet");
        doc.tell_message(now, "a");
        doc.tell_message(now, "a");
        assert_eq!(records(&doc, r#""message":{"#), 1, "it is shown once");
        doc.report(now, Report { checkpoint: Some((json!(1), vec![])), ..Report::default() });
        assert_eq!(doc.messages.len(), 2, "a checkpoint that does not name it may be older than it");
        doc.report(now, Report { heard: vec!["a".to_owned()], ..Report::default() });
        assert_eq!(doc.messages.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(doc.accepted("a").is_some(), "it is known if it is sent again");
        assert_eq!(records(&doc, "message.accepted"), 2);
        assert!(!doc.outbox.iter().any(|event| event.topic == "fte.audit.actions" && event.body.get().contains("second")), "no text there");
    }

    #[test]
    fn what_nobody_was_told_is_on_record_at_the_end() {
        let now = Timestamp::now();
        let mut doc = TaskDoc::blank(TaskId::now());
        doc.accept(now, message("a", "first")).unwrap();
        doc.accept(now, message("b", "second")).unwrap();
        doc.tell_message(now, "a");
        doc.end(now, End::error(ResultKind::Cancelled, "cancelled", "x"));
        assert_eq!(records(&doc, "message.undelivered"), 1);
        assert!(doc.messages.is_empty());
    }

    #[test]
    fn messages_are_bounded_in_number_and_size() {
        let now = Timestamp::now();
        let mut doc = TaskDoc::blank(TaskId::now());
        let large = "x".repeat(60_000);
        doc.accept(now, message("1", &large)).unwrap();
        doc.accept(now, message("2", &large)).unwrap();
        assert_eq!(doc.accept(now, message("3", &large)), Err(NoRoom::Waiting));
        for n in 0..MESSAGES_MAX - 2 {
            doc.messages.clear();
            doc.accept(now, message(&format!("n{n}"), "x")).unwrap();
        }
        doc.messages.clear();
        assert_eq!(doc.accept(now, message("last", "x")), Err(NoRoom::Task));
        let mut doc = TaskDoc::blank(TaskId::now());
        for n in 0..WAITING_MAX {
            doc.accept(now, message(&n.to_string(), "x")).unwrap();
        }
        assert_eq!(doc.accept(now, message("more", "x")), Err(NoRoom::Waiting));
    }
}
