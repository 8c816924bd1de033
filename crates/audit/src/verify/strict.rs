//! Whether a header is written in the form of RFC 8785, by rules of its own: the encoder that wrote it must not be the one that vouches for it.
//!
//! Headers use a part of the form: objects, arrays, texts, and whole numbers of at most 2^53 − 1. Anything else is not canonical here.

/// Checks the first line of a leaf; the byte at which it is wrong.
pub(super) fn check_header(leaf: &[u8]) -> Result<(), usize> {
    let end = memchr::memchr(b'\n', leaf).ok_or(leaf.len())?;
    let mut reader = Reader { line: &leaf[..end], at: 0 };
    if std::str::from_utf8(reader.line).is_err() {
        return Err(0);
    }
    reader.object(0)?;
    if reader.at == end { Ok(()) } else { Err(reader.at) }
}

/// Headers nest twice at most.
const DEPTH_MAX: usize = 4;

struct Reader<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Result<(), usize> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.at)
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), usize> {
        match self.peek() {
            Some(b'{') if depth < DEPTH_MAX => self.object(depth + 1),
            Some(b'[') if depth < DEPTH_MAX => self.array(depth + 1),
            Some(b'"') => self.text().map(|_| ()),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), usize> {
        self.take(b'{')?;
        let mut before: Option<&'a [u8]> = None;
        while self.peek() != Some(b'}') {
            if before.is_some() {
                self.take(b',')?;
            }
            let start = self.at;
            let name = self.text()?;
            // Names are ASCII without escapes, so their bytes are in the order of UTF-16.
            if before.is_some_and(|before| before >= name)
                || !name.iter().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(byte))
            {
                return Err(start);
            }
            before = Some(name);
            self.take(b':')?;
            self.value(depth)?;
        }
        self.take(b'}')
    }

    fn array(&mut self, depth: usize) -> Result<(), usize> {
        self.take(b'[')?;
        let mut is_first = true;
        while self.peek() != Some(b']') {
            if !is_first {
                self.take(b',')?;
            }
            is_first = false;
            self.value(depth)?;
        }
        self.take(b']')
    }

    /// Escapes only what must be, in the shortest form.
    fn text(&mut self) -> Result<&'a [u8], usize> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let rest = self.line.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')).unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.at),
            }
        }
        self.at += 1;
        Ok(&self.line[start..self.at - 1])
    }

    fn escape(&mut self) -> Result<(), usize> {
        let rest = self.line.get(self.at + 1..).unwrap_or_default();
        let length = match rest {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            // Control characters that have no short form.
            [b'u', b'0', b'0', high @ (b'0' | b'1'), low, ..] => {
                let has_short = *high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd');
                if has_short || !matches!(low, b'0'..=b'9' | b'a'..=b'f') {
                    return Err(self.at);
                }
                6
            }
            _ => return Err(self.at),
        };
        self.at += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), usize> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let text = &self.line[digits..self.at];
        let value = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        let is_canonical =
            value.is_some_and(|value| value < 1 << 53 && (value != 0 || self.at == start + 1)) && (text == b"0" || text[0] != b'0');
        if is_canonical { Ok(()) } else { Err(start) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::canonical::canonical;

    fn check(line: &str) -> Result<(), usize> {
        check_header(format!("{line}\npayload").as_bytes())
    }

    #[test]
    fn there_is_one_form() {
        for line in ["{}", r#"{"a":1,"b":{"c":["x","é\u0001\n\\"]},"c":-5,"d":9007199254740991}"#, r#"{"a":""}"#] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
        for line in [
            "",
            "{",
            "[]",
            "{ }",
            "{}x",
            r#"{"a": 1}"#,
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":01}"#,
            r#"{"a":-0}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e3}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":null}"#,
            r#"{"a":true}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\u000a"}"#,
            r#"{"a":"\u001F"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"\u0061":1}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":[1,]}"#,
            r#"{"a":}"#,
            r#"{"a":-}"#,
            r#"{"A":1}"#,
        ] {
            assert!(check(line).is_err(), "{line}");
        }
        assert_eq!(check_header(b"{}"), Err(2));
        assert_eq!(check_header(b"{\"a\":\"\xff\"}\n"), Err(0));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |open: &str, close: &str, count: usize| format!("{{\"a\":{}1{}}}", open.repeat(count), close.repeat(count));
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            assert_eq!(check(&nested(open, close, DEPTH_MAX)), Ok(()));
            // Far beyond it would end the program.
            for count in [DEPTH_MAX + 1, DEPTH_MAX + 2, 60_000] {
                assert!(check(&nested(open, close, count)).is_err(), "{open} {count}");
            }
        }
        assert!(check(&nested("[{\"a\":", "}]", DEPTH_MAX / 2 + 1)).is_err());
    }

    proptest! {
        #[test]
        fn what_the_other_encoder_writes_is_in_it(text in ".{0,20}", number in 0u64..1 << 53) {
            let value = serde_json::json!({"text": text, "number": number, "list": [text, {"text": text}]});
            prop_assert_eq!(check(&canonical(&value)), Ok(()));
        }
    }
}
