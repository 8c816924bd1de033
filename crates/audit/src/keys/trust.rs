//! Whose signatures count for a shard.

use fte_tlog::{KeyAlgorithm, LogKey, Policy, SignedNote, VerifierKey};

/// The policy for the log that a note claims to be of. A shard signs with the key of its installation, under a name that ends in the year; a policy that
/// names the installation's, or that of any of its shards, means them all.
pub fn policy_of(policy: &Policy, note: &[u8]) -> Policy {
    let mut policy = policy.clone();
    let origin = SignedNote::parse(note).ok().and_then(|note| Some(note.text().lines().next()?.to_owned())).unwrap_or_default();
    let base = |name: &str| match name.rsplit_once('/') {
        Some((base, year)) if year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()) => base.to_owned(),
        _ => name.to_owned(),
    };
    let host = base(&origin);
    let of_host = policy.logs.iter().filter(|log| log.key.name() != origin && host != origin && base(log.key.name()) == host);
    let renamed: Vec<LogKey> = of_host
        .filter_map(|log| VerifierKey::new(&*origin, KeyAlgorithm::Ed25519, log.key.public_bytes()).ok())
        .map(|key| LogKey { key, url: None })
        .collect();
    for log in renamed {
        if policy.logs.iter().all(|known| known.key != log.key) {
            policy.logs.push(log);
        }
    }
    policy
}

#[cfg(test)]
mod tests {
    use fte_tlog::SignerKey;

    use super::*;

    #[test]
    fn an_installations_key_is_that_of_its_shards_and_of_no_other_log() {
        let key = |name: &str, seed| SignerKey::new(name, KeyAlgorithm::Ed25519, &[seed; 32]).unwrap();
        let check = |policy: &str, origin: &str, counts: bool| {
            let shard = key(origin, 1);
            let note = SignedNote::new(format!("{origin}\n0\n")).unwrap().with(shard.sign("", 0)).to_string();
            let policy = policy_of(&Policy::of_logs([key(policy, 1).verifier(), key("third.example", 3).verifier()]), note.as_bytes());
            assert_eq!(policy.logs.iter().any(|log| log.key == shard.verifier()), counts, "{origin}");
        };
        check("log.example", "log.example/2026", true);
        check("log.example/2026", "log.example/2026", true);
        check("log.example/2026", "log.example/2027", true);
        check("log.example", "log.example/20267", false);
        check("log.example", "log.example.evil/2026", false);
        check("log.example", "log.example/other/2026", false);
        check("log.example", "other.example/2026", false);
        assert_eq!(policy_of(&Policy::of_logs([]), b"no note").logs, []);
    }
}
