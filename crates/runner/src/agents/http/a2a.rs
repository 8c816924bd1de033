//! A2A 1.0: sends the task as a message, follows the task that the agent makes of it, asks people what it asks, and keeps what it makes.
//!
//! Always true: the agent's task is in the checkpoint as soon as its id is known, so that a start after a restart follows that one; a message has an id that
//! comes of what it says, so that a repeated one can be known; a stream that breaks is no error: the task is asked for, and listened to again.
//!
//! Push notifications lost: they would need an address that agents elsewhere can reach, and tell nothing that a stream or a question does not.

mod follow;
mod rpc;

use std::sync::Arc;
use std::time::Duration;

use a2a::{Message, Part, Role, SendMessageResponse, StreamResponse, Task, TaskState};
use fte_events::limits::json_bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Meter;
use super::content::{self, file_name};
use super::trouble::Trouble;
use super::{Break, Call, Letter, Running, Stop};
use crate::agents::limits::{TEXT_BYTES_MAX, clip};
use crate::agents::session::{self, error};
use crate::agents::{handed, wire};
use crate::ports::{Said, Start};

use self::follow::{Follow, Stand};
use self::rpc::{Rpc, Stream};

/// So much of what was handed over goes along; what does not fit is named only.
const HANDED_BYTES_MAX: u64 = 4 << 20;

/// A task that an agent works on elsewhere.
pub(super) struct Remote {
    rpc: Rpc,
    task: String,
    context: String,
    question: String,
}

impl Remote {
    /// Ends it there. One that asked hears the answer first.
    pub(super) async fn end(self, stop: Stop, grace: Duration) {
        if let Stop::Rejected(reason) = stop {
            let message = decision(&self.task, &self.context, &self.question, false, (reason, None));
            // Half of the time is for the cancel that follows.
            if !matches!(tokio::time::timeout(grace / 2, self.rpc.send(message)).await, Ok(Ok(_))) {
                tracing::debug!(task = self.task, "a rejection did not reach an agent elsewhere");
            }
        }
        if let Err(error) = self.rpc.cancel(&self.task).await {
            let error = self.rpc.clean(&error);
            tracing::debug!(error, task = self.task, "a task elsewhere was not cancelled");
        }
    }
}

/// What a message came to.
enum Begun {
    /// The answer, and no task.
    Message(Message),
    Task(Box<Task>, Option<Stream>),
}

pub(super) async fn talk(call: &mut Call) -> Result<Said, Break> {
    let rpc = call.ears.unless(Rpc::connect(Arc::clone(&call.agent), Arc::clone(&call.meter))).await??;
    let (task, mut stream) = match resumed(call, &rpc).await? {
        Some(task) => (task, None),
        None => {
            let message = first(call).await?;
            match begun(call, &rpc, message).await? {
                Begun::Message(message) => return Ok(result(call, content::value(message.parts.iter()))),
                Begun::Task(task, stream) => (*task, stream),
            }
        }
    };
    let mut follow = Follow::new(&task, call.shared.limits.artifacts_max);
    adopt(call, &rpc, &follow).await?;
    let news = follow.snapshot(task)?;
    report(call, news).await?;
    loop {
        if let Some(stream) = stream.take() {
            listen(call, &mut follow, stream).await?;
        }
        match follow.stand() {
            Stand::Ended => return ended(call, &mut follow).await,
            Stand::Locked => return Err(Trouble::Login(said_by(&follow)).into()),
            Stand::Asks => stream = asked(call, &rpc, &mut follow).await?,
            Stand::Works => match call.ears.letters.pop_front() {
                Some(letter) => stream = said(call, &rpc, &mut follow, letter).await?,
                None => stream = looked(call, &rpc, &mut follow).await?,
            },
        }
    }
}

/// The task that an earlier start of ours began, if it is of use.
async fn resumed(call: &mut Call, rpc: &Rpc) -> Result<Option<Task>, Break> {
    let Some((id, attempt)) = kept(&call.start) else { return Ok(None) };
    let earlier = attempt < call.start.attempt;
    match look(call, rpc, &id).await {
        // An earlier attempt ended with it; this one begins anew.
        Ok(task) if earlier && task.status.state.is_terminal() && task.status.state != TaskState::Completed => Ok(None),
        Ok(task) if task.id == id => Ok(Some(task)),
        Ok(task) => Err(Trouble::Bad(format!("asked for task {id}, it answers with {}", clip(task.id, 128))).into()),
        Err(Break::Trouble(Trouble::Forgotten(_))) if earlier => Ok(None),
        Err(other) => Err(other),
    }
}

fn kept(start: &Start) -> Option<(String, u32)> {
    let kept = start.checkpoint.as_ref()?;
    let attempt = kept.get("attempt").and_then(Value::as_u64).and_then(|attempt| u32::try_from(attempt).ok());
    Some((kept.get("a2a_task")?.as_str()?.to_owned(), attempt.unwrap_or(start.attempt)))
}

