//! Agents of kind `acp`: programs that speak the Agent Client Protocol, version 1, over standard input and output. The runner is the protocol's *client*.
//!
//! Always true: one message is dealt with at a time, and the next is read when it is done, so that an agent that is faster than the runner waits; at most one
//! request of ours is open; what the agent asks for is answered once, from inside its workspace or not at all; the answer to the prompt is the last word, and
//! passed on once the program has left, or had its moment to leave. What must not be ends the session with an error that says where.
//!
//! The messages are the types of the protocol's official Rust crate, `agent-client-protocol` (its `v1::schema` is the crate used here). Its *connection* was
//! rejected: every one of its queues is unbounded, a message is taken from the pipe whether or not the one before was dealt with, and what an agent must not
//! do (bad JSON, an answer to nothing, a second answer) is logged or answered inside of it, where a task has to fail. With one open request there is little
//! left for it to do.

mod files;
mod letters;
mod made;
mod permission;
mod rpc;
mod serve;
mod terminals;
mod updates;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use agent_client_protocol_schema::ProtocolVersion;
use agent_client_protocol_schema::v1::{
    AGENT_METHOD_NAMES, CLIENT_METHOD_NAMES, CancelNotification, ClientCapabilities, ContentBlock, Error, ErrorCode,
    FileSystemCapabilities, Implementation, InitializeRequest, InitializeResponse, LoadSessionRequest, NewSessionRequest,
    NewSessionResponse, PromptRequest, PromptResponse, RequestId, ResourceLink, SessionId, SessionNotification, StopReason, TextContent,
};
use fte_events::limits::json_bytes;
use fte_service::agents::{Permission, Permissions};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

pub(super) use self::terminals::Terminals;

use self::letters::Letter;
use self::permission::{Answers, Wish};
use self::rpc::Message;
use self::updates::Updates;
use super::handed;
use super::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, clip};
use super::lines::Lines;
use super::program::{Happening, Program};
use super::session::{Conversation, Gone, disk_full, error, flood, result_too_large, say, silent};
use super::wire;
use crate::ports::{Said, Start, Tell};

/// So much of a bad line is quoted.
const QUOTE_BYTES_MAX: usize = 120;
/// Longest id of a session, in bytes: it is kept in the checkpoint.
const SESSION_BYTES_MAX: usize = 1024;
/// The id of our first request.
const INITIALIZE: i64 = 1;
/// The members of a checkpoint: the session, and what it had cost.
const SESSION: &str = "acp_session";
const SESSION_USD: &str = "acp_usd";

/// Why nothing more is read.
enum Stop {
    Gone,
    /// Something that must not be.
    Wrong(Said),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

fn wrong(code: &str, message: impl Into<String>) -> Stop {
    Stop::Wrong(error(code, clip(message.into(), TEXT_BYTES_MAX), false))
}

/// Which request of ours is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Initialize,
    Load,
    New,
    Prompt,
    /// None: the last word was said.
    Over,
}

/// The client's side of one session.
struct Client<'a> {
    conversation: &'a mut Conversation,
    permissions: Permissions,
    /// What was handed over with the task, as it lies in the workspace.
    handed: Vec<Value>,
    phase: Phase,
    /// The id of our last request.
    request: i64,
    session: Option<SessionId>,
    /// Whether the agent can take a session up again.
    loads: bool,
    /// Whether this one was.
    resumed: bool,
    updates: Updates,
    wishes: VecDeque<Wish>,
    /// What people said, for the next turns.
    letters: VecDeque<Letter>,
    /// The letters of the turn that is under way.
    read: Vec<String>,
    /// Files that it made.
    made: Vec<PathBuf>,
    /// The turn was cancelled so that the next letter is read.
    interrupted: bool,
    last: Option<Said>,
    cancelled: bool,
    /// The number of the line that is dealt with.
    line: u64,
}

/// Our first request: what the runner is, and what it offers. What is denied is not offered either.
pub(super) fn initialize(permissions: Permissions) -> Vec<u8> {
    let offered = |permission| permission != Permission::Deny;
    let files = FileSystemCapabilities::new().read_text_file(offered(permissions.read)).write_text_file(offered(permissions.edit));
    let capabilities = ClientCapabilities::new().fs(files).terminal(offered(permissions.execute));
    let request = InitializeRequest::new(ProtocolVersion::V1)
        .client_capabilities(capabilities)
        .client_info(Implementation::new("fte", env!("CARGO_PKG_VERSION")));
    rpc::request(INITIALIZE, AGENT_METHOD_NAMES.initialize, &request)
}

