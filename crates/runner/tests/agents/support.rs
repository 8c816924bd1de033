//! A host with agents made of shell scripts, and what tests ask of a session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fte_events::{AgentName, ClaimId, TaskId};
use fte_runner::agents::{AgentHost, Limits, Means, SecretError, Secrets};
use fte_runner::ports::{Agents as _, Pending, Said, Session, Start, StartError, Tell};
use fte_service::MapEnv;
use fte_service::agents::sandbox::{Sandbox, Walls};
use fte_service::agents::secrets::SecretVariable;
use fte_service::agents::{Agent, AgentKind, Agents, Builtin, Occasions};
use serde_json::Map;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host and its data directory.
pub(crate) struct Desk {
    pub(crate) data: TempDir,
    pub(crate) host: AgentHost,
}

/// An agent that runs a shell script; for `Process`, after reading the start message into `$start`.
pub(crate) fn script(kind: fn(Vec<String>) -> AgentKind, text: &str) -> Agent {
    let text = if matches!(kind(Vec::new()), AgentKind::Process(_)) { format!("IFS= read -r start\n{text}") } else { text.to_owned() };
    let command = ["sh", "-c", &text, "agent", "{task}"].map(str::to_owned).to_vec();
    Agent { kind: kind(command), sandbox: open(), ..Agent::builtin(Builtin::Echo) }
}

/// No walls: what they hold is shown on the whole program, which is the first one inside of them.
pub(crate) fn open() -> Sandbox {
    Sandbox { walls: Walls::None, ..Sandbox::default() }
}

impl Desk {
    /// One agent, by the name of `agent`.
    pub(crate) fn new(agent: Agent) -> Self {
        Self::with(agent, Limits::default())
    }

    pub(crate) fn with(agent: Agent, limits: Limits) -> Self {
        let name: AgentName = "agent".parse().unwrap();
        let agents = Agents { default: name.clone(), agents: [(name, agent)].into(), accept: Vec::new(), occasions: Occasions::default() };
        Self::of(&agents, None, limits)
    }

    pub(crate) fn of(agents: &Agents, beside: Option<&Path>, limits: Limits) -> Self {
        let data = tempfile::tempdir().unwrap();
        let host = host(agents, beside, data.path(), limits);
        Self { data, host }
    }

    /// A program that speaks the protocol.
    pub(crate) fn process(text: &str) -> Self {
        Self::new(script(AgentKind::Process, text))
    }

    pub(crate) async fn try_start(&self, start: Start) -> Result<Session, StartError> {
        self.host.start("agent", start).await
    }

    pub(crate) async fn start(&self, task: &str) -> Session {
        self.try_start(start(task)).await.unwrap()
    }

    /// Everything that the agent says about this task.
    pub(crate) async fn all(&self, task: &str) -> Vec<Said> {
        all(&mut self.start(task).await).await
    }

    /// The last word about this task.
    pub(crate) async fn last(&self, task: &str) -> Said {
        self.all(task).await.pop().expect("an agent says something")
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.data.path().join("workspaces")
    }

    /// Waits until no workspace is left.
    pub(crate) async fn cleared(&self) {
        let workspaces = self.workspaces();
        eventually("workspaces are removed", || std::fs::read_dir(&workspaces).unwrap().count() == 0).await;
    }

    /// What is kept under an artifact's name.
    pub(crate) fn kept(&self, uri: &str) -> Option<Vec<u8>> {
        kept(self.data.path(), uri)
    }
}

/// What is kept under an artifact's name in this data directory.
pub(crate) fn kept(data: &Path, uri: &str) -> Option<Vec<u8>> {
    let sha256 = uri.strip_prefix("artifact:sha256/").expect("an artifact's name");
    let shelf = std::fs::read_dir(data.join("artifacts/sha256").join(&sha256[..2])).ok()?;
    let kept: Vec<PathBuf> =
        shelf.map(|entry| entry.unwrap().path()).filter(|path| path.file_stem().is_some_and(|stem| stem == sha256)).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    std::fs::read(&kept[0]).ok()
}

