//! Control groups: a sandbox's processes together may use so much and no more. Both versions of the kernel's interface, where this process may make groups.
//!
//! Always true: a sandbox's first process is in its group before the program starts, and what it starts is too, so nothing gets out by being quick.
//!
//! On version 2 a group with processes can hand no limits to groups below it. So the nearest group above this process is taken that has no processes of its
//! own: with systemd that is the slice of a user's session, or that of a service with `Delegate=yes` and `DelegateSubgroup=`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;

use crate::limits::Limits;

const MOUNT: &str = "/sys/fs/cgroup";
/// Our directories begin with this, then come the number of the process that made them and which of its own it is.
const PREFIX: &str = "fte-";
/// How many directories this process has made. Each [`Cgroups`] has its own: whoever is done with one takes nobody else's away.
static MADE: AtomicU64 = AtomicU64::new(0);
/// Over so many microseconds the share of processors is counted.
const CPU_PERIOD_US: u64 = 100_000;

/// Where groups are made.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    next: AtomicU64,
    /// Groups that were still busy when they should have gone, also those of dead predecessors.
    leftover: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// One tree of groups. Version 2 has one for everything, version 1 one for each controller.
#[derive(Debug)]
struct Hierarchy {
    /// Ours; holds no processes.
    directory: PathBuf,
    version: Version,
    controls: Vec<Control>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Memory,
    Pids,
    Cpu,
}

impl Control {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// The files that set its limit; those that need not exist come last.
    fn settings(self, version: Version, limits: &Limits) -> Vec<(&'static str, String, bool)> {
        let memory = limits.memory_bytes.to_string();
        let quota = limits.cpu_milli.map(|milli| milli * CPU_PERIOD_US / 1000);
        match (self, version) {
            (Self::Memory, Version::One) => {
                vec![("memory.limit_in_bytes", memory.clone(), true), ("memory.memsw.limit_in_bytes", memory, false)]
            }
            (Self::Memory, Version::Two) => vec![("memory.max", memory, true), ("memory.swap.max", "0".to_owned(), false)],
            (Self::Pids, _) => vec![("pids.max", limits.processes.to_string(), true)],
            (Self::Cpu, Version::One) => quota.into_iter().map(|quota| ("cpu.cfs_quota_us", quota.to_string(), true)).collect(),
            (Self::Cpu, Version::Two) => quota.into_iter().map(|quota| ("cpu.max", format!("{quota} {CPU_PERIOD_US}"), true)).collect(),
        }
    }
}

/// The groups of one sandbox. Removed when dropped.
#[derive(Debug)]
pub struct Cell {
    directories: Vec<(PathBuf, Version)>,
    leftover: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Cgroups {
    /// Finds where this process may make groups, and removes what dead predecessors left there.
    pub fn find() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut busy = BTreeSet::new();
        let two = unified(&own).map(|own| second(&own, &name, &mut busy));
        let hierarchies = match two {
            Some(Ok(hierarchy)) => vec![hierarchy],
            two => first(&own, &name, &mut busy).map_err(|error| two.and_then(Result::err).unwrap_or(error))?,
        };
        Ok(Self { hierarchies, next: AtomicU64::new(1), leftover: Arc::new(Mutex::new(busy)) })
    }

    /// In words: `cgroup v2: memory, pids, cpu`.
    pub fn describe(&self) -> String {
        let version = if self.hierarchies.iter().all(|hierarchy| hierarchy.version == Version::Two) { 2 } else { 1 };
        let controls: Vec<_> = self.hierarchies.iter().flat_map(|hierarchy| &hierarchy.controls).map(|control| control.name()).collect();
        format!("control groups, version {version}: {}", controls.join(", "))
    }

