//! What `session/update` tells, in the words of the runner: plans, progress, actions, log lines, costs, and the text that becomes the result.
//!
//! Always true: what is kept of a session is bounded (its text by the size of a result, its calls and plan by number), and nothing that a tool read or wrote
//! is passed on. Pure: it hears and says, and does nothing.

use std::collections::VecDeque;

use agent_client_protocol_schema::v1::{
    ContentBlock, ContentChunk, Plan, PlanEntry, PlanEntryStatus, PromptResponse, SessionUpdate, ToolCallId, ToolCallStatus, ToolKind,
    UsageUpdate,
};
use fte_events::Tokens;
use serde_json::{Map, Value, json};

use super::super::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, clip};
use crate::ports::Said;

/// Calls of tools that are remembered, for what is told of them later.
const CALLS_MAX: usize = 256;
/// Entries of a plan that are passed on.
const PLAN_ENTRIES_MAX: usize = 100;
/// Longest title of a call and text of a plan's entry, in bytes; what is longer is cut.
const TITLE_BYTES_MAX: usize = 1024;
/// Longest id of a call or message that is told from another, in bytes.
const ID_BYTES_MAX: usize = 256;

/// The agent said more than a result may hold.
#[derive(Debug, PartialEq)]
pub(super) struct TooMuchText;

/// What is known of a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) kind: ToolKind,
    pub(super) title: String,
    pub(super) status: ToolCallStatus,
}

/// A session as its updates tell it.
#[derive(Debug, Default)]
pub(super) struct Updates {
    /// All that the agent said to the person, its messages a blank line apart.
    text: String,
    /// Where its last message begins, and whose it is.
    message: usize,
    message_id: Option<String>,
    /// Something else came after the last message: what follows is another one.
    apart: bool,
    calls: VecDeque<(String, Known)>,
    plan: Vec<String>,
    /// What the session cost so far, as far as it was passed on.
    usd: f64,
    other_currency: bool,
    /// Tokens in the model's context, and how many fit.
    context: Option<(u64, u64)>,
}

impl Updates {
    /// A session that cost this much before.
    pub(super) fn new(usd: f64) -> Self {
        Self { usd, ..Self::default() }
    }

    /// What the session cost so far.
    pub(super) fn usd(&self) -> f64 {
        self.usd
    }

    /// Takes in an update; what there is to say about it.
    pub(super) fn hear(&mut self, update: SessionUpdate, text_bytes_max: usize) -> Result<Vec<Said>, TooMuchText> {
        match update {
            SessionUpdate::AgentMessageChunk(chunk) => self.chunk(chunk, text_bytes_max),
            SessionUpdate::AgentThoughtChunk(_) => Ok(self.part()),
            SessionUpdate::ToolCall(call) => {
                let mut said = self.part();
                let known = Known { kind: call.kind, title: title(call.title), status: call.status };
                said.extend(self.call(&call.tool_call_id, known));
                Ok(said)
            }
            SessionUpdate::ToolCallUpdate(update) => {
                let mut said = self.part();
                let mut known = self.known(&update.tool_call_id);
                known.kind = update.fields.kind.unwrap_or(known.kind);
                known.title = update.fields.title.map_or(known.title, title);
                known.status = update.fields.status.unwrap_or(known.status);
                said.extend(self.call(&update.tool_call_id, known));
                Ok(said)
            }
            SessionUpdate::Plan(plan) => {
                let mut said = self.part();
                said.extend(self.plan(plan));
                Ok(said)
            }
            SessionUpdate::UsageUpdate(usage) => Ok(self.usage(usage)),
            SessionUpdate::CurrentModeUpdate(mode) => Ok(vec![Said::Log(clip(format!("mode: {}", mode.current_mode_id), TEXT_BYTES_MAX))]),
            // The person's own words, what the agent could do, its title, and what a later version may tell.
            _ => Ok(Vec::new()),
        }
    }

