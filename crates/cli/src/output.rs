//! The one place that writes: data to standard output, everything else to standard error.
//!
//! A reader that goes away (`fte tasks | head`) ends the command quietly. Text that came from outside is shown without its control
//! characters: a task's text must not be able to drive a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::Error;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Data as JSON instead of text for people.
    pub(crate) json: bool,
}

impl Output {
    /// A line of data.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_ref().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => written.map_err(|source| Error::Write { what: "standard output".to_owned(), source }),
        }
    }

    /// An object as one line of JSON.
    pub(crate) fn json_line(self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(|error| Error::Failed(format!("JSON cannot be written: {error}")))?;
        self.line(text)
    }

    /// Things as one line of JSON, in the form that the API's lists have.
    pub(crate) fn json_items(self, items: &[impl Serialize]) -> Result<(), Error> {
        self.json_line(&serde_json::json!({ "items": items }))
    }

    /// An answer of the server as it came, on one line.
    pub(crate) fn answer(self, body: &[u8]) -> Result<(), Error> {
        let raw: &RawValue = serde_json::from_slice(body).map_err(|error| Error::Failed(format!("the answer is not JSON: {error}")))?;
        // In JSON an end of a line is but white space between its parts.
        self.line(raw.get().replace(['\n', '\r'], " "))
    }

    /// Rows for people; nothing but the header where there are none. A terminal shows of each as much as it is wide: a line that is broken is no row. What
    /// is not for a terminal is whole.
    pub(crate) fn table<const N: usize>(self, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<(), Error> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header);
        for row in rows {
            table.add_row(row.map(|cell| printable(&cell).into_owned()));
        }
        let text = table.to_string();
        let columns = terminal_columns();
        // Columns are padded to their width; the last one needs no padding.
        let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
        let lines: Vec<_> = lines.map(|line| columns.map_or_else(|| line.to_owned(), |columns| shortened(line, columns))).collect();
        self.line(lines.join("\n"))
    }

    /// Words for the person at the terminal that are no data.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        // There is nobody left to tell when standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
    }
}

/// How wide the terminal is that standard output goes to, if it goes to one.
fn terminal_columns() -> Option<usize> {
    let out = io::stdout();
    let size = rustix::termios::tcgetwinsize(&out).ok().filter(|_| out.is_terminal())?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether a person sees standard error as it is written.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The text without control characters other than the end of a line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\n') {
        text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
    } else {
        Cow::Borrowed(text)
    }
}

/// So much time, in words: `7 ms`, `12.3 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn took(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The text on one line, at most `chars_max` long.
pub(crate) fn shortened(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = chars.by_ref().take(chars_max).collect();
    if chars.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\nc");
        assert_eq!(shortened("line\nnext", 20), "line next");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }

    #[test]
    fn times_are_told_as_people_would() {
        for (ms, expected) in [(0, "0 ms"), (999, "999 ms"), (12_390, "12.3 s"), (200_000, "3 min 20 s"), (7_500_000, "2 h 5 min")] {
            assert_eq!(took(ms), expected);
        }
    }
}
