//! What a task is, folded from its events. Pure: no store, no clock, no HTTP.
//!
//! Always true: the fold of a set of events is the same in whatever order they come, so that late, doubled (the store folds an event once) and
//! crosswise deliveries converge. Each field therefore has a rule that picks its event by what the event says, never by when it arrived:
//! * the status is the result's; else the first terminal one by `sequence`; else the one with the highest `sequence`; else `accepted`;
//! * stage and progress are the last ones said, by `sequence`, and belong to their attempt;
//! * the agent is the result's, else the last one said, else the requested one;
//! * of several requests or results of one task (there should be one) the earliest counts.
//!
//! The record stays small: texts, results and approvals stay in the events, which it names by their row.

mod runs;

use fte_events::{ClaimId, Status, TaskId};
use serde::{Deserialize, Serialize};

pub(crate) use self::runs::Runs;

/// Most claims without their counterpart that a record holds. A task holds one sandbox at a time.
const OPEN_CLAIMS_MAX: usize = 256;

/// What an event says about its task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// Nothing that the record keeps; the event alone is stored, and makes no task.
    Nothing,
    /// There is such a task.
    Requested {
        /// Who shall do it.
        agent: Option<Box<str>>,
    },
    /// It moved on.
    Moved(Step),
    /// It ended.
    Ended {
        /// How.
        status: Status,
        /// The last try.
        attempt: u32,
        /// Who did it.
        agent: Box<str>,
    },
    /// A sandbox was claimed for it, or given back.
    Claim {
        /// Which claim.
        claim: ClaimId,
        /// Which half of it.
        half: Half,
    },
}

/// The fields of a status change that the record keeps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Where it stands.
    pub status: Status,
    /// The place of this step among the task's steps, from 1.
    pub sequence: u64,
    /// Which try.
    pub attempt: u32,
    /// What the agent is at.
    pub stage: Option<Box<str>>,
    /// How far.
    pub progress_pct: Option<u8>,
    /// Who works on it.
    pub agent: Option<Box<str>>,
    /// It has the request with it, which is in no event of its own.
    pub has_request: bool,
}

/// A claim has two halves: `claimed`, and `released` or `expired`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Half {
    /// `claimed`.
    Claimed,
    /// `released` or `expired`.
    Ended,
}

/// Where and when a change was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    /// The row of its event.
    pub row: i64,
    /// When it happened, in microseconds since 1970, where the event says so.
    pub at_us: Option<i64>,
    /// A number made of the event's identity, to choose between two that happened at once.
    pub mark: i64,
}

/// A task as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    /// When the first thing happened, in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_us: Option<i64>,
    /// When the last thing happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_us: Option<i64>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Chosen>,
    /// The step that gives the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<LatestStep>,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
    /// The highest try, from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Who does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSaid>,
    /// The last stage said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Latest<Box<str>>>,
    /// The last progress said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Latest<u8>>,
    /// How many steps are known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u32,
    /// How many claims are known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub claims: u32,
    /// Claims of which one half is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<(ClaimId, Half)>,
    /// When it queued and when it ran, which tells how many claims there are.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    pub runs: Runs,
}

/// An event chosen among several: the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chosen {
    /// Its row.
    pub row: i64,
    /// When it happened.
    pub at_us: Option<i64>,
    mark: i64,
}

/// The step that gives the status.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatestStep {
    /// The row of its event.
    pub row: i64,
    /// Its place among the task's steps.
    pub sequence: u64,
    /// Its status.
    pub status: Status,
}

/// How the task ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The event.
    #[serde(flatten)]
    pub chosen: Chosen,
    /// The status.
    pub status: Status,
}

/// Something said in a step: the last one counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latest<T> {
    /// What was said.
    pub value: T,
    sequence: u64,
    attempt: u32,
}

/// Who does the task, and how well that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AgentSaid {
    /// The agent.
    pub name: Box<str>,
    /// 0 from the request, the sequence from a step, [`AGENT_OF_RESULT`] from the result.
    from: u64,
}

const AGENT_OF_RESULT: u64 = u64::MAX;

impl TaskRecord {
    /// Takes in a change; the store sees to it that an event is folded once.
    pub(crate) fn fold(&mut self, change: &Change, said: Said) {
        if let Some(at_us) = said.at_us {
            self.first_us = Some(self.first_us.map_or(at_us, |first| first.min(at_us)));
            self.last_us = Some(self.last_us.map_or(at_us, |last| last.max(at_us)));
        }
        match change {
            Change::Nothing => {}
            Change::Requested { agent } => {
                let chosen = Chosen::new(said);
                if chosen.is_before(self.request.as_ref()) {
                    self.request = Some(chosen);
                    if self.agent.as_ref().is_none_or(|agent| agent.from == 0) {
                        self.agent = agent.as_ref().map(|name| AgentSaid { name: name.clone(), from: 0 });
                    }
                }
            }
            Change::Moved(step) => self.fold_step(step, said),
            Change::Ended { status, attempt, agent } => {
                self.attempt = self.attempt.max(*attempt);
                let chosen = Chosen::new(said);
                if chosen.is_before(self.result.as_ref().map(|result| &result.chosen)) {
                    self.result = Some(Outcome { chosen, status: *status });
                    self.agent = Some(AgentSaid { name: agent.clone(), from: AGENT_OF_RESULT });
                }
            }
            Change::Claim { claim, half } => self.fold_claim(*claim, *half),
        }
    }

