//! Agents of kind `process`: programs that speak the JSON-lines protocol of [`super::wire`].
//!
//! Always true: the last word (a result or an error) is passed on once the program has left, or had its moment to leave, so that a second result is noticed;
//! after it only reports count, and how the program ends does not. What is not of the protocol ends the session with an error that quotes it.

use fte_events::Tokens;
use fte_events::limits::json_bytes;
use jiff::Timestamp;

use super::handed;
use super::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX, clip};
use super::lines::Lines;
use super::program::Happening;
use super::session::{self, Conversation, Gone, disk_full, error, flood, say, silent};
use super::wire::{self, BadLine, Level, Message};
use crate::document::MESSAGES_MAX;
use crate::ports::{Said, Tell};

/// So much of a bad line is quoted.
const QUOTE_BYTES_MAX: usize = 120;

/// What a line came to.
enum Heard {
    /// A report, passed on.
    Report,
    /// A question to a person, not yet passed on.
    Question(Said),
    /// A hand-off, not yet passed on.
    Handoff(Said),
    /// The last word.
    Last(Said),
    /// Something that must not be; the session ends with it.
    Wrong(Said),
}

pub(super) async fn talk(conversation: &mut Conversation) -> Result<Said, Gone> {
    let limits = conversation.shared.limits.clone();
    let mut lines = Lines::new(limits.line_bytes_max);
    let mut last: Option<Said> = None;
    let (mut artifacts, mut cancelled, mut number) = (0, false, 0u64);
    // A question without its decision, and hand-offs without their reply: what it waits for is no silence of its own.
    let (mut asking, mut handed_off) = (false, 0u32);
    match handed::over(conversation).await {
        Ok(handed) => conversation.program.write(&wire::start_line(&conversation.start, &handed)),
        Err(wrong) => return Ok(wrong),
    }
    let status = loop {
        match conversation.program.next(&mut conversation.told).await {
            Happening::Output(chunk) => {
                lines.push(&chunk);
                loop {
                    number += 1;
                    let line = match lines.next_line() {
                        Ok(Some(line)) => line,
                        Ok(None) => break,
                        Err(too_long) => {
                            return Ok(last.unwrap_or_else(|| error("line_too_long", format!("line {number}: {too_long}"), false)));
                        }
                    };
                    match hear(conversation, &line, number, &mut artifacts).await? {
                        Heard::Report => {}
                        Heard::Question(_) | Heard::Handoff(_) | Heard::Last(_) if last.is_some() => {
                            return Ok(error(
                                "result_twice",
                                format!("line {number}: nothing but reports may follow a result or error"),
                                false,
                            ));
                        }
                        Heard::Question(question) => {
                            say(&conversation.said, question).await?;
                            asking = true;
                            conversation.program.may_be_silent(true);
                        }
                        Heard::Handoff(handoff) => {
                            say(&conversation.said, handoff).await?;
                            handed_off += 1;
                            conversation.program.may_be_silent(true);
                        }
                        Heard::Last(word) => {
                            last = Some(word);
                            conversation.program.close_stdin();
                            conversation.program.let_leave();
                        }
                        // What it says after its last word cannot undo it.
                        Heard::Wrong(wrong) => return Ok(last.unwrap_or(wrong)),
                    }
                }
                number -= 1;
            }
            Happening::Told(told) => {
                let artifacts = match &told {
                    Tell::Reply { task_id, reply, .. } => {
                        handed::into_workspace(conversation, &wire::reply_directory(*task_id), &reply.artifacts).await
                    }
                    Tell::Decision { .. } | Tell::Message { .. } | Tell::Cancel => Ok(Vec::new()),
                };
                match artifacts {
                    Ok(artifacts) => conversation.program.write(&wire::tell_line(&told, &artifacts)),
                    Err(wrong) => return Ok(last.unwrap_or(wrong)),
                }
                match told {
                    Tell::Message { .. } => continue,
                    Tell::Decision { .. } => asking = false,
                    Tell::Reply { .. } => handed_off = handed_off.saturating_sub(1),
                    Tell::Cancel => {
                        cancelled = true;
                        conversation.program.end_after(limits.grace, limits.grace);
                        continue;
                    }
                }
                if last.is_none() {
                    conversation.program.may_be_silent(asking || handed_off > 0);
                }
            }
            Happening::Drained => {}
            Happening::Flood => return Ok(last.unwrap_or_else(|| flood(conversation.agent.talk, &conversation.shared))),
            Happening::DiskFull => return Ok(last.unwrap_or_else(|| disk_full(&conversation.agent))),
            Happening::Silent => return Ok(last.unwrap_or_else(|| silent(&conversation.agent))),
            Happening::Ended(status) => break status,
        }
    };
    // A last line may lack its end, unless it was cut off with the program; then it says nothing.
    let rest = lines.rest();
    if last.is_none()
        && wire::read(&rest).is_ok()
        && let Heard::Last(word) | Heard::Wrong(word) = hear(conversation, &rest, number + 1, &mut artifacts).await?
    {
        last = Some(word);
    }
    Ok(last.unwrap_or_else(|| {
        let words = format!(
            "{} {} without a result{}",
            conversation.agent.name,
            conversation.program.in_words(status),
            conversation.program.last_words(": ")
        );
        let (code, retryable) = match () {
            () if cancelled => ("cancelled", false),
            () if conversation.program.out_of_memory() => ("memory_exceeded", false),
            () => ("agent_crashed", true),
        };
        error(code, clip(words, TEXT_BYTES_MAX), retryable)
    }))
}

