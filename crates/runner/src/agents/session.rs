//! A session with an agent that is a program: starts it, lets its kind talk with it, and ends all of it, in this order, whoever goes away first.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fte_events::limits::json_bytes;
use fte_service::agents::{Agent, Permissions};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::acp::Terminals;
use super::group::Group;
use super::launch::Launch;
use super::limits::{CHANNEL, Limits};
use super::program::{Program, Terms};
use super::warm::{Warm, Working};
use super::workspace::Workspace;
use super::{Shared, acp, command, handed, process, secrets, wire};
use crate::ports::{Said, Session, Start, StartError};

/// A program that is started ahead of its task has read within this time what it is to become.
const READY_MAX: Duration = Duration::from_secs(30);

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct Gone;

/// Says it, waiting for room.
pub(super) async fn say(said: &mpsc::Sender<Said>, word: Said) -> Result<(), Gone> {
    said.send(word).await.map_err(|_| Gone)
}

/// Ends a task of the runtime with the session.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a program is talked with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Talk {
    Command,
    Process,
    Acp(Permissions),
}

/// Variables of an environment, by name.
pub(super) type Variables = Vec<(String, String)>;

/// An agent that is a program.
#[derive(Debug)]
pub(super) struct ProgramAgent {
    pub(super) name: String,
    pub(super) agent: Agent,
    pub(super) talk: Talk,
    pub(super) command: Vec<String>,
    /// Files that it is shown in its sandbox.
    pub(super) shown: Vec<PathBuf>,
    pub(super) env: Variables,
    /// Its programs that wait for a task.
    pub(super) warm: Arc<Warm>,
}

/// Kills all of it at once. What remains (waiting for it, its workspace) is done behind it.
struct EndOnDrop {
    group: Arc<Group>,
    _held: oneshot::Sender<()>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

pub(super) async fn start(agent: Arc<ProgramAgent>, start: Start, shared: Arc<Shared>) -> Result<Session, StartError> {
    let working = agent.warm.work();
    let warm = agent.warm.take();
    let ahead = warm.is_some();
    let mut program = match warm {
        Some(warm) => warm,
        None => {
            let handed = match lay_out(&agent, &start, &shared).await? {
                Ok(handed) => handed,
                Err(said) => return Ok(ended_with(said)),
            };
            spawn(&agent, Some(&start), handed, &shared).await?
        }
    };
    let (said, hear) = mpsc::channel(CHANNEL);
    let (tell, told) = mpsc::channel(CHANNEL);
    let (held, dropped) = oneshot::channel();
    program.begin(start.task_id, &said);
    let guard = EndOnDrop { group: program.group(), _held: held };
    let terminals = Terminals::default();
    tokio::spawn(Conversation { agent, start, shared, program, ahead, terminals, told, said, working }.run(dropped));
    Ok(Session { said: hear, tell, guard: Box::new(guard) })
}

/// Starts the program ahead of a task, as far as it comes without one.
pub(super) async fn spawn_ahead(agent: &Arc<ProgramAgent>, shared: &Arc<Shared>) -> Result<Program, StartError> {
    let mut program = spawn(agent, None, None, shared).await?;
    if let Talk::Acp(permissions) = agent.talk {
        // Its answer waits in the pipe until the task is there.
        program.write(&acp::initialize(permissions));
    }
    match tokio::time::timeout(READY_MAX, program.get_ready()).await {
        Ok(()) => Ok(program),
        Err(_) => {
            program.finish().await;
            let reason = format!("its sandbox did not stand within {} s", READY_MAX.as_secs());
            Err(StartError { agent: agent.name.clone(), reason, retryable: true })
        }
    }
}

/// Starts the program: for a task, or ahead of one.
async fn spawn(
    agent: &Arc<ProgramAgent>,
    start: Option<&Start>,
    handed: Option<Handed>,
    shared: &Arc<Shared>,
) -> Result<Program, StartError> {
    let secrets = secrets::fetch(&agent.name, &agent.agent.secrets, shared.secrets.as_ref()).await?;
    let spawn = {
        let (agent, start, shared) = (Arc::clone(agent), start.cloned(), Arc::clone(shared));
        move || spawn_now(&agent, start.as_ref(), secrets, handed, &shared)
    };
    let program = tokio::task::spawn_blocking(spawn).await.map_err(io::Error::other).flatten();
    program.map_err(|error| not_started(agent, &error))
}

/// A workspace with what was handed over with the task, and what that is.
type Handed = (Workspace, Vec<Value>);

/// What a command finds there. Others are told what lies there once they run; a command looks at once. What cannot be laid out is said as of any other kind.
async fn lay_out(agent: &ProgramAgent, start: &Start, shared: &Arc<Shared>) -> Result<Result<Option<Handed>, Said>, StartError> {
    if !matches!(agent.talk, Talk::Command) || handed::with(start).is_empty() {
        return Ok(Ok(None));
    }
    let make = {
        let (shared, task, attempt) = (Arc::clone(shared), start.task_id, start.attempt);
        move || Workspace::create(&shared.workspaces, task, attempt)
    };
    let workspace = tokio::task::spawn_blocking(make).await.map_err(io::Error::other).flatten();
    let workspace = workspace.map_err(|error| not_started(agent, &error))?;
    let disk_bytes = agent.agent.sandbox.disk_bytes;
    let listed = handed::lay_out(shared, Some(workspace.path()), wire::HANDED, handed::with(start), disk_bytes).await;
    Ok(listed.map(|listed| Some((workspace, listed))))
}

/// The session of a program that is not started, for this is to be said instead.
fn ended_with(word: Said) -> Session {
    let ((said, hear), (tell, _)) = (mpsc::channel(1), mpsc::channel(1));
    // There is room for one.
    drop(said.try_send(word));
    Session { said: hear, tell, guard: Box::new(()) }
}

fn not_started(agent: &ProgramAgent, error: &io::Error) -> StartError {
    StartError {
        agent: agent.name.clone(),
        reason: error.to_string(),
        // A program that is not there will not be there at the next try; a full disk or process table may heal.
        retryable: !matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::ArgumentListTooLong
                | io::ErrorKind::Unsupported
        ),
    }
}

