//! Golden answers with holes: a pattern is JSON in which some texts stand for what differs from run to run.

use serde_json::Value;

/// Asserts that `actual` is `pattern`. Objects have the same members, no more. In a pattern `<uuid>`, `<seconds>` (RFC 3339
/// to the second), `<number>` (as text), `<trace>` (W3C trace context) and `<text>` (not empty) stand for such texts, and
/// `<any>` for anything.
#[track_caller]
pub(crate) fn assert_like(actual: &Value, pattern: &Value) {
    if let Err(problem) = like(actual, pattern, "$") {
        panic!("{problem}\nactual:  {actual:#}\npattern: {pattern:#}");
    }
}

fn like(actual: &Value, pattern: &Value, at: &str) -> Result<(), String> {
    match (actual, pattern) {
        (Value::Object(actual), Value::Object(pattern)) => {
            if let Some(key) = actual.keys().find(|key| !pattern.contains_key(*key)) {
                return Err(format!("{at}.{key} is not expected"));
            }
            pattern.iter().try_for_each(|(key, pattern)| match actual.get(key) {
                Some(actual) => like(actual, pattern, &format!("{at}.{key}")),
                None => Err(format!("{at}.{key} is missing")),
            })
        }
        (Value::Array(actual), Value::Array(pattern)) if actual.len() == pattern.len() => actual
            .iter()
            .zip(pattern)
            .enumerate()
            .try_for_each(|(index, (actual, pattern))| like(actual, pattern, &format!("{at}[{index}]"))),
        (actual, Value::String(hole)) if hole.starts_with('<') && hole.ends_with('>') => {
            if fills(actual, hole) {
                Ok(())
            } else {
                Err(format!("{at} is no {hole}: {actual}"))
            }
        }
        (actual, pattern) if actual == pattern => Ok(()),
        _ => Err(format!("{at} differs")),
    }
}

fn fills(actual: &Value, hole: &str) -> bool {
    let Some(text) = actual.as_str() else {
        return hole == "<any>";
    };
    match hole {
        "<any>" => true,
        "<text>" => !text.is_empty(),
        "<uuid>" => uuid::Uuid::parse_str(text).is_ok(),
        "<number>" => text.parse::<u64>().is_ok(),
        "<seconds>" => is_seconds(text),
        "<trace>" => text.split('-').map(str::len).eq([2, 32, 16, 2]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()),
        other => panic!("there is no hole {other}"),
    }
}

/// `2026-01-02T03:04:05Z`, or with an offset instead of `Z`.
fn is_seconds(text: &str) -> bool {
    let shape: String = text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    matches!(shape.as_str(), "0000-00-00T00:00:00Z" | "0000-00-00T00:00:00+00:00" | "0000-00-00T00:00:00-00:00")
}
