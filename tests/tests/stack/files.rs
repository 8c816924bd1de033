//! What stands in `dapr/`.
