//! What a seed stands for: how many processes and tasks, what the tasks' agents and people do, and which faults may happen how often.
//!
//! Faults are drawn per run, most of them off in most runs: bugs hide behind faults that happen too often as well as behind those that
//! never happen.

use std::collections::BTreeMap;
use std::time::Duration;

use fte_events::{Origin, Priority, ResultKind, Runtime, TaskId, TaskRequested};
use fte_runner::document::Budget;
use fte_runner::settings::{AgentLimits, Settings};
use fte_service::agents::{Approvals, Permission};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::handoffs::HUMAN;
use crate::rng::Rng;

/// Virtual time since the start of a run, in microseconds.
pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1_000;
pub(crate) const S: Micros = 1_000_000;

/// The wall clock at the start of a run, in Unix seconds.
const START_UNIX_S: i64 = 1_767_225_600;

/// The wall clock at a virtual time.
pub(crate) fn wall(at: Micros) -> Timestamp {
    wall_signed(i64::try_from(at).unwrap_or(i64::MAX))
}

pub(crate) fn wall_signed(at: i64) -> Timestamp {
    Timestamp::from_microsecond(START_UNIX_S * 1_000_000 + at).expect("the virtual clock stays near its start")
}

/// The virtual time of a wall clock reading.
pub(crate) fn virtual_time(at: Timestamp) -> Micros {
    u64::try_from(at.as_microsecond() - START_UNIX_S * 1_000_000).unwrap_or(0)
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Calls take seconds.
    Slow,
    /// Calls fail without effect.
    Fail,
    /// Calls have their effect, and fail.
    LoseAnswer,
    /// Calls fail and have their effect much later.
    LateEffect,
    /// A part of the world fails for a while.
    Outage,
    /// Processes die.
    Crash,
    /// Processes stand still, and go on.
    Freeze,
    /// Processes are told to stop.
    Stop,
    /// Deliveries come again, late and at the same time.
    Duplicate,
    /// A caller gives up: its handler is dropped where it stands.
    CallerGone,
    /// Wall clocks jump.
    ClockJump,
    /// Agents do not start.
    AgentStart,
    /// People call tasks off, and decide, at the very moment when something changes.
    Meddle,
}

impl Fault {
    pub(crate) const ALL: [Self; 13] = [
        Self::Slow,
        Self::Fail,
        Self::LoseAnswer,
        Self::LateEffect,
        Self::Outage,
        Self::Crash,
        Self::Freeze,
        Self::Stop,
        Self::Duplicate,
        Self::CallerGone,
        Self::ClockJump,
        Self::AgentStart,
        Self::Meddle,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }
}

/// A defect built into the simulated world on purpose, to prove that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The store writes whatever the guard says.
    IgnoreGuards,
    /// The store says `Written` now and then without writing.
    ForgetWrites,
    /// The outlet acknowledges events now and then without publishing them.
    ForgetEvents,
    /// The broker now and then treats a `Retry` as done.
    DropRetries,
    /// Timers do not fire again.
    FireOnce,
    /// The store does not find which task has a key.
    LoseKeys,
}

impl Sabotage {
    pub(crate) const ALL: [Self; 6] =
        [Self::IgnoreGuards, Self::ForgetWrites, Self::ForgetEvents, Self::DropRetries, Self::FireOnce, Self::LoseKeys];
}

/// What may be left out of a seed's run, to see what a failure needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Without {
    pub(crate) faults: Vec<Fault>,
    pub(crate) tasks_max: Option<usize>,
    pub(crate) processes_max: Option<usize>,
}

/// How often what goes wrong, per million chances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) slow: u64,
    pub(crate) fail: u64,
    pub(crate) lose_answer: u64,
    pub(crate) late_effect: u64,
    pub(crate) outage: u64,
    pub(crate) crash: u64,
    pub(crate) freeze: u64,
    pub(crate) stop: u64,
    pub(crate) duplicate: u64,
    pub(crate) caller_gone: u64,
    pub(crate) clock_jump: u64,
    pub(crate) agent_start: u64,
    pub(crate) meddle: u64,
}

