//! `terminal/*`: commands that the agent has run for it, in its workspace, through the same launcher as itself.
//!
//! Always true: each runs in a process group of its own that dies with the session, also when the runner is killed; at most so many are held at a time, and
//! of each the last of its output; after [`Terminals::finish`] none of it runs any more.
//!
//! A command without arguments is a line for `sh`, because agents send one ("npm test 2>&1 | tail"); with arguments it is a program. What shall run in
//! another directory of the workspace is started through `sh` as well: a launcher knows only the workspace.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_client_protocol_schema::v1::{
    CreateTerminalRequest, Error, ErrorCode, RequestId, TerminalExitStatus, TerminalId, TerminalOutputResponse, WaitForTerminalExitResponse,
};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::Shared;
use super::super::group::Group;
use super::super::inside;
use super::super::launch::Launch;
use super::super::program::Spawned;
use super::super::session::{ProgramAgent, Variables};
use crate::ports::Said;

/// Requests that wait for the end of one command.
const WAITING_MAX: usize = 16;
/// Variables that a command may get besides the agent's own.
const ENV_MAX: usize = 256;
const READ_BYTES: usize = 16 << 10;
/// A killed command that hangs in the kernel is not waited for longer than this.
const GONE: Duration = Duration::from_secs(10);
/// Changes to the directory and becomes the rest of its arguments.
const IN_DIRECTORY: &str = r#"cd -- "$1" && shift && exec "$@""#;

/// Whose commands they are, and where they run.
pub(super) struct Ground {
    pub(super) agent: Arc<ProgramAgent>,
    pub(super) shared: Arc<Shared>,
    pub(super) workspace: PathBuf,
    /// Where the session speaks: of a host that a command may not reach.
    pub(super) said: mpsc::Sender<Said>,
}

/// The commands of a session.
#[derive(Debug, Default)]
pub(in crate::agents) struct Terminals {
    held: BTreeMap<u64, Terminal>,
    last: u64,
    running: JoinSet<(u64, ExitStatus)>,
}

#[derive(Debug)]
struct Terminal {
    group: Arc<Group>,
    output: Arc<Mutex<Output>>,
    ended: Option<ExitStatus>,
    waiting: Vec<RequestId>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

/// The last of what a command wrote.
#[derive(Debug)]
struct Output {
    bytes: VecDeque<u8>,
    bytes_max: usize,
    cut: bool,
}

/// A started command and what its end is told by.
type Ended = (Vec<RequestId>, WaitForTerminalExitResponse);

impl Terminals {
    /// Starts a command.
    pub(super) async fn create(&mut self, request: CreateTerminalRequest, ground: Ground) -> Result<TerminalId, Error> {
        let limits = &ground.shared.limits;
        if self.held.len() >= limits.terminals_max {
            return Err(invalid(format!("at most {} terminals at a time; release one", limits.terminals_max)));
        }
        let command = command(&request, &ground.workspace)?;
        let env = environment(&request, &ground.agent.env)?;
        let asked = request.output_byte_limit.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes_max = asked.map_or(limits.file_bytes_max, |asked| asked.min(limits.file_bytes_max));
        let output = Arc::new(Mutex::new(Output { bytes: VecDeque::new(), bytes_max, cut: false }));
        let leave = limits.leave;
        let spawn = move || {
            let Ground { agent, shared, workspace, said } = &ground;
            let ProgramAgent { agent, shown, .. } = &**agent;
            let launch = Launch { agent, command: &command, env: &env, shown, workspace };
            let spawned = Spawned::new(&shared.launcher, &launch, &shared.watchdog)?;
            spawned.ear.lend(said);
            Ok(spawned)
        };
        let spawned = tokio::task::spawn_blocking(spawn).await.map_err(io::Error::other).flatten();
        let failed =
            |error: io::Error| Error::new(i32::from(ErrorCode::InternalError), format!("{} did not start: {error}", request.command));
        let spawned = spawned.map_err(failed)?;
        self.last += 1;
        let (id, group, kept) = (self.last, Arc::clone(&spawned.group), Arc::clone(&output));
        self.running.spawn(async move { (id, attend(spawned, &kept, leave).await) });
        self.held.insert(id, Terminal { group, output, ended: None, waiting: Vec::new() });
        Ok(TerminalId::new(id.to_string()))
    }

    /// What it wrote so far.
    pub(super) fn output(&self, id: &TerminalId) -> Result<TerminalOutputResponse, Error> {
        let terminal = number(id).and_then(|id| self.held.get(&id)).ok_or_else(|| unknown(id))?;
        let (text, cut) = terminal.output.lock().unwrap_or_else(PoisonError::into_inner).text();
        Ok(TerminalOutputResponse::new(text, cut).exit_status(terminal.ended.map(exit_status)))
    }

