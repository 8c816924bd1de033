//! One event stream that brings the results of all tasks. After a cut it goes on behind the last event.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fte_events::ResultKind;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::connection::{Broken, Connection, Id, Requests, find_id, parse_id};
use super::tally::Tally;
use crate::error::{Error, Problem};
use crate::sse::{Frame, Frames};

const SILENCE_MAX: Duration = Duration::from_secs(60);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the stream; results are tallied from the moment this returns.
pub(super) async fn open(requests: Rc<Requests>, tally: Rc<RefCell<Tally>>) -> Result<JoinHandle<()>, Error> {
    let types: Vec<_> = ResultKind::ALL.map(ResultKind::event_type).into();
    let mut feed = Feed { path: format!("/v1/events?type={}", types.join(",")), requests, tally, last_id: Vec::new() };
    let unreachable = |source| Error::Unreachable { url: feed.requests.base.clone(), source };
    let connection = Connection::open(&feed.requests.authority).await.map_err(unreachable)?;
    let request = feed.requests.stream(&feed.path, b"")?;
    let response = connection.open_stream(request).await.map_err(unreachable)?;
    if !response.status().is_success() {
        let status = response.status();
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(Error::Refused(Box::new(Problem::read(status, &body, None))));
    }
    Ok(tokio::task::spawn_local(async move { feed.run(response.into_body()).await }))
}

struct Feed {
    path: String,
    requests: Rc<Requests>,
    tally: Rc<RefCell<Tally>>,
    last_id: Vec<u8>,
}

impl Feed {
    async fn run(&mut self, first: Incoming) {
        let mut stream = Some(first);
        loop {
            if let Some(open) = stream.take() {
                // Why it was cut does not matter: it is resumed.
                let _ = self.read(open).await;
                self.tally.borrow_mut().resumed += 1;
            }
            tokio::time::sleep(RECONNECT_PAUSE).await;
            stream = self.resume().await.ok();
        }
    }

    async fn resume(&mut self) -> Result<Incoming, Broken> {
        let request = self.requests.stream(&self.path, &self.last_id)?;
        let response = Connection::open(&self.requests.authority).await?.open_stream(request).await?;
        if response.status() == StatusCode::GONE {
            // The instance does not know the last event any more. What is missed is found in the read model.
            self.last_id.clear();
        }
        if response.status().is_success() { Ok(response.into_body()) } else { Err("refused".into()) }
    }

    async fn read(&mut self, mut stream: Incoming) -> Result<(), Broken> {
        let mut frames = Frames::default();
        while let Some(piece) = tokio::time::timeout(SILENCE_MAX, stream.frame()).await? {
            let piece = piece?;
            let Some(bytes) = piece.data_ref() else { continue };
            frames.push(bytes)?;
            let now = Instant::now();
            let mut tally = self.tally.borrow_mut();
            while let Some(frame) = frames.next() {
                if !frame.id.is_empty() {
                    self.last_id.clear();
                    self.last_id.extend_from_slice(frame.id);
                }
                if frame.event.starts_with(b"fte.result.")
                    && let Some(id) = task_of(&frame)
                {
                    tally.result(id, now, frame.event == b"fte.result.completed");
                }
            }
        }
        Ok(())
    }
}

/// The task of an event: by a byte search where its JSON is compact, as ours is.
fn task_of(frame: &Frame<'_>) -> Option<Id> {
    #[derive(Deserialize)]
    struct Subject<'a> {
        #[serde(borrow)]
        subject: std::borrow::Cow<'a, str>,
    }
    find_id(frame.data, br#""subject":""#).or_else(|| {
        let event: Subject<'_> = serde_json::from_slice(frame.data).ok()?;
        parse_id(event.subject.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_found_however_the_json_is_written() {
        let id = Some((0x0198_0000_0000_7000, 0x8000_0000_0000_0001));
        for data in [
            &br#"{"type":"x","subject":"01980000-0000-7000-8000-000000000001","data":{}}"#[..],
            br#"{ "subject" : "01980000-0000-7000-8000-000000000001" }"#,
        ] {
            assert_eq!(task_of(&Frame { id: b"", event: b"", data }), id);
        }
        assert_eq!(task_of(&Frame { id: b"", event: b"", data: b"{}" }), None);
    }
}
