//! `/v1.0/state/{store}`: get, save, delete, bulk get, transaction.
//!
//! The items of a save are each on their own, as in Dapr: those that can be written are, and the answer is 409 if any
//! condition failed. A transaction is all or nothing, and whatever fails in it is 500.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Api, ApiError, QueryMetadata, no_content, take_body};
use crate::json::{Object, Pairs, string};
use crate::store::state::{Change, Condition, Found, StateWrite, etag_of, etag_text};
use crate::store::writer::now_ms;

const SAVE: &str = "ERR_STATE_SAVE";
const GET: &str = "ERR_STATE_GET";
const DELETE: &str = "ERR_STATE_DELETE";
const TRANSACTION: &str = "ERR_STATE_TRANSACTION";
const MISMATCH: &str = "possible etag mismatch. error from state store: the row has another etag, or is not there, or is";

fn check_store(api: &Api, store: &str) -> Result<(), ApiError> {
    if store == api.context.statestore {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::BAD_REQUEST, "ERR_STATE_STORE_NOT_FOUND", format!("state store {store} is not found")))
}

/// The stored key: `<app-id>||<key>`.
fn stored_key(api: &Api, key: &str) -> Result<String, ApiError> {
    if key.is_empty() {
        return Err(ApiError::malformed("\"key\" is a required field"));
    }
    if key.contains("||") {
        return Err(ApiError::malformed(format!("input key/keyPrefix '{key}' can't contain '||'")));
    }
    Ok(format!("{}||{key}", api.instance.app_id))
}

fn expires_ms(metadata: &Pairs, now_ms: i64) -> Result<Option<i64>, ApiError> {
    let Some(text) = metadata.get_any_case("ttlInSeconds") else {
        return Ok(None);
    };
    let ttl_s: i64 = text.parse().map_err(|_| ApiError::malformed(format!("ttlInSeconds {text:?} is not a whole number")))?;
    if ttl_s < -1 {
        return Err(ApiError::malformed("ttlInSeconds is negative"));
    }
    // 0 and -1 mean: for ever, whatever was before.
    Ok((ttl_s > 0).then(|| now_ms.saturating_add(ttl_s.saturating_mul(1000))))
}

/// An item of a save, or the request of an operation.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(default)]
    key: String,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    etag: Option<Etag>,
    #[serde(default)]
    metadata: Option<Pairs>,
    #[serde(default)]
    options: Option<ItemOptions>,
}

/// An ETag in JSON: a text, or an object around it as some SDKs write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Etag {
    Text(String),
    Object { value: Option<String> },
}

impl Etag {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Object { value } => value,
        }
        .filter(|text| !text.is_empty())
    }
}

#[derive(Deserialize)]
struct ItemOptions {
    #[serde(default)]
    concurrency: Option<String>,
}

fn condition(etag: Option<String>, options: Option<&ItemOptions>) -> Condition {
    match etag {
        Some(text) => Condition::Etag(etag_of(&text)),
        None if options.and_then(|options| options.concurrency.as_deref()).is_some_and(|concurrency| concurrency == "first-write") => {
            Condition::Absent
        }
        None => Condition::Always,
    }
}

impl Item<'_> {
    fn put(self, api: &Api, query: &Pairs, now_ms: i64) -> Result<StateWrite, ApiError> {
        let metadata = merge(self.metadata, query);
        Ok(StateWrite {
            key: stored_key(api, &self.key)?,
            change: Change::Put {
                value: self.value.map_or_else(|| b"null".to_vec(), |value| value.get().as_bytes().to_vec()),
                expires_ms: expires_ms(&metadata, now_ms)?,
            },
            condition: condition(self.etag.and_then(Etag::text), self.options.as_ref()),
        })
    }

    fn delete(self, api: &Api) -> Result<StateWrite, ApiError> {
        Ok(StateWrite {
            key: stored_key(api, &self.key)?,
            change: Change::Delete,
            // Deleting what is not there is no conflict, first write or not.
            condition: condition(self.etag.and_then(Etag::text), None),
        })
    }
}

/// The query's metadata wins over the item's.
fn merge(own: Option<Pairs>, query: &Pairs) -> Pairs {
    let mut pairs = query.clone();
    for (key, value) in own.unwrap_or_default().0 {
        if pairs.get(&key).is_none() {
            pairs.0.push((key, value));
        }
    }
    pairs
}

fn check_count(api: &Api, count: usize) -> Result<(), ApiError> {
    let max = api.context.limits.items_max;
    if count <= max {
        return Ok(());
    }
    Err(ApiError::malformed(format!("{count} items, at most {max} at a time")))
}

fn found_headers(found: &Found, headers: &mut HeaderMap) {
    if let Ok(etag) = HeaderValue::from_str(&etag_text(found.etag)) {
        headers.insert(ETAG, etag);
    }
    if let Some(at) = expiry_text(found)
        && let Ok(at) = HeaderValue::from_str(&at)
    {
        headers.insert("metadata.ttlexpiretime", at);
    }
}

fn expiry_text(found: &Found) -> Option<String> {
    Timestamp::from_second(found.expires_ms? / 1000).ok().map(|at| at.to_string())
}

