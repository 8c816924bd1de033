//! The master key of personal data: in the secret store, and changed.

use std::fs;

use fte_testkit::Dir;

use super::keys::refused;
use super::{Instance, NOBODY, fte, has};

impl Instance {
    /// Whether what a task was about can be read.
    async fn is_open(&self, task: &str) {
        let history = self.process.api().get(&format!("/v1/audit/tasks/{task}")).await.unwrap().text();
        assert!(history.contains("say hello"), "{history}");
    }

    async fn rewrap(&self, args: &[&str]) {
        let ran = fte(NOBODY, &[&["audit", "rewrap", "--data", self.data()], args].concat()).await;
        has(&ran, 0, &["keys wrapped with a new master key"]);
        assert!(!ran.out.starts_with("0 "), "{ran:?}");
    }
}

#[tokio::test]
async fn a_master_key_is_changed_and_the_old_one_opens_nothing_any_more() {
    let mut instance = Instance::start().await;
    let task = instance.task().await;
    let running = fte(NOBODY, &["audit", "rewrap", "--data", instance.data()]).await;
    has(&running, 1, &["another process works with the keys", "stop it first"]);
    instance.stop().await;
    let file = instance.process.data().join("audit/keys/master.key");
    let old = fs::read_to_string(&file).unwrap();
    instance.rewrap(&[]).await;
    let new = fs::read_to_string(&file).unwrap();
    assert_ne!(new, old);

    fs::write(&file, &old).unwrap();
    let error = refused(&instance, &[], &[]).await;
    assert!(error.contains("does not open the keys in") && error.contains("it is another one's"), "{error}");
    fs::write(&file, &new).unwrap();
    instance.process.restart().await;
    instance.is_open(&task).await;
}

#[tokio::test]
async fn a_master_key_in_the_secret_store_is_in_no_file_and_is_changed_from_a_file_to_a_file() {
    let dir = Dir::new();
    let (old, wrong) = ("0123456789abcdef".repeat(4), "f".repeat(64));
    let store = serde_json::json!({"master": old, "wrong": wrong, "short": "0123"});
    let secrets = dir.write("secrets.json", store.to_string()).display().to_string();
    let args = ["--secrets", &*secrets];
    let master = [("FTE_AUDIT_MASTER_KEY_SECRET", "master")];
    let mut instance = Instance::start_in(dir, &args, &master).await;
    let task = instance.task().await;
    instance.is_open(&task).await;
    instance.stop().await;
    assert!(!instance.process.data().join("audit/keys/master.key").exists());
    for (name, said) in [
        ("wrong", "the master key in the secret store does not open the keys in"),
        ("short", "the secret store is no master key, which is 64 hexadecimal digits in one line"),
        ("absent", "the secret absent with a key of the audit log cannot be read"),
    ] {
        let error = refused(&instance, &args, &[("FTE_AUDIT_MASTER_KEY_SECRET", name)]).await;
        assert!(error.contains(said), "{name}: {error}");
    }
    // Without the variable, none is made in its place.
    let error = refused(&instance, &args, &[]).await;
    assert!(error.contains("but no master key in") && error.contains("put the master key back"), "{error}");

    let file = instance.write("master.key", &format!("{old}\n"));
    instance.rewrap(&["--master-key", &file]).await;
    let new = fs::read_to_string(&file).unwrap();
    let error = refused(&instance, &args, &master).await;
    assert!(error.contains("does not open the keys in"), "{error}");
    instance.write("secrets.json", &serde_json::json!({"master": new}).to_string());
    instance.start_again(&args, &master).await;
    instance.is_open(&task).await;
}
