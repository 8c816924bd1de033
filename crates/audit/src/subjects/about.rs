//! Whom an event is about, as far as keys go. Pure.

use fte_events::audit;

use crate::entry::Task;
use crate::entry::reading::Reading;

/// What the sources of FTE's own services begin with.
const OWN: &str = "/fte/";
/// Those that act for no person of their own.
const NOBODY: [&str; 3] = ["agent", "service", "system"];
/// The kind of whoever is named without one.
const USER: &str = "user";
/// The type of the event that names who is to be forgotten.
pub(crate) const ERASURE: &str = "fte.erasure.requested";

/// A person: a kind (`user`, `customer`, …) and an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    pub kind: Box<str>,
    pub id: Box<str>,
}

impl std::fmt::Display for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// Whose key seals an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Unit {
    Task(Task),
    Person(Person),
    /// A key of its own: what is not understood may be about anybody.
    #[default]
    Itself,
    /// None.
    Nobody,
}

/// Who acted or asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    Person(Person),
    /// An agent or a service, by its name.
    Other(Box<str>),
}

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub(super) unit: Unit,
    /// The persons whose task it is, by this event.
    pub(super) owners: Vec<Person>,
    /// The task and the one it works for.
    pub(super) task: Option<Task>,
    pub(super) parent: Option<Task>,
    pub(super) actor: Option<Actor>,
    /// When it happened, in milliseconds since 1970, where it says so.
    pub(super) at_ms: Option<i64>,
}

impl About {
    /// Of an event that was read from `topic`.
    pub fn of(reading: &Reading<'_>, topic: &str) -> Self {
        let data = &reading.data;
        let actor = party(data.actor_type.as_deref(), data.actor.as_deref());
        let requester = party(data.requester_type.as_deref(), data.requester.as_deref());
        let customer = party(Some("customer"), data.customer.as_deref());
        let task = reading.task(topic);
        let named = (reading.event_type == ERASURE).then(|| data.subject.as_deref().and_then(person_of)).flatten();
        let did = match &actor {
            Some(Actor::Person(person)) if topic == audit::TOPIC => Some(person.clone()),
            _ => None,
        };
        let owners: Vec<Person> = [&customer, &requester].into_iter().flatten().filter_map(Actor::person).collect();
        let first = || owners.first().cloned().or_else(|| actor.as_ref().and_then(Actor::person));
        let unit = match (named.or(did), &task) {
            (Some(person), _) => Unit::Person(person),
            (None, Some(task)) => Unit::Task(task.clone()),
            (None, None) => match first() {
                Some(person) => Unit::Person(person),
                None if reading.source.starts_with(OWN) => Unit::Nobody,
                None => Unit::Itself,
            },
        };
        let parent = data.parent_task_id.as_deref().filter(|text| !text.is_empty()).map(Task::from);
        let at_ms = reading.time.as_deref().and_then(|time| time.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond);
        Self { unit, owners, task, parent, actor: actor.or(requester).or(customer), at_ms }
    }

    /// Of a record that is no event.
    pub fn unreadable() -> Self {
        Self::default()
    }
}

impl Actor {
    fn person(&self) -> Option<Person> {
        match self {
            Self::Person(person) => Some(person.clone()),
            Self::Other(_) => None,
        }
    }
}

fn party(kind: Option<&str>, id: Option<&str>) -> Option<Actor> {
    let id = id.filter(|id| !id.is_empty())?;
    let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or(USER);
    Some(if NOBODY.contains(&kind) { Actor::Other(id.into()) } else { Actor::Person(Person { kind: kind.into(), id: id.into() }) })
}

/// The person of a reference such as `user:ada`.
pub(super) fn person_of(text: &str) -> Option<Person> {
    let (kind, id) = text.split_once(':')?;
    match party(Some(kind), Some(id))? {
        Actor::Person(person) => Some(person),
        Actor::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "01980000-0000-7000-8000-000000000001";

    fn about(topic: &str, text: &str) -> About {
        About::of(&Reading::of(text.as_bytes()).unwrap(), topic)
    }

    fn ada() -> Person {
        Person { kind: "user".into(), id: "ada".into() }
    }

    #[test]
    fn what_belongs_to_a_task_is_the_task_s_and_says_whose_task_it_is() {
        let request = about(
            "fte.triggers.inbound",
            &format!(
                r#"{{"id":"1","source":"/fte/intake","type":"fte.task.requested","subject":"{TASK}","data":{{"requester":{{"type":"user","id":"ada"}},"customer":{{"id":"c1"}}}}}}"#
            ),
        );
        assert_eq!(request.unit, Unit::Task(TASK.into()));
        let customer = Person { kind: "customer".into(), id: "c1".into() };
        assert_eq!(request.owners, [customer, ada()]);
        let status = about("fte.status.updates", &format!(r#"{{"id":"1","source":"/fte/runner","subject":"{TASK}","data":{{}}}}"#));
        assert_eq!((status.unit, status.owners.len()), (Unit::Task(TASK.into()), 0));
    }

    #[test]
    fn a_person_s_deed_is_theirs_even_within_a_task_and_an_agent_s_is_the_task_s() {
        let deed = |kind: &str| {
            about(
                "fte.audit.actions",
                &format!(r#"{{"id":"1","source":"/fte/runner","subject":"{TASK}","data":{{"actor":{{"type":"{kind}","id":"ada"}}}}}}"#),
            )
        };
        assert_eq!(deed("user").unit, Unit::Person(ada()));
        assert!(deed("user").owners.is_empty(), "who decides about a task does not own it");
        assert_eq!((deed("agent").unit, deed("agent").actor), (Unit::Task(TASK.into()), Some(Actor::Other("ada".into()))));
    }

    #[test]
    fn only_what_a_service_of_ours_says_of_nobody_has_no_key() {
        let said = |source: &str| {
            about("fte.audit.actions", &format!(r#"{{"id":"1","source":"{source}","data":{{"actor":{{"type":"service","id":"x"}}}}}}"#))
        };
        assert_eq!((said("/fte/intake").unit, said("shop").unit), (Unit::Nobody, Unit::Itself));
        assert_eq!(About::unreadable().unit, Unit::Itself);
    }

    #[test]
    fn a_request_to_forget_somebody_is_about_them() {
        let of = |subject: &str| {
            about(
                "fte.triggers.inbound",
                &format!(r#"{{"id":"1","source":"/fte/audit","type":"{ERASURE}","data":{{"subject":"{subject}"}}}}"#),
            )
            .unit
        };
        assert_eq!(of("user:ada"), Unit::Person(ada()));
    }
}
