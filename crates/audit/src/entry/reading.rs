//! What the log needs to know of an event, read from its bytes without copying them and without a tree of values.
//!
//! Reading is as lenient as it can be: an attribute of an unexpected form counts as absent, an unknown one is skipped, of a repeated one the
//! last counts. Only what has no identity is no event: bytes that are not a JSON object, or an object without a text `id` and `source`.
//! Everything here is a pure function of the bytes, so that an index made from it can be made again.

use std::borrow::Cow;
use std::fmt;

use fte_events::decode::is_occasion;
use fte_events::{ResultKind, TENANT, TaskId, triggers};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::entry::Task;
use crate::subjects::ERASURE;

/// An event as far as the log looks into it.
#[derive(Debug, Default, PartialEq)]
pub struct Reading<'a> {
    pub id: Cow<'a, str>,
    pub source: Cow<'a, str>,
    /// Empty when there is none.
    pub event_type: Cow<'a, str>,
    pub subject: Option<Cow<'a, str>>,
    pub time: Option<Cow<'a, str>>,
    /// The counter of (`source`, `epoch`) on the actions topic.
    pub sequence: Option<Cow<'a, str>>,
    pub epoch: Option<Cow<'a, str>>,
    pub tenant: Option<Cow<'a, str>>,
    pub data: Data<'a>,
}

/// The fields of `data` that entries are found by.
#[derive(Debug, Default, PartialEq)]
pub struct Data<'a> {
    pub task_id: Option<Cow<'a, str>>,
    pub agent: Option<Cow<'a, str>>,
    pub action: Option<Cow<'a, str>>,
    /// `actor.id`, or `actor` itself where it is text.
    pub actor: Option<Cow<'a, str>>,
    /// `requester.id`, or `requester` itself where it is text.
    pub requester: Option<Cow<'a, str>>,
    /// What kind of actor and requester.
    pub actor_type: Option<Cow<'a, str>>,
    pub requester_type: Option<Cow<'a, str>>,
    /// `customer.id`.
    pub customer: Option<Cow<'a, str>>,
    pub parent_task_id: Option<Cow<'a, str>>,
    /// Of a request for erasure: who is to be forgotten.
    pub subject: Option<Cow<'a, str>>,
    pub outcome: Option<Cow<'a, str>>,
    /// The number of a status change.
    pub sequence: Option<u64>,
}

