//! How much a sandbox may use. Limits of the kernel for each process are the floor; a control group holds all processes together where there is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// What a sandbox may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Most memory, in bytes: of all processes together in a control group, else of the data of each.
    pub memory_bytes: u64,
    /// Most processes and threads at a time.
    pub processes: u64,
    /// Largest file, in bytes.
    pub file_bytes: u64,
    /// Most files that a process has open.
    pub open_files: u64,
    /// Thousandths of a processor, of all processes together; held in a control group only.
    pub cpu_milli: Option<u64>,
    /// Longest processor time of a process, in seconds: for what has no control group.
    pub cpu_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, processes: 256, file_bytes: 1 << 30, open_files: 1024, cpu_milli: None, cpu_seconds: 3600 }
    }
}

/// Binds this process and all it will start.
pub(crate) fn bind(limits: &Limits) -> std::io::Result<()> {
    let wanted = [
        // Not the address space: runtimes reserve far more of it than they use.
        (Resource::Data, limits.memory_bytes),
        (Resource::Nproc, limits.processes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, limits.open_files),
        (Resource::Cpu, limits.cpu_seconds),
        // A core is a file that nobody asked for, with all that the program knew.
        (Resource::Core, 0),
        (Resource::Memlock, 8 << 20),
        (Resource::Msgqueue, 819_200),
    ];
    for (resource, most) in wanted {
        // What the runner itself may not go beyond, it cannot give.
        let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}
