//! Programs that speak the Agent Client Protocol, well or badly: `acp/agent.py` does what its task says.

use std::path::Path;
use std::time::Duration;

use fte_events::Tokens;
use fte_runner::agents::Limits;
use fte_runner::ports::{Agents as _, Said, Session, Start, Tell};
use fte_service::agents::{Agent, AgentKind, Builtin, Permission, Permissions};
use fte_testkit::in_time;
use serde_json::{Map, Value, json};

use crate::support::{
    Desk, alive, all, dead, eventually, expect_error, expect_no_secret, is_silent, next, open, pids, start, trusted, yes,
};

fn agent(mode: &str, permissions: Permissions) -> Agent {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/acp/agent.py");
    let command = ["python3", script.to_str().unwrap(), mode].map(str::to_owned).to_vec();
    Agent { kind: AgentKind::Acp(command, permissions), sandbox: open(), ..Agent::builtin(Builtin::Echo) }
}

fn desk() -> Desk {
    Desk::new(agent("", Permissions::default()))
}

fn limited(limits: Limits) -> Desk {
    Desk::with(agent("", Permissions::default()), limits)
}

fn permitted(permissions: Permissions) -> Desk {
    Desk::new(agent("", permissions))
}

/// A task that is this script.
fn script(text: &str) -> String {
    format!("#\n{text}")
}

async fn said(desk: &Desk, text: &str) -> Vec<Said> {
    all(&mut begin(desk, text).await).await
}

async fn begin(desk: &Desk, text: &str) -> Session {
    desk.start(&script(text)).await
}

async fn last(desk: &Desk, text: &str) -> Said {
    said(desk, text).await.pop().expect("an agent says something")
}

/// What a script that ends with `agent.say(json.dumps(…))` found.
async fn found(desk: &Desk, text: &str) -> Value {
    match last(desk, &format!("{text}\nagent.end()")).await {
        Said::Result(Value::String(text)) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
        other => panic!("expected a result, got {other:?}"),
    }
}