/// Reads a line and passes on what it says.
async fn hear(conversation: &Conversation, line: &[u8], number: u64, artifacts: &mut u32) -> Result<Heard, Gone> {
    if line.trim_ascii().is_empty() {
        return Ok(Heard::Report);
    }
    let message = match wire::read(line) {
        Ok(message) => message,
        Err(bad) => return Ok(Heard::Wrong(quoted(conversation, &bad, line, number))),
    };
    let (shared, said) = (&conversation.shared, &conversation.said);
    let too_large = |bytes: usize| bytes > shared.limits.data_bytes_max;
    let report = match message {
        Message::Stage { name } => Said::Stage(clip(name, NAME_BYTES_MAX)),
        Message::Progress { pct, message } => {
            // Read as 0 to 100 already.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100 fits")]
            let pct = pct.map(|pct| pct as u8);
            Said::Progress { pct, message: message.map(|message| clip(message, TEXT_BYTES_MAX)) }
        }
        Message::Log { message, level: Level::Trace | Level::Debug } => {
            let message = clip(conversation.program.quotable(message), TEXT_BYTES_MAX);
            tracing::debug!(task_id = %conversation.start.task_id, agent = conversation.agent.name, "{message}");
            return Ok(Heard::Report);
        }
        Message::Log { message, level: Level::Info } => Said::Log(clip(message, TEXT_BYTES_MAX)),
        Message::Log { message, level: Level::Warn } => Said::Log(clip(format!("warning: {message}"), TEXT_BYTES_MAX)),
        Message::Log { message, level: Level::Error } => Said::Log(clip(format!("error: {message}"), TEXT_BYTES_MAX)),
        Message::Action { data, .. } if too_large(json_bytes(&data)) => return Ok(message_too_large(conversation, "action", number)),
        Message::Action { action, data } => Said::Action { action: clip(action, NAME_BYTES_MAX), data },
        Message::Checkpoint { data, .. } if too_large(json_bytes(&data)) => {
            return Ok(message_too_large(conversation, "checkpoint", number));
        }
        Message::Checkpoint { data, mut messages } => {
            say(said, Said::Checkpoint(data)).await?;
            if messages.is_empty() {
                return Ok(Heard::Report);
            }
            messages.truncate(MESSAGES_MAX);
            Said::Heard(messages)
        }
        Message::Cost { usd, tokens } if tokens == Tokens::default() => Said::Cost(usd),
        Message::Cost { usd, tokens } => {
            say(said, Said::Cost(usd)).await?;
            Said::Tokens(tokens)
        }
        Message::Artifact { path, name, content_type } => {
            *artifacts += 1;
            if *artifacts > shared.limits.artifacts_max {
                let message = format!("line {number}: an attempt makes at most {} artifacts", shared.limits.artifacts_max);
                return Ok(Heard::Wrong(error("artifacts_too_many", message, false)));
            }
            match keep(conversation, path, name, content_type).await {
                Ok(kept) => kept,
                Err(wrong) => return Ok(Heard::Wrong(wrong)),
            }
        }
        Message::Approval { action, reason, data } => {
            if data.as_ref().is_some_and(|data| too_large(json_bytes(data))) {
                return Ok(message_too_large(conversation, "approval", number));
            }
            let (action, reason) = (action.map(|action| clip(action, NAME_BYTES_MAX)), reason.map(|reason| clip(reason, TEXT_BYTES_MAX)));
            return Ok(Heard::Question(Said::Approval { action, reason, data }));
        }
        Message::Handoff(message) => {
            if too_large(message.data_bytes()) {
                return Ok(message_too_large(conversation, "handoff", number));
            }
            return Ok(match message.into_handoff(Timestamp::now()) {
                Ok(handoff) => Heard::Handoff(Said::Handoff(Box::new(handoff))),
                Err(bad) => Heard::Wrong(quoted(conversation, &bad, line, number)),
            });
        }
        Message::Result { result } => return Ok(Heard::Last(session::result(result, shared))),
        Message::Error { code, message, retryable } => {
            return Ok(Heard::Last(error(
                &clip(code, NAME_BYTES_MAX),
                clip(conversation.program.quotable(message), TEXT_BYTES_MAX),
                retryable,
            )));
        }
    };
    say(said, report).await?;
    Ok(Heard::Report)
}

/// Keeps a file of the workspace; the program's next line waits for it.
async fn keep(conversation: &Conversation, path: String, name: Option<String>, content_type: Option<String>) -> Result<Said, Said> {
    let refused = |why: &str| error("artifact_refused", why, false);
    if path.contains('\0') || name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 255 || name.contains(['/', '\0', '\n'])) {
        return Err(refused("an artifact's name is a file name of at most 255 bytes"));
    }
    let printable = |text: &String| text.len() <= 255 && text.contains('/') && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if content_type.as_ref().is_some_and(|text| !printable(text)) {
        return Err(refused("an artifact's content_type is a media type such as text/plain"));
    }
    let Some(workspace) = conversation.program.workspace().map(|workspace| workspace.path().to_owned()) else {
        return Err(refused("the workspace is gone"));
    };
    match conversation.shared.artifacts.keep_file(workspace, path, name, content_type).await {
        Ok(artifact) => Ok(Said::Artifact(Box::new(artifact))),
        Err(error) => Err(error.said()),
    }
}

fn message_too_large(conversation: &Conversation, what: &str, number: u64) -> Heard {
    let limit = conversation.shared.limits.data_bytes_max;
    Heard::Wrong(error("message_too_large", format!("line {number}: the data of the {what} is larger than {limit} bytes"), false))
}

fn quoted(conversation: &Conversation, bad: &BadLine, line: &[u8], number: u64) -> Said {
    let quote = clip(conversation.program.quotable(String::from_utf8_lossy(line)), QUOTE_BYTES_MAX);
    error(bad.code(), format!("line {number} is {bad}: {quote}"), false)
}
