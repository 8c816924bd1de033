//! Agents of kind `http`: they run elsewhere and are spoken to by A2A ([`a2a`]) or by plain POST ([`post`]).
//!
//! Always true: a word of the runner (a decision, a cancel, the end of the session) is heard at every wait; what runs elsewhere is cancelled there when the
//! task is over for us (cancelled, rejected, refused by us), and left alone when it may go on (parked, taken over, an attempt that may be made again). That
//! is why a session tells of its end by its words and not by being dropped: a drop alone cancels nothing.

mod a2a;
mod address;
mod client;
mod content;
mod limits;
mod post;
mod sse;
mod trouble;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use fte_service::agents::{Agent, Http, HttpProtocol};
use fte_service::{ConfigError, Env};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub use self::limits::HttpLimits;

use self::client::{Client, Meter};
use self::limits::Pace;
use self::trouble::Trouble;
use super::Shared;
use super::limits::CHANNEL;
use super::session::{error, say};
use crate::ports::{Said, Session, Start, Tell};

/// An agent that runs elsewhere.
pub(super) struct HttpAgent {
    http: Http,
    /// Longest wait for what takes work.
    patience: Duration,
    client: Client,
}

impl HttpAgent {
    /// Reads the agent's secrets.
    pub(super) fn new(name: &str, agent: &Agent, http: &Http, env: &impl Env, limits: &HttpLimits) -> Result<Self, ConfigError> {
        let client = Client::new(name, http, env, limits, client::trusted_roots())?;
        Ok(Self { http: http.clone(), patience: agent.silent.unwrap_or(agent.timeout), client })
    }

    /// The same agent at another host and port; nothing where that is none.
    pub(super) fn at(&self, authority: &str) -> Option<Self> {
        let mut parts = self.http.url.clone().into_parts();
        parts.authority = Some(authority.parse().ok()?);
        let http = Http { url: Uri::from_parts(parts).ok()?, ..self.http.clone() };
        let client = self.client.at(&http.url);
        Some(Self { http, patience: self.patience, client })
    }
}

/// Why the work stops before its end.
#[derive(Debug)]
enum Stop {
    Cancelled,
    /// A person said no, with these words.
    Rejected(Option<String>),
    /// Nobody listens any more.
    Gone,
}

/// Why the work goes no further.
#[derive(Debug)]
enum Break {
    Stop(Stop),
    Trouble(Trouble),
}

impl From<Stop> for Break {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Trouble> for Break {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Hears what the runner says.
struct Ears {
    told: mpsc::Receiver<Tell>,
    dropped: oneshot::Receiver<()>,
    /// What people said, not yet passed on.
    letters: VecDeque<Letter>,
}

/// A message to the agent.
struct Letter {
    id: String,
    text: String,
    data: Option<Value>,
}

impl Ears {
    /// The next word; a word that was said before the session was dropped comes before its end.
    async fn word(&mut self) -> Option<Tell> {
        tokio::select! {
            biased;
            told = self.told.recv() => told,
            _ = &mut self.dropped => None,
        }
    }

    /// Until the runner stops the work, or somebody has said something.
    async fn stop_or_letter(&mut self) -> Option<Stop> {
        loop {
            match self.word().await {
                Some(Tell::Cancel) => return Some(Stop::Cancelled),
                Some(Tell::Decision { approved: false, reason, .. }) => return Some(Stop::Rejected(reason)),
                // Nothing was asked.
                Some(Tell::Decision { approved: true, .. } | Tell::Reply { .. }) => {}
                Some(Tell::Message { id, text, data, .. }) => {
                    self.letters.push_back(Letter { id, text, data });
                    return None;
                }
                None => return Some(Stop::Gone),
            }
        }
    }

    async fn stop(&mut self) -> Stop {
        loop {
            if let Some(stop) = self.stop_or_letter().await {
                return stop;
            }
        }
    }

    /// Does the work unless the runner stops it, or somebody has said something: then nothing comes of it. It must lose nothing when it is dropped.
    async fn unless_said<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Stop> {
        if !self.letters.is_empty() {
            return Ok(None);
        }
        tokio::select! {
            biased;
            stop = self.stop_or_letter() => stop.map_or(Ok(None), Err),
            done = work => Ok(Some(done)),
        }
    }

    /// Does the work unless the runner stops it.
    async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.stop() => Err(stop),
            done = work => Ok(done),
        }
    }

