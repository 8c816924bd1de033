//! Which artifacts an event names. An artifact that the store does not hold (another `uri` than `artifact:sha256/…`) is no matter of this.

use fte_artifacts::Digest;
use fte_bus::RawEvent;
use fte_events::ResultKind;
use serde::Deserialize;
use serde_json::Value;

/// Artifacts that are taken of one event, and shown of one task.
pub(crate) const ARTIFACTS_MAX: usize = 1000;
/// Longest name and content type.
const TEXT_BYTES_MAX: usize = 255;
/// Those of a result come after those of the steps before it.
const OF_RESULT: i64 = 1 << 48;
/// What was handed over to a task is kept as long as that task, and is not its own to give away.
pub(crate) const HANDED_OVER: i64 = -1;

/// An artifact as an event names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    /// Its place in the order of naming: by what the events say, never by when they arrived. Of several of the same name and content the last counts.
    pub place: i64,
    /// Its name.
    pub name: String,
    /// Its media type, as its agent says.
    pub content_type: String,
    /// How many bytes it has.
    pub size: i64,
    /// Its content.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct View {
    name: String,
    content_type: String,
    size_bytes: i64,
    sha256: String,
    uri: String,
}

/// The artifacts that this event names.
pub(crate) fn named(event: &RawEvent) -> Vec<Named> {
    // Nearly no event does, and this is on the way of all of them.
    let Some(data) = event.data.as_ref().map(|data| data.get()).filter(|data| data.contains("\"sha256\"")) else { return Vec::new() };
    let listed = |place_of: fn(i64) -> i64| {
        #[derive(Deserialize)]
        struct Data {
            artifacts: Vec<Value>,
        }
        let artifacts = serde_json::from_str(data).map_or_else(|_| Vec::new(), |data: Data| data.artifacts);
        let artifacts = artifacts.into_iter().take(ARTIFACTS_MAX).zip(0..);
        artifacts.filter_map(|(artifact, index)| read(artifact, place_of(index))).collect()
    };
    match event.event_type.as_str() {
        "fte.status.changed" => {
            #[derive(Deserialize)]
            struct Data {
                sequence: i64,
                details: Details,
            }
            #[derive(Deserialize)]
            struct Details {
                artifact: Value,
            }
            let data: Option<Data> = serde_json::from_str(data).ok();
            data.and_then(|data| read(data.details.artifact, data.sequence.clamp(0, OF_RESULT - 1))).into_iter().collect()
        }
        "fte.handoff.requested" => listed(|_| HANDED_OVER),
        other if ResultKind::from_event_type(other).is_some() => listed(|index| OF_RESULT + index),
        _ => Vec::new(),
    }
}

fn read(artifact: Value, place: i64) -> Option<Named> {
    let View { name, content_type, size_bytes: size, sha256, uri } = serde_json::from_value(artifact).ok()?;
    let digest = sha256.parse().ok()?;
    let is_text = |text: &str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
    let is_usable = uri.strip_prefix("artifact:sha256/") == Some(&sha256) && size >= 0 && is_text(&name) && is_text(&content_type);
    is_usable.then_some(Named { place, name, content_type, size, digest })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn artifact(name: &str) -> Value {
        json!({"name": name, "content_type": "text/plain", "size_bytes": 3, "sha256": DIGEST, "uri": format!("artifact:sha256/{DIGEST}")})
    }

    fn names(event_type: &str, data: &Value) -> Vec<(String, i64)> {
        let event = json!({"id": "1", "source": "/x", "type": event_type, "data": data}).to_string();
        named(&RawEvent::parse(event.as_bytes()).unwrap()).into_iter().map(|named| (named.name, named.place)).collect()
    }

    #[test]
    fn steps_results_and_hand_offs_name_artifacts() {
        let step = json!({"sequence": 7, "details": {"artifact": artifact("a")}});
        assert_eq!(names("fte.status.changed", &step), [("a".to_owned(), 7)]);
        let list = json!({"artifacts": [artifact("a"), artifact("b")]});
        assert_eq!(names("fte.result.failed", &list), [("a".to_owned(), OF_RESULT), ("b".to_owned(), OF_RESULT + 1)]);
        assert_eq!(names("fte.handoff.requested", &list), [("a".to_owned(), HANDED_OVER), ("b".to_owned(), HANDED_OVER)]);
        assert_eq!(names("fte.task.requested", &list), []);
    }

    #[test]
    fn what_is_not_of_the_store_or_makes_no_sense_is_passed_over() {
        let check = |key: &str, value: Value| {
            let mut odd = artifact("odd");
            odd[key] = value;
            let list = json!({"artifacts": [odd, artifact("good"), "text", {}]});
            assert_eq!(names("fte.result.completed", &list), [("good".to_owned(), OF_RESULT + 1)], "{list}");
        };
        check("uri", json!("https://elsewhere/a"));
        check("sha256", json!("abc"));
        check("sha256", json!(DIGEST.to_uppercase()));
        check("size_bytes", json!(-1));
        check("name", json!(""));
        check("name", json!("x".repeat(256)));
        check("name", json!("a\0b"));
        check("content_type", json!(7));
    }
}
