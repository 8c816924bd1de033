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
}

impl Missing {
    /// As it is called in configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sandbox { .. } => "sandbox",
            Self::Landlock => "landlock",
            Self::Together { .. } => "cgroup",
            Self::Processes => "processes",
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
    /// What keeps agents from starting, where so much was accepted.
    pub fn refused<'a>(&'a self, accepted: &'a [String]) -> impl Iterator<Item = &'a Missing> {
        self.missing.iter().filter(|missing| missing.refuses() && !accepted.iter().any(|accepted| accepted == missing.name()))
    }
}
