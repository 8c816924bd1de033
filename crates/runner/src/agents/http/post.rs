//! The plain protocol: one POST with the task; its answer is the result, or says where the result will be.
//!
//! A repeated POST of the same attempt carries the same `Idempotency-Key`. Where the answer is 202 its `Location` goes into the checkpoint: an attempt that
//! is started again asks there instead of posting a second time.

use std::sync::Arc;

use fte_bus::json;
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::address::follow;
use super::client::{Answer, Ask, Meter};
use super::trouble::Trouble;
use super::{Break, Call, HttpAgent, Running, Stop};
use crate::agents::session::{self, result_too_large};
use crate::agents::{handed, wire};
use crate::ports::{Said, Start};

const ACCEPT: &str = "application/json, text/*;q=0.9, */*;q=0.1";
/// What an agent says when it ends an operation is read up to this size.
const GOODBYE_BYTES_MAX: u64 = 1 << 20;

/// What an agent does elsewhere and can be told to end.
pub(super) struct Operation {
    agent: Arc<HttpAgent>,
    location: Uri,
}

impl Operation {
    pub(super) async fn end(self) {
        let ask = Ask { within: self.agent.client.limits.answer, ..get(&self.location, Method::DELETE) };
        if let Err(error) = self.agent.client.ask(ask, &Meter::new(GOODBYE_BYTES_MAX)).await {
            let error = self.agent.client.clean(error.to_string());
            tracing::debug!(error, "an operation elsewhere was not ended");
        }
    }
}

fn get(url: &Uri, method: Method) -> Ask<'_> {
    Ask { method, url, headers: Vec::new(), body: None, accept: ACCEPT, within: std::time::Duration::ZERO }
}

pub(super) async fn talk(call: &mut Call) -> Result<Said, Break> {
    let mut answer = match resumed(call).await? {
        Some(answer) => answer,
        None => posted(call).await?,
    };
    loop {
        if answer.status != StatusCode::ACCEPTED {
            call.running = None;
            return result(call, answer).await;
        }
        let asked = answer.retry_after();
        let location = match &call.running {
            Some(Running::Operation(operation)) => operation.location.clone(),
            _ => adopt(call, &answer)?,
        };
        remember(call, &location).await?;
        drop(answer);
        call.pause(asked).await?;
        answer = look(call, &location).await?;
    }
}

/// The answer from where an earlier start of this task was told to look.
async fn resumed(call: &mut Call) -> Result<Option<Answer>, Break> {
    let Some((location, attempt)) = kept(&call.start) else { return Ok(None) };
    let base = call.agent.http.url.clone();
    let Ok(location) = follow(&base, &location, "the checkpoint") else { return Ok(None) };
    set_running(call, location.clone());
    match look(call, &location).await {
        Ok(answer) => Ok(Some(answer)),
        // That was the end of an earlier attempt; this one begins anew.
        Err(Break::Trouble(trouble)) if attempt < call.start.attempt && !matches!(trouble, Trouble::Unreachable { .. }) => {
            call.running = None;
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

fn kept(start: &Start) -> Option<(String, u32)> {
    let kept = start.checkpoint.as_ref()?;
    let attempt = kept.get("attempt").and_then(Value::as_u64).and_then(|attempt| u32::try_from(attempt).ok());
    Some((kept.get("http_location")?.as_str()?.to_owned(), attempt.unwrap_or(start.attempt)))
}

async fn posted(call: &mut Call) -> Result<Answer, Break> {
    let Start { task_id, attempt, task, context, checkpoint, .. } = &call.start;
    let mut body = json!({ "task_id": task_id, "attempt": attempt, "task": task, "context": context, "checkpoint": checkpoint });
    let handed: Vec<Value> = handed::with(&call.start).iter().filter_map(|artifact| serde_json::to_value(artifact).ok()).collect();
    if let Some(handoff) = wire::handoff(&call.start, &handed) {
        body["handoff"] = handoff;
    }
    let key = HeaderValue::from_str(&format!("{task_id}.{attempt}")).map_err(|error| Trouble::Bad(error.to_string()))?;
    let (agent, meter) = (Arc::clone(&call.agent), Arc::clone(&call.meter));
    let asking = agent.client.ask(
        Ask {
            method: Method::POST,
            url: &agent.http.url,
            headers: vec![(HeaderName::from_static("idempotency-key"), key)],
            body: Some(body.to_string().into_bytes()),
            accept: ACCEPT,
            within: agent.patience,
        },
        &meter,
    );
    let (answer, stop) = call.linger(asking).await;
    if let Some(stop) = stop {
        // The runner stopped it while it was under way: what it began has to be ended.
        if let Some(Ok(answer)) = answer.filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status == StatusCode::ACCEPTED)) {
            adopt(call, &answer)?;
        }
        return Err(stop.into());
    }
    match answer {
        Some(Ok(answer)) if answer.status.is_success() => Ok(answer),
        Some(Ok(answer)) => Err(call.ears.unless(answer.refusal()).await?.into()),
        Some(Err(Trouble::NoAnswer { within, .. })) => Err(Trouble::Silent(within).into()),
        Some(Err(trouble)) => Err(trouble.into()),
        None => Err(Stop::Gone.into()),
    }
}

fn adopt(call: &mut Call, answer: &Answer) -> Result<Uri, Trouble> {
    let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| Trouble::Bad("202 without a Location says nothing of where the result will be".to_owned()))?;
    let location = follow(&call.agent.http.url, location, "the Location")?;
    set_running(call, location.clone());
    Ok(location)
}

