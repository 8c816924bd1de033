//! `agents.toml`: which agents there are and what each may use. Read once; intake knows the names, the runner the rest.
//!
//! A bad value names file, line, key and the accepted form. Unknown keys are refused, so that a misspelt limit is never ignored.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use fte_events::AgentName;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

use crate::env::{ConfigError, parse_duration};

/// The configured agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Agents {
    /// Who works on a task that names no agent.
    pub default: AgentName,
    /// All of them.
    pub agents: BTreeMap<AgentName, Agent>,
}

/// One agent and its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// What it is.
    pub kind: AgentKind,
    /// Names of the environment variables that are passed on to it.
    pub env: Vec<String>,
    /// Most sandboxes at a time. Default 4; 512 for a built-in agent.
    pub max: u32,
    /// Sandboxes kept ready. Default 0.
    pub min_warm: u32,
    /// Most tasks that are admitted and wait for a sandbox. Default 1 000.
    pub queue: u32,
    /// Longest run of one attempt. Default 15 minutes.
    pub timeout: Duration,
    /// Attempts in all. Default 3.
    pub attempts: u32,
    /// Most memory, in bytes, where it can be enforced.
    pub memory_bytes_max: Option<u64>,
    /// Whether it may use the network. Default no.
    pub network: bool,
}

/// What an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// Part of this program.
    Builtin(Builtin),
    /// Any program: the task on its standard input, the result on its standard output.
    Command(Vec<String>),
    /// A program that speaks JSON lines.
    Process(Vec<String>),
}

/// The agents inside this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Answers with the task.
    Echo,
    /// Shows stages, progress, an approval and an artifact.
    Demo,
}

impl Agents {
    /// The agents where nobody configured any: `echo` (the default) and `demo`.
    pub fn built_in() -> Self {
        let agents = [("echo", Builtin::Echo), ("demo", Builtin::Demo)].map(|(name, builtin)| (name_of(name), Agent::builtin(builtin)));
        Self { default: name_of("echo"), agents: agents.into() }
    }

    /// Reads the file; `variable` is what named it.
    pub fn read(variable: &str, path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { name: variable.to_owned(), path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let fail = |start: usize, key: String, problem: String| ConfigError::Content {
            path: path.to_owned(),
            line: text.get(..start).unwrap_or_default().matches('\n').count() + 1,
            key,
            problem,
        };
        let file: RawFile = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            fail(start, key_at(text, start), error.message().to_owned())
        })?;
        let mut agents = BTreeMap::new();
        for (name, raw) in file.agents {
            let start = raw.span().start;
            let agent = raw.into_inner().check(&name);
            let agent = agent.map_err(|(key, problem)| fail(start, format!("agents.{name}.{key}"), problem))?;
            agents.insert(name, agent);
        }
        if agents.is_empty() {
            let problem = "expected at least one agent, such as [agents.echo] kind = \"builtin\"";
            return Err(fail(0, "agents".to_owned(), problem.to_owned()));
        }
        let known = || agents.keys().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
        let default = match file.default {
            Some(default) if agents.contains_key(default.get_ref()) => default.into_inner(),
            Some(default) => return Err(fail(default.span().start, "default".to_owned(), format!("expected one of {}", known()))),
            None if agents.len() == 1 => agents.keys().next().cloned().unwrap_or_else(|| name_of("echo")),
            None => return Err(fail(0, "default".to_owned(), format!("missing; expected one of {}", known()))),
        };
        Ok(Self { default, agents })
    }
}

impl Agent {
    /// A built-in agent with the default limits.
    pub fn builtin(builtin: Builtin) -> Self {
        Self {
            kind: AgentKind::Builtin(builtin),
            env: Vec::new(),
            max: 512,
            min_warm: 0,
            queue: 1000,
            timeout: Duration::from_secs(15 * 60),
            attempts: 3,
            memory_bytes_max: None,
            network: false,
        }
    }
}