/// One step of an agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Stage(u8),
    Progress(u8),
    Log,
    Action,
    Artifact,
    /// Keeps where it stands.
    Checkpoint,
    Cost(f64),
    Sleep(Micros),
    /// Asks a person, and waits.
    Ask(u8),
    /// Asks a person, and crashes while it waits, in tries up to this one.
    AskAndCrash(u8, u32),
    /// Fails, in tries up to this one.
    FailUntil(u32, bool),
    /// Ends without a word, in tries up to this one.
    CrashUntil(u32),
    Hang,
    /// Gives work to somebody else, and goes on.
    HandOff(&'static str),
    /// Waits until all that was handed off is answered.
    Await,
    /// Says more at once than an outbox holds.
    Chatter(u32),
    /// Ends with a result that no broker takes.
    TooMuch,
}

impl Step {
    /// The question that it asks, if it is one.
    pub(crate) fn asks(&self) -> Option<u8> {
        match self {
            Self::Ask(question) | Self::AskAndCrash(question, _) => Some(*question),
            _ => None,
        }
    }
}

/// How people answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Approve,
    Reject,
    ApproveTwice,
    /// Two people, who disagree.
    Disagree,
    Edit,
    /// Two people who want it otherwise, and one of them twice.
    EditDifferently,
    Ignore,
}

/// One task of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: TaskId,
    pub(crate) request: TaskRequested,
    pub(crate) refusal: bool,
    pub(crate) script: Vec<Step>,
    pub(crate) submitted: Micros,
    pub(crate) answers: Answers,
    pub(crate) cancels: Vec<Micros>,
    /// Decisions that nobody asked for.
    pub(crate) stray_decisions: Vec<(Micros, bool)>,
    /// When somebody says something to it, and whether they say it twice.
    pub(crate) letters: Vec<(Micros, bool)>,
    /// How it ends when nothing goes wrong and nobody interferes.
    pub(crate) expected: ResultKind,
    /// Who handed it off.
    pub(crate) parent: Option<usize>,
    /// The store refuses its document once it has said so many events, unless it has ended.
    pub(crate) events_max: Option<u64>,
}

impl Plan {
    /// Whether its cancels are erasures.
    pub(crate) fn is_erased(&self) -> bool {
        self.id.as_bytes()[15].is_multiple_of(3)
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) processes: usize,
    pub(crate) tasks: Vec<Plan>,
    pub(crate) settings: Settings,
    pub(crate) seats: bool,
    /// The store takes a stale `ETag` on a missing row as an insert, as Redis does.
    pub(crate) stale_inserts: bool,
    /// How often the adapter finds out by reading back what became of a failed write, per million.
    pub(crate) reads_back: u64,
    pub(crate) latency_max: Micros,
    pub(crate) faulty: Micros,
    pub(crate) rates: Rates,
}

const AGENTS: [&str; 2] = ["writer", "coder"];
/// Who works only on what the others hand off.
const HELPER: &str = "helper";
pub(crate) const BUDGET_USD: f64 = 1.0;
/// The question that the configuration answers with yes, and the one with no.
pub(crate) const ALLOWED: u8 = 2;
pub(crate) const ALLOWED_ACTION: &str = "question.2";
pub(crate) const DENIED: u8 = 3;

impl Scenario {
    pub(crate) fn of(seed: u64, without: &Without) -> Self {
        let mut rng = Rng::new(seed);
        let processes = usize::try_from(rng.between(1, 3)).unwrap_or(1).min(without.processes_max.unwrap_or(usize::MAX));
        let faulty = rng.between(15, 60) * S;
        let tasks_count = usize::try_from(rng.between(1, 5)).unwrap_or(1);
        let settings = settings(&mut rng);
        let seats = rng.chance(400_000);
        let stale_inserts = rng.chance(500_000);
        let reads_back = *rng.pick(&[0, 500_000, 950_000]);
        let latency_max = *rng.pick(&[2 * MS, 5 * MS, 30 * MS, 200 * MS]);
        let mut faults = rng.clone();
        let rates = Rates::draw(&mut faults, seed.is_multiple_of(32), without);
        let mut tasks = Rng::new(seed.wrapping_mul(31).wrapping_add(7));
        let tasks = (0..tasks_count.min(without.tasks_max.unwrap_or(usize::MAX))).map(|n| plan(&mut tasks, &settings, n, faulty)).collect();
        Self { processes, tasks, settings, seats, stale_inserts, reads_back, latency_max, faulty, rates }
    }
}

