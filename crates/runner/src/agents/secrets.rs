//! Secrets of programs: fetched by name from the sidecar's secret store for each start, so that a new value counts from the next start on; given in variables; never
//! written down, logged or quoted by us.
//!
//! What a program itself does with them is its own: it can put one into its result. So whoever gets secrets should reach no more than it needs (`network`).

use std::collections::BTreeMap;

use fte_service::agents::secrets::SecretVariable;

use super::session::Variables;
use crate::ports::{Pending, StartError};

/// Where secrets come from.
pub trait Secrets: Send + Sync {
    /// The values of a secret by their keys, or why there are none.
    fn get(&self, name: String) -> Pending<Result<BTreeMap<String, String>, SecretError>>;
}

/// A secret that could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SecretError {
    /// Why, with causes.
    pub reason: String,
    /// Whether another try may help.
    pub retryable: bool,
}

/// A store without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, _: String) -> Pending<Result<BTreeMap<String, String>, SecretError>> {
        Box::pin(std::future::ready(Err(SecretError { reason: "there is no secret store".to_owned(), retryable: false })))
    }
}

/// The variables with their values.
pub(super) async fn fetch(agent: &str, wanted: &[SecretVariable], secrets: &dyn Secrets) -> Result<Variables, StartError> {
    let failed = |wanted: &SecretVariable, error: SecretError| StartError {
        agent: agent.to_owned(),
        reason: format!("the secret {} could not be had: {error}", wanted.secret),
        retryable: error.retryable,
    };
    let mut variables = Variables::new();
    for wanted in wanted {
        let mut values = secrets.get(wanted.secret.clone()).await.map_err(|error| failed(wanted, error))?;
        let absent = || failed(wanted, SecretError { reason: format!("it has no value by the key {}", wanted.key), retryable: false });
        variables.push((wanted.variable.clone(), values.remove(&wanted.key).ok_or_else(absent)?));
    }
    Ok(variables)
}

/// The text without the values.
pub(super) fn without(mut text: String, values: &[String]) -> String {
    // A value of a letter or two is no secret, and would leave nothing of the text.
    for value in values.iter().filter(|value| value.len() >= 4) {
        if text.contains(value.as_str()) {
            text = text.replace(value.as_str(), "***");
        }
    }
    text
}
