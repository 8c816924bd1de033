//! Checkpoints, by C2SP `tlog-checkpoint`: what a log states about itself.

use std::fmt;

use crate::decimal;
use crate::hash::{Hash, empty_root};
use crate::key::is_key_name;

/// Most leaves of a log: a size fits a signed 64-bit number, as other implementations have it.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// A log of this origin had this root at this size. `Display` is its text: three lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// A URL without scheme, and the name of the log's key.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    pub root: Hash,
}

/// What is wrong with a checkpoint's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("a checkpoint is three lines: origin, size, root; this is not (extension lines are not accepted)")]
    Lines,
    #[error("the first line of a checkpoint is the log's origin, without spaces and without a plus sign")]
    Origin,
    #[error("the second line of a checkpoint is the log's size, a decimal of at most {SIZE_MAX}")]
    Size,
    #[error("the third line of a checkpoint is the root, a hash in base64")]
    Root,
    #[error("the checkpoint of an empty log has the root of a tree with leaves")]
    NotEmpty,
}

impl Checkpoint {
    /// Reads the text of a note. Extension lines are refused: nobody could check what they say.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Lines);
        };
        if !is_key_name(origin) {
            return Err(CheckpointError::Origin);
        }
        let size = decimal(size).filter(|size| *size <= SIZE_MAX).ok_or(CheckpointError::Size)?;
        let root: Hash = root.parse().map_err(|_| CheckpointError::Root)?;
        if size == 0 && root != empty_root() {
            return Err(CheckpointError::NotEmpty);
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::VerifierKey;
    use crate::note::SignedNote;

    const TEXT: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let checkpoint = Checkpoint::parse(TEXT).unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
        assert_eq!(checkpoint.to_string(), TEXT);
    }

    /// The keys of the examples are published nowhere; their notes are read, and their time is where it should be.
    #[test]
    fn the_cosigned_example_of_the_specification_is_read() {
        let note = format!(
            "{TEXT}\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
        );
        let note = SignedNote::parse(note.as_bytes()).unwrap();
        assert_eq!(Checkpoint::parse(note.text()).unwrap().size, 20_852_163);
        let [log, witness] = note.signatures() else { panic!("two signatures") };
        assert_eq!((log.signature.len(), witness.signature.len()), (64, 72));
        assert_eq!(u64::from_be_bytes(*witness.signature.first_chunk().unwrap()), 1_679_315_147);
        let stranger: VerifierKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
        assert!(note.verify([&stranger]).is_err());
    }

    #[test]
    fn a_checkpoint_has_one_spelling() {
        let check = |from: &str, to: &str, error| assert_eq!(Checkpoint::parse(&TEXT.replace(from, to)), Err(error), "{from:?} {to:?}");
        check("20852163", "020852163", CheckpointError::Size);
        check("20852163", "+20852163", CheckpointError::Size);
        check("20852163", "", CheckpointError::Size);
        check("20852163", "9223372036854775808", CheckpointError::Size);
        assert_eq!(Checkpoint::parse(&TEXT.replace("20852163", "9223372036854775807")).unwrap().size, SIZE_MAX);
        let empty = Checkpoint { origin: "a".to_owned(), size: 0, root: empty_root() };
        assert_eq!(Checkpoint::parse(&empty.to_string()), Ok(empty));
        check("20852163", "0", CheckpointError::NotEmpty);
        check("I=", "J=", CheckpointError::Root);
        check("I=\n", "I=", CheckpointError::Lines);
        check("I=\n", "I=\nextension\n", CheckpointError::Lines);
        check("I=\n", "I=\n\n", CheckpointError::Lines);
        check("example", "an example", CheckpointError::Origin);
    }
}