/// Asks for the task, and again where that fails for now.
async fn look(call: &mut Call, rpc: &Rpc, id: &str) -> Result<Task, Break> {
    loop {
        match call.ears.unless(rpc.task(id)).await? {
            Ok(task) => {
                call.pace.answered();
                return Ok(task);
            }
            Err(trouble @ Trouble::Forgotten(_)) => return Err(trouble.into()),
            Err(trouble) if !trouble.heals() || call.pace.failed() => return Err(trouble.into()),
            Err(trouble) => {
                let error = clean(call, trouble.to_string());
                tracing::debug!(error, task_id = %call.start.task_id, "a task elsewhere could not be asked for");
                call.pause(None).await?;
            }
        }
    }
}

/// The message that starts it all. What was handed over with the task goes along as files, as far as that is not much.
async fn first(call: &mut Call) -> Result<Message, Break> {
    let Call { start, shared, ears, .. } = call;
    let mut parts = vec![Part::text(start.task.clone())];
    if !start.context.is_empty() {
        parts.push(Part::data(json!({ "context": start.context })));
    }
    let (mut listed, mut files, mut left) = (Vec::new(), Vec::new(), HANDED_BYTES_MAX);
    for artifact in handed::with(start) {
        listed.push(serde_json::to_value(artifact).unwrap_or_default());
        let Some(less) = left.checked_sub(artifact.size_bytes) else { continue };
        let bytes = ears.unless(handed::bytes(shared, artifact)).await?;
        if let Some(bytes) = bytes.map_err(|said| Trouble::Said(Box::new(said)))? {
            left = less;
            files.push(Part::raw(bytes).with_filename(artifact.name.clone()).with_media_type(artifact.content_type.clone()));
        }
    }
    if let Some(handoff) = wire::handoff(start, &listed) {
        parts.push(Part::data(json!({ "handoff": handoff })));
    }
    parts.extend(files);
    let mut message = Message::new(Role::User, parts);
    message.message_id = id_of(&format!("{}/{}", start.task_id, start.attempt));
    message.metadata = Some([("fte_task_id".to_owned(), json!(start.task_id)), ("fte_attempt".to_owned(), json!(start.attempt))].into());
    Ok(message)
}

/// A person's answer.
fn decision(task: &str, context: &str, question: &str, approved: bool, (reason, edit): (Option<String>, Option<Value>)) -> Message {
    let word = if approved { "approved" } else { "rejected" };
    let text = reason.clone().unwrap_or_else(|| word.to_owned());
    let mut data = json!({ "approved": approved, "reason": reason });
    if let Some(edit) = edit {
        data["data"] = edit;
    }
    let mut message = Message::new(Role::User, vec![Part::text(text), Part::data(data)]);
    message.message_id = id_of(&format!("{task}/{question}/{word}"));
    message.task_id = Some(task.to_owned());
    message.context_id = Some(context.to_owned()).filter(|context| !context.is_empty());
    message
}

fn id_of(name: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("fte/{name}").as_bytes()).to_string()
}

/// Sends the message that may make a task. Where the runner stops it meanwhile, what it made is known all the same, so that it can be ended.
async fn begun(call: &mut Call, rpc: &Rpc, message: Message) -> Result<Begun, Break> {
    let (sent, stop) = call.linger(send(rpc, message)).await;
    let Some(stop) = stop else {
        return sent.unwrap_or(Err(Trouble::Bad("nothing was sent".to_owned()))).map_err(Break::from);
    };
    if let Some(Ok(Begun::Task(task, _))) = &sent {
        call.running = Some(running(rpc, &Follow::new(task, 0)));
    }
    Err(stop.into())
}

async fn send(rpc: &Rpc, message: Message) -> Result<Begun, Trouble> {
    if !rpc.streaming {
        return Ok(match rpc.send(message).await? {
            SendMessageResponse::Task(task) => Begun::Task(Box::new(task), None),
            SendMessageResponse::Message(message) => Begun::Message(message),
        });
    }
    let mut stream = rpc.send_streaming(message).await?;
    match stream.next().await? {
        Some(StreamResponse::Task(task)) => Ok(Begun::Task(Box::new(task), Some(stream))),
        Some(StreamResponse::Message(message)) => Ok(Begun::Message(message)),
        // It should begin with the task; the task is where it can be asked for.
        Some(StreamResponse::StatusUpdate(update)) => Ok(Begun::Task(Box::new(rpc.task(&update.task_id).await?), Some(stream))),
        Some(StreamResponse::ArtifactUpdate(update)) => Ok(Begun::Task(Box::new(rpc.task(&update.task_id).await?), Some(stream))),
        None => Err(Trouble::Lost("a stream ended before it began".to_owned())),
    }
}

