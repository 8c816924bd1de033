//! The JSON-RPC binding of A2A 1.0: the card that says where it is, and its calls.
//!
//! Of the bindings this is the one that is spoken here; every official SDK serves it. An agent that offers only others (`HTTP+JSON`, `GRPC`), another
//! version, or extensions that it cannot do without is refused by what its card says, before it gets a task.

use std::sync::Arc;
use std::time::Duration;

use a2a::{
    AgentCard, CancelTaskRequest, GetTaskRequest, JsonRpcId, JsonRpcRequest, JsonRpcResponse, Message, SendMessageConfiguration,
    SendMessageRequest, SendMessageResponse, StreamResponse, SubscribeToTaskRequest, TRANSPORT_PROTOCOL_JSONRPC, Task, VERSION, error_code,
    methods,
};
use fte_bus::json;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::agents::http::HttpAgent;
use crate::agents::http::address::{card, follow};
use crate::agents::http::client::{Answer, Ask, Meter};
use crate::agents::http::sse::Events;
use crate::agents::http::trouble::Trouble;
use crate::agents::limits::clip;

/// So much of what cannot be read is quoted.
const QUOTE_BYTES_MAX: usize = 120;
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// Versions of the protocol that are this one: patches say nothing about the wire.
const PATCHES: &str = "1.0.";

/// One interface of one agent.
#[derive(Clone)]
pub(super) struct Rpc {
    agent: Arc<HttpAgent>,
    meter: Arc<Meter>,
    url: Uri,
    tenant: Option<String>,
    pub(super) streaming: bool,
}

/// The events of a task, as they come.
pub(super) struct Stream {
    events: Events,
}

impl Rpc {
    /// What went wrong, for the log.
    pub(super) fn clean(&self, trouble: &Trouble) -> String {
        self.agent.client.clean(trouble.to_string())
    }

    /// Reads the card, and picks the interface that is spoken here.
    pub(super) async fn connect(agent: Arc<HttpAgent>, meter: Arc<Meter>) -> Result<Self, Trouble> {
        let at = card(&agent.http.url).ok_or_else(|| Trouble::Bad("the url has no place for a card".to_owned()))?;
        let within = agent.client.limits.answer;
        let ask = Ask { method: Method::GET, url: &at, headers: service(), body: None, accept: JSON, within };
        let answer = agent.client.ask(ask, &meter).await?;
        if !answer.status.is_success() {
            return Err(match answer.refusal().await {
                Trouble::Status { status, detail, retry_after } => {
                    Trouble::Status { status, detail: format!(" for its card, {at}{detail}"), retry_after }
                }
                other => other,
            });
        }
        let body = answer.body.whole(agent.client.limits.answer_bytes_max).await?;
        let card = read_card(&body)?;
        let spoken = |version: &str| version == VERSION || version.starts_with(PATCHES);
        let interfaces = &card.supported_interfaces;
        let interface = interfaces.iter().find(|interface| {
            interface.protocol_binding.eq_ignore_ascii_case(TRANSPORT_PROTOCOL_JSONRPC) && spoken(&interface.protocol_version)
        });
        let Some(interface) = interface else {
            let offers: Vec<String> =
                interfaces.iter().map(|offer| format!("{} {}", offer.protocol_binding, offer.protocol_version)).collect();
            let offers = clip(offers.join(", "), QUOTE_BYTES_MAX);
            return Err(Trouble::Unsupported(format!("the agent offers {offers}; this runner speaks JSONRPC {VERSION}")));
        };
        let needed = card.capabilities.extensions.iter().flatten().find(|extension| extension.required == Some(true));
        if let Some(extension) = needed {
            let uri = clip(extension.uri.clone(), QUOTE_BYTES_MAX);
            return Err(Trouble::Unsupported(format!("the agent needs the extension {uri}, which this runner does not know")));
        }
        let url = follow(&agent.http.url, &interface.url, "the card")?;
        let tenant = interface.tenant.clone().filter(|tenant| !tenant.is_empty());
        Ok(Self { agent, meter, url, tenant, streaming: card.capabilities.streaming == Some(true) })
    }

    /// From now on what comes is counted there.
    pub(super) fn measure_by(&mut self, meter: Arc<Meter>) {
        self.meter = meter;
    }

    /// Sends a message, and waits for what the agent says to it at once.
    pub(super) async fn send(&self, message: Message) -> Result<SendMessageResponse, Trouble> {
        // An agent that answers with a message and no task works before it answers.
        let sent = self.call(methods::SEND_MESSAGE, &self.request(message), self.agent.patience).await;
        sent.map_err(|trouble| if let Trouble::NoAnswer { within, .. } = trouble { Trouble::Silent(within) } else { trouble })
    }

    /// Sends a message, and listens to what becomes of it.
    pub(super) async fn send_streaming(&self, message: Message) -> Result<Stream, Trouble> {
        self.listen(methods::SEND_STREAMING_MESSAGE, &self.request(message)).await
    }

    /// Asks for a task.
    pub(super) async fn task(&self, id: &str) -> Result<Task, Trouble> {
        let request = GetTaskRequest { id: id.to_owned(), history_length: Some(0), tenant: self.tenant.clone() };
        self.call(methods::GET_TASK, &request, self.agent.client.limits.answer).await
    }

