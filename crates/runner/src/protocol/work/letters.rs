//! Tells the agent what people say to its task.
//!
//! Each session is told all messages of the document that it was not told yet, in their order, one at a time: written down as told first, and told when its
//! session has room. One that waits for an answer is told after it, so that the next thing it reads is the answer.

use super::super::drive::{Drive, Lost};
use super::Try;
use crate::ports::Tell;

impl Try {
    /// The next message that this session has to be told.
    pub(super) fn next_letter(&self, drive: &Drive) -> Option<String> {
        if self.asking || self.over || drive.doc.messages.is_empty() {
            return None;
        }
        drive.doc.messages.iter().find(|message| !self.read.contains(&message.id)).map(|message| message.id.clone())
    }

    /// There is room for a message in the session, or there never will be.
    pub(super) async fn tell_letter(&mut self, drive: &mut Drive, id: String, has_room: bool) -> Result<(), Lost> {
        if !has_room {
            // It listens no more: its end is on its way.
            self.over = true;
            return Ok(());
        }
        let untold = drive.doc.messages.iter().any(|message| message.id == id && !message.told);
        if untold {
            let report = self.take_report();
            drive
                .update(|doc, now| {
                    doc.report(now, report.clone());
                    doc.tell_message(now, &id);
                    true
                })
                .await?;
        }
        let message = drive.doc.messages.iter().find(|message| message.id == id).cloned();
        self.read.push(id);
        if let Some(message) = message {
            // Nobody else tells it anything: the room that was there still is.
            drop(self.session.tell.try_send(Tell::Message {
                id: message.id,
                text: message.text,
                data: message.data,
                interrupt: message.interrupt,
            }));
        }
        Ok(())
    }
}
