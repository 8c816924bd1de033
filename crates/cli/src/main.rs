//! The `fte` binary: arguments in, exit code out. Everything else is a library.

fn main() {}