impl<'a> Reading<'a> {
    /// Reads an event; `None` for what has no identity.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        // Checked once for the whole body, which is cheaper than once for each text in it.
        let text = std::str::from_utf8(bytes).ok()?;
        let mut json = serde_json::Deserializer::from_str(text);
        let reading = json.deserialize_map(EnvelopeVisitor).ok()?;
        json.end().ok()?;
        (!reading.id.is_empty() && !reading.source.is_empty()).then_some(reading)
    }

    /// The task it is about: `subject`, else `task_id` in the data, else, for a trigger that starts one, the id made from its identity; for an occasion always the last. A
    /// subject that is no id of a task is taken last.
    pub fn task(&self, topic: &str) -> Option<Task> {
        let by_id = |text: &Option<Cow<'_, str>>| text.as_deref().and_then(|text| Uuid::try_parse(text).ok()).map(Task::Id);
        // What an occasion names is nobody's task.
        let named = by_id(&self.subject).or_else(|| by_id(&self.data.task_id)).filter(|_| !is_occasion(&self.event_type));
        // A request to forget somebody starts none.
        let starts = topic == triggers::TOPIC && self.event_type != ERASURE;
        let started = || starts.then(|| Task::Id(*TaskId::from_source(&self.source, &self.id).as_uuid()));
        let text = || self.subject.as_deref().or(self.data.task_id.as_deref()).filter(|text| !text.is_empty()).map(Task::from);
        named.or_else(started).or_else(text)
    }

    /// Whose it is.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(TENANT)
    }

    pub fn agent(&self) -> Option<&str> {
        self.data.agent.as_deref()
    }

    /// What was done, in the words of the event; its type says it too.
    pub fn action(&self) -> Option<&str> {
        self.data.action.as_deref()
    }

    /// Who acted or asked.
    pub fn actor(&self) -> Option<&str> {
        self.data.actor.as_deref().or(self.data.requester.as_deref())
    }

    /// How it ended: in the words of the event, or by the kind of a result.
    pub fn outcome(&self) -> Option<&str> {
        if let Some(outcome) = &self.data.outcome {
            return Some(outcome);
        }
        Some(match ResultKind::from_event_type(&self.event_type)? {
            ResultKind::Completed => "success",
            ResultKind::Rejected => "denied",
            ResultKind::Failed | ResultKind::Cancelled | ResultKind::TimedOut | ResultKind::BudgetExceeded => "failure",
        })
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Reading<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut reading = Reading::default();
        while let Some(name) = map.next_key::<Name>()? {
            match name {
                Name::Id => reading.id = map.next_value::<Text<'_>>()?.0.unwrap_or_default(),
                Name::Source => reading.source = map.next_value::<Text<'_>>()?.0.unwrap_or_default(),
                Name::Type => reading.event_type = map.next_value::<Text<'_>>()?.0.unwrap_or_default(),
                Name::Subject => reading.subject = map.next_value::<Text<'_>>()?.0,
                Name::Time => reading.time = map.next_value::<Text<'_>>()?.0,
                Name::Sequence => reading.sequence = map.next_value::<Text<'_>>()?.0,
                Name::Epoch => reading.epoch = map.next_value::<Text<'_>>()?.0,
                Name::Tenant => reading.tenant = map.next_value::<Text<'_>>()?.0,
                Name::Data => reading.data = map.next_value()?,
                _ => skip(&mut map)?,
            }
        }
        Ok(reading)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

/// A value that is absent when it is none of the forms that its visitor knows.
macro_rules! else_absent {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON")
        }
        fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Self::Value::default())
        }
    };
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;
    else_absent!();

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Data::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut data = Data::default();
        while let Some(name) = map.next_key::<Name>()? {
            match name {
                Name::TaskId => data.task_id = map.next_value::<Text<'_>>()?.0,
                Name::Agent => data.agent = map.next_value::<Text<'_>>()?.0,
                Name::Action => data.action = map.next_value::<Text<'_>>()?.0,
                Name::Outcome => data.outcome = map.next_value::<Text<'_>>()?.0,
                Name::Actor => (data.actor_type, data.actor) = map.next_value::<Party<'_>>()?.parts(),
                Name::Requester => (data.requester_type, data.requester) = map.next_value::<Party<'_>>()?.parts(),
                Name::Customer => data.customer = map.next_value::<Party<'_>>()?.id,
                Name::ParentTaskId => data.parent_task_id = map.next_value::<Text<'_>>()?.0,
                Name::Subject => data.subject = map.next_value::<Text<'_>>()?.0,
                Name::Sequence => data.sequence = map.next_value::<Count>()?.0,
                _ => skip(&mut map)?,
            }
        }
        Ok(data)
    }
}

/// Text, borrowed where it has no escapes; absent when it is anything else.
struct Text<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<Cow<'de, str>>;
    else_absent!();

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// A whole number from 0; absent when it is anything else.
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        Ok(Self(value.get().parse().ok()))
    }
}

/// Somebody: `{"type", "id"}`, or the id alone.
#[derive(Default)]
struct Party<'a> {
    kind: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
}

impl<'a> Party<'a> {
    fn parts(self) -> (Option<Cow<'a, str>>, Option<Cow<'a, str>>) {
        (self.kind, self.id)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Party<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartyVisitor)
    }
}

struct PartyVisitor;

impl<'de> Visitor<'de> for PartyVisitor {
    type Value = Party<'de>;
    else_absent!();

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Party { kind: None, id: Some(Cow::Borrowed(text)) })
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Party { kind: None, id: Some(Cow::Owned(text.to_owned())) })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut party = Party::default();
        while let Some(name) = map.next_key::<Name>()? {
            match name {
                Name::Id => party.id = map.next_value::<Text<'_>>()?.0,
                Name::Type => party.kind = map.next_value::<Text<'_>>()?.0,
                _ => skip(&mut map)?,
            }
        }
        Ok(party)
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// The names of members that are looked at, on whatever level.
enum Name {
    Id,
    Source,
    Type,
    Subject,
    Time,
    Sequence,
    Epoch,
    Tenant,
    Data,
    TaskId,
    Agent,
    Action,
    Actor,
    Requester,
    Customer,
    ParentTaskId,
    Outcome,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "id" => Name::Id,
            "source" => Name::Source,
            "type" => Name::Type,
            "subject" => Name::Subject,
            "time" => Name::Time,
            "sequence" => Name::Sequence,
            "fteepoch" => Name::Epoch,
            "ftetenant" => Name::Tenant,
            "data" => Name::Data,
            "task_id" => Name::TaskId,
            "agent" => Name::Agent,
            "action" => Name::Action,
            "actor" => Name::Actor,
            "requester" => Name::Requester,
            "customer" => Name::Customer,
            "parent_task_id" => Name::ParentTaskId,
            "outcome" => Name::Outcome,
            _ => Name::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "01980000-0000-7000-8000-000000000001";

