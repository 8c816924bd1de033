//! Server-sent events, cut out of a byte stream without copying.
//!
//! The API writes each event's data on one line, and so one line is what is kept. A frame has a largest size, so that a server that never
//! ends one cannot fill the memory.

/// The largest frame: an event is at most 256 KiB of data and its envelope.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// One event of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) event: &'a [u8],
    pub(crate) data: &'a [u8],
}

/// A frame that does not end.
#[derive(Debug, thiserror::Error)]
#[error("an event of the stream is larger than {FRAME_BYTES_MAX} bytes")]
pub(crate) struct TooLarge;

/// What has been read and not yet been taken.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    from: usize,
    /// Up to here there is no end of it.
    searched: usize,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.buffer.drain(..self.from);
        self.searched -= self.from;
        self.from = 0;
        if self.buffer.len() + bytes.len() > FRAME_BYTES_MAX {
            return Err(TooLarge);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event. Comments (keep-alives) are passed over.
    pub(crate) fn next(&mut self) -> Option<Frame<'_>> {
        loop {
            let end = self.end()?;
            let (from, until) = (self.from, end);
            self.from = end;
            self.searched = end;
            if has_field(&self.buffer[from..until]) {
                return Some(parse(&self.buffer[from..until]));
            }
        }
    }

    /// Where the frame ends: behind the first empty line.
    fn end(&mut self) -> Option<usize> {
        let mut line_from = self.searched;
        while let Some(length) = self.buffer[line_from..].iter().position(|byte| *byte == b'\n') {
            let line_end = line_from + length + 1;
            if length == 0 || (length == 1 && self.buffer[line_from] == b'\r') {
                return Some(line_end);
            }
            line_from = line_end;
            self.searched = line_end;
        }
        None
    }
}

fn lines(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    frame.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn has_field(frame: &[u8]) -> bool {
    lines(frame).any(|line| !line.is_empty() && line[0] != b':')
}

fn parse(frame: &[u8]) -> Frame<'_> {
    let mut parsed = Frame { id: b"", event: b"", data: b"" };
    for line in lines(frame) {
        let field = |name: &[u8]| line.strip_prefix(name).map(|value| value.strip_prefix(b" ").unwrap_or(value));
        if let Some(value) = field(b"data:") {
            parsed.data = value;
        } else if let Some(value) = field(b"event:") {
            parsed.event = value;
        } else if let Some(value) = field(b"id:") {
            parsed.id = value;
        }
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let stream = b": hello\n\nid: 7\nevent: fte.status.changed\ndata: {\"a\":1}\n\n:\n\nid:8\r\nevent:x\r\ndata:\r\n\r\nid: 9\n";
        for cut in 0..stream.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                frames.push(part).unwrap();
                while let Some(frame) = frames.next() {
                    seen.push((frame.id.to_vec(), frame.event.to_vec(), frame.data.to_vec()));
                }
            }
            let expected = [("7", "fte.status.changed", "{\"a\":1}"), ("8", "x", "")];
            assert_eq!(seen, expected.map(|(id, event, data)| (id.into(), event.into(), data.into())), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_without_an_end_is_refused() {
        let mut frames = Frames::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..5).find(|_| frames.push(&piece).is_err());
        assert_eq!(refused, Some(4));
    }
}