impl Rates {
    fn draw(rng: &mut Rng, quiet: bool, without: &Without) -> Self {
        let mut draw = |fault: Fault, on: u64, rates: &[u64]| {
            let rate = *rng.pick(rates);
            if rng.chance(on) && !quiet && !without.faults.contains(&fault) { rate } else { 0 }
        };
        Self {
            slow: draw(Fault::Slow, 500_000, &[2_000, 20_000, 100_000]),
            fail: draw(Fault::Fail, 400_000, &[2_000, 20_000, 150_000]),
            lose_answer: draw(Fault::LoseAnswer, 500_000, &[5_000, 30_000, 150_000]),
            late_effect: draw(Fault::LateEffect, 400_000, &[5_000, 30_000, 100_000]),
            outage: draw(Fault::Outage, 250_000, &[300, 1_000]),
            crash: draw(Fault::Crash, 600_000, &[500, 2_000, 6_000]),
            freeze: draw(Fault::Freeze, 500_000, &[500, 2_000, 6_000]),
            stop: draw(Fault::Stop, 250_000, &[300, 1_500]),
            duplicate: draw(Fault::Duplicate, 600_000, &[50_000, 300_000, 700_000]),
            caller_gone: draw(Fault::CallerGone, 300_000, &[50_000, 300_000]),
            clock_jump: draw(Fault::ClockJump, 250_000, &[300, 1_500]),
            agent_start: draw(Fault::AgentStart, 150_000, &[100_000, 400_000]),
            meddle: draw(Fault::Meddle, 300_000, &[20_000, 200_000]),
        }
    }
}

/// Longest event that the broker takes.
pub(crate) const EVENT_BYTES_MAX: usize = 20_000;

fn settings(rng: &mut Rng) -> Settings {
    let mut agents = BTreeMap::new();
    for agent in AGENTS.into_iter().chain([HELPER]) {
        let limits = AgentLimits {
            max: u32::try_from(rng.between(1, 2)).unwrap_or(1),
            queue: u32::try_from(rng.between(1, 3)).unwrap_or(1),
            rate: rng.chance(200_000).then(|| configured("2/s")),
            concurrency_key: rng.chance(500_000).then(|| configured("context.customer")),
            runtime: Runtime::None,
            timeout: Duration::from_secs(30),
            attempts_max: 3,
            approvals: Approvals {
                rules: [(ALLOWED, Permission::Allow), (DENIED, Permission::Deny)].map(|(n, word)| (format!("question.{n}"), word)).into(),
                expires: rng.chance(300_000).then(|| Duration::from_secs(20)),
                approve_on_expiry: rng.chance(400_000),
                ..Approvals::default()
            },
            budget: Budget::default(),
            takes_messages: true,
            takes_edits: true,
        };
        agents.insert(agent.to_owned(), limits);
    }
    Settings {
        agents,
        default_agent: AGENTS[0].to_owned(),
        places: rng.index(4) + 1,
        wake_reserve: rng.index(4) + 1,
        soon: Duration::from_millis(*rng.pick(&[0, 500, 5000])),
        hold: Duration::from_secs(*rng.pick(&[2, 20])),
        sweep: Duration::from_millis(*rng.pick(&[500, 2000])),
        approval_stay: Duration::from_millis(*rng.pick(&[0, 500, 5000])),
        approval_ttl: Duration::from_secs(40),
        handoff_stay: Duration::from_millis(*rng.pick(&[0, 500, 5000])),
        handoff_ttl: Duration::from_secs(*rng.pick(&[5, 40, 40])),
        event_bytes_max: EVENT_BYTES_MAX,
        ..Settings::default()
    }
}

