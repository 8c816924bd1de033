//! `fte keys`: makes API keys. A key is shown once, here; the file of keys has only its digest.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fte_service::keys::{NewKey, Role, check_file};
use serde_json::json;

use crate::error::Error;
use crate::output::Output;

const AFTER_HELP: &str = "\
The key goes to standard output: give it to its owner, who sends it as `Authorization: Bearer KEY` or sets FTE_API_KEY.
The services read the file that FTE_API_KEYS_FILE names, and again when it changes: no restart is needed.
To take a key back, delete its entry.";

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key, print it, and write its digest down
    New(New),
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
struct New {
    /// Whose it is, as the audit log will say
    name: String,
    /// What its owner may do; may be given several times
    #[arg(long = "role", required = true, value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// Whose tasks its owner sees; "*" for every tenant's
    #[arg(long, default_value = fte_events::TENANT)]
    tenant: String,
    /// Most requests a second, and at once; no limit when absent
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<std::num::NonZeroU32>,
    /// When it stops to count, as 2027-01-31T00:00:00Z; never when absent
    #[arg(long, value_name = "TIME")]
    expires: Option<jiff::Timestamp>,
    /// The file of keys to add it to, made when it is not there; without it the entry is printed
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Submit,
    Read,
    Approve,
    Audit,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Submit => Self::Submit,
            RoleName::Read => Self::Read,
            RoleName::Approve => Self::Approve,
            RoleName::Audit => Self::Audit,
            RoleName::Admin => Self::Admin,
        }
    }
}

impl Keys {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        let Verb::New(new) = self.verb;
        new.run(output)
    }
}

impl New {
    fn run(self, output: Output) -> Result<(), Error> {
        let key = NewKey::make().map_err(|error| Error::Failed(format!("the operating system gave no random bits: {error}")))?;
        let entry = self.entry(&key);
        match &self.file {
            Some(path) => {
                add(path, &entry)?;
                output.note(format!("the key of {} is in {}; it is shown only now", self.name, path.display()));
            }
            None => {
                check_file(Path::new("the key"), &entry).map_err(|error| unusable(&error))?;
                output.note(format!("add this to the file of keys; the key itself is shown only now:\n\n{entry}"));
            }
        }
        if output.json { output.json_line(&json!({ "key": key.secret, "entry": entry })) } else { output.line(&key.secret) }
    }

    fn entry(&self, key: &NewKey) -> String {
        let roles: Vec<String> = self.roles.iter().map(|role| format!("\"{}\"", Role::from(*role))).collect();
        let mut entry = format!("[[keys]]\nname = {:?}\nsha256 = \"{}\"\nroles = [{}]\n", self.name, key.sha256, roles.join(", "));
        entry.push_str(&format!("tenant = {:?}\n", self.tenant));
        if let Some(rate) = self.rate {
            entry.push_str(&format!("rate = {rate}\n"));
        }
        if let Some(expires) = self.expires {
            entry.push_str(&format!("expires = \"{expires}\"\n"));
        }
        entry
    }
}

/// Adds an entry to a file that stays usable.
fn add(path: &Path, entry: &str) -> Result<(), Error> {
    let failed = |what: &str, error: std::io::Error| Error::Failed(format!("{}: {what}: {error}", path.display()));
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("it cannot be read", error)),
    };
    let gap = if before.is_empty() || before.ends_with("\n\n") { "" } else { "\n" };
    let after = format!("{before}{gap}{entry}");
    check_file(path, &after).map_err(|error| unusable(&error))?;
    // Beside it and moved over it: a service that reads it meanwhile sees the one or the other.
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(after.as_bytes())?;
        file.sync_all()?;
        if let Ok(metadata) = std::fs::metadata(path) {
            std::fs::set_permissions(&beside, metadata.permissions())?;
        }
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| failed("it cannot be written", error))
}

fn unusable(error: &fte_service::ConfigError) -> Error {
    Error::Usage { what: error.to_string(), advice: "see `fte keys new --help`".to_owned() }
}
