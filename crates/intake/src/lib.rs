//! Accepts tasks over HTTP and publishes their triggers.