fn spawn_now(
    agent: &ProgramAgent,
    start: Option<&Start>,
    secrets: Variables,
    handed: Option<Handed>,
    shared: &Shared,
) -> io::Result<Program> {
    let (workspace, handed) = match (handed, start) {
        (Some(handed), _) => handed,
        (None, Some(start)) => (Workspace::create(&shared.workspaces, start.task_id, start.attempt)?, Vec::new()),
        (None, None) => (Workspace::ahead(&shared.workspaces)?, Vec::new()),
    };
    let path: PathBuf = workspace.path().to_owned();
    let (command, mut env) = match (agent.talk, start) {
        (Talk::Command, Some(start)) => command::prepare(agent, start, &path, &handed)?,
        (Talk::Command, None) | (Talk::Process | Talk::Acp(_), _) => (agent.command.clone(), agent.env.clone()),
    };
    let forms = secrets::forms(secrets.iter().map(|(_, value)| value.clone()));
    env.extend(secrets);
    let launch = Launch { agent: &agent.agent, command: &command, env: &env, shown: &agent.shown, workspace: &path };
    let limits = &shared.limits;
    let terms = Terms {
        agent: agent.name.clone(),
        task_id: None,
        output_bytes_max: output_bytes_max(agent.talk, limits),
        silence_max: agent.agent.silent,
        disk_bytes_max: agent.agent.sandbox.disk_bytes,
        memory_bytes_max: agent.agent.sandbox.memory_bytes,
        leave: limits.leave,
        secrets: forms,
    };
    Program::spawn(&shared.launcher, &launch, &shared.watchdog, workspace, terms)
}

fn output_bytes_max(talk: Talk, limits: &Limits) -> u64 {
    match talk {
        Talk::Command | Talk::Process => limits.output_bytes_max,
        Talk::Acp(_) => limits.conversation_bytes_max,
    }
}

/// Everything that a kind needs to talk with its program.
pub(super) struct Conversation {
    pub(super) agent: Arc<ProgramAgent>,
    pub(super) start: Start,
    pub(super) shared: Arc<Shared>,
    pub(super) program: Program,
    /// It was started ahead of the task.
    pub(super) ahead: bool,
    /// What else runs for the agent.
    pub(super) terminals: Terminals,
    pub(super) told: mpsc::Receiver<crate::ports::Tell>,
    pub(super) said: mpsc::Sender<Said>,
    /// Until its program is gone.
    pub(super) working: Working,
}

impl Conversation {
    async fn run(mut self, dropped: oneshot::Receiver<()>) {
        let talk = async {
            let last = match self.agent.talk {
                Talk::Command => command::talk(&mut self).await,
                Talk::Process => process::talk(&mut self).await,
                Talk::Acp(permissions) => acp::talk(&mut self, permissions).await,
            };
            if let Ok(last) = last {
                drop(say(&self.said, without_secrets(last, &self.program)).await);
            }
        };
        tokio::select! {
            biased;
            _ = dropped => {}
            () = talk => {}
        }
        // The runner goes on with the last word while the rest is cleared away.
        let Self { program, mut terminals, said, working, .. } = self;
        drop(said);
        // They work in the workspace, which goes with the program.
        terminals.finish().await;
        program.finish().await;
        drop(working);
    }
}

/// An error says what the program wrote, in our words or its own. (A result is its own.)
fn without_secrets(last: Said, program: &Program) -> Said {
    match last {
        Said::Error { code, message, retryable } => error(&program.quotable(code), program.quotable(message), retryable),
        other => other,
    }
}

/// An error that ends the session.
pub(super) fn error(code: &str, message: impl Into<String>, retryable: bool) -> Said {
    Said::Error { code: code.to_owned(), message: message.into(), retryable }
}

/// Too much output.
pub(super) fn flood(talk: Talk, shared: &Shared) -> Said {
    let limit = output_bytes_max(talk, &shared.limits);
    let message = format!("the agent wrote more than {limit} bytes; large output travels as an artifact");
    error("output_too_large", message, false)
}

/// A result, if it is within its limit as it will be published: a control character of a text has six bytes in JSON.
pub(super) fn result(value: Value, shared: &Shared) -> Said {
    if json_bytes(&value) > shared.limits.data_bytes_max { result_too_large(shared) } else { Said::Result(value) }
}

/// A result past its limit.
pub(super) fn result_too_large(shared: &Shared) -> Said {
    let message =
        format!("the result is larger than {} bytes; keep it as an artifact and name that in the result", shared.limits.data_bytes_max);
    error("result_too_large", message, false)
}

/// Silence for longer than the agent may be silent.
pub(super) fn silent(agent: &ProgramAgent) -> Said {
    let silence = agent.agent.silent.unwrap_or_default().as_secs_f64();
    error("agent_silent", format!("nothing was heard from the agent for {silence} s (`silent` in agents.toml)"), true)
}

/// A workspace past its limit.
pub(super) fn disk_full(agent: &ProgramAgent) -> Said {
    let message = format!("the agent's workspace holds more than {} bytes (`disk` in agents.toml)", agent.agent.sandbox.disk_bytes);
    error("disk_exceeded", message, false)
}
