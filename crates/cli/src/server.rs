//! What the commands that stay up share: their runtime, their log, and the text for a start that failed.

use std::io;

use fte_service::settings::ENV_AGENTS;
use fte_service::telemetry::{self, Logs};
use fte_service::{ConfigError, ProcessEnv};
use fte_sidecar::StartError;

use crate::error::Error;
use crate::variables::warn_of_unknown;

/// Starts logging and runs a command on all processors.
pub(crate) fn run(default_filter: &str, command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let logs = Logs::from_env(&ProcessEnv, default_filter).map_err(config_error)?;
    telemetry::init(logs).map_err(|error| Error::Failed(format!("logging does not start: {error}")))?;
    warn_of_unknown(&ProcessEnv);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("the async runtime does not start: {error}")))?;
    let outcome = runtime.block_on(command);
    // Blocking work that hangs must not hold up the end.
    runtime.shutdown_background();
    outcome
}

pub(crate) fn config_error(error: ConfigError) -> Error {
    let advice = match &error {
        ConfigError::Unreadable { name, .. } if name == ENV_AGENTS => {
            format!("name a file that is there with --agents or {name}; without any, there are the built-in agents")
        }
        ConfigError::Unreadable { name, .. } => format!("name a file with {name} that is there, and that this user may read"),
        ConfigError::Variable { .. } | ConfigError::Content { .. } => String::new(),
    };
    Error::Start { what: "the configuration is not usable".to_owned(), advice, source: Some(error.into()) }
}

/// A start that failed; `port_option` is what chooses another port.
pub(crate) fn sidecar_error(error: StartError, port_option: &str) -> Error {
    match error {
        StartError::Listen { addr, source, .. } => busy(&addr.to_string(), source, port_option),
        StartError::Locked { path } => Error::Start {
            what: format!("the data directory {} is in use by another process", path.display()),
            advice: "stop the other one, or give this one its own with --data".to_owned(),
            source: None,
        },
        StartError::DataDir { path, .. } if path.exists() && !path.is_dir() => Error::Start {
            what: format!("{} is a file, and the data directory has to be a directory", path.display()),
            advice: "choose another with --data".to_owned(),
            source: None,
        },
        StartError::Secrets { path, source } => Error::Start {
            what: format!("the secrets file {} cannot be read", path.display()),
            advice: "name a file that is there with --secrets or FTE_SECRETS_FILE: a JSON object of names and values".to_owned(),
            source: Some(source.into()),
        },
        StartError::DataDir { path, source } | StartError::ReadOnly { path, source } => Error::Start {
            what: format!("the data directory {} cannot be written", path.display()),
            advice: "check its owner and mode and the mount, or choose another with --data".to_owned(),
            source: Some(source.into()),
        },
        other => Error::Start { what: "the sidecar does not start".to_owned(), advice: String::new(), source: Some(other.into()) },
    }
}

/// A port that cannot be listened on; `option` is what chooses another.
pub(crate) fn busy(addr: &str, source: io::Error, option: &str) -> Error {
    let what = match source.kind() {
        io::ErrorKind::AddrInUse => format!("{addr} is in use by another process"),
        _ => format!("{addr} cannot be listened on"),
    };
    Error::Start {
        what,
        advice: format!("stop the other one, or choose another port with {option} (0: any free one)"),
        source: Some(source.into()),
    }
}
