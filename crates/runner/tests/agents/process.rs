//! Programs that speak the JSON-lines protocol, well or badly.

use std::time::Duration;

use fte_events::ResultKind;
use fte_runner::agents::Limits;
use fte_runner::document::HandoffReply;
use fte_runner::ports::{Said, Start, Tell};
use fte_service::agents::{Agent, AgentKind};
use fte_testkit::in_time;
use serde_json::json;

use crate::support::{Desk, all, eventually, expect_error, expect_no_secret, is_silent, next, script, start, trusted, yes};

fn limited(text: &str, limits: Limits) -> Desk {
    Desk::with(script(AgentKind::Process, text), limits)
}

#[tokio::test]
async fn reports_arrive_in_order_and_the_result_last() {
    let desk = Desk::process(
        r#"echo '{"type":"stage","name":"plan"}'
        echo '{"type":"progress","pct":12.7,"message":"on it"}'
        echo
        echo '{"type":"log","message":"for people"}'
        echo '{"type":"log","level":"debug","message":"for nobody"}'
        echo '{"type":"log","level":"warn","message":"careful"}'
        echo '{"type":"action","action":"tool.called","data":{"tool":"search"}}'
        echo '{"type":"checkpoint","data":[1]}'
        echo '{"type":"cost","usd":0.25}'
        printf '{"type":"result","result":%s}\n' "$start""#,
    );
    let asked =
        Start { context: json!({"k": "v"}).as_object().cloned().unwrap(), checkpoint: Some(json!({"at": 2})), ..start("say \"hi\"") };
    let said = all(&mut desk.try_start(asked.clone()).await.unwrap()).await;
    let told = json!({
        "type": "start", "protocol": 1, "task_id": asked.task_id.to_string(), "attempt": 1, "task": "say \"hi\"", "context": {"k": "v"}, "checkpoint": {"at": 2}
    });
    let expected = [
        Said::Stage("plan".into()),
        Said::Progress { pct: Some(12), message: Some("on it".into()) },
        Said::Log("for people".into()),
        Said::Log("warning: careful".into()),
        Said::Action { action: "tool.called".into(), data: json!({"tool": "search"}).as_object().cloned().unwrap() },
        Said::Checkpoint(json!([1])),
        Said::Cost(0.25),
        Said::Result(told),
    ];
    assert_eq!(said, expected);
    desk.cleared().await;
}