    /// How it ended, if it did; else the request waits for that.
    pub(super) fn wait(&mut self, id: &TerminalId, request: &RequestId) -> Result<Option<WaitForTerminalExitResponse>, Error> {
        let terminal = self.terminal(id)?;
        if let Some(status) = terminal.ended {
            return Ok(Some(WaitForTerminalExitResponse::new(exit_status(status))));
        }
        if terminal.waiting.len() >= WAITING_MAX {
            return Err(invalid(format!("{WAITING_MAX} requests wait for the end of this command already")));
        }
        terminal.waiting.push(request.clone());
        Ok(None)
    }

    /// Whether a request waits for the end of a command.
    pub(super) fn are_awaited(&self) -> bool {
        self.held.values().any(|terminal| !terminal.waiting.is_empty())
    }

    /// Ends its command; its output stays.
    pub(super) fn kill(&mut self, id: &TerminalId) -> Result<(), Error> {
        self.terminal(id)?.group.signal(Signal::KILL);
        Ok(())
    }

    /// Ends its command and forgets it. Those that wait for its end are returned.
    pub(super) fn release(&mut self, id: &TerminalId) -> Result<Vec<RequestId>, Error> {
        let mut terminal = number(id).and_then(|id| self.held.remove(&id)).ok_or_else(|| unknown(id))?;
        Ok(std::mem::take(&mut terminal.waiting))
    }

