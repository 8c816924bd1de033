//! A started program: its pipes, its group, its workspace, and what happens to it, one thing at a time.
//!
//! Always true: what it may write is bounded in all, and read only as fast as it is dealt with; after its leader's end the rest of the group is killed, what
//! is still in the pipes is read, and then it has ended; whatever happens, [`Program::finish`] or a drop ends it and removes its workspace.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fte_events::TaskId;
use fte_sandbox::Cell;
use fte_service::agents::sandbox::Network;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::group::Group;
use super::launch::{Launch, Launcher, Prepared};
use super::lines::Tail;
use super::measure::Measured;
use super::proxy::{Ear, Proxy};
use super::secrets;
use super::watchdog::Watchdog;
use super::workspace::Workspace;
use crate::ports::{Said, Tell};

const READ_BYTES: usize = 16 << 10;
/// A buffer with less room gets a new one.
const READ_BYTES_MIN: usize = 1 << 10;
/// Past this much unread input the runner's next word waits, and its own output is not read.
const UNREAD_BYTES_MAX: usize = 4 << 20;
/// A killed process is gone in no time; one that hangs in the kernel is not waited for longer than this.
const GONE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug)]
pub(super) enum Happening {
    /// It wrote to its standard output.
    Output(Bytes),
    /// It has read enough of what had made it [full](Program::is_full).
    Drained,
    /// The runner has a word for it.
    Told(Tell),
    /// It wrote more than it may.
    Flood,
    /// Its workspace holds more than it may.
    DiskFull,
    /// It wrote nothing for too long.
    Silent,
    /// It has ended and all it wrote was read.
    Ended(ExitStatus),
}

/// Times at which something is done about it.
#[derive(Debug, Default)]
struct Alarms {
    terminate: Option<Instant>,
    /// From being asked to being made to leave.
    then: Duration,
    kill: Option<Instant>,
    /// What others hold open after its end is closed.
    close: Option<Instant>,
    silent: Option<Instant>,
}

/// A started program.
#[derive(Debug)]
pub(super) struct Program {
    group: Arc<Group>,
    /// Rings whenever some child of this process ends.
    children: Signals,
    cell: Option<Cell>,
    ear: Ear,
    /// Ends with it.
    #[expect(dead_code, reason = "ends the proxy when dropped")]
    proxy: Option<Proxy>,
    measured: Measured,
    workspace: Option<Workspace>,
    stdin: Option<ChildStdin>,
    unread: BytesMut,
    close_stdin: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    out: BytesMut,
    err: BytesMut,
    tail: Tail,
    output_bytes: u64,
    status: Option<ExitStatus>,
    alarms: Alarms,
    terms: Terms,
    deaf: bool,
}

/// How a program is dealt with.
pub(super) struct Terms {
    /// Whose program it is, and the task it works on, if there is one yet: for the log.
    pub(super) agent: String,
    pub(super) task_id: Option<TaskId>,
    pub(super) output_bytes_max: u64,
    pub(super) disk_bytes_max: u64,
    pub(super) memory_bytes_max: u64,
    /// Nothing is made of its silence where it has none.
    pub(super) silence_max: Option<Duration>,
    pub(super) leave: Duration,
    /// What it was given and we do not repeat, in every form.
    pub(super) secrets: Vec<String>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("agent", &self.agent).field("task_id", &self.task_id).finish_non_exhaustive()
    }
}

/// A program and what holds it, as it was spawned.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) group: Arc<Group>,
    /// Rings whenever some child of this process ends.
    pub(super) children: Signals,
    pub(super) cell: Option<Cell>,
    /// Whom the proxy tells of hosts that it denies.
    pub(super) ear: Ear,
    pub(super) proxy: Option<Proxy>,
    /// What has to be written to its standard input before all else.
    pub(super) first: Vec<u8>,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Spawned {
    /// Spawns it. Blocks for as long as that takes; needs the runtime's context.
    pub(super) fn new(launcher: &Launcher, launch: &Launch<'_>, watchdog: &Arc<Watchdog>) -> io::Result<Self> {
        watchdog.ready()?;
        let ear = Ear::default();
        let children = signal(SignalKind::child())?;
        let Prepared { mut command, first, cell, inside, way_out } = launcher.prepare(launch)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let group = Arc::new(Group::new(child, inside, Arc::clone(watchdog))?);
        if let Some(cell) = &cell {
            // Before it is told what to run: nothing of the program is outside.
            group.enter(cell)?;
        }
        let proxy = match (way_out, &launch.agent.sandbox.network) {
            (Some(way_out), Network::Allowed(hosts)) => Some(way_out.serve(hosts.clone(), ear.clone())?),
            _ => None,
        };
        Ok(Self { group, children, cell, ear, proxy, first, stdin, stdout, stderr })
    }
}

