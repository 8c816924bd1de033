//! The chart and the image: rendered by Helm over a matrix of values, validated against what Kubernetes and its operators publish, and compared with the
//! services they start. Nothing here is run on a cluster, and no image is built; the services themselves
//! are started as the pods would start them.
//!
//! `tests/deploy/tools` fetches Helm and the schemas, once. `FTE_UPDATE_GOLDEN=1 cargo test -p fte-tests --test deploy` writes the snapshots anew.

#![expect(clippy::unwrap_used, reason = "a test that fails here shows where")]

mod alerts;
mod calls;
mod catalogue;
mod chart;
mod closed_loop;
mod environment;
mod firing;
mod image;
mod kafka;
mod keys;
mod matrix;
mod nginx;
mod pods;
mod routes;
mod sandboxes;
mod schemas;
mod secrets;
