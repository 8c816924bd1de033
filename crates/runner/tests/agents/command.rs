//! Any program as an agent: task in, text or JSON out.

use std::time::Duration;

use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said, Start, Tell};
use fte_service::agents::{Agent, AgentKind};
use serde_json::json;

use crate::support::{Desk, all, expect_error, next, script, start};

fn command(words: &[&str]) -> Desk {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Desk::new(Agent { kind: AgentKind::Command(words), ..script(AgentKind::Command, "") })
}

fn shell(text: &str) -> Desk {
    Desk::new(script(AgentKind::Command, text))
}

#[tokio::test]
async fn the_task_goes_in_as_an_argument_or_by_standard_input() {
    let task = "say \"hi\" to $HOME; `date`\nüber";
    assert_eq!(command(&["printf", "%s", "<{task}>"]).all(task).await, [Said::Result(json!(format!("<{task}>")))]);
    assert_eq!(command(&["cat"]).all(task).await, [Said::Result(json!(task))]);
    // Standard input ends, also where the task is an argument.
    assert_eq!(command(&["sh", "-c", "cat; echo end", "{task}"]).all(task).await, [Said::Result(json!("end"))]);
    // Not every program reads what it is given.
    assert_eq!(command(&["true"]).all(&"x".repeat(128_000)).await, [Said::Result(json!(""))]);
}

#[tokio::test]
async fn the_longest_task_fits_into_an_argument() {
    let task = "𝄞".repeat(32_000);
    assert_eq!(command(&["printf", "%s", "{task}"]).all(&task).await, [Said::Result(json!(task))]);
}

#[tokio::test]
async fn json_comes_out_as_json_and_text_as_text() {
    assert_eq!(shell(r#"echo '{"a": [1, 2]}'"#).last("t").await, Said::Result(json!({"a": [1, 2]})));
    assert_eq!(shell("echo 42").last("t").await, Said::Result(json!("42")));
    assert_eq!(shell(r"printf '\377'").last("t").await, Said::Result(json!("\u{fffd}")));
}

#[tokio::test]
async fn the_context_is_a_file() {
    let desk = shell(r#"printf '{"id": "%s", "attempt": %s, "context": %s}' "$FTE_TASK_ID" "$FTE_ATTEMPT" "$(cat "$FTE_CONTEXT_FILE")""#);
    let asked = Start { attempt: 2, context: json!({"k": "v"}).as_object().cloned().unwrap(), ..start("t") };
    let said = all(&mut desk.try_start(asked.clone()).await.unwrap()).await;
    assert_eq!(said, [Said::Result(json!({"id": asked.task_id.to_string(), "attempt": 2, "context": {"k": "v"}}))]);
    desk.cleared().await;
}

#[tokio::test]
async fn a_failure_is_told_with_the_last_words() {
    let failed = shell("echo partial; echo 'no such thing' >&2; exit 3").last("t").await;
    assert_eq!(expect_error(&failed, "exit_status", false), "agent exited with status 3: no such thing");
    let killed = shell("kill -9 $$").last("t").await;
    assert_eq!(expect_error(&killed, "agent_killed", true), "agent was killed by signal 9");
}

#[tokio::test]
async fn output_past_a_limit_is_an_error() {
    expect_error(&shell("cat /dev/zero").last("t").await, "result_too_large", false);
    // Within the limit as it is written, and six times as long in JSON.
    expect_error(&shell("head -c 200000 /dev/zero").last("t").await, "result_too_large", false);
    let limits = Limits { output_bytes_max: 1 << 20, ..Limits::default() };
    let desk = Desk::with(script(AgentKind::Command, "cat /dev/zero >&2"), limits);
    expect_error(&desk.last("t").await, "output_too_large", false);
    desk.cleared().await;
}

#[tokio::test]
async fn a_cancelled_command_gets_a_signal_it_may_act_on() {
    let desk = shell("trap 'exit 5' TERM; echo ready >&2; while :; do sleep 0.01; done");
    let mut session = desk.start("t").await;
    session.tell.send(Tell::Cancel).await.unwrap();
    let said = all(&mut session).await;
    // Cancelled before it set its trap, or after.
    let message = expect_error(&said[0], "cancelled", false);
    assert!(message.contains("status 5") || message.contains("signal 15"), "{message}");
    let limits = Limits { grace: Duration::from_millis(50), ..Limits::default() };
    let stubborn = Desk::with(script(AgentKind::Command, "trap '' TERM; while :; do sleep 600; done"), limits);
    let mut session = stubborn.start("t").await;
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await[0], "cancelled", false);
}

#[tokio::test]
async fn what_cannot_start_says_why_and_leaves_nothing() {
    async fn check(words: &[&str], task: &str, reason: &str) {
        let desk = command(words);
        let error = desk.try_start(start(task)).await.err().expect("it does not start");
        assert!(!error.retryable && error.agent == "agent" && error.reason.contains(reason), "{error}");
        desk.cleared().await;
    }
    check(&["no-such-program"], "t", "no-such-program is in none of the directories of PATH=").await;
    check(&["/no/such/program"], "t", "No such file").await;
    check(&["/etc/passwd"], "t", "denied").await;
    check(&["echo", "{task}"], "nul\0", "nul byte").await;
    check(&["echo", "{task}"], &"x".repeat(200_000), "Argument list too long").await;
    let desk = command(&["true"]);
    let error = desk.host.start("nobody", start("t")).await.err().expect("there is no such agent");
    assert_eq!(error.to_string(), "agent nobody did not start: it is not configured");
}

#[tokio::test]
async fn the_same_attempt_twice_at_once_has_two_workspaces() {
    let desk = shell("pwd; cat > /dev/null");
    let asked = start("t");
    let mut one = desk.try_start(asked.clone()).await.unwrap();
    let mut two = desk.try_start(asked).await.unwrap();
    assert_ne!(next(&mut one).await, next(&mut two).await);
    desk.cleared().await;
}
