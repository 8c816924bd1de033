//! What a job says: when it is due, how often, what follows a failure. Pure; the clock is an argument.
//!
//! As Dapr's scheduler has it: the first call is at `dueTime`, or at the schedule's next time; the schedule goes on from
//! there until `repeats` calls or `ttl`, which counts from the due time. Times that passed while nobody could be called
//! are made up for by one call.

mod cron;

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::Object;
use crate::resiliency::duration;
use crate::store::jobs::{After, JobRow};
use cron::Cron;

/// A job's request, read.
#[derive(Debug)]
pub(crate) struct Spec {
    schedule: Option<Schedule>,
    due: Option<Moment>,
    repeats: Option<u32>,
    ttl: Option<Moment>,
    pub(crate) overwrite: bool,
    failure: Failure,
}

#[derive(Debug)]
enum Schedule {
    Every(Duration),
    Cron(Box<Cron>),
}

/// A time, or a duration from another time.
#[derive(Debug, Clone, Copy)]
enum Moment {
    At(Timestamp),
    After(Duration),
}

/// What follows a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failure {
    /// Tries after the first; `None` is without limit.
    retries_max: Option<u32>,
    interval: Duration,
}

/// Why a job is refused.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: ProblemKind,
    text: String,
}

/// What is wrong with a job; Dapr has a code for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// The body is no job.
    Body,
    /// The body has a name.
    Name,
    /// Neither schedule nor due time.
    Empty,
    /// It says something that cannot be.
    Spec,
    /// It is fine in Dapr and not done here.
    Unsupported,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn problem(text: impl Into<String>) -> Problem {
    Problem { kind: ProblemKind::Spec, text: text.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    schedule: Option<String>,
    #[serde(default, alias = "due_time")]
    due_time: Option<String>,
    #[serde(default)]
    repeats: Option<i64>,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    overwrite: Option<bool>,
    #[serde(default, alias = "failure_policy")]
    failure_policy: Option<FailurePolicy>,
}

#[derive(Deserialize)]
struct FailurePolicy {
    #[serde(default)]
    drop: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    constant: Option<Constant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Constant {
    #[serde(default)]
    interval: Option<String>,
    #[serde(default, alias = "max_retries")]
    max_retries: Option<u32>,
}

/// The first millisecond that is not before `moment`: a job never comes early.
fn not_before_ms(moment: Timestamp) -> i64 {
    let whole = moment.as_millisecond();
    if moment.subsec_nanosecond() % 1_000_000 == 0 { whole } else { whole + 1 }
}

impl Spec {
    /// Reads a request's JSON.
    pub(crate) fn read(json: &[u8]) -> Result<Self, Problem> {
        // No body is an empty one.
        let json = if json.trim_ascii().is_empty() { b"{}" } else { json };
        let Object::<Request<'_>>(request) =
            serde_json::from_slice(json).map_err(|error| Problem { kind: ProblemKind::Body, text: error.to_string() })?;
        if request.name.is_some_and(|name| !name.is_empty()) {
            return Err(Problem { kind: ProblemKind::Name, text: "Set the job name in the url only".to_owned() });
        }
        let schedule = request.schedule.as_deref().filter(|text| !text.is_empty()).map(read_schedule).transpose()?;
        let due = request.due_time.as_deref().filter(|text| !text.is_empty()).map(|text| moment("dueTime", text)).transpose()?;
        let ttl = request.ttl.as_deref().filter(|text| !text.is_empty()).map(|text| moment("ttl", text)).transpose()?;
        let repeats = match request.repeats {
            None => None,
            Some(repeats) => {
                Some(u32::try_from(repeats).ok().filter(|repeats| *repeats > 0).ok_or_else(|| problem("repeats must be greater than 0"))?)
            }
        };
        if schedule.is_none() && due.is_none() {
            let text = "Schedule is empty: job must have either a due time or a schedule".to_owned();
            return Err(Problem { kind: ProblemKind::Empty, text });
        }
        if schedule.is_none() && repeats.is_some_and(|repeats| repeats > 1) {
            return Err(problem("job must have a schedule to repeat"));
        }
        if schedule.is_none() && ttl.is_some() {
            return Err(problem("job must have a schedule to have a ttl"));
        }
        let failure = match request.failure_policy {
            Some(FailurePolicy { drop: Some(_), .. }) => Failure { retries_max: Some(0), interval: Duration::ZERO },
            Some(FailurePolicy { constant: Some(constant), .. }) => Failure {
                retries_max: constant.max_retries,
                interval: match constant.interval.as_deref() {
                    None => Duration::ZERO,
                    Some(text) => duration(text).ok_or_else(|| problem(format!("failurePolicy: interval {text} is not a duration")))?,
                },
            },
            _ => Failure { retries_max: Some(3), interval: Duration::from_secs(1) },
        };
        Ok(Self { schedule, due, repeats, ttl, overwrite: request.overwrite.unwrap_or(false), failure })
    }

    /// The row of a job created now.
    pub(crate) fn begin(&self, app: &str, name: &str, now: Timestamp, json: &[u8]) -> Result<JobRow, Problem> {
        let due = self.due.map(|due| due.from(now));
        let first = match (due, &self.schedule) {
            (Some(due), _) => due,
            (None, Some(schedule)) => schedule.after(now).ok_or_else(|| problem("schedule never comes to pass"))?,
            (None, None) => now,
        };
        let expires = self.ttl.map(|ttl| ttl.from(due.unwrap_or(now)));
        if let (Some(due), Some(expires)) = (due, expires)
            && due > expires
        {
            return Err(problem("ttl must be greater than due time"));
        }
        Ok(JobRow {
            app: app.to_owned(),
            name: name.to_owned(),
            version: fastrand::i64(..),
            next_ms: not_before_ms(first),
            due_ms: not_before_ms(first),
            fired: 0,
            failed: 0,
            expires_ms: expires.map(Timestamp::as_millisecond),
            spec: json.to_vec(),
        })
    }

    /// The body of a call: the data as it was given.
    pub(crate) fn data(&self, json: &[u8]) -> Vec<u8> {
        serde_json::from_slice::<Request<'_>>(json)
            .ok()
            .and_then(|request| request.data)
            .map(|data| data.get().as_bytes().to_vec())
            .unwrap_or_default()
    }

    /// The call was answered.
    pub(crate) fn after_success(&self, job: &JobRow, now: Timestamp) -> After {
        let fired = job.fired + 1;
        if self.repeats.is_some_and(|repeats| fired >= repeats) {
            return After::Over;
        }
        let Some(schedule) = &self.schedule else {
            return After::Over;
        };
        let last = Timestamp::from_millisecond(job.due_ms).unwrap_or(now);
        let next = match schedule.after(last) {
            // Several times passed meanwhile: one call made up for them.
            Some(next) if next <= now => schedule.after(now),
            next => next,
        };
        match next.map(Timestamp::as_millisecond) {
            Some(next_ms) if job.expires_ms.is_none_or(|expires_ms| next_ms <= expires_ms) => {
                After::Next { next_ms, due_ms: next_ms, fired, failed: 0 }
            }
            _ => After::Over,
        }
    }

    /// The call failed.
    pub(crate) fn after_failure(&self, job: &JobRow, now: Timestamp) -> After {
        let failed = job.failed + 1;
        if self.failure.retries_max.is_some_and(|max| failed > max) {
            return self.after_success(job, now);
        }
        After::Next { next_ms: add(now, self.failure.interval).as_millisecond(), due_ms: job.due_ms, fired: job.fired, failed }
    }
}

impl Schedule {
    fn after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => Some(add(time, *every)),
            Self::Cron(cron) => cron.after(time),
        }
    }
}

