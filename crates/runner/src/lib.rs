//! Runs tasks: the state machine, sandboxes, agents, approvals and takeover.

pub mod document;
pub mod ports;
pub mod protocol;
pub mod settings;
