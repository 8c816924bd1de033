//! Agents of the protocols of others at their worst, through the whole program: they crash, hang, lie and never end, and each task has one result all the same,
//! each sandbox is given back, and who was asked to stop has heard of it.

use fte_testkit::{Dir, FteProcess, PATIENCE, built_binary, eventually, in_time};
use fte_tests::tasks::result_within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Duration;

use crate::far::{Asked, Far, read_request};
use crate::load::Doors;
use crate::trail::{actions, settled};
use crate::world::{Fte, in_status, post, result, told};

/// What it does, how its task ends, and with which words.
type Deed<'d> = (&'d str, &'d str, &'d str, &'d str);

/// Deeds of an agent that speaks the Agent Client Protocol, from the moment of its prompt on.
const OF_ACP: [Deed<'static>; 9] = [
    ("agent.say('half a'); os.kill(os.getpid(), signal.SIGKILL)", "failed", "agent_crashed", "without a result"),
    ("agent.update('plan', entries=[]); sys.exit(3)", "failed", "agent_crashed", "status 3"),
    ("agent.raw('Traceback (most recent call last)'); time.sleep(600)", "failed", "bad_message", "not JSON"),
    ("agent.send(id=77, result={}); time.sleep(600)", "failed", "response_unexpected", "77"),
    ("agent.update('plan', session='other', entries=[]); time.sleep(600)", "failed", "session_unknown", "other"),
    // In one go: what comes late is not heard.
    (
        "two = json.dumps({'jsonrpc': '2.0', 'id': agent.prompt_id, 'result': {'stopReason': 'end_turn'}}); agent.raw(two + '\\n' + two); time.sleep(600)",
        "failed",
        "result_twice",
        "",
    ),
    ("agent.end('refusal')", "failed", "refusal", ""),
    ("agent.say('done'); agent.end(); sys.exit(7)", "completed", "", ""),
    // What the configuration allows and denies, no person is asked.
    ("agent.say(agent.wish('read', 'look') + ' ' + agent.wish('delete', 'tidy up')); agent.end()", "completed", "", ""),
];