fn data(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn action(action: &str, value: Value) -> Said {
    Said::Action { action: action.to_owned(), data: data(value) }
}

#[tokio::test]
async fn a_secret_is_in_no_error_wherever_it_was_written() {
    let desk = Desk::new(trusted(agent("", Permissions::default())));
    let last = async |text: &str| said(&desk, &format!("import os\nvault = os.environ['VAULT']\n{text}")).await;
    expect_no_secret(&last("print('debugging ' + vault, flush=True)\ntime.sleep(600)").await, "bad_message");
    expect_no_secret(&last("print('x' * 110 + vault, flush=True)\ntime.sleep(600)").await, "bad_message");
    expect_no_secret(&last("sys.stderr.write('no entry for ' + vault)\nsys.exit(3)").await, "agent_crashed");
}

async fn until_question(session: &mut Session) -> (Option<String>, Option<Value>) {
    loop {
        match next(session).await.expect("a question") {
            Said::Approval { reason, data, .. } => return (reason, data),
            Said::Action { .. } | Said::Progress { .. } | Said::Log(_) | Said::Checkpoint(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_turn_becomes_reports_and_a_result() {
    let desk = desk();
    let text = script(
        r#"
agent.update("available_commands_update", availableCommands=[])
agent.update("invented_by_a_later_version", anything=1)
agent.send(method="_vendor/notice", params={})
agent.say("Let me ")
agent.say("look.")
agent.update("plan", entries=[{"content": "look", "priority": "high", "status": "in_progress"}])
agent.update("tool_call", toolCallId="c", title="Read a", kind="read", status="in_progress", rawInput={"path": "a"})
agent.update("tool_call_update", toolCallId="c", status="completed", rawOutput={"secret": 1})
agent.update("usage_update", used=5, size=10, cost={"amount": 0.25, "currency": "USD"})
agent.say(json.dumps([agent.prompt[1:], agent.cwd == os.getcwd(), agent.initialized["clientCapabilities"]["terminal"]]))
agent.end(usage={"totalTokens": 3, "inputTokens": 2, "outputTokens": 1})
"#,
    );
    let start = Start { context: data(json!({"k": "v"})), ..start(&text) };
    let said = all(&mut desk.try_start(start).await.unwrap()).await;
    let answer = "[[\"Context of the task, as JSON:\\n{\\n  \\\"k\\\": \\\"v\\\"\\n}\"], true, true]";
    let call = |status: &str| json!({"call": "c", "kind": "read", "title": "Read a", "status": status});
    let expected = [
        Said::Log("Let me look.".into()),
        action("plan.made", json!({"steps": [{"step": "look", "priority": "high"}]})),
        Said::Stage("look".into()),
        Said::Progress { pct: Some(0), message: Some("look".into()) },
        action("tool.called", call("in_progress")),
        Said::Progress { pct: None, message: Some("Read a".into()) },
        action("tool.completed", call("completed")),
        Said::Cost(0.25),
        Said::Tokens(Tokens { input: 2, output: 1 }),
        action(
            "tokens.used",
            json!({"input_tokens": 2, "output_tokens": 1, "total_tokens": 3, "context_tokens": 5, "context_tokens_max": 10}),
        ),
        Said::Log(answer.into()),
        Said::Result(json!(format!("Let me look.\n\n{answer}"))),
    ];
    assert_eq!(said, expected);
    desk.cleared().await;
}

#[tokio::test]
async fn a_reason_to_stop_is_an_error_of_its_own() {
    for (reason, code) in
        [("max_tokens", "max_tokens"), ("max_turn_requests", "max_turn_requests"), ("refusal", "refusal"), ("cancelled", "cancelled")]
    {
        let last = last(&desk(), &format!("agent.say('because')\nagent.end('{reason}')")).await;
        let message = expect_error(&last, code, false);
        assert!(code != "refusal" || message.contains("because"), "{message}");
    }
    expect_error(&last(&desk(), "agent.end('bored')").await, "bad_message", false);
}

#[tokio::test]
async fn an_answer_that_is_an_error_ends_the_task() {
    let error =
        |code: i32| format!(r#"agent.send(id=agent.prompt_id, error={{"code": {code}, "message": "no luck", "data": {{"why": "x"}}}})"#);
    let message = expect_error(&last(&desk(), &error(-32603)).await, "agent_failed", true);
    assert_eq!(message, r#"the agent answered session/prompt with the error -32603 no luck: {"why":"x"}"#);
    expect_error(&last(&desk(), &error(-32602)).await, "agent_failed", false);
    let message = expect_error(&last(&desk(), &error(-32000)).await, "auth_required", false);
    assert!(message.contains("by env"), "{message}");
}

#[tokio::test]
async fn what_comes_before_a_session_is_checked() {
    async fn check(text: &str, code: &str, retryable: bool, words: &str) {
        let desk = Desk::new(agent(&format!("before:{text}"), Permissions::default()));
        let message = expect_error(&last(&desk, "").await, code, retryable);
        assert!(message.contains(words), "{text}: {message}");
        desk.cleared().await;
    }
    let version = |version: &str| format!("agent.answer(first, {{'protocolVersion': {version}}})\ntime.sleep(600)");
    check(&version("2"), "protocol_unsupported", false, "speaks version 2 of the Agent Client Protocol; this runner speaks 1").await;
    check(&version("0"), "protocol_unsupported", false, "version 0").await;
    check(&version("'one'"), "bad_message", false, "no valid answer to initialize").await;
    check("agent.send(id=first['id'], error={'code': -32601, 'message': 'what?'})\ntime.sleep(600)", "agent_failed", false, "initialize")
        .await;
    check("agent.update('plan', entries=[])\ntime.sleep(600)", "session_unknown", false, "before there is any").await;
    check("agent.ask('fs/read_text_file', path='a')", "session_unknown", false, "no session s1 yet").await;
    check("print('Traceback: broken', file=sys.stderr); sys.exit(3)", "agent_crashed", true, "status 3 without a result: Traceback").await;
    check("print('Welcome to the agent!', flush=True)\ntime.sleep(600)", "bad_message", false, "line 1 is not JSON").await;
}

#[tokio::test]
async fn an_agent_that_crashes_hangs_or_floods_is_told_from_one_that_worked() {
    let message = expect_error(&last(&desk(), "os.kill(os.getpid(), signal.SIGKILL)").await, "agent_crashed", true);
    assert!(message.contains("was killed by signal 9 without a result"), "{message}");
    let hanging = Desk::new(Agent { silent: Some(Duration::from_secs(3)), ..agent("", Permissions::default()) });
    expect_error(&last(&hanging, "time.sleep(600)").await, "agent_silent", true);
    hanging.cleared().await;
    let limits = || Limits { message_bytes_max: 10_000, conversation_bytes_max: 1 << 20, data_bytes_max: 1000, ..Limits::default() };
    expect_error(&last(&limited(limits()), "while True: sys.stdout.write('x' * 4096)").await, "line_too_long", false);
    expect_error(&last(&limited(limits()), "while True: agent.update('plan', entries=[])").await, "output_too_large", false);
    expect_error(&last(&limited(limits()), "while True: agent.say('x' * 100)").await, "result_too_large", false);
    // Escaped it is larger than it was said.
    expect_error(&last(&limited(limits()), r"agent.say('\n' * 600); agent.end()").await, "result_too_large", false);
    let fits = last(&limited(limits()), "agent.say('x' * 998); agent.end()").await;
    assert_eq!(fits, Said::Result(json!("x".repeat(998))));
}

#[tokio::test]
async fn what_is_not_of_the_protocol_ends_the_session_and_is_named() {
    async fn check(text: &str, code: &str, words: &str) {
        let desk = desk();
        let message = expect_error(&last(&desk, &format!("{text}\ntime.sleep(600)")).await, code, false);
        assert!(message.contains(words), "{text}: {message}");
        desk.cleared().await;
    }
    check("agent.raw('debugging!')", "bad_message", "belongs on standard error: debugging!").await;
    check("agent.raw('[]')", "bad_message", "no object").await;
    check("agent.raw(json.dumps({'id': 1, 'result': 1}))", "bad_message", "line 3").await;
    check("agent.update('tool_call', title='no id')", "bad_message", "no valid session/update").await;
    check("agent.send(method='session/update', params=7)", "bad_message", "no valid session/update").await;
    check("agent.send(id=77, result={})", "response_unexpected", "nothing was asked that 77 answers").await;
    check("agent.send(id=1, result={'protocolVersion': 1})", "response_unexpected", "that 1 answers").await;
    check("agent.send(id='3', result={'stopReason': 'end_turn'})", "response_unexpected", "that 3 answers").await;
    check("agent.update('plan', session='other', entries=[])", "session_unknown", "no session other").await;
    check("agent.session = 'other'; agent.ask('fs/read_text_file', path='a')", "session_unknown", "no session other").await;
    check("agent.send(id=agent.prompt_id, result={'stopReason': 7})", "bad_message", "no valid answer to session/prompt").await;
}

#[tokio::test]
async fn a_second_answer_to_the_prompt_makes_the_first_one_void() {
    // What comes late enough is not heard; these leave by themselves.
    let patient = || limited(Limits { leave: Duration::from_secs(60), ..Limits::default() });
    expect_error(&last(&patient(), "agent.end(); agent.end()").await, "result_twice", false);
    expect_error(&last(&patient(), "agent.end('refusal'); agent.end()").await, "result_twice", false);
    for after in ["agent.raw('garbage')", "agent.say('too late')", "sys.exit(7)", "agent.send(id=9, result=1)", "signal.pause()"] {
        let text = format!("agent.say('done'); agent.end(); {after}");
        assert_eq!(last(&desk(), &text).await, Said::Result(json!("done")), "{after}");
    }
    let cut =
        r#"sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": agent.prompt_id, "result": {"stopReason": "end_turn"}})); sys.exit(0)"#;
    assert_eq!(last(&desk(), cut).await, Said::Result(json!("")));
    let late = said(&patient(), "agent.end(); agent.update('usage_update', used=1, size=2, cost={'amount': 1.5, 'currency': 'USD'})").await;
    assert_eq!(late, [Said::Cost(1.5), Said::Result(json!(""))]);
}

#[tokio::test]
async fn the_configuration_answers_for_a_person_by_kind_of_tool() {
    let permissions = Permissions { execute: Permission::Deny, other: Permission::Allow, ..Permissions::default() };
    let desk = permitted(permissions);
    let text = r#"
both = [agent.wish("read", "look"), agent.wish("execute", "run"), agent.wish("invented", "else")]
both += [agent.wish("execute", "again", options=["allow_once"]), agent.wish("read", "always", options=["allow_always"])]
# The kind of the wish counts, not that of the call before it.
both += [agent.wish("read", "disguised", kind="execute")]
agent.say(json.dumps(both))
agent.end()"#;
    let said = said(&desk, text).await;
    let expected =
        json!(["id-allow_once", "id-reject_once", "id-allow_once", "cancelled", "id-allow_always", "id-reject_once"]).to_string();
    let Some(Said::Result(Value::String(result))) = said.last() else { panic!("{said:?}") };
    assert_eq!(serde_json::from_str::<Value>(result).unwrap().to_string(), expected);
    let answered = |allowed: bool, kind: &str, title: &str| {
        let data = Map::from_iter([("kind".to_owned(), json!(kind)), ("title".to_owned(), json!(title))]);
        Said::ByPolicy { allowed, action: kind.to_owned(), data }
    };
    assert!(said.contains(&answered(true, "read", "look")), "{said:?}");
    assert!(said.contains(&answered(false, "execute", "run")), "{said:?}");
    assert!(!said.iter().any(|said| matches!(said, Said::Approval { .. })));
}

#[tokio::test]
async fn a_question_waits_for_a_person_and_a_restarted_agent_asks_the_same() {
    let text = r#"agent.say(agent.wish("execute", "make", rawInput={"b": 2, "a": "make"}, locations=[{"path": "/x"}])); agent.end()"#;
    let (first, second) = (desk(), desk());
    let mut session = begin(&first, text).await;
    let question = until_question(&mut session).await;
    let shown = json!({"kind": "execute", "title": "make", "files": ["/x"], "input": {"a": "make", "b": 2}});
    assert_eq!(question, (Some("May the agent do this (execute)? make".into()), Some(shown)));
    // Parked: the sandbox is given back while a person decides.
    drop(session);
    first.cleared().await;
    let mut session = begin(&second, text).await;
    assert_eq!(until_question(&mut session).await, question);
    session.tell.send(yes()).await.unwrap();
    assert_eq!(all(&mut session).await.last(), Some(&Said::Result(json!("id-allow_once"))));
}

#[tokio::test]
async fn a_rejection_reaches_the_agent() {
    let desk = desk();
    let mut session = begin(&desk, r#"agent.say(agent.wish("execute", "make")); agent.end()"#).await;
    until_question(&mut session).await;
    session.tell.send(Tell::Decision { approved: false, reason: None, data: None }).await.unwrap();
    assert_eq!(all(&mut session).await.last(), Some(&Said::Result(json!("id-reject_once"))));
}

#[tokio::test]
async fn several_wishes_are_asked_one_after_the_other_and_only_so_many_wait() {
    let desk = desk();
    let text = r#"
for n in range(34):
    wish = {"toolCallId": str(n), "title": "wish " + str(n), "kind": "execute"}
    options = [{"optionId": "yes", "name": "y", "kind": "allow_once"}]
    agent.send(id=n, method="session/request_permission", params={"sessionId": "s1", "toolCall": wish, "options": options})
answers = [agent.read(), agent.read()]
agent.say("two are refused")
agent.update("plan", entries=[])
answers += [agent.read() for n in range(32)]
agent.say(json.dumps([[answer["id"], "error" in answer] for answer in answers]))
agent.end()"#;
    let mut session = begin(&desk, text).await;
    let question = |n: u32| Some(format!("May the agent do this (execute)? wish {n}"));
    assert_eq!(until_question(&mut session).await.0, question(0));
    assert_eq!(next(&mut session).await, Some(Said::Log("two are refused".into())));
    for n in 1..32 {
        session.tell.send(yes()).await.unwrap();
        assert_eq!(until_question(&mut session).await.0, question(n));
    }
    session.tell.send(yes()).await.unwrap();
    let said = all(&mut session).await;
    let Some(Said::Result(Value::String(result))) = said.last() else { panic!("{said:?}") };
    let answers: Vec<(u32, bool)> = serde_json::from_str(result.strip_prefix("two are refused\n\n").unwrap()).unwrap();
    let mut refused: Vec<u32> = answers.iter().filter(|(_, refused)| *refused).map(|(id, _)| *id).collect();
    refused.sort_unstable();
    assert_eq!((refused, answers.len()), (vec![32, 33], 34));
}

#[tokio::test]
async fn an_agent_that_waits_for_a_person_may_be_silent() {
    in_time(Duration::from_secs(3), async |silence| {
        let desk = Desk::new(Agent { silent: Some(silence), ..agent("", Permissions::default()) });
        let mut session = begin(&desk, r#"agent.say(agent.wish("execute", "make")); agent.end()"#).await;
        let mut first = next(&mut session).await;
        while matches!(first, Some(Said::Action { .. } | Said::Progress { .. })) {
            first = next(&mut session).await;
        }
        if is_silent(first.as_ref()) {
            return Err("before it asked");
        }
        assert!(matches!(first, Some(Said::Approval { .. })), "{first:?}");
        let longer = silence + Duration::from_secs(2);
        assert!(tokio::time::timeout(longer, session.said.recv()).await.is_err(), "nothing happens meanwhile");
        session.tell.send(yes()).await.unwrap();
        let said = all(&mut session).await;
        if is_silent(said.last()) {
            return Err("after it was answered");
        }
        assert_eq!(said.last(), Some(&Said::Result(json!("id-allow_once"))));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_cancel_reaches_the_agent_and_its_open_question() {
    let desk = limited(Limits { grace: Duration::from_secs(60), ..Limits::default() });
    let text =
        r#"agent.say(agent.wish("execute", "make") + " " + agent.wish("execute", "more") + str(agent.seen)); agent.end("cancelled")"#;
    let mut session = begin(&desk, text).await;
    until_question(&mut session).await;
    session.tell.send(Tell::Cancel).await.unwrap();
    let said = all(&mut session).await;
    expect_error(said.last().unwrap(), "cancelled", false);
    assert!(said.contains(&Said::Log("cancelled cancelled['session/cancel']".into())), "{said:?}");

    let stubborn = limited(Limits { grace: Duration::from_millis(200), ..Limits::default() });
    let text = "signal.signal(signal.SIGTERM, signal.SIG_IGN); agent.say('hm'); agent.update('plan', entries=[]); time.sleep(600)";
    let mut session = begin(&stubborn, text).await;
    assert_eq!(next(&mut session).await, Some(Said::Log("hm".into())));
    session.tell.send(Tell::Cancel).await.unwrap();
    expect_error(all(&mut session).await.last().unwrap(), "cancelled", false);
    stubborn.cleared().await;
}

#[tokio::test]
async fn files_are_read_and_written_inside_the_workspace_only() {
    let desk = desk();
    let text = r#"
os.symlink("/etc", "out")
paths = ["/etc/passwd", "../x", "out/passwd", agent.cwd + "/../x", "out/made"]
refused = [["error" in agent.ask("fs/read_text_file", path=path), "error" in agent.ask("fs/write_text_file", path=path, content="x")] for path in paths]
written = agent.ask("fs/write_text_file", path=agent.cwd + "/deep/note", content="one\ntwo\nthree\n")
agent.say(json.dumps([all(map(all, refused)), "error" in written, open("deep/note").read(),
    agent.ask("fs/read_text_file", path=agent.cwd + "/deep/note", line=2, limit=1)["content"],
    agent.ask("fs/read_text_file", path=agent.cwd + "/nowhere")["error"]["code"],
    agent.ask("fs/write_text_file", path=agent.cwd + "/large", content="x" * (1024 * 1024 + 1))["error"]["code"],
    agent.ask("fs/read_text_file", path=7)["error"]["code"], agent.ask("_vendor/wish")["error"]["code"]]))"#;
    let expected = json!([true, false, "one\ntwo\nthree\n", "two\n", -32002, -32602, -32602, -32601]);
    assert_eq!(found(&desk, text).await, expected);
}

#[tokio::test]
async fn what_is_denied_is_neither_offered_nor_done() {
    let deny = Permission::Deny;
    let desk = permitted(Permissions { read: deny, edit: deny, execute: deny, ..Permissions::default() });
    let text = r#"
open("note", "w").write("text")
offered = agent.initialized["clientCapabilities"]
codes = [agent.ask("fs/read_text_file", path="note")["error"]["code"], agent.ask("fs/write_text_file", path="other", content="x")["error"]["code"],
    agent.ask("terminal/create", command="touch third")["error"]["code"]]
agent.say(json.dumps([offered["fs"].get("readTextFile", False), offered["fs"].get("writeTextFile", False), offered.get("terminal", False), codes,
    sorted(os.listdir("."))]))"#;
    assert_eq!(found(&desk, text).await, json!([false, false, false, [-32601, -32601, -32601], ["note"]]));
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let desk = desk();
    // Its own requests are not read on while it reads no answers.
    let text = r#"
import threading
open("large", "w").write("x" * 100000)
def flood():
    for n in range(300):
        agent.send(id=1000 + n, method="fs/read_text_file", params={"sessionId": "s1", "path": "large", "_meta": {"filling": "y" * 4000}})
asking = threading.Thread(target=flood)
asking.start()
asking.join(timeout=2)
waits = asking.is_alive()
sizes = [len(agent.read()["result"]["content"]) for n in range(300)]
agent.say(json.dumps([waits, len(sizes), min(sizes)]))"#;
    assert_eq!(found(&desk, text).await, json!([true, 300, 100_000]));
}

#[tokio::test]
async fn commands_run_in_the_workspace_and_their_output_is_bounded() {
    let desk = limited(Limits { file_bytes_max: 1000, terminals_max: 2, ..Limits::default() });
    let text = r#"
def run(**params):
    made = agent.ask("terminal/create", **params)
    if "error" in made:
        return made["error"]["message"]
    exit = agent.ask("terminal/wait_for_exit", terminalId=made["terminalId"])
    output = agent.ask("terminal/output", terminalId=made["terminalId"])
    agent.ask("terminal/release", terminalId=made["terminalId"])
    return [output["output"], output["truncated"], exit.get("exitCode"), exit.get("signal"), output["exitStatus"] is not None]
os.mkdir("deep")
results = [
    run(command="pwd; echo $A; exit 3", env=[{"name": "A", "value": "ü"}]),
    run(command="printf", args=["%s|", "a b", "c"]),
    run(command="pwd", cwd=agent.cwd + "/deep"),
    run(command="kill -9 $$"),
    run(command="yes | head -c 5000"),
    run(command="echo abcdef", outputByteLimit=3),
    run(command="nowhere-to-be-found", args=["x"])[:19],
    "inside" in run(command="pwd", cwd="/"),
    agent.ask("terminal/output", terminalId="99")["error"]["code"],
]
two = [agent.ask("terminal/create", command="sleep 600") for n in range(2)]
results += [agent.ask("terminal/create", command="true")["error"]["message"]]
agent.ask("terminal/kill", terminalId=two[0]["terminalId"])
results += [agent.ask("terminal/wait_for_exit", terminalId=two[0]["terminalId"]).get("signal")]
results = json.loads(json.dumps(results).replace(agent.cwd, "WORKSPACE"))
agent.say(json.dumps(results))"#;
    let expected = json!([
        ["WORKSPACE\nü\n", false, 3, null, true],
        ["a b|c|", false, 0, null, true],
        ["WORKSPACE/deep\n", false, 0, null, true],
        ["", false, null, "SIGKILL", true],
        ["y\n".repeat(500), true, 0, null, true],
        ["ef\n", true, 0, null, true],
        "nowhere-to-be-found",
        true,
        -32002,
        "at most 2 terminals at a time; release one",
        "SIGKILL",
    ]);
    assert_eq!(found(&desk, text).await, expected);
    desk.cleared().await;
}

/// A command with a child, both deaf to a wish that they end; says the ids of both.
const COMMAND: &str = r#"
agent.ask("terminal/create", command="trap '' TERM; sleep 600 & echo $$ $! > pids.new; mv pids.new pids; wait; sleep 600")
while not os.path.exists("pids"): time.sleep(0.01)
agent.say(open("pids").read().strip())
agent.update("plan", entries=[])
"#;

#[tokio::test]
async fn commands_end_with_the_session_however_it_ends() {
    for end in ["agent.end()", "sys.exit(3)", "agent.raw('garbage')"] {
        let desk = desk();
        let mut session = begin(&desk, &format!("{COMMAND}\n{end}")).await;
        let Some(Said::Log(line)) = next(&mut session).await else { panic!("expected process ids") };
        let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.len(), 2);
        all(&mut session).await;
        dead(&pids).await;
        desk.cleared().await;
    }
    let desk = desk();
    let mut session = begin(&desk, &format!("{COMMAND}\ntime.sleep(600)")).await;
    let pids = pids(&mut session).await;
    drop(session);
    dead(&pids).await;
    desk.cleared().await;
}

#[tokio::test]
async fn files_that_it_wrote_or_shows_as_changed_are_artifacts_at_its_end() {
    let desk = limited(Limits { artifacts_max: 3, artifact_bytes_max: 100, ..Limits::default() });
    let text = r#"
agent.ask("fs/write_text_file", path=agent.cwd + "/deep/notes.md", content="draft")
agent.ask("fs/write_text_file", path="deep/notes.md", content="final")
agent.ask("fs/write_text_file", path="../outside", content="no")
open("made.txt", "w").write("by a tool")
open("large.txt", "w").write("x" * 101)
open("unnamed.txt", "w").write("nobody speaks of it")
diff = lambda name: {"type": "diff", "path": name, "newText": "what it shows does not count"}
agent.update("tool_call", toolCallId="c", title="edit", kind="edit", status="in_progress", content=[diff(agent.cwd + "/made.txt"), diff("/etc/passwd")])
agent.update("tool_call_update", toolCallId="c", status="completed", content=[diff("large.txt")])
agent.say("done")
agent.end()"#;
    let said = said(&desk, text).await;
    let kept: Vec<(String, Vec<u8>)> = said
        .iter()
        .filter_map(|said| if let Said::Artifact(made) = said { Some((made.name.clone(), desk.kept(&made.uri)?)) } else { None })
        .collect();
    assert_eq!(kept, [("notes.md".to_owned(), b"final".to_vec()), ("made.txt".to_owned(), b"by a tool".to_vec())]);
    let warnings: Vec<&str> =
        said.iter().filter_map(|said| if let Said::Log(line) = said { line.strip_prefix("warning: ") } else { None }).collect();
    assert_eq!(warnings[0], "of the files that the agent made, 3 are kept", "{warnings:?}");
    assert_eq!(said.last(), Some(&Said::Result(json!("done"))));
}

#[tokio::test]
async fn who_falls_over_a_session_of_before_begins_anew_at_its_next_start() {
    let kept = Start { checkpoint: Some(json!({"acp_session": "old", "acp_usd": 2.0})), ..start(&script("agent.end()")) };
    let said = async |mode: &str, silence: Duration| {
        let agent = Agent { silent: Some(silence), ..agent(mode, Permissions::default()) };
        all(&mut Desk::new(agent).try_start(kept.clone()).await.unwrap()).await
    };
    let forgotten = |said: &[Said], code: &str, retryable: bool| {
        assert_eq!(said[0], Said::Checkpoint(Value::Null), "{said:?}");
        expect_error(&said[1], code, retryable);
        assert_eq!(said.len(), 2, "{said:?}");
    };
    let patient = Duration::from_secs(60);
    forgotten(&said("load-dies", patient).await, "agent_crashed", true);
    forgotten(&said("load-lies", patient).await, "session_unknown", false);
    in_time(Duration::from_secs(3), async |silence| {
        let said = said("load-hangs", silence).await;
        if said.len() == 1 && is_silent(said.first()) {
            return Err("before it was asked for the session");
        }
        forgotten(&said, "agent_silent", true);
        Ok(())
    })
    .await;
}

/// Keeps agents ready for as long as it is there.
struct Keeping(tokio::task::JoinHandle<()>);

impl Keeping {
    fn of(desk: &Desk) -> Self {
        Self(tokio::spawn(desk.host.keep_warm()))
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An agent that waits for its task, in this mode.
fn ready(mode: &str) -> Desk {
    Desk::new(Agent { min_warm: 1, max: 2, ..agent(mode, Permissions::default()) })
}

/// The number of the process that waits, as it wrote it down once it was asked to initialise.
async fn greeted(desk: &Desk) -> u32 {
    let ahead = desk.workspaces().join("ahead");
    let number = || {
        let mut workspaces = std::fs::read_dir(&ahead).ok()?.flatten().map(|entry| entry.path());
        workspaces.find_map(|workspace| std::fs::read_to_string(workspace.join("greeted")).ok()?.parse().ok())
    };
    eventually("one waits and was greeted", || number().is_some_and(alive) && desk.host.is_warm("agent")).await;
    number().expect("it was there")
}

const GREETED: &str = "before:open('greeting', 'w').write(str(os.getpid()))\nos.rename('greeting', 'greeted')";

#[tokio::test]
async fn who_waits_for_a_task_was_initialised_serves_one_and_is_replaced() {
    let desk = ready(GREETED);
    let _keeping = Keeping::of(&desk);
    let text = r#"agent.say(json.dumps([os.getpid(), agent.cwd == os.getcwd(), os.listdir("."), agent.initialized["protocolVersion"]]))"#;
    let mut served = Vec::new();
    for _ in 0..3 {
        let waiting = greeted(&desk).await;
        assert_eq!(found(&desk, text).await, json!([waiting, true, ["greeted"], 1]));
        served.push(waiting);
        dead(&[waiting]).await;
    }
    // One that died while it waited is no answer to a task.
    let waiting = greeted(&desk).await;
    assert!(!served.contains(&waiting));
    rustix::process::kill_process(rustix::process::Pid::from_raw(waiting.cast_signed()).unwrap(), rustix::process::Signal::KILL).unwrap();
    dead(&[waiting]).await;
    assert_ne!(found(&desk, text).await[0], json!(waiting));
    // What is wrong with how it was greeted is wrong with its task.
    let desk = ready("before:agent.answer(first, {'protocolVersion': 2})\ntime.sleep(600)");
    let _keeping = Keeping::of(&desk);
    eventually("one waits", || desk.host.is_warm("agent")).await;
    expect_error(&last(&desk, "").await, "protocol_unsupported", false);
}

#[tokio::test]
async fn who_waits_for_a_task_can_take_a_session_up_again() {
    let desk = ready("load");
    let _keeping = Keeping::of(&desk);
    eventually("one waits", || desk.host.is_warm("agent")).await;
    let kept = Start { checkpoint: Some(json!({"acp_session": "old"})), ..start(&script("agent.say(agent.opened); agent.end()")) };
    let said = all(&mut desk.try_start(kept).await.unwrap()).await;
    assert_eq!(said.last(), Some(&Said::Result(json!("session/load"))), "{said:?}");
}

#[tokio::test]
async fn a_session_is_taken_up_again_where_the_agent_can() {
    let text = r#"agent.update("usage_update", used=1, size=2, cost={"amount": 3.0, "currency": "USD"})
agent.say(agent.opened + " " + agent.session + " " + agent.prompt[0][:30]); agent.end()"#;
    let loads = Desk::new(agent("load", Permissions::default()));
    let said = said(&loads, text).await;
    assert_eq!(said[0], Said::Checkpoint(json!({"acp_session": "s1"})));
    assert_eq!(said[1..3], [Said::Cost(3.0), Said::Checkpoint(json!({"acp_session": "s1", "acp_usd": 3.0}))]);

    let kept = Start { checkpoint: Some(json!({"acp_session": "old", "acp_usd": 2.0})), ..start(&script(text)) };
    let again = all(&mut loads.try_start(kept.clone()).await.unwrap()).await;
    let expected = [
        Said::Cost(1.0),
        Said::Checkpoint(json!({"acp_session": "old", "acp_usd": 3.0})),
        action("tokens.used", json!({"context_tokens": 1, "context_tokens_max": 2})),
        Said::Log("session/load old This session was interrupted a".into()),
        Said::Result(json!("session/load old This session was interrupted a")),
    ];
    assert_eq!(again, expected);

    // It forgot, or never could.
    let forgets = Desk::new(agent("load-fails", Permissions::default()));
    let anew = all(&mut forgets.try_start(kept.clone()).await.unwrap()).await;
    assert!(matches!(&anew[0], Said::Log(line) if line.contains("no such session")), "{anew:?}");
    assert_eq!(anew[1..3], [Said::Checkpoint(json!({"acp_session": "s1"})), Said::Cost(3.0)]);
    assert!(matches!(anew.last(), Some(Said::Result(Value::String(text))) if text.starts_with("session/load s1 #")), "{anew:?}");
    let never = all(&mut desk().try_start(kept).await.unwrap()).await;
    assert!(matches!(&never[..], [Said::Cost(_), Said::Action { .. }, Said::Log(_), Said::Result(_)]), "{never:?}");
}
