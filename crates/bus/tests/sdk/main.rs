//! The SDK against a sidecar that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test that fails here shows where")]

mod invoking;
mod jobs;
mod metering;
mod publishing;
mod state;
mod subscribing;

use fte_bus::{Sidecar, SidecarConfig};
use fte_testkit::FakeSidecar;

fn sidecar(fake: &FakeSidecar) -> Sidecar {
    Sidecar::new(SidecarConfig::at(fake.url())).unwrap()
}