/// 200 with the value and its ETag, 204 when there is none.
pub(super) async fn read(State(api): State<Api>, Path((store, key)): Path<(String, String)>) -> Result<Response, ApiError> {
    check_store(&api, &store)?;
    let stored = stored_key(&api, &key)?;
    let mut rows = api
        .context
        .store
        .read_state(vec![stored])
        .await
        .map_err(|error| ApiError::store(GET, &format!("fail to get {key} from state store {store}"), &error))?;
    let Some(found) = rows.pop().flatten() else {
        return Ok(no_content());
    };
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    found_headers(&found, &mut headers);
    Ok((headers, found.value).into_response())
}

#[derive(Deserialize)]
struct BulkGet {
    #[serde(default)]
    keys: Vec<String>,
}

/// 200 with an entry per key; one without `data` is not there.
pub(super) async fn bulk_get(State(api): State<Api>, Path(store): Path<String>, body: Body) -> Result<Response, ApiError> {
    check_store(&api, &store)?;
    let body = take_body(&api, body).await?;
    let Object(BulkGet { keys }) = read_body(&body.bytes)?;
    check_count(&api, keys.len())?;
    let stored = keys.iter().map(|key| stored_key(&api, key)).collect::<Result<Vec<_>, _>>()?;
    let rows = api
        .context
        .store
        .read_state(stored)
        .await
        .map_err(|error| ApiError::store("ERR_STATE_BULK_GET", &format!("fail to get from state store {store}"), &error))?;
    let mut out = Vec::with_capacity(rows.iter().flatten().map(|found| found.value.len()).sum::<usize>() + keys.len() * 96 + 2);
    out.push(b'[');
    for (index, (key, row)) in keys.iter().zip(rows).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"key\":");
        string(&mut out, key);
        if let Some(found) = row {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(&found.value);
            crate::json::member(&mut out, "etag", &etag_text(found.etag));
            if let Some(at) = expiry_text(&found) {
                out.extend_from_slice(b",\"metadata\":{\"ttlExpireTime\":");
                string(&mut out, &at);
                out.push(b'}');
            }
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(([(CONTENT_TYPE, "application/json")], out).into_response())
}

fn read_body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))
}

/// Whether writes stand or fall together.
#[derive(Clone, Copy, PartialEq)]
enum Together {
    Each,
    AllOrNone,
}

/// 204 when all writes are durable. When a condition did not hold, 409, or 500 for a transaction, as Dapr says.
async fn write(api: &Api, writes: Vec<StateWrite>, together: Together, code: &'static str, doing: &str) -> Result<Response, ApiError> {
    let atomic = together == Together::AllOrNone;
    let done = api.context.store.write_state(writes, atomic).await.map_err(|error| ApiError::store(code, doing, &error))?;
    if done.iter().any(Result::is_err) {
        let status = if atomic { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CONFLICT };
        return Err(ApiError::new(status, code, format!("{doing}: {MISMATCH}")));
    }
    Ok(no_content())
}

/// 204 when all items are durable, 409 when a condition did not hold.
pub(super) async fn save(
    State(api): State<Api>,
    Path(store): Path<String>,
    QueryMetadata(query): QueryMetadata,
    body: Body,
) -> Result<Response, ApiError> {
    check_store(&api, &store)?;
    let body = take_body(&api, body).await?;
    let items: Vec<Object<Item<'_>>> = read_body(&body.bytes)?;
    check_count(&api, items.len())?;
    if items.is_empty() {
        return Ok(no_content());
    }
    let now_ms = now_ms();
    let writes = items.into_iter().map(|Object(item)| item.put(&api, &query, now_ms)).collect::<Result<Vec<_>, _>>()?;
    let doing = format!("failed saving state in state store {store}");
    write(&api, writes, Together::Each, SAVE, &doing).await
}

/// 204 when the key is gone, 409 when `If-Match` did not hold.
pub(super) async fn remove(
    State(api): State<Api>,
    Path((store, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_store(&api, &store)?;
    let etag = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty()).map(str::to_owned);
    let gone = StateWrite { key: stored_key(&api, &key)?, change: Change::Delete, condition: condition(etag, None) };
    let doing = format!("failed deleting state with key {key}");
    write(&api, vec![gone], Together::Each, DELETE, &doing).await
}

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(borrow, default)]
    operations: Vec<Object<Operation<'a>>>,
    #[serde(default)]
    metadata: Option<Pairs>,
}

#[derive(Deserialize)]
struct Operation<'a> {
    operation: String,
    #[serde(borrow)]
    request: Object<Item<'a>>,
}

/// 204 when all operations are durable, 500 when none is.
pub(super) async fn transaction(
    State(api): State<Api>,
    Path(store): Path<String>,
    QueryMetadata(query): QueryMetadata,
    body: Body,
) -> Result<Response, ApiError> {
    check_store(&api, &store)?;
    let body = take_body(&api, body).await?;
    let Object(Transaction { operations, metadata }) = read_body(&body.bytes)?;
    check_count(&api, operations.len())?;
    if operations.is_empty() {
        return Ok(no_content());
    }
    let shared = merge(metadata, &query);
    let now_ms = now_ms();
    let mut writes = Vec::with_capacity(operations.len());
    for Object(Operation { operation, request: Object(request) }) in operations {
        writes.push(match operation.as_str() {
            "upsert" => request.put(&api, &shared, now_ms)?,
            "delete" => request.delete(&api)?,
            other => {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "ERR_NOT_SUPPORTED_STATE_OPERATION",
                    format!("operation type {other} not supported"),
                ));
            }
        });
    }
    write(&api, writes, Together::AllOrNone, TRANSACTION, "error while executing state transaction").await
}
