//! What the sidecar delivers: triggers and timers; and what it passes on from other services.

use std::sync::Arc;

use fte_bus::{Delivery, Outcome, RawEvent, SubscribeOptions, Subscriptions};
use fte_events::decode::{is_request, task_of};
use fte_events::{
    AgentName, ErasureRequested, HandoffRequested, HandoffWithdrawn, Origin, ResultKind, TENANT, TaskId, TaskRequested, Trigger,
    TriggerError, dead_letters, handoffs, parse_trigger, results, subscribed_by, triggers,
};
use fte_service::agents::{Agents, Occasions};
use fte_service::{Bus, Secret, Settings};
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use uuid::Uuid;

use crate::asked;
use crate::document::{Parent, SERVICE};
use crate::protocol::{Admitted, Incoming, Runner};

/// How long a batch of triggers gathers. In batches it is that they come, even beside Dapr: of a single record it makes the Kafka headers those of the
/// HTTP request, and one that HTTP cannot carry would hold up its partition for ever. Anybody may write to this topic.
const TRIGGERS_GATHER_MS: u32 = 5;
/// How long a batch of hand-offs gathers.
const HANDOFFS_GATHER_MS: u32 = 50;
/// How long a batch of results gathers: every task has one, and few have a parent that waits for it. One lock of Dapr's guards all batches of all topics
/// while they are handled, so quick ones here would hold up the triggers.
const RESULTS_GATHER_MS: u32 = 200;
/// This application's id, which is also its consumer group's.
const APP_ID: &str = "fte-runner";

/// Only the audit service asks for erasures: it has destroyed the keys then, and knows the tasks.
const ERASURES_FROM: &str = "/fte/audit";
/// Tasks that are forgotten side by side.
const ERASED_TOGETHER: usize = 16;

/// Why a delivery was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotNow(String);

/// The subscriptions of the runner.
pub(crate) fn subscriptions(runner: &Arc<Runner>, settings: &Settings, bus: &Bus) -> Subscriptions {
    let options = SubscribeOptions { bulk: settings.batches(128, TRIGGERS_GATHER_MS), raw: true, ..SubscribeOptions::default() };
    let (triggers, poisoned, timers) = (Arc::clone(runner), Arc::clone(runner), Arc::clone(runner));
    let (agents_of_triggers, agents_of_poison) = (Arc::clone(&settings.agents), Arc::clone(&settings.agents));
    let agents: Vec<AgentName> = settings.agents.agents.keys().cloned().collect();
    let subscriptions = Subscriptions::new(&settings.pubsub, APP_ID)
        .app_token(settings.app_token.as_ref().map(Secret::expose).map(str::to_owned))
        .dead_letters(bus.publisher.clone(), |rejected| dead_letters::letter(SERVICE, rejected))
        .before_poison(move |delivery, reason| end_poison(Arc::clone(&poisoned), Arc::clone(&agents_of_poison), delivery, reason))
        .batches(triggers::TOPIC, options, move |deliveries| handle_all(Arc::clone(&triggers), Arc::clone(&agents_of_triggers), deliveries))
        .methods(asked::methods(Arc::clone(runner)))
        .on_job(move |name| {
            let runner = Arc::clone(&timers);
            async move { runner.timer(&name).await.map_or_else(Outcome::retry, |()| Outcome::Done) }
        });
    // Everything else that the catalogue says: the hand-offs to each agent and to people, and the results that answer them.
    subscribed_by(SERVICE, &agents).iter().filter(|topic| topic.name != triggers::TOPIC).fold(subscriptions, |subscriptions, topic| {
        let runner = Arc::clone(runner);
        let is_result = topic.name == results::TOPIC;
        let gather_ms = if is_result { RESULTS_GATHER_MS } else { HANDOFFS_GATHER_MS };
        let options = SubscribeOptions { bulk: settings.batches(128, gather_ms), raw: true, ..SubscribeOptions::default() };
        subscriptions.batches(&topic.name, options, move |deliveries| handle_each(Arc::clone(&runner), deliveries, is_result))
    })
}

async fn handle_each(runner: Arc<Runner>, deliveries: Vec<Delivery>, are_results: bool) -> Vec<Outcome> {
    let handled = deliveries.iter().map(async |delivery| match are_results {
        true => reply(&runner, &delivery.event).await,
        false => handoff(&runner, &delivery.event).await,
    });
    futures_util::future::join_all(handled).await
}

