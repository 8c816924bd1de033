//! Proof files, by C2SP `tlog-proof`: that a leaf is in a log, to be checked offline.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hash::Hash;
use crate::key::number_after;
use crate::note::NOTE_BYTES_MAX;
use crate::policy::{Judged, Policy, PolicyError};
use crate::proof::{ProofError, check_inclusion};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof and the checkpoint that it leads to. `Display` is the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    /// What the application added; not covered by any signature.
    pub extra: Option<Vec<u8>>,
    /// The number of the leaf in the log.
    pub index: u64,
    /// From the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// The signed checkpoint, as it was published.
    pub checkpoint: String,
}

/// Why a proof file proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofFileError {
    #[error("line {line} of the proof file is not what should be there: {expected}")]
    Form { line: usize, expected: &'static str },
    #[error("the checkpoint of the proof file is not accepted")]
    Checkpoint { source: PolicyError },
    #[error("the leaf is not entry {index} of the log")]
    Proof { index: u64, source: ProofError },
}

impl ProofFile {
    pub fn parse(text: &str) -> Result<Self, ProofFileError> {
        let form = |line, expected| ProofFileError::Form { line, expected };
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(|| form(1, "a proof, an empty line, and a checkpoint"))?;
        let mut lines = (1..).zip(head.split('\n')).peekable();
        if lines.next().map(|(_, line)| line) != Some(FIRST_LINE) {
            return Err(form(1, FIRST_LINE));
        }
        let extra = lines.next_if(|(_, line)| line.starts_with("extra ")).map(|(line, text)| {
            let bytes = STANDARD.decode(&text["extra ".len()..]).ok();
            bytes.ok_or_else(|| form(line, "extra, a space, and base64"))
        });
        let extra = extra.transpose()?;
        let index = lines.next().and_then(|(_, line)| number_after(line, "index"));
        let index = index.ok_or_else(|| form(2 + usize::from(extra.is_some()), "index, a space, and a decimal"))?;
        let proof = lines.map(|(line, text)| text.parse().map_err(|_| form(line, "a hash in base64"))).collect::<Result<Vec<_>, _>>()?;
        if proof.len() > 63 || checkpoint.len() > NOTE_BYTES_MAX {
            return Err(form(4, "a proof of at most 63 hashes and a checkpoint of at most 1 MiB"));
        }
        Ok(Self { extra, index, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the leaf with this hash is in a log that the policy accepts, witnessed as it demands.
    pub fn verify<'p>(&self, leaf: &Hash, policy: &'p Policy) -> Result<Judged<'p>, ProofFileError> {
        let judged = policy.accept(self.checkpoint.as_bytes()).map_err(|source| ProofFileError::Checkpoint { source })?;
        let (size, root) = (judged.checkpoint.size, judged.checkpoint.root);
        check_inclusion(&self.proof, self.index, leaf, size, &root)
            .map_err(|source| ProofFileError::Proof { index: self.index, source })?;
        Ok(judged)
    }
}

impl fmt::Display for ProofFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::hash::{leaf_hash, node_hash};
    use crate::key::{KeyAlgorithm, SignerKey};
    use crate::note::SignedNote;

    fn file() -> (ProofFile, Policy) {
        let key = SignerKey::new("log.example/1", KeyAlgorithm::Ed25519, &[1; 32]).unwrap();
        let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
        let checkpoint = Checkpoint { origin: "log.example/1".to_owned(), size: 2, root: node_hash(&left, &right) };
        let note = SignedNote::new(checkpoint.to_string()).unwrap().with(key.sign(&checkpoint.to_string(), 0));
        let policy = format!("log {}\nquorum none\n", key.verifier()).parse().unwrap();
        (ProofFile { extra: Some(b"more".to_vec()), index: 1, proof: vec![left], checkpoint: note.to_string() }, policy)
    }

    #[test]
    fn what_is_written_is_read_and_proves_its_leaf_alone() {
        let (file, policy) = file();
        let read = ProofFile::parse(&file.to_string()).unwrap();
        assert_eq!(read, file);
        assert_eq!(read.verify(&leaf_hash(b"right"), &policy).unwrap().checkpoint.size, 2);
        assert!(matches!(read.verify(&leaf_hash(b"left"), &policy), Err(ProofFileError::Proof { index: 1, .. })));
        let nobody = "quorum none\n".parse().unwrap();
        assert!(matches!(read.verify(&leaf_hash(b"right"), &nobody), Err(ProofFileError::Checkpoint { .. })));
    }

    /// The hashes and the checkpoint of the specification's example; its signatures are shortened there.
    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = "c2sp.org/tlog-proof@v1\nindex 73894\ngSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\nB95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n\nexample.com/fancylog\n109482\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n\u{2014} example.com/fancylog hI2DJwAA\n";
        let file = ProofFile::parse(text).unwrap();
        assert_eq!((file.index, file.proof.len(), file.extra.as_ref()), (73_894, 2, None));
        assert_eq!(file.to_string(), text);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let (file, _) = file();
        let check = |from: &str, to: &str, at: usize| match ProofFile::parse(&file.to_string().replacen(from, to, 1)) {
            Err(ProofFileError::Form { line, .. }) => assert_eq!(line, at, "{from} {to}"),
            other => panic!("{other:?}"),
        };
        check("@v1", "@v2", 1);
        check("bW9yZQ==", "bW9yZQ=", 2);
        check("index 1", "index 01", 3);
        check("index 1\n", "index 1\n\t\n", 4);
    }

    #[test]
    fn a_proof_file_has_so_many_hashes_and_so_large_a_checkpoint_and_no_more() {
        let (file, _) = file();
        let read = |hashes: usize, bytes: usize| {
            let file = ProofFile { proof: vec![leaf_hash(b""); hashes], checkpoint: "x".repeat(bytes), ..file.clone() };
            ProofFile::parse(&file.to_string())
        };
        assert!(read(63, NOTE_BYTES_MAX).is_ok());
        assert!(matches!(read(64, 1), Err(ProofFileError::Form { line: 4, .. })));
        assert!(matches!(read(65, 1), Err(ProofFileError::Form { line: 4, .. })));
        assert!(matches!(read(1, NOTE_BYTES_MAX + 1), Err(ProofFileError::Form { line: 4, .. })));
        assert!(matches!(read(1, NOTE_BYTES_MAX + 2), Err(ProofFileError::Form { line: 4, .. })));
    }
}
