//! The keys of an agent that say what holds it and what it may use, and `[sandbox]`, what a machine may lack.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::{Size, Wrong, within, wrong};

/// What holds an agent's program, and what it may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// What holds it.
    pub walls: Walls,
    /// Most memory, in bytes, of all its processes together where there are control groups, else of each. Default 2 GiB.
    pub memory_bytes: u64,
    /// Thousandths of a processor, where there are control groups. Default: as many as are free.
    pub cpu_milli: Option<u64>,
    /// Most processes and threads. Default 256.
    pub processes: u32,
    /// Most files open in a process. Default 1 024.
    pub open_files: u32,
    /// Largest file, in bytes. Default 1 GiB.
    pub file_bytes: u64,
    /// Most that the workspace may take on the disk, in bytes. Default 4 GiB.
    pub disk_bytes: u64,
    /// What it may reach. Default nothing.
    pub network: Network,
    /// Files and directories that it may read besides the system's programs and those its command names. Relative ones stand beside `agents.toml`.
    pub read: Vec<PathBuf>,
}

/// What holds a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walls {
    /// Namespaces, landlock, seccomp and limits.
    Bubblewrap,
    /// Nothing but order: a process like any other.
    None,
}

/// What a program may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Only itself.
    None,
    /// These hosts, through a proxy that the runner keeps for it.
    Allowed(Vec<Allowed>),
    /// All that this machine reaches.
    Host,
}

/// What may be missing on this machine without agents being refused.
pub const ACCEPTABLE: [&str; 3] = ["landlock", "processes", "cpu"];

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            walls: Walls::Bubblewrap,
            memory_bytes: 2 << 30,
            cpu_milli: None,
            processes: 256,
            open_files: 1024,
            file_bytes: 1 << 30,
            disk_bytes: 4 << 30,
            network: Network::None,
            read: Vec::new(),
        }
    }
}

/// A host that may be reached through the proxy: `api.example.com:443`, `*.example.com:443` (also `example.com` itself), `*:443` (every public host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The name or address, in lower case; `*.` before it stands for all names below it, `*` alone for all public ones.
    pub host: String,
    /// The port; none stands for 80 and 443.
    pub port: Option<u16>,
}

impl std::str::FromStr for Allowed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = match text.rsplit_once(':') {
            // An IPv6 address stands in brackets.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse::<u16>().map_err(drop)?)),
            _ => (text, None),
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        let address =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if port == Some(0) || (host.len() > 255) || !(host == "*" || address || plain(name)) {
            return Err(());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawWalls {
    Bubblewrap,
    None,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false, \"host\", or a list such as [\"api.example.com:443\"]")]
pub(super) enum RawNetwork {
    Switch(bool),
    Name(String),
    List(Vec<String>),
}

/// The keys, as they stand in the file.
pub(super) struct RawSandbox {
    pub(super) walls: Option<Spanned<RawWalls>>,
    pub(super) memory: Option<Spanned<Size>>,
    pub(super) cpus: Option<Spanned<f64>>,
    pub(super) processes: Option<Spanned<u32>>,
    pub(super) open_files: Option<Spanned<u32>>,
    pub(super) file_size: Option<Spanned<Size>>,
    pub(super) disk: Option<Spanned<Size>>,
    pub(super) network: Option<Spanned<RawNetwork>>,
    pub(super) read: Option<Spanned<Vec<PathBuf>>>,
}

fn start<T>(value: &Option<Spanned<T>>) -> Option<usize> {
    value.as_ref().map(|value| value.span().start)
}

impl RawSandbox {
    /// An agent that is no program has none of these keys.
    pub(super) fn refuse(&self, why: &str) -> Result<(), Wrong> {
        let set = [
            ("sandbox", start(&self.walls)),
            ("memory", start(&self.memory)),
            ("cpus", start(&self.cpus)),
            ("processes", start(&self.processes)),
            ("open_files", start(&self.open_files)),
            ("file_size", start(&self.file_size)),
            ("disk", start(&self.disk)),
            ("network", start(&self.network)),
            ("read", start(&self.read)),
        ];
        match set.into_iter().find(|(_, at)| at.is_some()) {
            Some((key, at)) => Err(Wrong { key, at, problem: why.to_owned() }),
            None => Ok(()),
        }
    }

    pub(super) fn check(self) -> Result<Sandbox, Wrong> {
        let defaults = Sandbox::default();
        let size = |size: Option<Spanned<Size>>, default| size.map_or(default, |size| size.into_inner().0);
        if let Some(memory) = &self.memory
            && memory.get_ref().0 < MEMORY_BYTES_MIN
        {
            return Err(wrong("memory", self.memory.as_ref(), "expected at least \"16MiB\""));
        }
        Ok(Sandbox {
            walls: match self.walls.map(Spanned::into_inner) {
                Some(RawWalls::None) => Walls::None,
                Some(RawWalls::Bubblewrap) | None => Walls::Bubblewrap,
            },
            memory_bytes: size(self.memory, defaults.memory_bytes),
            cpu_milli: cpus(self.cpus)?,
            processes: within("processes", self.processes, defaults.processes, (1, 100_000))?,
            open_files: within("open_files", self.open_files, defaults.open_files, (16, 1_000_000))?,
            file_bytes: size(self.file_size, defaults.file_bytes),
            disk_bytes: size(self.disk, defaults.disk_bytes),
            network: network(self.network)?,
            read: self.read.map(Spanned::into_inner).unwrap_or_default(),
        })
    }
}

/// With less no runtime starts.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

fn cpus(cpus: Option<Spanned<f64>>) -> Result<Option<u64>, Wrong> {
    let Some(cpus) = cpus else { return Ok(None) };
    let number = *cpus.get_ref();
    if !(0.01..=1024.0).contains(&number) {
        return Err(wrong("cpus", Some(&cpus), format!("{number}: expected 0.01 to 1024.0")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most about a million, and positive")]
    Ok(Some((number * 1000.0).round() as u64))
}

fn network(network: Option<Spanned<RawNetwork>>) -> Result<Network, Wrong> {
    let Some(value) = network else { return Ok(Network::None) };
    match value.get_ref() {
        RawNetwork::Switch(false) => Ok(Network::None),
        RawNetwork::Switch(true) => Ok(Network::Allowed(vec![Allowed { host: "*".to_owned(), port: None }])),
        RawNetwork::Name(name) if name == "host" => Ok(Network::Host),
        RawNetwork::Name(name) => {
            Err(wrong("network", Some(&value), format!("{name:?}: expected true, false, \"host\", or a list of hosts")))
        }
        RawNetwork::List(hosts) => {
            let allowed = hosts.iter().map(|host| {
                host.parse().map_err(|()| {
                    wrong(
                        "network",
                        Some(&value),
                        format!("{host:?}: expected a host such as \"api.example.com:443\" or \"*.example.com\""),
                    )
                })
            });
            Ok(Network::Allowed(allowed.collect::<Result<_, _>>()?))
        }
    }
}
