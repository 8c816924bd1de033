//! The hand-offs of one start of an agent: asked once, told once, in whatever order the replies come.

use std::collections::VecDeque;
use std::sync::Arc;

use fte_events::handoffs::HUMAN;
use fte_events::{AgentName, ResultKind, TaskId};
use serde_json::json;

use super::super::drive::{Drive, Lost};
use super::super::timers::{self, Timer};
use super::{Try, timed_out};
use crate::document::HandoffReply;
use crate::ports::{Handoff, Tell};

/// Nothing more is heard from an agent that does not read, while so many words for it wait.
const UNTOLD_MAX: usize = 64;

/// What this start of the agent has handed off.
#[derive(Default)]
pub(super) struct Handoffs {
    asked: Vec<Asked>,
    /// How often it has asked.
    count: u32,
    /// Words for the agent for which its channel has had no room.
    untold: VecDeque<Tell>,
}

struct Asked {
    ordinal: u32,
    /// What the agent calls it.
    name: String,
    told: bool,
}

impl Handoffs {
    /// Whether the agent may wait for a reply.
    pub(super) fn waits(&self) -> bool {
        self.asked.iter().any(|asked| !asked.told)
    }

    /// Whether it has to read before more is heard.
    pub(super) fn is_full(&self) -> bool {
        self.untold.len() >= UNTOLD_MAX
    }

    /// Whether words wait for it.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The next word for it.
    pub(super) fn pop(&mut self) -> Option<Tell> {
        self.untold.pop_front()
    }

    /// Whether a reply is here that it waits for.
    pub(super) fn has_news(&self, doc: &crate::document::TaskDoc) -> bool {
        let replied = |asked: &&Asked| !asked.told && doc.handoff(asked.ordinal).is_some_and(|handoff| handoff.reply.is_some());
        self.asked.iter().any(|asked| replied(&asked))
    }
}

impl Try {
    /// The agent gives work to somebody else; true when the try is over.
    pub(super) async fn hand_off(&mut self, drive: &mut Drive, asked: Handoff) -> Result<bool, Lost> {
        self.handoffs.count += 1;
        let name = asked.id.clone().unwrap_or_else(|| self.handoffs.count.to_string());
        // A reply may have come since the last look.
        drive.reload().await?;
        let question = asked.question();
        let known = drive.doc.handoffs.iter().find(|handoff| handoff.question == question);
        let ordinal = match known.map(|handoff| (handoff.ordinal, handoff.reply.is_some())) {
            // It asks again what it asked before, most often because it was started again.
            Some((ordinal, true)) => ordinal,
            Some((ordinal, false)) => {
                let report = self.take_report();
                drive
                    .update(|doc, now| {
                        doc.report(now, report.clone());
                        doc.show_handoff(now, ordinal);
                        true
                    })
                    .await?;
                ordinal
            }
            None => match self.refuse(drive, &asked) {
                Err(reply) => {
                    let code = reply.error.as_ref().map(|error| error.code.clone());
                    let data = json!({ "to": asked.to, "code": code });
                    self.gathered.action("handoff.refused".to_owned(), data.as_object().cloned().unwrap_or_default());
                    self.handoffs.untold.push_back(Tell::Reply { handoff: name, task_id: None, reply });
                    return Ok(false);
                }
                Ok(to) => match self.write_handoff(drive, &asked, &to).await? {
                    Some(ordinal) => ordinal,
                    None => return Ok(true),
                },
            },
        };
        self.handoffs.asked.push(Asked { ordinal, name, told: false });
        self.tell_replies(drive).await?;
        Ok(false)
    }

