//! What can be wrong with the keys.

use std::path::PathBuf;

/// The keys cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the keys of the audit log {}: {what}", path.display())]
    Database {
        path: PathBuf,
        /// What happened, and what to do.
        what: &'static str,
        source: rusqlite::Error,
    },
    #[error("{} {what}", path.display())]
    File { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error(
        "there are keys in {}, but no master key in {}: put the master key back from its backup; without it nothing that is sealed can be read",
        database.display(), master.display()
    )]
    MasterMissing { database: PathBuf, master: PathBuf },
    #[error("{} is no master key, which is 64 hexadecimal digits in one line", path.display())]
    MasterMalformed { path: PathBuf },
    #[error("the master key in {} does not open the keys in {}: it is another one's", master.display(), database.display())]
    MasterWrong { database: PathBuf, master: PathBuf },
    #[error("the key {key:?} is not among the keys: they were restored from an older copy, or belong to another log")]
    Unknown { key: String },
    #[error("the payload does not open with its key {key:?}: payload, header or key are not those that belong together")]
    Sealed { key: String },
    #[error("another process works with the keys in {}: stop it first", directory.display())]
    InUse { directory: PathBuf },
    #[error("the operating system has no random bits to give")]
    Random(#[source] getrandom::Error),
}
