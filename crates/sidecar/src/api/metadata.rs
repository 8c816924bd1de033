//! `/v1.0/metadata`: what this sidecar is, and what its app subscribes to.

use std::sync::PoisonError;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{Api, ApiError, no_content, take_body};

/// Keys `PUT` may set.
const EXTENDED_MAX: usize = 64;

/// Describes the sidecar.
pub(super) async fn read(State(api): State<Api>) -> Json<Value> {
    let context = &api.context;
    let mut components = vec![
        json!({"name": context.pubsub, "type": "pubsub.sqlite", "version": "v1", "capabilities": ["BULK_PUBSUB"]}),
        json!({"name": context.statestore, "type": "state.sqlite", "version": "v1",
            "capabilities": ["ETAG", "TRANSACTIONAL", "TTL"]}),
    ];
    if context.secrets.is_some() {
        components.push(json!({"name": context.secretstore, "type": "secretstores.local.file", "version": "v1",
            "capabilities": ["MULTIPLE_KEY_VALUES_PER_SECRET"]}));
    }
    let listed = api.instance.listed();
    let subscriptions: Vec<Value> = listed
        .iter()
        .flat_map(|listed| &listed.subscriptions)
        .map(|subscription| {
            json!({
                "pubsubname": context.pubsub,
                "topic": subscription.topic,
                "metadata": subscription.metadata,
                "rules": [{"path": subscription.path}],
                "deadLetterTopic": subscription.dead_letter.clone().unwrap_or_default(),
                "type": "PROGRAMMATIC",
            })
        })
        .collect();
    let mut extended = api.instance.extended();
    extended.insert("daprRuntimeVersion".to_owned(), context.runtime_version.clone());
    if let Some(listed) = &listed
        && !listed.problems.is_empty()
    {
        extended.insert("subscriptionProblems".to_owned(), listed.problems.join("; "));
    }
    Json(json!({
        "id": &*api.instance.app_id,
        "runtimeVersion": context.runtime_version,
        "enabledFeatures": [],
        "components": components,
        "extended": extended,
        "subscriptions": subscriptions,
        "appConnectionProperties": {
            "port": api.instance.addr.port(),
            "protocol": "http",
            "channelAddress": api.instance.addr.ip().to_string(),
        },
        "actorRuntime": {"runtimeStatus": "DISABLED", "hostReady": false},
    }))
}

/// Sets a key of the extended metadata.
pub(super) async fn write(State(api): State<Api>, Path(key): Path<String>, body: Body) -> Result<Response, ApiError> {
    let body = take_body(&api, body).await?;
    let value = String::from_utf8_lossy(&body.bytes).into_owned();
    if key.len() > 256 || value.len() > 4096 {
        return Err(ApiError::malformed("metadata: key up to 256 bytes, value up to 4096"));
    }
    let mut extended = api.instance.extended.lock().unwrap_or_else(PoisonError::into_inner);
    if extended.len() >= EXTENDED_MAX && !extended.contains_key(&key) {
        return Err(ApiError::malformed(format!("metadata: at most {EXTENDED_MAX} keys")));
    }
    extended.insert(key, value);
    Ok(no_content())
}
