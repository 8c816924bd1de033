//! The `fte` binary: arguments in, exit code out. Everything else is a library.

mod audit;
mod bench;
mod cli;
mod client;
mod dead_letters;
mod doctor;
mod error;
mod input;
mod listing;
mod output;
mod serve;
mod server;
mod services;
mod sidecar;
mod signals;
mod sse;
mod task;
mod topics;
mod up;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let output = cli.output();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.note(output::printable(&error.text()));
            error.exit().into()
        }
    }
}