/// A task has ended: whoever handed it off is told. Most have nobody who waits for them, and are not read.
async fn reply(runner: &Runner, event: &RawEvent) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Child {
        #[serde(default)]
        parent_task_id: Option<TaskId>,
    }
    if ResultKind::from_event_type(&event.event_type).is_none() {
        return Outcome::Done;
    }
    match event.decode::<Child>() {
        Ok(Child { parent_task_id: None }) => return Outcome::Done,
        Ok(Child { parent_task_id: Some(_) }) => {}
        Err(error) => return Outcome::reject(error),
    }
    match event.decode() {
        Ok(result) => runner.replied(result).await.map_or_else(Outcome::retry, |_| Outcome::Done),
        Err(error) => Outcome::reject(error),
    }
}

/// Work is handed to an agent or to a person, or taken back.
async fn handoff(runner: &Runner, event: &RawEvent) -> Outcome {
    let tenant = || event.extension("ftetenant").unwrap_or(TENANT).to_owned();
    match event.event_type.as_str() {
        "fte.handoff.requested" => match event.decode::<HandoffRequested>() {
            Ok(handoff) => outcome(runner.deliver(handed_off(event, handoff)).await),
            Err(error) => refuse(runner, event, error).await,
        },
        "fte.handoff.withdrawn" => match event.decode::<HandoffWithdrawn>() {
            Ok(handoff) => runner.withdrawn(handoff, tenant()).await.map_or_else(Outcome::retry, |()| Outcome::Done),
            Err(error) => Outcome::reject(error),
        },
        _ => Outcome::Done,
    }
}

/// Who waits for a request that cannot be read, if that much of it can.
fn parent_of(event: &RawEvent) -> Option<Parent> {
    #[derive(serde::Deserialize)]
    struct Waiting {
        parent_task_id: TaskId,
        handoff_id: Uuid,
        from_agent: AgentName,
    }
    let Waiting { parent_task_id: task_id, handoff_id, from_agent: from } = event.decode().ok()?;
    Some(Parent { task_id, handoff_id, from, ancestors: Vec::new(), depth: 1, reason: None, artifacts: Vec::new() })
}

/// The child's request.
fn handed_off(event: &RawEvent, handoff: HandoffRequested) -> Incoming {
    let now = event.time.unwrap_or_else(Timestamp::now);
    let mut request = TaskRequested::new(handoff.task_id, handoff.task, Origin::Handoff, now);
    request.agent = Some(handoff.to_agent.to_string());
    request.context = handoff.context;
    request.deadline = handoff.deadline;
    request.requester = handoff.requester;
    request.priority = handoff.priority;
    request.budget_usd = handoff.budget_usd;
    request.budget_tokens = handoff.budget_tokens;
    let parent = Parent {
        task_id: handoff.parent_task_id,
        handoff_id: handoff.handoff_id,
        from: handoff.from_agent,
        ancestors: handoff.ancestors,
        depth: handoff.depth,
        reason: handoff.reason,
        artifacts: handoff.artifacts,
    };
    let too_deep = (!(1..=handoffs::DEPTH_MAX).contains(&parent.depth))
        .then(|| ("handoff_too_deep", format!("it is {} hand-offs deep; {} are possible", parent.depth, handoffs::DEPTH_MAX)));
    let beyond = request.within_limits(Timestamp::now()).err();
    let refusal = too_deep.or_else(|| beyond.map(|beyond| ("request_beyond_limits", format!("the task was not started: {beyond}"))));
    let task_id = request.task_id;
    let request = refusal.is_none().then(|| Box::new(request));
    Incoming { parent: Some(Box::new(parent)), ..incoming(event, task_id, 0, request, refusal) }
}

async fn handle_all(runner: Arc<Runner>, agents: Arc<Agents>, deliveries: Vec<Delivery>) -> Vec<Outcome> {
    futures_util::future::join_all(deliveries.iter().map(|delivery| handle(&runner, &agents.occasions, &delivery.event))).await
}

/// Reads a trigger. An occasion on which something is to be done is the request to do it.
fn trigger(event: &RawEvent, occasions: &Occasions) -> Result<Trigger, TriggerError> {
    let now = Timestamp::now();
    Ok(match parse_trigger(event, now)? {
        Trigger::Occasion { task_id, occasion } => match occasions.request(&occasion, task_id, event.time.unwrap_or(now)) {
            Some(request) => Trigger::Run(Box::new(request)),
            None => Trigger::Occasion { task_id, occasion },
        },
        trigger => trigger,
    })
}

