//! The log's own keys: the one that signs, its succession, and whose signatures one believes. What seals personal data has others ([`crate::subjects`]).

pub mod rotation;
pub mod signing;
pub mod trust;
