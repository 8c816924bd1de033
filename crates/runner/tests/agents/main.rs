//! Agents as the runner meets them: real programs, started, listened to, and ended. Each lies, crashes, floods or hangs in its own way.

#![expect(clippy::unwrap_used, reason = "what a test does not expect ends it")]

mod acp;
mod builtin;
mod claimed;
mod command;
mod ending;
mod examples;
mod foreign;
mod http;
mod process;
mod support;
