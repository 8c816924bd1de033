//! What an agent's command lacks on this machine, found out before a task does: it is said, and no error, since an agent may be installed later.
//!
//! Programs are looked for as a launcher looks for them, in the environment that the agent will have.

use std::path::Path;

use rustix::fs::{Access, access};

use super::launch;
use super::session::ProgramAgent;

/// Programs whose first argument, where it is no option, is a script.
const INTERPRETERS: [&str; 13] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "python", "node", "nodejs", "perl", "ruby", "php", "lua"];

/// What keeps an agent from starting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) agent: String,
    pub(crate) problem: String,
    pub(crate) advice: &'static str,
}

/// What keeps this agent from starting, if anything does.
pub(super) fn of(agent: &ProgramAgent) -> Option<Lack> {
    let lack = |problem: String, advice| Some(Lack { agent: agent.name.clone(), problem, advice });
    let (program, arguments) = agent.command.split_first()?;
    // A task may be any part of it.
    if program.contains('{') {
        return None;
    }
    let found = match launch::find(program, launch::path(&agent.env)) {
        Ok(found) => found,
        Err(error) => return lack(error.to_string(), "install the program, or name it with its whole path"),
    };
    if !found.is_absolute() || !found.is_file() {
        return lack(
            format!("there is no file {program}"),
            "a program that is named with a directory stands beside agents.toml, or its path is absolute",
        );
    }
    if access(&found, Access::EXEC_OK).is_err() {
        return lack(format!("{} is not executable", found.display()), "make it so with chmod +x, or put its interpreter before it");
    }
    let script = arguments.first().filter(|script| !script.starts_with('-') && !script.contains('{') && is_interpreter(&found))?;
    let path = Path::new(script);
    // An agent starts in an empty directory of its own: a name that is not absolute by now is of no file.
    if path.is_absolute() && path.is_file() {
        return None;
    }
    lack(format!("there is no script {script}"), "put it beside agents.toml and start FTE again, or name it with its absolute path")
}

/// `python3.12` is a `python`.
fn is_interpreter(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    INTERPRETERS.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_with_and_without_their_version() {
        for (program, expected) in [("/usr/bin/python3.12", true), ("/bin/sh", true), ("node", true), ("/usr/bin/cat", false), ("/", false)]
        {
            assert_eq!(is_interpreter(Path::new(program)), expected, "{program}");
        }
    }
}
