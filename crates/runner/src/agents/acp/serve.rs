//! What the agent asks for: permissions, files, terminals.
//!
//! Always true: each request is answered once, at once or when what it waits for has happened; what is asked in a bad form, or may not be had, is answered with
//! an error, and the agent may go on. Only a session that is not this one ends it.

use std::sync::Arc;

use agent_client_protocol_schema::v1::{
    CLIENT_METHOD_NAMES, CreateTerminalResponse, Error, ErrorCode, KillTerminalRequest, KillTerminalResponse, ReadTextFileRequest,
    ReleaseTerminalRequest, ReleaseTerminalResponse, RequestId, RequestPermissionRequest, SessionId, TerminalOutputRequest,
    WaitForTerminalExitRequest, WriteTextFileRequest,
};
use fte_service::agents::Permission;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, clip};
use super::super::session::{Conversation, Gone};
use super::permission::{self, Answers, Wish};
use super::terminals::Ground;
use super::{Client, Phase, Stop, files, updates, wrong};

/// Wishes that wait for a person at a time.
const WISHES_MAX: usize = 32;

impl Client<'_> {
    /// The agent asks for something.
    pub(super) async fn requested(&mut self, id: RequestId, method: &str, params: Value) -> Result<(), Stop> {
        let names = &CLIENT_METHOD_NAMES;
        if self.phase == Phase::Over {
            // It cannot be answered any more.
            return Ok(());
        }
        let permission = match method {
            _ if method == names.session_request_permission => None,
            _ if method == names.fs_read_text_file => Some(self.permissions.read),
            _ if method == names.fs_write_text_file => Some(self.permissions.edit),
            _ if method.starts_with("terminal/") => Some(self.permissions.execute),
            _ => {
                self.respond::<()>(id, Err(Error::method_not_found()));
                return Ok(());
            }
        };
        let session = params.get("sessionId").and_then(Value::as_str).map(|id| SessionId::new(id.to_owned()));
        match session {
            Some(session) if matches!(self.phase, Phase::Load | Phase::Prompt) => self.is_ours(&session)?,
            Some(session) => {
                let session = clip(session.to_string(), NAME_BYTES_MAX);
                return Err(wrong("session_unknown", format!("line {}: there is no session {session} yet", self.line)));
            }
            None => {
                self.respond::<()>(id, Err(invalid("sessionId is missing")));
                return Ok(());
            }
        }
        if permission == Some(Permission::Deny) {
            self.respond::<()>(id, Err(Error::method_not_found().data("the configuration of this agent denies it")));
            return Ok(());
        }
        let outcome = match method {
            _ if method == names.session_request_permission => self.wish(id.clone(), params).await?,
            _ if method == names.fs_read_text_file => self.read_file(params).await,
            _ if method == names.fs_write_text_file => self.write_file(params).await,
            _ => self.terminal(&id, method, params).await,
        };
        match outcome {
            Ok(Some(result)) => self.respond(id, Ok(result)),
            Ok(None) => {}
            Err(failed) => self.respond::<()>(id, Err(failed)),
        }
        Ok(())
    }

    async fn read_file(&self, params: Value) -> Result<Option<Value>, Error> {
        let request: ReadTextFileRequest = parsed(params)?;
        let (workspace, limits) = (self.workspace().map_err(|_| gone())?, self.conversation.shared.limits.clone());
        let read = move || files::read(&workspace, &request, limits.file_bytes_max, limits.artifact_bytes_max);
        tokio::task::spawn_blocking(read).await.map_err(|_| gone())?.and_then(|response| value(&response))
    }

    async fn write_file(&mut self, params: Value) -> Result<Option<Value>, Error> {
        let request: WriteTextFileRequest = parsed(params)?;
        let (workspace, limits) = (self.workspace().map_err(|_| gone())?, self.conversation.shared.limits.clone());
        let path = request.path.clone();
        let write = move || files::write(&workspace, &request, limits.file_bytes_max);
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| gone())??;
        self.wrote(&path);
        value(&written)
    }

    /// A request about terminals; nothing where it is answered later.
    async fn terminal(&mut self, id: &RequestId, method: &str, params: Value) -> Result<Option<Value>, Error> {
        let names = &CLIENT_METHOD_NAMES;
        let workspace = self.workspace().map_err(|_| gone())?;
        let Conversation { agent, shared, terminals, said, .. } = &mut *self.conversation;
        match method {
            _ if method == names.terminal_create => {
                let ground = Ground { agent: Arc::clone(agent), shared: Arc::clone(shared), workspace, said: said.clone() };
                let created = terminals.create(parsed(params)?, ground).await?;
                value(&CreateTerminalResponse::new(created))
            }
            _ if method == names.terminal_output => {
                let request: TerminalOutputRequest = parsed(params)?;
                value(&terminals.output(&request.terminal_id)?)
            }
            _ if method == names.terminal_wait_for_exit => {
                let request: WaitForTerminalExitRequest = parsed(params)?;
                match terminals.wait(&request.terminal_id, id)? {
                    Some(response) => value(&response),
                    None => Ok(None),
                }
            }
            _ if method == names.terminal_kill => {
                let request: KillTerminalRequest = parsed(params)?;
                terminals.kill(&request.terminal_id)?;
                value(&KillTerminalResponse::new())
            }
            _ if method == names.terminal_release => {
                let request: ReleaseTerminalRequest = parsed(params)?;
                let waiting = terminals.release(&request.terminal_id)?;
                waiting.into_iter().for_each(|id| self.respond::<()>(id, Err(invalid("the terminal was released"))));
                value(&ReleaseTerminalResponse::new())
            }
            _ => Err(Error::method_not_found()),
        }
    }

    /// The agent asks whether it may use a tool.
    async fn wish(&mut self, id: RequestId, params: Value) -> Result<Result<Option<Value>, Error>, Stop> {
        let request: RequestPermissionRequest = match parsed(params) {
            Ok(request) => request,
            Err(failed) => return Ok(Err(failed)),
        };
        if self.cancelled {
            return Ok(value(&Answers::cancelled()));
        }
        let fields = request.tool_call.fields;
        let mut tool = self.updates.known(&request.tool_call.tool_call_id);
        tool.kind = fields.kind.unwrap_or(tool.kind);
        tool.title = fields.title.clone().map_or(tool.title, updates::title);
        let answers = Answers::of(&request.options);
        let allowed = match permission::policy(&self.permissions, tool.kind) {
            Permission::Allow => true,
            Permission::Deny => false,
            Permission::Ask if self.wishes.len() >= WISHES_MAX => {
                return Ok(Err(invalid(format!("{WISHES_MAX} questions wait for a person already"))));
            }
            Permission::Ask => {
                // Its workspace may go while a person decides.
                self.keep_made().await?;
                self.wishes.push_back(Wish { id, answers, question: Some(permission::question(&tool, &fields)) });
                self.put_question().await?;
                return Ok(Ok(None));
            }
        };
        self.say([permission::answered(allowed, &tool)]).await?;
        Ok(value(&answers.answer(allowed)))
    }

    /// Asks a person what the first wish in line waits for. One question at a time.
    pub(super) async fn put_question(&mut self) -> Result<(), Gone> {
        let question = self.wishes.front_mut().and_then(|wish| wish.question.take());
        if let Some(question) = question {
            self.say([question]).await?;
            self.conversation.program.may_be_silent(true);
        }
        Ok(())
    }

    /// A person decided.
    pub(super) async fn decided(&mut self, approved: bool) -> Result<(), Gone> {
        let Some(wish) = self.wishes.pop_front_if(|wish| wish.question.is_none()) else { return Ok(()) };
        self.respond(wish.id, Ok(wish.answers.answer(approved)));
        self.conversation.program.may_be_silent(false);
        self.put_question().await
    }
}

fn parsed<T: DeserializeOwned>(params: Value) -> Result<T, Error> {
    T::deserialize(params).map_err(|error| invalid(error.to_string()))
}

fn invalid(words: impl Into<String>) -> Error {
    Error::new(i32::from(ErrorCode::InvalidParams), clip(words.into(), TEXT_BYTES_MAX))
}

fn gone() -> Error {
    Error::new(i32::from(ErrorCode::InternalError), "the workspace is gone")
}

fn value(response: &impl Serialize) -> Result<Option<Value>, Error> {
    serde_json::to_value(response).map(Some).map_err(|error| Error::new(i32::from(ErrorCode::InternalError), error.to_string()))
}