    /// Whether the share of processors can be held.
    pub fn holds_cpu(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.controls.contains(&Control::Cpu))
    }

    /// New groups with these limits.
    pub fn cell(&self, limits: &Limits) -> io::Result<Cell> {
        self.clear();
        loop {
            let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            match self.cell_named(&name, limits) {
                // One that a predecessor of our number left, and that is still busy.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
    }

    fn cell_named(&self, name: &str, limits: &Limits) -> io::Result<Cell> {
        let mut cell = Cell { directories: Vec::new(), leftover: Arc::clone(&self.leftover) };
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.directory.join(name);
            fs::create_dir(&directory).map_err(|error| at(&directory, error))?;
            cell.directories.push((directory.clone(), hierarchy.version));
            for control in &hierarchy.controls {
                for (file, value, needed) in control.settings(hierarchy.version, limits) {
                    match write(&directory.join(file), &value) {
                        Err(error) if needed => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(cell)
    }

    /// Removes groups that were busy when their sandbox ended.
    fn clear(&self) {
        let mut leftover = self.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        // From the back: what is inside comes behind what it is in.
        let busy = leftover.iter().rev().filter(|directory| is_busy(fs::remove_dir(directory))).cloned().collect();
        *leftover = busy;
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.clear();
        for hierarchy in &self.hierarchies {
            // One that still has sandboxes in it is removed by a successor.
            drop(fs::remove_dir(&hierarchy.directory));
        }
    }
}

impl Cell {
    /// Puts a process and all it has started into the groups. Complete however fast those start others: what a process starts after it was moved is inside, and
    /// what it started before is found afterwards.
    pub fn enter(&self, process: Pid) -> io::Result<()> {
        for (directory, _) in &self.directories {
            match write(&directory.join("cgroup.procs"), &process.as_raw_nonzero().to_string()) {
                // It ended in between.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(()),
                entered => entered?,
            }
        }
        for child in children(process)? {
            self.enter(child)?;
        }
        Ok(())
    }

    /// How often a process inside was killed because there was no more memory for it.
    pub fn out_of_memory(&self) -> u64 {
        let count = |file: PathBuf| {
            let text = fs::read_to_string(file).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse::<u64>().ok())
        };
        self.directories
            .iter()
            .filter_map(|(directory, version)| match version {
                Version::One => count(directory.join("memory.oom_control")),
                Version::Two => count(directory.join("memory.events")),
            })
            .sum()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        for (directory, version) in &self.directories {
            if *version == Version::Two {
                // Since Linux 5.14; its process group is killed in any case.
                drop(fs::write(directory.join("cgroup.kill"), "1"));
            }
            if is_busy(fs::remove_dir(directory)) {
                self.leftover.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.clone());
            }
        }
    }
}

/// The processes that a process has started.
pub fn children(process: Pid) -> io::Result<Vec<Pid>> {
    let process = process.as_raw_nonzero();
    let tasks = match fs::read_dir(format!("/proc/{process}/task")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        tasks => tasks?,
    };
    let mut found = Vec::new();
    for task in tasks {
        let list = match fs::read_to_string(task?.path().join("children")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            list => list?,
        };
        found.extend(list.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)));
    }
    Ok(found)
}

/// This process's group in the one tree of version 2, if there is that with the controllers that are needed.
fn unified(own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = Path::new(MOUNT).join(path.trim_start_matches('/'));
    has(&directory.join("cgroup.controllers"), Control::Memory).then_some(directory)
}

fn second(own: &Path, name: &str, busy: &mut BTreeSet<PathBuf>) -> io::Result<Hierarchy> {
    let mut refused = io::Error::other(format!("no group above {} may be divided", own.display()));
    for parent in own.ancestors().take_while(|directory| directory.starts_with(MOUNT)) {
        match divide(parent).and_then(|()| make(parent, name, busy)) {
            Ok(directory) => {
                divide(&directory)?;
                let controls = Control::ALL.into_iter().filter(|control| has(&directory.join("cgroup.subtree_control"), *control));
                return Ok(Hierarchy { controls: controls.collect(), directory, version: Version::Two });
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Lets the groups below have limits of their own.
fn divide(directory: &Path) -> io::Result<()> {
    let control = directory.join("cgroup.subtree_control");
    for needed in Control::ALL {
        if !has(&control, needed)
            && let Err(error) = write(&control, &format!("+{}", needed.name()))
            && needed != Control::Cpu
        {
            return Err(error);
        }
    }
    Ok(())
}

fn first(own: &str, name: &str, busy: &mut BTreeSet<PathBuf>) -> io::Result<Vec<Hierarchy>> {
    let mut hierarchies = Vec::new();
    for control in Control::ALL {
        let path = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|controller| controller == control.name()).then_some(path)
        });
        let made = path
            .ok_or_else(|| io::Error::other(format!("there is no controller for {}", control.name())))
            .and_then(|path| make(&Path::new(MOUNT).join(control.name()).join(path.trim_start_matches('/')), name, busy));
        match made {
            Ok(directory) => hierarchies.push(Hierarchy { directory, version: Version::One, controls: vec![control] }),
            Err(_) if control == Control::Cpu => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hierarchies)
}

/// Makes our directory in `parent`, and removes those of processes that are gone.
fn make(parent: &Path, name: &str, busy: &mut BTreeSet<PathBuf>) -> io::Result<PathBuf> {
    sweep(parent, busy);
    let directory = parent.join(name);
    match fs::create_dir(&directory) {
        // Of a predecessor that had our number, as in a container: its cells may be busy still.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(&directory, error)),
        _ => Ok(directory),
    }
}

/// What cannot be removed yet is noted as busy: the sandboxes of a runner that was killed a moment ago may be about to end.
fn sweep(parent: &Path, busy: &mut BTreeSet<PathBuf>) {
    let mut remove = |directory: PathBuf| {
        if is_busy(fs::remove_dir(&directory)) {
            busy.insert(directory);
        }
    };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            let cells = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            cells.filter(|cell| cell.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|cell| remove(cell.path()));
            remove(entry.path());
        }
    }
}

