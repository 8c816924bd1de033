//! The first program inside a sandbox: reads what it shall run, puts up the inner walls, and becomes it.
//!
//! It runs alone: no thread, no runtime. After its exec nothing of it is left but the walls.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::spec::{BYTES_MAX, Spec};
use crate::{landlock, limits, seccomp, way_out};

/// The program that is the stage is called with this, and the length of the spec.
pub const ARGUMENT: &str = "sandbox-stage";
/// How the stage ends when a wall could not be put up.
pub const STATUS_NO_WALL: u8 = 125;
/// How it ends when the program could not be started.
pub const STATUS_NO_PROGRAM: u8 = 127;

/// Why the program did not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the sandbox was not told what to run: {0}")]
    Spec(io::Error),
    #[error("the sandbox has no way out to the network: {0}")]
    WayOut(io::Error),
    #[error("the sandbox could not be closed: {0}")]
    Limits(#[from] io::Error),
    #[error("the sandbox could not be closed: {0}")]
    Landlock(#[from] landlock::Error),
    #[error("the sandbox could not be closed: {0}")]
    Seccomp(#[from] seccomp::Error),
    #[error("{program} did not start in its sandbox: {source}")]
    Program { program: String, source: io::Error },
}

/// Runs the stage, if this process was started as one. Returns only if it was not, or if the program could not be started.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let length = arguments.next().and_then(|length| length.to_str()?.parse::<usize>().ok());
    let error = match run(length) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    #[expect(clippy::print_stderr, reason = "the runner reads an agent's standard error")]
    {
        eprintln!("{error}");
    }
    Some(ExitCode::from(if matches!(error, Error::Program { .. }) { STATUS_NO_PROGRAM } else { STATUS_NO_WALL }))
}

fn run(length: Option<usize>) -> Result<std::convert::Infallible, Error> {
    let spec = read(length).map_err(Error::Spec)?;
    // Away from the terminal that the runner may have, and a group of its own for what it starts.
    rustix::process::setsid().map_err(io::Error::from)?;
    if let Some(to) = &spec.way_out {
        way_out::hand_over(to).map_err(Error::WayOut)?;
    }
    limits::bind(&spec.limits)?;
    if spec.landlock {
        landlock::bind(&spec)?;
    }
    seccomp::bind()?;
    let source = Command::new(&spec.program).args(&spec.arguments).exec();
    Err(Error::Program { program: spec.program.display().to_string(), source })
}

/// Reads the spec and not a byte more, past every buffer: what follows is the program's.
fn read(length: Option<usize>) -> io::Result<Spec> {
    let length = length.filter(|length| *length <= BYTES_MAX).ok_or_else(|| io::Error::other("its length is no argument"))?;
    let mut text = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match rustix::io::read(rustix::stdio::stdin(), &mut text[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(serde_json::from_slice(&text)?)
}
