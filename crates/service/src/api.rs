//! The public API: every service's routes under one URL space, their OpenAPI document, its page at `/docs`, the probes, and the front.

mod document;

use std::net::SocketAddr;

use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use axum::{Router, middleware};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::ApiRoutes;
use crate::audit::AuditTrail;
use crate::denials::Denials;
use crate::front::{self, Front};
use crate::keys::Keys;
use crate::probes::{Readiness, probes};
use crate::settings::Settings;

/// What the API port lets pass.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Where it listens: beyond loopback, IP addresses are hosts too.
    pub listens_on: SocketAddr,
    /// Further names by which it may be called.
    pub allowed_hosts: Vec<String>,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Where the use of keys is recorded.
    pub trail: Option<AuditTrail>,
    /// Where refusals are.
    pub denials: Option<Denials>,
    /// Who may call; none: anybody.
    pub keys: Option<Keys>,
}

impl ApiOptions {
    /// As configured.
    pub fn new(settings: &Settings) -> Self {
        Self {
            listens_on: settings.api_addr,
            allowed_hosts: settings.allowed_hosts.clone(),
            body_bytes_max: settings.body_bytes_max,
            trail: None,
            denials: None,
            keys: settings.keys.clone(),
        }
    }
}

/// Merges the services' routes, adds what every API has, and puts the front before all of it.
pub fn api_router(routes: Vec<ApiRoutes>, readiness: &Readiness, options: ApiOptions) -> Router {
    let merged = routes.into_iter().fold(probes(readiness), ApiRoutes::merge);
    let (router, mut document) = merged.split_for_parts();
    document::complete(&mut document);
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let docs: Router = SwaggerUi::new("/docs").config(Config::from("/openapi.json")).into();
    let front = Front::new(options);
    router
        .route("/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document).into_response()))
        .merge(docs)
        // Who opens the address in a browser shall find something.
        .route("/", get(async || Redirect::to("/docs")))
        // A fallback of our own, so that the front is before it too.
        .fallback(async || http::StatusCode::NOT_FOUND)
        .layer(middleware::from_fn_with_state(front, front::pass))
}

#[cfg(test)]
mod tests;
