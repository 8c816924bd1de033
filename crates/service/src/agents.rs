//! `agents.toml`: which agents there are and what each may use. Read once; intake knows the names, the runner the rest.
//!
//! A bad value names file, line, key and the accepted form. Unknown keys are refused, so that a misspelt limit is never ignored.

mod approvals;
mod http;
pub mod kubernetes;
mod occasions;
mod permissions;
pub mod sandbox;
mod scheduling;
pub mod secrets;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fte_events::AgentName;
use fte_events::handoffs::HUMAN;
use fte_events::limits::{is_budget, is_token_budget};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use toml::Spanned;

pub use self::approvals::Approvals;
pub use self::occasions::Occasions;
pub use self::permissions::{Permission, Permissions};

use self::approvals::RawApprovals;
use self::kubernetes::{KubernetesSandbox, RawPlace};
use self::occasions::{RawOccasion, WrongOccasion};
use self::permissions::RawPermissions;
use self::sandbox::{ACCEPTABLE, RawNetwork, RawSandbox, Sandbox};
use self::secrets::SecretVariable;
use crate::env::{ConfigError, parse_duration};

pub use self::http::{Http, HttpHeader, HttpProtocol};
pub use self::scheduling::{KeyPath, Rate};

/// The configured agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Agents {
    /// Who works on a task that names no agent.
    pub default: AgentName,
    /// All of them.
    pub agents: BTreeMap<AgentName, Agent>,
    /// What this machine may lack without agents being refused: some of [`ACCEPTABLE`].
    pub accept: Vec<String>,
    /// What is done when an event says that its time has come.
    pub occasions: Occasions,
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
    /// Most starts in a time. Default: no limit.
    pub rate: Option<Rate>,
    /// Tasks with the same value there run one at a time. Default: none.
    pub concurrency_key: Option<KeyPath>,
    /// Longest run of one attempt. Default 15 minutes.
    pub timeout: Duration,
    /// An attempt of which nothing is heard for so long fails. Default: however long.
    pub silent: Option<Duration>,
    /// Attempts in all. Default 3.
    pub attempts: u32,
    /// Values of the secret store that its program gets.
    pub secrets: Vec<SecretVariable>,
    /// What holds its program, and what that may use.
    pub sandbox: Sandbox,
    /// Where its sandboxes are claimed, if they are elsewhere.
    pub kubernetes: Option<KubernetesSandbox>,
    /// Who answers its questions.
    pub approvals: Approvals,
    /// Whether it listens to what people say to its tasks. Default: as its kind does.
    pub messages: bool,
    /// What a task of it may cost in dollars: the budget of a task that has none, and the most of one that has. Default: no limit.
    pub budget_usd: Option<f64>,
    /// The same in tokens.
    pub budget_tokens: Option<u64>,
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
    /// It runs elsewhere.
    Http(Http),
    /// A program that speaks the Agent Client Protocol, and what it may do without a person.
    Acp(Vec<String>, Permissions),
}