    fn fold_step(&mut self, step: &Step, said: Said) {
        let Step { status, sequence, attempt, has_request, .. } = *step;
        let chosen = Chosen::new(said);
        if has_request && chosen.is_before(self.request.as_ref()) {
            self.request = Some(chosen);
        }
        self.steps = self.steps.saturating_add(1);
        self.attempt = self.attempt.max(attempt);
        match status {
            Status::Queued => self.runs.queued(sequence),
            Status::Running => self.runs.ran(sequence),
            _ => {}
        }
        let decides = self.step.is_none_or(|known| match (known.status.is_terminal(), status.is_terminal()) {
            (true, true) => sequence < known.sequence,
            (true, false) => false,
            (false, true) => true,
            (false, false) => sequence > known.sequence,
        });
        if decides {
            self.step = Some(LatestStep { row: said.row, sequence, status });
        }
        say(&mut self.stage, step.stage.as_ref(), sequence, attempt);
        say(&mut self.progress, step.progress_pct.as_ref(), sequence, attempt);
        if let Some(name) = &step.agent
            && self.agent.as_ref().is_none_or(|known| known.from < sequence)
        {
            self.agent = Some(AgentSaid { name: name.clone(), from: sequence });
        }
    }

    fn fold_claim(&mut self, claim: ClaimId, half: Half) {
        if half == Half::Claimed {
            self.claims = self.claims.saturating_add(1);
        }
        match self.open.iter().position(|(open, other)| *open == claim && *other != half) {
            Some(place) => {
                self.open.swap_remove(place);
            }
            None if self.open.len() < OPEN_CLAIMS_MAX => self.open.push((claim, half)),
            None => {}
        }
    }

    /// Where the task stands.
    pub(crate) fn status(&self) -> Status {
        match (&self.result, &self.step) {
            (Some(result), _) => result.status,
            (None, Some(step)) => step.status,
            (None, None) => Status::Accepted,
        }
    }

    /// Who does it.
    pub(crate) fn agent(&self) -> Option<&str> {
        self.agent.as_ref().map(|agent| &*agent.name)
    }

    /// What the agent is at, in its present try.
    pub(crate) fn stage(&self) -> Option<&str> {
        self.stage.as_ref().filter(|stage| stage.attempt == self.attempt).map(|stage| &*stage.value)
    }

    /// How far its present try is.
    pub(crate) fn progress_pct(&self) -> Option<u8> {
        self.progress.as_ref().filter(|progress| progress.attempt == self.attempt).map(|progress| progress.value)
    }

    /// When it was asked for; while that is not known, when the first thing happened.
    pub(crate) fn created_us(&self, task: TaskId) -> i64 {
        let minted = || task.minted_at().map_or(0, |at| at.as_microsecond());
        self.request.and_then(|request| request.at_us).or(self.first_us).unwrap_or_else(minted)
    }

    /// When it was asked for, to compare with others of the same id: whatever was asked for is before what was not.
    pub(crate) fn asked_for(&self) -> (i64, i64) {
        self.request.map_or((i64::MAX, i64::MAX), |request| request.place())
    }

    /// When the last thing happened.
    pub(crate) fn updated_us(&self, task: TaskId) -> i64 {
        self.last_us.unwrap_or_else(|| self.created_us(task))
    }

    /// Whether nothing more is to come: the result, the final status, every step before it, and both halves of every claim are known.
    ///
    /// Topics run side by side, so a result may be here before a claim of its task; the steps tell how many claims to wait for.
    pub(crate) fn is_complete(&self) -> bool {
        let Some(step) = self.step else { return false };
        self.result.is_some()
            && step.status.is_terminal()
            && u64::from(self.steps) >= step.sequence
            && self.open.is_empty()
            && self.claims >= self.runs.claims()
    }
}

impl Chosen {
    fn new(said: Said) -> Self {
        Self { row: said.row, at_us: said.at_us, mark: said.mark }
    }

    fn is_before(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| self.place() < other.place())
    }

    fn place(&self) -> (i64, i64) {
        (self.at_us.unwrap_or(i64::MAX), self.mark)
    }
}

fn say<T: Clone>(known: &mut Option<Latest<T>>, said: Option<&T>, sequence: u64, attempt: u32) {
    if let Some(value) = said
        && known.as_ref().is_none_or(|known| known.sequence < sequence)
    {
        *known = Some(Latest { value: value.clone(), sequence, attempt });
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
