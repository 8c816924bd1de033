//! The body of `add-checkpoint`: the old size, the proof from it, an empty line, the checkpoint.

use std::fmt;

use fte_tlog::Hash;

/// Most lines of proof, by the specification.
const PROOF_MAX: usize = 63;

/// A request to sign a checkpoint. `Display` is its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The size that the witness is thought to remember.
    pub old: u64,
    /// That the checkpoint continues it.
    pub proof: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

/// A body that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the body is no text of a size, a proof, an empty line, and a checkpoint")]
    Form,
    #[error("the first line is not `old`, a space, and a decimal")]
    Old,
    #[error("line {0} is no hash in base64")]
    Proof(usize),
    #[error("a proof has {PROOF_MAX} lines at most")]
    TooLong,
}

impl Request {
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(body).map_err(|_| RequestError::Form)?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(RequestError::Form)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal).ok_or(RequestError::Old)?;
        let mut proof = Vec::new();
        for (number, line) in (2..).zip(lines) {
            if proof.len() == PROOF_MAX {
                return Err(RequestError::TooLong);
            }
            proof.push(line.parse().map_err(|_| RequestError::Proof(number))?);
        }
        Ok(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// Digits alone, without a leading zero.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let request = Request::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((request.old, request.proof.len()), (20_852_014, 4));
        assert_eq!(request.to_string(), EXAMPLE);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let check = |from: &str, to: &str, error| assert_eq!(Request::parse(EXAMPLE.replacen(from, to, 1).as_bytes()), Err(error), "{to}");
        check("old ", "old  ", RequestError::Old);
        check("old 2", "old 02", RequestError::Old);
        check("old 20852014", "old", RequestError::Old);
        check("old 20852014", "old 99999999999999999999", RequestError::Old);
        check("PlRN", "PlR", RequestError::Proof(2));
        check("\n\n", "\n", RequestError::Proof(6));
        assert_eq!(Request::parse(b""), Err(RequestError::Form));
        assert_eq!(Request::parse(b"old 0\n\xff\n\n"), Err(RequestError::Form));
        let line = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        assert_eq!(Request::parse(format!("old 5\n{}\n", line.repeat(63)).as_bytes()).unwrap().proof.len(), 63);
        assert_eq!(Request::parse(format!("old 5\n{}\n", line.repeat(64)).as_bytes()), Err(RequestError::TooLong));
    }
}
