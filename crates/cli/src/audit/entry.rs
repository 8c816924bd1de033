//! An entry of the audit log as a row for a person: where it stands, and in a few words what happened.
//!
//! The words are of kinds, names and codes; what people wrote (a task's text, a message) is in `--json`.

use serde::Deserialize;
use serde_json::Value;

use crate::output::{shortened, took};

const WHAT_CHARS_MAX: usize = 80;

pub(super) const HEADER: [&str; 6] = ["ENTRY", "TIME", "TYPE", "WHAT", "SOURCE", "TASK"];
/// Where all entries are of one task.
pub(super) const HEADER_OF_ONE: [&str; 5] = ["ENTRY", "TIME", "TYPE", "WHAT", "SOURCE"];

/// What the table shows of it. Where no event came, but something else, most of it is missing.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    shard: Value,
    #[serde(default)]
    index: u64,
    #[serde(rename = "type")]
    event_type: Option<String>,
    source: Option<String>,
    task_id: Option<String>,
    time: Option<String>,
    logged_time: Option<String>,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    event: Value,
    /// What came cannot be read any more.
    #[serde(default)]
    erased: bool,
}

/// When a task ended, and how.
pub(super) struct Ended {
    time: String,
    status: String,
}

/// The end of the task that all of these are of.
pub(super) fn ended(entries: &[Entry]) -> Option<Ended> {
    let result = entries.iter().find(|entry| entry.event_type.as_deref().is_some_and(|kind| kind.starts_with("fte.result.")))?;
    Some(Ended { time: result.time.clone()?, status: result.event.pointer("/data/status")?.as_str()?.to_owned() })
}

pub(super) fn row(entry: Entry) -> [String; 6] {
    row_with(entry, None)
}

fn row_with(entry: Entry, ended: Option<&Ended>) -> [String; 6] {
    let shard = entry.shard.as_str().map_or_else(|| entry.shard.to_string(), str::to_owned);
    let what = shortened(&what(&entry, ended), WHAT_CHARS_MAX);
    let time = entry.time.or(entry.logged_time).map(|time| fte_bus::time::normal(&time));
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        format!("{shard}/{}", entry.index),
        or_none(time),
        // What the log itself writes has no other type.
        or_none(entry.event_type.or_else(|| Some(entry.kind).filter(|kind| !kind.is_empty() && kind != "unparsed"))),
        what,
        or_none(entry.source),
        entry.task_id.unwrap_or_default(),
    ]
}

pub(super) fn row_of_one(entry: Entry, ended: Option<&Ended>) -> [String; 5] {
    let [entry, time, event_type, what, source, _] = row_with(entry, ended);
    [entry, time, event_type, what, source]
}

/// What happened, in a few words.
fn what(entry: &Entry, ended: Option<&Ended>) -> String {
    let data = entry.event.get("data").unwrap_or(&Value::Null);
    let at = |path: &str| data.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let labelled = |label: &str, path: &str| at(path).map(|text| format!("{label} {text}"));
    let number = |label: &str, path: &str| data.pointer(path).and_then(Value::as_u64).map(|number| format!("{label} {number}"));
    // Some codes say no more than the status.
    let code = at("/error/code").filter(|code| at("/status").as_ref() != Some(code));
    match (entry.kind.as_str(), entry.event_type.as_deref()) {
        ("unparsed", _) => format!("not an event, on {}", entry.topic),
        _ if entry.erased => "erased".to_owned(),
        ("shard_open", _) => "the year begins".to_owned(),
        ("task_closed", _) => closed(&entry.event),
        ("gap", _) => joined(" ", [Some("not arrived:".to_owned()), numbers(&entry.event)]),
        ("gap_filled", _) => joined(" ", [Some("arrived after all:".to_owned()), numbers(&entry.event)]),
        ("key_rotated", _) => "names the key that signs next".to_owned(),
        ("read" | "export", _) => number_of(data, "entries", "entries"),
        ("key_destroyed", _) => number_of(data, "keys", "keys"),
        ("shard_retired", _) => number_of(data, "entries", "entries"),
        ("conflict", Some(_)) => "contradicts an earlier event of the same id".to_owned(),
        (_, Some("fte.action.recorded")) => {
            let actor = joined(" ", [at("/actor/type"), at("/actor/id")]);
            let action = at("/action").unwrap_or_else(|| "?".to_owned());
            let outcome = at("/outcome").filter(|outcome| outcome != "success" && !action.ends_with(outcome));
            joined(", ", [Some(if actor.is_empty() { action } else { format!("{action} by {actor}") }), outcome])
        }
        (_, Some("fte.status.changed")) => {
            let progress = data.get("progress_pct").and_then(Value::as_u64).map(|pct| format!("{pct} %"));
            joined(", ", [at("/status").or_else(|| Some("?".to_owned())), at("/stage"), progress, code])
        }
        (_, Some("fte.task.requested")) => joined(", ", [labelled("agent", "/agent"), at("/origin")]),
        (_, Some("fte.task.resumed")) => joined(", ", [at("/reason"), number("turn", "/turn")]),
        (_, Some("fte.handoff.requested")) => joined(" ", [labelled("from", "/from_agent"), labelled("to", "/to_agent")]),
        (_, Some("fte.event.dead-lettered")) => {
            joined(", ", [labelled("by", "/consumer"), at("/error/code"), labelled("from", "/original_topic")])
        }
        (_, Some(kind)) if kind.starts_with("fte.sandbox.") => {
            // A sandbox has fewer words for an end than its task.
            let ended =
                ended.filter(|ended| at("/reason").is_some_and(|reason| reason == "failed") && entry.time.as_ref() == Some(&ended.time));
            joined(", ", [labelled("agent", "/agent"), ended.map_or_else(|| at("/reason"), |ended| Some(ended.status.clone()))])
        }
        (_, Some(kind)) if kind.starts_with("fte.result.") => {
            let duration = data.get("duration_ms").and_then(Value::as_u64).filter(|ms| *ms > 0).map(|ms| format!("in {}", took(ms)));
            joined(", ", [at("/status"), code, duration])
        }
        _ => String::new(),
    }
}

/// What the log says of a task that is over.
fn closed(closed: &Value) -> String {
    let missing: Vec<&str> = closed["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let lacks = if missing.is_empty() { "complete".to_owned() } else { format!("lacks {}", missing.join("; ")) };
    joined(", ", [Some(number_of(closed, "entries", "entries")).filter(|count| !count.is_empty()), Some(lacks)])
}

/// The numbers of a publisher's counter that an entry is about.
fn numbers(entry: &Value) -> Option<String> {
    let (first, last) = (entry["first"].as_u64().or_else(|| entry["number"].as_u64())?, entry["last"].as_u64());
    let numbers = last.filter(|last| *last != first).map_or_else(|| format!("number {first}"), |last| format!("numbers {first} to {last}"));
    Some(joined(" of ", [Some(numbers), entry["source"].as_str().map(str::to_owned)]))
}

fn number_of(data: &Value, field: &str, what: &str) -> String {
    data[field].as_u64().map_or_else(String::new, |number| format!("{number} {what}"))
}

fn joined<const N: usize>(between: &str, parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(between)
}
