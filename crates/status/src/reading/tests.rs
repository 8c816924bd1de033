//! Every type of the catalogue is read as its task's, and what cannot be used is refused.

use fte_bus::Record;

use fte_events::{Decoded, Payload, sample};
use serde_json::{Value, json};

use super::*;

fn delivery(topic: &str, event: &Value) -> Delivery {
    let body = Bytes::from(serde_json::to_vec(event).unwrap());
    let record = Record { topic: topic.into(), body: body.clone(), partition: None, offset: None, key: None };
    Delivery { event: RawEvent::parse(&body).unwrap(), record }
}

fn read_at_zero(topic: &str, event: &Value) -> Result<Incoming, Unreadable> {
    read(delivery(topic, event), Timestamp::UNIX_EPOCH)
}

#[test]
fn each_event_of_the_catalogue_is_read_as_its_tasks() {
    for payload in sample::all() {
        let topic = payload.topic();
        if topic.starts_with("fte.deadletter.") || topic == fte_events::audit::TOPIC {
            continue;
        }
        let envelope = sample::envelope(&payload);
        let event = serde_json::to_value(&envelope).unwrap();
        let incoming = read_at_zero(&topic, &event).unwrap();
        assert_eq!(&*incoming.event_type, payload.event_type());
        assert_eq!(incoming.id.to_string(), event["id"].as_str().unwrap());
        match &payload {
            Decoded::ErasureRequested(_) => assert_eq!(incoming.task, None),
            Decoded::DeadlinePassed(_) | Decoded::DailyTaskDue(_) | Decoded::ScheduleFired(_) => assert!(incoming.task.is_some()),
            _ => assert_eq!(incoming.task, Some(sample::task_id()), "{}", payload.event_type()),
        }
        let changes = !matches!(incoming.change, Change::Nothing);
        let expected = match &payload {
            Decoded::TaskRequested(_)
            | Decoded::MessageReceived(_)
            | Decoded::StatusChanged(_)
            | Decoded::TaskResult(_)
            | Decoded::HandoffRequested(_) => true,
            Decoded::SandboxChange(change) => change.kind != SandboxKind::ClaimFailed,
            _ => false,
        };
        assert_eq!(changes, expected, "{}", payload.event_type());
    }
}

#[test]
fn a_bare_event_is_the_task_that_its_source_and_id_name() {
    let event = json!({"id": "17", "source": "/shop", "type": "com.dapr.event.sent", "data": {"task": "count", "agent": "writer"}});
    let incoming = read_at_zero(triggers::TOPIC, &event).unwrap();
    assert_eq!(incoming.task, Some(TaskId::from_source("/shop", "17")));
    assert_eq!(incoming.change, Change::Requested { agent: Some("writer".into()) });
}

#[test]
fn a_request_that_the_runner_will_refuse_is_a_task() {
    let task = sample::task_id();
    let event = json!({"id": "1", "source": "/shop", "type": "fte.task.requested", "subject": task, "data": {"task": 7}});
    let incoming = read_at_zero(triggers::TOPIC, &event).unwrap();
    assert_eq!((incoming.task, incoming.change), (Some(task), Change::Requested { agent: None }));
}

#[test]
fn a_hand_off_is_the_request_of_the_child() {
    let handoff = sample::handoff_requested();
    let payload = fte_events::Decoded::HandoffRequested(handoff.clone().into());
    let incoming = read_at_zero("fte.handoffs.human", &serde_json::to_value(sample::envelope(&payload)).unwrap()).unwrap();
    assert_eq!((incoming.task, incoming.change), (Some(handoff.task_id), Change::Requested { agent: Some("human".into()) }));
}

#[test]
fn an_unknown_type_is_an_event_of_its_subject() {
    let task = sample::task_id();
    for topic in [triggers::TOPIC, status::TOPIC, sandbox::TOPIC, results::TOPIC, "fte.handoffs.writer"] {
        let event = json!({"id": "1", "source": "/s", "type": "fte.invented.later", "subject": task});
        let incoming = read_at_zero(topic, &event).unwrap();
        assert_eq!((incoming.task, incoming.change), (Some(task), Change::Nothing));
    }
}

#[test]
fn known_types_that_break_their_promise_are_refused() {
    let task = sample::task_id();
    let claim = "01980000-0000-8000-8000-000000000001";
    let refused = [
        (status::TOPIC, json!({"id": "1", "source": "/s", "type": "fte.status.changed", "data": {"task_id": task}})),
        (status::TOPIC, json!({"id": "1", "source": "/s", "type": "fte.status.changed"})),
        (sandbox::TOPIC, json!({"id": "1", "source": "/s", "type": "fte.sandbox.claimed", "data": {"claim_id": claim}})),
        (
            results::TOPIC,
            json!({"id": "1", "source": "/s", "type": "fte.result.completed",
                "data": {"task_id": task, "status": "failed", "attempt": 1, "agent": "echo"}}),
        ),
    ];
    for (topic, event) in refused {
        assert!(read_at_zero(topic, &event).is_err(), "{event}");
    }
}

#[test]
fn only_the_usual_spelling_of_a_uuid_is_stored_as_one() {
    for text in ["01980000-0000-7000-8000-00000000000A", "0198000000007000800000000000000a", "{01980000-0000-7000-8000-00000000000a}", "x"]
    {
        assert_eq!(EventId::from(text.to_owned()), EventId::Text(text.into()));
    }
    let usual = "01980000-0000-7000-8000-00000000000a";
    assert!(matches!(EventId::from(usual.to_owned()), EventId::Uuid(_)));
    assert_eq!(EventId::from(usual.to_owned()).to_string(), usual);
}
