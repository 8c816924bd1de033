//! A process group: a program and what it started. Signals reach all of it, and it ends with its leader.
//!
//! Always true: a signal never reaches a stranger. A group's number may be given to others once its leader was waited for, so the leader is waited for under
//! the same lock under which signals are sent, after the rest of the group was killed. A process that leaves the group on purpose (`setsid`) is out of reach
//! here; a namespace of its own is what holds it.
//!
//! What is spawned for a sandbox is the process outside of it. Killing its group kills the first process of the namespace, and with that everything inside; any other
//! signal is for the program inside, which is the leader of a group of its own.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use fte_sandbox::Cell;
use fte_sandbox::cgroup::children;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::process::Child;

use super::watchdog::Watchdog;

/// A started program and its group. Killed when dropped.
#[derive(Debug)]
pub(super) struct Group {
    leader: Mutex<Leader>,
    /// Whether the program runs inside of what was spawned.
    inside: bool,
    watchdog: Arc<Watchdog>,
}

#[derive(Debug)]
struct Leader {
    child: Child,
    /// `None` once it was waited for.
    pid: Option<Pid>,
    status: Option<ExitStatus>,
}

impl Group {
    /// Takes a child that was started as the leader of a new group.
    pub(super) fn new(child: Child, inside: bool, watchdog: Arc<Watchdog>) -> io::Result<Self> {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = Self { leader: Mutex::new(Leader { child, pid, status: None }), inside, watchdog };
        if let Some(pid) = pid {
            group.watchdog.watch(pid)?;
        }
        Ok(group)
    }

    /// Puts all of it into control groups.
    pub(super) fn enter(&self, cell: &Cell) -> io::Result<()> {
        match self.leader.lock().unwrap_or_else(PoisonError::into_inner).pid {
            Some(pid) => cell.enter(pid),
            None => Ok(()),
        }
    }

    /// Signals all of it, if there is any left.
    pub(super) fn signal(&self, signal: Signal) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pid) = leader.pid else { return };
        // It may have ended in between, which is what was wanted.
        if self.inside && signal != Signal::KILL {
            for program in programs_inside(pid) {
                let _ = kill_process_group(program, signal).or_else(|_| kill_process(program, signal));
            }
        } else {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// How the leader ended, if it did; what it left behind is killed then.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pid) = leader.pid else { return leader.status };
        // Asks without waiting for it in the other sense: until then nobody else can have its number.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(None) | Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {
            return None;
        }
        let _ = kill_process_group(pid, Signal::KILL);
        self.watchdog.forget(pid);
        let status = leader.child.try_wait().ok().flatten();
        leader.pid = None;
        let status = status.unwrap_or_else(|| ExitStatus::from_raw(Signal::KILL.as_raw()));
        leader.status = Some(if self.inside { of_program(status) } else { status });
        leader.status
    }
}

/// What the namespace's first process has started: the program. What that left behind belongs to the first process too, and is signalled as well.
fn programs_inside(outside: Pid) -> Vec<Pid> {
    let firsts = children(outside).unwrap_or_default();
    firsts.into_iter().flat_map(|first| children(first).unwrap_or_default()).collect()
}

/// Outside, a program that was killed by a signal ended with a status of 128 and more, as in a shell.
fn of_program(status: ExitStatus) -> ExitStatus {
    const SIGNALS: std::ops::RangeInclusive<i32> = 129..=192;
    status.code().filter(|code| SIGNALS.contains(code)).map_or(status, |code| ExitStatus::from_raw(code - 128))
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let leader = self.leader.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = leader.pid {
            self.watchdog.forget(pid);
        }
        // The runtime waits for a child that is dropped.
    }
}