/// A host that passes on the PATH of this process, and variables of its own.
pub(crate) fn host(agents: &Agents, beside: Option<&Path>, data: &Path, limits: Limits) -> AgentHost {
    use fte_service::Env as _;
    let path = fte_service::ProcessEnv.get("PATH").unwrap_or_default();
    let env = [("PATH", path.as_str()), ("ALLOWED", "yes"), ("SECRET", "no"), ("HOME", "/nowhere")];
    let env = MapEnv(env.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let artifacts = fte_artifacts::Artifacts::open(&fte_artifacts::Place::Data, data).unwrap();
    let means = Means { secrets: Box::new(Vault), ..Means::default() };
    AgentHost::new(agents, beside, data, artifacts, &env, limits, means).unwrap()
}

/// What is in the store by the name of `vault`.
pub(crate) const SECRET: &str = "swordfish-2\"";

struct Vault;

impl Secrets for Vault {
    fn get(&self, name: String) -> Pending<Result<BTreeMap<String, String>, SecretError>> {
        let values = BTreeMap::from([(name, SECRET.to_owned())]);
        Box::pin(std::future::ready(Ok(values)))
    }
}

/// The agent with the secret in the variable `VAULT`.
pub(crate) fn trusted(agent: Agent) -> Agent {
    let name = "VAULT".to_owned();
    Agent { secrets: vec![SecretVariable { variable: name.clone(), secret: name.clone(), key: name }], ..agent }
}

/// Asserts that an error was said of something with the secret in it, and nothing of the secret.
#[track_caller]
pub(crate) fn expect_no_secret(said: &[Said], code: &str) {
    let Some(Said::Error { code: found, message, .. }) = said.last() else { panic!("expected an error, got {said:?}") };
    assert_eq!(found, code, "{message}");
    assert!(message.contains("***"), "{message}");
    let all = format!("{said:?}");
    assert!(!all.contains("sword") && !all.contains("fish"), "{all}");
}

pub(crate) fn start(task: &str) -> Start {
    let task_id = TaskId::now();
    Start {
        task_id,
        attempt: 1,
        claim_id: ClaimId::of(task_id, 0, 1),
        task: task.to_owned(),
        context: Map::new(),
        checkpoint: None,
        handed_off: None,
    }
}

pub(crate) fn yes() -> Tell {
    Tell::Decision { approved: true, reason: Some("fine".to_owned()), data: None }
}

/// The next thing it says, or nothing once it is over.
pub(crate) async fn next(session: &mut Session) -> Option<Said> {
    tokio::time::timeout(PATIENCE, session.said.recv()).await.expect("the agent says something or is over")
}

/// Everything it says from now on.
pub(crate) async fn all(session: &mut Session) -> Vec<Said> {
    let mut all = Vec::new();
    while let Some(said) = next(session).await {
        all.push(said);
    }
    all
}

/// Asserts an error, and returns its message.
#[track_caller]
pub(crate) fn expect_error(said: &Said, code: &str, retryable: bool) -> String {
    match said {
        Said::Error { code: found, message, retryable: may } if found == code && *may == retryable => message.clone(),
        other => panic!("expected the error {code} (retryable: {retryable}), got {other:?}"),
    }
}

/// Whether it was ended for having been silent too long.
pub(crate) fn is_silent(said: Option<&Said>) -> bool {
    matches!(said, Some(Said::Error { code, .. }) if code == "agent_silent")
}

/// Waits until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until none of these processes runs. One that ended and that its parent has not yet noticed does not run.
pub(crate) async fn dead(pids: &[u32]) {
    assert!(!pids.is_empty());
    eventually(&format!("{pids:?} end"), || !pids.iter().any(|pid| alive(*pid))).await;
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which ends with the last bracket.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Process ids that an agent says in a log line.
pub(crate) async fn pids(session: &mut Session) -> Vec<u32> {
    let Some(Said::Log(line)) = next(session).await else { panic!("expected a line with process ids") };
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect();
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?} run");
    pids
}
