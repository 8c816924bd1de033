//! What is known of a task elsewhere, from events and snapshots; pure.
//!
//! Always true: what was said once is not said again, however often the agent repeats it (a stream that begins anew starts with a snapshot); an event of
//! another task is an error; so is a second, different end.

use a2a::{Artifact, Part, PartContent, StreamResponse, Task, TaskState, TaskStatus};
use serde_json::Value;

use crate::agents::http::content::text;
use crate::agents::http::trouble::Trouble;
use crate::agents::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, clip};
use crate::ports::Said;

/// Parts that one artifact may have.
const PARTS_MAX: usize = 100;

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Works,
    /// It waits for an answer.
    Asks,
    /// It waits for a login.
    Locked,
    Ended,
}

/// An artifact, as far as it is here.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) artifact: Artifact,
    /// It was kept as it is.
    pub(super) kept: bool,
    /// Nothing more will come.
    pub(super) whole: bool,
}

/// A task elsewhere.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) id: String,
    pub(super) context: String,
    pub(super) status: TaskStatus,
    pub(super) artifacts: Vec<Held>,
    /// The question that was answered last; it may stand there for a moment longer.
    answered: Option<String>,
    artifacts_max: usize,
}

impl Follow {
    pub(super) fn new(task: &Task, artifacts_max: u32) -> Self {
        Self {
            id: task.id.clone(),
            context: task.context_id.clone(),
            status: TaskStatus { state: TaskState::Unspecified, message: None, timestamp: None },
            artifacts: Vec::new(),
            answered: None,
            artifacts_max: usize::try_from(artifacts_max).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn stand(&self) -> Stand {
        match self.status.state {
            TaskState::Unspecified | TaskState::Submitted | TaskState::Working => Stand::Works,
            TaskState::InputRequired if self.answered.as_ref() == Some(&self.question()) => Stand::Works,
            TaskState::InputRequired => Stand::Asks,
            TaskState::AuthRequired => Stand::Locked,
            TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected => Stand::Ended,
        }
    }

    /// What the question that it asks now is known by.
    pub(super) fn question(&self) -> String {
        match (&self.status.message, &self.status.timestamp) {
            (Some(message), _) => message.message_id.clone(),
            (None, Some(at)) => at.to_rfc3339(),
            (None, None) => String::new(),
        }
    }

    /// The question was answered.
    pub(super) fn answer(&mut self) {
        self.answered = Some(self.question());
    }

    /// The answer did not arrive: the question stands.
    pub(super) fn unanswer(&mut self) {
        self.answered = None;
    }

    /// Takes in what the agent says; what of it is news.
    pub(super) fn observe(&mut self, event: StreamResponse) -> Result<Vec<Said>, Trouble> {
        match event {
            StreamResponse::Task(task) => self.snapshot(task),
            StreamResponse::StatusUpdate(update) => {
                self.is_ours(&update.task_id)?;
                self.status(update.status, |key| update.metadata.as_ref().and_then(|metadata| metadata.get(key)))
            }
            StreamResponse::ArtifactUpdate(update) => {
                self.is_ours(&update.task_id)?;
                let whole = update.last_chunk == Some(true);
                if update.append == Some(true) { self.append(update.artifact, whole) } else { self.artifact(update.artifact, whole) }?;
                Ok(Vec::new())
            }
            StreamResponse::Message(message) => Ok(vec![Said::Log(clip(text(&message.parts), TEXT_BYTES_MAX))]),
        }
    }

    /// Takes in the whole task.
    pub(super) fn snapshot(&mut self, task: Task) -> Result<Vec<Said>, Trouble> {
        self.is_ours(&task.id)?;
        let ended = task.status.state.is_terminal();
        for artifact in task.artifacts.unwrap_or_default() {
            self.artifact(artifact, ended)?;
        }
        self.status(task.status, |_| None)
    }

    fn is_ours(&self, id: &str) -> Result<(), Trouble> {
        let foreign = || Trouble::Bad(format!("it speaks of task {}, this one is {}", clip(id.to_owned(), NAME_BYTES_MAX), self.id));
        if id == self.id { Ok(()) } else { Err(foreign()) }
    }

    fn status<'a>(&mut self, status: TaskStatus, extra: impl Fn(&str) -> Option<&'a Value>) -> Result<Vec<Said>, Trouble> {
        if self.stand() == Stand::Ended {
            let same = status.state == self.status.state && words(&status) == words(&self.status);
            let twice = || Trouble::Twice(format!("{}, then {}", name(&self.status.state), name(&status.state)));
            return if same { Ok(Vec::new()) } else { Err(twice()) };
        }
        if status.state != TaskState::InputRequired {
            self.answered = None;
        }
        let (before, status) = (std::mem::replace(&mut self.status, status), &self.status);
        let mut news = Vec::new();
        if self.stand() != Stand::Works || status.state == TaskState::InputRequired {
            // What it asks and what it ends with have words of their own.
            return Ok(news);
        }
        let stage = extra("stage").and_then(Value::as_str).map(|stage| clip(stage.to_owned(), NAME_BYTES_MAX));
        if let Some(stage) = stage.or_else(|| (status.state != before.state).then(|| name(&status.state).to_owned())) {
            news.push(Said::Stage(stage));
        }
        let pct = extra("progress_pct").and_then(Value::as_f64).filter(|pct| (0.0..=100.0).contains(pct));
        let words_before = words(&before);
        let message = words(status).filter(|words| Some(words) != words_before.as_ref());
        if pct.is_some() || message.is_some() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and 100")]
            let pct = pct.map(|pct| pct.round() as u8);
            news.push(Said::Progress { pct, message: message.map(|words| clip(words, TEXT_BYTES_MAX)) });
        }
        Ok(news)
    }

