//! The `fte` binary: arguments in, exit code out. Everything else is a library.

mod agents;
mod audit;
mod bench;
mod claims;
mod cli;
mod client;
mod completions;
mod dead_letters;
mod doctor;
mod error;
mod hints;
mod input;
mod keys;
mod listing;
mod memory;
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
mod variables;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: inside a sandbox this program is but the way to another.
    if let Some(exit) = fte_sandbox::stage::run_if_asked() {
        return exit;
    }
    memory::give_back_soon();
    let cli = cli::Cli::from_command_line();
    let (output, hints) = (cli.output(), cli.hints());
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.note(output::printable(&error.text(&hints)));
            error.exit().into()
        }
    }
}
