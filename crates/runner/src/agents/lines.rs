//! Output of a program, in bounded pieces: lines out of chunks, and the last of what was written.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::secrets;

/// A line is longer than it may be.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a line is longer than {bytes_max} bytes")]
pub(super) struct TooLong {
    bytes_max: usize,
}

/// Cuts chunks into lines. Holds at most a line and a chunk.
#[derive(Debug)]
pub(super) struct Lines {
    held: BytesMut,
    /// So much of `held` is known to have no end of line: a long line is searched once, not once per chunk.
    searched: usize,
    bytes_max: usize,
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), searched: 0, bytes_max }
    }

    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// The next whole line, without its end.
    pub(super) fn next_line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        let end = self.held[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        if end.unwrap_or(self.held.len()) > self.bytes_max {
            return Err(TooLong { bytes_max: self.bytes_max });
        }
        let Some(end) = end else {
            self.searched = self.held.len();
            return Ok(None);
        };
        let mut line = self.held.split_to(end + 1);
        line.truncate(end);
        self.searched = 0;
        Ok(Some(line))
    }

    /// What stands after the last end of line.
    pub(super) fn rest(self) -> BytesMut {
        self.held
    }
}

/// The last bytes of what was written.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    /// What came before them is gone.
    is_cut: bool,
}

impl Tail {
    const BYTES_MAX: usize = 2048;

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let kept = &chunk[chunk.len().saturating_sub(Self::BYTES_MAX)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(Self::BYTES_MAX);
        self.is_cut |= excess > 0 || kept.len() < chunk.len();
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// As text after `what`, or nothing where nothing was written; without secrets of these forms.
    pub(super) fn after(&self, what: &str, forms: &[String]) -> String {
        let (front, back) = self.bytes.as_slices();
        let bytes = [front, back].concat();
        let bytes = if self.is_cut { secrets::behind_a_cut(&bytes, forms) } else { &bytes };
        match secrets::without(String::from_utf8_lossy(bytes).into_owned(), forms).trim() {
            "" => String::new(),
            text => format!("{what}{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&str], bytes_max: usize) -> Result<(Vec<String>, String), TooLong> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk.as_bytes());
            while let Some(line) = lines.next_line()? {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        Ok((found, String::from_utf8(lines.rest().to_vec()).unwrap()))
    }

    #[test]
    fn lines_do_not_depend_on_how_they_were_cut() {
        let text = "one\n\ntwo is longer\nthree";
        let whole = lines_of(&[text], 20).unwrap();
        assert_eq!(whole, (vec!["one".into(), String::new(), "two is longer".into()], "three".into()));
        for cut in 0..text.len() {
            assert_eq!(lines_of(&[&text[..cut], &text[cut..]], 20).unwrap(), whole);
        }
        let bytes: Vec<&str> = text.split_inclusive(|_| true).collect();
        assert_eq!(lines_of(&bytes, 20).unwrap(), whole);
    }

    #[test]
    fn a_line_without_end_is_refused_at_its_limit() {
        assert!(lines_of(&["12345\n"], 5).is_ok());
        assert!(lines_of(&["12345"], 5).is_ok());
        assert_eq!(lines_of(&["123", "456"], 5), Err(TooLong { bytes_max: 5 }));
        assert_eq!(lines_of(&["123456\n"], 5), Err(TooLong { bytes_max: 5 }));
    }

    #[test]
    fn the_tail_is_the_end_of_what_was_written() {
        let mut tail = Tail::default();
        assert_eq!(tail.after(": ", &[]), "");
        for number in 0..2000 {
            tail.push(format!("{number}\n").as_bytes());
        }
        let text = tail.after(": ", &[]);
        assert!(text.len() < Tail::BYTES_MAX + 3 && text.starts_with(": ") && text.ends_with("\n1999"), "{text}");
        tail.push(&[b'x'; 10_000]);
        assert_eq!(tail.after("", &[]).len(), Tail::BYTES_MAX);
    }

    #[test]
    fn a_secret_at_the_cut_leaves_nothing_of_it_in_the_tail() {
        let forms = secrets::forms(["swordfish".to_owned()]);
        for cut in 0..=10 {
            let mut tail = Tail::default();
            tail.push(b"before swordfish");
            tail.push(&vec![b'-'; Tail::BYTES_MAX - cut]);
            let text = tail.after("", &forms);
            assert!(!text.contains('h') && text.ends_with('-'), "{cut}: {}", &text[..20]);
        }
    }
}
