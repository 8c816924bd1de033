//! Reading a policy file.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{Group, LogKey, Policy, PolicyError, Witness};
use crate::decimal;
use crate::key::{KeyAlgorithm, VerifierKey};

/// Most lines that say something: twice what the specification recommends for each kind, and the quorum.
const LINES_MAX: usize = 193;

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut reader = Reader::default();
        let mut said = 0;
        for (line, text) in (1..).zip(text.split('\n')) {
            reader.line = line;
            if text.chars().any(|c| c.is_ascii_control() && c != '\t') {
                return Err(reader.wrong("a control character other than tab and line feed"));
            }
            let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            said += 1;
            if said > LINES_MAX {
                return Err(reader.wrong(format!("a policy has {LINES_MAX} lines at most")));
            }
            reader.read(&words)?;
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self { logs: reader.logs, witnesses: reader.witnesses, groups: reader.groups, quorum: (quorum != "none").then_some(quorum) })
    }
}

#[derive(Default)]
struct Reader {
    line: usize,
    logs: Vec<LogKey>,
    witnesses: Vec<Witness>,
    groups: Vec<Group>,
    quorum: Option<String>,
    /// Names that are members of a group: each at most once.
    members: BTreeSet<String>,
}

impl Reader {
    fn wrong(&self, what: impl Into<String>) -> PolicyError {
        PolicyError::Line { line: self.line, what: what.into() }
    }

    fn read(&mut self, words: &[&str]) -> Result<(), PolicyError> {
        match words {
            ["log", key, url @ ..] if url.len() <= 1 => {
                let key = self.key(key, KeyAlgorithm::Ed25519)?;
                if self.logs.iter().any(|log| log.key.public_bytes() == key.public_bytes()) {
                    return Err(self.wrong("the key of an earlier log"));
                }
                self.logs.push(LogKey { key, url: url.first().map(|url| (*url).to_owned()) });
            }
            ["witness", name, key, url @ ..] if url.len() <= 1 => {
                self.new_name(name)?;
                let key = self.key(key, KeyAlgorithm::CosignatureV1)?;
                if self.witnesses.iter().any(|witness| witness.key.public_bytes() == key.public_bytes()) {
                    return Err(self.wrong("the key of an earlier witness"));
                }
                self.witnesses.push(Witness { name: (*name).to_owned(), key, url: url.first().map(|url| (*url).to_owned()) });
            }
            ["group", name, threshold, members @ ..] if !members.is_empty() => {
                self.new_name(name)?;
                for member in members {
                    self.known_name(member)?;
                    if !self.members.insert((*member).to_owned()) {
                        return Err(self.wrong(format!("{member} is a member of a group already")));
                    }
                }
                let threshold = match *threshold {
                    "any" => Some(1),
                    "all" => Some(members.len()),
                    number => decimal(number).and_then(|number| usize::try_from(number).ok()),
                };
                let threshold = threshold.filter(|threshold| (1..=members.len()).contains(threshold));
                let threshold =
                    threshold.ok_or_else(|| self.wrong(format!("expected any, all or a number from 1 to {}", members.len())))?;
                let members = members.iter().map(|member| (*member).to_owned()).collect();
                self.groups.push(Group { name: (*name).to_owned(), threshold, members });
            }
            ["quorum", name] => {
                if self.quorum.is_some() {
                    return Err(self.wrong("a second quorum line"));
                }
                if *name != "none" {
                    self.known_name(name)?;
                }
                self.quorum = Some((*name).to_owned());
            }
            _ => {
                let expected =
                    "expected `log KEY [URL]`, `witness NAME KEY [URL]`, `group NAME any|all|NUMBER MEMBER…` or `quorum NAME|none`";
                return Err(self.wrong(expected));
            }
        }
        Ok(())
    }

    fn key(&self, text: &str, algorithm: KeyAlgorithm) -> Result<VerifierKey, PolicyError> {
        let key: VerifierKey = text.parse().map_err(|source| PolicyError::Key { line: self.line, source })?;
        if key.algorithm() == algorithm {
            return Ok(key);
        }
        Err(self.wrong("the key of a log has type 0x01, that of a witness 0x04; this one has the other"))
    }

    fn is_known(&self, name: &str) -> bool {
        self.witnesses.iter().any(|witness| witness.name == name) || self.groups.iter().any(|group| group.name == name)
    }

    fn new_name(&self, name: &str) -> Result<(), PolicyError> {
        if name == "none" || self.is_known(name) { Err(self.wrong(format!("the name {name} is taken"))) } else { Ok(()) }
    }

    fn known_name(&self, name: &str) -> Result<(), PolicyError> {
        if self.is_known(name) { Ok(()) } else { Err(self.wrong(format!("no witness and no group before this line is named {name}"))) }
    }
}