fn running(rpc: &Rpc, follow: &Follow) -> Running {
    let mut rpc = rpc.clone();
    // What it says to its end has its own measure.
    rpc.measure_by(Meter::new(1 << 20));
    Running::Task(Remote { rpc, task: follow.id.clone(), context: follow.context.clone(), question: follow.question() })
}

/// From now on a start of ours follows this task.
async fn adopt(call: &mut Call, rpc: &Rpc, follow: &Follow) -> Result<(), Stop> {
    call.running = Some(running(rpc, follow));
    call.say(Said::Checkpoint(json!({ "a2a_task": follow.id, "attempt": call.start.attempt }))).await
}

async fn report(call: &mut Call, news: Vec<Said>) -> Result<(), Stop> {
    if !news.is_empty() {
        call.pace.news();
    }
    for word in news {
        call.say(word).await?;
    }
    Ok(())
}

/// Listens until the task stands still or the stream ends, however it ends.
async fn listen(call: &mut Call, follow: &mut Follow, mut stream: Stream) -> Result<(), Break> {
    while matches!(follow.stand(), Stand::Works) {
        let Some(event) = call.ears.unless_said(stream.next()).await? else { return Ok(()) };
        let event = match event {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(trouble) if trouble.heals() => {
                let error = clean(call, trouble.to_string());
                tracing::debug!(error, task_id = %call.start.task_id, "a stream of a task elsewhere broke");
                return Ok(());
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let news = follow.observe(event)?;
        report(call, news).await?;
        keep(call, follow, false).await?;
    }
    if follow.stand() == Stand::Ended {
        // The stream ends with the task. Another end in it, another result, would leave nobody knowing which one was meant.
        let rest = async {
            while let Ok(Some(event)) = stream.next().await {
                follow.observe(event)?;
            }
            Ok(())
        };
        let leave = call.shared.limits.leave;
        if let Ok(contradiction) = call.ears.unless(tokio::time::timeout(leave, rest)).await? {
            contradiction.map_err(|trouble: Trouble| Break::from(trouble))?;
        }
    }
    Ok(())
}

/// Waits, asks for the task, and listens to it where that is possible.
async fn looked(call: &mut Call, rpc: &Rpc, follow: &mut Follow) -> Result<Option<Stream>, Break> {
    call.pause_unless_said().await?;
    let task = look(call, rpc, &follow.id).await?;
    let news = follow.snapshot(task)?;
    report(call, news).await?;
    if !rpc.streaming || follow.stand() != Stand::Works {
        return Ok(None);
    }
    // Where it cannot be listened to it is asked for.
    Ok(call.ears.unless(rpc.subscribe(&follow.id)).await?.ok())
}

/// Asks a person what the agent asks, and passes on the answer.
async fn asked(call: &mut Call, rpc: &Rpc, follow: &mut Follow) -> Result<Option<Stream>, Break> {
    keep(call, follow, true).await?;
    call.running = Some(running(rpc, follow));
    let question = follow.question();
    let parts = follow.status.message.as_ref().map(|message| message.parts.clone()).unwrap_or_default();
    let details: Vec<Value> = content::value(parts.iter().filter(|part| part.as_text().is_none())).into_iter().collect();
    let data = json!({ "a2a_task": follow.id, "question": question, "details": details.first() });
    if json_bytes(&data) > call.shared.limits.data_bytes_max {
        let limit = call.shared.limits.data_bytes_max;
        let too_large = error("message_too_large", format!("the data of a question is larger than {limit} bytes"), false);
        return Err(Trouble::Said(Box::new(too_large)).into());
    }
    let reason = Some(clip(content::text(&parts), TEXT_BYTES_MAX)).filter(|reason| !reason.is_empty());
    call.say(Said::Approval { action: None, reason, data: Some(data.clone()) }).await?;
    let (reason, approved) = call.ears.yes().await?;
    let edit = approved.filter(|approved| *approved != data);
    let stream = loop {
        let message = decision(&follow.id, &follow.context, &question, true, (reason.clone(), edit.clone()));
        match call.ears.unless(send(rpc, message)).await? {
            Ok(Begun::Task(task, stream)) => {
                call.pace.answered();
                follow.answer();
                let news = follow.snapshot(*task)?;
                report(call, news).await?;
                break stream;
            }
            Ok(Begun::Message(message)) => {
                call.pace.answered();
                follow.answer();
                call.say(Said::Log(clip(content::text(&message.parts), TEXT_BYTES_MAX))).await?;
                break None;
            }
            Err(trouble) if !trouble.heals() || call.pace.failed() => return Err(trouble.into()),
            Err(_) => {
                // Did it arrive? The task knows.
                call.pause(None).await?;
                follow.answer();
                let task = look(call, rpc, &follow.id).await?;
                let news = follow.snapshot(task)?;
                report(call, news).await?;
                if follow.status.state != TaskState::InputRequired || follow.question() != question {
                    break None;
                }
                follow.unanswer();
            }
        }
    };
    // The answer is where it belongs: a start after this is not given it again.
    adopt(call, rpc, follow).await?;
    Ok(stream)
}

/// Passes on what somebody said to the task. It has the same id however often it is sent, so that an agent can know it again.
async fn said(call: &mut Call, rpc: &Rpc, follow: &mut Follow, letter: Letter) -> Result<Option<Stream>, Break> {
    let Letter { id, text, data } = letter;
    let mut message = Message::new(Role::User, std::iter::once(Part::text(text)).chain(data.map(Part::data)).collect());
    message.message_id = id_of(&format!("{}/letter/{id}", follow.id));
    message.task_id = Some(follow.id.clone());
    message.context_id = Some(follow.context.clone()).filter(|context| !context.is_empty());
    let stream = loop {
        match call.ears.unless(send(rpc, message.clone())).await? {
            Ok(Begun::Task(task, stream)) => {
                call.pace.answered();
                let news = follow.snapshot(*task)?;
                report(call, news).await?;
                break stream;
            }
            Ok(Begun::Message(message)) => {
                call.pace.answered();
                call.say(Said::Log(clip(content::text(&message.parts), TEXT_BYTES_MAX))).await?;
                break None;
            }
            Err(trouble) if trouble.heals() && !call.pace.failed() => call.pause(None).await?,
            // The task goes on without: it may have ended meanwhile, or take no messages while it works.
            Err(trouble) => {
                let line = clean(call, format!("warning: the agent did not take the message {id}: {trouble}"));
                call.say(Said::Log(line)).await?;
                return Ok(None);
            }
        }
    };
    adopt(call, rpc, follow).await?;
    call.say(Said::Heard(vec![id])).await?;
    Ok(stream)
}

/// Keeps the artifacts that are whole, or all of them.
async fn keep(call: &mut Call, follow: &mut Follow, all: bool) -> Result<(), Break> {
    for held in follow.artifacts.iter_mut().filter(|held| !held.kept && (all || held.whole)) {
        let name = held.artifact.name.clone().unwrap_or_else(|| held.artifact.artifact_id.clone());
        for (at, part) in held.artifact.parts.iter().enumerate() {
            let name = match &part.filename {
                Some(name) => file_name(name),
                None if at == 0 => file_name(&name),
                None => file_name(&format!("{name}-{}", at + 1)),
            };
            let artifact = content::keep(call, part.clone(), name).await?;
            call.artifacts += 1;
            if call.artifacts > call.shared.limits.artifacts_max {
                let message = format!("the agent made more than {} artifacts", call.shared.limits.artifacts_max);
                return Err(Trouble::Said(Box::new(error("artifacts_too_many", message, false))).into());
            }
            call.say(Said::Artifact(Box::new(artifact))).await?;
        }
        held.kept = true;
    }
    Ok(())
}

/// The last word about a task that has ended.
async fn ended(call: &mut Call, follow: &mut Follow) -> Result<Said, Break> {
    call.running = None;
    keep(call, follow, true).await?;
    let why = |what: &str| format!("the agent's task was {what}{}", said_by(follow));
    Ok(match follow.status.state {
        TaskState::Failed => error("remote_failed", clean(call, format!("the agent's task failed{}", said_by(follow))), false),
        TaskState::Canceled => error("remote_cancelled", clean(call, why("cancelled, and not by us")), false),
        TaskState::Rejected => error("remote_rejected", clean(call, why("rejected")), false),
        _ => {
            let message = follow.status.message.as_ref().and_then(|message| content::value(message.parts.iter()));
            match message {
                Some(value) => result(call, Some(value)),
                None => {
                    let made = content::value(follow.artifacts.iter().flat_map(|held| &held.artifact.parts));
                    // They are kept in any case: what does not fit into a result is found there.
                    let fits = made.as_ref().is_none_or(|made| json_bytes(made) <= call.shared.limits.data_bytes_max);
                    result(call, made.filter(|_| fits))
                }
            }
        }
    })
}

fn result(call: &Call, value: Option<Value>) -> Said {
    session::result(value.unwrap_or(Value::Null), &call.shared)
}

fn clean(call: &Call, text: String) -> String {
    clip(call.agent.client.clean(text), TEXT_BYTES_MAX)
}

/// What it says in its status, after a colon.
fn said_by(follow: &Follow) -> String {
    let text = follow.status.message.as_ref().map(|message| content::text(&message.parts)).unwrap_or_default();
    if text.is_empty() { text } else { format!(": {text}") }
}
