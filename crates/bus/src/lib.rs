//! An SDK for the Dapr HTTP API: typed events, subscriptions, state, jobs, and questions to other applications.
//!
//! It serves Dapr 1.14 to 1.18 and every sidecar that speaks the same HTTP. It knows nobody's topics: payloads implement [`Event`].
//!
//! Publishing takes three lines:
//!
//! ```no_run
//! # use fte_bus::{Event, Publisher, PublishOptions, Sidecar, SidecarConfig};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order: u64 }
//! # impl Event for OrderPlaced {
//! #     const TOPIC: &'static str = "orders";
//! #     const TYPE: &'static str = "shop.order.placed";
//! #     const VERSION: u32 = 1;
//! # }
//! # async fn example() -> Result<(), fte_bus::Error> {
//! let sidecar = Sidecar::new(SidecarConfig::at_port(3500))?;
//! let publisher = Publisher::new(sidecar, "/shop", PublishOptions::default());
//! publisher.publish(&OrderPlaced { order: 7 }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! So does subscribing; serve the router on the port the sidecar knows as the application's:
//!
//! ```
//! # use fte_bus::{CloudEvent, Event, Outcome, Subscriptions};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct OrderPlaced { order: u64 }
//! # impl Event for OrderPlaced {
//! #     const TOPIC: &'static str = "orders";
//! #     const TYPE: &'static str = "shop.order.placed";
//! #     const VERSION: u32 = 1;
//! # }
//! let router: axum::Router = Subscriptions::new("pubsub", "billing")
//!     .on(|event: CloudEvent<OrderPlaced>| async move { Outcome::Done })
//!     .router();
//! ```
//!
//! A handler ends with [`Outcome::Done`] (the effect is durable), [`Outcome::Retry`] (it will heal; redelivered without limit, never counted) or
//! [`Outcome::Reject`] (poison: dead-lettered with its reason, then acknowledged). Everything is at least once and may come twice at the same
//! time; handlers are idempotent by the event's `source` and `id`.

#![warn(missing_docs)]

mod error;
mod event;
mod invoke;
mod jobs;
pub mod json;
mod lane;
pub mod metrics;
mod publish;
mod secrets;
mod sidecar;
mod state;
mod subscribe;
pub mod time;

pub use error::{Error, chain};
pub use event::{CloudEvent, Event, REPLAY_ATTRIBUTE, RawEvent};
pub use invoke::Invoker;
pub use jobs::{Job, Jobs};
pub use publish::{Message, PublishOptions, Publisher};
pub use secrets::Secrets;
pub use sidecar::{Metadata, Sidecar, SidecarConfig};
pub use state::{Document, ETag, Guard, Operation, Problem, Save, Saved, StateStore, Unfit};
pub use subscribe::{Bulk, DeadLetters, Dedupe, Delivery, Handling, Outcome, Record, Rejected, SubscribeOptions, Subscriptions};
