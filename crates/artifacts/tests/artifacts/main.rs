//! One suite for every kind of store: a directory, and a real S3 server. And what can go wrong on the way to the latter.

#![expect(clippy::unwrap_used, reason = "a test that fails here shows where")]

mod faults;
mod kit;
mod suite;
