use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request as HttpRequest, StatusCode};
use fte_tlog::{Frontier, TileHashes, TilePath, leaf_hash, prove_consistency};
use tower::ServiceExt;

use super::client::{AskError, Witnesses};
use super::*;

const ORIGIN: &str = "log.example/2026";

/// A log: its tiles, and its checkpoint at each size.
struct Log {
    key: SignerKey,
    tiles: std::collections::HashMap<TilePath, Vec<u8>>,
    roots: Vec<Hash>,
}

impl Log {
    fn of(size: u64, seed: u8) -> Self {
        let mut frontier = Frontier::default();
        let (mut tiles, mut roots) = (std::collections::HashMap::new(), vec![frontier.root()]);
        for index in 0..size {
            frontier.append(leaf_hash(&[seed, index.to_be_bytes()[7]]), |tile| drop(tiles.insert(tile.path, tile.bytes())));
            roots.push(frontier.root());
        }
        tiles.extend(frontier.partial_tiles());
        Self { key: SignerKey::new(ORIGIN, KeyAlgorithm::Ed25519, &[1; 32]).unwrap(), tiles, roots }
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint { origin: ORIGIN.to_owned(), size, root: self.roots[usize::try_from(size).unwrap()] }
    }

    fn note(&self, size: u64) -> SignedNote {
        let text = self.checkpoint(size).to_string();
        SignedNote::new(&*text).unwrap().with(self.key.sign(&text, 0))
    }

    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        let size = self.roots.len() as u64 - 1;
        prove_consistency(&mut TileHashes::new(size, |path| self.tiles.get(&path).cloned().ok_or(())), old, new).unwrap()
    }

    fn body(&self, old: u64, new: u64) -> String {
        Request { old, proof: self.proof(old, new), checkpoint: self.note(new).to_string() }.to_string()
    }
}

fn witness_key() -> SignerKey {
    SignerKey::new("witness.example/w", KeyAlgorithm::CosignatureV1, &[9; 32]).unwrap()
}

fn open(directory: &std::path::Path) -> Result<Witness, StoreError> {
    let log = SignerKey::new(ORIGIN, KeyAlgorithm::Ed25519, &[1; 32]).unwrap();
    Witness::open(witness_key(), &Policy::of_logs([log.verifier()]), directory, Arc::new(|| 1_700_000_000))
}

fn is_signed(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Signed(_))
}

#[test]
fn p11_it_signs_what_continues_what_it_signed() {
    let directory = tempfile::tempdir().unwrap();
    let witness = open(directory.path()).unwrap();
    let log = Log::of(60, 0);
    let ask = |old, new| witness.add_checkpoint(log.body(old, new).as_bytes()).unwrap();
    for (old, new) in [(0, 0), (0, 5), (5, 5), (5, 6), (6, 60)] {
        let Verdict::Signed(line) = ask(old, new) else { panic!("{old} to {new}") };
        let note = format!("{}{line}", log.note(new));
        let note = SignedNote::parse(note.as_bytes()).unwrap();
        assert_eq!(note.verify([&witness.verifier()]).unwrap()[0].time_s, 1_700_000_000);
    }
    assert_eq!(ask(6, 60), Verdict::Conflict(60));
    assert_eq!(ask(0, 60), Verdict::Conflict(60));
    assert_eq!(ask(50, 50), Verdict::Conflict(60));
    let latest = witness.latest(&store::origin_sha256(ORIGIN)).unwrap();
    assert_eq!(SignedNote::parse(latest.as_bytes()).unwrap().signatures().len(), 2);
}