    /// The next command that ends, and who waits for it. Never returns while none runs. Safe to drop in between.
    pub(super) async fn next_end(&mut self) -> Ended {
        loop {
            match self.running.join_next().await {
                Some(Ok((id, status))) => {
                    let Some(terminal) = self.held.get_mut(&id) else { continue };
                    terminal.ended = Some(status);
                    return (std::mem::take(&mut terminal.waiting), WaitForTerminalExitResponse::new(exit_status(status)));
                }
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Ends all commands and waits until they are gone.
    pub(in crate::agents) async fn finish(&mut self) {
        self.held.clear();
        let gone = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GONE, gone).await.is_err() {
            tracing::warn!("a command of an agent does not end although it was killed");
        }
    }

    fn terminal(&mut self, id: &TerminalId) -> Result<&mut Terminal, Error> {
        number(id).and_then(|id| self.held.get_mut(&id)).ok_or_else(|| unknown(id))
    }
}

/// Reads what a command writes until it has ended and its pipes are closed, or had their moment to close.
async fn attend(command: Spawned, output: &Mutex<Output>, leave: Duration) -> ExitStatus {
    let Spawned { group, mut children, cell, proxy, first, stdin, mut stdout, mut stderr, .. } = command;
    let (mut out, mut err) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut telling = pin!(tell(stdin, first));
    let mut told = false;
    let mut status = group.ended();
    let mut close = status.map(|_| Instant::now() + leave);
    loop {
        if let (Some(status), None, None) = (status, &stdout, &stderr) {
            drop(proxy);
            // Its control groups may take a moment to empty.
            drop(tokio::task::spawn_blocking(move || drop(cell)).await);
            return status;
        }
        tokio::select! {
            () = &mut telling, if !told => told = true,
            _ = children.recv(), if status.is_none() => {
                status = group.ended();
                close = status.map(|_| Instant::now() + leave);
            }
            read = read_some(&mut stdout, &mut out) => keep(output, &out, read, &mut stdout),
            read = read_some(&mut stderr, &mut err) => keep(output, &err, read, &mut stderr),
            () = at(close), if close.is_some() => (stdout, stderr) = (None, None),
        }
    }
}

fn keep<T>(output: &Mutex<Output>, buffer: &[u8], read: usize, pipe: &mut Option<T>) {
    if read == 0 {
        *pipe = None;
    }
    output.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..read]);
}

/// How much was read; nothing at the end and after an error, which for a pipe is the same.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>, into: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(into).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// Writes all of it and closes the pipe; one that nobody reads is closed as well.
async fn tell(stdin: Option<ChildStdin>, first: Vec<u8>) {
    if let Some(mut stdin) = stdin {
        drop(stdin.write_all(&first).await);
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Output {
    fn push(&mut self, chunk: &[u8]) {
        let kept = &chunk[chunk.len().saturating_sub(self.bytes_max)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.bytes_max);
        self.cut |= excess > 0 || kept.len() < chunk.len();
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
    }

    /// As text, from a whole character on, and whether it is only the last of it.
    fn text(&self) -> (String, bool) {
        let (front, back) = self.bytes.as_slices();
        let bytes = [front, back].concat();
        let continued = |byte: &u8| byte & 0xc0 == 0x80;
        // A character has at most three bytes after its first.
        let begin = if self.cut { bytes.iter().take(3).take_while(|byte| continued(byte)).count() } else { 0 };
        (String::from_utf8_lossy(&bytes[begin..]).into_owned(), self.cut)
    }
}

/// What to run: see the module.
fn command(request: &CreateTerminalRequest, workspace: &Path) -> Result<Vec<String>, Error> {
    if request.command.contains('\0') || request.args.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid("a command has no NUL in it"));
    }
    let mut command = if request.args.is_empty() {
        vec!["sh".to_owned(), "-c".to_owned(), request.command.clone()]
    } else {
        std::iter::once(&request.command).chain(&request.args).cloned().collect()
    };
    if let Some(cwd) = request.cwd.as_deref().filter(|cwd| *cwd != workspace) {
        let Some(directory) = cwd.to_str().filter(|_| inside::is_directory(workspace, cwd)) else {
            return Err(invalid(format!("{}: no directory inside the workspace", cwd.display())));
        };
        command.splice(..0, ["sh", "-c", IN_DIRECTORY, "sh", directory].map(str::to_owned));
    }
    Ok(command)
}

/// The agent's own variables, and those of the request in their place.
fn environment(request: &CreateTerminalRequest, own: &Variables) -> Result<Variables, Error> {
    if request.env.len() > ENV_MAX {
        return Err(invalid(format!("at most {ENV_MAX} variables")));
    }
    let mut env: BTreeMap<&str, &str> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for variable in &request.env {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) || variable.value.contains('\0') {
            return Err(invalid(format!("{:?} is no variable of an environment", variable.name)));
        }
        env.insert(&variable.name, &variable.value);
    }
    Ok(env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn number(id: &TerminalId) -> Option<u64> {
    id.0.parse().ok()
}

fn unknown(id: &TerminalId) -> Error {
    Error::new(i32::from(ErrorCode::ResourceNotFound), format!("there is no terminal {id}"))
}

fn invalid(words: impl Into<String>) -> Error {
    Error::new(i32::from(ErrorCode::InvalidParams), words.into())
}

fn exit_status(status: ExitStatus) -> TerminalExitStatus {
    let code = status.code().and_then(|code| u32::try_from(code).ok());
    TerminalExitStatus::new().exit_code(code).signal(status.signal().map(signal_name))
}

fn signal_name(number: i32) -> String {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    let name = names.iter().find(|(signal, _)| signal.as_raw() == number);
    name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(chunks: &[&str], bytes_max: usize) -> (String, bool) {
        let mut output = Output { bytes: VecDeque::new(), bytes_max, cut: false };
        chunks.iter().for_each(|chunk| output.push(chunk.as_bytes()));
        output.text()
    }

    #[test]
    fn the_last_of_the_output_is_kept_from_a_whole_character_on() {
        assert_eq!(kept(&["ab", "cd"], 4), ("abcd".into(), false));
        assert_eq!(kept(&["ab", "cde"], 4), ("bcde".into(), true));
        assert_eq!(kept(&["abcdefgh"], 4), ("efgh".into(), true));
        assert_eq!(kept(&["aüb"], 2), ("b".into(), true));
        assert_eq!(kept(&["a𝄞b"], 4), ("b".into(), true));
        assert_eq!(kept(&["a𝄞b"], 5), ("𝄞b".into(), true));
        assert_eq!(kept(&["abc"], 0), (String::new(), true));
        assert_eq!(kept(&[""], 0), (String::new(), false));
    }

    #[test]
    fn a_command_without_arguments_is_a_line_for_a_shell() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("deep")).unwrap();
        std::os::unix::fs::symlink("..", root.path().join("up")).unwrap();
        let of = |request: CreateTerminalRequest| command(&request, root.path());
        let new = || CreateTerminalRequest::new("s", "npm");
        assert_eq!(of(CreateTerminalRequest::new("s", "ls | wc -l")).unwrap(), ["sh", "-c", "ls | wc -l"]);
        assert_eq!(of(new().args(vec!["a b".into()]).cwd(root.path().to_owned())).unwrap(), ["npm", "a b"]);
        let deep = root.path().join("deep");
        let expected = ["sh", "-c", IN_DIRECTORY, "sh", deep.to_str().unwrap(), "npm", "x"];
        assert_eq!(of(new().args(vec!["x".into()]).cwd(deep.clone())).unwrap(), expected);
        for outside in ["/", "up", "..", "nowhere", "deep/../.."] {
            assert!(of(new().cwd(root.path().join(outside))).is_err(), "{outside}");
        }
        assert!(of(CreateTerminalRequest::new("s", "a\0b")).is_err());
    }

    #[test]
    fn variables_of_a_request_take_the_place_of_the_agent_s_own() {
        use agent_client_protocol_schema::v1::EnvVariable;
        let own = vec![("PATH".to_owned(), "/bin".to_owned()), ("A".to_owned(), "1".to_owned())];
        let of = |env: Vec<EnvVariable>| environment(&CreateTerminalRequest::new("s", "x").env(env), &own);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            of(vec![EnvVariable::new("A", "2"), EnvVariable::new("B", "3")]).unwrap(),
            [pair("A", "2"), pair("B", "3"), pair("PATH", "/bin")]
        );
        assert!(of(vec![EnvVariable::new("A=B", "2")]).is_err() && of(vec![EnvVariable::new("", "2")]).is_err());
        assert!(of((0..=ENV_MAX).map(|n| EnvVariable::new(n.to_string(), "x")).collect()).is_err());
    }
}
