//! The JSON of the state routes.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Document, ETag, Guard, Operation, Save};
use crate::error::Error;
use crate::sidecar::Answer;

#[derive(Serialize)]
struct Item<'a> {
    key: &'a str,
    value: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    metadata: Ttl,
    options: Options,
}

/// A save without a time to live says so: -1. Redis keeps that of the document before where a save says nothing (`EXPIRE` above 0, `PERSIST` at 0 and
/// below, else neither: `setValue` and `Multi` in Dapr's components-contrib, state/redis/redis.go, 1.14 to 1.18), and a component may have a default.
/// `PostgreSQL` and `SQLite` set the expiry with each save, for -1 to none (state/utils/ttl.go takes -1 and more).
#[derive(Serialize)]
struct Ttl {
    #[serde(rename = "ttlInSeconds")]
    ttl_in_seconds: Cow<'static, str>,
}

impl Ttl {
    fn of(ttl: Option<Duration>) -> Self {
        Self { ttl_in_seconds: ttl.map_or(Cow::Borrowed("-1"), |ttl| ttl.as_secs().max(1).to_string().into()) }
    }
}

#[derive(Serialize)]
struct Options {
    concurrency: &'static str,
    consistency: &'static str,
}

fn item(save: &Save) -> Result<Item<'_>, Error> {
    if save.key.contains("||") || save.key.is_empty() {
        return Err(Error::Invalid(format!("{:?} cannot be a state key: it is empty or contains \"||\"", save.key)));
    }
    let value =
        serde_json::from_slice(&save.value).map_err(|error| Error::Invalid(format!("document {} is not JSON: {error}", save.key)))?;
    let etag = match &save.guard {
        Guard::Absent => None,
        Guard::Unchanged(ETag(etag)) => Some(etag.as_str()),
    };
    let metadata = Ttl::of(save.ttl);
    Ok(Item { key: &save.key, value, etag, metadata, options: Options { concurrency: "first-write", consistency: "strong" } })
}

pub(super) fn encode_saves<'a>(saves: impl Iterator<Item = &'a Save>) -> Result<Bytes, Error> {
    let items = saves.map(item).collect::<Result<Vec<_>, _>>()?;
    to_bytes(&items)
}

pub(super) fn encode_keys(keys: &[String]) -> Bytes {
    Bytes::from(json!({ "keys": keys, "parallelism": 16 }).to_string())
}

pub(super) fn encode_transaction(operations: &[Operation]) -> Result<Bytes, Error> {
    let mut encoded = Vec::with_capacity(operations.len());
    for operation in operations {
        encoded.push(match operation {
            // Dapr marks a document of Redis as somebody's first write only outside of transactions, and without the mark the next create-only write replaces it.
            Operation::Save(Save { key, guard: Guard::Absent, .. }) => {
                return Err(Error::Invalid(format!(
                    "{key:?} cannot be made in a transaction, where Redis would let another make it again: save it by itself"
                )));
            }
            Operation::Save(save) => {
                let request = serde_json::to_value(item(save)?).map_err(|error| Error::Invalid(error.to_string()))?;
                json!({ "operation": "upsert", "request": request })
            }
            Operation::Delete { key, etag } => {
                let etag = etag.as_ref().map_or(Value::Null, |etag| Value::from(etag.0.as_str()));
                json!({ "operation": "delete", "request": { "key": key, "etag": etag, "options": { "concurrency": "first-write" } } })
            }
        });
    }
    to_bytes(&json!({ "operations": encoded }))
}

fn to_bytes<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Invalid(error.to_string()))
}

#[derive(Deserialize)]
struct Found<'a> {
    key: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

/// The answer names its keys in any order and may leave missing ones out.
pub(super) fn decode_documents(keys: &[String], answer: &Answer) -> Result<Vec<Option<Document>>, Error> {
    const WHAT: &str = "a state read";
    let malformed = |reason: String| Error::Malformed { what: WHAT, reason };
    let found: Vec<Found<'_>> = serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
    let mut documents = std::collections::HashMap::with_capacity(found.len());
    for one in found {
        if let Some(error) = one.error.filter(|error| !error.is_empty()) {
            return Err(Error::Answered { status: 500, code: "ERR_STATE_GET".to_owned(), message: format!("{}: {error}", one.key) });
        }
        let (Some(data), Some(etag)) = (one.data, one.etag) else {
            continue;
        };
        if data.get() == "null" || etag.is_empty() {
            continue;
        }
        documents.insert(one.key, Document { value: answer.body.slice_ref(data.get().as_bytes()), etag: ETag(etag) });
    }
    Ok(keys.iter().map(|key| documents.get(key).cloned()).collect())
}
