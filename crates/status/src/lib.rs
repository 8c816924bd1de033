//! The read model: what every task is, from its events.

pub mod feed;
pub mod metrics;
pub mod model;
pub mod reading;
mod sse;
pub mod store;
pub mod wake;
