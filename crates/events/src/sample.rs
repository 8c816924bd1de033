//! One payload of each type, with every field set and the same each time: for golden files, documents and tests.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::audit::{ActionOutcome, ActionRecorded, Actor, ActorType};
use crate::dead_letters::{DeadLettered, Failure};
use crate::decode::Decoded;
use crate::envelope::Outgoing;
use crate::handoffs::{EscalationLevel, HandoffRequested, HandoffWithdrawn};
use crate::ids::{AgentName, ClaimId, EventName, TaskId, event_id};
use crate::payload::Extra;
use crate::results::{Artifact, Reply, ResultKind, TaskResult, Tokens};
use crate::sandbox::{ReleaseReason, Runtime, SandboxChange, SandboxClaim, SandboxKind};
use crate::status::{ApprovalRequest, ExpiryDefault, Status, StatusChanged, TaskError};
use crate::triggers::{
    Channel, Customer, DailyTaskDue, DeadlinePassed, ErasureRequested, MessageReceived, Origin, Priority, Requester, ResumeReason,
    ScheduleFired, TaskRequested, TaskResumed,
};

const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// 10:00:00 UTC on the first of July 2026, and `millis` more.
pub fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_782_900_000_000 + millis).expect("a time of this century")
}

/// The sample task.
pub fn task_id() -> TaskId {
    TaskId::mint(time(0), 1)
}