pub(super) async fn talk(conversation: &mut Conversation, permissions: Permissions) -> Result<Said, Gone> {
    let handed = match handed::over(conversation).await {
        Ok(handed) => handed,
        Err(wrong) => return Ok(wrong),
    };
    let kept = conversation.start.checkpoint.as_ref();
    let session = kept.and_then(|kept| kept.get(SESSION)).and_then(Value::as_str).map(|id| SessionId::new(id.to_owned()));
    let usd = kept.and_then(|kept| kept.get(SESSION_USD)).and_then(Value::as_f64).filter(|_| session.is_some()).unwrap_or(0.0);
    let client = Client {
        conversation,
        permissions,
        handed,
        phase: Phase::Initialize,
        request: INITIALIZE,
        session,
        loads: false,
        resumed: false,
        updates: Updates::new(usd),
        wishes: VecDeque::new(),
        letters: VecDeque::new(),
        read: Vec::new(),
        made: Vec::new(),
        interrupted: false,
        last: None,
        cancelled: false,
        line: 0,
    };
    client.run().await
}

impl Client<'_> {
    async fn run(mut self) -> Result<Said, Gone> {
        if self.conversation.ahead {
            // It was asked when it was started. That its task had to be laid out first is no silence of its own.
            self.conversation.program.may_be_silent(false);
        } else {
            self.conversation.program.write(&initialize(self.permissions));
        }
        let mut lines = Lines::new(self.conversation.shared.limits.message_bytes_max);
        let status = loop {
            // What is in hand comes first, and waits while the agent does not read its answers.
            let full = self.conversation.program.is_full();
            let line = if full { Ok(None) } else { lines.next_line() };
            match line {
                Ok(Some(line)) => {
                    self.line += 1;
                    match self.hear(&line).await {
                        Ok(()) => {}
                        Err(Stop::Gone) => return Err(Gone),
                        Err(Stop::Wrong(said)) => return self.ended_by(said).await,
                    }
                    continue;
                }
                Ok(None) => {}
                Err(too_long) => {
                    let said = error("line_too_long", format!("line {}: {too_long}", self.line + 1), false);
                    return self.ended_by(said).await;
                }
            }
            let Conversation { program, terminals, told, .. } = &mut *self.conversation;
            let happening = tokio::select! {
                biased;
                (waiting, exit) = terminals.next_end(), if !full => {
                    waiting.into_iter().for_each(|id| program.write(&rpc::response(id, Ok(exit.clone()))));
                    continue;
                }
                happening = program.next(told) => happening,
            };
            match happening {
                Happening::Output(chunk) => lines.push(&chunk),
                // It hands nothing off: its protocol has no word for it.
                Happening::Drained | Happening::Told(Tell::Reply { .. }) => {}
                Happening::Told(Tell::Decision { approved, .. }) => self.decided(approved).await?,
                Happening::Told(Tell::Message { id, text, data, interrupt }) => self.letter(Letter { id, text, data }, interrupt),
                Happening::Told(Tell::Cancel) => self.cancel(),
                Happening::Flood => {
                    let said = flood(self.conversation.agent.talk, &self.conversation.shared);
                    return self.ended_by(said).await;
                }
                Happening::DiskFull => {
                    let said = disk_full(&self.conversation.agent);
                    return self.ended_by(said).await;
                }
                // It waits for a command that it has run here, not we for it.
                Happening::Silent if self.conversation.terminals.are_awaited() => self.conversation.program.may_be_silent(false),
                Happening::Silent => {
                    let said = silent(&self.conversation.agent);
                    return self.ended_by(said).await;
                }
                Happening::Ended(status) => break status,
            }
        };
        // A last line may lack its end, unless it was cut off with the program; then it says nothing.
        let rest = lines.rest();
        if self.last.is_none() && rpc::read(&rest).is_ok() {
            self.line += 1;
            match self.hear(&rest).await {
                Ok(()) => {}
                Err(Stop::Gone) => return Err(Gone),
                Err(Stop::Wrong(said)) => return Ok(said),
            }
        }
        self.forget_session().await?;
        let Conversation { agent, program, .. } = &*self.conversation;
        let words = format!("{} {} without a result{}", agent.name, program.in_words(status), program.last_words(": "));
        let (code, retryable) = match () {
            () if self.cancelled => ("cancelled", false),
            () if program.out_of_memory() => ("memory_exceeded", false),
            () => ("agent_crashed", true),
        };
        Ok(self.last.unwrap_or_else(|| error(code, clip(words, TEXT_BYTES_MAX), retryable)))
    }

    /// The last word where there is one: what is said after it cannot undo it, but for a second one. Else what went wrong.
    async fn ended_by(mut self, said: Said) -> Result<Said, Gone> {
        self.forget_session().await?;
        Ok(match &said {
            Said::Error { code, .. } if code == "result_twice" => said,
            _ => self.last.unwrap_or(said),
        })
    }

    /// Who ends or falls silent over the session of before would do so again: the next start begins anew.
    async fn forget_session(&mut self) -> Result<(), Gone> {
        if self.phase == Phase::Load && !self.cancelled {
            self.say([Said::Checkpoint(Value::Null)]).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, line: &[u8]) -> Result<(), Stop> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        match rpc::read(line) {
            Ok(Message::Request { id, method, params }) => self.requested(id, &method, params).await,
            Ok(Message::Notification { method, params }) if method == CLIENT_METHOD_NAMES.session_update => self.update(params).await,
            // As the protocol has it, what is not known is not heard.
            Ok(Message::Notification { .. }) => Ok(()),
            Ok(Message::Response { id, outcome }) => self.answered(&id, outcome).await,
            Err(bad) => {
                let quote = clip(self.conversation.program.quotable(String::from_utf8_lossy(line)), QUOTE_BYTES_MAX);
                Err(wrong("bad_message", format!("line {} is {bad}: {quote}", self.line)))
            }
        }
    }

    fn ask(&mut self, phase: Phase, method: &str, params: &impl Serialize) {
        self.request += 1;
        self.phase = phase;
        self.conversation.program.write(&rpc::request(self.request, method, params));
    }

    fn respond<T: Serialize>(&mut self, id: RequestId, outcome: Result<T, Error>) {
        self.conversation.program.write(&rpc::response(id, outcome));
    }

    async fn say(&self, said: impl IntoIterator<Item = Said>) -> Result<(), Gone> {
        for word in said {
            say(&self.conversation.said, word).await?;
        }
        Ok(())
    }

    /// An answer to the open request, or to none.
    async fn answered(&mut self, id: &RequestId, outcome: Result<Value, Error>) -> Result<(), Stop> {
        let ours = *id == RequestId::Number(self.request);
        match (self.phase, outcome) {
            (Phase::Over, _) if ours => Err(wrong("result_twice", format!("line {}: the prompt was answered already", self.line))),
            _ if !ours || self.phase == Phase::Over => {
                let id = clip(self.conversation.program.quotable(id.to_string()), QUOTE_BYTES_MAX);
                Err(wrong("response_unexpected", format!("line {}: nothing was asked that {id} answers", self.line)))
            }
            (Phase::Initialize, Ok(result)) => {
                let response: InitializeResponse = self.read("initialize", result)?;
                self.initialized(&response)
            }
            (Phase::Load, Ok(_)) => {
                self.resumed = true;
                self.prompt().await
            }
            (Phase::Load, Err(failed)) => {
                let line = format!("the session of before cannot be taken up again, a new one begins: {}", failed.message);
                self.say([Said::Log(clip(self.conversation.program.quotable(line), TEXT_BYTES_MAX))]).await?;
                self.updates = Updates::default();
                self.open()
            }
            (Phase::New, Ok(result)) => {
                let response: NewSessionResponse = self.read("session/new", result)?;
                if response.session_id.0.len() > SESSION_BYTES_MAX {
                    return Err(wrong("bad_message", format!("line {}: a session's id has at most {SESSION_BYTES_MAX} bytes", self.line)));
                }
                self.session = Some(response.session_id);
                self.keep().await?;
                self.prompt().await
            }
            (Phase::Prompt, Ok(result)) => {
                let response: PromptResponse = self.read("session/prompt", result)?;
                self.turn_over(&response).await
            }
            (phase, Err(failed)) => {
                let method = match phase {
                    Phase::Initialize => "initialize",
                    Phase::New => "session/new",
                    _ => "session/prompt",
                };
                self.last_word(refused(method, &failed, &self.conversation.program));
                Ok(())
            }
            (Phase::Over, Ok(_)) => Ok(()),
        }
    }

    /// What answers a request of ours.
    fn read<T: DeserializeOwned>(&self, method: &str, result: Value) -> Result<T, Stop> {
        T::deserialize(result).map_err(|error| wrong("bad_message", format!("line {} is no valid answer to {method}: {error}", self.line)))
    }

    fn initialized(&mut self, response: &InitializeResponse) -> Result<(), Stop> {
        if response.protocol_version != ProtocolVersion::V1 {
            let version = response.protocol_version;
            let words =
                format!("the agent speaks version {version} of the Agent Client Protocol; this runner speaks {}", ProtocolVersion::V1);
            return Err(wrong("protocol_unsupported", words));
        }
        self.loads = response.agent_capabilities.load_session;
        match &self.session {
            Some(session) if self.loads => {
                let request = LoadSessionRequest::new(session.clone(), self.workspace()?);
                self.ask(Phase::Load, AGENT_METHOD_NAMES.session_load, &request);
                Ok(())
            }
            _ => {
                self.updates = Updates::default();
                self.open()
            }
        }
    }

    fn open(&mut self) -> Result<(), Stop> {
        self.session = None;
        let request = NewSessionRequest::new(self.workspace()?);
        self.ask(Phase::New, AGENT_METHOD_NAMES.session_new, &request);
        Ok(())
    }

    /// Keeps what a session can be taken up again by, if it can.
    async fn keep(&self) -> Result<(), Gone> {
        let Some(session) = self.session.as_ref().filter(|_| self.loads) else { return Ok(()) };
        let mut kept = json!({ SESSION: session });
        if self.updates.usd() > 0.0 {
            kept[SESSION_USD] = json!(self.updates.usd());
        }
        self.say([Said::Checkpoint(kept)]).await
    }

    async fn prompt(&mut self) -> Result<(), Stop> {
        let Some(session) = self.session.clone() else { return Ok(()) };
        let prompt = prompt(&self.conversation.start, self.resumed, &self.handed, &self.workspace()?);
        let request = PromptRequest::new(session, prompt);
        self.ask(Phase::Prompt, AGENT_METHOD_NAMES.session_prompt, &request);
        Ok(())
    }

    /// The prompt was answered: what the agent said is the result, or why there is none.
    async fn turn_over(&mut self, response: &PromptResponse) -> Result<(), Stop> {
        let tokens = Updates::spent(response);
        self.say(tokens.map(Said::Tokens)).await?;
        let tokens = self.updates.tokens(response);
        self.say(tokens).await?;
        let usd = self.updates.usd();
        let (said, text) = std::mem::replace(&mut self.updates, Updates::new(usd)).finish();
        self.say(said).await?;
        if self.next_turn(response.stop_reason).await? {
            return Ok(());
        }
        self.keep_made().await?;
        let text = Value::String(text);
        let word = match response.stop_reason {
            StopReason::EndTurn if json_bytes(&text) > self.conversation.shared.limits.data_bytes_max => {
                result_too_large(&self.conversation.shared)
            }
            StopReason::EndTurn => Said::Result(text),
            StopReason::MaxTokens => error("max_tokens", "the agent reached its limit of tokens before it was done", false),
            StopReason::MaxTurnRequests => error("max_turn_requests", "the agent reached its limit of requests before it was done", false),
            StopReason::Refusal => {
                error("refusal", clip(format!("the agent refused: {}", text.as_str().unwrap_or_default()), TEXT_BYTES_MAX), false)
            }
            StopReason::Cancelled => error("cancelled", "the agent stopped because it was cancelled", false),
            _ => error("bad_message", format!("line {}: a reason to stop that this runner does not know", self.line), false),
        };
        self.last_word(word);
        Ok(())
    }

    fn last_word(&mut self, word: Said) {
        self.phase = Phase::Over;
        self.last = Some(word);
        self.wishes.clear();
        self.conversation.program.close_stdin();
        self.conversation.program.let_leave();
    }

    async fn update(&mut self, params: Value) -> Result<(), Stop> {
        let kind = params.get("update").and_then(|update| update.get("sessionUpdate")).and_then(Value::as_str).map(str::to_owned);
        let notification = match SessionNotification::deserialize(&params) {
            Ok(notification) => notification,
            // A later version may tell more.
            Err(_) if kind.is_some_and(|kind| !is_known_update(&kind)) => return Ok(()),
            Err(error) => return Err(wrong("bad_message", format!("line {} is no valid session/update: {error}", self.line))),
        };
        match self.phase {
            Phase::Initialize => Err(wrong("session_unknown", format!("line {}: an update of a session before there is any", self.line))),
            // The answer that names it is on its way.
            Phase::New => Ok(()),
            // What was before is told once more.
            Phase::Load => self.is_ours(&notification.session_id),
            Phase::Prompt => {
                self.is_ours(&notification.session_id)?;
                let limit = self.conversation.shared.limits.data_bytes_max;
                let before = self.updates.usd();
                self.saw_changes(&notification.update);
                match self.updates.hear(notification.update, limit) {
                    Ok(said) => self.say(said).await?,
                    Err(updates::TooMuchText) => return Err(Stop::Wrong(result_too_large(&self.conversation.shared))),
                }
                if self.updates.usd() > before {
                    self.keep().await?;
                }
                Ok(())
            }
            Phase::Over => {
                let said = self.updates.hear_late(notification.update);
                Ok(self.say(said).await?)
            }
        }
    }

    fn is_ours(&self, session: &SessionId) -> Result<(), Stop> {
        if self.session.as_ref() == Some(session) {
            return Ok(());
        }
        let id = clip(session.to_string(), NAME_BYTES_MAX);
        Err(wrong("session_unknown", format!("line {}: there is no session {id}", self.line)))
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        if let Some(session) = self.session.clone().filter(|_| self.phase == Phase::Prompt) {
            let line = rpc::notification(AGENT_METHOD_NAMES.session_cancel, &CancelNotification::new(session));
            self.conversation.program.write(&line);
        }
        for wish in std::mem::take(&mut self.wishes) {
            self.respond(wish.id, Ok(Answers::cancelled()));
        }
        let grace = self.conversation.shared.limits.grace;
        self.conversation.program.end_after(grace, grace);
    }

    fn workspace(&self) -> Result<PathBuf, Stop> {
        let workspace = self.conversation.program.workspace().map(|workspace| workspace.path().to_owned());
        workspace.ok_or_else(|| wrong("agent_crashed", "the workspace is gone"))
    }
}

