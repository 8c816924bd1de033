//! `fte audit verify`, `prove`, `export`, `reindex` and `witness`, against an instance that runs, what it left, and copies that were touched.

use std::fs;
use std::path::{Path, PathBuf};

use fte_testkit::{Client, Dir, FteProcess, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::run::{Ran, command, fte};

const BINARY: &str = env!("CARGO_BIN_EXE_fte");

/// What works on files asks no instance.
const NOBODY: &str = "http://127.0.0.1:9";

/// An instance with a task in its log.
struct Instance {
    process: FteProcess,
    dir: Dir,
}

impl Instance {
    async fn start() -> Self {
        let dir = Dir::new();
        let process = FteProcess::start_with(BINARY, dir.join("data"), ["--quiet"], [] as [(&str, &str); 0]).await;
        let this = Self { process, dir };
        this.task().await;
        this
    }

    fn url(&self) -> String {
        self.process.ready().api.clone()
    }

    /// Runs a command without anything remembered.
    async fn audit(&self, args: &[&str]) -> Ran {
        fte(&self.url(), &[&["audit"], args].concat()).await
    }

    /// Puts a task through and waits until all of it is in a checkpoint, which is given.
    async fn task(&self) -> String {
        let ran = fte(&self.url(), &["submit", "say hello", "--wait", "--json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let id = ran.json()["task_id"].as_str().unwrap().to_owned();
        let year = self.year().await;
        let api = self.process.api();
        let covered = || async {
            let history: Value = api.get(&format!("/v1/audit/tasks/{id}")).await.unwrap().json();
            let last = history["entries"].as_array().and_then(|entries| entries.last()?["index"].as_u64());
            let note = api.get(&format!("/v1/audit/log/{year}/checkpoint")).await.unwrap().text();
            let size: u64 = note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0);
            if history["complete"] == true && last.is_some_and(|last| last < size) {
                Ok(())
            } else {
                Err(format!("{size} entries are signed, and {history}"))
            }
        };
        eventually(covered).await;
        id
    }

    async fn year(&self) -> u64 {
        let first = || async {
            let entries: Value = self.process.api().get("/v1/audit/entries?limit=1").await.unwrap().json();
            entries["items"][0]["shard"].as_u64().ok_or_else(|| entries.to_string())
        };
        eventually(first).await
    }

    async fn checkpoint(&self) -> String {
        self.process.api().get(&format!("/v1/audit/log/{}/checkpoint", self.year().await)).await.unwrap().text()
    }

    fn data(&self) -> &str {
        self.process.data().to_str().unwrap()
    }

    fn key(&self) -> String {
        fs::read_to_string(self.process.data().join("audit/keys/log.pub")).unwrap().trim().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        self.dir.write(name, text).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A copy of what a stopped instance left.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.join(name);
        copy(self.process.data(), &to);
        to
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Another log's key.
const STRANGER: &str = "stranger.example+4a0b5a9c+AVn0VD3lMZzQ4A7i2q7o6b1Vd1c5F8V5p1d8j2Z0y3Xq";

fn has(ran: &Ran, code: i32, words: &[&str]) {
    assert!(ran.code == code && words.iter().all(|word| ran.out.contains(word) || ran.err.contains(word)), "{words:?}: {ran:?}");
}

#[tokio::test]
async fn what_a_running_instance_serves_is_verified_by_its_key_and_by_what_was_kept() {
    let instance = Instance::start().await;
    let (url, key) = (instance.url(), instance.key());
    let kept = instance.write("kept.checkpoint", &instance.checkpoint().await);
    let verify = async |args: &[&str]| instance.audit(&[&["verify", &url, "--public-key", &key], args].concat()).await;

    has(&verify(&["--no-memory"]).await, 0, &["checkpoints 1/1", "gaps 0", "anchor none · first bad entry: none", "cannot be excluded"]);
    let json = verify(&["--no-memory", "--json"]).await.json();
    assert_eq!((&json["verdict"], &json["shards"][0]["keys_from_log"]), (&"consistent".into(), &false.into()), "{json}");
    has(&verify(&["--no-memory", "--strict"]).await, 6, &["an anchor is a checkpoint kept elsewhere"]);
    has(&instance.audit(&["verify", &url, "--no-memory"]).await, 2, &["nothing says which key signs this log", "--public-key"]);
    has(&instance.audit(&["verify", &url, "--public-key", "nonsense"]).await, 2, &["is no public key of a log"]);
    has(&instance.audit(&["verify", "http://127.0.0.1:9", "--public-key", &key]).await, 5, &["does not answer"]);

    // The log goes on from what was kept and from what was seen.
    instance.task().await;
    has(&verify(&["--no-memory", "--since", &kept, "--strict"]).await, 0, &["checkpoints 2/2", "anchor given"]);
    let memory = instance.path("memory");
    has(&verify(&["--memory", &memory]).await, 0, &["anchor none"]);
    has(&verify(&["--memory", &memory, "--strict"]).await, 0, &["anchor remembered"]);
    let shard = format!("{url}/v1/audit/log/{}", instance.year().await);
    has(&instance.audit(&["verify", &shard, "--public-key", &key, "--memory", &memory, "--range", "1..3"]).await, 0, &["entries 2/2"]);
    has(&instance.audit(&["verify", &shard, "--public-key", &key, "--no-memory", "--range", "1..99999"]).await, 2, &["is not within"]);
    // One that another key signed, or whose text was changed.
    let own = fs::read_to_string(&kept).unwrap();
    let forged = instance.write("forged.checkpoint", &own.replacen("\n", "\n1", 1));
    has(&verify(&["--no-memory", "--since", &forged]).await, 1, &["the given checkpoint", "the signature of"]);
    has(&verify(&["--no-memory", "--since", &instance.path("absent")]).await, 2, &["cannot be read"]);

    // The files of the running instance, with its index.
    let ran = instance.audit(&["verify", instance.data(), "--public-key", &key, "--no-memory"]).await;
    has(&ran, 0, &["first bad entry: none", "rows are what the log says up to entry"]);
    has(&instance.audit(&["verify", instance.data(), "--no-memory"]).await, 0, &["the key was taken from the log's own directory"]);
    has(&instance.audit(&["reindex", "--data", instance.data()]).await, 1, &["another process", "stop it first"]);
}

#[tokio::test]
async fn an_entry_is_proved_and_a_task_is_exported_by_a_running_instance() {
    let instance = Instance::start().await;
    let (key, year) = (instance.key(), instance.year().await);
    let id = instance.task().await;
    let out = instance.path("proof");
    let prove = async |entry: &str| instance.audit(&["prove", entry, "--public-key", &key, "--out", &out, "--json"]).await;
    let ran = prove(&format!("{year}/1")).await;
    has(&ran, 0, &[&format!("{year}-1.tlog-proof")]);
    for file in ["proof", "leaf", "key"] {
        assert!(fs::metadata(ran.json()[file].as_str().unwrap()).unwrap().len() > 0);
    }
    has(&prove(&format!("{year}/1")).await, 1, &["cannot be written"]);
    has(&prove(&format!("{year}/99999")).await, 6, &["is not in the log yet"]);
    has(&prove("17").await, 2, &["expected a shard and an index"]);
    has(
        &instance.audit(&["prove", &format!("{year}/1"), "--data", instance.data(), "--out", &instance.path("offline")]).await,
        0,
        &[".leaf"],
    );

    let evidence = instance.path("evidence");
    let export = async |args: &[&str]| instance.audit(&[&["export", "--public-key", &key], args].concat()).await;
    let ran = export(&["--task", &id, "--out", &evidence, "--json"]).await;
    has(&ran, 0, &["entries"]);
    let json = ran.json();
    assert!(json["complete"] == true && json["entries"].as_u64().unwrap() > 5, "{json}");
    has(&export(&["--task", &id, "--out", &evidence]).await, 2, &["evidence is never written over"]);
    has(&export(&["--from", "1h", "--out", &instance.path("hour")]).await, 0, &["entries of"]);
    let nothing = ["--task", "01980000-0000-7000-8000-000000000001", "--out"];
    let ran = export(&[&nothing[..], &[&instance.path("nothing")]].concat()).await;
    assert!(matches!(ran.code, 3 | 6) && !instance.dir.join("nothing").exists(), "{ran:?}");

    let verify = async |directory: &str, key: &str| instance.audit(&["verify", directory, "--public-key", key]).await;
    has(&verify(&evidence, &key).await, 0, &["proven: these entries were in that log"]);
    has(&instance.audit(&["verify", &evidence]).await, 0, &["the key was taken from the evidence itself"]);
    let lines = instance.dir.join("evidence/entries.ndjson");
    let whole = fs::read_to_string(&lines).unwrap();
    fs::write(&lines, whole.replacen("\"index\":", "\"index\": ", 1)).unwrap();
    has(&verify(&evidence, &key).await, 1, &["does not prove what it says"]);
    fs::write(&lines, whole).unwrap();
    let proof = fs::read_dir(instance.dir.join("evidence/proofs")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(proof).unwrap();
    has(&verify(&evidence, &key).await, 6, &["evidence is whole only with all of its files"]);
}

#[tokio::test]
async fn a_copy_that_was_touched_or_put_back_is_found_and_its_entry_named() {
    let mut instance = Instance::start().await;
    let key = instance.key();
    assert!(instance.process.stop().await.success());
    let older = instance.copy("older");
    instance.process.restart().await;
    instance.task().await;
    let year = instance.year().await.to_string();
    let newest = instance.write("newest.checkpoint", &instance.checkpoint().await);
    assert!(instance.process.stop().await.success());

    let verify = async |directory: &Path, args: &[&str]| {
        fte(NOBODY, &[&["audit", "verify", directory.to_str().unwrap(), "--public-key", &key, "--no-memory"], args].concat()).await
    };
    let since = ["--since", &*newest];
    has(&verify(instance.process.data(), &since).await, 0, &["anchor given", "rows are what the log says"]);
    // Put back to an earlier state: only what was kept elsewhere tells.
    has(&verify(&older, &[]).await, 0, &["anchor none"]);
    has(&verify(&older, &since).await, 1, &["the newest were cut off", "keep these files as they are, as evidence"]);

    let entries = |copy: &Path| {
        let directory = copy.join("audit").join(&year).join("log/tile/entries/000.p");
        let mut bundles: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        bundles.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u16>().unwrap());
        bundles.pop().unwrap()
    };
    let touched = instance.copy("touched");
    let bundle = entries(&touched);
    let whole = fs::read(&bundle).unwrap();
    let mut bytes = whole.clone();
    // In the second entry, behind the first and the length of the second.
    let second = usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) + 2;
    bytes[second + 40] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    has(
        &verify(&touched, &since).await,
        1,
        &["first bad entry: 1 (tile/entries/000.p/", &format!("byte {second})"), "the log is not what was signed"],
    );
    fs::write(&bundle, &whole[..whole.len() - 1]).unwrap();
    has(&verify(&touched, &[]).await, 1, &["first bad entry: "]);
    fs::remove_file(&bundle).unwrap();
    let ran = verify(&touched, &["--json"]).await;
    has(&ran, 6, &["not all is there"]);
    assert_eq!(ran.json()["verdict"], "incomplete");
    fs::write(&bundle, whole).unwrap();
    has(&verify(&touched, &since).await, 0, &[]);

    // The index alone: nothing is wrong with the log, and it is made again.
    let index = touched.join("audit/index.sqlite");
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(touched.join(format!("audit/index.sqlite{suffix}"))).ok();
    }
    fs::write(&index, vec![b'x'; 8192]).unwrap();
    has(
        &verify(&touched, &since).await,
        1,
        &["the index is not what the log says; the log itself is what was signed", "fte audit reindex"],
    );
    has(&verify(&touched, &[&since[..], &["--no-index"]].concat()).await, 0, &["first bad entry: none"]);
    let made = fte(NOBODY, &["audit", "reindex", "--data", touched.to_str().unwrap()]).await;
    has(&made, 0, &["the index has"]);
    has(&verify(&touched, &since).await, 0, &["rows are what the log says"]);
    has(&fte(NOBODY, &["audit", "reindex", "--data", &instance.path("nowhere")]).await, 2, &["is no directory"]);

    // Whose log it is, only a key from elsewhere says.
    let stranger = fte(NOBODY, &["audit", "verify", older.to_str().unwrap(), "--public-key", STRANGER, "--no-memory"]).await;
    assert!(matches!(stranger.code, 1 | 2), "{stranger:?}");
    has(&fte(NOBODY, &["audit", "verify", &instance.path("nowhere")]).await, 2, &["is no directory"]);
}

/// A witness, and how it is asked.
struct Witness {
    child: Child,
    client: Client,
    key: String,
}

impl Witness {
    async fn start(policy: &str, state: &str) -> Self {
        let args = ["audit", "witness", "--policy", policy, "--state", state, "--listen", "127.0.0.1:0", "--json"];
        let mut child = command(&args).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let place: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        Self { child, client: Client::new(place["url"].as_str().unwrap()), key: place["key"].as_str().unwrap().to_owned() }
    }

    async fn ask(&self, old: u64, proof: &str, note: &str) -> (u16, String) {
        let body = format!("old {old}\n{proof}\n{note}");
        let answer = self.client.send(http::Method::POST, "/add-checkpoint", http::HeaderMap::new(), body.into()).await.unwrap();
        (answer.status.as_u16(), answer.text())
    }

    async fn stop(mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn a_witness_signs_what_continues_what_it_signed_and_that_is_an_anchor() {
    let mut instance = Instance::start().await;
    let key = instance.key();
    let policy = instance.write("logs", &format!("log {key}\nquorum none\n"));
    let size = |note: &str| note.lines().nth(1).unwrap().parse::<u64>().unwrap();
    let witness = Witness::start(&policy, &instance.path("witness")).await;
    let first = instance.checkpoint().await;
    assert_eq!(witness.ask(0, "", &first).await.0, 200);
    instance.task().await;
    let second = instance.checkpoint().await;
    assert_eq!(witness.ask(0, "", &second).await, (409, format!("{}\n", size(&first))));
    assert_eq!(witness.ask(size(&first), "", &second).await.0, 422);
    let path = format!("/v1/audit/consistency?from={}&to={}", size(&first), size(&second));
    let proof: Value = instance.process.api().get(&path).await.unwrap().json();
    let proof: String = proof["proof"].as_array().unwrap().iter().map(|hash| format!("{}\n", hash.as_str().unwrap())).collect();
    // What it has signed is on the disk before it answers: started again it knows that still.
    witness.stop().await;
    let witness = Witness::start(&policy, &instance.path("witness")).await;
    assert_eq!(witness.ask(0, "", &second).await, (409, format!("{}\n", size(&first))));
    assert_eq!(witness.ask(size(&first), &proof, &second).await.0, 200);
    assert_eq!(witness.ask(size(&second), "", &first).await.0, 400);
    witness.stop().await;

    // Its signature is an anchor for who trusts it, and is missed where it is demanded.
    assert!(instance.process.stop().await.success());
    let copy = instance.copy("copy");
    let year = first.lines().next().unwrap().rsplit('/').next().unwrap();
    let checkpoint = copy.join("audit").join(year).join("log/checkpoint");
    let last = fs::read_to_string(&checkpoint).unwrap();
    let friend = Witness::start(&policy, &instance.path("friend")).await;
    let demanding = instance.write("policy", &format!("log {key}\nwitness friend {}\nquorum friend\n", friend.key));
    let verify =
        async || fte(NOBODY, &["audit", "verify", copy.to_str().unwrap(), "--policy", &demanding, "--no-memory", "--strict"]).await;
    has(&verify().await, 6, &["witnesses 0/1"]);
    let (status, signature) = friend.ask(0, "", &last).await;
    assert_eq!(status, 200, "{signature}");
    friend.stop().await;
    fs::write(&checkpoint, format!("{last}{signature}")).unwrap();
    has(&verify().await, 0, &["witnesses 1/1", "anchor witnessed"]);
}