/// A text that is an agent's name.
fn agent(name: &str) -> AgentName {
    name.parse().expect("an agent's name")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `fte.task.requested`.
pub fn task_requested() -> TaskRequested {
    TaskRequested {
        agent: Some("writer".into()),
        context: object(json!({"minutes": "We met. We agreed.", "audience": ["board"]})),
        require_approval: true,
        priority: Priority::P1,
        budget_usd: Some(0.5),
        budget_tokens: Some(100_000),
        deadline: Some(time(3_600_000)),
        not_before: Some(time(60_000)),
        requester: Some(Requester { requester_type: "user".into(), id: "ada".into(), extra: Extra::new() }),
        metadata: object(json!({"project": "minutes"})),
        ..TaskRequested::new(task_id(), "summarise the minutes", Origin::Http, time(0))
    }
}

/// `fte.message.received`.
pub fn message_received() -> MessageReceived {
    MessageReceived {
        channel: Channel::Email,
        channel_message_id: "<1@example.com>".into(),
        customer: Customer {
            id: "customer-1".into(),
            email: Some("ada@example.com".into()),
            phone: Some("+44 20 7946 0000".into()),
            name: Some("Ada".into()),
            extra: Extra::new(),
        },
        ticket_id: "ticket-1".into(),
        thread_id: Some("thread-1".into()),
        subject: Some("My order".into()),
        content: "Where is my order?".into(),
        category: Some("orders".into()),
        received_at: time(0),
        request: TaskRequested {
            agent: Some("support".into()),
            ..TaskRequested::new(task_id(), "answer the customer", Origin::Channel, time(5))
        },
    }
}

/// `fte.deadline.passed`.
pub fn deadline_passed() -> DeadlinePassed {
    DeadlinePassed { cafe_id: 7, date: jiff::civil::date(2026, 7, 1), timestamp: time(0), extra: Extra::new() }
}

/// `fte.daily-task.due`.
pub fn daily_task_due() -> DailyTaskDue {
    DailyTaskDue { task_type: "generate_recommendations".into(), timestamp: time(0), extra: Extra::new() }
}

/// `fte.schedule.fired`.
pub fn schedule_fired() -> ScheduleFired {
    ScheduleFired { schedule: "weekly-report".into(), due_at: time(0), data: object(json!({"week": 27})), extra: Extra::new() }
}

/// `fte.task.resumed`.
pub fn task_resumed() -> TaskResumed {
    TaskResumed { task_id: task_id(), turn: 1, reason: ResumeReason::Approved, extra: Extra::new() }
}

/// `fte.erasure.requested`.
pub fn erasure_requested() -> ErasureRequested {
    ErasureRequested { subject: "customer:c-1".into(), tasks: vec![task_id()], extra: Extra::new() }
}

/// `fte.sandbox.*`: of a claim, or of its end.
pub fn sandbox_change(kind: SandboxKind) -> SandboxChange {
    SandboxChange {
        kind,
        claim: SandboxClaim {
            sandbox_id: "writer-1".into(),
            claim_id: ClaimId::of(task_id(), 0, 1),
            pool: "writer".into(),
            agent: "writer".into(),
            runtime: Runtime::Process,
            warm: true,
            waited_ms: 12,
            held_ms: kind.ends_claim().then_some(4_200),
            reason: match kind {
                SandboxKind::Claimed => None,
                SandboxKind::Released => Some(ReleaseReason::Completed),
                SandboxKind::Expired => Some(ReleaseReason::Takeover),
                SandboxKind::ClaimFailed => Some(ReleaseReason::Failed),
            },
            in_use: 1,
            capacity: 4,
            extra: Extra::new(),
        },
    }
}

/// `fte.status.changed`.
pub fn status_changed() -> StatusChanged {
    StatusChanged {
        stage: Some("drafting".into()),
        progress_pct: Some(40),
        message: Some("the draft is ready".into()),
        agent: Some("writer".into()),
        approval: Some(ApprovalRequest {
            question: Some(1),
            action: Some("mail.send".into()),
            reason: Some("send it to the board?".into()),
            data: Some(json!({"draft": "We met and agreed."})),
            expires_at: Some(time(86_400_000)),
            default: Some(ExpiryDefault::Reject),
            link: Some("https://fte.example.com/v1/approvals/01980000-0000-7000-8000-000000000001".into()),
            extra: Extra::new(),
        }),
        error: Some(TaskError { retryable: true, ..TaskError::new("agent_crashed", "the agent ended with status 1") }),
        details: object(json!({"words": 4})),
        ..StatusChanged::new(task_id(), Status::AwaitingApproval, 3, 2)
    }
}

/// `fte.result.*`.
pub fn task_result(kind: ResultKind) -> TaskResult {
    TaskResult {
        task_id: task_id(),
        status: kind,
        result: (kind == ResultKind::Completed).then(|| json!({"summary": "We agreed."})),
        artifacts: vec![artifact()],
        error: (kind != ResultKind::Completed)
            .then(|| TaskError::new("agent_unknown", "there is no agent named writer; see GET /v1/agents")),
        agent: "writer".into(),
        parent_task_id: Some(TaskId::mint(time(-1_000), 2)),
        handoff_id: Some(handoff_id()),
        attempt: 2,
        started_at: time(12),
        completed_at: time(4_212),
        duration_ms: 4_200,
        cost_usd: Some(0.012),
        tokens: Some(Tokens { input: 1200, output: 340 }.into()),
        reply: Some(Reply {
            channel: "email".into(),
            to: "ada@example.com".into(),
            subject: Some("Re: My order".into()),
            body: "It is on its way.".into(),
            thread_id: Some("thread-1".into()),
            extra: Extra::new(),
        }),
        extra: Extra::new(),
    }
}

fn artifact() -> Artifact {
    Artifact {
        name: "summary.md".into(),
        content_type: "text/markdown".into(),
        size_bytes: 0,
        sha256: SHA256.into(),
        uri: "fte:artifacts/summary.md".into(),
        extra: Extra::new(),
    }
}

fn handoff_id() -> Uuid {
    event_id(TaskId::mint(time(-1_000), 2), EventName::Handoff { ordinal: 1 })
}

/// `fte.action.recorded`.
pub fn action_recorded() -> ActionRecorded {
    ActionRecorded {
        task_id: Some(task_id()),
        resource: Some("summary.md".into()),
        input_sha256: Some(SHA256.into()),
        output_sha256: Some(SHA256.into()),
        summary: Some("the draft was approved".into()),
        rationale: Some("it says what was agreed".into()),
        confidence: Some(0.9),
        data: object(json!({"approved": true})),
        ..ActionRecorded::new("approval.granted", Actor::new(ActorType::User, "ada"), ActionOutcome::Success, time(3_000))
    }
}

/// `fte.handoff.requested`.
pub fn handoff_requested() -> HandoffRequested {
    HandoffRequested {
        handoff_id: handoff_id(),
        parent_task_id: TaskId::mint(time(-1_000), 2),
        task_id: task_id(),
        from_agent: agent("support"),
        to_agent: agent("human"),
        task: "decide on the refund".into(),
        context: object(json!({"order": 17})),
        artifacts: vec![artifact()],
        reason: Some("above my limit".into()),
        depth: 2,
        ancestors: vec![agent("front-desk")],
        deadline: Some(time(3_600_000)),
        requester: task_requested().requester,
        priority: Priority::P1,
        budget_usd: Some(0.5),
        budget_tokens: Some(100_000),
        ticket_id: Some("ticket-1".into()),
        level: Some(EscalationLevel::L2),
        sentiment: Some(-0.5),
        history: vec![json!({"from": "customer", "text": "Where is my order?"})],
        suggested_action: Some("refund".into()),
        extra: Extra::new(),
    }
}

/// `fte.handoff.withdrawn`.
pub fn handoff_withdrawn() -> HandoffWithdrawn {
    HandoffWithdrawn {
        handoff_id: handoff_id(),
        parent_task_id: TaskId::mint(time(-1_000), 2),
        task_id: task_id(),
        from_agent: agent("support"),
        to_agent: agent("human"),
        reason: Some("the task that asked has ended".into()),
        extra: Extra::new(),
    }
}

/// `fte.event.dead-lettered`.
pub fn dead_lettered() -> DeadLettered {
    DeadLettered {
        original_topic: crate::triggers::TOPIC.into(),
        original_event: Some(json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "fte.task.requested", "data": {}})),
        original_prefix: Some("{\"specversion\":".into()),
        original_size: Some(65_536),
        original_sha256: Some(SHA256.into()),
        error: Failure::new("data_invalid", "the data of fte.task.requested does not fit its schema"),
        attempts: 1,
        failed_at: time(20),
        consumer: "fte-runner".into(),
        extra: Extra::new(),
    }
}