impl Program {
    /// Starts it. Blocks for as long as that takes; needs the runtime's context.
    pub(super) fn spawn(
        launcher: &Launcher,
        launch: &Launch<'_>,
        watchdog: &Arc<Watchdog>,
        workspace: Workspace,
        terms: Terms,
    ) -> io::Result<Self> {
        let Spawned { group, children, cell, ear, proxy, first, stdin, stdout, stderr } = Spawned::new(launcher, launch, watchdog)?;
        Ok(Self {
            group,
            children,
            cell,
            ear,
            proxy,
            measured: Measured::default(),
            workspace: Some(workspace),
            stdin,
            unread: first.as_slice().into(),
            close_stdin: false,
            stdout,
            stderr,
            out: BytesMut::new(),
            err: BytesMut::new(),
            tail: Tail::default(),
            output_bytes: 0,
            status: None,
            alarms: Alarms::default(),
            terms,
            deaf: false,
        })
    }

    /// Whether it has not ended.
    pub(super) fn lives(&mut self) -> bool {
        self.look();
        self.status.is_none()
    }

    /// Tells it what it has to be told before all else, so that it starts behind its walls ahead of its task. (Otherwise that goes out before its task, with
    /// [`next`](Self::next).)
    pub(super) async fn get_ready(&mut self) {
        while self.stdin.is_some() && !self.unread.is_empty() {
            let written = write_some(&mut self.stdin, &self.unread).await;
            self.written(written);
        }
    }

    /// From now on it works on this task; `said` is where its session speaks.
    pub(super) fn begin(&mut self, task_id: TaskId, said: &mpsc::Sender<Said>) {
        self.terms.task_id = Some(task_id);
        self.ear.lend(said);
        self.may_be_silent(false);
    }

    pub(super) fn group(&self) -> Arc<Group> {
        Arc::clone(&self.group)
    }

    pub(super) fn workspace(&self) -> Option<&Workspace> {
        self.workspace.as_ref()
    }

    /// Its last words on standard error, after `what`.
    pub(super) fn last_words(&self, what: &str) -> String {
        self.tail.after(what, &self.terms.secrets)
    }

    /// What it wrote, as we may repeat it: whole yet, for a secret that was cut in two is not found.
    pub(super) fn quotable(&self, text: impl Into<String>) -> String {
        secrets::without(text.into(), &self.terms.secrets)
    }

    /// How it ended, in words.
    pub(super) fn in_words(&self, status: ExitStatus) -> String {
        match self.out_of_memory() {
            true => format!(
                "{}: there was no more memory for it than {} bytes (`memory` in agents.toml)",
                in_words(status),
                self.terms.memory_bytes_max
            ),
            false => in_words(status),
        }
    }