/// A value as `agents.toml` has it.
fn configured<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(json!(text)).expect("it is a value of the configuration")
}

fn plan(rng: &mut Rng, settings: &Settings, n: usize, faulty: Micros) -> Plan {
    let submitted = rng.below(faulty / 2);
    let id = TaskId::mint(wall(submitted), u128::from(rng.next()) << 8 | n as u128);
    let mut request = TaskRequested::new(id, format!("task {n}"), Origin::Http, wall(submitted));
    request.agent = match rng.below(20) {
        0 => Some("nobody".to_owned()),
        1..6 => None,
        _ => Some((*rng.pick(&AGENTS)).to_owned()),
    };
    request.priority = *rng.pick(&[Priority::P1, Priority::P2, Priority::P3]);
    request.context.insert("n".to_owned(), json!(n));
    if rng.chance(700_000) {
        request.context.insert("customer".to_owned(), json!(rng.below(2)));
    }
    request.require_approval = rng.chance(150_000);
    if rng.chance(150_000) {
        request.not_before = Some(wall(submitted + rng.between(0, 30) * S));
    }
    if rng.chance(150_000) {
        request.deadline = Some(wall(submitted + rng.between(0, 60) * S));
    }
    let refusal = rng.chance(30_000);
    let script = script(rng, request.agent.as_deref().unwrap_or(AGENTS[0]), 0);
    let answers = match rng.below(12) {
        0..5 => Answers::Approve,
        5 => Answers::ApproveTwice,
        6 => Answers::Disagree,
        7 | 8 => Answers::Reject,
        9 => Answers::Edit,
        10 => Answers::EditDifferently,
        _ => Answers::Ignore,
    };
    let agent = request.agent.as_deref().unwrap_or(&settings.default_agent);
    let expires_approved = settings.approvals(agent).approve_on_expiry;
    let expected = if refusal || request.agent.as_deref() == Some("nobody") {
        ResultKind::Failed
    } else {
        expected(&script, (answers, expires_approved), request.require_approval)
    };
    if script.iter().any(|step| matches!(step, Step::Cost(_))) {
        request.budget_usd = Some(BUDGET_USD);
    }
    let times = |rng: &mut Rng, on: u64| -> Vec<Micros> {
        let count = if rng.chance(on) { rng.between(1, 2) } else { 0 };
        let spread = *rng.pick(&[4 * S, 40 * S]);
        (0..count).map(|_| submitted.saturating_sub(3 * S) + rng.below(spread)).collect()
    };
    let cancels = times(rng, 200_000);
    let stray_decisions = times(rng, 100_000).into_iter().map(|at| (at, at.is_multiple_of(2))).collect();
    let letters = times(rng, 300_000).into_iter().map(|at| (at, at.is_multiple_of(2))).collect();
    let events_max = rng.chance(30_000).then(|| rng.below(12));
    Plan { id, request, refusal, script, submitted, answers, cancels, stray_decisions, letters, expected, parent: None, events_max }
}

/// What an agent does, which waits for so many others.
pub(crate) fn script(rng: &mut Rng, agent: &str, depth: usize) -> Vec<Step> {
    let mut script = some_script(rng, depth);
    if depth < 2 && rng.chance(300_000) {
        let most = if depth == 0 { 3 } else { 1 };
        let mut from = rng.index(script.len() + 1);
        for _ in 0..rng.between(1, most) {
            let to = match rng.below(12) {
                0 => "nobody",
                // Who works on it already.
                1 => AGENTS.into_iter().find(|name| *name == agent).unwrap_or(AGENTS[0]),
                2..5 => HUMAN,
                _ if depth == 1 || agent == HELPER => HUMAN,
                5..8 => AGENTS.into_iter().find(|name| *name != agent).unwrap_or(HELPER),
                _ => HELPER,
            };
            script.insert(from, Step::HandOff(to));
            from = (from + 1 + rng.index(2)).min(script.len());
        }
        let last = script.iter().rposition(|step| matches!(step, Step::HandOff(_))).unwrap_or(0);
        script.insert(last + 1 + rng.index(script.len() - last), Step::Await);
    }
    script
}