/// What the agent is asked to do.
fn prompt(start: &Start, resumed: bool, handed: &[Value], workspace: &Path) -> Vec<ContentBlock> {
    let text = |text: String| ContentBlock::Text(TextContent::new(text));
    let mut blocks = Vec::new();
    if resumed {
        let words = "This session was interrupted and goes on now, in a new and empty working directory. Continue with the task where you were; \
                     if a tool call waited for permission, make the same call again. The task was:";
        blocks.push(text(words.to_owned()));
    }
    blocks.push(text(start.task.clone()));
    if !start.context.is_empty() {
        let context = serde_json::to_string_pretty(&start.context).unwrap_or_default();
        blocks.push(text(format!("Context of the task, as JSON:\n{context}")));
    }
    if let Some(handoff) = wire::handoff(start, handed) {
        let handoff = serde_json::to_string_pretty(&handoff).unwrap_or_default();
        blocks.push(text(format!("Who handed the task over, and which files of the working directory came with it, as JSON:\n{handoff}")));
    }
    blocks.extend(handed.iter().filter_map(|artifact| link(artifact, workspace)).map(ContentBlock::ResourceLink));
    blocks
}

/// A file that was handed over, by its address.
fn link(artifact: &Value, workspace: &Path) -> Option<ResourceLink> {
    let path = workspace.join(artifact.get("path")?.as_str()?);
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    let text = |key: &str| artifact.get(key).and_then(Value::as_str).map(str::to_owned);
    let size = artifact.get("size_bytes").and_then(Value::as_i64);
    Some(ResourceLink::new(text("name")?, uri).mime_type(text("content_type")).size(size))
}

/// A request of ours was answered by an error.
fn refused(method: &str, failed: &Error, program: &Program) -> Said {
    let detail = failed.data.as_ref().map(|data| format!(": {data}")).unwrap_or_default();
    let words =
        program.quotable(format!("the agent answered {method} with the error {} {}{detail}", i32::from(failed.code), failed.message));
    match failed.code {
        ErrorCode::AuthRequired => {
            let advice = "; log in by its own means beforehand, or pass on the variable with its key by env";
            error("auth_required", clip(format!("{words}{advice}"), TEXT_BYTES_MAX), false)
        }
        // An agent's provider that is busy, for one.
        ErrorCode::InternalError => error("agent_failed", clip(words, TEXT_BYTES_MAX), true),
        _ => error("agent_failed", clip(words, TEXT_BYTES_MAX), false),
    }
}

/// Updates whose form this runner knows; of these a bad form is an error.
fn is_known_update(kind: &str) -> bool {
    let known = [
        "user_message_chunk",
        "agent_message_chunk",
        "agent_thought_chunk",
        "tool_call",
        "tool_call_update",
        "plan",
        "available_commands_update",
        "current_mode_update",
        "config_option_update",
        "session_info_update",
        "usage_update",
    ];
    known.contains(&kind)
}
