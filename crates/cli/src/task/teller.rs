//! Who tells of tasks: where each service has an address of its own, the one that takes tasks is not the one that shows them.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::services::Name;

/// Longer is not waited for an address that was guessed.
const GUESS_MAX: Duration = Duration::from_secs(2);

/// Where a task can be followed that this address has taken.
#[derive(Debug)]
pub(super) enum Teller {
    Here,
    /// At this URL.
    There(String),
    Unknown,
}

impl Teller {
    pub(super) async fn of(client: &Client) -> Self {
        if tells(client).await.unwrap_or(true) {
            return Self::Here;
        }
        let [intake, status] = [Name::Intake, Name::Status].map(|service| service.ports().api);
        let Some(host) = client.base().strip_suffix(&format!(":{intake}")) else { return Self::Unknown };
        let there = format!("{host}:{status}");
        let Ok(guessed) = client.at(&there) else { return Self::Unknown };
        let answer = tokio::time::timeout(GUESS_MAX, tells(&guessed)).await;
        if answer.ok().flatten() == Some(true) { Self::There(there) } else { Self::Unknown }
    }
}

/// Whether tasks are shown here; nobody knows where nobody answers.
async fn tells(client: &Client) -> Option<bool> {
    match client.get("/v1/tasks?limit=1").await {
        Ok(_) => Some(true),
        Err(Error::Refused(problem)) => Some(!problem.is_of_a_part()),
        Err(_) => None,
    }
}
