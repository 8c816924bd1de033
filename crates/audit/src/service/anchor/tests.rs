//! Anchors on the topic, of a real log.

use std::path::Path;

use fte_bus::{Event as _, Record};
use fte_events::ActionRecorded;
use fte_service::{Bus, MapEnv, Settings};
use fte_testkit::{FakeSidecar, eventually};
use fte_tlog::{Checkpoint, SignedNote, VerifierKey, empty_root};

use super::*;
use crate::engine::tests::test_key;
use crate::engine::{Engine, EngineOptions};
use crate::entry::NewEntry;
use crate::log::Appended;

fn published(shard: u16, size: u64) -> Published {
    Published { shard, checkpoint: Checkpoint { origin: format!("log.test/{shard}"), size, root: empty_root() }, note: "note".into() }
}

#[test]
fn a_log_that_got_only_its_own_anchor_is_not_anchored_again() {
    assert!(is_due(None, &published(2026, 1)));
    assert!(!is_due(Some(&published(2026, 10)), &published(2026, 10)));
    assert!(!is_due(Some(&published(2026, 10)), &published(2026, 11)));
    assert!(is_due(Some(&published(2026, 10)), &published(2026, 12)));
    assert!(is_due(Some(&published(2026, 10)), &published(2027, 1)));
    assert_eq!(anchor(&published(2026, 10)).data["size"], 10);
}

pub(crate) fn log_in(directory: &Path) -> Arc<dyn Log> {
    Arc::new(Engine::open(EngineOptions { group_open: Duration::ZERO, ..EngineOptions::at(directory, test_key()) }).unwrap())
}

/// Logs bodies, and gives the checkpoint that has them in it.
pub(crate) async fn logged(log: &Arc<dyn Log>, bodies: &[&[u8]]) -> Published {
    let entries = bodies.iter().map(|body| {
        let body = body.to_vec().into();
        NewEntry::read(Record { topic: "fte.test".into(), body, partition: None, offset: None, key: None })
    });
    let appended = log.append(entries.collect()).await.unwrap();
    let Some(Appended::New(last)) = appended.last().copied() else { panic!("{appended:?}") };
    let signed = || async {
        let published = log.checkpoint(None).await.unwrap();
        published.filter(|published| published.checkpoint.size > last.index).ok_or("it is not signed yet")
    };
    eventually(signed).await
}

/// The anchors that were published, and what each says: all of it, and signed by the log's key.
pub(crate) fn anchors(sidecar: &FakeSidecar, key: &VerifierKey) -> Vec<Checkpoint> {
    let published = sidecar.published();
    let actions = published.iter().filter(|event| event.topic == ActionRecorded::TOPIC);
    let actions = actions.map(|event| serde_json::from_value::<ActionRecorded>(event.json()["data"].take()).unwrap());
    let read = actions.filter(|action| action.action == ACTION).map(|action| {
        let note = SignedNote::parse(action.data["checkpoint"].as_str().unwrap().as_bytes()).unwrap();
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        let key = VerifierKey::new(&*checkpoint.origin, fte_tlog::KeyAlgorithm::Ed25519, key.public_bytes()).unwrap();
        note.verify([&key]).unwrap();
        assert_eq!(action.resource.as_ref(), Some(&checkpoint.origin));
        assert_eq!((&action.data["size"], &action.data["root"]), (&checkpoint.size.into(), &checkpoint.root.to_string().into()));
        checkpoint
    });
    read.collect()
}

#[tokio::test]
async fn each_checkpoint_that_has_something_new_is_anchored_once() {
    let directory = tempfile::tempdir().unwrap();
    let sidecar = FakeSidecar::start().await;
    let settings = Settings::from_env(&MapEnv::of([("FTE_SIDECAR_URL", &sidecar.url())]), crate::config::PORTS).unwrap();
    let trail = AuditTrail::new(Bus::connect(&settings, crate::NAME).unwrap().publisher, crate::NAME);
    let log = log_in(directory.path());
    let mut publisher = Anchors::new(Arc::clone(&log), trail.clone());
    let mut look = async || {
        publisher.look().await;
        trail.flush(fte_testkit::PATIENCE).await;
        anchors(&sidecar, &test_key().verifier())
    };
    assert_eq!(look().await, []);

    let first = [logged(&log, &[b"one", b"two"]).await.checkpoint];
    assert_eq!(look().await, first);
    assert_eq!(look().await, first);
    // The log gets the anchor itself, which is nothing new.
    let anchor = sidecar.published().pop().unwrap().body;
    assert_eq!(logged(&log, &[&anchor]).await.checkpoint.size, first[0].size + 1);
    assert_eq!(look().await, first);
    let both = [first[0].clone(), logged(&log, &[b"three"]).await.checkpoint];
    assert_eq!(look().await, both);
    assert_eq!(look().await, both);
}
