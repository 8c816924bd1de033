//! The key `secrets` of an agent: which values of the secret store its program gets, in which variables.

use std::str::FromStr;

use toml::Spanned;

use super::{Wrong, wrong};

/// A value of the secret store that a program gets in a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretVariable {
    /// The variable.
    pub variable: String,
    /// The secret's name in the store.
    pub secret: String,
    /// Which of its values; in most stores a secret has one, whose key is its name.
    pub key: String,
}

impl FromStr for SecretVariable {
    type Err = ();

    /// `NAME`, `VARIABLE=NAME` or `VARIABLE=NAME/KEY`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (variable, value) = text.split_once('=').unwrap_or((text, text));
        let (secret, key) = value.split_once('/').unwrap_or((value, value));
        let is_variable =
            variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !variable.starts_with(|c: char| c.is_ascii_digit());
        let is_name =
            |name: &str| !name.is_empty() && name.len() <= 253 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
        if variable.is_empty() || !is_variable || !is_name(secret) || !is_name(key) {
            return Err(());
        }
        Ok(Self { variable: variable.to_owned(), secret: secret.to_owned(), key: key.to_owned() })
    }
}

pub(super) fn check(secrets: Option<Spanned<Vec<String>>>) -> Result<Vec<SecretVariable>, Wrong> {
    let Some(list) = secrets else { return Ok(Vec::new()) };
    let read = |text: &String| {
        let problem = format!("{text:?}: expected the name of a secret such as \"API_KEY\", or \"VARIABLE=secret/key\"");
        text.parse().map_err(|()| wrong("secrets", Some(&list), problem))
    };
    list.get_ref().iter().map(read).collect()
}
