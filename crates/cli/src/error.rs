//! What a command can fail with, the exit code each failure has, and the text a person reads: what happened, why, what to do.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::process::ExitCode;

use http::StatusCode;
use serde::Deserialize;

use crate::hints::Hints;

/// The exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unavailable = 5,
    Incomplete = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An argument or a setting that makes no sense.
    #[error("{what}")]
    Usage { what: String, advice: String },
    /// Nobody answers.
    #[error("{url} does not answer")]
    Unreachable { url: String, source: Cause },
    /// The server said no, with its reason.
    #[error("{}", .0.headline())]
    Refused(Box<Problem>),
    /// An answer that is not the API's.
    #[error("{url} gave an answer that is not of FTE's API: {what}")]
    Foreign { url: String, what: String },
    /// The command did what it should, and what it found is bad.
    #[error("{0}")]
    Failed(String),
    /// The same, where more can be said.
    #[error("{what}")]
    Broken { what: String, why: String, advice: String },
    /// The command did what it should, and something that is needed does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The time given was not enough.
    #[error("{what}")]
    Incomplete { what: String, advice: String },
    /// A process could not start, because of its surroundings.
    #[error("{what}")]
    Start { what: String, advice: String, source: Option<Cause> },
    /// A running process stopped by itself.
    #[error("{what}")]
    Stopped { what: String, source: Option<Cause> },
    /// Standard output or a file cannot be written.
    #[error("{what} cannot be written")]
    Write { what: String, source: std::io::Error },
}

impl Error {
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), advice: advice.into() }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::Start { .. } => Exit::Usage,
            Self::Unreachable { .. } | Self::Unavailable(_) => Exit::Unavailable,
            Self::Refused(problem) => problem.exit(),
            Self::Foreign { .. } | Self::Failed(_) | Self::Broken { .. } | Self::Stopped { .. } | Self::Write { .. } => Exit::Failed,
            Self::Incomplete { .. } => Exit::Incomplete,
        }
    }

    fn advice(&self, hints: &Hints) -> Option<String> {
        match self {
            Self::Usage { advice, .. } | Self::Incomplete { advice, .. } | Self::Start { advice, .. } | Self::Broken { advice, .. } => {
                Some(advice.clone())
            }
            Self::Unreachable { .. } => Some("`fte up` starts an instance on this machine; FTE_URL or --url names another".to_owned()),
            Self::Refused(problem) => problem.advice(hints),
            Self::Foreign { .. } => Some("check that FTE_URL or --url names an FTE instance".to_owned()),
            Self::Failed(_) | Self::Unavailable(_) | Self::Stopped { .. } | Self::Write { .. } => None,
        }
        .filter(|advice| !advice.is_empty())
    }

    /// The whole text for a person: what happened, why, what to do.
    pub(crate) fn text(&self, hints: &Hints) -> String {
        let mut text = format!("error: {self}");
        if let Self::Broken { why, .. } = self {
            let _ = write!(text, "\n  why: {why}");
        }
        if let Self::Refused(problem) = self {
            problem.details(&mut text);
        }
        let mut cause = std::error::Error::source(self);
        if let Self::Unreachable { .. } = self {
            // What the client's layers say on the way adds nothing to what the system said.
            while let Some(deeper) = cause.and_then(std::error::Error::source) {
                cause = Some(deeper);
            }
        }
        let mut last = String::new();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !last.contains(&words) {
                let _ = write!(text, "\n  why: {words}");
            }
            last = words;
            cause = error.source();
        }
        if let Some(advice) = self.advice(hints) {
            let _ = write!(text, "\n  try: {advice}");
        }
        text
    }
}

/// What helps against what the system said at the root of an error, where that is known.
pub(crate) fn remedy(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::PermissionDenied) => {
                return Some("run it as the user who owns these files, or give this user the right to read and write them (chown, chmod)");
            }
            Some(ErrorKind::ReadOnlyFilesystem) => {
                return Some("mount the file system so that it can be written, or choose another directory");
            }
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => return Some("make room on the disk"),
            _ => cause = error.source(),
        }
    }
    None
}

/// An answer of `application/problem+json` (RFC 9457), or what stands in for it where the body is something else.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    /// From the response itself.
    #[serde(skip)]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) errors: Vec<FieldError>,
    /// What a task does that cannot take what was asked.
    #[serde(default)]
    pub(crate) task_status: Option<String>,
    /// From the `Retry-After` header.
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u64>,
}

/// What is wrong with one field of the request.
#[derive(Debug, Deserialize)]
pub(crate) struct FieldError {
    #[serde(default)]
    pub(crate) pointer: String,
    #[serde(default)]
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn read(status: StatusCode, body: &[u8], retry_after_s: Option<u64>) -> Self {
        let mut problem = serde_json::from_slice::<Self>(body).unwrap_or_else(|_| Self {
            status: 0,
            code: String::new(),
            title: String::new(),
            detail: String::from_utf8_lossy(body).trim().chars().take(300).collect(),
            errors: Vec::new(),
            task_status: None,
            retry_after_s: None,
        });
        problem.status = status.as_u16();
        problem.retry_after_s = retry_after_s;
        if problem.title.is_empty() {
            problem.title = status.canonical_reason().unwrap_or("the request was refused").to_owned();
        }
        problem
    }

