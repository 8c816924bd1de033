//! An agent that runs elsewhere hears of it when its task is over here, however that came about, and keeps its work when the runner dies.

use std::sync::{Arc, Mutex};

use fte_testkit::{Answer, FakeApp, PATIENCE, in_time};
use fte_tests::tasks::result_within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};

use crate::world::Fte;

/// An agent that accepts every task and is never done. It remembers the first lines of the requests.
struct Far {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Far {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Far {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(answer(tcp, Arc::clone(&seen)));
            }
        });
        Self { url, asked, serving }
    }

    fn count(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with(method)).count()
    }

    /// Waits until it was asked so often.
    async fn asked(&self, method: &str, times: usize) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.count(method) < times {
            assert!(Instant::now() < end, "waited in vain for {method}: {:?}", self.asked.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn answer(mut tcp: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    tcp.read_exact(&mut body).await.unwrap();
    seen.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
    let accepted = "HTTP/1.1 202 Accepted\r\nlocation: /jobs/1\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // Who asked may be gone.
    drop(tcp.write_all(accepted.as_bytes()).await);
}

fn agents(far: &Far, timeout: &str) -> String {
    format!("[agents.far]\nkind = \"http\"\nurl = \"{}/work\"\nprotocol = \"post\"\ntimeout = \"{timeout}\"\n", far.url)
}

#[tokio::test]
async fn an_agent_elsewhere_hears_that_its_time_is_over() {
    in_time(Duration::from_secs(3), async |timeout| {
        let far = Far::start().await;
        let fte = Fte::with_agents(&agents(&far, &format!("{}s", timeout.as_secs())), &[]).await;
        let task = fte.post(json!({ "task": "for ever" })).await;
        let ended = result_within(timeout + PATIENCE, &fte.api(), &task).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("timed_out"), &json!("agent_timeout")), "{ended}");
        // Who does not know where the work is cannot call it off.
        if far.count("GET /jobs/1 ") == 0 {
            return Err("its time was over before it was known where to ask");
        }
        far.asked("DELETE /jobs/1 ", 1).await;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_elsewhere_keeps_its_work_when_the_runner_dies_and_hears_of_a_cancel() {
    let far = Far::start().await;
    let mut fte = Fte::with_agents(&agents(&far, "10m"), &[]).await;
    let task = fte.post(json!({ "task": "for ever" })).await;
    // Asked again and again: the place where to ask is written down by then.
    far.asked("GET /jobs/1 ", 3).await;
    fte.process.kill().await;
    fte.process.restart().await;
    let before = far.count("GET /jobs/1 ");
    far.asked("GET /jobs/1 ", before + 2).await;
    assert_eq!((far.count("POST "), far.count("DELETE ")), (1, 0));
    fte.api().post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(fte.result(&task).await["status"], "cancelled");
    far.asked("DELETE /jobs/1 ", 1).await;
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
