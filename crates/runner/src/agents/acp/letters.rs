//! What people say while the agent works: each message is a prompt of its own, in the turn after the one that is under way.
//!
//! Always true: a message is heard once its turn has ended, and only where the session can be taken up again is it said to be: then the session includes it.
//! The turn under way is cut short for one that is not to wait, unless the agent waits for a person's word, which would be lost with it.

use agent_client_protocol_schema::v1::{AGENT_METHOD_NAMES, CancelNotification, ContentBlock, PromptRequest, StopReason, TextContent};
use serde_json::Value;

use super::super::session::Gone;
use super::{Client, Phase, rpc};
use crate::ports::Said;

/// A message to the agent.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) data: Option<Value>,
}

impl Letter {
    fn blocks(&self) -> Vec<ContentBlock> {
        let text = |text: String| ContentBlock::Text(TextContent::new(text));
        let data = self.data.as_ref().map(|data| serde_json::to_string_pretty(data).unwrap_or_default());
        let data = data.map(|data| text(format!("With this, as JSON:\n{data}")));
        std::iter::once(text(self.text.clone())).chain(data).collect()
    }
}

impl Client<'_> {
    /// Somebody says something.
    pub(super) fn letter(&mut self, letter: Letter, interrupt: bool) {
        if self.phase == Phase::Over {
            return;
        }
        self.letters.push_back(letter);
        if let Some(session) = self.session.clone().filter(|_| interrupt && self.phase == Phase::Prompt && self.wishes.is_empty()) {
            self.interrupted = true;
            self.conversation.program.write(&rpc::notification(AGENT_METHOD_NAMES.session_cancel, &CancelNotification::new(session)));
        }
    }

    /// A turn has ended: what was said to it is heard, and the next letter makes another one. Whether there is one.
    pub(super) async fn next_turn(&mut self, why: StopReason) -> Result<bool, Gone> {
        let read = std::mem::take(&mut self.read);
        if !read.is_empty() && self.loads {
            self.keep().await?;
            self.say([Said::Heard(read)]).await?;
        }
        let interrupted = std::mem::take(&mut self.interrupted);
        let goes_on = why == StopReason::EndTurn || (why == StopReason::Cancelled && interrupted && !self.cancelled);
        let Some(session) = self.session.clone().filter(|_| goes_on) else { return Ok(false) };
        let Some(letter) = self.letters.pop_front() else { return Ok(false) };
        let request = PromptRequest::new(session, letter.blocks());
        self.read.push(letter.id);
        self.ask(Phase::Prompt, AGENT_METHOD_NAMES.session_prompt, &request);
        Ok(true)
    }
}
