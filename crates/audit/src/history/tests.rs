//! When a history is complete, and what is said when it is not.

use fte_events::sample;
use serde_json::{Value, json};

use super::*;
use crate::entry::leaf::Header;

fn entry(topic: &str, event_type: &str, data: &Value) -> Entry {
    let event = json!({"id": "1", "source": "/fte/runner", "type": event_type, "data": data}).to_string();
    let header = Header {
        topic: Some(topic.to_owned().into()),
        event_type: Some(event_type.to_owned().into()),
        ..Header::new(Kind::Event, 0, event.as_bytes())
    };
    Entry { position: Position { shard: 2026, index: 7 }, header, bytes: Some(event.into_bytes()) }
}

fn status(sequence: u64, status: &str) -> Entry {
    entry("fte.status.updates", "fte.status.changed", &json!({"sequence": sequence, "status": status}))
}

fn sandbox(what: &str, claim: &str) -> Entry {
    entry("fte.sandbox.lifecycle", &format!("fte.sandbox.{what}"), &json!({"claim_id": claim}))
}

fn trigger() -> Entry {
    entry("fte.triggers.inbound", "fte.task.requested", &json!({}))
}

fn result() -> Entry {
    entry("fte.results.completed", "fte.result.completed", &json!({}))
}

fn contradiction() -> Entry {
    let mut entry = result();
    entry.header.kind = Kind::Conflict;
    entry
}

fn whole() -> Vec<Entry> {
    vec![
        status(2, "running"),
        trigger(),
        sandbox("released", "a"),
        sandbox("claimed", "a"),
        status(1, "queued"),
        result(),
        sandbox("claim-failed", "b"),
        status(3, "completed"),
        entry("fte.audit.actions", "fte.action.recorded", &json!({})),
    ]
}

fn missing(entries: &[Entry]) -> Vec<String> {
    let mut check = Completeness::default();
    entries.iter().for_each(|entry| check.observe(entry));
    check.missing(false)
}

#[test]
fn a_whole_history_is_complete_in_any_order() {
    assert_eq!(missing(&whole()), [""; 0]);
    let mut reversed = whole();
    reversed.reverse();
    assert_eq!(missing(&reversed), [""; 0]);
}

#[test]
fn whatever_is_taken_away_is_named() {
    for (place, expected) in [
        (0, "status change 2"),
        (1, "its trigger"),
        (2, "the release of claim a"),
        (3, "the claim a, which was released"),
        (4, "status change 1"),
        (5, "its result"),
        (7, "a final status"),
    ] {
        let mut entries = whole();
        entries.remove(place);
        assert_eq!(missing(&entries), [expected]);
    }
}

#[test]
fn whatever_is_too_much_is_named() {
    for (extra, expected) in [
        (result(), "a single result: there are 2".to_owned()),
        (sandbox("expired", "a"), "one claim and one release of a: there are 1 and 2".to_owned()),
        (status(7, "completed"), "status changes 4 to 6".to_owned()),
        (status(4, "running"), "a final status".to_owned()),
        (contradiction(), "entry 2026-7 contradicts an earlier one of the same source and id".to_owned()),
        (status(4, "dancing"), "entry 2026-7 (fte.status.changed) has data that cannot be read".to_owned()),
    ] {
        let mut entries = whole();
        entries.push(extra);
        assert_eq!(missing(&entries), [expected]);
    }
}

#[test]
fn of_what_can_be_read_no_more_the_log_s_own_word_counts_unless_something_came_after_it() {
    let closed = |missing: &Value| {
        let payload = json!({"entries": 9, "complete": missing == &json!([]), "missing": missing}).to_string();
        let header = Header::new(Kind::TaskClosed, 0, payload.as_bytes());
        Entry { position: Position { shard: 2026, index: 9 }, header, bytes: Some(payload.into_bytes()) }
    };
    let mut entries: Vec<Entry> = whole().into_iter().map(|entry| Entry { bytes: None, ..entry }).collect();
    assert_eq!(missing(&entries), ["what 9 of its entries say, which can be read no more, and the log has not closed it"]);
    entries.push(closed(&json!([])));
    assert_eq!(missing(&entries), [""; 0]);
    entries.push(contradiction());
    assert_eq!(missing(&entries).len(), 2);
    entries.pop();
    entries.push(closed(&json!(["its trigger"])));
    assert_eq!(missing(&entries), ["its trigger"]);
}

#[test]
fn a_resumption_is_no_trigger_and_a_hand_off_is_one() {
    let mut entries = whole();
    entries[1] = entry("fte.triggers.inbound", "fte.task.resumed", &json!({}));
    assert_eq!(missing(&entries), ["its trigger"]);
    entries[1] = entry("fte.handoffs.writer", "fte.handoff.requested", &json!({}));
    assert_eq!(missing(&entries), [""; 0]);
}

#[test]
fn events_of_the_catalogue_are_understood() {
    // Each sample is written as its publisher writes it; none of their data may be unreadable here.
    for sample in sample::all() {
        let topic = fte_events::Payload::topic(&sample).into_owned();
        let entry = entry(&topic, fte_events::Payload::event_type(&sample), &serde_json::to_value(&sample).unwrap());
        assert!(!missing(&[entry]).iter().any(|text| text.contains("cannot be read")), "{topic}");
    }
}