fn some_script(rng: &mut Rng, depth: usize) -> Vec<Step> {
    if rng.chance(60_000) {
        // The same words twice: the answer to the first question, which lies before the checkpoint, is none to the second.
        return vec![Step::Ask(0), Step::Checkpoint, Step::Sleep(2 * S), Step::Ask(0), Step::Action];
    }
    let mut script = Vec::new();
    let mut questions = 0;
    for _ in 0..rng.below(7) {
        script.push(match rng.below(12) {
            0 => Step::Stage(u8::try_from(rng.below(3)).unwrap_or(0)),
            1 => Step::Progress(u8::try_from(rng.below(100)).unwrap_or(0)),
            2 => Step::Log,
            3 | 4 => Step::Action,
            5 => Step::Artifact,
            6 => Step::Checkpoint,
            7 if questions < 2 => {
                questions += 1;
                // Two questions may be the same in words.
                Step::Ask(*rng.pick(&[0, 0, 1, 1, ALLOWED, DENIED]))
            }
            8 => Step::Cost(0.1),
            9 if rng.chance(150_000) => Step::Chatter(u32::try_from(rng.between(5, 40)).unwrap_or(5)),
            _ => Step::Sleep(*rng.pick(&[MS, 100 * MS, S, 2 * S])),
        });
    }
    let last = match rng.below(15) {
        8 => Step::AskAndCrash(0, u32::try_from(rng.between(1, 2)).unwrap_or(1)),
        0 | 1 => Step::FailUntil(u32::try_from(rng.between(1, 2)).unwrap_or(1), true),
        2 => Step::FailUntil(9, true),
        3 => Step::FailUntil(9, false),
        4 => Step::CrashUntil(u32::try_from(rng.between(1, 2)).unwrap_or(1)),
        5 => Step::CrashUntil(9),
        6 => Step::Hang,
        9 if rng.chance(300_000) => Step::TooMuch,
        7 if depth == 0 => Step::Cost(BUDGET_USD * 2.0),
        _ => return script,
    };
    script.insert(rng.index(script.len() + 1), last);
    script
}

/// How a script ends by itself.
pub(crate) fn expected(script: &[Step], (answers, expires_approved): (Answers, bool), require_approval: bool) -> ResultKind {
    let answered = match answers {
        Answers::Approve | Answers::ApproveTwice | Answers::Disagree | Answers::Edit | Answers::EditDifferently => None,
        Answers::Reject => Some(ResultKind::Rejected),
        Answers::Ignore if expires_approved => None,
        Answers::Ignore => Some(ResultKind::TimedOut),
    };
    if require_approval && let Some(answered) = answered {
        return answered;
    }
    let (mut from, mut cost) = (0, 0.0);
    'tries: for attempt in 1..=3 {
        for (at, step) in script.iter().enumerate().skip(from) {
            match step {
                Step::Ask(0 | 1) | Step::AskAndCrash(..) if answered.is_some() => return answered.unwrap_or(ResultKind::Failed),
                Step::Checkpoint => from = at + 1,
                Step::Cost(usd) => {
                    cost += usd;
                    if cost > BUDGET_USD {
                        return ResultKind::BudgetExceeded;
                    }
                }
                Step::FailUntil(until, retryable) if attempt <= *until => {
                    if *retryable {
                        continue 'tries;
                    }
                    return ResultKind::Failed;
                }
                Step::AskAndCrash(_, until) | Step::CrashUntil(until) if attempt <= *until => continue 'tries,
                Step::Hang => return ResultKind::TimedOut,
                Step::TooMuch => return ResultKind::Failed,
                _ => {}
            }
        }
        return ResultKind::Completed;
    }
    ResultKind::Failed
}