    /// Waits for a yes: its words, and what was approved.
    async fn yes(&mut self) -> Result<(Option<String>, Option<Value>), Stop> {
        loop {
            match self.word().await {
                Some(Tell::Decision { approved: true, reason, data }) => return Ok((reason, data)),
                Some(Tell::Decision { approved: false, reason, .. }) => return Err(Stop::Rejected(reason)),
                Some(Tell::Message { id, text, data, .. }) => self.letters.push_back(Letter { id, text, data }),
                // It hands nothing off.
                Some(Tell::Cancel | Tell::Reply { .. }) => return Err(Stop::Cancelled),
                None => return Err(Stop::Gone),
            }
        }
    }
}

/// What runs elsewhere for this session.
enum Running {
    Task(a2a::Remote),
    Operation(post::Operation),
}

/// One session.
struct Call {
    agent: Arc<HttpAgent>,
    start: Start,
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    pace: Pace,
    said: mpsc::Sender<Said>,
    ears: Ears,
    running: Option<Running>,
    /// Artifacts that were kept.
    artifacts: u32,
}

pub(super) fn start(agent: Arc<HttpAgent>, start: Start, shared: Arc<Shared>) -> Session {
    let (said, hear) = mpsc::channel(CHANNEL);
    let (tell, told) = mpsc::channel(CHANNEL);
    let (held, dropped) = oneshot::channel::<()>();
    let (meter, pace) = (Meter::new(shared.limits.output_bytes_max), Pace::new(&shared.limits.http));
    let call = Call {
        agent,
        start,
        shared,
        meter,
        pace,
        said,
        ears: Ears { told, dropped, letters: VecDeque::new() },
        running: None,
        artifacts: 0,
    };
    tokio::spawn(call.run());
    Session { said: hear, tell, guard: Box::new(held) }
}

impl Call {
    async fn run(mut self) {
        let last = match self.agent.http.protocol {
            HttpProtocol::A2a => Box::pin(a2a::talk(&mut self)).await,
            HttpProtocol::Post => Box::pin(post::talk(&mut self)).await,
        };
        let (word, stop) = match last {
            Ok(word) => (Some(word), None),
            Err(Break::Trouble(trouble)) => {
                let over = !trouble.heals();
                (Some(trouble.said(|text| self.agent.client.clean(text))), over.then_some(Stop::Cancelled))
            }
            Err(Break::Stop(stop)) => (None, Some(stop)),
        };
        let told = word.is_none();
        let denied = matches!(stop, Some(Stop::Rejected(_)));
        if let Some(word) = word {
            // What the runner says now changes nothing.
            drop(self.say(word).await);
        }
        let Self { running, said, shared, .. } = self;
        // Whom the runner told to stop tells it when that is done; else the runner goes on meanwhile.
        let said = told.then_some(said);
        let Some(stop) = stop.filter(|stop| !matches!(stop, Stop::Gone)) else { return };
        if let Some(running) = running {
            let grace = shared.limits.grace;
            drop(tokio::time::timeout(grace, running.end(stop, grace)).await);
        }
        if let Some(said) = said {
            // A person's no has ended the task already.
            let word = match denied {
                true => error("denied", "what the agent asked for is denied, and it has nothing else to do", false),
                false => error("cancelled", "the agent was told to stop", false),
            };
            drop(said.try_send(word));
        }
    }

    /// Says it, waiting for room.
    async fn say(&mut self, word: Said) -> Result<(), Stop> {
        self.ears.unless(say(&self.said, word)).await?.map_err(|_| Stop::Gone)
    }

    /// Waits before the next look; `asked` is what the agent asked for.
    async fn pause(&mut self, asked: Option<Duration>) -> Result<(), Stop> {
        let wait = self.pace.wait(asked);
        self.ears.unless(tokio::time::sleep(wait)).await
    }

    /// The same, but no longer than until somebody says something.
    async fn pause_unless_said(&mut self) -> Result<(), Stop> {
        let wait = self.pace.wait(None);
        self.ears.unless_said(tokio::time::sleep(wait)).await.map(drop)
    }

    /// Does the work. Where it is stopped, it has the grace time to come to its end all the same, so that what it began elsewhere can be ended.
    async fn linger<T>(&mut self, work: impl Future<Output = T>) -> (Option<T>, Option<Stop>) {
        let mut work = std::pin::pin!(work);
        match self.ears.unless(&mut work).await {
            Ok(done) => (Some(done), None),
            Err(Stop::Gone) => (None, Some(Stop::Gone)),
            Err(stop) => (tokio::time::timeout(self.shared.limits.grace, work).await.ok(), Some(stop)),
        }
    }
}

impl Running {
    async fn end(self, stop: Stop, grace: Duration) {
        match self {
            Self::Task(remote) => remote.end(stop, grace).await,
            Self::Operation(operation) => operation.end().await,
        }
    }
}
