//! What this machine can hold, found out once by trying, and told in words that say what to do.

use std::fmt;

/// A wall that this machine cannot put up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No sandbox at all.
    Sandbox {
        /// Why.
        reason: String,
    },
    /// Files are behind one wall instead of two.
    Landlock,
    /// Memory is bounded for each process, not for all of them together.
    Together {
        /// Why.
        reason: String,
    },
    /// The number of processes is not bounded: the limit of the kernel does not hold for root, and there are no control groups.
    Processes,
    /// A share of the processors cannot be held. Of importance to whoever asks for one.
    Cpu,
}

impl Missing {
    /// As it is called in configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sandbox { .. } => "sandbox",
            Self::Landlock => "landlock",
            Self::Together { .. } => "cgroup",
            Self::Processes => "processes",
            Self::Cpu => "cpu",
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Sandbox { .. } => {
                "install bubblewrap 0.8 or newer (Debian: apt install bubblewrap), where user namespaces are allowed; or accept plain processes for an agent by sandbox = \"none\""
            }
            Self::Landlock => {
                "use a kernel from 5.13 on with landlock among its lsm=; or accept it by accept = [\"landlock\"] under [sandbox]"
            }
            Self::Together { .. } => {
                "run it in a user's session or a service of systemd with Delegate=yes and DelegateSubgroup=fte, so that it may make control groups"
            }
            Self::Processes => {
                "run it as a user of its own, or where it may make control groups; or accept it by accept = [\"processes\"] under [sandbox]"
            }
            Self::Cpu => {
                "run it where it may make control groups with the cpu controller (a service of systemd with Delegate=yes and DelegateSubgroup=fte); or take cpus out of the agents, or accept it by accept = [\"cpu\"] under [sandbox]"
            }
        }
    }

    /// Whether agents may not start for it, unless that was accepted. Where control groups are missing the limits of single processes remain.
    pub fn refuses(&self) -> bool {
        !matches!(self, Self::Together { .. })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox { reason } => write!(f, "no sandbox can be made: {reason}"),
            Self::Landlock => f.write_str("this kernel does not enforce landlock, the second wall around files"),
            Self::Together { reason } => write!(f, "memory is bounded for each process only, not for all of a sandbox together: {reason}"),
            Self::Processes => {
                f.write_str("the number of processes is not bounded, since the runner is root and may make no control groups")
            }
            Self::Cpu => f.write_str("the share of processors that an agent asks for (cpus) is not held: there is no control group for it"),
        }
    }
}

/// What holds here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// In words, each wall that stands.
    pub standing: Vec<String>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl Holds {
    /// What is missing of what is asked for: `shares` says whether any agent asks for a share of the processors.
    pub fn missed(&self, shares: bool) -> impl Iterator<Item = &Missing> {
        self.missing.iter().filter(move |missing| shares || **missing != Missing::Cpu)
    }

    /// What keeps agents from starting, where so much was accepted.
    pub fn refused<'a>(&'a self, accepted: &'a [String], shares: bool) -> impl Iterator<Item = &'a Missing> {
        self.missed(shares).filter(|missing| missing.refuses() && !accepted.iter().any(|accepted| accepted == missing.name()))
    }
}
