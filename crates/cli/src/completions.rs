//! `fte completions`: what a shell needs to complete our commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::Error;
use crate::output::Output;

const AFTER_HELP: &str = "\
bash: source <(fte completions bash)
zsh:  fte completions zsh > \"${fpath[1]}/_fte\"
fish: fte completions fish > ~/.config/fish/completions/fte.fish";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fte", &mut script);
        output.line(String::from_utf8_lossy(&script).trim_end())
    }
}
