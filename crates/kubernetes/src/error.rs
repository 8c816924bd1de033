//! What goes wrong: with a call, with a claim, with finding the cluster. Each says whether another try may help, and what would.

use std::time::Duration;

use fte_runner::agents::ClaimError;

/// No cluster to claim in.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account names one.
    #[error("no Kubernetes cluster is configured")]
    NoCluster {
        /// What was looked for.
        source: Box<kube::config::InferConfigError>,
    },
    /// What names it cannot be used.
    #[error("the configuration of the Kubernetes cluster is not usable")]
    Unusable {
        /// Why.
        source: Box<kube::Error>,
    },
}

/// What an answer, or none, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotFound,
    /// There is one of this name.
    Exists,
    /// It has changed since it was read, or is another one.
    Conflict,
    Unauthorized,
    Forbidden,
    Quota,
    Invalid,
    Throttled,
    /// It failed over there or on the way, and may have happened.
    Unavailable,
}

/// A call to the API server failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed: {message}")]
pub(crate) struct CallError {
    what: &'static str,
    pub(crate) kind: Kind,
    message: String,
}

impl CallError {
    pub(crate) fn new(what: &'static str, error: &kube::Error) -> Self {
        let (kind, message) = match error {
            kube::Error::Api(status) => (kind_of(status), format!("{} ({})", status.message.trim(), status.code)),
            error => (Kind::Unavailable, fte_service::chain(error).to_string()),
        };
        Self { what, kind, message }
    }

    pub(crate) fn timed_out(what: &'static str, after: Duration) -> Self {
        Self { what, kind: Kind::Unavailable, message: format!("no answer within {} s", after.as_secs_f64()) }
    }

    /// Whether the same call may do better in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self.kind {
            Kind::Throttled | Kind::Unavailable => true,
            Kind::NotFound | Kind::Exists | Kind::Conflict | Kind::Unauthorized | Kind::Forbidden | Kind::Quota | Kind::Invalid => false,
        }
    }

    /// Whether what was asked for may have been done, or may still be.
    pub(crate) fn may_have_happened(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}

fn kind_of(status: &kube::core::Status) -> Kind {
    match status.code {
        401 => Kind::Unauthorized,
        403 if status.message.contains("exceeded quota") => Kind::Quota,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        409 if status.reason == "AlreadyExists" => Kind::Exists,
        409 => Kind::Conflict,
        429 => Kind::Throttled,
        // 408 is a time-out over there.
        400..=499 if status.code != 408 => Kind::Invalid,
        _ => Kind::Unavailable,
    }
}

/// A claim that did not come to anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the cluster did not take the claim")]
    Create { source: CallError },
    #[error("the cluster cannot serve the claim: {reason}: {message}")]
    Unusable { reason: String, message: String },
    #[error("the sandbox was not ready within {} s; last seen: {last}", after.as_secs_f64())]
    NotReady { after: Duration, last: String },
    #[error("the sandbox is gone: {why}")]
    Gone { why: String },
    #[error("a claim named {name} is there already, and is another process's")]
    Foreign { name: String },
    #[error("the claim is held here already")]
    Held,
    #[error("the claim was given up before it was ready")]
    Stopped,
}

impl Error {
    fn retryable(&self) -> bool {
        match self {
            Self::Create { source } => source.is_transient(),
            Self::Unusable { .. } => false,
            // The next attempt claims under another name, perhaps on another node.
            Self::NotReady { .. } | Self::Gone { .. } | Self::Foreign { .. } | Self::Held | Self::Stopped => true,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Create { source } => match source.kind {
                Kind::NotFound => {
                    Some("install agent-sandbox 0.5 or later with its extensions, and make the namespace that agents.toml names")
                }
                Kind::Unauthorized => Some("give the runner credentials that the cluster takes"),
                Kind::Forbidden => Some(
                    "let the runner's service account create, get, list, watch, patch and delete sandboxclaims in the namespace (Helm: sandboxes.enabled)",
                ),
                Kind::Quota => Some("raise the namespace's quota, or lower the agent's `max`"),
                Kind::Invalid => Some("check that agent-sandbox is of a version that serves extensions.agents.x-k8s.io/v1beta1"),
                Kind::Exists | Kind::Conflict | Kind::Throttled | Kind::Unavailable => None,
            },
            Self::Unusable { reason, .. } if reason == "WarmPoolNotFound" => {
                Some("make the SandboxWarmPool that agents.toml names as warm_pool, in the same namespace")
            }
            Self::Unusable { reason, .. } if reason == "TemplateNotFound" => {
                Some("make the SandboxTemplate that the SandboxWarmPool names, in the same namespace")
            }
            Self::NotReady { .. } => {
                Some("see `kubectl describe sandboxclaim` while it waits; a larger ready_timeout helps where images are large")
            }
            Self::Unusable { .. } | Self::Gone { .. } | Self::Foreign { .. } | Self::Held | Self::Stopped => None,
        }
    }
}

impl From<Error> for ClaimError {
    fn from(error: Error) -> Self {
        Self {
            reason: fte_service::chain(&error).to_string(),
            advice: error.advice(),
            retryable: error.retryable(),
            source: Some(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_answers_is_told_apart() {
        let check = |code: u16, reason: &str, message: &str, expected: Kind, transient: bool| {
            let error = kube::Error::Api(kube::core::Status::failure(message, reason).with_code(code).boxed());
            let error = CallError::new("a call", &error);
            assert_eq!((error.kind, error.is_transient()), (expected, transient), "{code} {reason}");
        };
        check(401, "Unauthorized", "", Kind::Unauthorized, false);
        check(403, "Forbidden", "user may not", Kind::Forbidden, false);
        check(403, "Forbidden", "sandboxclaims is forbidden: exceeded quota: q", Kind::Quota, false);
        check(404, "NotFound", "", Kind::NotFound, false);
        check(408, "Timeout", "", Kind::Unavailable, true);
        check(409, "AlreadyExists", "", Kind::Exists, false);
        check(409, "Conflict", "", Kind::Conflict, false);
        check(410, "Expired", "", Kind::Invalid, false);
        check(422, "Invalid", "", Kind::Invalid, false);
        check(429, "TooManyRequests", "", Kind::Throttled, true);
        check(500, "InternalError", "", Kind::Unavailable, true);
        check(503, "ServiceUnavailable", "", Kind::Unavailable, true);
    }
}
