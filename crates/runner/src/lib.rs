//! Runs tasks: the state machine, sandboxes, agents, approvals and takeover.
