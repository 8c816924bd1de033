//! The commands that our texts name, as the reader has to type them.
//!
//! An instance named by the environment is there for the next command too; one named by `--url` has to be named again.

use std::fmt::Display;

/// Which instance the reader named on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hints {
    url: Option<String>,
}

impl Hints {
    /// `url` is what stood behind `--url`.
    pub(crate) fn new(url: Option<String>) -> Self {
        Self { url }
    }

    /// The words behind `fte`, as a line to type.
    pub(crate) fn line(&self, words: impl Display) -> String {
        match &self.url {
            None => format!("fte {words}"),
            Some(url) => format!("fte {words} --url {url}"),
        }
    }

    /// The same inside a sentence.
    pub(crate) fn command(&self, words: impl Display) -> String {
        format!("`{}`", self.line(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_named_on_the_command_line_is_named_again() {
        assert_eq!(Hints::default().command("tasks"), "`fte tasks`");
        assert_eq!(Hints::new(Some("http://h:1".into())).command("watch T"), "`fte watch T --url http://h:1`");
    }
}
