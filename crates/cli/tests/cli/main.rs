//! The command as a person or a script meets it: the real binary, its output, its exit codes, against a small fake of the API.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod archives;
mod audit;
mod bench;
mod clients;
mod fake;
mod following;
mod help;
mod records;
mod run;
mod shapes;
mod sidecar;
mod tls;
mod up;
