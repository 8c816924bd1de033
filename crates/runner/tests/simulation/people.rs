//! People: they answer questions, sometimes twice or against each other, and call tasks off, before, during and after; on any process.

use std::sync::Arc;

use bytes::Bytes;
use fte_events::json_sha256;
use fte_runner::protocol::{Answer, CancelError, DecideError, Decided, Made, Runner};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::check::Answered;
use crate::coverage::Met;
use crate::scenario::{Answers, MS, S};
use crate::world::{Happening, Sim, World};

#[derive(Deserialize)]
struct StatusEvent {
    data: StatusData,
}

#[derive(Deserialize)]
struct StatusData {
    status: String,
    approval: Option<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: u32,
}

/// What a person makes of what is asked.
pub(crate) fn edit_of(n: u8, before_start: bool) -> Value {
    if before_start { json!({ "task": format!("edited-{n}") }) } else { json!({ "edit": n }) }
}

impl World {
    /// A new event was published: whoever waits for a question sees it.
    pub(crate) fn people_react(&mut self, task: usize, event_type: &str, body: &Bytes) {
        if event_type != "fte.status.changed" {
            return;
        }
        if serde_json::from_slice::<StatusEvent>(body).is_ok_and(|event| event.data.status == "awaiting_handoff") {
            self.person_is_asked(task);
        }
        let shown = serde_json::from_slice::<StatusEvent>(body).ok().filter(|event| event.data.status == "awaiting_approval");
        let Some(asked) = shown.and_then(|event| event.data.approval) else { return };
        let most = *self.rng.pick(&[5 * MS, S, 12 * S]);
        let later = self.rng.below(most);
        let answers: &[(bool, u8)] = match self.tasks[task].plan.answers {
            Answers::Approve => &[(true, 0)],
            Answers::Reject => &[(false, 0)],
            Answers::ApproveTwice => &[(true, 0), (true, 0)],
            Answers::Disagree => &[(true, 0), (false, 0)],
            Answers::Edit => &[(true, 1)],
            Answers::EditDifferently => &[(true, 1), (true, 2), (true, 1)],
            Answers::Ignore => &[],
        };
        for (approved, edit) in answers {
            let at = later + self.rng.below(5 * MS);
            self.after(at, Happening::Decide(task, *approved, *edit, Some(asked.question), 0));
        }
    }

    /// A task's document was written: perhaps somebody interferes before its writer even knows.
    pub(crate) fn meddle(&mut self, task: usize) {
        let rate = self.scenario.rates.meddle;
        if self.calm || !self.rng.chance(rate) {
            return;
        }
        let soon = self.rng.below(4 * MS);
        let what = match self.rng.below(4) {
            0 | 1 => Happening::Cancel(task, 0),
            2 => Happening::Decide(task, true, 0, None, 0),
            _ => Happening::Decide(task, false, 0, None, 0),
        };
        self.tasks[task].meddled = true;
        self.after(soon, what);
    }

