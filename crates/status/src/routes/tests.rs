//! The routes through the router, with the real store behind and a fake sidecar beside. These files are two modules: on SQLite, and on PostgreSQL.

#[path = "tests/artifacts.rs"]
mod artifacts;
#[path = "tests/dead_letters.rs"]
mod dead_letters;
#[path = "tests/deliveries.rs"]
mod deliveries;
#[path = "tests/lists.rs"]
mod lists;
#[path = "tests/live.rs"]
mod live;
#[path = "tests/results.rs"]
mod results;
#[path = "tests/streams.rs"]
mod streams;
#[path = "tests/tenants.rs"]
mod tenants;

type Fixture = crate::test_support::Fixture<{ crate::test_support::on_server(module_path!()) }>;
