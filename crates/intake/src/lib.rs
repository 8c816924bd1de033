//! Intake: takes tasks over HTTP and publishes their requests, `fte.task.requested` on `fte.triggers.inbound`.
//!
//! Always true:
//! * 202 is given only after the broker has the event. When that is not certain the answer is 503, never a fake 202.
//! * Without an `Idempotency-Key` intake keeps nothing: a task is one call to the sidecar.
//! * A task whose agent has a full queue is refused with 503, as far as the runner says so; without its word the broker is the buffer.
//! * With one, every event that is ever published for that key within a day is the same event, to the byte, whatever crashes and whoever
//!   repeats the request, also at the same time ([`idempotency`]).
//! * A request is refused as a whole, with everything that is wrong with it.

pub mod config;
mod error;
mod idempotency;
mod intake;
mod request;
mod routes;

use std::sync::Arc;

use fte_bus::Subscriptions;
use fte_service::{Bus, Secret, Service, Settings};

pub use config::Config;
pub use request::NewTask;
pub use routes::{AcceptedTask, Links};

/// The service's name; its app id is `fte-intake`.
pub const NAME: &str = "intake";

/// Why intake did not start: it has no reason not to. It needs the sidecar only when a task comes.
pub type Error = std::convert::Infallible;

/// Makes the service. Nothing is sent.
pub async fn start(config: Config, settings: &Settings, bus: Bus) -> Result<Service, Error> {
    let intake = intake::Intake::new(&config, &bus, Arc::clone(&settings.agents));
    let app_token = settings.app_token.as_ref().map(Secret::expose).map(str::to_owned);
    let mut service = Service::new(NAME, &bus);
    // No subscriptions, but the sidecar asks for the list.
    service.app = Subscriptions::new(&settings.pubsub, "fte-intake").app_token(app_token).router();
    service.api = routes::routes(Arc::new(intake));
    service.on_state(&bus, std::future::ready(Ok(())));
    Ok(service)
}

#[cfg(test)]
mod tests;
