//! The same services on what they are for: real `daprd` sidecars on a real Kafka, started as `dapr run -f .` starts them.
//!
//! `tests/stack/stack` fetches, builds and runs what is needed. Each story has a stack of its own, one story at a time: two cores are few.
//! `FTE_STACK_DAPR=installed` tells them on the Dapr that is installed.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails here shows where, and says what it did")]

mod closed_loop;
mod endpoints;
mod faults;
mod files;
mod front;
mod grpc;
mod handoffs;
mod outages;
mod poison;
mod queues;
mod replicas;
mod rolling;
mod run_file;
mod secrets;
mod secured;
mod sidecar;
mod story;
mod topics;
mod world;
