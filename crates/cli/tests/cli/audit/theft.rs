//! A key of the log that was stolen, and keys that are gone: what `docs/audit.md` tells to do, step by step.

use std::fs;
use std::path::Path;

use fte_testkit::Dir;

use super::keys::refused;
use super::{Instance, NOBODY, Ran, Witness, fte, has, size, up};

async fn verify(target: &str, args: &[&str]) -> Ran {
    fte(NOBODY, &[&["audit", "verify", target], args].concat()).await
}

impl Instance {
    /// The proof of RFC 6962 that the log only grew, as witnesses take it.
    async fn consistency(&self, from: u64, to: u64) -> String {
        let path = format!("/v1/audit/consistency?from={from}&to={to}");
        let answer: serde_json::Value = self.process.api().get(&path).await.unwrap().expect_status(200).json();
        answer["proof"].as_array().unwrap().iter().map(|hash| format!("{}\n", hash.as_str().unwrap())).collect()
    }

    /// An instance on another data directory, with a task in its log.
    async fn at(data: &Path) -> Self {
        let this = Self { process: up(data, &[], &[]).await, dir: Dir::new() };
        this.task().await;
        this
    }
}

#[tokio::test]
async fn what_a_thief_signs_with_the_old_key_counts_for_nobody_who_followed_the_steps() {
    let mut instance = Instance::start().await;
    let old = instance.key();
    instance.stop().await;
    let stolen = instance.copy("stolen");
    instance.process.restart().await;
    instance.task().await;

    // 1. What is undisputed is kept elsewhere: by hand, by a verifier, by a witness.
    let kept_note = instance.checkpoint().await;
    let kept = instance.write("kept.checkpoint", &kept_note);
    let memory = instance.path("memory");
    has(&verify(&instance.url(), &["--public-key", &old, "--memory", &memory]).await, 0, &["anchor none"]);
    let state = instance.path("witness");
    let policy = instance.write("policy.old", &format!("log {old}\nquorum none\n"));
    let witness = Witness::start(&policy, &state).await;
    assert_eq!(witness.ask(0, "", &kept_note).await.0, 200);
    instance.stop().await;
    let copy = instance.copy("kept");
    has(&verify(copy.to_str().unwrap(), &["--public-key", &old, "--since", &kept, "--no-memory"]).await, 0, &["anchor given"]);

    // 2. The key is changed at once.
    let new = instance.rotate_key(&[]).await.out.trim().to_owned();
    instance.process.restart().await;
    let both = instance.write("both.checkpoint", &instance.signed(2).await);
    instance.stop().await;
    has(&instance.rotate_key(&["--finish"]).await, 0, &["from the next start on", &new]);
    instance.process.restart().await;
    instance.signed(1).await;
    instance.task().await;

    // Meanwhile the thief lets another history begin where the copy ends, with more in it than there was.
    let mut thief = Instance::at(&stolen).await;
    while size(&thief.checkpoint().await) <= size(&kept_note) {
        thief.task().await;
    }
    let forged_note = thief.checkpoint().await;
    let forged = thief.url();
    has(&verify(&forged, &["--public-key", &old, "--no-memory"]).await, 0, &["anchor none", "first bad entry: none"]);
    has(&verify(thief.data(), &["--no-memory"]).await, 0, &["anchor none", "first bad entry: none"]);

    // What others remember tells, also by the old key.
    for remembered in [&["--since", &*kept, "--no-memory"][..], &["--since", &both, "--no-memory"], &["--memory", &memory]] {
        has(&verify(&forged, &[&["--public-key", &old], remembered].concat()).await, 1, &["keep these files as they are, as evidence"]);
    }
    assert_eq!(witness.ask(size(&kept_note), "", &forged_note).await.0, 422, "it does not continue what the witness has signed");
    witness.stop().await;

    // 3. The old key is removed from every policy: a witness signs on from what it had, and nothing of the thief's.
    let policy = instance.write("policy.new", &format!("log {new}\nquorum none\n"));
    let witness = Witness::start(&policy, &state).await;
    assert_eq!(witness.ask(size(&kept_note), "", &forged_note).await.0, 403);
    let newest = instance.checkpoint().await;
    let proof = instance.consistency(size(&kept_note), size(&newest)).await;
    assert_eq!(witness.ask(size(&kept_note), &proof, &newest).await.0, 200);
    witness.stop().await;
    for keys in [["--public-key", &*new], ["--policy", &policy]] {
        has(&verify(&forged, &[&keys[..], &["--no-memory"]].concat()).await, 1, &["no signature is of a key that is known"]);
        has(&verify(&instance.url(), &[&keys[..], &["--no-memory"]].concat()).await, 0, &["anchor none"]);
        has(&verify(&instance.url(), &[&keys[..], &["--no-memory", "--since", &both]].concat()).await, 0, &["anchor given"]);
    }
    thief.stop().await;
    instance.stop().await;
    has(&verify(instance.data(), &["--memory", &memory, "--public-key", &old, "--public-key", &new]).await, 0, &["anchor remembered"]);

    // Another log under the new key has its signature, and not what was kept.
    let another = instance.dir.join("another");
    fs::create_dir_all(another.join("audit/keys")).unwrap();
    fs::copy(instance.process.data().join("audit/keys/log.key"), another.join("audit/keys/log.key")).unwrap();
    let mut another = Instance::at(&another).await;
    another.stop().await;
    has(&verify(another.data(), &["--public-key", &new, "--no-memory"]).await, 0, &["anchor none"]);
    has(&verify(another.data(), &["--public-key", &new, "--no-memory", "--since", &both]).await, 1, &["keep these files as they are"]);
}

