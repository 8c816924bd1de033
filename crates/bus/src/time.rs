//! Times as they are written: RFC 3339, in UTC, with milliseconds, as `2026-11-30T15:39:12.120Z`.
//!
//! One form for all, with all three digits: times from several places can be compared by eye, and sorted as text.
//!
//! ```
//! # use jiff::Timestamp;
//! #[derive(serde::Serialize)]
//! struct Opened {
//!     #[serde(serialize_with = "fte_bus::time::serialize")]
//!     at: Timestamp,
//!     #[serde(serialize_with = "fte_bus::time::serialize")]
//!     until: Option<Timestamp>,
//! }
//! let opened = Opened { at: Timestamp::UNIX_EPOCH, until: None };
//! assert_eq!(serde_json::to_string(&opened).unwrap(), r#"{"at":"1970-01-01T00:00:00.000Z","until":null}"#);
//! ```

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Now, to the millisecond.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// The time as text. What is finer than a millisecond is cut off.
pub fn text(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A text that is a time, in the one form; any other text as it is.
pub fn normal(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), self::text)
}

/// Writes a field that is a time, or may be one.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(at: &(impl Into<Option<Timestamp>> + Copy), serializer: S) -> Result<S::Ok, S::Error> {
    match (*at).into() {
        Some(at) => serializer.collect_str(&format_args!("{at:.3}")),
        None => serializer.serialize_none(),
    }
}

/// The time of an event: where somebody else gave it a finer one, it is passed on as fine as it came.
pub(crate) struct OfEvent(pub(crate) Timestamp);

impl Serialize for OfEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_finer = self.0.subsec_nanosecond() % 1_000_000 != 0;
        if is_finer { serializer.collect_str(&self.0) } else { self::serialize(&self.0, serializer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits_however_round_or_fine_it_is() {
        let check = |from: &str, expected: &str| assert_eq!(normal(from), expected);
        check("2026-11-30T15:39:12Z", "2026-11-30T15:39:12.000Z");
        check("2026-11-30T15:39:12.1Z", "2026-11-30T15:39:12.100Z");
        check("2026-11-30T15:39:12.123999999Z", "2026-11-30T15:39:12.123Z");
        check("2026-11-30T16:39:12.123+01:00", "2026-11-30T15:39:12.123Z");
        check("tomorrow", "tomorrow");
    }

    #[test]
    fn what_others_say_more_finely_is_passed_on() {
        let written = |from: &str| serde_json::to_string(&OfEvent(from.parse().unwrap())).unwrap();
        assert_eq!(written("2026-11-30T15:39:12.1Z"), r#""2026-11-30T15:39:12.100Z""#);
        assert_eq!(written("2026-11-30T15:39:12.1234Z"), r#""2026-11-30T15:39:12.1234Z""#);
    }
}
