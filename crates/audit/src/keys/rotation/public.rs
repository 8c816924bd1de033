//! The public half of the key that signs now, where whoever checks a data directory looks for it: `keys/log.pub`, wherever the private half is.
//!
//! * Only a key that the log accepts gets there: one that has signed its last checkpoint, or any where nothing was signed. A start with a wrong key is refused
//!   later, and what is there verifies as before.
//! * It is there before the key signs anything alone, so what a crash leaves verifies by the keys beside it.
//! * What it takes the place of is in `former.pub` by then: a checkpoint with both signatures is of a start that had remembered that one ([`super::former`]).
//!
//! A log can be written with a place that cannot; so none of this stops a start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fte_tlog::VerifierKey;

use super::has_signed;
use crate::engine::Stopped;
use crate::files::install;
use crate::keys::signing::{self, KeyPlace};

/// Its file in a data directory.
pub(super) fn path_in(directory: &Path) -> PathBuf {
    directory.join("keys").join(signing::KEY).with_extension("pub")
}

/// Puts it in its place, and over the one beside a key file elsewhere, if there is one.
pub(super) fn renew(directory: &Path, place: &KeyPlace, key: &VerifierKey) {
    // Whose log it is while another process writes it is that one's to say.
    let Ok(stopped) = Stopped::lock(directory) else { return };
    let is_its_key = stopped.last_signed().is_ok_and(|note| note.is_none_or(|note| has_signed(&note, key)));
    if !is_its_key {
        return;
    }
    let beside = match place {
        KeyPlace::File(path) => Some(path.with_extension("pub")).filter(|path| path.exists()),
        KeyPlace::Text(_) => None,
    };
    for path in [path_in(directory)].into_iter().chain(beside) {
        if let Err(error) = write(&path, key) {
            tracing::warn!(%error, path = %path.display(), "the public half of the log's key cannot be written, and who checks the log needs it: write it yourself. It is {key}");
        }
    }
}

/// Writes it unless it is there.
pub(super) fn write(path: &Path, key: &VerifierKey) -> io::Result<()> {
    let text = format!("{key}\n");
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    install(path, text.as_bytes(), 0o644)
}
