//! The variables of the environment that any part of FTE reads, and a word about those that none does: a misspelt one would have no effect in silence.
//!
//! One list for all: which service reads which is no matter, since they may be set for all of them at once.

use fte_service::Env;

/// Ours begin so.
const PREFIX: &str = "FTE_";
/// What begins so is a secret of the user's own, by whatever name.
const SECRETS: &str = "FTE_SECRET_";
/// What Kubernetes and Docker set for a service that is called `fte` or begins so.
const LINKS: [&str; 4] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT", "_TCP"];

const KNOWN: &[&str] = &[
    "FTE_AGENTS",
    "FTE_ALLOWED_HOSTS",
    "FTE_ALLOW_ANONYMOUS",
    "FTE_API_ADDR",
    "FTE_API_KEY",
    "FTE_API_KEYS_FILE",
    "FTE_ARTIFACTS",
    "FTE_ARTIFACTS_ALLOW_HTTP",
    "FTE_ARTIFACTS_PATH_STYLE",
    "FTE_ATTEMPT",
    "FTE_AUDIT_ARCHIVE",
    "FTE_AUDIT_ARCHIVE_ALLOW_HTTP",
    "FTE_AUDIT_ARCHIVE_PATH_STYLE",
    "FTE_AUDIT_CACHE_KIB",
    "FTE_AUDIT_CONTENTS_DAYS",
    "FTE_AUDIT_KEY_FILE",
    "FTE_AUDIT_KEY_SECRET",
    "FTE_AUDIT_MASTER_KEY_FILE",
    "FTE_AUDIT_MASTER_KEY_SECRET",
    "FTE_AUDIT_MEMORY",
    "FTE_AUDIT_NEXT_KEY_FILE",
    "FTE_AUDIT_NEXT_KEY_SECRET",
    "FTE_AUDIT_ORIGIN",
    "FTE_AUDIT_READERS_MAX",
    "FTE_AUDIT_RECORD_READS",
    "FTE_AUDIT_WITNESS_POLICY",
    "FTE_BODY_BYTES_MAX",
    "FTE_BULK_DELIVERY",
    "FTE_CONNECTIONS_MAX",
    "FTE_CONTEXT_FILE",
    "FTE_DATA",
    "FTE_DRAIN_MS_MAX",
    "FTE_HANDOFF_FILE",
    "FTE_INTAKE_ACCEPT_MS_MAX",
    "FTE_LOG",
    "FTE_LOG_FORMAT",
    "FTE_PUBLIC_URL",
    "FTE_PUBSUB",
    "FTE_RUNNER_AGEING",
    "FTE_RUNNER_APPROVAL_STAY_MS",
    "FTE_RUNNER_APPROVAL_TTL",
    "FTE_RUNNER_HANDOFF_STAY_MS",
    "FTE_RUNNER_HANDOFF_TTL",
    "FTE_RUNNER_PLACES",
    "FTE_RUNNER_SEAT",
    "FTE_SECRETSTORE",
    "FTE_SECRETS_FILE",
    "FTE_SIDECAR_URL",
    "FTE_STATESTORE",
    "FTE_STATUS_DATABASE_URL",
    "FTE_STATUS_FEEDS_MAX",
    "FTE_STATUS_READERS_MAX",
    "FTE_STATUS_RETENTION",
    "FTE_STATUS_SWEEP_EVERY",
    "FTE_STATUS_WAITERS_MAX",
    "FTE_TASK_ID",
    "FTE_URL",
];

/// Warns of each variable that looks like ours and is not.
pub(crate) fn warn_of_unknown(env: &impl Env) {
    for name in env.names() {
        if let Some(nearest) = instead(&name) {
            tracing::warn!("nothing reads the variable {name}: {nearest} is the nearest that FTE knows");
        }
    }
}

/// The nearest known name to one that is not known; none for a name that is none of ours.
fn instead(name: &str) -> Option<&'static str> {
    let is_ours = name.starts_with(PREFIX) && !name.starts_with(SECRETS) && !LINKS.iter().any(|part| name.contains(part));
    if !is_ours || KNOWN.contains(&name) {
        return None;
    }
    KNOWN.iter().copied().min_by_key(|known| distance(name, known))
}

/// How many letters differ (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut before = std::mem::replace(&mut row[0], at + 1);
        for (to, its) in other.bytes().enumerate() {
            let changed = before + usize::from(letter != its);
            before = row[to + 1];
            row[to + 1] = changed.min(before + 1).min(row[to] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_misspelt_is_told_from_what_is_not_ours() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(instead(name), expected, "{name}");
        check("FTE_AGENT", Some("FTE_AGENTS"));
        check("FTE_RUNER_PLACES", Some("FTE_RUNNER_PLACES"));
        check("FTE_DATA_DIR", Some("FTE_DATA"));
        check("FTE_DATA", None);
        check("FTE_SECRET_WHATEVER", None);
        check("FTE_STATUS_SERVICE_HOST", None);
        check("FTE_PORT_8080_TCP_ADDR", None);
        check("HOME", None);
    }

    /// The variables that the sources below a directory name where they are read.
    fn read_in(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What tests read is none of the product's.
                if !path.ends_with("tests") {
                    read_in(&path, found);
                }
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let reads = text.lines().filter(|line| ["const ENV_", "env = \"", "ProcessEnv.get("].iter().any(|way| line.contains(way)));
                found.extend(reads.filter_map(|line| Some(format!("FTE_{}", line.split_once("\"FTE_")?.1.split('"').next()?))));
            }
        }
    }

    #[test]
    fn every_variable_that_is_read_is_known() {
        let mut found = Vec::new();
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap() {
            read_in(&entry.unwrap().path().join("src"), &mut found);
        }
        assert!(found.len() > 40, "{found:?}");
        let unknown: Vec<_> = found.iter().filter(|name| !KNOWN.contains(&name.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?} are to be added to the list");
        assert!(KNOWN.is_sorted(), "names are found best in order");
    }

    #[test]
    fn every_variable_has_one_row_in_the_documentation() {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
        let firsts = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut named: Vec<&str> = firsts.filter(|name| name.starts_with(PREFIX)).collect();
        named.sort_unstable();
        assert_eq!(named, KNOWN);
    }
}
