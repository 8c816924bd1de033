//! Holds a program apart from the machine it runs on: it sees its own files and the system's programs, no other process, no network, and no more memory,
//! processes and disk than it was given.
//!
//! The walls, from the outside in:
//! 1. **Namespaces**, by Debian's `bubblewrap`: a file system of its own (read-only but for the workspace and `/tmp`), no other processes, no network, no
//!    capabilities, no further namespaces.
//! 2. **Control groups** for all of it together, where this process may make some: memory, processes, processors.
//! 3. **The stage**, the first thing that runs inside: resource limits, then landlock over what is to be seen, then a seccomp filter, then the program.
//!
//! Always true: no program starts with a wall missing that was asked for; what the machine cannot give is found out once, by [`Sandboxes::new`], and is
//! told by [`Holds`] rather than passed over. Everything inside dies with the process group of the command.
//!
//! | where | what |
//! |---|---|
//! | [`holds`] | what this machine can hold |
//! | [`view`] | what is to be seen inside, as bubblewrap's arguments |
//! | [`spec`], [`stage`] | what the stage is told, and the stage |
//! | `limits`, `landlock`, `seccomp` | the walls that the stage puts up |
//! | [`cgroup`] | control groups, of both versions |
//! | [`way_out`] | the port inside behind which the runner answers |
//!
//! Rejected: a runtime for container images (Docker): needs a daemon with the powers of root, and half a second a start. `hakoniwa`, which does the namespaces
//! inside the process: one person's project, where bubblewrap has been under attack in every Flatpak for ten years.

pub mod cgroup;
pub mod holds;
mod landlock;
mod limits;
mod sandboxes;
mod seccomp;
pub mod spec;
pub mod stage;
pub mod view;
pub mod way_out;

pub use self::cgroup::Cell;
pub use self::holds::{Holds, Missing};
pub use self::limits::Limits;
pub use self::sandboxes::{Plan, Prepared, Sandboxes, Stage};