#[test]
fn p11_it_refuses_each_wrong_request_with_its_status() {
    let directory = tempfile::tempdir().unwrap();
    let witness = open(directory.path()).unwrap();
    let (log, fork) = (Log::of(60, 0), Log::of(60, 1));
    let ask = |body: String| witness.add_checkpoint(body.as_bytes()).unwrap();
    assert!(is_signed(&ask(log.body(0, 20))));
    assert!(matches!(ask("old".to_owned()), Verdict::Malformed(_)));
    assert!(matches!(ask(log.body(20, 30).replacen("old 20", "old 31", 1)), Verdict::Malformed(_)));
    assert!(matches!(ask(Request { old: 20, proof: Vec::new(), checkpoint: "text\n".to_owned() }.to_string()), Verdict::Malformed(_)));
    assert_eq!(ask(log.body(20, 30).replace(ORIGIN, "other.example")), Verdict::UnknownLog);
    let stranger = Log { key: SignerKey::new(ORIGIN, KeyAlgorithm::Ed25519, &[2; 32]).unwrap(), ..Log::of(60, 0) };
    assert_eq!(ask(stranger.body(20, 30)), Verdict::Untrusted);
    let wrong = SignedNote::new(log.checkpoint(30).to_string()).unwrap().with(log.key.sign("something else\n", 0));
    assert_eq!(ask(Request { old: 20, proof: log.proof(20, 30), checkpoint: wrong.to_string() }.to_string()), Verdict::Untrusted);
    assert_eq!(ask(log.body(10, 30)), Verdict::Conflict(20));
    // A fork, a proof of other sizes, another root at the same size, a proof where there is nothing to prove.
    assert_eq!(ask(fork.body(20, 30)), Verdict::Inconsistent);
    assert_eq!(ask(Request { old: 20, proof: log.proof(20, 31), checkpoint: log.note(30).to_string() }.to_string()), Verdict::Inconsistent);
    assert_eq!(ask(fork.body(20, 20)), Verdict::Inconsistent);
    assert_eq!(ask(Request { old: 20, proof: log.proof(20, 30), checkpoint: log.note(20).to_string() }.to_string()), Verdict::Inconsistent);
    // An empty log with the root of another.
    let empty = Checkpoint { size: 0, ..log.checkpoint(1) }.to_string();
    let empty = SignedNote::new(&*empty).unwrap().with(log.key.sign(&empty, 0));
    assert_eq!(ask(Request { old: 0, proof: Vec::new(), checkpoint: empty.to_string() }.to_string()), Verdict::Inconsistent);
    // None of that changed what it remembers.
    assert!(is_signed(&ask(log.body(20, 30))));
}

#[test]
fn p11_of_concurrent_requests_with_one_old_size_one_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let witness = open(directory.path()).unwrap();
    let log = Log::of(60, 0);
    assert!(is_signed(&witness.add_checkpoint(log.body(0, 10).as_bytes()).unwrap()));
    let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        let asks: Vec<_> = (11..27)
            .map(|new| {
                scope.spawn({
                    let (witness, log) = (&witness, &log);
                    move || witness.add_checkpoint(log.body(10, new).as_bytes()).unwrap()
                })
            })
            .collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert_eq!(verdicts.iter().filter(|verdict| is_signed(verdict)).count(), 1);
    let remembered = verdicts.iter().position(is_signed).unwrap() as u64 + 11;
    assert!(verdicts.iter().all(|verdict| is_signed(verdict) || *verdict == Verdict::Conflict(remembered)), "{verdicts:?}");
}

#[test]
fn p11_it_remembers_after_a_restart_and_only_one_process_may() {
    let directory = tempfile::tempdir().unwrap();
    let (log, fork) = (Log::of(60, 0), Log::of(60, 1));
    let first = open(directory.path()).unwrap();
    assert!(is_signed(&first.add_checkpoint(log.body(0, 20).as_bytes()).unwrap()));
    assert!(matches!(open(directory.path()), Err(StoreError::Locked { .. })));
    drop(first);
    let second = open(directory.path()).unwrap();
    assert_eq!(second.add_checkpoint(fork.body(0, 30).as_bytes()).unwrap(), Verdict::Conflict(20));
    assert_eq!(second.add_checkpoint(fork.body(20, 30).as_bytes()).unwrap(), Verdict::Inconsistent);
    drop(second);
    let path = directory.path().join(format!("{}.checkpoint", store::origin_sha256(ORIGIN)));
    std::fs::write(&path, "half a check").unwrap();
    assert!(matches!(open(directory.path()), Err(StoreError::Damaged { .. })), "what was signed is not known, so nothing more is signed");
}

#[test]
fn p11_what_cannot_be_remembered_is_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    let witness = open(directory.path()).unwrap();
    let log = Log::of(60, 0);
    let blocked = directory.path().join(format!("{}.checkpoint", store::origin_sha256(ORIGIN)));
    std::fs::create_dir(&blocked).unwrap();
    assert!(matches!(witness.add_checkpoint(log.body(0, 20).as_bytes()), Err(StoreError::Io { .. })));
    std::fs::remove_dir(&blocked).unwrap();
    // What is on the disk nobody knows now; after a start it is read.
    assert!(matches!(witness.add_checkpoint(log.body(0, 20).as_bytes()), Err(StoreError::Unknown { .. })));
    drop(witness);
    assert!(is_signed(&open(directory.path()).unwrap().add_checkpoint(log.body(0, 20).as_bytes()).unwrap()));
}

