//! What can go wrong between an application and its sidecar.

use std::sync::Arc;

/// A failed call to the sidecar.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke: whether the call took effect is unknown.
    #[error("the sidecar at {address} cannot be reached")]
    Unreachable {
        /// Where it was looked for.
        address: Arc<str>,
        /// Why not.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time: whether the call took effect is unknown.
    #[error("the sidecar did not answer {what} within {timeout_ms} ms")]
    TimedOut {
        /// The call.
        what: &'static str,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// The sidecar answered with an error.
    #[error("the sidecar answered {status} {code}: {message}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// Dapr's `errorCode`, or empty.
        code: String,
        /// Dapr's `message`, or the start of the body.
        message: String,
    },
    /// The sidecar's answer does not have the documented shape.
    #[error("the sidecar's answer to {what} was not understood: {reason}")]
    Malformed {
        /// The call.
        what: &'static str,
        /// What was wrong with it.
        reason: String,
    },
    /// The message or document cannot be sent as it is.
    #[error("{0}")]
    Invalid(String),
    /// The publisher or store was shut down.
    #[error("the connection to the sidecar was closed")]
    Closed,
}

impl Error {
    /// Whether the message or document is larger than the sidecar takes: the call did not happen, and never will as it is.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Answered { status: 413, .. })
    }

    /// Whether the same call may succeed later: everything but a refusal (4xx) and an invalid request.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Closed => true,
            Self::Answered { status, .. } => *status >= 500 || *status == 429,
            Self::Malformed { .. } | Self::Invalid(_) => false,
        }
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