fn has(file: &Path, control: Control) -> bool {
    fs::read_to_string(file).is_ok_and(|list| list.split_whitespace().any(|name| name == control.name()))
}

fn is_busy(removed: io::Result<()>) -> bool {
    removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::SRCH.raw_os_error() => error,
        _ => at(file, error),
    })
}

fn at(file: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where no groups can be made there is nothing to see; the whole program says so in its own tests.
    fn cgroups() -> Option<Cgroups> {
        #[expect(clippy::print_stdout, reason = "what is not tested has to be seen")]
        Cgroups::find().inspect_err(|error| println!("NOTICE: no control groups can be made here: {error}")).ok()
    }

    #[test]
    fn a_cell_holds_a_process_with_all_it_started_and_goes_with_it() {
        let Some(cgroups) = cgroups() else { return };
        let cell = cgroups.cell(&Limits::default()).unwrap();
        let mut shell = Command::new("sh").args(["-c", "sleep 600 & read line"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&shell);
        let started = std::iter::repeat_with(|| children(pid).unwrap()).find(|children| !children.is_empty()).unwrap();
        cell.enter(pid).unwrap();
        for (directory, _) in &cell.directories {
            let inside = fs::read_to_string(directory.join("cgroup.procs")).unwrap();
            for process in started.iter().chain([&pid]) {
                assert!(inside.lines().any(|line| line == process.as_raw_nonzero().to_string()), "{process:?} is not in {inside}");
            }
        }
        let directories = cell.directories.clone();
        for process in started {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
        drop(cell);
        // The kernel may need a moment more; the next cell finds what was left.
        while directories.iter().any(|(directory, _)| directory.exists()) {
            cgroups.clear();
        }
        // One that is gone already may be entered by nobody, and that is no error.
        cgroups.cell(&Limits::default()).unwrap().enter(pid).unwrap();
    }

    #[test]
    fn who_is_done_takes_nobody_elses_groups_away() {
        let (Some(one), Some(other)) = (cgroups(), cgroups()) else { return };
        drop(one);
        other.cell(&Limits::default()).unwrap();
    }

    #[test]
    fn what_a_killed_predecessor_left_busy_goes_once_it_is_free() {
        let Some(cgroups) = cgroups() else { return };
        let mut gone = Command::new("true").spawn().unwrap();
        let name = format!("{PREFIX}{}-0", gone.id());
        gone.wait().unwrap();
        // In a place of our own: others who start sweep where we begin.
        let places: Vec<_> = cgroups.hierarchies.iter().map(|hierarchy| hierarchy.directory.join("place")).collect();
        let lefts: Vec<_> = places.iter().map(|place| place.join(&name)).collect();
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        for left in &lefts {
            fs::create_dir_all(left.join("1")).unwrap();
            fs::write(left.join("1/cgroup.procs"), sleeper.id().to_string()).unwrap();
        }
        for place in &places {
            sweep(place, &mut cgroups.leftover.lock().unwrap());
        }
        assert!(lefts.iter().all(|left| left.join("1").exists()));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // The kernel may need a moment more.
        while lefts.iter().any(|left| left.exists()) {
            cgroups.cell(&Limits::default()).unwrap();
        }
        places.iter().for_each(|place| fs::remove_dir(place).unwrap());
    }

    #[test]
    fn what_a_predecessor_left_is_in_nobodys_way() {
        let Some(cgroups) = cgroups() else { return };
        let left: Vec<_> = cgroups.hierarchies.iter().map(|hierarchy| hierarchy.directory.join("1")).collect();
        left.iter().for_each(|directory| fs::create_dir(directory).unwrap());
        let cell = cgroups.cell(&Limits::default()).unwrap();
        assert!(cell.directories.iter().all(|(directory, _)| !left.contains(directory)));
        left.iter().for_each(|directory| fs::remove_dir(directory).unwrap());
    }
}