async fn handle(runner: &Runner, occasions: &Occasions, event: &RawEvent) -> Outcome {
    match trigger(event, occasions) {
        Ok(Trigger::Run(request)) => {
            let refusal = request
                .within_limits(Timestamp::now())
                .err()
                .map(|beyond| ("request_beyond_limits", format!("the task was not started: {beyond}")));
            let (task, request) = (request.task_id, refusal.is_none().then_some(request));
            outcome(runner.deliver(incoming(event, task, 0, request, refusal)).await)
        }
        Ok(Trigger::Resume(resumed)) => outcome(runner.deliver(incoming(event, resumed.task_id, resumed.turn, None, None)).await),
        Ok(Trigger::Erase(erasure)) if event.source == ERASURES_FROM => erase(runner, event, &erasure).await,
        Ok(Trigger::Erase(_)) => {
            tracing::warn!(source = event.source, id = event.id, "an erasure that the audit service did not ask for is ignored");
            Outcome::Done
        }
        // Nobody is to do anything on this occasion; the audit has recorded the event.
        Ok(Trigger::Occasion { .. } | Trigger::Unknown) => Outcome::Done,
        Err(error) if is_request(event) => refuse(runner, event, error).await,
        Err(error) => Outcome::reject(error),
    }
}

/// Puts a request aside that cannot be read. Whoever waits for its task must get an end to it before.
async fn refuse(runner: &Runner, event: &RawEvent, error: impl std::error::Error + Send + Sync + 'static) -> Outcome {
    let refusal = ("request_unreadable", format!("the request could not be read: {}", fte_service::chain(&error)));
    let parent = parent_of(event).map(Box::new);
    match runner.deliver(Incoming { parent, ..incoming(event, task_of(event), 0, None, Some(refusal)) }).await {
        Admitted::Done => Outcome::reject(error),
        Admitted::Retry(reason) => Outcome::retry(NotNow(reason)),
    }
}

/// Forgets the tasks that an erasure takes along.
async fn erase(runner: &Runner, event: &RawEvent, erasure: &ErasureRequested) -> Outcome {
    let tenant = event.extension("ftetenant").unwrap_or(TENANT);
    let tasks = futures_util::stream::iter(erasure.tasks.iter().copied());
    let erased = tasks.map(|task| runner.erase(task, tenant.to_owned())).buffer_unordered(ERASED_TOGETHER).try_collect::<()>().await;
    erased.map_or_else(Outcome::retry, |()| Outcome::Done)
}

/// Handling this event has failed too often: its task ends before the event is put aside.
async fn end_poison(runner: Arc<Runner>, agents: Arc<Agents>, delivery: Delivery, reason: String) -> Outcome {
    let event = &delivery.event;
    if event.event_type == "fte.handoff.requested"
        && let Ok(handoff) = event.decode::<HandoffRequested>()
    {
        let refusal = Some(("runner_failed", format!("the runner failed each time it took the task up: {reason}; its log says where")));
        return outcome(runner.deliver(Incoming { request: None, refusal, ..handed_off(event, handoff) }).await);
    }
    let refusal = Some(("runner_failed", format!("the runner failed each time it took the task up: {reason}; its log says where")));
    match trigger(event, &agents.occasions) {
        Ok(Trigger::Run(request)) => outcome(runner.deliver(incoming(event, request.task_id, 0, None, refusal)).await),
        Ok(Trigger::Resume(resumed)) => outcome(runner.deliver(incoming(event, resumed.task_id, resumed.turn, None, refusal)).await),
        Err(_) if is_request(event) => outcome(runner.deliver(incoming(event, task_of(event), 0, None, refusal)).await),
        Ok(_) | Err(_) => Outcome::Done,
    }
}

fn incoming(
    event: &RawEvent,
    task_id: TaskId,
    turn: u32,
    request: Option<Box<TaskRequested>>,
    refusal: Option<(&'static str, String)>,
) -> Incoming {
    let tenant = event.extension("ftetenant").unwrap_or(TENANT).to_owned();
    Incoming { task_id, turn, request, parent: None, refusal, tenant, event_id: event.id.clone(), traceparent: event.traceparent.clone() }
}

fn outcome(admitted: Admitted) -> Outcome {
    match admitted {
        Admitted::Done => Outcome::Done,
        Admitted::Retry(reason) => Outcome::retry(NotNow(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_count_as_requests() {
        let event = |kind: &str| RawEvent::parse(format!(r#"{{"id":"1","source":"/x","type":"{kind}"}}"#).as_bytes()).unwrap();
        assert!(is_request(&event("fte.task.requested")));
        assert!(is_request(&event("com.dapr.event.sent")));
        assert!(!is_request(&event("fte.task.resumed")));
        assert!(matches!(parse_trigger(&event("com.dapr.event.sent"), Timestamp::now()), Err(fte_events::TriggerError::NoTask)));
    }
}