#[tokio::test]
async fn a_coding_agent_that_crashes_lies_or_hangs_has_one_result_and_leaves_nothing_behind() {
    let dir = Dir::new();
    dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
    let agents = "[agents.coder]\nkind = \"acp\"\ncommand = [\"python3\", \"agent.py\", \"\"]\nattempts = 1\npermissions = { delete = \"deny\", execute = \"ask\" }\n";
    let agents = dir.write("agents.toml", agents);
    let args = ["--agents", agents.to_str().unwrap()];
    let process = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    let api = process.api();
    let ask = async |script: &str| post(&api, json!({ "task": format!("#\n{script}") })).await;

    let mut tasks = Vec::new();
    for (script, ..) in OF_ACP {
        tasks.push(ask(script).await);
    }
    for (task, (script, status, code, words)) in tasks.iter().zip(OF_ACP) {
        let end = result(&api, task).await;
        assert_eq!((&end["status"], end["error"]["code"].as_str().unwrap_or_default()), (&json!(status), code), "{script}: {end}");
        assert!(end["error"]["message"].as_str().unwrap_or_default().contains(words), "{script}: {end}");
    }
    let by_policy = &tasks[OF_ACP.len() - 1];
    assert_eq!(result(&api, by_policy).await["result"], "id-allow_once id-reject_once");
    let denied = actions(&api, by_policy, "approval.denied", 1).await;
    assert_eq!(denied[0]["event"]["data"]["actor"], json!({ "type": "service", "id": "policy" }), "{denied:?}");

    // A person says no: that ends the task.
    let refused = ask("agent.say(agent.wish('execute', 'rm -r')); agent.end()").await;
    in_status(&api, &refused, "awaiting_approval").await;
    let no = json!({ "approved": false, "approver": "ada", "reason": "too bold" });
    api.post(&format!("/v1/tasks/{refused}/approval"), &no).await.unwrap().expect_status(200);
    let end = result(&api, &refused).await;
    assert_eq!(end["status"], "rejected", "{end}");
    assert!(end["error"]["message"].as_str().unwrap().contains("ada: too bold"), "{end}");

    // It hangs, and hears that it is called off; or is deaf to all, and killed.
    let hangs = ask("agent.say('on it'); agent.update('plan', entries=[]); agent.wait_for('session/cancel'); agent.say('heard it'); agent.end('cancelled')").await;
    let deaf =
        ask("signal.signal(signal.SIGTERM, signal.SIG_IGN); agent.say('on it'); agent.update('plan', entries=[]); time.sleep(600)").await;
    for task in [&hangs, &deaf] {
        told(&api, task, |event| event["data"]["details"]["log"].to_string().contains("on it")).await;
        api.post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
        assert_eq!(result(&api, task).await["status"], "cancelled");
    }
    tasks.extend([refused, hangs, deaf]);
    settled(&Doors::all(&api), &tasks).await;
    // Nothing of any is left.
    let workspaces = dir.join("data/workspaces");
    eventually(|| async {
        let left = std::fs::read_dir(&workspaces).unwrap().count();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Who says nothing at all is told from who takes long.
#[tokio::test]
async fn an_agent_that_hangs_is_given_up_after_its_time() {
    in_time(Duration::from_secs(2), async |time| {
        let dir = Dir::new();
        dir.write("agent.py", include_str!("../../../crates/runner/tests/agents/acp/agent.py"));
        let script = dir.join("agent.py");
        let agents = format!(
            "[agents.coder]\nkind = \"acp\"\ncommand = [\"python3\", {}, \"\"]\nattempts = 1\ntimeout = \"{}s\"\n",
            json!(script),
            time.as_secs()
        );
        let fte = Fte::with_agents(&agents, &[]).await;
        // It says something now and then, and never comes to an end.
        let task =
            fte.post(json!({ "task": "#\nwhile True: agent.say('still'); agent.update('plan', entries=[]); time.sleep(0.1)" })).await;
        let end = result_within(time + PATIENCE, &fte.api(), &task).await;
        assert_eq!((&end["status"], &end["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{end}");
        settled(&fte.doors(), std::slice::from_ref(&task)).await;
        let events: Value = fte.api().get(&format!("/v1/tasks/{task}/events?limit=1000")).await.unwrap().expect_status(200).json();
        // On a busy machine its time may be over before it was up.
        if events.to_string().contains("still") { Ok(()) } else { Err("it was given up before it began") }
    })
    .await;
}

/// A task of it is called as its text says.
fn state(task: &str, state: &str) -> Value {
    let message = json!({ "messageId": state, "role": "ROLE_AGENT", "parts": [{ "text": format!("it is {state}") }] });
    json!({ "id": task, "contextId": "c", "status": { "state": format!("TASK_STATE_{state}"), "message": message } })
}

/// An agent elsewhere that speaks A2A badly, as its task says.
async fn answer(mut tcp: TcpStream, asked: Asked) -> std::io::Result<()> {
    let (head, body) = read_request(&mut tcp).await?;
    if head.starts_with("GET ") {
        let interface = json!({ "url": "/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0" });
        let card = json!({ "name": "far", "version": "1", "capabilities": { "streaming": true }, "supportedInterfaces": [interface] });
        return say(&mut tcp, "application/json", &card.to_string()).await;
    }
    let call: Value = serde_json::from_slice(&body).unwrap();
    let method = call["method"].as_str().unwrap_or_default();
    let text = call["params"]["message"]["parts"][0]["text"].as_str();
    let task = text.or_else(|| call["params"]["id"].as_str()).unwrap_or_default().to_owned();
    asked.note(format!("{method} {task}"));
    let rpc = |result: Value| json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }).to_string();
    let event = |result: Value| format!("data: {}\n\n", rpc(result));
    match (method, task.as_str()) {
        ("CancelTask", _) => say(&mut tcp, "application/json", &rpc(state(&task, "CANCELED"))).await,
        ("GetTask", "breaks") => say(&mut tcp, "application/json", &rpc(state(&task, "COMPLETED"))).await,
        ("GetTask", _) => say(&mut tcp, "application/json", &rpc(state(&task, "WORKING"))).await,
        (_, "garbage") => say(&mut tcp, "application/json", "<html>502</html>").await,
        (_, "fails") => say(&mut tcp, "text/event-stream", &event(json!({ "task": state(&task, "FAILED") }))).await,
        // A stream that begins well: its server is gone in the midst of it, or nothing more comes.
        (_, task) => {
            let begins = event(json!({ "task": state(task, "WORKING") }));
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            tcp.write_all(format!("{head}{:x}\r\n{begins}\r\n", begins.len()).as_bytes()).await?;
            if task != "breaks" {
                // Until who asked is gone.
                tcp.read_u8().await?;
            }
            Ok(())
        }
    }
}

async fn say(tcp: &mut TcpStream, media: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    tcp.write_all(format!("{head}{body}").as_bytes()).await
}

#[tokio::test]
async fn an_agent_elsewhere_that_breaks_off_lies_or_fails_has_one_result_and_a_cancel_reaches_it() {
    let far = Far::start(answer).await;
    let agents = format!("[agents.far]\nkind = \"http\"\nurl = \"{}\"\nattempts = 1\n", far.url);
    let fte = Fte::with_agents(&agents, &[]).await;
    let mut tasks = Vec::new();
    for (deed, status, code) in [("breaks", "completed", ""), ("garbage", "failed", "bad_message"), ("fails", "failed", "remote_failed")] {
        let task = fte.post(json!({ "task": deed })).await;
        let end = fte.result(&task).await;
        assert_eq!((&end["status"], end["error"]["code"].as_str().unwrap_or_default()), (&json!(status), code), "{deed}: {end}");
        tasks.push(task);
    }
    // The one whose stream broke was asked what became of it, and not begun again.
    assert_eq!((far.asked.count("SendStreamingMessage breaks"), far.asked.count("GetTask breaks")), (1, 1), "{:?}", far.asked.all());

    let long = fte.post(json!({ "task": "long" })).await;
    told(&fte.api(), &long, |event| event["data"].to_string().contains("it is WORKING")).await;
    fte.api().post(&format!("/v1/tasks/{long}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(fte.result(&long).await["status"], "cancelled");
    eventually(|| async { if far.asked.count("CancelTask long") == 1 { Ok(()) } else { Err("not cancelled there") } }).await;
    tasks.push(long);
    settled(&fte.doors(), &tasks).await;
}

#[tokio::test]
async fn an_agent_elsewhere_that_never_ends_is_given_up_and_told_so() {
    in_time(Duration::from_secs(3), async |time| {
        let far = Far::start(answer).await;
        let agents = format!("[agents.far]\nkind = \"http\"\nurl = \"{}\"\nattempts = 1\ntimeout = \"{}s\"\n", far.url, time.as_secs());
        let fte = Fte::with_agents(&agents, &[]).await;
        let task = fte.post(json!({ "task": "never" })).await;
        let end = result_within(time + PATIENCE, &fte.api(), &task).await;
        assert_eq!((&end["status"], &end["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{end}");
        settled(&fte.doors(), std::slice::from_ref(&task)).await;
        // Who does not know yet which task it is cannot call it off.
        let events: Value = fte.api().get(&format!("/v1/tasks/{task}/events?limit=1000")).await.unwrap().expect_status(200).json();
        if !events.to_string().contains("it is WORKING") {
            return Err("its time was over before it began");
        }
        eventually(|| async { if far.asked.count("CancelTask never") == 1 { Ok(()) } else { Err("not cancelled there") } }).await;
        Ok(())
    })
    .await;
}