#[tokio::test]
async fn p11_the_routes_answer_as_the_specification_says() {
    let directory = tempfile::tempdir().unwrap();
    let router = server::router(Arc::new(open(directory.path()).unwrap()));
    let log = Log::of(60, 0);
    let call = |method: &str, path: &str, body: String| {
        let request = HttpRequest::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        let router = router.clone();
        async move {
            let response = router.oneshot(request).await.unwrap();
            let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
            let status = response.status();
            (status, kind, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
        }
    };
    let path = format!("/{}/checkpoint", store::origin_sha256(ORIGIN));
    assert_eq!(call("GET", &path, String::new()).await.0, StatusCode::NOT_FOUND);
    let (status, _, lines) = call("POST", "/add-checkpoint", log.body(0, 20)).await;
    assert!(status == StatusCode::OK && lines.starts_with("\u{2014} witness.example/w ") && lines.ends_with('\n'), "{lines}");
    let (status, kind, size) = call("POST", "/add-checkpoint", log.body(0, 30)).await;
    assert_eq!((status, kind.as_str(), size.as_str()), (StatusCode::CONFLICT, "text/x.tlog.size", "20\n"));
    assert_eq!(call("POST", "/add-checkpoint", "x".repeat(100_000)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(call("POST", "/add-checkpoint", Log::of(60, 1).body(20, 30)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(call("GET", "/add-checkpoint", String::new()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _, note) = call("GET", &path, String::new()).await;
    assert_eq!((status, note), (StatusCode::OK, format!("{}{lines}", log.note(20))));
}

/// The client against a real server, and against ones that are away or lie.
#[tokio::test]
async fn p11_the_client_catches_up_and_tells_who_has_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let witness = Arc::new(open(directory.path()).unwrap());
    let log = Log::of(60, 0);
    // It knows the log already, and the client does not know that.
    assert!(is_signed(&witness.add_checkpoint(log.body(0, 20).as_bytes()).unwrap()));
    tokio::spawn(async move { axum::serve(listener, server::router(witness)).await });
    let liar = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar_url = format!("http://{}", liar.local_addr().unwrap());
    let line = witness_key().renamed("liar.example", KeyAlgorithm::CosignatureV1).unwrap().sign("another text\n", 5).to_string();
    tokio::spawn(async move { axum::serve(liar, axum::Router::new().fallback(move || async move { line })).await });
    let gone = { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };

    let other = |seed: u8, name: &str| SignerKey::new(name, KeyAlgorithm::CosignatureV1, &[seed; 32]).unwrap().verifier();
    let policy = format!(
        "log {}\nwitness w {} {url}\nwitness liar {} {liar_url}\nwitness gone {} http://{gone}\nwitness unnamed {}\ngroup g 1 w liar gone unnamed\nquorum g\n",
        log.key.verifier(),
        witness_key().verifier(),
        other(10, "liar.example"),
        other(11, "gone.example"),
        other(12, "unnamed.example"),
    );
    let mut witnesses = Witnesses::new(policy.parse().unwrap());
    for size in [30, 30, 45] {
        let prove = |old| std::future::ready(Ok(log.proof(old, size)));
        let asked = witnesses.ask(&log.checkpoint(size), log.note(size), prove).await.unwrap();
        let failed: Vec<&str> = asked.failed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((failed, asked.quorum_met), (vec!["liar", "gone", "unnamed"], true), "{:?}", asked.failed);
        assert!(matches!(asked.failed[0].1, AskError::NotSigned) && matches!(asked.failed[1].1, AskError::Unreachable { .. }));
        assert_eq!(asked.note.verify([&witness_key().verifier()]).unwrap().len(), 1);
    }
    // A log that was put back meets a witness who is ahead of it.
    let prove = |old| std::future::ready(Ok(log.proof(old, 40)));
    let asked = Witnesses::new(policy.parse().unwrap()).ask(&log.checkpoint(40), log.note(40), prove).await.unwrap();
    assert!(matches!(asked.failed[0], (_, AskError::Ahead { remembered: 45, size: 40 })) && !asked.quorum_met, "{:?}", asked.failed);
}