    /// After the last word only costs count.
    pub(super) fn hear_late(&mut self, update: SessionUpdate) -> Vec<Said> {
        match update {
            SessionUpdate::UsageUpdate(usage) => self.usage(usage),
            _ => Vec::new(),
        }
    }

    /// What is known of a call: of one that was never told, that it is of some kind.
    pub(super) fn known(&self, id: &ToolCallId) -> Known {
        let id = key(id);
        let found = self.calls.iter().rev().find(|(known, _)| *known == id).map(|(_, known)| known.clone());
        found.unwrap_or_else(|| Known { kind: ToolKind::Other, title: "a tool".to_owned(), status: ToolCallStatus::Pending })
    }

    /// All it said, and the last message as a line for people.
    pub(super) fn finish(mut self) -> (Vec<Said>, String) {
        (self.part(), self.text)
    }

    /// The tokens that a turn took, as far as they count against the budget. Thoughts are told beside the output, or as part of it: where the parts are less than
    /// the whole, they are not.
    pub(super) fn spent(response: &PromptResponse) -> Option<Tokens> {
        let usage = response.usage.as_ref()?;
        let output = usage.output_tokens.max(usage.total_tokens.saturating_sub(usage.input_tokens));
        Some(Tokens { input: usage.input_tokens, output }).filter(|tokens| tokens.total() > 0)
    }

    /// The tokens that a turn took, as an action: the one place where they are told.
    pub(super) fn tokens(&self, response: &PromptResponse) -> Option<Said> {
        let mut data = Map::new();
        if let Some(usage) = &response.usage {
            let counts = [
                ("input_tokens", Some(usage.input_tokens)),
                ("output_tokens", Some(usage.output_tokens)),
                ("total_tokens", Some(usage.total_tokens)),
                ("thought_tokens", usage.thought_tokens),
                ("cached_read_tokens", usage.cached_read_tokens),
                ("cached_write_tokens", usage.cached_write_tokens),
            ];
            data.extend(counts.into_iter().filter_map(|(name, count)| Some((name.to_owned(), json!(count?)))));
        }
        if let Some((used, size)) = self.context {
            data.insert("context_tokens".to_owned(), json!(used));
            data.insert("context_tokens_max".to_owned(), json!(size));
        }
        (!data.is_empty()).then(|| Said::Action { action: "tokens.used".to_owned(), data })
    }

    fn chunk(&mut self, chunk: ContentChunk, text_bytes_max: usize) -> Result<Vec<Said>, TooMuchText> {
        let id = chunk.message_id.as_ref().map(|id| clip(id.0.to_string(), ID_BYTES_MAX));
        let other = id.is_some() && self.message_id.is_some() && id != self.message_id;
        let said = if other { self.part() } else { Vec::new() };
        self.message_id = id.or_else(|| self.message_id.take());
        let text = match chunk.content {
            ContentBlock::Text(text) => text.text,
            ContentBlock::ResourceLink(link) => format!("[{}]({})", link.name, link.uri),
            ContentBlock::Image(image) => format!("[{}]", image.mime_type),
            ContentBlock::Audio(audio) => format!("[{}]", audio.mime_type),
            _ => String::new(),
        };
        if self.apart && !text.is_empty() {
            self.text.push_str(if self.text.is_empty() { "" } else { "\n\n" });
            self.message = self.text.len();
            self.apart = false;
        }
        if self.text.len() + text.len() > text_bytes_max {
            return Err(TooMuchText);
        }
        self.text.push_str(&text);
        Ok(said)
    }

    /// The last message is over: it is said once, as a line for people.
    fn part(&mut self) -> Vec<Said> {
        if self.apart {
            return Vec::new();
        }
        self.apart = true;
        let message = self.text[self.message..].trim();
        if message.is_empty() { Vec::new() } else { vec![Said::Log(clip(message.to_owned(), TEXT_BYTES_MAX))] }
    }

