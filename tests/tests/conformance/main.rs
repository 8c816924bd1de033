//! What any Dapr sidecar must do, asked over its HTTP API and seen from outside.
//!
//! One suite for the embedded sidecar and for `daprd` with Kafka, so that an app that works beside one works beside the
//! other. Where they differ, or one version from another, the difference is a [`Feature`](feature::Feature) and the
//! observed answer is asserted on either side. What a target cannot show is named in the output and counted, never passed.
//!
//! # Run it
//!
//! Against the embedded sidecar, started for the run as `fte sidecar` (build it before: `cargo build -p fte`):
//!
//! ```text
//! cargo test -p fte-tests --test conformance [-- FILTER… | --list | --topics]
//! ```
//!
//! Against real `daprd` on a real Kafka, both started for the run by `tests/stack/stack`, with the state store that is named (`sqlite`, `redis`,
//! `postgresql`):
//!
//! ```text
//! FTE_CONFORMANCE_STACK=redis cargo test -p fte-tests --test conformance
//! ```
//!
//! Against a sidecar of your own:
//!
//! | variable | |
//! |---|---|
//! | `FTE_CONFORMANCE_URL` | its HTTP API, as `http://127.0.0.1:3500`; the suite takes its app id from `/v1.0/metadata` |
//! | `FTE_CONFORMANCE_APP_PORT` | its `--app-port`, where the suite listens as the app, on 127.0.0.1 |
//! | `FTE_CONFORMANCE_URL_2`, `…_APP_PORT_2`, up to `_3` | more sidecars: with the same app id a second instance, with another id a second app |
//! | `FTE_CONFORMANCE_PUBSUB`, `…_STATESTORE` | component names, `pubsub` and `statestore` by default |
//! | `FTE_CONFORMANCE_API_TOKEN`, `…_APP_TOKEN` | its `DAPR_API_TOKEN` and `APP_API_TOKEN`, when it has them |
//! | `FTE_CONFORMANCE_RESTART` | a shell command that kills these sidecars without warning and starts them again |
//! | `FTE_CONFORMANCE_VERSION` | the version, as `1.14`, of a `daprd` that was built without one and says `edge` |
//! | `FTE_CONFORMANCE_WITHOUT` | what the target does not have, by comma: `jobs` when there is no scheduler |
//!
//! What it needs around it, as in `resources/` of this folder:
//! * pub/sub on Kafka with `initialOffset: oldest`, its topics made beforehand: `--topics` prints each with the partitions it
//!   needs (more are fine);
//! * a state store of SQLite, Redis or `PostgreSQL` v2 with the default key prefix;
//! * `resiliency.yaml` among its resources (change the component's name in it to yours);
//! * no app health check, and API and app on the loopback. Start the sidecar before the suite or while it waits: the list of
//!   subscriptions is the same in every run, so one that has fetched it before is fine, too.
//!
//! It has passed so against `daprd` 1.14.0 with Kafka 4.1, three sidecars and the scheduler, in half a minute, and its state
//! cases with each of the three stores.
//!
//! Runs leave records and keys behind. Every run marks its own with a number of its own and ignores all others.
//!
//! # How it works
//!
//! `daprd` asks an app only once what it subscribes to. So all cases share one app per app id for the whole run, with all
//! of [`topics::TOPICS`] subscribed. An event carries a mark; the app files deliveries under it and answers as the case
//! that made the mark has said beforehand. Cases run concurrently; those that stop the sidecar or the app run after the
//! others, one at a time. There is no bare waiting: that nothing more comes is shown by a later event of the same partition.

mod app;
mod bulk_delivery;
mod bulk_publish;
mod delivery;
mod envelope;
mod failures;
mod feature;
mod groups;
mod jobs;
mod like;
mod outages;
mod platform;
mod publish;
mod runner;
mod state;
mod target;
mod topics;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        publish::CASES,
        envelope::CASES,
        bulk_publish::CASES,
        delivery::CASES,
        failures::CASES,
        bulk_delivery::CASES,
        groups::CASES,
        state::CASES,
        jobs::CASES,
        platform::CASES,
        outages::CASES,
    ];
    runner::main(&cases.concat())
}