    pub(crate) fn decide(&mut self, sim: &Sim, task: usize, (approved, edit): (bool, u8), question: Option<u32>, tries: u32) {
        let Some((process, runner)) = self.somebody() else {
            self.decide_again(task, (approved, edit), question, tries);
            return;
        };
        let id = self.tasks[task].plan.id;
        let before_start = self.tasks[task].plan.request.require_approval && question == Some(1);
        let edit_value = (edit > 0).then(|| edit_of(edit, before_start));
        let edit_sha256 = edit_value.as_ref().map(json_sha256);
        self.tasks[task].answered.push(Answered { question, approved, edit: edit_sha256.clone() });
        self.tell(|| format!("p{process} is told the decision {approved} on {id}"));
        let sim = sim.clone();
        self.spawn(
            process,
            Box::pin(async move {
                let outcome = runner
                    .decide(
                        id,
                        Answer { question, approved, reason: None, approver: format!("person-{approved}"), edit: edit_value, tenant: None },
                    )
                    .await;
                let mut world = sim.world();
                world.tell(|| format!("p{process} decision {approved} on {id}: {outcome:?}"));
                match outcome {
                    Ok((Decided::Now, _)) => {
                        world.met(Met::Decision);
                        if edit_sha256.is_some() {
                            world.met(Met::Edit);
                        }
                        if !world.tasks[task].was_decided_so(approved, edit_sha256.as_deref()) {
                            world.violate(|| format!("the decision {approved} on {id} was confirmed and is in no document"));
                        }
                    }
                    Ok((Decided::Before, _)) => world.met(Met::DecisionAgain),
                    Err(DecideError::Unavailable(_)) => world.decide_again(task, (approved, edit), question, tries),
                    Err(
                        DecideError::Unknown(_)
                        | DecideError::NotAwaiting(_)
                        | DecideError::OtherQuestion { .. }
                        | DecideError::Otherwise(Made { approved: false, .. } | Made { edited: false, .. }),
                    ) => {
                        world.met(Met::DecisionRefused);
                    }
                    Err(DecideError::Otherwise(_)) => world.met(Met::EditRefused),
                    Err(error @ (DecideError::NotApprover { .. } | DecideError::BadEdit(_))) => {
                        world.violate(|| format!("a sound decision on {id} was refused: {error}"));
                    }
                }
            }),
        );
    }

    fn decide_again(&mut self, task: usize, (approved, edit): (bool, u8), question: Option<u32>, tries: u32) {
        if tries < 20 {
            self.after(S, Happening::Decide(task, approved, edit, question, tries + 1));
        }
    }

    pub(crate) fn cancel(&mut self, sim: &Sim, task: usize, tries: u32) {
        let Some((process, runner)) = self.somebody() else {
            self.cancel_again(task, tries);
            return;
        };
        let id = self.tasks[task].plan.id;
        self.tell(|| format!("p{process} is told to cancel {id}"));
        self.tasks[task].cancel_tried = true;
        if self.tasks[task].plan.is_erased() {
            self.erase(sim, task, tries, (process, runner));
            return;
        }
        let sim = sim.clone();
        let submitted = self.tasks[task].submitted;
        self.spawn(
            process,
            Box::pin(async move {
                let outcome = runner.cancel(id, "somebody".to_owned(), None).await;
                let mut world = sim.world();
                world.tell(|| format!("p{process} cancel of {id}: {outcome:?}"));
                match outcome {
                    Ok(()) => {
                        world.met(if submitted { Met::Cancel } else { Met::CancelBeforeTrigger });
                        if !world.tasks[task].cancel_is_kept() {
                            world.violate(|| format!("the cancel of {id} was confirmed and is in no document"));
                        }
                    }
                    Err(CancelError::Ended(_)) => {
                        world.met(Met::CancelAfterEnd);
                        if !world.tasks[task].has_ended() {
                            world.violate(|| format!("the cancel of {id} was refused as too late, and it has not ended"));
                        }
                    }
                    Err(CancelError::Unavailable(_)) => world.cancel_again(task, tries),
                }
            }),
        );
    }

    /// Of some tasks the cancel is an erasure, as the audit service asks for it.
    fn erase(&mut self, sim: &Sim, task: usize, tries: u32, (process, runner): (usize, Arc<Runner>)) {
        let id = self.tasks[task].plan.id;
        let sim = sim.clone();
        self.spawn(
            process,
            Box::pin(async move {
                let outcome = runner.erase(id, "default".to_owned()).await;
                let mut world = sim.world();
                world.tell(|| format!("p{process} erasure of {id}: {outcome:?}"));
                match outcome {
                    Ok(()) => {
                        world.met(Met::Erased);
                        world.tasks[task].erased = true;
                        if !world.tasks[task].cancel_is_kept() {
                            world.violate(|| format!("the erasure of {id} was confirmed and is in no document"));
                        }
                    }
                    Err(_) => world.cancel_again(task, tries),
                }
            }),
        );
    }

    fn cancel_again(&mut self, task: usize, tries: u32) {
        if tries < 20 {
            self.after(S, Happening::Cancel(task, tries + 1));
        }
    }
}