    /// A call is an action when it is met and when it has ended.
    fn call(&mut self, id: &ToolCallId, call: Known) -> Vec<Said> {
        let id = key(id);
        let at = self.calls.iter().rposition(|(known, _)| *known == id);
        let before = at.map(|at| self.calls[at].1.clone());
        match at {
            Some(at) => self.calls[at].1 = call.clone(),
            None => {
                if self.calls.len() == CALLS_MAX {
                    self.calls.pop_front();
                }
                self.calls.push_back((id.clone(), call.clone()));
            }
        }
        let ended = matches!(call.status, ToolCallStatus::Completed | ToolCallStatus::Failed);
        let action = match &before {
            None => "tool.called",
            Some(before) if before.status != call.status && ended => match call.status {
                ToolCallStatus::Completed => "tool.completed",
                _ => "tool.failed",
            },
            Some(_) => return Vec::new(),
        };
        let data = json!({ "call": id, "kind": kind_name(call.kind), "title": call.title, "status": call.status });
        let mut said = vec![Said::Action { action: action.to_owned(), data: data.as_object().cloned().unwrap_or_default() }];
        if before.is_none() {
            said.push(Said::Progress { pct: None, message: Some(call.title) });
        }
        said
    }

    /// A plan is an action when it is new or another one; how far it is, is progress, and what is worked on, the stage.
    fn plan(&mut self, plan: Plan) -> Vec<Said> {
        let entries: Vec<PlanEntry> = plan.entries.into_iter().take(PLAN_ENTRIES_MAX).collect();
        let Some(count) = u64::try_from(entries.len()).ok().filter(|count| *count > 0) else { return Vec::new() };
        let words: Vec<String> = entries.iter().map(|entry| title(entry.content.clone())).collect();
        let mut said = Vec::new();
        if words != self.plan {
            let action = if self.plan.is_empty() { "plan.made" } else { "plan.changed" };
            let steps = words.iter().zip(&entries).map(|(words, entry)| json!({ "step": words, "priority": entry.priority }));
            let mut data = Map::new();
            data.insert("steps".to_owned(), steps.collect());
            said.push(Said::Action { action: action.to_owned(), data });
        }
        let done = entries.iter().filter(|entry| entry.status == PlanEntryStatus::Completed).count() as u64;
        let current = entries.iter().position(|entry| entry.status == PlanEntryStatus::InProgress).map(|at| words[at].clone());
        said.extend(current.clone().map(|step| Said::Stage(clip(step, NAME_BYTES_MAX))));
        said.push(Said::Progress { pct: u8::try_from(done * 100 / count).ok(), message: current });
        self.plan = words;
        said
    }

    /// The protocol tells what a session cost in all; passed on is what came on top.
    fn usage(&mut self, usage: UsageUpdate) -> Vec<Said> {
        self.context = Some((usage.used, usage.size));
        let Some(cost) = usage.cost else { return Vec::new() };
        if !cost.currency.eq_ignore_ascii_case("usd") {
            let first = !std::mem::replace(&mut self.other_currency, true);
            let line = format!("warning: costs in {} do not count against the budget", clip(cost.currency, NAME_BYTES_MAX));
            return if first { vec![Said::Log(line)] } else { Vec::new() };
        }
        let more = cost.amount - self.usd;
        // Also where it is no number.
        if !(more > 0.0 && more < 1e9) {
            return Vec::new();
        }
        self.usd = cost.amount;
        vec![Said::Cost(more)]
    }
}

/// As the protocol writes it.
pub(super) fn kind_name(kind: ToolKind) -> Value {
    serde_json::to_value(kind).unwrap_or_else(|_| Value::from("other"))
}

pub(super) fn title(text: String) -> String {
    clip(text, TITLE_BYTES_MAX)
}

fn key(id: &ToolCallId) -> String {
    clip(id.0.to_string(), ID_BYTES_MAX)
}

#[cfg(test)]
mod tests;
