//! Follows one task's event stream to its end, through cuts: each event once, in order.
//!
//! The server ends the stream when nothing more will come. An end before the result and the terminal status is a cut, and the stream is
//! opened again behind the last event that was seen.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;

use super::lines::Event;
use crate::client::{Client, escaped};
use crate::error::{Error, Exit};
use crate::sse::Frames;

/// A stream without even a keep-alive for this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// So long an instance that went away may take to come back, and one that starts to hear of a task.
const AWAY_MAX: Duration = Duration::from_secs(120);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What comes within this time of each other is put in the order of its times: each topic is in order, but the topics come as they come.
const TOGETHER: Duration = Duration::from_millis(50);
/// So many events are held for that at most.
const TOGETHER_EVENTS_MAX: usize = 256;

/// In which order events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As the server sent them.
    AsSent,
    /// By their times where they come together; where those are equal, each behind what it follows from.
    ByTime,
}

/// What is known of a task that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Somebody says that there is one.
    Maybe,
    /// It was accepted a moment ago: whoever tells of it may not have heard of it yet, above all where it starts itself.
    Accepted,
}

/// How a task ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `completed`, `failed`, …
    pub(super) status: String,
    /// The data of the result event.
    pub(super) data: serde_json::Value,
}

impl Ended {
    /// Success is only a completed task.
    pub(super) fn into_outcome(self, task_id: &str) -> Result<(), Error> {
        if self.status == "completed" { Ok(()) } else { Err(Error::Failed(format!("task {task_id} ended as {}", self.status))) }
    }
}

/// Calls `each` with all events, some at a time, until the task has ended, or `limit` is over.
pub(super) async fn follow(
    client: &Client,
    task_id: &str,
    limit: Option<Duration>,
    (known, order): (Known, Order),
    each: impl FnMut(&[Told]) -> Result<(), Error>,
) -> Result<Ended, Error> {
    let mut following = Following {
        path: format!("/v1/tasks/{}/events", escaped(task_id)),
        known,
        order,
        each,
        last_id: None,
        result: None,
        ended_at: None,
        is_terminal: false,
    };
    let run = following.run(client);
    match limit {
        None => run.await,
        Some(limit) => tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
            Err(Error::Incomplete {
                what: format!("task {task_id} has not ended within {limit:?}"),
                advice: format!("it goes on without you: {}", client.hints().command(format_args!("watch {task_id}"))),
            })
        }),
    }
}

struct Following<F> {
    path: String,
    known: Known,
    order: Order,
    each: F,
    last_id: Option<String>,
    result: Option<Ended>,
    ended_at: Option<Timestamp>,
    is_terminal: bool,
}

impl<F: FnMut(&[Told]) -> Result<(), Error>> Following<F> {
    async fn run(&mut self, client: &Client) -> Result<Ended, Error> {
        let mut away_since: Option<Instant> = None;
        let mut pause = Duration::from_millis(100);
        loop {
            match client.stream(&self.path, self.last_id.as_deref()).await {
                Ok(stream) => {
                    away_since = None;
                    if self.read(stream).await? > 0 {
                        pause = Duration::from_millis(100);
                    }
                    if self.is_terminal
                        && let Some(ended) = self.result.take()
                    {
                        return Ok(ended);
                    }
                }
                Err(error) if !self.may_heal(&error) => return Err(error),
                Err(error) => {
                    if away_since.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether to ask again. The first call says what is wrong at once; later an instance may be restarting.
    fn may_heal(&self, error: &Error) -> bool {
        let is_unheard = matches!(error, Error::Refused(problem) if problem.code == "task_not_found");
        match self.known {
            Known::Accepted if self.last_id.is_none() => is_unheard || error.exit() == Exit::Unavailable,
            Known::Accepted | Known::Maybe => self.last_id.is_some() && error.exit() == Exit::Unavailable,
        }
    }

    /// Reads until the stream ends or is cut; returns how many events came.
    async fn read(&mut self, mut stream: Incoming) -> Result<u64, Error> {
        let mut frames = Frames::default();
        let mut count = 0;
        let mut held: Vec<Told> = Vec::new();
        let mut until = None;
        loop {
            let silence = Instant::now() + SILENCE_MAX;
            let Ok(piece) = tokio::time::timeout_at(until.unwrap_or(silence).into(), stream.frame()).await else {
                if held.is_empty() {
                    return Ok(count);
                }
                until = None;
                self.show(&mut held)?;
                continue;
            };
            let Some(Ok(piece)) = piece else {
                self.show(&mut held)?;
                return Ok(count);
            };
            let Some(bytes) = piece.data_ref() else { continue };
            frames.push(bytes).map_err(|error| Error::Failed(error.to_string()))?;
            while let Some(frame) = frames.next() {
                if !frame.id.is_empty() {
                    self.last_id = Some(String::from_utf8_lossy(frame.id).into_owned());
                }
                // Events without JSON are not of the task: a server may add its own words to a stream.
                let Ok(event) = serde_json::from_slice::<Event>(frame.data) else { continue };
                count += 1;
                held.push(Told { event, json: frame.data.to_vec() });
            }
            if self.order == Order::AsSent || held.len() >= TOGETHER_EVENTS_MAX {
                until = None;
                self.show(&mut held)?;
            } else if !held.is_empty() {
                until.get_or_insert_with(|| Instant::now() + TOGETHER);
            }
        }
    }

    /// Hands on what was held.
    fn show(&mut self, held: &mut Vec<Told>) -> Result<(), Error> {
        if self.order == Order::ByTime {
            self.ended_at = held.iter().find(|told| told.event.is_result()).and_then(|told| told.event.at()).or(self.ended_at);
            // Stable: what is equal stays as sent.
            held.sort_by_key(|Told { event, .. }| (event.at(), event.place(event.at() == self.ended_at)));
        }
        (self.each)(held)?;
        for Told { event, .. } in held.drain(..) {
            self.is_terminal |= event.is_terminal();
            if event.is_result() {
                let status = event.data.get("status").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
                self.result = Some(Ended { status, data: event.data });
            }
        }
        Ok(())
    }
}

/// An event, and its JSON text.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) event: Event,
    pub(super) json: Vec<u8>,
}
