use std::net::SocketAddr;
use std::path::Path;

use fte_bus::Record;
use fte_testkit::{eventually, listen};
use fte_tlog::{KeyAlgorithm, SignerKey};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions};
use crate::entry::NewEntry;
use crate::witness::{Witness, server};

fn witness_key() -> SignerKey {
    SignerKey::new("witness.example/w", KeyAlgorithm::CosignatureV1, &[9; 32]).unwrap()
}

/// A witness on a port of its own.
struct Running {
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(state: &Path, address: Option<SocketAddr>) -> Self {
        let policy = Policy::of_logs([test_key().verifier()]);
        // The one before may hold its lock for a moment more.
        let open = || async { Witness::open(witness_key(), &policy, state, Arc::new(|| 1_800_000_000)) };
        let witness = eventually(|| async { open().await.map_err(|error| error.to_string()) }).await;
        let listener = listen(address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).await;
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, server::router(Arc::new(witness))).await });
        Self { address, serving }
    }

    async fn stop(self) -> SocketAddr {
        self.serving.abort();
        let _ended = self.serving.await;
        self.address
    }
}

/// A directory with a log, and the policy that names the witness.
struct Place {
    directory: tempfile::TempDir,
    policy: PathBuf,
}

impl Place {
    fn with(address: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy");
        let text = format!("log {}\nwitness w {} http://{address}\nquorum w\n", test_key().verifier(), witness_key().verifier());
        fs::write(&policy, text).unwrap();
        Self { directory, policy }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("audit")
    }

    fn open(&self) -> Arc<dyn Log> {
        Arc::new(Engine::open(EngineOptions::at(self.log(), test_key())).unwrap())
    }

    fn witnessing(&self) -> Witnessing {
        Witnessing { look_every: Duration::from_millis(20), ..Witnessing::open(&self.log(), &self.policy).unwrap() }
    }
}

async fn append(log: &Arc<dyn Log>, id: u32) {
    let body = json!({"id": id.to_string(), "source": "/test", "type": "t"}).to_string();
    let record = Record { topic: "t".into(), body: body.into(), partition: None, offset: None, key: None };
    log.append(vec![NewEntry::read(record)]).await.unwrap();
}

/// The size of the kept checkpoint once it has so many entries, and a signature of the witness.
async fn witnessed(kept: &Witnessed, size: u64) -> u16 {
    let find = || {
        let (shard, note) = kept.notes.read().unwrap().iter().next_back().map(|(shard, note)| (*shard, Arc::clone(note)))?;
        let note = SignedNote::parse(note.as_bytes()).unwrap();
        assert_eq!(note.verify([&witness_key().verifier()]).unwrap().len(), 1);
        (Checkpoint::parse(note.text()).unwrap().size >= size).then_some(shard)
    };
    eventually(|| async { find().ok_or("not witnessed yet") }).await
}

#[tokio::test]
async fn each_new_checkpoint_is_cosigned_kept_and_kept_over_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let witness = Running::start(state.path(), None).await;
    let place = Place::with(witness.address);
    let log = place.open();
    let witnessing = place.witnessing();
    let kept = witnessing.witnessed();
    let asking = tokio::spawn(witnessing.run(Arc::clone(&log)));
    for id in 0..3 {
        append(&log, id).await;
        // The log's own first entry counts too.
        witnessed(&kept, u64::from(id) + 2).await;
    }
    let address = witness.stop().await;
    append(&log, 3).await;
    // It is away: nothing waits for it, and what was witnessed stays.
    let shard = witnessed(&kept, 4).await;
    let witness = Running::start(state.path(), Some(address)).await;
    witnessed(&kept, 5).await;
    asking.abort();
    assert_eq!(place.witnessing().witnessed().note(shard), kept.note(shard));
    witness.stop().await;
}

#[tokio::test]
async fn p10_a_log_that_was_put_back_does_not_start_and_one_that_runs_stops() {
    let state = tempfile::tempdir().unwrap();
    let witness = Running::start(state.path(), None).await;
    let place = Place::with(witness.address);
    // Before there is a log there is nothing to compare.
    place.witnessing().check_before_start().await.unwrap();
    let log = place.open();
    append(&log, 0).await;
    drop(log);
    let older = tempfile::tempdir().unwrap();
    copy(&place.log(), older.path());

    let log = place.open();
    let witnessing = place.witnessing();
    let kept = witnessing.witnessed();
    let asking = tokio::spawn(witnessing.run(Arc::clone(&log)));
    for id in 1..5 {
        append(&log, id).await;
    }
    witnessed(&kept, 6).await;
    asking.abort();
    let _ended = asking.await;
    drop(log);
    place.witnessing().check_before_start().await.unwrap();

    fs::remove_dir_all(place.log()).unwrap();
    copy(older.path(), &place.log());
    let error = place.witnessing().check_before_start().await.unwrap_err();
    assert!(matches!(error, WitnessError::Behind { remembered: 6, size: 2, .. }), "{error}");
    assert!(error.to_string().contains("put back to an older state"), "{error}");
    // Whoever starts it nevertheless is stopped.
    let log = place.open();
    let error = place.witnessing().run(Arc::clone(&log)).await.unwrap_err();
    assert!(error.downcast_ref::<WitnessError>().is_some_and(|error| matches!(error, WitnessError::Behind { .. })), "{error}");
    witness.stop().await;
}

#[tokio::test]
async fn a_witness_that_is_away_keeps_no_log_from_starting() {
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let place = Place::with(gone);
    append(&place.open(), 0).await;
    place.witnessing().check_before_start().await.unwrap();
}

#[test]
fn a_policy_that_cannot_be_used_is_refused_by_its_path() {
    let place = Place::with(([127, 0, 0, 1], 1).into());
    let refused = |text: &str| {
        fs::write(&place.policy, text).unwrap();
        Witnessing::open(&place.log(), &place.policy).err().unwrap()
    };
    assert!(matches!(refused("nonsense"), WitnessError::Policy { .. }));
    let error = refused("quorum none\n").to_string();
    assert!(error.contains("names no witness with a URL"), "{error}");
    fs::remove_file(&place.policy).unwrap();
    assert!(matches!(Witnessing::open(&place.log(), &place.policy), Err(WitnessError::Unreadable { .. })));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
