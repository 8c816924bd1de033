//! An agent that runs elsewhere hears of it when its task is over here, however that came about, and keeps its work when the runner dies.

use std::io;
use std::time::Duration;

use fte_testkit::{Answer, FakeApp, PATIENCE, eventually_within, in_time};
use fte_tests::tasks::result_within;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::far::{Asked, Far, read_request};
use crate::world::Fte;

/// Waits until it was asked so often.
async fn asked(far: &Far, method: &str, times: usize) {
    let enough = || async { if far.asked.count(method) >= times { Ok(()) } else { Err(far.asked.all()) } };
    eventually_within(Duration::from_secs(60), enough).await;
}

/// An agent that accepts every task and is never done.
async fn answer(mut tcp: TcpStream, asked: Asked) -> io::Result<()> {
    let (head, _) = read_request(&mut tcp).await?;
    asked.note(head.lines().next().unwrap_or_default().to_owned());
    let accepted = "HTTP/1.1 202 Accepted\r\nlocation: /jobs/1\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    tcp.write_all(accepted.as_bytes()).await
}

fn agents(far: &Far, timeout: &str) -> String {
    format!("[agents.far]\nkind = \"http\"\nurl = \"{}/work\"\nprotocol = \"post\"\ntimeout = \"{timeout}\"\n", far.url)
}

#[tokio::test]
async fn an_agent_elsewhere_hears_that_its_time_is_over() {
    in_time(Duration::from_secs(3), async |timeout| {
        let far = Far::start(answer).await;
        let fte = Fte::with_agents(&agents(&far, &format!("{}s", timeout.as_secs())), &[]).await;
        let task = fte.post(json!({ "task": "for ever" })).await;
        let ended = result_within(timeout + PATIENCE, &fte.api(), &task).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{ended}");
        // Who does not know where the work is cannot call it off.
        if far.asked.count("GET /jobs/1 ") == 0 {
            return Err("its time was over before it was known where to ask");
        }
        asked(&far, "DELETE /jobs/1 ", 1).await;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_elsewhere_keeps_its_work_when_the_runner_dies_and_hears_of_a_cancel() {
    let far = Far::start(answer).await;
    let mut fte = Fte::with_agents(&agents(&far, "10m"), &[]).await;
    let task = fte.post(json!({ "task": "for ever" })).await;
    // Asked again and again: the place where to ask is written down by then.
    asked(&far, "GET /jobs/1 ", 3).await;
    fte.process.kill().await;
    fte.process.restart().await;
    let before = far.asked.count("GET /jobs/1 ");
    asked(&far, "GET /jobs/1 ", before + 2).await;
    assert_eq!((far.asked.count("POST "), far.asked.count("DELETE ")), (1, 0));
    fte.api().post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(fte.result(&task).await["status"], "cancelled");
    asked(&far, "DELETE /jobs/1 ", 1).await;
}

/// An agent elsewhere that speaks A2A: asks a person before it is done with "ask", and is never done with anything else.
async fn a2a() -> FakeApp {
    FakeApp::start(json!([]), |asked| async move {
        if asked.path.ends_with(".json") {
            let interface = json!({ "url": "/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0" });
            return Answer::json(
                &json!({ "name": "far", "version": "1", "capabilities": { "streaming": false }, "supportedInterfaces": [interface] }),
            );
        }
        let call = asked.json();
        let message = &call["params"]["message"];
        let says = |state: &str, words: Value| {
            let message = json!({ "messageId": state, "role": "ROLE_AGENT", "parts": words });
            json!({ "id": "t-1", "contextId": "c-1", "status": { "state": format!("TASK_STATE_{state}"), "message": message } })
        };
        let asks = json!([{ "text": "May it be sent?" }, { "data": { "to": "ada" } }]);
        let (method, task) = (call["method"].as_str().unwrap_or_default(), message["parts"][0]["text"].as_str().unwrap_or_default());
        let result = match method {
            // The answer: its words, and what was decided.
            "SendMessage" if message["taskId"].is_string() => {
                let mut task = says("COMPLETED", message["parts"].clone());
                task["artifacts"] = json!([{ "artifactId": "a", "name": "sent.md", "parts": [{ "text": "sent" }] }]);
                json!({ "task": task })
            }
            "SendMessage" if task == "ask" => json!({ "task": says("INPUT_REQUIRED", asks) }),
            "SendMessage" => json!({ "task": says("WORKING", json!([{ "text": "on it" }])) }),
            "CancelTask" => says("CANCELED", json!([])),
            // Its state survives whoever asks.
            _ => says(if call["params"]["id"] == "t-1" { "WORKING" } else { "FAILED" }, json!([])),
        };
        Answer::json(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
    })
    .await
}

#[tokio::test]
async fn an_a2a_agent_asks_a_person_is_followed_and_cancelled() {
    let far = a2a().await;
    let agents = format!("[agents.far]\nkind = \"http\"\nurl = \"http://127.0.0.1:{}\"\n", far.port());
    let mut fte = Fte::with_agents(&agents, &[]).await;
    let calls = |method: &str| far.received().iter().filter(|call| call.method == "POST" && call.json()["method"] == method).count();

    let asking = fte.post(json!({ "task": "ask" })).await;
    let waiting = fte.in_status(&asking, "awaiting_approval").await;
    assert_eq!(
        (&waiting["approval"]["reason"], &waiting["approval"]["data"]["details"]),
        (&json!("May it be sent?"), &json!({ "to": "ada" })),
        "{waiting}"
    );
    let yes = json!({ "approved": true, "reason": "go on", "approver": "ada" });
    fte.api().post(&format!("/v1/tasks/{asking}/approval"), &yes).await.unwrap().expect_status(200);
    let end = fte.result(&asking).await;
    assert_eq!(end["result"], json!(["go on", { "approved": true, "reason": "go on" }]), "{end}");
    let sent = fte.api().get(&format!("/v1/tasks/{asking}/artifacts/sent.md")).await.unwrap().expect_status(200);
    assert_eq!(sent.text(), "sent");

    // The runner dies; the task elsewhere goes on, is followed by its id and not begun again, and hears of a cancel.
    let long = fte.post(json!({ "task": "long" })).await;
    let asked = |times: usize| {
        fte_testkit::eventually(move || async move {
            let polled = calls("GetTask");
            if polled >= times { Ok(()) } else { Err(format!("asked {polled} times")) }
        })
    };
    asked(2).await;
    let begun = calls("SendMessage");
    fte.process.kill().await;
    fte.process.restart().await;
    asked(calls("GetTask") + 2).await;
    assert_eq!((calls("SendMessage"), calls("CancelTask")), (begun, 0));
    fte.api().post(&format!("/v1/tasks/{long}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(fte.result(&long).await["status"], "cancelled");
    fte_testkit::eventually(|| async { if calls("CancelTask") == 1 { Ok(()) } else { Err("not cancelled there") } }).await;
}
