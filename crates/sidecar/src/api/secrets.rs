//! `/v1.0/secrets/{store}`: secrets from a JSON file, read once at the start.

use std::collections::BTreeMap;
use std::io;
use std::path::Path as FilePath;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::Value;

use super::{Api, ApiError};

type Secret = BTreeMap<String, String>;

/// All secrets. Their values are never printed.
pub(crate) struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    pub(crate) fn read(path: &FilePath) -> io::Result<Self> {
        let text = std::fs::read(path)?;
        let all: BTreeMap<String, Value> = serde_json::from_slice(&text)?;
        let text_of = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Self(
            all.into_iter()
                .map(|(name, value)| {
                    let secret = match value {
                        Value::Object(keys) => keys.into_iter().map(|(key, value)| (key, text_of(value))).collect(),
                        other => BTreeMap::from([(name.clone(), text_of(other))]),
                    };
                    (name, secret)
                })
                .collect(),
        ))
    }
}

fn store<'a>(api: &'a Api, name: &str) -> Result<&'a Secrets, ApiError> {
    let Some(secrets) = &api.context.secrets else {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured"));
    };
    if name == api.context.secretstore {
        return Ok(secrets);
    }
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "ERR_SECRET_STORE_NOT_FOUND", format!("failed finding secret store with key {name}")))
}

/// One secret, as an object of its keys.
pub(super) async fn one(State(api): State<Api>, Path((name, key)): Path<(String, String)>) -> Result<Json<Secret>, ApiError> {
    store(&api, &name)?.0.get(&key).cloned().map(Json).ok_or_else(|| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ERR_SECRET_GET",
            format!("failed getting secret with key {key} from secret store {name}: secret {key} not found"),
        )
    })
}

/// All secrets.
pub(super) async fn all(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<BTreeMap<String, Secret>>, ApiError> {
    Ok(Json(store(&api, &name)?.0.clone()))
}