    fn artifact(&mut self, mut artifact: Artifact, whole: bool) -> Result<(), Trouble> {
        // As pieces that came one by one: a snapshot may keep them apart.
        let parts = std::mem::take(&mut artifact.parts);
        parts.into_iter().for_each(|part| join(&mut artifact.parts, part));
        fits(&artifact)?;
        if let Some(held) = self.artifacts.iter_mut().find(|held| held.artifact.artifact_id == artifact.artifact_id) {
            held.kept &= held.artifact.parts == artifact.parts;
            held.whole = whole;
            held.artifact = artifact;
            return Ok(());
        }
        self.room()?;
        self.artifacts.push(Held { artifact, kept: false, whole });
        Ok(())
    }

    fn append(&mut self, more: Artifact, whole: bool) -> Result<(), Trouble> {
        let Some(held) = self.artifacts.iter_mut().find(|held| held.artifact.artifact_id == more.artifact_id) else {
            return self.artifact(more, whole);
        };
        for part in more.parts {
            join(&mut held.artifact.parts, part);
        }
        held.kept = false;
        held.whole = whole;
        fits(&held.artifact)
    }

    fn room(&self) -> Result<(), Trouble> {
        if self.artifacts.len() < self.artifacts_max {
            return Ok(());
        }
        let message = format!("the agent made more than {} artifacts", self.artifacts_max);
        let too_many = Said::Error { code: "artifacts_too_many".to_owned(), message, retryable: false };
        Err(Trouble::Said(Box::new(too_many)))
    }
}

/// A further piece of text or of a file goes on where the last one of its kind ended.
fn join(parts: &mut Vec<Part>, part: Part) {
    if let Some(last) = parts.last_mut()
        && last.filename == part.filename
        && last.media_type == part.media_type
    {
        match (&mut last.content, &part.content) {
            (PartContent::Text(text), PartContent::Text(more)) => return text.push_str(more),
            (PartContent::Raw(bytes), PartContent::Raw(more)) => return bytes.extend_from_slice(more),
            _ => {}
        }
    }
    parts.push(part);
}

fn fits(artifact: &Artifact) -> Result<(), Trouble> {
    if artifact.parts.len() <= PARTS_MAX { Ok(()) } else { Err(Trouble::Bad(format!("an artifact of more than {PARTS_MAX} parts"))) }
}

fn words(status: &TaskStatus) -> Option<String> {
    status.message.as_ref().map(|message| text(&message.parts)).filter(|text| !text.is_empty())
}

/// A state as people say it.
pub(super) fn name(state: &TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unspecified",
        TaskState::Submitted => "submitted",
        TaskState::Working => "working",
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
        TaskState::Canceled => "cancelled",
        TaskState::InputRequired => "input-required",
        TaskState::Rejected => "rejected",
        TaskState::AuthRequired => "auth-required",
    }
}

#[cfg(test)]
mod tests;
