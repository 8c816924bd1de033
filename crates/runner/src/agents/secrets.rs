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

/// A value of a letter or two is no secret, and would leave nothing of the text.
const BYTES_MIN: usize = 4;

/// How values may stand in what a program writes: as they are, a line of them alone, and as JSON has them. The longest come first, for one may be in another.
pub(super) fn forms(values: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut forms = Vec::new();
    for value in values {
        let lines = value.lines().map(|line| line.trim().to_owned());
        let json = serde_json::to_string(&value).unwrap_or_default();
        let json = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
        forms.extend(lines.chain([json.to_owned(), value.trim().to_owned()]));
        forms.push(value);
    }
    forms.retain(|form| form.len() >= BYTES_MIN);
    forms.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    forms.dedup();
    forms
}

/// The text without what has one of these forms. It is whole yet: of a value that was cut in two nothing is found.
pub(super) fn without(mut text: String, forms: &[String]) -> String {
    for form in forms {
        if text.contains(form.as_str()) {
            text = text.replace(form.as_str(), "***");
        }
    }
    text
}

/// What is left of what was cut off at its front: without the end of a value that the cut went through.
pub(super) fn behind_a_cut<'a>(bytes: &'a [u8], forms: &[String]) -> &'a [u8] {
    let end_of =
        |form: &String| (1..form.len()).find(|from| bytes.starts_with(&form.as_bytes()[*from..])).map_or(0, |from| form.len() - from);
    &bytes[forms.iter().map(end_of).max().unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms_of(values: &[&str]) -> Vec<String> {
        forms(values.iter().map(|value| (*value).to_owned()))
    }

    #[test]
    fn nothing_of_a_value_is_left_however_it_stands_there() {
        let forms = forms_of(&["swordfish", "swordfish-2", "a \"b\" c\n", "BEGIN\nfirst line\nsecond line\n", "no"]);
        let check = |text: &str, expected: &str| assert_eq!(without(text.to_owned(), &forms), expected);
        check("it is swordfish, and swordfish-2 too", "it is ***, and *** too");
        check(r#"{"key": "a \"b\" c\n"}"#, r#"{"key": "***"}"#);
        check("BEGIN\nfirst line\nsecond line", "***");
        check("got: first line", "got: ***");
        check("no", "no");
    }

    #[test]
    fn a_value_that_was_cut_in_two_leaves_no_end_of_it() {
        let forms = forms_of(&["swordfish", "fisherman"]);
        let check = |text: &str, expected: &str| assert_eq!(behind_a_cut(text.as_bytes(), &forms), expected.as_bytes());
        check("fish is in the sea", " is in the sea");
        check("h", "");
        check("erman and swordfish", " and swordfish");
        check("nothing of it", "othing of it");
        check("plain", "plain");
    }
}
