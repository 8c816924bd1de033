//! Secrets: values that only the sidecar's secret store knows.

use std::collections::BTreeMap;
use std::fmt;

use http::Method;

use crate::error::Error;
use crate::sidecar::{Sidecar, encode};

/// The secrets behind a sidecar; cheap to clone.
#[derive(Clone)]
pub struct Secrets {
    sidecar: Sidecar,
    store: String,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Secrets {
    /// The secrets of the store component of this name.
    pub fn new(sidecar: Sidecar, store: impl Into<String>) -> Self {
        Self { sidecar, store: store.into() }
    }

    /// The values of a secret by their keys; in most stores a secret has one, whose key is its name. A secret that is not there is an error, which most
    /// stores do not tell from others.
    pub async fn get(&self, name: &str) -> Result<BTreeMap<String, String>, Error> {
        let path = format!("/v1.0/secrets/{}/{}", encode(&self.store), encode(name));
        let answer = self.sidecar.call("a secret", Method::GET, &path, None).await?.success()?;
        // Never into strings at once: what is wrong about a value would be told with the value.
        let values: BTreeMap<String, serde_json::Value> = answer.json("a secret")?;
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok(values.into_iter().map(|(key, value)| (key, text(value))).collect())
    }
}
