//! No export is handed out that the log does not tell of, and none outlives an erasure.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use fte_bus::Record;
use fte_testkit::eventually;
use fte_tlog::Policy;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions};
use crate::entry::leaf::{Header, Kind};
use crate::entry::{Entry, NewEntry, Position, Task};
use crate::export::{check, unpack};
use crate::subjects::{Subject, Subjects, SubjectsOptions};

struct World {
    directory: tempfile::TempDir,
}

/// How an append fails.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Before,
    After,
}

/// A log to which exports cannot be appended, if it is told so.
struct Faulty {
    inner: Engine,
    fault: Mutex<Option<Fault>>,
    /// As long as it is set, nobody is told of a checkpoint.
    held: tokio::sync::watch::Sender<bool>,
}

impl Log for Faulty {
    fn append(&self, entries: Vec<NewEntry>) -> BoxFuture<'_, Result<Vec<crate::log::Appended>, LogError>> {
        let fault = self.fault.lock().unwrap().filter(|_| entries.iter().any(|entry| entry.kind == Kind::Export));
        Box::pin(async move {
            match fault {
                None => self.inner.append(entries).await,
                Some(Fault::Before) => Err(LogError::Closed),
                Some(Fault::After) => self.inner.append(entries).await.and(Err(LogError::Closed)),
            }
        })
    }
    fn entry(&self, at: Position) -> BoxFuture<'_, Result<Option<Entry>, LogError>> {
        self.inner.entry(at)
    }
    fn entries(&self, query: Query) -> BoxFuture<'_, Result<crate::log::Page, LogError>> {
        self.inner.entries(query)
    }
    fn gaps(&self) -> BoxFuture<'_, Result<crate::log::Gaps, LogError>> {
        self.inner.gaps()
    }
    fn checkpoint(&self, shard: Option<u16>) -> BoxFuture<'_, Result<Option<crate::engine::Published>, LogError>> {
        let mut held = self.held.subscribe();
        Box::pin(async move {
            held.wait_for(|held| !held).await.map_err(|_| LogError::Closed)?;
            self.inner.checkpoint(shard).await
        })
    }
    fn tile(&self, shard: u16, tile: fte_tlog::TilePath) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        self.inner.tile(shard, tile)
    }
    fn blob(&self, shard: u16, digest: [u8; 32]) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        self.inner.blob(shard, digest)
    }
    fn proof(&self, at: Position) -> BoxFuture<'_, Result<Option<fte_tlog::ProofFile>, LogError>> {
        self.inner.proof(at)
    }
    fn consistency(&self, shard: u16, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<fte_tlog::Hash>>, LogError>> {
        self.inner.consistency(shard, from, to)
    }
    fn ready(&self) -> Result<(), LogError> {
        self.inner.ready()
    }
}

/// A process on the directory.
struct Process {
    log: Arc<Faulty>,
    subjects: Arc<Subjects>,
    exports: Exports,
}

impl World {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn start(&self) -> Process {
        self.start_with(|subjects| Arc::clone(subjects) as _)
    }

    fn start_with(&self, opening: impl FnOnce(&Arc<Subjects>) -> Arc<dyn Sealing>) -> Process {
        self.start_on(EngineOptions::at(self.path().join("audit"), test_key()), opening)
    }

    fn start_on(&self, options: EngineOptions, opening: impl FnOnce(&Arc<Subjects>) -> Arc<dyn Sealing>) -> Process {
        let audit = self.path().join("audit");
        let subjects = Arc::new(Subjects::open(SubjectsOptions::at(audit.join("keys"))).unwrap());
        let sealing: Arc<dyn Sealing> = Arc::clone(&subjects) as _;
        let signers = Signers::new(Arc::clone(&options.key), &options.former);
        let options = EngineOptions { sealing, ..options };
        let log = Arc::new(Faulty {
            inner: Engine::open(options).unwrap(),
            fault: Mutex::default(),
            held: tokio::sync::watch::Sender::new(false),
        });
        let exports = Exports::open(audit.join("exports"), Arc::clone(&log) as _, opening(&subjects), signers).unwrap();
        Process { log, subjects, exports }
    }

    /// What lies in the directory of exports.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path().join("audit/exports"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

const TASK: &str = "01980000-0000-7000-8000-000000000001";

impl Process {
    async fn log(&self, count: usize) {
        self.log_as("e", count).await;
    }