    fn read(text: &str) -> Reading<'_> {
        Reading::of(text.as_bytes()).unwrap()
    }

    #[test]
    fn identity_and_filters_are_read_wherever_they_stand() {
        let text = format!(
            r#"{{"data":{{"extra":[1,{{"id":9}}],"actor":{{"type":"user","id":"ada","id2":1}},"outcome":"denied","agent":"wri\u0074er",
            "action":"tool.called"}},"type":"fte.action.recorded","source":"/fte/runner","subject":"{TASK}","id":"1","sequence":"7","fteepoch":"e"}}"#
        );
        let reading = read(&text);
        assert_eq!((&*reading.source, &*reading.id, &*reading.event_type), ("/fte/runner", "1", "fte.action.recorded"));
        assert_eq!((reading.agent(), reading.action()), (Some("writer"), Some("tool.called")));
        assert_eq!((reading.actor(), reading.outcome()), (Some("ada"), Some("denied")));
        assert_eq!((reading.sequence.as_deref(), reading.epoch.as_deref()), (Some("7"), Some("e")));
        assert_eq!(reading.task("fte.audit.actions"), Some(Task::from(TASK)));
    }

    #[test]
    fn what_has_an_unexpected_form_counts_as_absent() {
        for data in ["null", "1", "-1", "1.5", "true", "[{}]", r#""text""#, r#"{"agent":{},"actor":7,"outcome":[],"task_id":null}"#] {
            let text = format!(r#"{{"id":"1","source":"/s","type":null,"subject":3,"data":{data}}}"#);
            let reading = read(&text);
            assert_eq!(reading.data, Data::default(), "{data}");
            assert_eq!((&*reading.event_type, reading.subject.as_deref(), reading.task("t")), ("", None, None));
        }
        assert_eq!(read(r#"{"id":"1","source":"/s","data":{"actor":"ada"}}"#).actor(), Some("ada"));
    }

    #[test]
    fn what_has_no_identity_is_no_event() {
        let invalid: [&[u8]; 9] = [
            b"",
            b"null",
            b"[]",
            b"not json",
            br#"{"source":"/s"}"#,
            br#"{"id":"","source":"/s"}"#,
            br#"{"id":"1"}"#,
            br#"{"id":"1","source":"/s"} x"#,
            b"{\"id\":\"1\",\"source\":\"/s\",\"data\":\"\xff\"}",
        ];
        for bytes in invalid {
            assert_eq!(Reading::of(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_bare_trigger_belongs_to_the_task_it_starts() {
        let reading = read(r#"{"id":"1","source":"shop","type":"com.dapr.event.sent","data":{"task":"go"}}"#);
        let started = Task::Id(*TaskId::from_source("shop", "1").as_uuid());
        assert_eq!(reading.task(triggers::TOPIC), Some(started));
        assert_eq!(reading.task("fte.audit.actions"), None);
    }

    #[test]
    fn an_occasion_belongs_to_the_task_it_starts_whatever_else_it_names() {
        let named = "01980000-0000-7000-8000-000000000001";
        let text = format!(
            r#"{{"id":"27","source":"/cron","type":"fte.schedule.fired","subject":"{named}","data":{{"schedule":"weekly","task_id":"{named}"}}}}"#
        );
        assert_eq!(read(&text).task(triggers::TOPIC), Some(Task::Id(*TaskId::from_source("/cron", "27").as_uuid())));
    }

    #[test]
    fn a_result_says_how_it_ended_by_its_type() {
        for (event_type, outcome) in [
            ("fte.result.completed", Some("success")),
            ("fte.result.rejected", Some("denied")),
            ("fte.result.timed-out", Some("failure")),
            ("fte.status.changed", None),
        ] {
            let text = format!(r#"{{"id":"1","source":"/s","type":"{event_type}"}}"#);
            assert_eq!(read(&text).outcome(), outcome);
        }
    }
}
