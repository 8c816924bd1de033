//! The stories that cross crates.
