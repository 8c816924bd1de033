//! Records every event exactly once, durably, before it is acknowledged.
