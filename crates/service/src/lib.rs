//! What every service shares: configuration, logs, metrics, problem bodies, the two listeners, probes, drain and the audit trail.
//!
//! Always true: configuration is read once and before any port is bound; every error of the public API is an RFC 9457 problem with a
//! stable code; a request from a foreign `Host` or `Origin` never reaches a handler; every listener bounds connections and bodies.
//!
//! A service crate offers `start(config, settings, bus) -> Result<Service, Error>`; the binary binds the ports and calls [`run`].
//! This is the only crate that reads the process environment.

pub mod agents;
mod api;
mod app;
mod arrival;
mod audit;
pub mod browser;
mod bus;
pub mod configured;
mod denials;
pub mod diagnosis;
mod env;
pub mod extract;
mod front;
mod guard;
pub mod keys;
pub mod metrics;
mod page;
pub mod pools;
mod probes;
mod problem;
mod run;
mod server;
pub mod settings;
mod steady;
pub mod telemetry;
mod throttle;
mod trace;

pub use api::{ApiOptions, api_router};
pub use app::app_router;
pub use arrival::Arrival;
pub use audit::{AuditTrail, NotRecorded};
pub use bus::Bus;
pub use denials::Denials;
pub use env::{ConfigError, Env, MapEnv, ProcessEnv, Setting, parse_duration};
pub use fte_bus::chain;
pub use page::{Page, decode_cursor, encode_cursor};
pub use probes::{Check, CheckState, Lack, Readiness, check};
pub use problem::{FieldError, Problem};
pub use run::{Error, Service, ServiceError, run};
pub use server::{Limits, Phase, Serving, serve};
pub use settings::{Ports, Secret, Settings};
pub use steady::SteadyClock;
pub use throttle::Throttle;
pub use trace::TraceParent;

/// Builds a service's public routes; merge [`utoipa_axum::routes!`] into it and apply the state last.
pub type ApiRoutes<S = ()> = utoipa_axum::router::OpenApiRouter<S>;
