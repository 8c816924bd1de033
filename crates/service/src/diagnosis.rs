//! `GET /v1/services/{name}`: what a service finds around it, for `fte doctor`: its sidecar, its clock, how it is guarded. For administrators.
//!
//! Asked, not remembered: the answer is what the sidecar says now. Nothing secret is in it, only whether there is one.

use axum::routing::get;
use fte_bus::{Sidecar, chain};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

use crate::ApiRoutes;
use crate::extract::Json;
use crate::probes::{CheckState, Readiness};
use crate::settings::Settings;

/// What a service finds around it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// Its name.
    pub service: String,
    /// Its version.
    pub version: String,
    /// What its clock shows.
    #[serde(serialize_with = "fte_bus::time::serialize")]
    pub now: Timestamp,
    /// Whether callers of its API need a key.
    pub asks_for_keys: bool,
    /// Whether its sidecar asks it for a token.
    pub sends_api_token: bool,
    /// Whether it asks its sidecar for a token.
    pub asks_for_app_token: bool,
    /// The pub/sub component that it uses.
    pub pubsub: String,
    /// The state store that it uses.
    pub statestore: String,
    /// Where its sidecar is.
    pub sidecar_url: String,
    /// What its sidecar says of itself.
    pub sidecar: Option<SidecarSeen>,
    /// Why that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_error: Option<String>,
    /// What it lacks, as its `/ready` says: most of it keeps it from being ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// What else it found at its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// Something that a service found at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// What it is about, as `sandbox`.
    pub about: String,
    /// What was found.
    pub found: String,
    /// What to do about it; none where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What a sidecar says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SidecarSeen {
    /// The app that it serves.
    pub app_id: String,
    /// Its version; empty where it does not say.
    pub version: String,
    /// Its components.
    pub components: Vec<Component>,
    /// The topics that it subscribes to for the app.
    pub topics: Vec<String>,
}

/// A component of a sidecar.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its type, as `state.redis`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// What a service finds around it: its sidecar, its clock, how it is guarded.
#[utoipa::path(
    get,
    path = "/v1/services/{name}",
    tag = "services",
    params(("name" = String, Path, description = "`intake`, `runner`, `status` or `audit`, of those that this instance is")),
    responses((status = 200, description = "As it is now", body = Diagnosis))
)]
#[expect(dead_code, reason = "what it says is in the document; each service has the route of its own name")]
fn described() {}

#[derive(OpenApi)]
#[openapi(paths(described))]
struct Described;

/// The route of one service.
pub(crate) fn routes(service: &'static str, sidecar: Sidecar, notes: Vec<Note>, readiness: Readiness, settings: &Settings) -> ApiRoutes {
    let settings = settings.clone();
    ApiRoutes::with_openapi(Described::openapi()).route(
        &format!("/v1/services/{service}"),
        get(move || {
            let (sidecar, settings, notes, readiness) = (sidecar.clone(), settings.clone(), notes.clone(), readiness.clone());
            async move {
                let lacks = readiness.states().await.into_iter().filter(|state| !state.ready || state.detail.is_some()).map(lack).collect();
                Json(Diagnosis { lacks, notes, ..diagnose(service, &sidecar, &settings).await })
            }
        }),
    )
}

fn lack(state: CheckState) -> String {
    match state.detail {
        Some(detail) => format!("{}: {detail}", state.name),
        None => state.name,
    }
}

async fn diagnose(service: &str, sidecar: &Sidecar, settings: &Settings) -> Diagnosis {
    let (seen, error) = match sidecar.metadata().await {
        Ok(metadata) => (Some(seen(metadata)), None),
        Err(error) => (None, Some(chain(&error))),
    };
    Diagnosis {
        service: service.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now: Timestamp::now(),
        asks_for_keys: settings.keys.is_some(),
        sends_api_token: settings.sidecar_token.is_some(),
        asks_for_app_token: settings.app_token.is_some(),
        pubsub: settings.pubsub.clone(),
        statestore: settings.statestore.clone(),
        sidecar_url: sidecar.url().to_owned(),
        sidecar: seen,
        sidecar_error: error,
        lacks: Vec::new(),
        notes: Vec::new(),
    }
}

fn seen(mut metadata: fte_bus::Metadata) -> SidecarSeen {
    let components = metadata.rest.remove("components").and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
    let subscriptions = metadata.rest.get("subscriptions").and_then(Value::as_array);
    let topic = |subscription: &Value| subscription.get("topic")?.as_str().map(str::to_owned);
    SidecarSeen {
        app_id: metadata.id,
        version: metadata.runtime_version,
        components,
        topics: subscriptions.into_iter().flatten().filter_map(topic).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sidecar_says_is_read_whatever_else_it_says() {
        let metadata = serde_json::from_value(serde_json::json!({
            "id": "fte-runner", "runtimeVersion": "1.14.0", "extended": {},
            "components": [{"name": "statestore", "type": "state.redis", "version": "v1", "capabilities": ["ETAG", "TTL"]}, {"name": "s", "type": "t"}],
            "subscriptions": [{"pubsubname": "pubsub", "topic": "fte.triggers.inbound", "rules": [{"path": "/x"}]}, {"topic": 7}]
        }))
        .unwrap();
        let seen = seen(metadata);
        assert_eq!((seen.components[0].capabilities.len(), seen.components[1].capabilities.len()), (2, 0));
        assert_eq!(seen.topics, ["fte.triggers.inbound"]);
    }
}
