use fte_events::{Origin, TaskId, TaskRequested};
use serde_json::{Value, json};

use super::*;

fn asked(before_start: bool) -> TaskDoc {
    let id = TaskId::now();
    let mut doc = TaskDoc::blank(id);
    let mut request = TaskRequested::new(id, "pay 5 USD", Origin::Http, Timestamp::now());
    request.context.insert("to".to_owned(), json!("ada"));
    doc.request = Some(Box::new(request));
    doc.state = if before_start { State::Queued } else { State::Running };
    let data = (!before_start).then(|| json!({ "usd": 5 }));
    let ask =
        Ask { action: Some("pay".to_owned()), reason: None, data, expires_at: Timestamp::now(), approve_on_expiry: false, link: None };
    doc.ask(Timestamp::now(), ask);
    doc
}

/// The audit's record of the decision.
fn recorded(doc: &TaskDoc) -> Value {
    let last = doc.outbox.iter().rev().find(|event| event.topic == "fte.audit.actions").expect("an action was recorded");
    serde_json::from_str::<Value>(last.body.get()).unwrap()["data"].clone()
}

fn decided(mut doc: TaskDoc, edit: Option<Value>) -> TaskDoc {
    let now = Timestamp::now();
    doc.decide(now, Decision::new(true, None, "ada", now).edited(edit));
    doc
}

#[test]
fn the_record_of_a_yes_has_the_digest_of_what_was_approved() {
    let record = recorded(&decided(asked(false), None));
    assert_eq!(record["input_sha256"], json_sha256(&json!({ "usd": 5 })), "{record}");
    assert_eq!((&record["resource"], &record["data"]), (&json!("pay"), &json!({ "question": 1 })), "{record}");

    let doc = decided(asked(false), Some(json!({ "usd": 3 })));
    let record = recorded(&doc);
    assert_eq!(record["input_sha256"], json_sha256(&json!({ "usd": 3 })), "{record}");
    assert_eq!(record["data"]["edited"], true, "{record}");
    assert_eq!(record["data"]["asked_sha256"], json_sha256(&json!({ "usd": 5 })), "{record}");
    assert_eq!(doc.answers[0].edit, Some(json!({ "usd": 3 })), "an agent that starts over is given the same");
}

#[test]
fn an_edit_before_the_start_changes_the_request_and_the_digest_is_of_what_will_run() {
    let doc = decided(asked(true), Some(json!({ "task": "pay 3 USD" })));
    let request = doc.request.as_ref().unwrap();
    assert_eq!((request.task.as_str(), &request.context["to"]), ("pay 3 USD", &json!("ada")));
    assert_eq!(recorded(&doc)["input_sha256"], json_sha256(&request_input(request)));
    assert!(doc.answers.is_empty());
}

#[test]
fn an_edit_before_the_start_is_a_task_or_a_context() {
    let doc = asked(true);
    let check = |edit: Value, fits: bool| {
        let edited = edited_request(doc.request.as_ref().unwrap(), &edit, Timestamp::now());
        assert_eq!(edited.is_ok(), fits, "{edit}: {:?}", edited.err());
    };
    check(json!({ "task": "x" }), true);
    check(json!({ "context": {} }), true);
    check(json!({}), true);
    check(json!({ "task": " " }), false);
    check(json!({ "context": { "x": "y".repeat(64 * 1024) } }), false);
    check(json!({ "agent": "other" }), false);
    check(json!("x"), false);
}

#[test]
fn what_the_policy_answers_is_recorded_as_its_own() {
    let mut doc = asked(false);
    let now = Timestamp::now();
    doc.expire_approved(now);
    assert_eq!(recorded(&doc)["actor"], json!({ "type": "service", "id": "policy" }));
    assert_eq!((doc.state, doc.turn), (State::Queued, 1));

    let mut doc = asked(false);
    doc.refuse_by_policy(now, Some("pay"), Some(&json!({ "usd": 5 })));
    let record = recorded(&doc);
    assert_eq!((&record["action"], &record["outcome"]), (&json!("approval.denied"), &json!("denied")), "{record}");
}

#[test]
fn edits_that_are_kept_are_bounded() {
    let mut doc = asked(false);
    for n in 0..20 {
        let now = Timestamp::now();
        let ask = Ask { action: None, reason: Some(n.to_string()), data: None, expires_at: now, approve_on_expiry: false, link: None };
        doc.ask(now, ask);
        doc.decide(now, Decision::new(true, None, "ada", now).edited(Some(json!("x".repeat(60_000)))));
    }
    let bytes: usize = doc.answers.iter().filter_map(|answer| answer.edit.as_ref()).map(json_bytes).sum();
    assert!(bytes <= EDITS_BYTES_MAX && doc.answers.len() == 4, "{bytes} bytes, {} answers", doc.answers.len());
}

#[test]
fn a_question_about_another_action_is_another_question() {
    let data = json!({ "to": "bob" });
    let asked = |action| question(action, Some("may I?"), Some(&data));
    assert_eq!(asked(Some("mail.send")), asked(Some("mail.send")));
    assert_ne!(asked(Some("mail.send")), asked(Some("pay")));
    assert_ne!(asked(None), asked(Some("pay")));
}
