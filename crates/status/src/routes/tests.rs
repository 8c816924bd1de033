//! The routes through the router, with the real store behind and a fake sidecar beside.

mod dead_letters;
mod deliveries;
mod lists;
mod live;
mod results;
mod streams;
mod tenants;