fn name_of(text: &str) -> AgentName {
    text.parse().expect("a built-in name is a name")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    default: Option<Spanned<AgentName>>,
    #[serde(default)]
    agents: BTreeMap<AgentName, Spanned<RawAgent>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    kind: RawKind,
    command: Option<Vec<String>>,
    builtin: Option<RawBuiltin>,
    #[serde(default)]
    env: Vec<String>,
    max: Option<u32>,
    min_warm: Option<u32>,
    queue: Option<u32>,
    timeout: Option<Span>,
    attempts: Option<u32>,
    memory: Option<Size>,
    network: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Builtin,
    Command,
    Process,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBuiltin {
    Echo,
    Demo,
}

impl RawAgent {
    /// The agent, or the key that is wrong and why.
    fn check(self, name: &AgentName) -> Result<Agent, (&'static str, String)> {
        let kind = match self.kind {
            RawKind::Builtin if self.command.is_some() => return Err(("command", "a built-in agent has no command".to_owned())),
            RawKind::Builtin => AgentKind::Builtin(match (self.builtin, name.as_str()) {
                (Some(RawBuiltin::Echo), _) | (None, "echo") => Builtin::Echo,
                (Some(RawBuiltin::Demo), _) | (None, "demo") => Builtin::Demo,
                (None, _) => return Err(("builtin", r#"missing; expected "echo" or "demo""#.to_owned())),
            }),
            RawKind::Command => AgentKind::Command(program(self.command)?),
            RawKind::Process => AgentKind::Process(program(self.command)?),
        };
        let builtin = matches!(kind, AgentKind::Builtin(_));
        if !builtin && self.builtin.is_some() {
            return Err(("builtin", r#"only for kind = "builtin""#.to_owned()));
        }
        let defaults = Agent::builtin(Builtin::Echo);
        let agent = Agent {
            kind,
            env: self.env,
            max: self.max.unwrap_or(if builtin { defaults.max } else { 4 }),
            min_warm: self.min_warm.unwrap_or(defaults.min_warm),
            queue: self.queue.unwrap_or(defaults.queue),
            timeout: self.timeout.map_or(defaults.timeout, |span| span.0),
            attempts: self.attempts.unwrap_or(defaults.attempts),
            memory_bytes_max: self.memory.map(|size| size.0),
            network: self.network.unwrap_or(defaults.network),
        };
        let ranges = [
            ("max", agent.max, 1, 4096),
            ("min_warm", agent.min_warm, 0, agent.max),
            ("queue", agent.queue, 1, 100_000),
            ("attempts", agent.attempts, 1, 100),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err((key, format!("{value}: expected {min} to {max}")));
            }
        }
        if agent.timeout.is_zero() {
            return Err(("timeout", "expected more than nothing".to_owned()));
        }
        if let Some(bad) = agent.env.iter().find(|name| name.is_empty() || name.contains('=')) {
            return Err(("env", format!("{bad:?}: expected the name of an environment variable")));
        }
        Ok(agent)
    }
}

fn program(command: Option<Vec<String>>) -> Result<Vec<String>, (&'static str, String)> {
    match command {
        Some(command) if command.first().is_some_and(|program| !program.is_empty()) => Ok(command),
        _ => Err(("command", r#"expected a program and its arguments, such as ["python3", "writer.py"]"#.to_owned())),
    }
}

/// The key that the line at `start` sets, within its table: the parser knows the place, this names it.
fn key_at(text: &str, start: usize) -> String {
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next().unwrap_or_default().trim();
    let header = |line: &str| line.strip_prefix('[').and_then(|rest| rest.split(']').next()).map(str::to_owned);
    if let Some(table) = header(line) {
        return table;
    }
    let key = line.split('=').next().unwrap_or_default().trim();
    match text[..line_start].lines().rev().find_map(|line| header(line.trim())) {
        Some(table) => format!("{table}.{key}"),
        None => key.to_owned(),
    }
}

/// A duration with its unit.
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, r#"a duration such as "30s" or "15m""#, |text| parse_duration(text).map(Span))
    }
}

/// A size with its unit.
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, r#"a size such as "512MiB" or "2GiB""#, |text| parse_size(text).map(Size))
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let units = [("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", 1024 * 1024 * 1024)];
    let (number, unit) = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|size| *size > 0)
}

fn parsed<'de, T, D: Deserializer<'de>>(deserializer: D, expected: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, D::Error> {
    struct Text<T, F>(&'static str, F, std::marker::PhantomData<T>);
    impl<T, F: Fn(&str) -> Option<T>> de::Visitor<'_> for Text<T, F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::custom(format_args!("{text:?}: expected {}", self.0)))
        }
    }
    deserializer.deserialize_str(Text(expected, parse, std::marker::PhantomData))
}

#[cfg(test)]
mod tests;
