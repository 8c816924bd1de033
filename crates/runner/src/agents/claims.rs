//! Sandboxes that are claimed elsewhere: the seam between an agent that is reached over the network and whoever gives out the place where it runs.
//!
//! Always true: a claim is named by the id that stands in the task's document before anything is claimed, so that a claim that was made but not recorded can
//! be told by its name; it is held while its [`ClaimedSandbox`] is, and given back when that is dropped, also while it was still waited for.
//!
//! The runner knows no cluster. What claims is handed in by whoever composes the program, so that who needs none of it builds none of it.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use fte_events::{ClaimId, TaskId};
use fte_service::agents::kubernetes::KubernetesSandbox;
use tokio::sync::oneshot;

use crate::ports::Pending;

/// Claims sandboxes.
pub trait Claims: fmt::Debug + Send + Sync {
    /// Claims a sandbox and waits until it is ready. When the future is dropped before, what it claimed is given back.
    fn claim(&self, request: ClaimRequest) -> Pending<Result<ClaimedSandbox, ClaimError>>;

    /// Ends when nothing is held any more and all that was held is given back.
    fn settled(&self) -> Pending<()>;
}

/// Which sandbox is wanted, and for what.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The claim of the task's document. No two claims have the same.
    pub claim_id: ClaimId,
    /// The task.
    pub task_id: TaskId,
    /// The agent.
    pub agent: String,
    /// Where.
    pub sandbox: KubernetesSandbox,
}

/// A sandbox that is ready, and held.
pub struct ClaimedSandbox {
    /// Its name, for people.
    pub name: String,
    /// Where the agent in it listens.
    pub host: SandboxHost,
    /// The port at which it listens.
    pub port: u16,
    /// Whether it stood ready before it was claimed; nothing where nobody knows.
    pub warm: Option<bool>,
    /// Says why, once, when the sandbox is gone although it is still held.
    pub lost: oneshot::Receiver<String>,
    /// Gives it back when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// How a sandbox is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxHost {
    /// By its address.
    Address(IpAddr),
    /// By a name that its cluster resolves.
    Name(String),
}

impl ClaimedSandbox {
    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        match &self.host {
            SandboxHost::Address(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            SandboxHost::Address(address) => format!("{address}:{}", self.port),
            SandboxHost::Name(name) => format!("{name}:{}", self.port),
        }
    }
}

/// A sandbox could not be had.
#[derive(Debug, thiserror::Error)]
#[error("no sandbox: {reason}{}", advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
pub struct ClaimError {
    /// Why.
    pub reason: String,
    /// What would help, where somebody has to do something.
    pub advice: Option<&'static str>,
    /// Whether another try may help.
    pub retryable: bool,
    /// What it came from.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_what_a_url_takes() {
        let check = |host: SandboxHost, expected: &str| {
            let lost = oneshot::channel().1;
            let claimed = ClaimedSandbox { name: "s".to_owned(), host, port: 80, warm: None, lost, guard: Box::new(()) };
            let uri: http::Uri = format!("http://{}/a", claimed.authority()).parse().unwrap();
            assert_eq!((uri.authority().unwrap().as_str(), uri.port_u16()), (expected, Some(80)));
        };
        check(SandboxHost::Address("10.0.0.1".parse().unwrap()), "10.0.0.1:80");
        check(SandboxHost::Address("fd00::1".parse().unwrap()), "[fd00::1]:80");
        check(SandboxHost::Name("s.agents.svc.cluster.local".to_owned()), "s.agents.svc.cluster.local:80");
    }
}
