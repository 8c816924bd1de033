//! What can go wrong with an agent elsewhere, and which code each of it has for the task.

use std::time::Duration;

use http::StatusCode;

use crate::agents::limits::{TEXT_BYTES_MAX, clip};
use crate::agents::session::error;
use crate::ports::Said;

/// Something went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{to} cannot be reached: {reason}")]
    Unreachable { to: String, reason: String },
    #[error("{to} did not answer within {} s", within.as_secs_f64())]
    NoAnswer { to: String, within: Duration },
    #[error("the connection was lost in the middle of an answer: {0}")]
    Lost(String),
    #[error("the agent answered nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("the agent answered {status}{detail}")]
    Status { status: StatusCode, detail: String, retry_after: Option<Duration> },
    #[error("the agent answered with the error {code}: {message}")]
    Rpc { code: i32, message: String },
    #[error("{what} leads to {to}; only the origin of the agent's url is spoken to, put that address there if it is meant")]
    Elsewhere { what: &'static str, to: String },
    #[error("the agent's answer makes no sense: {0}")]
    Bad(String),
    #[error("the agent sent more than {0} bytes; large output travels as an artifact by its url")]
    Flood(u64),
    #[error("an answer of the agent is larger than {0} bytes; large output travels as an artifact by its url")]
    AnswerTooLarge(usize),
    #[error("{0}")]
    Unsupported(String),
    #[error("the task ended twice: {0}")]
    Twice(String),
    #[error("the agent does not know its task {0} any more")]
    Forgotten(String),
    #[error("the agent wants a login that a header in agents.toml does not give{0}")]
    Login(String),
    /// A last word that another part of the runner found.
    #[error("{0:?}")]
    Said(Box<Said>),
}

impl Trouble {
    /// It may be gone at the next try, of a request as of an attempt.
    pub(super) fn heals(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Lost(_) | Self::Silent(_) | Self::Forgotten(_) => true,
            Self::Status { status, .. } => *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            Self::Rpc { code, .. } => *code == a2a::error_code::INTERNAL_ERROR,
            Self::Said(said) => matches!(**said, Said::Error { retryable: true, .. }),
            Self::Elsewhere { .. }
            | Self::Bad(_)
            | Self::Flood(_)
            | Self::AnswerTooLarge(_)
            | Self::Unsupported(_)
            | Self::Twice(_)
            | Self::Login(_) => false,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Lost(_) => "remote_unreachable",
            Self::Silent(_) => "agent_silent",
            Self::Status { status: StatusCode::UNAUTHORIZED, .. } | Self::Login(_) => "auth_required",
            Self::Status { .. } | Self::Rpc { .. } if self.heals() => "remote_unavailable",
            Self::Status { .. } | Self::Rpc { .. } => "remote_refused",
            Self::Elsewhere { .. } => "remote_elsewhere",
            Self::Bad(_) | Self::Said(_) => "bad_message",
            Self::Flood(_) | Self::AnswerTooLarge(_) => "output_too_large",
            Self::Unsupported(_) => "protocol_unsupported",
            Self::Twice(_) => "result_twice",
            Self::Forgotten(_) => "remote_forgot",
        }
    }

    /// As the last word about the attempt. What agents say in errors goes through `clean` first.
    pub(super) fn said(self, clean: impl Fn(String) -> String) -> Said {
        match self {
            Self::Said(said) => *said,
            trouble => error(trouble.code(), clip(clean(trouble.to_string()), TEXT_BYTES_MAX), trouble.heals()),
        }
    }
}
