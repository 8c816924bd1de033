//! Why a task was not accepted, and what its caller is told.

use std::time::Duration;

use fte_service::Problem;
use http::StatusCode;

use crate::idempotency::Unsealable;
use crate::request::Refusal;

/// Why a task was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Some fields are wrong.
    #[error("the request is invalid")]
    Invalid(Refusal),
    /// The event would be larger than any may be.
    #[error("the event would have {bytes} bytes")]
    TooLarge { bytes: usize },
    /// The agent's queue takes no further task for now.
    #[error("the queue of {agent} is full")]
    PoolFull { agent: String, retry_after: Duration },
    /// The key stands for another body.
    #[error("the idempotency key already stands for another body")]
    KeyReused,
    /// The sidecar did not take it, or did not say so.
    #[error("{what} failed")]
    Sidecar { what: &'static str, source: fte_bus::Error },
    /// It took too long.
    #[error("the sidecar took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The record changes faster than it can be read.
    #[error("the key's record kept changing")]
    Contended,
    /// The record is none of ours.
    #[error("the key's record cannot be read")]
    Record(#[source] serde_json::Error),
    /// The record is another key's, or there is no randomness to seal it with.
    #[error("the key's record cannot be used")]
    Unsealable(#[source] Unsealable),
}

/// Most bytes of the whole event.
pub(crate) const EVENT_BYTES_MAX: usize = 256 * 1024;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = match &error {
            Error::Invalid(refusal) if refusal.agent_unknown => {
                let detail = refusal.errors.first().map(|error| error.detail.as_str()).unwrap_or_default();
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "agent_unknown", format!("The task names an agent, but {detail}."))
            }
            Error::Invalid(refusal) => {
                let fields = refusal.errors.iter().map(|error| error.pointer.trim_start_matches('/')).collect::<Vec<_>>().join(", ");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_task", format!("Nothing was accepted; to be mended: {fields}."))
            }
            Error::TooLarge { bytes } => {
                let detail = format!(
                    "The task with everything in it would be an event of {bytes} bytes; at most {EVENT_BYTES_MAX} are taken. Pass large inputs by reference."
                );
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "task_too_large", detail)
            }
            Error::PoolFull { agent, retry_after } => {
                let detail =
                    format!("As many tasks wait for {agent} as may. Nothing was accepted; try again after the time that retry-after says.");
                // Nobody's fault: there is nothing to log.
                return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "pool_full", detail)
                    .retry_after(*retry_after)
                    .with("agent", agent.as_str());
            }
            Error::KeyReused => Problem::new(
                StatusCode::CONFLICT,
                "idempotency_key_reused",
                "This Idempotency-Key was used with another body within the last 24 hours. Use a new key for a new task.",
            ),
            Error::Sidecar { source, .. } if !source.is_transient() => unavailable(
                "The sidecar refuses to take tasks; somebody has to look at its components and tokens (`fte doctor`).",
                Duration::from_secs(30),
            ),
            Error::Sidecar { .. } | Error::TimedOut(_) => unavailable(
                "The sidecar did not confirm the task, so it is not accepted. Send it again with the same Idempotency-Key; without a key it may be done twice.",
                Duration::from_secs(1),
            ),
            Error::Contended => {
                unavailable("Other requests with this Idempotency-Key are under way. Send it again.", Duration::from_secs(1))
            }
            Error::Record(_) | Error::Unsealable(_) => return Problem::internal(&error),
        };
        let problem = if problem.status.is_server_error() { problem.caused_by(&error) } else { problem };
        match error {
            Error::Invalid(refusal) => problem.errors(refusal.errors),
            _ => problem,
        }
    }
}

fn unavailable(detail: &str, retry_after: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "task_not_accepted", detail).retry_after(retry_after)
}
