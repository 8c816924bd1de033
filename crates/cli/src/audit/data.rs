//! Where the log is of an instance that is stopped: every command that works on its files is told so alike.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use fte_service::chain;

use crate::error::{Error, remedy};

/// Where it is when nobody says otherwise, as for `fte up`.
pub(super) const DEFAULT: &str = "fte-data";

#[derive(Debug, Args)]
pub(super) struct Data {
    /// The data directory of the instance
    #[arg(long, value_name = "DIR", env = "FTE_DATA", hide_env_values = true, default_value = DEFAULT)]
    data: PathBuf,
}

impl Data {
    /// The directory of the log in it.
    pub(super) fn log(&self) -> Result<PathBuf, Error> {
        let data = self.data.display();
        let log = self.data.join("audit");
        let what = match fs::metadata(&self.data) {
            Ok(found) if !found.is_dir() => format!("{data} is a file, and no directory"),
            Err(error) if error.kind() == ErrorKind::NotFound => format!("there is no directory {data}"),
            _ if !log.join("state").is_dir() => format!("there is no audit log in {data}"),
            _ => return Ok(log),
        };
        Err(Error::usage(what, "name the data directory of an instance that keeps a log, with --data or FTE_DATA"))
    }
}

/// Work on the log that failed, with what helps where that is known.
pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Error {
    match remedy(error) {
        None => Error::Failed(chain(error)),
        Some(advice) => {
            let why = error.source().map_or_else(|| "the system refuses it".to_owned(), chain);
            Error::Broken { what: error.to_string(), why, advice: advice.to_owned() }
        }
    }
}