fn set_running(call: &mut Call, location: Uri) {
    call.running = Some(Running::Operation(Operation { agent: Arc::clone(&call.agent), location }));
}

/// Says once where to look after a restart.
async fn remember(call: &mut Call, location: &Uri) -> Result<(), Stop> {
    let checkpoint = json!({ "http_location": location.to_string(), "attempt": call.start.attempt });
    if call.start.checkpoint.as_ref() == Some(&checkpoint) {
        return Ok(());
    }
    call.start.checkpoint = Some(checkpoint.clone());
    call.say(Said::Checkpoint(checkpoint)).await
}

/// Asks there, and again where that fails for now.
async fn look(call: &mut Call, location: &Uri) -> Result<Answer, Break> {
    let (agent, meter) = (Arc::clone(&call.agent), Arc::clone(&call.meter));
    loop {
        let ask = Ask { within: agent.client.limits.answer, ..get(location, Method::GET) };
        let trouble = match call.ears.unless(agent.client.ask(ask, &meter)).await? {
            Ok(answer) if answer.status.is_success() => {
                call.pace.answered();
                return Ok(answer);
            }
            Ok(answer) => call.ears.unless(answer.refusal()).await?,
            Err(trouble) => trouble,
        };
        if !trouble.heals() || call.pace.failed() {
            return Err(trouble.into());
        }
        let asked = if let Trouble::Status { retry_after, .. } = &trouble { *retry_after } else { None };
        call.pause(asked).await?;
    }
}

async fn result(call: &mut Call, answer: Answer) -> Result<Said, Break> {
    let media = answer.media();
    let is_json = media == "application/json" || media.ends_with("+json");
    let body = match call.ears.unless(answer.body.whole(call.shared.limits.data_bytes_max)).await? {
        Err(Trouble::AnswerTooLarge(_)) => return Ok(result_too_large(&call.shared)),
        body => body?,
    };
    if body.is_empty() {
        return Ok(Said::Result(Value::Null));
    }
    if is_json {
        let value = json::from_slice(&body, json::DEPTH_MAX).map_err(|error| Trouble::Bad(format!("{media} that is no JSON: {error}")))?;
        return Ok(session::result(value, &call.shared));
    }
    let text = String::from_utf8(body).map_err(|_| Trouble::Bad(format!("a result is JSON or text, this is {media}")))?;
    Ok(session::result(Value::String(text), &call.shared))
}
