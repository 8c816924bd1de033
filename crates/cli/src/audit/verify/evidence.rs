//! `fte audit verify` on a directory that `fte audit export` wrote.

use std::path::Path;

use fte_audit::export::{Checked, ExportError, check};
use fte_service::chain;
use fte_tlog::Policy;
use serde_json::json;

use crate::error::Error;
use crate::output::Output;

pub(super) fn check_directory(directory: &str, policy: Option<&Policy>) -> Result<Checked, Error> {
    check(Path::new(directory), policy).map_err(|error| match error {
        ExportError::Read { .. } | ExportError::Absent { .. } => {
            Error::Incomplete { what: chain(&error), advice: "evidence is whole only with all of its files".to_owned() }
        }
        error => Error::Broken {
            what: "the evidence does not prove what it says".to_owned(),
            why: chain(&error),
            advice: "ask for it anew, and compare".to_owned(),
        },
    })
}

/// Checks it and says so.
pub(super) fn check_and_tell(directory: &str, policy: Option<&Policy>, output: Output) -> Result<(), Error> {
    let Checked { manifest, witnesses, quorum_met, keys_from_evidence } = check_directory(directory, policy)?;
    if output.json {
        let (signed, known) = witnesses;
        let verdict = if quorum_met { "consistent" } else { "incomplete" };
        output.json_line(&json!({
            "verdict": verdict, "origin": manifest.origin, "size": manifest.size, "entries": manifest.entries, "complete": manifest.complete,
            "witnesses": {"good": signed, "all": known}, "keys_from_evidence": keys_from_evidence,
        }))?;
    } else {
        let (entries, origin, size) = (manifest.entries, &manifest.origin, manifest.size);
        output.line(format!("entries {entries}/{entries} of {origin}, which had {size} · witnesses {}/{}", witnesses.0, witnesses.1))?;
    }
    output.note("proven: these entries were in that log. That there are no others is not proven by them: verify the whole log for that");
    if keys_from_evidence {
        output.note("the key was taken from the evidence itself: give --public-key or --policy from elsewhere to prove whose log this is");
    }
    if quorum_met {
        return Ok(());
    }
    let what = format!("{} of {} witnesses have signed the checkpoint, which is not the quorum of the policy", witnesses.0, witnesses.1);
    Err(Error::Incomplete { what, advice: "ask for the evidence anew once they have signed".to_owned() })
}