    /// Whether something of it was killed because it needed more memory than it may have.
    pub(super) fn out_of_memory(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| cell.out_of_memory() > 0)
    }

    /// Writes to its standard input when it reads. Who is told something may think about it.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.is_heard();
        if self.stdin.is_some() && !self.close_stdin {
            self.unread.extend_from_slice(bytes);
        }
    }

    /// Whether so much waits to be read by it that it should get no more answers first.
    pub(super) fn is_full(&self) -> bool {
        self.unread.len() >= UNREAD_BYTES_MAX
    }

    /// Closes its standard input after what was written.
    pub(super) fn close_stdin(&mut self) {
        self.close_stdin = true;
        if self.unread.is_empty() {
            self.stdin = None;
        }
    }

    /// It may be silent from now on, or no more.
    pub(super) fn may_be_silent(&mut self, may: bool) {
        self.alarms.silent = self.terms.silence_max.filter(|_| !may).map(|max| Instant::now() + max);
    }

    /// Its silence, if that is counted now, begins anew.
    fn is_heard(&mut self) {
        if self.alarms.silent.is_some() {
            self.may_be_silent(false);
        }
    }

    /// It is asked to leave after `first` and made to after `then` more.
    pub(super) fn end_after(&mut self, first: Duration, then: Duration) {
        self.alarms.terminate = Some(Instant::now() + first);
        self.alarms.then = then;
    }

    /// It has a moment to leave by itself.
    pub(super) fn let_leave(&mut self) {
        self.alarms.silent = None;
        self.alarms.kill = Some(Instant::now() + self.terms.leave);
    }

    /// The next thing that happens. Safe to drop in between: nothing read is lost.
    pub(super) async fn next(&mut self, tell: &mut mpsc::Receiver<Tell>) -> Happening {
        loop {
            if let (Some(status), None, None) = (self.status, &self.stdout, &self.stderr) {
                return Happening::Ended(status);
            }
            let alarm = self.alarms.next();
            let workspace = self.workspace.as_ref().map(Workspace::path);
            // Output before alarms: what it wrote in time counts, however late we come to read it. A flood of output ends at its limit.
            tokio::select! {
                biased;
                told = tell.recv(), if !self.deaf && !self.is_full() => match told {
                    Some(told) => return Happening::Told(told),
                    None => self.deaf = true,
                },
                _ = self.children.recv(), if self.status.is_none() => self.look(),
                written = write_some(&mut self.stdin, &self.unread), if self.stdin.is_some() && !self.unread.is_empty() => {
                    let was_full = self.is_full();
                    self.written(written);
                    if was_full && !self.is_full() {
                        return Happening::Drained;
                    }
                }
                read = read_some(&mut self.stderr, &mut self.err), if self.stderr.is_some() => {
                    let chunk = self.err.split();
                    if read == 0 {
                        self.stderr = None;
                    }
                    self.tail.push(&chunk);
                    // A secret may be cut in two between chunks: of who has any, nothing is logged.
                    if read > 0 && self.terms.secrets.is_empty() {
                        let Terms { agent, task_id, .. } = &self.terms;
                        tracing::debug!(agent, task_id = task_id.map(tracing::field::display), text = %String::from_utf8_lossy(&chunk).trim_end(), "agent's standard error");
                    }
                    if self.count(read) {
                        return Happening::Flood;
                    }
                }
                read = read_some(&mut self.stdout, &mut self.out), if self.stdout.is_some() && (!self.is_full() || self.status.is_some()) => {
                    let chunk = self.out.split();
                    if read == 0 {
                        self.stdout = None;
                        self.look();
                        continue;
                    }
                    return if self.count(read) { Happening::Flood } else { Happening::Output(chunk.freeze()) };
                }
                bytes = self.measured.next(workspace), if self.status.is_none() => {
                    if bytes > self.terms.disk_bytes_max {
                        return Happening::DiskFull;
                    }
                }
                () = at(alarm), if alarm.is_some() => {
                    if self.ring() {
                        return Happening::Silent;
                    }
                }
            }
        }
    }

    /// Ends it if it has not ended, and removes its workspace once all of it is gone.
    pub(super) async fn finish(mut self) {
        self.group.signal(Signal::KILL);
        let gone = async {
            while self.group.ended().is_none() {
                self.children.recv().await;
            }
        };
        if tokio::time::timeout(GONE, gone).await.is_err() {
            let Terms { agent, task_id, .. } = &self.terms;
            tracing::warn!(agent, task_id = task_id.map(tracing::field::display), "an agent's process does not end although it was killed");
        }
        let (workspace, cell) = (self.workspace.take(), self.cell.take());
        // Removing may take a while where there are many files.
        drop(tokio::task::spawn_blocking(move || drop((workspace, cell))).await);
    }

    fn look(&mut self) {
        if self.status.is_none() {
            self.status = self.group.ended();
            if self.status.is_some() {
                self.alarms = Alarms { close: Some(Instant::now() + self.terms.leave), ..Alarms::default() };
            } else if self.stdout.is_none() && self.alarms.kill.is_none() {
                // It can say nothing any more.
                self.let_leave();
            }
        }
    }

    /// Whether that was too much.
    fn count(&mut self, bytes: usize) -> bool {
        self.output_bytes += bytes as u64;
        self.is_heard();
        self.output_bytes > self.terms.output_bytes_max
    }

    fn written(&mut self, written: io::Result<usize>) {
        match written {
            Ok(bytes) => self.unread.advance(bytes),
            // It closed its standard input, which is its right.
            Err(_) => {
                self.unread.clear();
                self.close_stdin = true;
            }
        }
        if self.unread.is_empty() && self.close_stdin {
            self.stdin = None;
        }
    }

    /// Does what is due; whether it was silent for too long.
    fn ring(&mut self) -> bool {
        let now = Instant::now();
        let due = |alarm: &mut Option<Instant>| alarm.take_if(|at| *at <= now).is_some();
        if due(&mut self.alarms.terminate) {
            self.group.signal(Signal::TERM);
            // From now, not from when it was due: it gets its time however late we are.
            self.alarms.kill = Some(now + self.alarms.then);
        }
        if due(&mut self.alarms.kill) {
            self.group.signal(Signal::KILL);
        }
        if due(&mut self.alarms.close) {
            (self.stdout, self.stderr) = (None, None);
        }
        due(&mut self.alarms.silent)
    }
}

impl Alarms {
    fn next(&self) -> Option<Instant> {
        [self.terminate, self.kill, self.close, self.silent].into_iter().flatten().min()
    }
}

async fn at(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => tokio::time::sleep_until(alarm).await,
        None => std::future::pending().await,
    }
}

/// How much was read; nothing at the end and after an error, which for a pipe is the same.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>, into: &mut BytesMut) -> usize {
    match pipe {
        Some(pipe) => {
            if into.capacity() - into.len() < READ_BYTES_MIN {
                into.reserve(READ_BYTES);
            }
            pipe.read_buf(into).await.unwrap_or(0)
        }
        None => std::future::pending().await,
    }
}

async fn write_some(pipe: &mut Option<ChildStdin>, bytes: &[u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.write(bytes).await,
        None => std::future::pending().await,
    }
}

/// In words, as `exited with status 3`.
fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