    /// Who is asked; or the reply of nobody.
    fn refuse(&self, drive: &Drive, asked: &Handoff) -> Result<AgentName, Box<HandoffReply>> {
        let is_known = asked.to == HUMAN || drive.instance.settings.agents.contains_key(&asked.to);
        if let Some(refused) = drive.doc.refuses_handoff(&asked.to, is_known) {
            return Err(Box::new(refused));
        }
        let missing = |name: &&String| !self.gathered.has_artifact(name) && drive.doc.artifact_named(name).is_none();
        if let Some(missing) = asked.artifacts.iter().find(missing) {
            let message = format!(
                "there is no artifact {missing:?}: name what was said as an artifact, came with a reply, or was handed to this task"
            );
            return Err(Box::new(HandoffReply::failed(ResultKind::Failed, "artifact_unknown", message)));
        }
        asked.to.parse().map_err(|_| Box::new(HandoffReply::failed(ResultKind::Failed, "agent_unknown", "no agent has such a name")))
    }

    /// Writes the hand-off down, its timer first; none when the try ended meanwhile.
    async fn write_handoff(&mut self, drive: &mut Drive, asked: &Handoff, to: &AgentName) -> Result<Option<u32>, Lost> {
        let world = Arc::clone(&drive.instance.ports.world);
        let deadline = drive.doc.request.as_ref().and_then(|request| request.deadline);
        let latest = [Some(world.now() + drive.instance.settings.handoff_ttl), asked.deadline, deadline];
        let Some(expires_at) = latest.into_iter().flatten().min() else { return Ok(None) };
        let timer = Timer::handoff(drive.doc.task_id, drive.doc.next_handoff());
        let made = tokio::select! {
            biased;
            made = drive.make_timers(timer, expires_at) => made?,
            () = &mut self.timeout => Err(timed_out()),
        };
        let made = match made {
            Ok(made) => made,
            Err(end) => {
                self.end(drive, end).await?;
                return Ok(None);
            }
        };
        let report = self.take_report();
        let most = |agent: &str| drive.instance.settings.agents.get(agent).map(|limits| limits.budget).unwrap_or_default();
        let most = (most(&drive.doc.agent), most(to.as_str()));
        let mut ordinal = None;
        drive
            .update(|doc, now| {
                doc.report(now, report.clone());
                doc.timers.extend(made.iter().cloned());
                ordinal = Some(doc.hand_off(now, asked, to, expires_at, most));
                true
            })
            .await?;
        Ok(ordinal)
    }

    /// Tells the agent the replies that are here, each once.
    pub(super) async fn tell_replies(&mut self, drive: &mut Drive) -> Result<(), Lost> {
        if !self.handoffs.has_news(&drive.doc) {
            return Ok(());
        }
        let waiting: Vec<u32> = self.handoffs.asked.iter().filter(|asked| !asked.told).map(|asked| asked.ordinal).collect();
        let report = self.take_report();
        let (mut replies, mut past) = (Vec::new(), Vec::new());
        drive
            .update(|doc, now| {
                replies.clear();
                doc.report(now, report.clone());
                for ordinal in &waiting {
                    let Some(reply) = doc.handoff(*ordinal).and_then(|handoff| handoff.reply.clone()) else { continue };
                    doc.tell_reply(now, *ordinal);
                    replies.push((*ordinal, reply));
                }
                let timers: Vec<String> = replies.iter().map(|(ordinal, _)| Timer::handoff(doc.task_id, *ordinal).to_string()).collect();
                past = doc.timers.extract_if(.., |timer| timers.contains(timer)).collect();
                true
            })
            .await?;
        for (ordinal, reply) in replies {
            let Some(asked) = self.handoffs.asked.iter_mut().find(|asked| asked.ordinal == ordinal) else { continue };
            asked.told = true;
            let task_id = Some(TaskId::of_handoff(drive.doc.task_id, ordinal));
            self.handoffs.untold.push_back(Tell::Reply { handoff: asked.name.clone(), task_id, reply: Box::new(reply) });
        }
        let instance = Arc::clone(&drive.instance);
        drive.instance.spawn(async move { timers::end(&instance, &past).await });
        Ok(())
    }
}
