//! Query parameters, each with a clear word about what is wrong with it. One that is given as nothing counts as not given.

use std::str::FromStr;

use fte_service::Problem;
use http::{HeaderMap, StatusCode};

use super::{LIMIT_DEFAULT, LIMIT_MAX};

/// Longest part of a caller's own text that is said back.
const NAMED_CHARS_MAX: usize = 128;

/// The parameter as a `T`.
pub(super) fn parsed<T: FromStr>(name: &str, value: Option<&str>, expected: &str) -> Result<Option<T>, Problem> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| invalid(name, expected))
}

/// How many items to answer with.
pub(super) fn limit(value: Option<&str>) -> Result<usize, Problem> {
    let limit = parsed("limit", value, "a number from 1 to 1000")?.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(invalid("limit", "a number from 1 to 1000")) }
}

/// Where a cut stream is to be taken up: the header that browsers send, or the parameter for those that cannot.
pub(super) fn last_event_id<'a>(headers: &'a HeaderMap, parameter: Option<&'a str>) -> Option<&'a str> {
    let header = headers.get("last-event-id").and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    header.or(parameter).filter(|id| !id.is_empty())
}

/// A stream cannot be taken up after this event; `no` says what the event is not.
pub(super) fn event_gone(last: &str, no: &str) -> Problem {
    let last: String = last.chars().take(NAMED_CHARS_MAX).collect();
    let detail = format!("The event {last} is not {no}, so what comes after it cannot be told; start anew, without Last-Event-ID.");
    Problem::new(StatusCode::GONE, "event_gone", detail)
}

pub(super) fn invalid(name: &str, expected: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", format!("The parameter {name} must be {expected}."))
}