#[tokio::test]
async fn a_crash_is_told_with_its_last_words_and_may_be_tried_again() {
    let crashed = Desk::process("echo 'Traceback: no luck' >&2; exit 3").last("t").await;
    let message = expect_error(&crashed, "agent_crashed", true);
    assert_eq!(message, "agent exited with status 3 without a result: Traceback: no luck");
    let killed = Desk::process("kill -9 $$").last("t").await;
    assert_eq!(expect_error(&killed, "agent_crashed", true), "agent was killed by signal 9 without a result");
    let silent = Desk::process("exit 0").last("t").await;
    assert_eq!(expect_error(&silent, "agent_crashed", true), "agent exited with status 0 without a result");
    // A program that never read a word of what it was told, and left with a line half said.
    let half = Desk::process(r#"exec 0<&-; printf '{"type":"result","resu'; exit 1"#).last("t").await;
    expect_error(&half, "agent_crashed", true);
}

#[tokio::test]
async fn an_error_is_passed_on_as_it_was_said() {
    let desk = Desk::process(r#"echo '{"type":"error","code":"quota","message":"come back later","retryable":true}'"#);
    assert_eq!(expect_error(&desk.last("t").await, "quota", true), "come back later");
}

#[tokio::test]
async fn a_line_that_is_not_of_the_protocol_ends_the_session_and_is_quoted() {
    async fn check(line: &str, code: &str, text: &str) {
        // It would go on for ever.
        let desk = Desk::process(&format!("echo '{{\"type\":\"stage\",\"name\":\"one\"}}'; echo '{line}'; sleep 600"));
        let said = desk.all("t").await;
        assert_eq!(said[0], Said::Stage("one".into()));
        let message = expect_error(&said[1], code, false);
        assert!(said.len() == 2 && message.starts_with("line 2 is ") && message.contains(text), "{line}: {message}");
        desk.cleared().await;
    }
    check("debugging!", "bad_message", "belongs on standard error: debugging!").await;
    check("[1]", "bad_message", "not an object").await;
    check(r#"{"type":"invented"}"#, "bad_message", "unknown variant `invented`").await;
    check(r#"{"type":"progress","pct":"many"}"#, "bad_message", "invalid type").await;
    check(r#"{"type":"stage","name":"two","protocol":2}"#, "protocol_unsupported", "this runner speaks 1").await;
    check(r#"{"type":"result"}"#, "bad_message", "missing field `result`").await;
}

#[tokio::test]
async fn a_secret_is_in_no_error_wherever_it_was_written() {
    let last = async |text: &str| Desk::new(trusted(script(AgentKind::Process, text))).all("t").await;
    expect_no_secret(&last(r#"echo "debugging $VAULT"; sleep 600"#).await, "bad_message");
    // Over the end of what is quoted, which is 120 bytes.
    let padding = "x".repeat(110);
    expect_no_secret(&last(&format!(r#"echo "{padding} $VAULT {padding}$VAULT"; sleep 600"#)).await, "bad_message");
    let escaped = r#"printf '%s\n' '{"type":"progress","pct":"swordfish-2\""}'; sleep 600"#;
    expect_no_secret(&last(escaped).await, "bad_message");
    let own = r#"printf '%s\n' '{"type":"error","code":"x","message":"no entry for swordfish-2\""}'"#;
    expect_no_secret(&last(own).await, "x");
    expect_no_secret(&last(r#"echo "no entry for $VAULT" >&2; exit 3"#).await, "agent_crashed");
    // The last 2048 bytes are kept: the cut goes through the first secret.
    let cut = r#"{ printf '%s' "$VAULT"; printf '%02024d' 0; echo "and $VAULT"; } >&2; exit 3"#;
    let said = last(cut).await;
    expect_no_secret(&said, "agent_crashed");
    let Some(Said::Error { message, .. }) = said.last() else { panic!("{said:?}") };
    assert!(message.contains("without a result: 0"), "{message}");
}

#[tokio::test]
async fn a_hand_off_is_heard_whole_and_its_reply_is_a_line() {
    let desk = Desk::process(
        r#"echo '{"type":"handoff","id":"one","to":"writer","task":"t","context":{"k":1},"artifacts":["a.md"],"level":"L2"}'
        IFS= read -r reply; echo "{\"type\":\"result\",\"result\":$reply}""#,
    );
    let mut session = desk.start("t").await;
    let Some(Said::Handoff(handoff)) = next(&mut session).await else { panic!("expected a hand-off") };
    assert_eq!((handoff.id.as_deref(), handoff.to.as_str(), handoff.task.as_str()), (Some("one"), "writer", "t"));
    assert_eq!((handoff.context["k"].as_u64(), handoff.artifacts[0].as_str()), (Some(1), "a.md"));
    let reply = Box::new(HandoffReply::failed(ResultKind::TimedOut, "handoff_timed_out", "late"));
    session.tell.send(Tell::Reply { handoff: "one".to_owned(), task_id: None, reply }).await.unwrap();
    let Some(Said::Result(line)) = next(&mut session).await else { panic!("expected what it read") };
    assert_eq!((&line["type"], &line["handoff"], &line["status"]), (&json!("reply"), &json!("one"), &json!("timed_out")), "{line}");
}

#[tokio::test]
async fn a_hand_off_keeps_the_limits_of_every_request() {
    let check = async |fields: &str, words: &str| {
        let desk = Desk::process(&format!(r#"echo '{{"type":"handoff","to":"writer",{fields}}}'; sleep 600"#));
        let message = expect_error(&desk.last("t").await, "bad_message", false);
        assert!(message.contains(words), "{message}");
    };
    check(r#""context":{}"#, "missing field `task`").await;
    check(r#""task":" ""#, "task: expected").await;
    check(r#""task":"t","deadline":"soon""#, "deadline: expected").await;
    check(r#""task":"t","sentiment":2"#, "sentiment: expected").await;
}

#[tokio::test]
async fn a_second_result_makes_the_first_one_void() {
    let one = r#"echo '{"type":"result","result":1}'"#;
    for two in [
        r#"echo '{"type":"result","result":1}'"#,
        r#"echo '{"type":"error","code":"c","message":"m"}'"#,
        r#"echo '{"type":"approval","reason":"now?"}'; sleep 600"#,
    ] {
        // What comes late enough is not heard; those that leave by themselves may take their time.
        let patient = Limits { leave: Duration::from_secs(60), ..Limits::default() };
        let said = limited(&format!("{one}; {two}"), patient).all("t").await;
        assert_eq!(said.len(), 1, "{said:?}");
        expect_error(&said[0], "result_twice", false);
    }
}

#[tokio::test]
async fn what_follows_a_result_does_not_undo_it() {
    async fn check(rest: &str) {
        let said = Desk::process(&format!("echo '{{\"type\":\"result\",\"result\":1}}'\n{rest}")).all("t").await;
        assert_eq!(said.last(), Some(&Said::Result(json!(1))), "{rest}: {said:?}");
    }
    check("exit 7").await;
    check("kill -9 $$").await;
    check("echo garbage").await;
    check("trap '' TERM; sleep 600").await;
    check("cat /dev/zero").await;
    let patient = Limits { leave: Duration::from_secs(60), ..Limits::default() };
    let said = limited(r#"echo '{"type":"result","result":1}'; echo '{"type":"cost","usd":1}'"#, patient).all("t").await;
    assert_eq!(said, [Said::Cost(1.0), Said::Result(json!(1))]);
}

#[tokio::test]
async fn a_last_line_may_lack_its_end() {
    assert_eq!(Desk::process(r#"printf '{"type":"result","result":2}'"#).last("t").await, Said::Result(json!(2)));
}

#[tokio::test]
async fn a_closed_standard_output_is_the_end_of_what_can_be_said() {
    let desk = Desk::process("exec >&-; exec sleep 600");
    assert!(expect_error(&desk.last("t").await, "agent_crashed", true).contains("signal 9"));
}

#[tokio::test]
async fn lines_output_and_data_have_limits() {
    let limits = || Limits { line_bytes_max: 10_000, output_bytes_max: 1 << 20, data_bytes_max: 1000, ..Limits::default() };
    async fn check(text: &str, limits: Limits, code: &str) {
        let desk = limited(text, limits);
        let mut session = desk.start("t").await;
        expect_error(all(&mut session).await.last().unwrap(), code, false);
        desk.cleared().await;
    }
    let long = "head -c 1500 /dev/zero | tr '\\0' x";
    check("cat /dev/zero", limits(), "line_too_long").await;
    check(r#"while :; do echo '{"type":"log","message":"again"}'; done"#, limits(), "output_too_large").await;
    check("yes '' ", limits(), "output_too_large").await;
    check("cat /dev/zero >&2", limits(), "output_too_large").await;
    check(&format!(r#"printf '{{"type":"result","result":"%s"}}\n' "$({long})""#), limits(), "result_too_large").await;
    check(&format!(r#"printf '{{"type":"checkpoint","data":"%s"}}\n' "$({long})"; sleep 600"#), limits(), "message_too_large").await;
    check(&format!(r#"printf '{{"type":"approval","data":"%s"}}\n' "$({long})"; sleep 600"#), limits(), "message_too_large").await;
    check(
        &format!(r#"printf '{{"type":"action","action":"a","data":{{"x":"%s"}}}}\n' "$({long})"; sleep 600"#),
        limits(),
        "message_too_large",
    )
    .await;
    // The limits as installed.
    check("head -c 1048577 /dev/zero | tr '\\0' ' '; echo", Limits::default(), "line_too_long").await;
    let result = r#"printf '{"type":"result","result":"'; head -c 262143 /dev/zero | tr '\0' x; printf '"}\n'"#;
    check(result, Limits::default(), "result_too_large").await;
    let fits = r#"printf '{"type":"result","result":"'; head -c 262142 /dev/zero | tr '\0' x; printf '"}\n'"#;
    assert!(matches!(Desk::process(fits).last("t").await, Said::Result(_)));
}

#[tokio::test]
async fn an_agent_that_is_faster_than_its_listener_waits() {
    let desk = Desk::process(
        r#"n=0; while [ $n -lt 5000 ]; do echo '{"type":"log","message":"'$n'"}'; n=$((n+1)); done; echo '{"type":"result","result":"all"}'"#,
    );
    let mut session = desk.start("t").await;
    eventually("the channel is full", || session.said.len() == 64).await;
    let said = all(&mut session).await;
    assert_eq!(said.len(), 5001);
    for (n, said) in said[..5000].iter().enumerate() {
        assert_eq!(*said, Said::Log(n.to_string()));
    }
}

#[tokio::test]
async fn a_decision_is_told_to_who_asked() {
    let desk = Desk::process(
        r#"echo '{"type":"approval","action":"note.send","reason":"go?","data":{"draft":1}}'
        IFS= read -r decision
        printf '{"type":"result","result":%s}\n' "$decision""#,
    );
    let mut session = desk.start("t").await;
    assert_eq!(
        next(&mut session).await,
        Some(Said::Approval { action: Some("note.send".into()), reason: Some("go?".into()), data: Some(json!({"draft": 1})) })
    );
    session.tell.send(yes()).await.unwrap();
    assert_eq!(all(&mut session).await, [Said::Result(json!({"type": "decision", "approved": true, "reason": "fine", "data": null}))]);
}

#[tokio::test]
async fn a_decision_that_was_made_before_is_there_when_it_asks_again() {
    let desk = Desk::process(
        r#"echo '{"type":"approval"}'
        IFS= read -r decision
        printf '{"type":"result","result":%s}\n' "$decision""#,
    );
    let mut session = desk.start("t").await;
    session.tell.send(Tell::Decision { approved: false, reason: None, data: None }).await.unwrap();
    let said = all(&mut session).await;
    assert_eq!(said[1], Said::Result(json!({"type": "decision", "approved": false, "reason": null, "data": null})));
}

#[tokio::test]
async fn a_cancelled_agent_may_say_goodbye_and_is_made_to_leave_otherwise() {
    let polite = limited(
        r#"echo '{"type":"stage","name":"ready"}'
        IFS= read -r line
        case $line in *cancel*) echo '{"type":"error","code":"stopped","message":"as told"}' ;; esac"#,
        Limits { grace: Duration::from_secs(60), ..Limits::default() },
    );
    let mut session = polite.start("t").await;
    next(&mut session).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(&all(&mut session).await[0], "stopped", false);

    // Time enough to end for the one that does not refuse.
    for (trap, grace_ms, signal) in [("", 3000, "signal 15"), ("trap '' TERM", 500, "signal 9")] {
        let limits = Limits { grace: Duration::from_millis(grace_ms), ..Limits::default() };
        let desk = limited(&format!("{trap}\necho '{{\"type\":\"stage\",\"name\":\"ready\"}}'; sleep 600; sleep 600"), limits);
        let mut session = desk.start("t").await;
        next(&mut session).await;
        session.tell.send(Tell::Cancel).await.unwrap();
        let message = expect_error(&all(&mut session).await[0], "cancelled", false);
        assert!(message.contains(signal), "{message}");
    }
}

#[tokio::test]
async fn a_start_message_larger_than_a_pipe_does_not_block_either_side() {
    // It talks before it reads, more than fits into a pipe.
    let deaf = r#"n=0; while [ $n -lt 4000 ]; do echo '{"type":"log","message":"0123456789012345678901234567890"}'; n=$((n+1)); done
        IFS= read -r start; printf '{"type":"result","result":%s}\n' "${#start}""#;
    let command = ["sh", "-c", deaf].map(str::to_owned).to_vec();
    let desk = Desk::new(Agent { kind: AgentKind::Process(command), ..script(AgentKind::Process, "") });
    let mut asked = start("t");
    asked.context.insert("large".into(), json!("x".repeat(250_000)));
    let said = all(&mut desk.try_start(asked).await.unwrap()).await;
    let Some(Said::Result(length)) = said.last() else { panic!("{:?}", said.last()) };
    assert!(length.as_u64().unwrap() > 250_000);
}

#[tokio::test]
async fn silence_ends_a_session_but_not_while_a_person_decides() {
    in_time(Duration::from_secs(2), async |silence| {
        let short = |text| Desk::new(Agent { silent: Some(silence), ..script(AgentKind::Process, text) });
        let asks = short(r#"echo '{"type":"approval"}'; IFS= read -r decision; echo '{"type":"result","result":"patient"}'"#);
        let hangs = short("sleep 600");
        let mut asking = asks.start("t").await;
        let first = next(&mut asking).await;
        if is_silent(first.as_ref()) {
            return Err("before it asked");
        }
        assert!(matches!(first, Some(Said::Approval { .. })), "{first:?}");
        // Started later and ended by silence: the one that asks has been silent for longer.
        let mut hanging = hangs.start("t").await;
        expect_error(&all(&mut hanging).await[0], "agent_silent", true);
        assert!(asking.said.try_recv().is_err(), "nothing happens meanwhile");
        asking.tell.send(yes()).await.unwrap();
        let said = all(&mut asking).await;
        if is_silent(said.last()) {
            return Err("after it was answered");
        }
        assert_eq!(said, [Said::Result(json!("patient"))]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_artifact_is_kept_before_it_is_named() {
    let desk = Desk::process(
        r#"mkdir deep; printf abc > deep/a.txt
        echo '{"type":"artifact","path":"deep/a.txt"}'
        printf '{"type":"artifact","path":"%s/deep/a.txt","name":"b.bin","content_type":"application/x-b"}\n' "$PWD"
        echo '{"type":"result","result":null}'"#,
    );
    let mut session = desk.start("t").await;
    for (name, content_type) in [("a.txt", "text/plain"), ("b.bin", "application/x-b")] {
        let Some(Said::Artifact(artifact)) = next(&mut session).await else { panic!("expected an artifact") };
        assert_eq!((artifact.name.as_str(), artifact.content_type.as_str(), artifact.size_bytes), (name, content_type, 3));
        assert_eq!(desk.kept(&artifact.uri).unwrap(), b"abc");
    }
}

#[tokio::test]
async fn an_artifact_outside_the_workspace_is_refused() {
    async fn check(prepare: &str, path: &str, code: &str) {
        let desk = limited(
            &format!("{prepare}\nprintf '{{\"type\":\"artifact\",\"path\":\"%s\"}}\\n' \"{path}\"; sleep 600"),
            Limits { artifact_bytes_max: 1000, ..Limits::default() },
        );
        let said = desk.all("t").await;
        assert_eq!(said.len(), 1, "{said:?}");
        expect_error(&said[0], code, false);
        assert!(!desk.data.path().join("artifacts/sha256").exists());
        desk.cleared().await;
    }
    check("", "/etc/passwd", "artifact_refused").await;
    check("", "../../../../../../../etc/passwd", "artifact_refused").await;
    check("ln -s /etc/passwd link", "link", "artifact_refused").await;
    check("ln -s /etc etc", "etc/passwd", "artifact_refused").await;
    check("mkdir d; ln -s .. d/up", "d/up/x", "artifact_refused").await;
    check("mkfifo pipe", "pipe", "artifact_refused").await;
    check("mkdir d", "d", "artifact_refused").await;
    check("", "/dev/zero", "artifact_refused").await;
    check("", "nothing", "artifact_missing").await;
    check("head -c 1001 /dev/zero > large", "large", "artifact_too_large").await;
}

#[tokio::test]
async fn artifacts_are_bounded_in_number() {
    let desk = limited(
        r#"echo x > x; for n in 1 2 3; do echo '{"type":"artifact","path":"x"}'; done; sleep 600"#,
        Limits { artifacts_max: 2, ..Limits::default() },
    );
    let said = desk.all("t").await;
    assert_eq!(said.len(), 3);
    expect_error(&said[2], "artifacts_too_many", false);
}

#[tokio::test]
async fn an_agent_sees_its_workspace_and_the_variables_it_was_allowed() {
    let agent = script(
        AgentKind::Process,
        r#"names=$(env | sed 's/=.*//' | grep -v -e '^PWD$' -e '^_$' -e '^OLDPWD$' -e '^SHLVL$' | sort | tr '\n' ' ')
        printf '{"type":"result","result":["%s","%s","%s","%s","%s","%s"]}\n' "$names" "$ALLOWED" "$PWD" "$HOME" "$TMPDIR" "$(stat -c %a .)""#,
    );
    let desk = Desk::new(Agent { env: vec!["ALLOWED".into(), "ABSENT".into(), "HOME".into()], ..agent });
    let asked = start("t");
    let Some(Said::Result(seen)) = next(&mut desk.try_start(asked.clone()).await.unwrap()).await else { panic!("expected a result") };
    let workspace = desk.workspaces().canonicalize().unwrap().join(asked.task_id.to_string()).join("1.0");
    let workspace = workspace.to_str().unwrap();
    assert_eq!(seen, json!(["ALLOWED HOME PATH TMPDIR ", "yes", workspace, workspace, workspace, "700"]));
}