/// One of each type, in the order of the catalogue.
pub fn all() -> Vec<Decoded> {
    let mut all = vec![
        Decoded::TaskRequested(task_requested().into()),
        Decoded::MessageReceived(message_received().into()),
        Decoded::DeadlinePassed(deadline_passed()),
        Decoded::DailyTaskDue(daily_task_due()),
        Decoded::ScheduleFired(schedule_fired()),
        Decoded::TaskResumed(task_resumed()),
        Decoded::ErasureRequested(erasure_requested()),
    ];
    all.extend(SandboxKind::ALL.map(|kind| Decoded::SandboxChange(sandbox_change(kind).into())));
    all.push(Decoded::StatusChanged(status_changed().into()));
    all.extend(ResultKind::ALL.map(|kind| Decoded::TaskResult(task_result(kind).into())));
    all.push(Decoded::ActionRecorded(action_recorded().into()));
    all.push(Decoded::HandoffRequested(handoff_requested().into()));
    all.push(Decoded::HandoffWithdrawn(handoff_withdrawn().into()));
    all.push(Decoded::DeadLettered(dead_lettered().into()));
    all
}

/// The sample payload in its envelope, with the id the catalogue gives it.
pub fn envelope(payload: &Decoded) -> Outgoing<'_, Decoded> {
    let task = task_id();
    let id = match payload {
        Decoded::TaskRequested(_) | Decoded::MessageReceived(_) => event_id(task, EventName::Trigger { turn: 0 }),
        Decoded::TaskResumed(resumed) => event_id(task, EventName::Trigger { turn: resumed.turn }),
        Decoded::SandboxChange(change) => event_id(
            task,
            match change.kind {
                SandboxKind::Claimed => EventName::Claimed(change.claim.claim_id),
                SandboxKind::Released | SandboxKind::Expired => EventName::Released(change.claim.claim_id),
                SandboxKind::ClaimFailed => EventName::ClaimFailed(change.claim.claim_id),
            },
        ),
        Decoded::StatusChanged(change) => event_id(task, EventName::Status { sequence: change.sequence }),
        Decoded::TaskResult(_) => event_id(task, EventName::Result),
        Decoded::HandoffRequested(handoff) => handoff.handoff_id,
        Decoded::HandoffWithdrawn(handoff) => event_id(handoff.parent_task_id, EventName::HandoffWithdrawn { ordinal: 1 }),
        Decoded::DeadLettered(letter) => event_id(task, EventName::Letter { consumer: &letter.consumer, original_id: "1", replay: None }),
        // Of no task, and so UUIDv7.
        Decoded::DeadlinePassed(_)
        | Decoded::DailyTaskDue(_)
        | Decoded::ScheduleFired(_)
        | Decoded::ErasureRequested(_)
        | Decoded::ActionRecorded(_) => *TaskId::mint(time(0), 3).as_uuid(),
    };
    let service = match payload {
        Decoded::ErasureRequested(_) => "audit",
        Decoded::TaskRequested(_) => "intake",
        Decoded::MessageReceived(_) => "channels",
        _ => "runner",
    };
    let envelope =
        Outgoing::new(service, id, time(10), payload).traceparent(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    match payload {
        Decoded::SandboxChange(_) | Decoded::DeadLettered(_) => envelope.about(task),
        _ => envelope,
    }
}
