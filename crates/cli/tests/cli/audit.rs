//! `fte audit verify`, `prove`, `export`, `reindex` and `witness`, against an instance that runs, what it left, and copies that were touched.

use std::fs;
use std::path::{Path, PathBuf};

use fte_testkit::{Client, Dir, FteProcess, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::run::{Ran, command, fte};

mod keys;
mod master;
mod theft;

const BINARY: &str = env!("CARGO_BIN_EXE_fte");

/// What works on files asks no instance.
const NOBODY: &str = "http://127.0.0.1:9";

/// An instance with a task in its log.
pub(crate) struct Instance {
    pub(crate) process: FteProcess,
    dir: Dir,
}

impl Instance {
    pub(crate) async fn start() -> Self {
        Self::start_in(Dir::new(), &[], &[]).await
    }

    /// Started with these arguments and variables, on a directory that may have files which they name.
    async fn start_in(dir: Dir, args: &[&str], env: &[(&str, &str)]) -> Self {
        let process = up(&dir.join("data"), args, env).await;
        let this = Self { process, dir };
        this.task().await;
        this
    }

    /// Started again, with others.
    async fn start_again(&mut self, args: &[&str], env: &[(&str, &str)]) {
        self.process = up(self.process.data(), args, env).await;
    }

    pub(crate) fn url(&self) -> String {
        self.process.ready().api.clone()
    }

    /// Runs a command without anything remembered.
    async fn audit(&self, args: &[&str]) -> Ran {
        fte(&self.url(), &[&["audit"], args].concat()).await
    }

    /// Puts a task through and waits until all of it is in a checkpoint, which is given.
    pub(crate) async fn task(&self) -> String {
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

    pub(crate) async fn year(&self) -> u64 {
        let first = || async {
            let entries: Value = self.process.api().get("/v1/audit/entries?limit=1").await.unwrap().json();
            entries["items"][0]["shard"].as_u64().ok_or_else(|| entries.to_string())
        };
        eventually(first).await
    }

    async fn checkpoint(&self) -> String {
        self.process.api().get(&format!("/v1/audit/log/{}/checkpoint", self.year().await)).await.unwrap().text()
    }

    pub(crate) fn data(&self) -> &str {
        self.process.data().to_str().unwrap()
    }

    pub(crate) fn key(&self) -> String {
        fs::read_to_string(self.process.data().join("audit/keys/log.pub")).unwrap().trim().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        self.dir.write(name, text).to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// A copy of what a stopped instance left.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.join(name);
        copy(self.process.data(), &to);
        to
    }
}

async fn up(data: &Path, args: &[&str], env: &[(&str, &str)]) -> FteProcess {
    FteProcess::start_with(BINARY, data, ["--quiet"].iter().chain(args), env.iter().copied()).await
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

/// What a program that knows nothing of FTE says of the files that `prove` wrote.
fn python_checks(files: &Value) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/audit/check.py");
    let files = ["proof", "leaf", "key"].map(|file| files[file].as_str().unwrap());
    let ran = std::process::Command::new("python3").arg("-B").arg(script).args(files).output().expect("Python is installed");
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
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
    has(&instance.audit(&["verify", &url, "--public-key", "nonsense"]).await, 2, &["neither a public key nor a file that is there"]);
    has(&instance.audit(&["verify", &url, "--public-key", "a+b"]).await, 2, &["is no public key of a log"]);
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
    has(&verify(&["--no-memory", "--since", &instance.path("absent")]).await, 2, &["there is no file", "absent"]);
    has(&verify(&["--no-memory", "--since", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]).await, 2, &["is no signed checkpoint"]);

    // The files of the running instance, with its index.
    let ran = instance.audit(&["verify", instance.data(), "--public-key", &key, "--no-memory"]).await;
    has(&ran, 0, &["first bad entry: none", "rows are what the log says up to entry"]);
    has(
        &instance.audit(&["verify", "--data", instance.data(), "--no-memory"]).await,
        0,
        &["the key was taken from the log's own directory"],
    );
    has(&instance.audit(&["verify", &kept, "--no-memory"]).await, 6, &["kept.checkpoint is not the whole archive of an export"]);
    let verify = ["audit", "verify", "--no-memory"];
    let output = command(&verify).env("FTE_DATA", instance.data()).output().await.unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("first bad entry: none"), "{output:?}");
    has(&instance.audit(&["reindex", "--data", instance.data()]).await, 1, &["another process", "stop it first"]);
}

#[tokio::test]
async fn an_entry_is_proved_by_a_running_instance_and_by_its_files() {
    let instance = Instance::start().await;
    let (key, year) = (instance.key(), instance.year().await);
    instance.task().await;
    let out = instance.path("proof");
    let prove = async |entry: &str| instance.audit(&["prove", entry, "--public-key", &key, "--out", &out, "--json"]).await;
    let ran = prove(&format!("{year}/1")).await;
    has(&ran, 0, &[&format!("{year}-1.tlog-proof")]);
    python_checks(&ran.json()).unwrap();
    has(&prove(&format!("{year}/1")).await, 2, &["tlog-proof is there already", "try: remove it, or choose another directory with --out"]);
    has(&prove(&format!("{year}/99999")).await, 6, &["is not in the log yet"]);
    has(&prove("17").await, 2, &["an index alone does not say of which year: write it like 2026/17"]);
    has(&prove("x").await, 2, &["expected the year and the index"]);
    let offline = async |entry: &str, data: &str| instance.audit(&["prove", entry, "--data", data, "--out", &instance.path("new")]).await;
    has(&offline(&format!("{year}/99999"), instance.data()).await, 6, &["is in no signed checkpoint", "try: an entry before"]);
    has(&offline("1999/0", instance.data()).await, 2, &["there is no log of the year 1999", "try: there are: "]);
    has(&offline("1999/0", &instance.path("nowhere")).await, 2, &["there is no directory"]);
    has(
        &instance.audit(&["prove", &format!("{year}/1"), "--data", instance.data(), "--out", &instance.path("offline")]).await,
        0,
        &[".leaf"],
    );
}

#[tokio::test]
async fn evidence_is_made_by_a_running_instance_put_on_record_and_checked_without_it() {
    let mut instance = Instance::start().await;
    let key = instance.key();
    let id = instance.task().await;
    let evidence = instance.path("evidence");
    let export = async |args: &[&str]| instance.audit(&[&["export", "--public-key", &key], args].concat()).await;
    let ran = export(&["--task", &id, "--out", &evidence, "--json"]).await;
    has(&ran, 0, &["entries", "the log has an entry of this export"]);
    let json = ran.json();
    assert!(json["complete"] == true && json["entries"].as_u64().unwrap() > 5, "{json}");
    assert!(
        fs::read_to_string(instance.dir.join("evidence/entries.ndjson")).unwrap().contains("say hello"),
        "sealed events are open in it"
    );
    has(&export(&["--task", &id, "--out", &evidence]).await, 2, &["evidence is never written over"]);
    has(&export(&["--from", "1h", "--out", &instance.path("hour")]).await, 0, &["entries of"]);
    has(&export(&["--out", &instance.path("all")]).await, 2, &["--task"]);
    for (nothing, status, code) in [("{}", 422, "no_filters"), (r#"{"agent":""}"#, 400, "invalid_query")] {
        let refused = instance.process.api().post("/v1/audit/exports", &serde_json::from_str::<Value>(nothing).unwrap()).await.unwrap();
        assert_eq!((refused.status.as_u16(), &*refused.problem_code()), (status, code), "{refused:?}");
    }
    let ran = export(&["--agent", "nobody", "--out", &instance.path("nothing")]).await;
    assert!(ran.code == 3 && !instance.dir.join("nothing").exists(), "{ran:?}");
    let names: Vec<_> = fs::read_dir(instance.dir.join(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".fte-")), "nothing is left beside it: {names:?}");

    // Both exports are entries, and so is who made them.
    let listed: Value = instance.process.api().get("/v1/audit/entries?action=export").await.unwrap().json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{listed}");
    assert_eq!((&items[0]["kind"], &items[0]["event"]["data"]["export_id"]), (&"export".into(), &json["export_id"]));
    let by: Value = instance.process.api().get("/v1/audit/entries?action=audit.exported").await.unwrap().json();
    assert_eq!(by["items"].as_array().unwrap().len(), 2, "{by}");

    // The archive itself, by another's tools.
    let archive = instance.process.api().get(&format!("/v1/audit/exports/{}", json["export_id"].as_str().unwrap())).await.unwrap();
    let tar = instance.dir.join("export.tar");
    fs::write(&tar, archive.expect_status(200).body).unwrap();
    let unpacked = std::process::Command::new("tar").arg("--extract").arg("--file").arg(&tar).current_dir(instance.dir.join(".")).output();
    assert!(unpacked.unwrap().status.success());
    let folder = fs::read_dir(instance.dir.join("."))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir() && path.file_name().unwrap().to_string_lossy().starts_with("export-"))
        .unwrap();

    // One entry by a program that knows nothing of FTE, as the README in the evidence says.
    let check = "set -e; cd \"$1\"; head -n 1 entries.ndjson | sed 's/.*\"leaf_base64\":\"\\([^\"]*\\)\".*/\\1/' | base64 -d > ../LEAF; \
                 echo \"$2\" > ../KEY; python3 -B \"$3\" proofs/$(head -n 1 entries.ndjson | sed 's/.*\"index\":\\([0-9]*\\),\"leaf.*/\\1/').tlog-proof ../LEAF ../KEY";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/audit/check.py");
    let shard = folder.join(instance.year().await.to_string());
    let log_key = fs::read_to_string(shard.join("policy")).unwrap();
    let log_key = log_key.lines().find_map(|line| line.strip_prefix("log ")).unwrap().split(' ').next().unwrap().to_owned();
    let ran = std::process::Command::new("sh").args(["-c", check, "sh"]).arg(&shard).args([&log_key, script]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    // And that the event beside it is the one that was sealed.
    let lines = fs::read_to_string(shard.join("entries.ndjson")).unwrap();
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_ne!(line["header"]["enc"], Value::Null, "{line}");
    let sealed = |entries: &str| {
        fs::write(instance.dir.join("lines"), entries).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/audit/sealed.py");
        let paths = [instance.dir.join("lines"), line["index"].to_string().into(), folder.join("LEAF")];
        std::process::Command::new("python3").args(["-B", script]).args(paths).output().unwrap()
    };
    let ran = sealed(&lines);
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(serde_json::from_slice::<Value>(&ran.stdout).unwrap(), line["event"]);
    let event = line["event_base64"].as_str().unwrap();
    let ran = sealed(&lines.replacen(event, &format!("{}{}", "QUFB", &event[4..]), 1));
    assert!(!ran.status.success() && String::from_utf8_lossy(&ran.stderr).contains("this is not the event that was sealed"), "{ran:?}");

    assert!(instance.process.stop().await.success());
    let verify = async |target: &str, key: &str| fte(NOBODY, &["audit", "verify", target, "--public-key", key]).await;
    for target in [&evidence, &instance.path("export.tar"), folder.to_str().unwrap()] {
        has(
            &verify(target, &key).await,
            0,
            &["manifest signed", "proven: these entries were in that log, and the events shown are what they hold"],
        );
    }
    has(&fte(NOBODY, &["audit", "verify", &evidence]).await, 0, &["the key was taken from the evidence itself"]);
    let change = |name: &str, from: &str, to: &str| {
        let path = instance.dir.join("evidence").join(name);
        let whole = fs::read_to_string(&path).unwrap();
        assert!(whole.contains(from), "{name}");
        fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        (path, whole)
    };
    for (name, from, to, said) in [
        ("entries.ndjson", "\"index\":", "\"index\": ", "entries.ndjson: it is not the file that the manifest names"),
        ("ocsf.ndjson", "6003", "6004", "ocsf.ndjson: it is not the file that the manifest names"),
        ("manifest", "\"complete\": true", "\"complete\": null", "manifest: it is not the one that was signed"),
        ("manifest.note", "/export\n", "/exports\n", "manifest.note: the signature of"),
    ] {
        let (path, whole) = change(name, from, to);
        has(&verify(&evidence, &key).await, 1, &["does not prove what it says", said]);
        fs::write(path, whole).unwrap();
    }
    let bytes = fs::read(&tar).unwrap();
    fs::write(&tar, &bytes[..bytes.len() / 2]).unwrap();
    has(&verify(&instance.path("export.tar"), &key).await, 6, &["export.tar is not the whole archive of an export"]);
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

/// Writes years of long ago into the log of a data directory, an event each, as an instance of then would have.
pub(crate) async fn live_in(data: &Path, year: i16) {
    use fte_audit::engine::{Engine, EngineOptions, Sealing};
    use fte_audit::keys::rotation::{Given, given};
    use fte_audit::keys::signing::{KEY, KeyPlace};
    use fte_audit::log::Log;
    use fte_audit::subjects::{Subjects, SubjectsOptions};

    let audit = data.join("audit");
    fs::create_dir_all(audit.join("keys")).unwrap();
    let Given { present, next, former } = given(&KeyPlace::File(audit.join("keys").join(KEY)), None, None, &audit).unwrap();
    let sealing: std::sync::Arc<dyn Sealing> = std::sync::Arc::new(Subjects::open(SubjectsOptions::at(audit.join("keys"))).unwrap());
    let at = jiff::civil::date(year, 3, 1).in_tz("UTC").unwrap().timestamp().as_millisecond();
    let clock = std::sync::Arc::new(move || at);
    let options = EngineOptions { sealing, clock, next_key: next.map(Into::into), former, ..EngineOptions::at(&*audit, present.into()) };
    let log = Engine::open(options).unwrap();
    let event = format!(r#"{{"id":"{year}","source":"/test","type":"t","data":{{"n":{year}}}}}"#);
    let record = fte_bus::Record { topic: "fte.test".into(), body: event.into(), partition: None, offset: None, key: None };
    log.append(vec![fte_audit::entry::NewEntry::read(record)]).await.unwrap();
}

#[tokio::test]
async fn years_that_had_their_time_are_retired_and_the_rest_is_as_it_was() {
    let dir = Dir::new();
    let data = dir.join("data");
    for year in [2016, 2017] {
        live_in(&data, year).await;
    }
    let process = FteProcess::start_with(BINARY, data, ["--quiet"], [] as [(&str, &str); 0]).await;
    let mut instance = Instance { process, dir };
    has(&fte(&instance.url(), &["submit", "say hello", "--wait"]).await, 0, &[]);
    let (key, data) = (instance.key(), instance.data().to_owned());
    let retire = async |args: &[&str]| fte(NOBODY, &[&["audit", "retire", "--data", &data, "--by", "ada"], args].concat()).await;
    has(&retire(&[]).await, 1, &["only one may write the log; stop it first"]);
    let placed =
        instance.audit(&["hold", "place", "--from", "2017-01-01T00:00:00Z", "--to", "2017-12-31T00:00:00Z", "--reason", "case 17"]).await;
    has(&placed, 0, &[]);
    let hold = placed.out.trim().to_owned();
    let final_note = fs::read_to_string(instance.process.data().join("audit/2016/log/checkpoint")).unwrap();
    let kept = instance.write("kept.checkpoint", &final_note);
    assert!(instance.process.stop().await.success());

    let dry = retire(&["--dry-run"]).await;
    has(
        &dry,
        0,
        &["2016 would be retired: 2 entries, the last of them of 2016-03-01T00:00:00.000Z", "2017 is kept: the legal hold", &hold],
    );
    assert!(instance.process.data().join("audit/2016/log/tile").exists());
    has(&retire(&["--shard", "2017"]).await, 2, &["shard 2016 is older and still there"]);
    has(&retire(&["--shard", "1999"]).await, 2, &["the log has no shard 1999"]);
    let done = retire(&["--json"]).await;
    assert_eq!(
        (&done.json()["retired"][0]["shard"], &done.json()["retired"][0]["checkpoint"]),
        (&2016.into(), &final_note.clone().into()),
        "{done:?}"
    );
    let nobody = fte(NOBODY, &["audit", "retire", "--data", &data]).await;
    has(&nobody, 2, &["neither USER nor LOGNAME is set", "try: name who does it with --by"]);
    has(&retire(&["--shard", "2017"]).await, 1, &["nothing was retired", &hold]);
    has(&retire(&[]).await, 0, &["nothing is to be retired", "2017 is kept"]);
    assert!(!instance.process.data().join("audit/2016/log/tile").exists());

    let verify =
        async |target: &str| fte(NOBODY, &["audit", "verify", target, "--public-key", &key, "--no-memory", "--since", &kept]).await;
    has(
        &verify(instance.data()).await,
        0,
        &["first bad entry: none · retired 2016", "2016 retired, as the log says", "rows are what the log says"],
    );
    has(&fte(NOBODY, &["audit", "reindex", "--data", instance.data()]).await, 0, &["the index has"]);
    has(&verify(instance.data()).await, 0, &["retired 2016"]);
    // A copy without the year's record of it, and without a year that was never retired.
    let copy = instance.copy("copy");
    fs::remove_dir_all(copy.join("audit/2017")).unwrap();
    let ran = verify(copy.to_str().unwrap()).await;
    assert!(ran.code == 1 && ran.err.contains("2017"), "{ran:?}");
    fs::remove_dir_all(copy.join("audit/2016")).unwrap();
    let ran = verify(copy.to_str().unwrap()).await;
    assert!(ran.code == 6 && ran.err.contains("/2017 with 2 entries before: nothing of it is there"), "{ran:?}");
    assert!(ran.err.contains("/2016 with 2 entries before: its final checkpoint, which is kept for ever, is not there"), "{ran:?}");

    // The service goes on, and serves what is left.
    instance.process.restart().await;
    has(&fte(&instance.url(), &["submit", "say hello", "--wait"]).await, 0, &[]);
    has(&verify(&instance.url()).await, 0, &["retired 2016", "2016 retired, as the log says"]);
    let api = instance.process.api();
    assert_eq!(api.get("/v1/audit/log/2016/checkpoint").await.unwrap().expect_status(200).text(), final_note);
    let gone: Value = api.get("/v1/audit/log/2016/tile/entries/000.p/2").await.unwrap().expect_status(410).json();
    assert_eq!(gone["code"], "shard_retired");
    let by: Value = api.get("/v1/audit/entries?action=audit.shard-retired&actor=ada").await.unwrap().json();
    let by: Vec<_> = by["items"].as_array().unwrap().iter().map(|entry| &entry["event"]["data"]).collect();
    let said: Vec<_> = by.iter().map(|data| (data["resource"].as_str().unwrap(), data["outcome"].as_str().unwrap())).collect();
    assert_eq!(said, [("shard/2016", "success"), ("shard/2017", "denied")]);
    assert_eq!(by[1]["data"], serde_json::json!({"code": "legal_hold", "hold_id": hold}));
    // What is exported says what it cannot have.
    let evidence = instance.path("evidence");
    has(&instance.audit(&["export", "--public-key", &key, "--from", "1h", "--out", &evidence]).await, 0, &["entries of"]);
    has(&fte(NOBODY, &["audit", "verify", &evidence, "--public-key", &key]).await, 0, &["2016 retired when it was made"]);
    has(&instance.audit(&["hold", "lift", &hold]).await, 0, &[]);
    assert!(instance.process.stop().await.success());
    has(&retire(&["--shard", "2017"]).await, 0, &["2017 is retired: 2 entries", "their final checkpoints stay"]);
    has(&verify(instance.data()).await, 0, &["retired 2016–2017"]);
}

/// The size that a checkpoint is of.
fn size(note: &str) -> u64 {
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// The keys whose signatures are on a checkpoint, by their lines.
fn signatures(note: &str) -> usize {
    note.lines().filter(|line| line.starts_with('\u{2014}')).count()
}

impl Instance {
    /// Waits until the checkpoint has so many signatures, and gives it.
    async fn signed(&self, count: usize) -> String {
        let signed = || async {
            let note = self.checkpoint().await;
            if signatures(&note) == count { Ok(note) } else { Err(note) }
        };
        eventually(signed).await
    }

    async fn stop(&mut self) {
        assert!(self.process.stop().await.success());
    }

    /// How many successors the log has named.
    async fn announced(&self) -> usize {
        let listed = self.audit(&["list", "--action", "key_rotated", "--json"]).await;
        listed.json()["items"].as_array().unwrap().len()
    }

    async fn rotate_key(&self, args: &[&str]) -> Ran {
        fte(NOBODY, &[&["audit", "rotate-key", "--data", self.data()], args].concat()).await
    }
}

#[tokio::test]
async fn the_logs_key_is_changed_and_each_side_is_checked_against_its_own() {
    let mut instance = Instance::start().await;
    let old = instance.key();
    let year = instance.year().await;
    let before = instance.write("before.checkpoint", &instance.signed(1).await);
    has(&instance.rotate_key(&[]).await, 1, &["only one may write the log"]);
    instance.stop().await;
    has(&instance.rotate_key(&["--finish"]).await, 2, &["begin without --finish"]);
    let begun = instance.rotate_key(&[]).await;
    has(&begun, 0, &["the log announces the key"]);
    let new = begun.out.trim().to_owned();
    assert!(new != old && new.split('+').next() == old.split('+').next(), "{new}");
    assert_eq!(instance.rotate_key(&["--json"]).await.json()["made"], false);
    has(&instance.rotate_key(&["--finish"]).await, 2, &["is not signed by both keys yet"]);

    // Both sign, before and after a restart, and a witness that knows one of them or both signs that, too.
    instance.process.restart().await;
    let both = instance.signed(2).await;
    assert_eq!(instance.announced().await, 1);
    let kept = instance.write("both.checkpoint", &both);
    for (name, keys) in [("w1", vec![&old]), ("w2", vec![&new]), ("w3", vec![&old, &new])] {
        let lines: String = keys.iter().map(|key| format!("log {key}\n")).collect();
        let policy = instance.write(name, &format!("{lines}quorum none\n"));
        let witness = Witness::start(&policy, &instance.path(&format!("{name}.state"))).await;
        assert_eq!(witness.ask(0, "", &both).await.0, 200, "{name}");
        witness.stop().await;
    }
    let url = instance.url();
    for keys in [&["--public-key", &*old][..], &["--public-key", &new], &["--public-key", &old, "--public-key", &new]] {
        let since = ["verify", &url, "--no-memory", "--since", &before, "--since", &kept];
        has(&instance.audit(&[&since[..], keys].concat()).await, 0, &["checkpoints 3/3", "anchor given"]);
    }
    instance.stop().await;
    let half = instance.copy("half");

    // The new one takes over; to say so twice changes nothing.
    let finished = instance.rotate_key(&["--finish"]).await;
    has(&finished, 0, &["from the next start on", &new]);
    assert_eq!(instance.key(), new);
    assert_eq!(fs::read_to_string(instance.process.data().join("audit/keys/former.pub")).unwrap().trim(), old);
    has(&instance.rotate_key(&["--finish"]).await, 0, &["nothing is left to do"]);
    instance.process.restart().await;
    instance.signed(1).await;
    let task = instance.task().await;
    let url = instance.url();
    let verify = async |target: &str, args: &[&str]| fte(NOBODY, &[&["audit", "verify", target, "--no-memory"], args].concat()).await;
    for keys in [&["--public-key", &*new][..], &["--public-key", &old, "--public-key", &new]] {
        let since = ["--since", &before, "--since", &kept];
        has(&verify(&url, &[&since[..], keys].concat()).await, 0, &["checkpoints 3/3", "anchor given"]);
    }
    has(&verify(&url, &["--public-key", &old]).await, 1, &["no signature is of a key that is known"]);
    // With its own keys, and its index.
    has(&verify(instance.data(), &[]).await, 0, &["first bad entry: none", "rows are what the log says"]);
    // Proofs and evidence are the new key's.
    let out = instance.path("proof");
    has(&instance.audit(&["prove", &format!("{year}/1"), "--data", instance.data(), "--out", &out]).await, 0, &[".key"]);
    let key = fs::read_to_string(instance.dir.join(format!("proof/{year}-1.key"))).unwrap();
    assert_eq!(key.trim().rsplit('+').next(), new.rsplit('+').next());
    let evidence = instance.path("evidence");
    has(&instance.audit(&["export", "--task", &task, "--public-key", &new, "--out", &evidence]).await, 0, &["entries"]);
    has(&instance.audit(&["verify", &evidence, "--public-key", &new]).await, 0, &["proven"]);

    // Stopped, its index is made again; and what is put back to before the end of the change is found by what was kept.
    let newest = instance.write("newest.checkpoint", &instance.checkpoint().await);
    instance.stop().await;
    has(&fte(NOBODY, &["audit", "reindex", "--data", instance.data()]).await, 0, &["the index has"]);
    has(&verify(instance.data(), &["--since", &newest]).await, 0, &["rows are what the log says"]);
    has(&verify(half.to_str().unwrap(), &["--public-key", &new, "--since", &newest]).await, 1, &["the newest were cut off"]);
    // A successor that was lost gets another: here in the copy that was left in the middle.
    fs::remove_file(half.join("audit/keys/log.next.key")).unwrap();
    let again = fte(NOBODY, &["audit", "rotate-key", "--data", half.to_str().unwrap()]).await;
    has(&again, 0, &["the log announces the key"]);
    assert!(again.out.trim() != new);
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
