//! Events as a test writes them: a line each, new ids, the rest of it usual. With every field set: [`fte_events::sample`].

use fte_bus::RawEvent;
use fte_events::{EventName, Origin, Outgoing, Payload, TaskId, TaskRequested, event_id};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// A request of a new task.
pub fn request(task: &str) -> TaskRequested {
    request_for(TaskId::now(), task)
}

/// A request of the task `id`.
pub fn request_for(id: TaskId, task: &str) -> TaskRequested {
    TaskRequested::new(id, task, Origin::Http, now())
}

/// The payload as intake or the runner would publish it. A request has the id that the catalogue gives it, so that building it again is a
/// second delivery; everything else a new one.
pub fn cloud_event(payload: &impl Payload) -> RawEvent {
    let (service, id) = match payload.task_id() {
        Some(task) if payload.event_type() == "fte.task.requested" => ("intake", event_id(task, EventName::Trigger { turn: 0 })),
        _ => ("runner", Uuid::now_v7()),
    };
    Outgoing::new(service, id, now(), payload).to_event()
}

/// A bare event, as Dapr wraps the JSON of an outside system.
pub fn bare(source: &str, id: &str, data: Value) -> RawEvent {
    let event = json!({"specversion": "1.0", "id": id, "source": source, "type": "com.dapr.event.sent",
        "datacontenttype": "application/json", "data": data});
    RawEvent::parse(event.to_string().as_bytes()).expect("it has an id")
}

/// Milliseconds are what the services write.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).expect("the present is in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_built_again_is_the_same_event() {
        let request = request("summarise the minutes");
        assert_eq!(cloud_event(&request).id, cloud_event(&request).id);
        assert_ne!(cloud_event(&request).id, cloud_event(&super::request("summarise the minutes")).id);
    }

    #[test]
    fn a_bare_event_starts_a_task() {
        let trigger = fte_events::parse_trigger(&bare("/shop", "1", json!({"task": "pack it"})), now()).unwrap();
        assert!(matches!(trigger, fte_events::Trigger::Run(request) if request.task == "pack it"));
    }
}
