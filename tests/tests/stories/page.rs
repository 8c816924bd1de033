//! A person decides in a browser: a real one, and a real click.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use fte_testkit::Dir;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::tenants::Guarded;
use crate::world::Fte;

/// How long a browser may take for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Chromium, driven through its pipe: a message ends with a zero byte.
struct Browser {
    _child: Child,
    _dir: Dir,
    to: File,
    from: BufReader<File>,
    id: u64,
    session: Option<String>,
}

impl Browser {
    async fn start() -> Self {
        let dir = Dir::new();
        let (to, from) = (dir.write("none", "").with_file_name("to"), dir.write("none", "").with_file_name("from"));
        let made = Command::new("mkfifo").args([&to, &from]).status().await.unwrap();
        assert!(made.success());
        // Opened for both ways, so that nobody waits for the other end.
        let script = r#"exec 3<>"$1" 4<>"$2"; shift 2; exec "$@""#;
        let profile = format!("--user-data-dir={}", to.with_file_name("profile").display());
        let options = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--remote-debugging-pipe",
        ];
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args([&to, &from]).args(options).arg(profile).arg("about:blank");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).process_group(0).spawn();
        let open = |path: &Path| std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (to, from) = (File::from_std(open(&to)), BufReader::new(File::from_std(open(&from))));
        Self { _child: child.expect("chromium is installed: apt install chromium"), _dir: dir, to, from, id: 0, session: None }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.id += 1;
        let mut message = json!({ "id": self.id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut line = message.to_string().into_bytes();
        line.push(0);
        self.to.write_all(&line).await.unwrap();
        self.to.flush().await.unwrap();
        let answer = async {
            loop {
                let mut line = Vec::new();
                self.from.read_until(0, &mut line).await.unwrap();
                line.pop();
                let answer: Value = serde_json::from_slice(&line).unwrap();
                if answer["id"] == json!(self.id) {
                    return answer;
                }
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("the browser does not answer {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn open(&mut self, url: &str) {
        let target = self.call("Target.createTarget", json!({ "url": url })).await;
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true })).await;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
    }

    async fn value(&mut self, expression: &str) -> Value {
        let evaluated = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true })).await;
        evaluated["result"]["value"].clone()
    }

    /// Until an element with this id is there; its text.
    async fn text(&mut self, id: &str) -> String {
        let began = std::time::Instant::now();
        loop {
            let text = self.value(&format!("document.getElementById('{id}')?.textContent ?? null")).await;
            if let Some(text) = text.as_str() {
                return text.to_owned();
            }
            let page = self.value("document.body?.innerText").await;
            assert!(began.elapsed() < PATIENCE, "there is no {id} on the page: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A click of the mouse on the middle of an element.
    async fn click(&mut self, id: &str) {
        self.text(id).await;
        let place = format!(
            "(() => {{ const e = document.getElementById('{id}'); e.scrollIntoView(); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let place = self.value(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Types into what was clicked on.
    async fn type_into(&mut self, id: &str, text: &str) {
        self.click(id).await;
        self.call("Input.insertText", json!({ "text": text })).await;
    }
}

/// Tells what it was given.
const TELLER: &str = r#"
    default = "teller"
    [agents.teller]
    kind = "process"
    command = ["python3", "-c", "import json, sys; start = json.loads(sys.stdin.readline()); print(json.dumps({'type': 'result', 'result': [start['task'], start['context']['account']]}))"]
"#;

/// The text of a question that would be a script, were it ever read as a document.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_edits_and_approves_with_a_click() {
    let fte = Fte::with_agents(TELLER, &[]).await;
    // JavaScript's own numbers end two below that.
    let context = json!({ "account": 9_007_199_254_740_993_u64 });
    let task = fte.post(json!({ "task": format!("greet {HOSTILE}"), "context": context, "require_approval": true })).await;
    let link = fte.asking(&task, 1).await["approval"]["link"].as_str().unwrap().to_owned();

    let mut browser = Browser::start().await;
    browser.open(&link).await;
    let shown = browser.text("data").await;
    assert!(shown.contains("onerror") && shown.contains("9007199254740993"), "the question is shown as text, to the digit: {shown}");
    browser.click("change").await;
    browser.value("document.getElementById('edit').select()").await;
    browser.value("document.getElementById('edit').value = ''").await;
    browser.type_into("edit", r#"{"task": "greet the board", "context": {"account": 9007199254740995}}"#).await;
    browser.click("approve").await;
    assert!(browser.text("error").await.contains("who you are"), "nobody decides without a name");
    browser.type_into("approver", "ada").await;
    browser.type_into("reason", "kindly").await;
    browser.click("approve").await;
    assert_eq!(browser.text("outcome").await, "Approved");
    assert_eq!(fte.result(&task).await["result"], json!(["greet the board", 9_007_199_254_740_995_u64]));
    assert_ne!(browser.value("document.title").await, json!("owned"));
    let seen: Value = fte.api().get(&format!("/v1/approvals/{task}")).await.unwrap().expect_status(200).json();
    assert_eq!((&seen["decision"]["approver"], &seen["decision"]["reason"]), (&json!("ada"), &json!("kindly")), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_click_comes_second_sees_who_was_first() {
    let fte = Fte::start().await;
    let mut browser = Browser::start().await;
    for (first, said) in [(true, "was decided so before you did"), (false, "was rejected by bob at ")] {
        let task = fte.post(json!({ "task": "spend", "require_approval": true })).await;
        let link = fte.asking(&task, 1).await["approval"]["link"].as_str().unwrap().to_owned();
        browser.session = None;
        browser.open(&link).await;
        browser.type_into("approver", "ada").await;
        let decision = json!({ "approved": first, "approver": "bob" });
        fte.api().post(&format!("/v1/tasks/{task}/approval"), &decision).await.unwrap().expect_status(200);
        browser.click("approve").await;
        let notice = browser.text("notice").await;
        assert!(notice.contains(said), "{notice}");
        assert_eq!(browser.text("outcome").await, if first { "Approved" } else { "Rejected" });
        let page = browser.value("document.body.innerText").await;
        assert!(page.as_str().unwrap().contains("By bob, "), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_keys_are_in_force_the_page_asks_for_one_and_the_name_is_its_owner_s() {
    let fte = Guarded::start().await;
    let api = fte.somebody(&["root2", "--role", "admin", "--tenant", "*"]).await;
    let ada = fte.key(&["ada", "--role", "approve"]);
    fte.somebody_with(&ada).await;
    let task = fte_tests::tasks::post(&api, json!({ "task": "x", "require_approval": true })).await;
    let waiting = fte_tests::tasks::in_status(&api, &task, "awaiting_approval").await;
    let link = waiting["approval"]["link"].as_str().unwrap().to_owned();
    // Without a key it is a page without a word of the task.
    let path = format!("/v1/approvals/{task}");
    fte.process.api().get(&path).await.unwrap().expect_status(401);
    let page = fte.process.api().with_header("accept", "text/html").get(&path).await.unwrap().expect_status(200);
    assert!(page.text().contains("<!doctype html>") && !page.text().contains(&task), "{}", page.text());

    let mut browser = Browser::start().await;
    browser.open(&link).await;
    browser.type_into("key", &ada).await;
    browser.click("continue").await;
    browser.type_into("reason", "too dear").await;
    browser.click("reject").await;
    assert_eq!(browser.text("outcome").await, "Rejected");
    let result = fte_tests::tasks::result(&api, &task).await;
    assert!(result["error"]["message"].as_str().unwrap().contains("ada: too dear"), "{result}");
}
