//! Agents die with the runner, also when it is killed: a small shell beside it holds the list of process groups and the reading end of a pipe; when the pipe
//! ends, because the runner is gone however that came about, it kills what is on the list.
//!
//! Rejected: `PR_SET_PDEATHSIG` (by `setpriv` or unsafe code). It fires when the *thread* that started the agent ends, which for a thread of a pool may be
//! any moment, and it reaches the agent but not what the agent started. Leaving it to agents to notice the end of their standard input: a busy one does not.
//!
//! The shell is in a group of its own and ignores the signals of a terminal, so that Ctrl-C reaches the runner and not it. It starts with the first agent
//! that is a process, and again should somebody have killed it. What is left: a group of which the runner had no time to tell, some ten microseconds.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::Pid;

/// Reads `+ group` and `- group`, a line each. A line that was cut by the end is not taken.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
live=' '
while read -r op group; do
  case $op in
    +) live="$live$group " ;;
    -) case $live in *" $group "*) live="${live%%" $group "*} ${live#*" $group "}" ;; esac ;;
  esac
done
for group in $live; do kill -s KILL -- "-$group" 2>/dev/null; done
"#;

/// Kills the groups it was told of when this process ends.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    shell: Option<Shell>,
    live: BTreeSet<i32>,
}

#[derive(Debug)]
struct Shell {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts the shell if it does not run, so that telling it of a group takes no time later.
    pub(super) fn ready(&self) -> io::Result<()> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).ensure()
    }

    /// From now on the group dies with us.
    pub(super) fn watch(&self, group: Pid) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.live.insert(group.as_raw_pid());
        inner.tell('+', group)
    }

    /// The group is gone and its number may be given to others. Called before it can be.
    pub(super) fn forget(&self, group: Pid) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.live.remove(&group.as_raw_pid());
        if let Err(error) = inner.tell('-', group) {
            tracing::warn!(%error, "the agents' watchdog does not run");
        }
    }
}

impl Inner {
    fn tell(&mut self, op: char, group: Pid) -> io::Result<()> {
        let line = format!("{op} {}\n", group.as_raw_pid());
        // That the pipe takes it does not mean that somebody reads: a process that is being started just now may hold the other end for a moment.
        if let Some(shell) = &mut self.shell
            && matches!(shell.child.try_wait(), Ok(None))
            && let Some(pipe) = &mut shell.pipe
            && pipe.write_all(line.as_bytes()).is_ok()
        {
            return Ok(());
        }
        // A new one is told all that live, with or without this group.
        self.shell = None;
        self.ensure()
    }

    fn ensure(&mut self) -> io::Result<()> {
        if self.shell.is_some() {
            return Ok(());
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).env_clear().current_dir("/").process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut pipe = child.stdin.take();
        let all = self.live.iter().map(|group| format!("+ {group}\n")).collect::<String>();
        let told = pipe.as_mut().map_or(Ok(()), |pipe| pipe.write_all(all.as_bytes()));
        self.shell = Some(Shell { child, pipe });
        told
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.pipe = None;
        // It ends with its pipe, at once.
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::test_support::{alive, eventually};

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pid)
    }

    /// Another process may still be on its way out of our sight; a zombie is not alive.
    fn ends(pid: Pid) {
        eventually("the group is killed", || !alive(pid));
    }

    #[test]
    fn what_it_watches_dies_with_it_and_what_it_forgot_does_not() {
        let watchdog = Watchdog::default();
        let ((mut watched, watched_pid), (mut forgotten, forgotten_pid)) = (sleeper(), sleeper());
        watchdog.watch(watched_pid).unwrap();
        watchdog.watch(forgotten_pid).unwrap();
        watchdog.forget(forgotten_pid);
        assert!(alive(watched_pid));
        drop(watchdog);
        ends(watched_pid);
        assert!(alive(forgotten_pid));
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
        watched.wait().unwrap();
    }

    #[test]
    fn a_killed_watchdog_is_replaced_by_one_that_knows_the_same() {
        let watchdog = Watchdog::default();
        let ((mut first, first_pid), (mut second, second_pid)) = (sleeper(), sleeper());
        watchdog.watch(first_pid).unwrap();
        {
            let mut inner = watchdog.inner.lock().unwrap();
            let shell = &mut inner.shell.as_mut().unwrap().child;
            shell.kill().unwrap();
            shell.wait().unwrap();
        }
        watchdog.watch(second_pid).unwrap();
        assert!(alive(first_pid) && alive(second_pid));
        drop(watchdog);
        ends(first_pid);
        ends(second_pid);
        first.wait().unwrap();
        second.wait().unwrap();
    }
}