    async fn log_as(&self, name: &str, count: usize) {
        let event = |n: usize| {
            let body = json!({"id": format!("{name}{n}"), "source": "/fte/intake", "type": "fte.task.requested", "subject": TASK,
                "time": "2026-07-01T10:00:00Z", "data": {"requester": {"type": "user", "id": "ada@home"}, "task": "call 555"}});
            let body = body.to_string().into();
            NewEntry::read(Record { topic: "fte.triggers.inbound".into(), body, partition: None, offset: None, key: None })
        };
        self.log.append((0..count).map(event).collect()).await.unwrap();
    }

    async fn export(&self, request: &Request) -> Result<Kept, Failure> {
        match self.exports.make(request.clone()).await? {
            Made::Ready(kept) => Ok(kept),
            Made::UnderWay => panic!("it takes long"),
        }
    }

    /// The entries of exports in the log, by their digests.
    async fn on_record(&self) -> HashMap<String, Entry> {
        let page = self.log.entries(Query { action: Some("export".to_owned()), limit: 100, ..Query::default() }).await.unwrap();
        let digest = |entry: &Entry| {
            let event: Value = serde_json::from_slice(entry.bytes.as_deref().unwrap()).unwrap();
            event["data"]["shards"][0]["manifest_sha256"].as_str().unwrap().to_owned()
        };
        page.entries.into_iter().map(|entry| (digest(&entry), entry)).collect()
    }
}

fn request(id: u128) -> Request {
    let query = Query { task: Some(Task::from(TASK)), ..Query::default() };
    Request { id: Uuid::from_u128(id), by: "eve@desk".to_owned(), query, words: json!({"task_id": TASK}) }
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_checked_by_the_key_alone_and_is_an_entry_that_names_nobody() {
    let world = World::new();
    let process = world.start();
    process.log(300).await;
    let mut request = request(1);
    request.query.actor = Some("ada@home".to_owned());
    request.words["actor"] = "ada@home".into();
    let kept = process.export(&request).await.unwrap();
    assert_eq!((kept.entries(), kept.complete, kept.tenant.clone()), (300, None, None));

    let unpacked = world.path().join("unpacked");
    unpack(process.exports.archive(kept.id).await.unwrap().unwrap(), &unpacked).unwrap();
    let shard = &kept.shards[0];
    let evidence = unpacked.join("export-000000000001").join(shard.shard.to_string());
    let checked = check(&evidence, Some(&Policy::of_logs([test_key().verifier()]))).unwrap();
    assert_eq!((checked.manifest.entries, checked.manifest.made_by.as_str(), checked.manifest.size), (300, "eve@desk", shard.size));
    let first: Value = serde_json::from_str(fs::read_to_string(evidence.join("entries.ndjson")).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(first["event"]["data"]["task"], "call 555", "what the log encrypts is open to who may read it");
    assert!(first["header"]["enc"].is_object());
    assert!(fs::read_to_string(evidence.join("report.html")).unwrap().contains("ada@home"));

    let on_record = process.on_record().await;
    let entry = &on_record[&shard.manifest_sha256];
    let said = text(entry.bytes.as_deref().unwrap());
    assert!(!said.contains("ada@home") && !said.contains("eve@desk") && said.contains("\"entries\":300"), "{said}");
    let keyed = process.subjects.search_values("ada@home").unwrap();
    assert!(keyed.iter().any(|value| said.contains(value.as_str()) && value != "ada@home"), "{said}");
    let by_eve = process.log.entries(Query { actor: Some("eve@desk".to_owned()), limit: 10, ..Query::default() }).await.unwrap().entries;
    assert_eq!(by_eve.len(), 1);
    assert!(by_eve[0].header.enc.is_some() && text(by_eve[0].bytes.as_deref().unwrap()).contains(&kept.id.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_the_same_export_and_nothing_is_made_of_nothing() {
    let world = World::new();
    let process = world.start();
    assert!(matches!(process.export(&request(1)).await, Err(Failure::Nothing)));
    process.log(3).await;
    let kept = process.export(&request(1)).await.unwrap();
    assert_eq!((process.export(&request(1)).await.unwrap(), kept.complete), (kept, Some(false)));
    assert_eq!(process.on_record().await.len(), 1);
    assert_eq!(world.files().len(), 2);
}

/// Killed anywhere, an archive that is there has its entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_handed_out_that_is_not_on_record_whatever_fails() {
    for (fault, recorded) in [(Fault::Before, 0), (Fault::After, 1)] {
        let world = World::new();
        let process = world.start();
        process.log(3).await;
        *process.log.fault.lock().unwrap() = Some(fault);
        assert!(matches!(process.export(&request(1)).await, Err(Failure::Log(_))));
        assert_eq!(world.files(), [""; 0], "nothing is left of it");
        assert!(process.exports.kept(Uuid::from_u128(1)).await.unwrap().is_none());
        *process.log.fault.lock().unwrap() = None;
        assert_eq!(process.on_record().await.len(), recorded);
        // The same request succeeds, and what is handed out is on record by its digest.
        let kept = process.export(&request(1)).await.unwrap();
        let on_record = process.on_record().await;
        assert!(on_record.contains_key(&kept.shards[0].manifest_sha256) && on_record.len() == recorded + 1);
        let conflicts = process.log.entries(Query { limit: 100, ..Query::default() }).await.unwrap().entries;
        assert!(conflicts.iter().all(|entry| entry.header.kind != Kind::Conflict));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_removes_what_an_earlier_process_left() {
    let world = World::new();
    let process = world.start();
    process.log(3).await;
    process.export(&request(1)).await.unwrap();
    fs::write(world.path().join("audit/exports/x.part"), "cut short").unwrap();
    drop(process);
    let process = eventually(|| async {
        // The log and the keys are one process's at a time: the last one's may be closing.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.start())).map_err(|_| "still locked".to_owned())
    })
    .await;
    assert_eq!(world.files(), [""; 0]);
    process.export(&request(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_go_when_they_have_had_their_time_and_the_oldest_when_they_are_many() {
    let world = World::new();
    let process = world.start();
    process.log(1).await;
    for id in 1..=keeping::KEPT_MAX as u128 + 1 {
        process.export(&request(id)).await.unwrap();
    }
    assert!(process.exports.kept(Uuid::from_u128(1)).await.unwrap().is_none());
    let kept = process.exports.kept(Uuid::from_u128(2)).await.unwrap().unwrap();
    assert_eq!(world.files().len(), 2 * keeping::KEPT_MAX);
    let keeping = &process.exports.inner.keeping;
    assert!(keeping.find(kept.id, kept.expires_at).unwrap().is_none());
    keeping.expire(kept.expires_at).unwrap();
    assert!(!world.files().iter().any(|name| name.starts_with(&kept.id.to_string())));
    keeping.expire(Timestamp::MAX).unwrap();
    assert_eq!(world.files(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_made_at_a_time_and_to_its_end_also_when_who_asked_has_gone() {
    let world = World::new();
    let process = world.start();
    process.log(3).await;
    process.log.held.send_replace(true);
    let exports = process.exports.clone();
    let asking = tokio::spawn(async move { exports.make(request(1)).await });
    let begun = || async { if process.exports.is_under_way(Uuid::from_u128(1)) { Ok(()) } else { Err("not begun".to_owned()) } };
    eventually(begun).await;
    assert!(matches!(process.exports.make(request(2)).await, Err(Failure::Busy)));
    assert!(matches!(process.exports.make(request(1)).await, Ok(Made::UnderWay)));
    asking.abort();
    process.log.held.send_replace(false);
    let made = || async { process.exports.kept(Uuid::from_u128(1)).await.unwrap().ok_or_else(|| "not made".to_owned()) };
    let kept = eventually(made).await;
    // What is made is ready before the next one may begin.
    eventually(|| async { process.exports.make(request(2)).await.map_err(|error| error.to_string()) }).await;
    assert_eq!(process.export(&request(1)).await.unwrap(), kept);
}

/// Opens, and lets somebody be erased in the middle of it.
struct ErasedMeanwhile {
    subjects: Arc<Subjects>,
    exports: std::sync::OnceLock<Exports>,
    opened: Mutex<usize>,
}

impl Sealing for ErasedMeanwhile {
    fn seal(&self, group: &[&NewEntry]) -> Result<Vec<crate::engine::Sealed>, LogError> {
        Sealing::seal(&*self.subjects, group)
    }
    fn open(&self, header: &Header<'_>, payload: Vec<u8>) -> Result<Option<Vec<u8>>, LogError> {
        let opened = self.subjects.open(header, payload);
        let mut count = self.opened.lock().unwrap();
        *count += 1;
        if *count == 2 {
            self.subjects.erase(&Subject::parse("default", "user:ada@home").unwrap()).unwrap();
            self.exports.get().unwrap().inner.keeping.forget().unwrap();
        }
        opened
    }
    fn is_same(&self, header: &Header<'_>, payload: &[u8], entry: &NewEntry) -> Result<bool, LogError> {
        self.subjects.is_same(header, payload, entry)
    }
    fn actor_values(&self, actor: &str) -> Result<Vec<String>, LogError> {
        self.subjects.actor_values(actor)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_leaves_no_export_neither_of_those_kept_nor_of_the_one_being_made() {
    let world = World::new();
    let mut meanwhile = None;
    let process = world.start_with(|subjects| {
        let sealing =
            Arc::new(ErasedMeanwhile { subjects: Arc::clone(subjects), exports: std::sync::OnceLock::new(), opened: Mutex::default() });
        meanwhile = Some(Arc::clone(&sealing));
        sealing
    });
    assert!(meanwhile.unwrap().exports.set(process.exports.clone()).is_ok());
    process.log(5).await;
    assert!(matches!(process.export(&request(1)).await, Err(Failure::Outdated)));
    assert_eq!(world.files(), [""; 0]);
    assert!(process.on_record().await.is_empty());
    // Made again, it tells of them as erased.
    let kept = process.export(&request(1)).await.unwrap();
    let mut archive = Vec::new();
    process.exports.archive(kept.id).await.unwrap().unwrap().read_to_end(&mut archive).unwrap();
    let archive = text(archive);
    assert!(!archive.contains("call 555") && archive.contains("\"erased\":true"));
    process.exports.forget().await.unwrap();
    assert!(process.exports.kept(kept.id).await.unwrap().is_none() && world.files().is_empty());
}

/// What the disk does not let go is not handed out either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_erasure_that_could_not_remove_all_nothing_is_handed_out_until_one_could() {
    let world = World::new();
    let process = world.start();
    process.log(3).await;
    let stubborn = world.path().join("audit/exports/stubborn");
    fs::create_dir(&stubborn).unwrap();
    let kept = process.export(&request(1)).await.unwrap();
    // No file, so removing it as one fails, before the archive's turn or after it.
    assert!(matches!(process.exports.forget().await, Err(Failure::Disk { .. })));
    assert!(process.exports.kept(kept.id).await.unwrap().is_none() && process.exports.archive(kept.id).await.unwrap().is_none());
    assert!(
        matches!(process.export(&request(2)).await, Err(Failure::Outdated)),
        "nor is a new one, which could not be told from the others"
    );
    fs::remove_dir(&stubborn).unwrap();
    process.exports.forget().await.unwrap();
    process.export(&request(2)).await.unwrap();
}

/// A year that ended before the key was changed is signed by the former one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_a_former_key_is_exported_and_checked_by_the_keys_of_the_log() {
    let world = World::new();
    let key = |seed| Arc::new(SignerKey::new("log.test", fte_tlog::KeyAlgorithm::Ed25519, &[seed; 32]).unwrap());
    let at = |seed, time: &str| {
        let now_ms = time.parse::<Timestamp>().unwrap().as_millisecond();
        EngineOptions { clock: Arc::new(move || now_ms), ..EngineOptions::at(world.path().join("audit"), key(seed)) }
    };
    let run = async |options: EngineOptions, name: &str| {
        let process = world.start_on(options, |subjects| Arc::clone(subjects) as _);
        process.log_as(name, 2).await;
        process
    };
    drop(run(at(1, "2025-12-31T00:00:00Z"), "a").await);
    drop(run(at(1, "2026-01-02T00:00:00Z"), "b").await);
    drop(run(EngineOptions { next_key: Some(key(2)), ..at(1, "2026-01-03T00:00:00Z") }, "c").await);
    let process = run(EngineOptions { former: vec![key(1).verifier()], ..at(2, "2026-01-04T00:00:00Z") }, "d").await;
    let kept = process.export(&request(1)).await.unwrap();
    assert_eq!(kept.shards.iter().map(|shard| (shard.shard, shard.entries)).collect::<Vec<_>>(), [(2025, 2), (2026, 6)]);
    let unpacked = world.path().join("unpacked");
    unpack(process.exports.archive(kept.id).await.unwrap().unwrap(), &unpacked).unwrap();
    let evidence = |year: &str| unpacked.join("export-000000000001").join(year);
    let both = Policy::of_logs([key(1).verifier(), key(2).verifier()]);
    for year in ["2025", "2026"] {
        check(&evidence(year), Some(&both)).unwrap();
        check(&evidence(year), None).unwrap();
    }
    assert!(check(&evidence("2025"), Some(&Policy::of_logs([key(2).verifier()]))).is_err(), "the new key has not signed that year");
    assert!(check(&evidence("2025"), Some(&Policy::of_logs([key(3).verifier()]))).is_err());
}
