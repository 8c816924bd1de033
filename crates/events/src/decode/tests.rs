//! Reading what others wrote: bare, unknown, contradictory.

use serde_json::json;

use super::*;
use crate::{Priority, sample};

fn event(fields: Value) -> RawEvent {
    RawEvent::parse(fields.to_string().as_bytes()).unwrap()
}

fn run(trigger: Result<Trigger, TriggerError>) -> TaskRequested {
    match trigger.unwrap() {
        Trigger::Run(request) => *request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bare_event_is_a_request_with_the_same_id_each_time() {
    for event_type in [json!(BARE_TYPE), json!(null)] {
        let bare =
            event(json!({"id": "order-1", "source": "/shop", "type": event_type, "time": sample::time(0), "data": {"task": "pack it"}}));
        let request = run(parse_trigger(&bare, sample::time(99)));
        assert_eq!(request, run(parse_trigger(&bare, sample::time(100))));
        let expected = TaskRequested::new(TaskId::from_source("/shop", "order-1"), "pack it", Origin::Event, sample::time(0));
        assert_eq!(request, expected);
    }
}

#[test]
fn a_bare_event_may_say_more_than_its_task() {
    let data = json!({"task": "pack it", "agent": "packer", "priority": "P1", "origin": "http", "colour": "red"});
    let request = run(parse_trigger(&event(json!({"id": "1", "source": "/shop", "data": data})), sample::time(7)));
    assert_eq!((request.agent.as_deref(), request.priority), (Some("packer"), Priority::P1));
    assert_eq!(request.origin, Origin::Event, "an outsider cannot claim to be intake");
    assert_eq!(request.submitted_at, sample::time(7), "there is no time in the event");
    assert_eq!(request.extra["colour"], "red");
}

#[test]
fn a_bare_event_without_a_task_says_what_is_missing() {
    for data in [json!({}), json!({"task": 7}), json!("pack it"), json!(null), json!([])] {
        let error = parse_trigger(&event(json!({"id": "1", "source": "/shop", "data": data})), sample::time(0)).unwrap_err();
        assert!(matches!(error, TriggerError::NoTask), "{error:?}");
    }
    let wrong = event(json!({"id": "1", "source": "/shop", "data": {"task": "pack it", "priority": "urgent"}}));
    assert!(matches!(parse_trigger(&wrong, sample::time(0)), Err(TriggerError::Decode(_))));
}

#[test]
fn each_trigger_type_is_read_as_what_it_asks_for() {
    for payload in sample::all().into_iter().filter(|payload| payload.topic() == crate::triggers::TOPIC) {
        let envelope = sample::envelope(&payload).to_event();
        let trigger = parse_trigger(&envelope, sample::time(0)).unwrap();
        let expected = match payload {
            Decoded::TaskRequested(request) => Trigger::Run(request),
            Decoded::MessageReceived(message) => Trigger::Run(Box::new(message.request)),
            Decoded::TaskResumed(resumed) => Trigger::Resume(resumed),
            Decoded::ErasureRequested(erasure) => Trigger::Erase(erasure),
            occasion => {
                let task_id = TaskId::from_source(&envelope.source, &envelope.id);
                Trigger::Occasion { task_id, occasion: Box::new(occasion) }
            }
        };
        assert_eq!(trigger, expected);
    }
}

#[test]
fn an_unknown_type_is_acknowledged_never_an_error() {
    assert!(decode("fte.task.invented-later", "not even JSON").unwrap().is_none());
    let later = event(json!({"id": "1", "source": "/fte/intake", "type": "fte.task.invented-later", "data": 7}));
    assert_eq!(parse_trigger(&later, sample::time(0)).unwrap(), Trigger::Unknown);
}

#[test]
fn a_result_whose_type_and_status_differ_is_refused() {
    let data = serde_json::to_string(&sample::task_result(ResultKind::Failed)).unwrap();
    let error = decode("fte.result.completed", &data).unwrap_err();
    assert_eq!(error.to_string(), "the type says completed and the data failed");
}

#[test]
fn a_field_of_a_wrong_form_is_named() {
    let error = decode("fte.task.resumed", r#"{"task_id": 7, "turn": 1, "reason": "timer"}"#).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("expected an id as text"), "{source}");
}

#[test]
fn words_of_a_newer_writer_are_kept_where_they_only_describe() {
    let mut data = serde_json::to_value(sample::sandbox_change(SandboxKind::Released)).unwrap();
    data["runtime"] = json!("firecracker");
    data["reason"] = json!("evicted");
    let decoded = decode("fte.sandbox.released", &data.to_string()).unwrap().unwrap();
    assert_eq!(serde_json::to_value(decoded).unwrap(), data);

    let mut data = serde_json::to_value(sample::status_changed()).unwrap();
    data["status"] = json!("snoozed");
    assert!(decode("fte.status.changed", &data.to_string()).is_err(), "a reader cannot act on a status it does not know");
}

#[test]
fn the_task_of_an_unreadable_request_is_still_found() {
    let task = sample::task_id();
    let by_subject = event(json!({"id": "1", "source": "/x", "subject": task, "data": "?"}));
    let by_data = event(json!({"id": "1", "source": "/x", "subject": "an order", "data": {"task_id": task, "task": 7}}));
    let by_source = event(json!({"id": "1", "source": "/x", "data": {"task": 7}}));
    assert_eq!([task_of(&by_subject), task_of(&by_data)], [task, task]);
    assert_eq!(task_of(&by_source), TaskId::from_source("/x", "1"));
}

#[test]
fn an_occasion_starts_the_task_of_its_own_identity_whatever_else_it_names() {
    let customer = sample::task_id();
    let fired = |id: &str| {
        let data = json!({"schedule": "weekly", "due_at": "2026-07-01T06:00:00Z", "task_id": customer});
        event(json!({"id": id, "source": "/cron", "type": "fte.schedule.fired", "subject": customer, "data": data}))
    };
    for id in ["week-27", "week-28"] {
        let expected = TaskId::from_source("/cron", id);
        assert_eq!(task_of(&fired(id)), expected);
        assert!(matches!(parse_trigger(&fired(id), sample::time(0)), Ok(Trigger::Occasion { task_id, .. }) if task_id == expected));
    }
}