    /// Listens to a task, from its present state on.
    pub(super) async fn subscribe(&self, id: &str) -> Result<Stream, Trouble> {
        self.listen(methods::SUBSCRIBE_TO_TASK, &SubscribeToTaskRequest { id: id.to_owned(), tenant: self.tenant.clone() }).await
    }

    /// Ends a task. What it says to that does not matter any more.
    pub(super) async fn cancel(&self, id: &str) -> Result<Value, Trouble> {
        let request = CancelTaskRequest { id: id.to_owned(), metadata: None, tenant: self.tenant.clone() };
        self.call(methods::CANCEL_TASK, &request, self.agent.client.limits.answer).await
    }

    fn request(&self, message: Message) -> SendMessageRequest {
        let configuration = SendMessageConfiguration {
            accepted_output_modes: None,
            task_push_notification_config: None,
            history_length: Some(0),
            return_immediately: Some(true),
        };
        SendMessageRequest { message, configuration: Some(configuration), metadata: None, tenant: self.tenant.clone() }
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, params: &impl Serialize, within: Duration) -> Result<T, Trouble> {
        let answer = self.ask(method, params, JSON, within).await?;
        let body = answer.body.whole(self.agent.client.limits.answer_bytes_max).await?;
        read(&body)
    }

    async fn listen(&self, method: &str, params: &impl Serialize) -> Result<Stream, Trouble> {
        let answer = self.ask(method, params, EVENTS, self.agent.client.limits.answer).await?;
        let bytes_max = self.agent.client.limits.answer_bytes_max;
        if answer.media() == EVENTS {
            return Ok(Stream { events: Events::new(answer.body, bytes_max) });
        }
        let (media, body) = (answer.media(), answer.body.whole(bytes_max).await?);
        // An error is answered as such; anything else should have been a stream.
        read::<Value>(&body)?;
        Err(Trouble::Bad(format!("{media} instead of a stream of events")))
    }

    async fn ask(&self, method: &str, params: &impl Serialize, accept: &'static str, within: Duration) -> Result<Answer, Trouble> {
        let failed = |error: serde_json::Error| Trouble::Bad(error.to_string());
        let request = JsonRpcRequest::new(JsonRpcId::Number(1), method, Some(serde_json::to_value(params).map_err(failed)?));
        let body = Some(serde_json::to_vec(&request).map_err(failed)?);
        let ask = Ask { method: Method::POST, url: &self.url, headers: service(), body, accept, within };
        let answer = self.agent.client.ask(ask, &self.meter).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.refusal().await) }
    }
}

impl Stream {
    /// The next event; nothing at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<StreamResponse>, Trouble> {
        match self.events.next().await? {
            Some(data) => read(&data).map(Some),
            None => Ok(None),
        }
    }
}

fn service() -> Vec<(HeaderName, HeaderValue)> {
    vec![(HeaderName::from_static("a2a-version"), HeaderValue::from_static(VERSION))]
}

fn read_card(body: &[u8]) -> Result<AgentCard, Trouble> {
    let card: Value = json::from_slice(body, json::DEPTH_MAX).map_err(|error| bad("a card", &error, body))?;
    // Before 1.0 a card said its one version itself.
    if card.get("supportedInterfaces").is_none()
        && let Some(version) = card.get("protocolVersion").and_then(Value::as_str)
    {
        let version = clip(version.to_owned(), QUOTE_BYTES_MAX);
        return Err(Trouble::Unsupported(format!("the agent speaks A2A {version}; this runner speaks {VERSION}")));
    }
    serde_json::from_value(card).map_err(|error| bad("a card", &error, body))
}

/// Reads an answer and its result.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Trouble> {
    let answer: JsonRpcResponse = json::from_slice(body, json::DEPTH_MAX).map_err(|error| bad("an answer", &error, body))?;
    // An error about a request that could not be read has no id.
    let ours = answer.id == JsonRpcId::Number(1) || (answer.error.is_some() && answer.id == JsonRpcId::Null);
    if answer.jsonrpc != "2.0" || !ours {
        return Err(Trouble::Bad(format!("an answer to another question: {}", quoted(body))));
    }
    if let Some(error) = answer.error {
        let message = clip(error.message, 1024);
        return Err(match error.code {
            error_code::TASK_NOT_FOUND => Trouble::Forgotten(message),
            error_code::VERSION_NOT_SUPPORTED => Trouble::Unsupported(message),
            code => Trouble::Rpc { code, message },
        });
    }
    let result = answer.result.ok_or_else(|| Trouble::Bad(format!("neither a result nor an error: {}", quoted(body))))?;
    T::deserialize(result).map_err(|error| bad("a result", &error, body))
}

fn bad(what: &str, error: &serde_json::Error, body: &[u8]) -> Trouble {
    Trouble::Bad(format!("no valid JSON of {what} ({error}): {}", quoted(body)))
}

fn quoted(body: &[u8]) -> String {
    clip(String::from_utf8_lossy(&body[..body.len().min(QUOTE_BYTES_MAX * 2)]).into_owned(), QUOTE_BYTES_MAX)
}
