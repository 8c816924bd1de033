//! `fte audit verify` on evidence: a directory that `fte audit export` wrote, or the archive of an export.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use fte_audit::export::{Checked, ExportError, check, unpack};
use fte_service::chain;
use fte_tlog::Policy;
use serde_json::json;

use crate::error::Error;
use crate::output::Output;

/// What a command was given.
pub(super) enum Evidence {
    /// These folders, each of one year, the oldest first.
    Folders(Vec<PathBuf>),
    Archive(PathBuf),
}

/// The evidence that a name means; none where it means something else.
pub(super) fn find(target: &str) -> Option<Evidence> {
    let path = Path::new(target);
    if path.is_file() {
        return Some(Evidence::Archive(path.to_owned()));
    }
    let found = folders(path).ok().filter(|found| !found.is_empty());
    found.map(Evidence::Folders)
}

/// The folders with evidence in a directory: it itself, one for each year, or those in the one folder of an archive.
pub(in crate::audit) fn folders(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if directory.join("manifest").is_file() {
        return Ok(vec![directory.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_year = name.len() == 4 && name.bytes().all(|byte| byte.is_ascii_digit());
        if is_year && entry.path().join("manifest").is_file() {
            found.push(entry.path());
        } else if name.starts_with("export-") && entry.path().is_dir() {
            found.extend(folders(&entry.path())?);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Checks each.
pub(in crate::audit) fn check_all(folders: &[PathBuf], policy: Option<&Policy>) -> Result<Vec<Checked>, Error> {
    let several = folders.len() > 1;
    folders.iter().map(|folder| check(folder, policy).map_err(|error| refused(folder, several, &error))).collect()
}

fn refused(folder: &Path, several: bool, error: &ExportError) -> Error {
    let of = if several { format!("{}: ", folder.display()) } else { String::new() };
    match error {
        ExportError::Read { .. } | ExportError::Absent { .. } => {
            Error::Incomplete { what: format!("{of}{}", chain(error)), advice: "evidence is whole only with all of its files".to_owned() }
        }
        error => Error::Broken {
            what: "the evidence does not prove what it says".to_owned(),
            why: format!("{of}{}", chain(error)),
            advice: "ask for it anew, and compare".to_owned(),
        },
    }
}

/// Checks it and says so.
pub(super) fn check_and_tell(evidence: Evidence, policy: Option<&Policy>, output: Output) -> Result<(), Error> {
    match evidence {
        Evidence::Folders(found) => tell(&found, policy, output),
        Evidence::Archive(path) => {
            let failed = |source| Error::Write { what: "a temporary directory".to_owned(), source };
            let beside = tempfile::tempdir().map_err(failed)?;
            let unpacked = beside.path().join("evidence");
            let file = std::fs::File::open(&path)
                .map_err(|error| refused(&path, false, &ExportError::Read { file: path.display().to_string(), source: error }))?;
            unpack(file, &unpacked).map_err(|error| match &error {
                ExportError::Read { .. } => Error::Incomplete {
                    what: format!("{} is not the whole archive of an export: {}", path.display(), chain(&error)),
                    advice: "name an archive that arrived whole, or else a data directory or a URL".to_owned(),
                },
                _ => refused(&path, false, &error),
            })?;
            tell(&folders(&unpacked).map_err(failed)?, policy, output)
        }
    }
}

fn tell(found: &[PathBuf], policy: Option<&Policy>, output: Output) -> Result<(), Error> {
    let checked = check_all(found, policy)?;
    if output.json {
        let verdict = |quorum_met: bool| if quorum_met { "consistent" } else { "incomplete" };
        let shard = |Checked { manifest, witnesses: (signed, known), quorum_met, keys_from_evidence, undigested }: &Checked| {
            json!({
                "verdict": verdict(*quorum_met), "origin": manifest.origin, "size": manifest.size, "entries": manifest.entries, "complete": manifest.complete,
                "retired": manifest.retired, "export_id": manifest.export_id, "made_by": manifest.made_by, "made_at": manifest.made_at, "query": manifest.query,
                "witnesses": {"good": signed, "all": known}, "keys_from_evidence": keys_from_evidence, "undigested": undigested,
            })
        };
        let all = verdict(checked.iter().all(|checked| checked.quorum_met));
        output.json_line(&json!({"verdict": all, "shards": checked.iter().map(shard).collect::<Vec<_>>()}))?;
    } else {
        for Checked { manifest, witnesses: (signed, known), .. } in &checked {
            let (entries, origin, size) = (manifest.entries, &manifest.origin, manifest.size);
            output.line(format!(
                "entries {entries}/{entries} of {origin}, which had {size} · manifest signed · witnesses {signed}/{known}"
            ))?;
        }
    }
    output.note(
        "proven: these entries were in that log, and the events shown are what they hold. That there are no others is the word of the log's service, \
         signed with the log's key",
    );
    let undigested: usize = checked.iter().map(|checked| checked.undigested).sum();
    if undigested > 0 {
        output.note(format!(
            "not proven of {undigested} events, which earlier builds have sealed: what their entries hold is the service's word, too"
        ));
    }
    let retired: BTreeSet<u16> = checked.iter().flat_map(|checked| checked.manifest.retired.iter().copied()).collect();
    if let (Some(first), Some(last)) = (retired.first(), retired.last()) {
        let years = if first == last { first.to_string() } else { format!("{first}–{last}") };
        output.note(format!("{years} retired when it was made: it has nothing of what was logged then"));
    }
    if checked.iter().any(|checked| checked.keys_from_evidence) {
        output.note("the key was taken from the evidence itself: give --public-key or --policy from elsewhere to prove whose log this is");
    }
    let years: BTreeSet<String> =
        checked.iter().filter_map(|checked| Some(checked.manifest.origin.rsplit_once('/')?.1.to_owned())).collect();
    let exports: BTreeSet<&str> = checked.iter().map(|checked| checked.manifest.export_id.as_str()).collect();
    let absent = checked.iter().flat_map(|checked| &checked.manifest.shards).find(|year| !years.contains(&year.to_string()));
    if exports.len() > 1 {
        let what = "these are parts of several exports".to_owned();
        return Err(Error::Incomplete { what, advice: "check each by itself".to_owned() });
    }
    if let Some(year) = absent {
        let what = format!("the export has a part for {year}, which is not here");
        return Err(Error::Incomplete { what, advice: "name the directory that has all of its years".to_owned() });
    }
    match checked.iter().find(|checked| !checked.quorum_met) {
        None => Ok(()),
        Some(Checked { witnesses: (signed, known), .. }) => {
            let what = format!("{signed} of {known} witnesses have signed the checkpoint, which is not the quorum of the policy");
            Err(Error::Incomplete { what, advice: "ask for the evidence anew once they have signed".to_owned() })
        }
    }
}