#[tokio::test]
async fn a_lost_key_is_replaced_by_the_log_itself_by_its_successor_or_by_its_copy() {
    let mut instance = Instance::start().await;
    let keys = instance.process.data().join("audit/keys");
    let (present, next) = (keys.join("log.key"), keys.join("log.next.key"));
    instance.stop().await;

    // The present one, and no next one: its copy, and nothing else, is put back.
    let copy = fs::read_to_string(&present).unwrap();
    fs::remove_file(&present).unwrap();
    let error = refused(&instance, &[], &[]).await;
    assert!(error.contains("is gone, and the log was signed with it: restore it from a copy"), "{error}");
    let elsewhere = Instance::start().await;
    fs::copy(elsewhere.process.data().join("audit/keys/log.key"), &present).unwrap();
    drop(elsewhere);
    let error = refused(&instance, &[], &[]).await;
    assert!(error.contains("was signed by another key"), "{error}");
    has(&verify(instance.data(), &["--no-memory"]).await, 0, &["first bad entry: none"]);
    fs::write(&present, copy).unwrap();

    // The next one, before it took over: the log is told of another, and the lost one never counts.
    let lost = instance.rotate_key(&[]).await.out.trim().to_owned();
    instance.process.restart().await;
    instance.signed(2).await;
    instance.stop().await;
    fs::remove_file(&next).unwrap();
    let error = refused(&instance, &[], &[]).await;
    assert!(error.contains("has announced the key that follows"), "{error}");
    let new = instance.rotate_key(&[]).await.out.trim().to_owned();
    assert_ne!(new, lost);
    instance.process.restart().await;
    instance.signed(2).await;
    assert_eq!(instance.announced().await, 2);
    instance.stop().await;

    // The present one, while a next one is there and both have signed: its public half is enough.
    fs::remove_file(&present).unwrap();
    let error = refused(&instance, &[], &[]).await;
    assert!(error.contains("is gone, and the log was signed with it"), "{error}");
    has(&instance.rotate_key(&["--finish"]).await, 0, &["from the next start on", &new]);
    instance.process.restart().await;
    instance.signed(1).await;
    instance.task().await;
    instance.stop().await;
    has(&verify(instance.data(), &["--no-memory"]).await, 0, &["first bad entry: none", "rows are what the log says"]);
    has(&verify(instance.data(), &["--no-memory", "--public-key", &new]).await, 0, &["first bad entry: none"]);
    has(&verify(instance.data(), &["--no-memory", "--public-key", &lost]).await, 1, &["no signature is of a key that is known"]);
}