impl AgentKind {
    /// Whether it is a program on this machine.
    pub fn is_program(&self) -> bool {
        match self {
            Self::Builtin(_) | Self::Http(_) => false,
            Self::Command(_) | Self::Process(_) | Self::Acp(..) => true,
        }
    }
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
        Self { default: name_of("echo"), agents: agents.into(), accept: Vec::new(), occasions: Occasions::default() }
    }

    /// Reads the file; `variable` is what named it.
    pub fn read(variable: &str, path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { name: variable.to_owned(), path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |line: usize, key: String, problem: String| ConfigError::Content { path: path.to_owned(), line, key, problem };
        let fail = |start: usize, key: String, problem: String| {
            wrong(text.get(..start).unwrap_or_default().matches('\n').count() + 1, key, problem)
        };
        let file: RawFile = toml::from_str(text).map_err(|error| {
            let (line, key) = key_at(text, error.span().map_or(0, |span| span.start));
            wrong(line, key, error.message().to_owned())
        })?;
        let mut agents = BTreeMap::new();
        for (name, raw) in file.agents {
            let start = raw.span().start;
            if name.as_str() == HUMAN {
                return Err(fail(start, format!("agents.{name}"), "expected another name: people are called human".to_owned()));
            }
            let agent = raw.into_inner().check(&name);
            let agent = agent.map_err(|Wrong { key, at, problem }| fail(at.unwrap_or(start), format!("agents.{name}.{key}"), problem))?;
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
        let accept = file.sandbox.and_then(|sandbox| sandbox.accept);
        if let Some(accept) = &accept
            && let Some(unknown) = accept.get_ref().iter().find(|name| !ACCEPTABLE.contains(&name.as_str()))
        {
            let problem = format!("{unknown:?}: expected some of {}", ACCEPTABLE.map(|name| format!("{name:?}")).join(", "));
            return Err(fail(accept.span().start, "sandbox.accept".to_owned(), problem));
        }
        let occasions = occasions::check(file.occasions, &default, |agent| agents.contains_key(agent), known);
        let occasions = occasions.map_err(|WrongOccasion(key, at, problem)| fail(at, format!("occasions.{key}"), problem))?;
        Ok(Self { default, agents, accept: accept.map(Spanned::into_inner).unwrap_or_default(), occasions })
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
            rate: None,
            concurrency_key: None,
            timeout: Duration::from_secs(15 * 60),
            silent: None,
            attempts: 3,
            secrets: Vec::new(),
            sandbox: Sandbox::default(),
            kubernetes: None,
            approvals: Approvals::default(),
            messages: false,
            budget_usd: None,
            budget_tokens: None,
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
    sandbox: Option<RawAccepted>,
    #[serde(default)]
    occasions: Vec<RawOccasion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccepted {
    accept: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    kind: RawKind,
    command: Option<Spanned<Vec<String>>>,
    builtin: Option<Spanned<RawBuiltin>>,
    env: Option<Spanned<Vec<String>>>,
    max: Option<Spanned<u32>>,
    min_warm: Option<Spanned<u32>>,
    queue: Option<Spanned<u32>>,
    rate: Option<Rate>,
    concurrency_key: Option<KeyPath>,
    timeout: Option<Spanned<Span>>,
    silent: Option<Spanned<Span>>,
    attempts: Option<Spanned<u32>>,
    secrets: Option<Spanned<Vec<String>>>,
    sandbox: Option<Spanned<RawPlace>>,
    memory: Option<Spanned<Size>>,
    cpus: Option<Spanned<f64>>,
    processes: Option<Spanned<u32>>,
    open_files: Option<Spanned<u32>>,
    file_size: Option<Spanned<Size>>,
    disk: Option<Spanned<Size>>,
    network: Option<Spanned<RawNetwork>>,
    read: Option<Spanned<Vec<PathBuf>>>,
    url: Option<Spanned<String>>,
    protocol: Option<Spanned<HttpProtocol>>,
    headers: Option<Spanned<BTreeMap<String, Spanned<String>>>>,
    permissions: Option<Spanned<RawPermissions>>,
    approvals: Option<RawApprovals>,
    messages: Option<Spanned<bool>>,
    budget_usd: Option<Spanned<f64>>,
    budget_tokens: Option<Spanned<u64>>,
}

/// A key of an agent that is wrong.
struct Wrong {
    key: &'static str,
    /// Where in the file its value stands; nothing where it is missing.
    at: Option<usize>,
    problem: String,
}

/// `value` stands at `key`, and cannot be used.
fn wrong<T>(key: &'static str, value: Option<&Spanned<T>>, problem: impl Into<String>) -> Wrong {
    Wrong { key, at: value.map(|value| value.span().start), problem: problem.into() }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Builtin,
    Command,
    Process,
    Http,
    Acp,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawBuiltin {
    Echo,
    Demo,
}

impl RawAgent {
    /// The agent, or the key that is wrong and why.
    fn check(self, name: &AgentName) -> Result<Agent, Wrong> {
        self.check_elsewhere()?;
        let approvals = approvals::check(self.approvals, self.kind)?;
        let builtin = self.builtin.as_ref();
        let kind = match self.kind {
            RawKind::Builtin if self.command.is_some() => {
                return Err(wrong("command", self.command.as_ref(), "a built-in agent has no command"));
            }
            RawKind::Builtin if self.permissions.is_some() => {
                return Err(wrong("permissions", self.permissions.as_ref(), r#"only for kind = "acp""#));
            }
            RawKind::Builtin => AgentKind::Builtin(match (builtin.map(Spanned::get_ref), name.as_str()) {
                (Some(RawBuiltin::Echo), _) | (None, "echo") => Builtin::Echo,
                (Some(RawBuiltin::Demo), _) | (None, "demo") => Builtin::Demo,
                (None, _) => return Err(wrong("builtin", builtin, r#"missing; expected "echo" or "demo""#)),
            }),
            _ if builtin.is_some() => return Err(wrong("builtin", builtin, r#"only for kind = "builtin""#)),
            RawKind::Acp => AgentKind::Acp(program(self.command)?, permissions::check(self.permissions)?),
            _ if self.permissions.is_some() => return Err(wrong("permissions", self.permissions.as_ref(), r#"only for kind = "acp""#)),
            RawKind::Command => AgentKind::Command(program(self.command)?),
            RawKind::Process => AgentKind::Process(program(self.command)?),
            RawKind::Http => AgentKind::Http(http::check(self.url, self.protocol, self.headers)?),
        };
        let (walls, kubernetes) = kubernetes::place(&kind, self.sandbox)?;
        let sandbox = RawSandbox {
            walls,
            memory: self.memory,
            cpus: self.cpus,
            processes: self.processes,
            open_files: self.open_files,
            file_size: self.file_size,
            disk: self.disk,
            network: self.network,
            read: self.read,
        };
        if matches!(kind, AgentKind::Builtin(_)) {
            sandbox.refuse("only for programs: a built-in agent is part of this one")?;
            if self.secrets.is_some() {
                return Err(wrong("secrets", self.secrets.as_ref(), "only for programs: a built-in agent is part of this one"));
            }
        }
        if matches!(kind, AgentKind::Http(_)) {
            sandbox.refuse(http::NOT_HERE)?;
        }
        let messages = hears(&kind, self.messages)?;
        let kind_waits = matches!(kind, AgentKind::Process(_) | AgentKind::Acp(..));
        let defaults = Agent::builtin(Builtin::Echo);
        let max_default = if matches!(kind, AgentKind::Builtin(_)) { defaults.max } else { 4 };
        let max = within("max", self.max, max_default, (1, 4096))?;
        let timeout = match self.timeout {
            None => defaults.timeout,
            Some(span) if span.get_ref().0.is_zero() => return Err(wrong("timeout", Some(&span), "expected more than nothing")),
            Some(span) => span.into_inner().0,
        };
        let silent = silence(&kind, self.silent, timeout)?;
        let agent = Agent {
            kind,
            max,
            min_warm: match (kind_waits, self.min_warm) {
                (false, Some(min_warm)) if *min_warm.get_ref() > 0 => {
                    return Err(wrong(
                        "min_warm",
                        Some(&min_warm),
                        "only for kind = \"process\" and \"acp\": others get their task with their start",
                    ));
                }
                (_, min_warm) => within("min_warm", min_warm, defaults.min_warm, (0, max))?,
            },
            queue: within("queue", self.queue, defaults.queue, (1, 100_000))?,
            rate: self.rate,
            concurrency_key: self.concurrency_key,
            attempts: within("attempts", self.attempts, defaults.attempts, (1, 100))?,
            timeout,
            silent,
            env: match self.env {
                None => Vec::new(),
                Some(env) => match env.get_ref().iter().find(|name| name.is_empty() || name.contains('=')) {
                    Some(bad) => return Err(wrong("env", Some(&env), format!("{bad:?}: expected the name of an environment variable"))),
                    None => env.into_inner(),
                },
            },
            secrets: secrets::check(self.secrets)?,
            sandbox: sandbox.check()?,
            kubernetes,
            approvals,
            messages,
            budget_usd: budget("budget_usd", self.budget_usd, is_budget, "a number above 0 and at most 1000000")?,
            budget_tokens: budget("budget_tokens", self.budget_tokens, is_token_budget, "a whole number from 1 to 1000000000000")?,
        };
        Ok(agent)
    }
}

fn budget<T: Copy + fmt::Display>(
    key: &'static str,
    value: Option<Spanned<T>>,
    is_one: fn(T) -> bool,
    expected: &str,
) -> Result<Option<T>, Wrong> {
    match value {
        Some(value) if !is_one(*value.get_ref()) => Err(wrong(key, Some(&value), format!("{}: expected {expected}", value.get_ref()))),
        value => Ok(value.map(Spanned::into_inner)),
    }
}

/// How long an agent may be silent. It is less than the whole attempt may take, or it would never come to that.
fn silence(kind: &AgentKind, silent: Option<Spanned<Span>>, timeout: Duration) -> Result<Option<Duration>, Wrong> {
    let Some(silent) = silent else { return Ok(None) };
    let problem = match silent.get_ref().0 {
        _ if matches!(kind, AgentKind::Builtin(_)) => "a built-in agent is part of this program, and never silent",
        span if span.is_zero() => "expected more than nothing",
        span if span >= timeout => "expected less than `timeout`, after which the attempt ends in any case",
        span => return Ok(Some(span)),
    };
    Err(wrong("silent", Some(&silent), problem))
}

/// Whether an agent takes messages. One that speaks JSON lines may not know them, and could take one for the answer that it waits for: it has to be asked for.
fn hears(kind: &AgentKind, messages: Option<Spanned<bool>>) -> Result<bool, Wrong> {
    let (may, does) = match kind {
        AgentKind::Process(_) => (true, false),
        AgentKind::Acp(..) => (true, true),
        AgentKind::Http(http) => (http.protocol == HttpProtocol::A2a, http.protocol == HttpProtocol::A2a),
        AgentKind::Builtin(_) | AgentKind::Command(_) => (false, false),
    };
    match messages {
        Some(wanted) if *wanted.get_ref() && !may => {
            Err(wrong("messages", Some(&wanted), r#"only kind = "process", "acp", and "http" with protocol = "a2a" take messages"#))
        }
        wanted => Ok(wanted.map_or(does, Spanned::into_inner)),
    }
}

fn within(key: &'static str, value: Option<Spanned<u32>>, default: u32, (min, max): (u32, u32)) -> Result<u32, Wrong> {
    let number = value.as_ref().map_or(default, |value| *value.get_ref());
    if (min..=max).contains(&number) { Ok(number) } else { Err(wrong(key, value.as_ref(), format!("{number}: expected {min} to {max}"))) }
}

fn program(command: Option<Spanned<Vec<String>>>) -> Result<Vec<String>, Wrong> {
    match command {
        Some(command) if command.get_ref().first().is_some_and(|program| !program.is_empty()) => Ok(command.into_inner()),
        command => Err(wrong("command", command.as_ref(), r#"expected a program and its arguments, such as ["python3", "writer.py"]"#)),
    }
}

/// Which key is set at `start`, and at which line: the parser knows the place, this names it.
fn key_at(text: &str, start: usize) -> (usize, String) {
    let count = text.get(..start).unwrap_or_default().matches('\n').count();
    let lines: Vec<&str> = text.lines().take(count + 1).map(str::trim).collect();
    let inside = |line: &str, (open, close): (&str, &str)| {
        line.strip_prefix(open)?.strip_suffix(close).filter(|name| is_key(name)).map(str::to_owned)
    };
    let header = |line: &str| inside(line, ("[[", "]]")).or_else(|| inside(line, ("[", "]")));
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned()).filter(|key| is_key(key));
    let number = |at: usize| at + 1;
    // A value may go on over several lines: its key stands above.
    for (at, line) in lines.iter().enumerate().rev() {
        if let Some(table) = header(line) {
            return (number(at), table);
        }
        if let Some(key) = key(line) {
            let table = lines[..at].iter().rev().find_map(|line| header(line));
            return (number(at), table.map_or_else(|| key.clone(), |table| format!("{table}.{key}")));
        }
    }
    (number(count), lines.last().map(|line| (*line).to_owned()).unwrap_or_default())
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-. \"'".contains(c))
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
