//! Server-sent events out of a body, one at a time, each of bounded size.

use super::client::Body;
use super::trouble::Trouble;
use crate::agents::lines::Lines;

/// The data of the events of a stream.
#[derive(Debug)]
pub(super) struct Events {
    body: Body,
    lines: Lines,
    data: Vec<u8>,
    bytes_max: usize,
}

impl Events {
    pub(super) fn new(body: Body, bytes_max: usize) -> Self {
        Self { body, lines: Lines::new(bytes_max), data: Vec::new(), bytes_max }
    }

    /// The data of the next event; nothing at the end of the stream. An event that the end cuts off is none.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            while let Some(line) = self.lines.next_line().map_err(|_| Trouble::AnswerTooLarge(self.bytes_max))? {
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                if line.is_empty() && !self.data.is_empty() {
                    self.data.pop();
                    return Ok(Some(std::mem::take(&mut self.data)));
                }
                let Some(value) = line.strip_prefix(b"data:") else { continue };
                let value = value.strip_prefix(b" ").unwrap_or(value);
                if self.data.len() + value.len() >= self.bytes_max {
                    return Err(Trouble::AnswerTooLarge(self.bytes_max));
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            match self.body.chunk().await? {
                Some(chunk) => self.lines.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}