    /// Whether whoever answered does not have this route: a service by itself has but its own.
    pub(crate) fn is_of_a_part(&self) -> bool {
        [404, 405].contains(&self.status) && ["", "route_not_found", "method_not_allowed"].contains(&self.code.as_str())
    }

    fn headline(&self) -> String {
        let Self { title, status, code, .. } = self;
        if code.is_empty() { format!("{title} ({status})") } else { format!("{title} ({status} {code})") }
    }

    fn details(&self, text: &mut String) {
        if !self.detail.is_empty() && self.detail != self.title {
            let _ = write!(text, "\n  why: {}", self.detail);
        }
        // One wrong field may be all that there is to say, and be said already.
        for FieldError { pointer, detail } in
            self.errors.iter().filter(|error| error.detail.is_empty() || !self.detail.contains(&error.detail))
        {
            let place = if pointer.is_empty() { "the body" } else { pointer };
            let _ = write!(text, "\n  why: {place}: {detail}");
        }
    }

    fn exit(&self) -> Exit {
        match self.status {
            404 | 410 => Exit::NotFound,
            408 | 429 | 502 | 503 | 504 => Exit::Unavailable,
            400..=499 => Exit::Refused,
            _ => Exit::Failed,
        }
    }

    fn advice(&self, hints: &Hints) -> Option<String> {
        let text = match self.status {
            401 => "set FTE_API_KEY to a key of this instance".to_owned(),
            403 if self.code == "role_missing" => "use a key that has this role: FTE_API_KEY names the key".to_owned(),
            403 if self.code == "not_an_approver" => "somebody whom the agent's `approvers` name has to decide it".to_owned(),
            403 => "use a key that may do this, and a URL whose host the instance allows (FTE_ALLOWED_HOSTS)".to_owned(),
            404 if self.code == "task_not_found" => format!("{} lists what there is", hints.command("tasks")),
            409 if self.task_status.as_deref() == Some("awaiting_handoff") => {
                format!("it waits for a task that it handed on; {} shows which one that is", hints.command("tree ID"))
            }
            422 if self.code == "agent_unknown" => format!("{} lists them", hints.command("agents")),
            404 if self.code.contains("hold") => format!("{} lists what there is", hints.command("audit hold list")),
            404 if self.code.contains("letter") => format!("{} lists what there is", hints.command("dead-letters list")),
            _ if self.is_of_a_part() => {
                "this address serves only a part of FTE, as each of its services does by itself, or another program: see FTE_URL".to_owned()
            }
            408 | 429 | 502 | 503 | 504 => {
                let wait = self.retry_after_s.map_or_else(|| "again in a moment".to_owned(), |wait| format!("again in {wait} s"));
                format!("{wait}; {} says what is not ready", hints.command("doctor"))
            }
            500..=599 => format!("look at the instance's log; {} checks what it needs", hints.command("doctor")),
            _ => return None,
        };
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, exit: Exit, expected: &str) {
        let problem = Problem::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), Some(2));
        let error = Error::Refused(Box::new(problem));
        assert_eq!((error.exit(), error.text(&Hints::default()).as_str()), (exit, expected));
    }

    #[test]
    fn a_problem_says_what_happened_why_and_what_to_do() {
        check(
            422,
            r#"{"code":"invalid_body","title":"The body is not a task","detail":"1 field is wrong","errors":[{"pointer":"/task","detail":"is empty"}]}"#,
            Exit::Refused,
            "error: The body is not a task (422 invalid_body)\n  why: 1 field is wrong\n  why: /task: is empty",
        );
        check(
            422,
            r#"{"code":"agent_unknown","title":"Agent unknown","detail":"There is no such agent; there are: echo.","errors":[{"pointer":"/agent","detail":"there are: echo"}]}"#,
            Exit::Refused,
            "error: Agent unknown (422 agent_unknown)\n  why: There is no such agent; there are: echo.\n  try: `fte agents` lists them",
        );
        check(
            503,
            r#"{"code":"sidecar_down","title":"Not accepted","detail":"the sidecar does not answer"}"#,
            Exit::Unavailable,
            "error: Not accepted (503 sidecar_down)\n  why: the sidecar does not answer\n  try: again in 2 s; `fte doctor` says what is not ready",
        );
        check(
            409,
            r#"{"code":"not_awaiting_approval","title":"Not taken","task_status":"awaiting_handoff"}"#,
            Exit::Refused,
            "error: Not taken (409 not_awaiting_approval)\n  try: it waits for a task that it handed on; `fte tree ID` shows which one that is",
        );
        check(
            403,
            r#"{"code":"role_missing","title":"Not allowed"}"#,
            Exit::Refused,
            "error: Not allowed (403 role_missing)\n  try: use a key that has this role: FTE_API_KEY names the key",
        );
        check(
            404,
            "",
            Exit::NotFound,
            "error: Not Found (404)\n  try: this address serves only a part of FTE, as each of its services does by itself, or another program: see FTE_URL",
        );
        check(
            502,
            "<html>",
            Exit::Unavailable,
            "error: Bad Gateway (502)\n  why: <html>\n  try: again in 2 s; `fte doctor` says what is not ready",
        );
    }
}