impl Moment {
    fn from(self, start: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::After(after) => add(start, after),
        }
    }
}

fn add(time: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|duration| time.checked_add(duration).ok()).unwrap_or(Timestamp::MAX)
}

fn moment(what: &str, text: &str) -> Result<Moment, Problem> {
    if let Some(after) = duration(text) {
        return Ok(Moment::After(after));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Moment::At(at));
    }
    if text.starts_with('P') || text.starts_with('R') {
        return text.parse::<SignedDuration>().ok().and_then(|after| Duration::try_from(after).ok()).map(Moment::After).ok_or_else(|| {
            Problem {
                kind: ProblemKind::Unsupported,
                text: format!("{what} {text}: of ISO 8601 durations only hours, minutes and seconds are done here"),
            }
        });
    }
    Err(problem(format!("{what} {text} is neither an RFC 3339 time nor a duration such as 30s")))
}

fn read_schedule(text: &str) -> Result<Schedule, Problem> {
    if let Some(every) = text.strip_prefix("@every ") {
        let every = duration(every)
            .filter(|every| *every >= Duration::from_millis(1))
            .ok_or_else(|| problem(format!("schedule {text}: not a duration such as 30s")))?;
        return Ok(Schedule::Every(every));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 0 1 1 *",
        "@monthly" => "0 0 0 1 * *",
        "@weekly" => "0 0 0 * * 0",
        "@daily" | "@midnight" => "0 0 0 * * *",
        "@hourly" => "0 0 * * * *",
        other => other,
    };
    Cron::read(fields).map(|cron| Schedule::Cron(Box::new(cron))).map_err(|what| problem(format!("schedule {text}: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn begin(json: &str, now: &str) -> Result<(Spec, JobRow), String> {
        let spec = Spec::read(json.as_bytes()).map_err(|problem| problem.to_string())?;
        let row = spec.begin("app", "job", at(now), json.as_bytes()).map_err(|problem| problem.to_string())?;
        Ok((spec, row))
    }

    /// The times a job is called when each call succeeds at once.
    fn calls(json: &str, now: &str, max: usize) -> Vec<String> {
        let (spec, mut row) = begin(json, now).unwrap();
        let mut times = Vec::new();
        while times.len() < max {
            let now = Timestamp::from_millisecond(row.next_ms).unwrap();
            times.push(now.to_string());
            match spec.after_success(&row, now) {
                After::Over => break,
                After::Next { next_ms, due_ms, fired, failed } => {
                    row = JobRow { next_ms, due_ms, fired, failed, ..row };
                }
            }
        }
        times
    }

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn jobs_are_called_when_daprs_scheduler_calls_them() {
        let check = |json, expected: &[&str]| assert_eq!(calls(json, NOW, 3), expected, "{json}");
        check(r#"{"dueTime":"90s"}"#, &["2026-01-01T00:01:30Z"]);
        check(r#"{"dueTime":"2026-02-01T00:00:00Z"}"#, &["2026-02-01T00:00:00Z"]);
        check(r#"{"schedule":"@every 30s","repeats":2}"#, &["2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"]);
        check(r#"{"schedule":"@every 30s","dueTime":"10s","ttl":"40s"}"#, &["2026-01-01T00:00:10Z", "2026-01-01T00:00:40Z"]);
        check(r#"{"schedule":"@daily"}"#, &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]);
    }

    #[test]
    fn times_that_passed_are_made_up_for_once() {
        let (spec, row) = begin(r#"{"schedule":"@every 10s"}"#, NOW).unwrap();
        let late = at("2026-01-01T01:00:00Z");
        let After::Next { next_ms, .. } = spec.after_success(&row, late) else {
            panic!("goes on");
        };
        assert_eq!(next_ms, at("2026-01-01T01:00:10Z").as_millisecond());
    }

    #[test]
    fn a_failed_call_is_tried_again_as_its_policy_says() {
        let check = |json, retries: u32, interval_ms: i64| {
            let (spec, mut row) = begin(json, NOW).unwrap();
            let now = at(NOW);
            for failed in 1..=retries {
                let After::Next { next_ms, failed: counted, .. } = spec.after_failure(&row, now) else {
                    panic!("{json}: over after {failed}");
                };
                assert_eq!((next_ms, counted), (now.as_millisecond() + interval_ms, failed));
                row.failed = counted;
            }
            assert_eq!(spec.after_failure(&row, now), After::Over, "{json}");
        };
        check(r#"{"dueTime":"1s"}"#, 3, 1000);
        check(r#"{"dueTime":"1s","failurePolicy":{"constant":{"interval":"20ms","maxRetries":5}}}"#, 5, 20);
        check(r#"{"dueTime":"1s","failurePolicy":{"drop":{}}}"#, 0, 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (json, says) in [
            ("{}", "due time or a schedule"),
            (r#"{"dueTime":"soon"}"#, "soon"),
            (r#"{"dueTime":"1s","repeats":2}"#, "schedule to repeat"),
            (r#"{"schedule":"@every 1s","repeats":0}"#, "repeats"),
            (r#"{"dueTime":"1s","ttl":"5s"}"#, "schedule to have a ttl"),
            (r#"{"schedule":"@every x"}"#, "@every x"),
            (r#"{"schedule":"* * * * *"}"#, "6 fields"),
            (r#"{"schedule":"@daily","dueTime":"10s","ttl":"2025-01-01T00:00:00Z"}"#, "ttl must be greater"),
            (r#"{"name":"x","dueTime":"1s"}"#, "url only"),
        ] {
            let error = begin(json, NOW).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }

    #[test]
    fn data_is_called_as_it_was_given() {
        let json = r#"{"dueTime":"1s","data": {"a" : [1.0]} }"#;
        let spec = Spec::read(json.as_bytes()).unwrap();
        assert_eq!(spec.data(json.as_bytes()), br#"{"a" : [1.0]}"#);
        assert!(Spec::read(br#"{"dueTime":"1s"}"#).unwrap().data(br#"{"dueTime":"1s"}"#).is_empty());
    }
}
