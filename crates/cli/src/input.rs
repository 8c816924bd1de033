//! What people type: task ids, durations, points in time, JSON; and who they are.

use std::time::Duration;

use fte_events::TaskId;
use fte_service::{Env, ProcessEnv};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

/// The id of a task.
pub(crate) fn task_id(text: &str) -> Result<TaskId, String> {
    let text = text.trim();
    text.parse().map_err(|_| {
        let is_part = (1..36).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let what = if is_part { "it is cut short: " } else { "" };
        format!("{what}a task id looks like 01980000-0000-7000-8000-000000000001; `fte submit` prints it, and `fte tasks` lists it")
    })
}

/// `30s`, `500ms`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration = text.parse().map_err(|_| "write it like 30s, 500ms, 15m or 2h".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())
}

/// The form in which the API takes a duration.
pub(crate) fn duration_text(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 { format!("{}s", duration.as_secs()) } else { format!("{}ms", duration.as_millis()) }
}

/// A point in time in the future: RFC 3339, or a duration from now.
pub(crate) fn time_ahead(text: &str) -> Result<Timestamp, String> {
    time(text, 1)
}

/// A point in time in the past: RFC 3339, or a duration until now.
pub(crate) fn time_ago(text: &str) -> Result<Timestamp, String> {
    time(text, -1)
}

fn time(text: &str, sign: i32) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let wrong = |_| "write it like 2026-01-31T09:00:00Z, or as a duration like 15m".to_owned();
    let span = SignedDuration::try_from(duration(text).map_err(|_| "").map_err(wrong)?).map_err(|_| "").map_err(wrong)?;
    Timestamp::now().checked_add(span * sign).map_err(|_| "it is beyond the calendar".to_owned())
}

/// Who acts: who is at the terminal, else who this process runs as.
pub(crate) fn user() -> Option<String> {
    logged_in().or_else(own_user)
}

/// Who is at the terminal, as the system names them.
pub(crate) fn logged_in() -> Option<String> {
    ["USER", "LOGNAME"].into_iter().find_map(|name| ProcessEnv.get(name))
}

/// Who this process runs as, by the system's list of users: in a container often nothing else says who somebody is.
fn own_user() -> Option<String> {
    let own = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|user| {
        let mut fields = user.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        (uid == own && !name.is_empty()).then(|| name.to_owned())
    })
}

/// A JSON object.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is not a JSON object; write it like '{\"key\": \"value\"}'".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

/// JSON, or the name of a file with JSON. A text that is both is JSON.
pub(crate) fn json(text: &str) -> Result<Value, String> {
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let file = match std::fs::read_to_string(text) {
        Ok(file) => file,
        Err(_) if text.trim_start().starts_with(['{', '[', '"']) => return Err(format!("it is not JSON: {error}")),
        Err(unread) => return Err(format!("it is neither JSON ({error}) nor a file that can be read ({unread})")),
    };
    serde_json::from_str(&file).map_err(|error| format!("the file is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_people_write() {
        for (text, expected) in [("30s", "30s"), ("500ms", "500ms"), ("1h 30m", "5400s"), ("15m", "900s"), ("0s", "0s")] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "30", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_written_out_or_in_a_file() {
        let file = std::env::temp_dir().join(format!("fte-input-{}.json", std::process::id()));
        std::fs::write(&file, r#"{"a": 1}"#).unwrap();
        assert_eq!(json(file.to_str().unwrap()).unwrap(), serde_json::json!({ "a": 1 }));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(json("[1]").unwrap(), serde_json::json!([1]));
        for text in ["{", "no such file", ""] {
            assert!(json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_absolute_or_from_now() {
        assert_eq!(time_ago("2026-01-31T09:00:00Z").unwrap().to_string(), "2026-01-31T09:00:00Z");
        let now = Timestamp::now();
        assert!(time_ago("1h").unwrap() < now && time_ahead("1h").unwrap() > now);
        assert!(time_ahead("tomorrow").is_err());
    }
}
