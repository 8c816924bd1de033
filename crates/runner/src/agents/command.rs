//! Agents of kind `command`: any program. The task goes in as the argument that says `{task}`, else by standard input; what it writes to standard output is
//! the result: a JSON object or array as such, anything else as text.
//!
//! Also given: `FTE_TASK_ID`, `FTE_ATTEMPT`, and `FTE_CONTEXT_FILE`, the task's context as JSON in a file of the workspace; of a task that was handed off
//! `FTE_HANDOFF_FILE`, which says by whom and names the files that lie in the workspace for it.
//! A status other than 0 is an error with the last words of standard error; being killed by a signal is one where another try may help.

use std::io;
use std::path::Path;

use fte_bus::json;
use serde_json::Value;

use super::limits::clip;
use super::program::Happening;
use super::session::{Conversation, Gone, ProgramAgent, Variables, disk_full, error, flood, result, result_too_large, silent};
use super::wire;
use crate::ports::{Said, Start, Tell};

const TASK: &str = "{task}";
const CONTEXT_FILE: &str = "context.json";
const HANDOFF_FILE: &str = "handoff.json";
/// Past this a program's own words say no more.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The command with the task in it, and the environment. `handed` is what was handed over, as it lies in the workspace.
pub(super) fn prepare(agent: &ProgramAgent, start: &Start, workspace: &Path, handed: &[Value]) -> io::Result<(Vec<String>, Variables)> {
    let command = agent.command.iter().map(|argument| argument.replace(TASK, &start.task)).collect();
    let context = workspace.join(CONTEXT_FILE);
    std::fs::write(&context, serde_json::to_vec(&start.context)?)?;
    let mut env = agent.env.clone();
    let own = [
        ("FTE_TASK_ID", start.task_id.to_string()),
        ("FTE_ATTEMPT", start.attempt.to_string()),
        ("FTE_CONTEXT_FILE", context.to_string_lossy().into_owned()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    if let Some(handoff) = wire::handoff(start, handed) {
        let file = workspace.join(HANDOFF_FILE);
        std::fs::write(&file, handoff.to_string())?;
        env.push(("FTE_HANDOFF_FILE".to_owned(), file.to_string_lossy().into_owned()));
    }
    Ok((command, env))
}

pub(super) async fn talk(conversation: &mut Conversation) -> Result<Said, Gone> {
    let Conversation { agent, start, shared, program, told, .. } = conversation;
    if !agent.command.iter().any(|argument| argument.contains(TASK)) {
        program.write(start.task.as_bytes());
    }
    program.close_stdin();
    let mut output = Vec::new();
    let mut cancelled = false;
    let status = loop {
        match program.next(told).await {
            Happening::Output(chunk) if output.len() + chunk.len() > shared.limits.data_bytes_max => return Ok(result_too_large(shared)),
            Happening::Output(chunk) => output.extend_from_slice(&chunk),
            Happening::Told(Tell::Cancel) => {
                cancelled = true;
                program.end_after(std::time::Duration::ZERO, shared.limits.grace);
            }
            // It asked nothing.
            Happening::Told(Tell::Decision { .. } | Tell::Message { .. } | Tell::Reply { .. }) | Happening::Drained => {}
            Happening::Flood => return Ok(flood(agent.talk, shared)),
            Happening::DiskFull => return Ok(disk_full(agent)),
            Happening::Silent => return Ok(silent(agent)),
            Happening::Ended(status) => break status,
        }
    };
    let failed = |code: &str, retryable| {
        let words = format!("{} {}{}", agent.name, program.in_words(status), program.last_words(": "));
        error(code, clip(words, MESSAGE_BYTES_MAX), retryable)
    };
    Ok(match status.code() {
        Some(0) => result(value(&output), shared),
        _ if cancelled => failed("cancelled", false),
        _ if program.out_of_memory() => failed("memory_exceeded", false),
        Some(_) => failed("exit_status", false),
        None => failed("agent_killed", true),
    })
}

/// JSON where it can be nothing else, else text without the end of its last line.
fn value(output: &[u8]) -> Value {
    let structured = matches!(output.trim_ascii_start().first(), Some(b'{' | b'['));
    let parsed = structured.then(|| json::from_slice(output, json::DEPTH_MAX).ok()).flatten();
    parsed.unwrap_or_else(|| Value::String(String::from_utf8_lossy(output).trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn output_is_json_only_where_it_can_be_nothing_else() {
        let check = |output: &str, expected: Value| assert_eq!(value(output.as_bytes()), expected, "{output}");
        check("plain text\n", json!("plain text"));
        check("two\nlines\n\n", json!("two\nlines"));
        check("42\n", json!("42"));
        check("true", json!("true"));
        check("\"quoted\"", json!("\"quoted\""));
        check(" {\"a\": 1}\n", json!({"a": 1}));
        check("[1, 2]", json!([1, 2]));
        check("{not json}", json!("{not json}"));
        check("{\"a\": 1}\n{\"b\": 2}\n", json!("{\"a\": 1}\n{\"b\": 2}"));
        check("", json!(""));
    }
}
