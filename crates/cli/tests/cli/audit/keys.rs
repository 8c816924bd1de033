//! Keys of the log that are not in the data directory, that were stolen, or that are gone: what `docs/audit.md` tells to do, step by step.

use std::fs;

use fte_testkit::Dir;

use super::{Instance, NOBODY, Ran, command, fte, has, python_checks};

impl Instance {
    /// What anybody who has the directory alone can say: it is the log that was signed, and here is a proof that another program takes.
    async fn is_whole(&self, year: u64, name: &str) {
        let verified = fte(NOBODY, &["audit", "verify", self.data(), "--no-memory"]).await;
        has(&verified, 0, &["first bad entry: none", "rows are what the log says"]);
        let out = self.path(name);
        let proved = fte(NOBODY, &["audit", "prove", &format!("{year}/1"), "--data", self.data(), "--out", &out, "--json"]).await;
        has(&proved, 0, &[]);
        python_checks(&proved.json()).unwrap();
    }

    fn former(&self) -> String {
        fs::read_to_string(self.process.data().join("audit/keys/former.pub")).unwrap()
    }
}

/// A command on a stopped instance, with the variables that the service is started with.
async fn configured(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let output = command(args).envs(env.iter().copied()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A start that the log refuses, and why.
pub(super) async fn refused(instance: &Instance, args: &[&str], env: &[(&str, &str)]) -> String {
    let up = ["up", "--data", instance.data(), "--port", "0", "--sidecar-port", "0", "--quiet"];
    let ran = configured(&[&up[..], args].concat(), env).await;
    assert_ne!(ran.code, 0, "{ran:?}");
    ran.err
}

#[tokio::test]
async fn after_a_change_of_a_key_in_a_file_elsewhere_the_directory_verifies_by_itself() {
    let dir = Dir::new();
    let (key, next) = (dir.join("k2/my.key").display().to_string(), dir.join("k2/next.key").display().to_string());
    let present = [("FTE_AUDIT_KEY_FILE", &*key)];
    let both = [present[0], ("FTE_AUDIT_NEXT_KEY_FILE", &*next)];
    let mut instance = Instance::start_in(dir, &[], &present).await;
    let (old, year) = (instance.key(), instance.year().await);
    assert_eq!(fs::read_to_string(instance.dir.join("k2/my.pub")).unwrap().trim(), old);
    instance.stop().await;
    instance.is_whole(year, "before").await;

    let rotate = async |args: &[&str]| configured(&[&["audit", "rotate-key", "--data", instance.data()], args].concat(), &both).await;
    let begun = rotate(&[]).await;
    has(&begun, 0, &["the log announces the key"]);
    let new = begun.out.trim().to_owned();
    instance.start_again(&[], &both).await;
    instance.signed(2).await;
    instance.task().await;
    instance.stop().await;
    assert_eq!((instance.key(), instance.former()), (old.clone(), format!("{old}\n")));
    instance.is_whole(year, "both").await;

    let rotate = async |args: &[&str]| configured(&[&["audit", "rotate-key", "--data", instance.data()], args].concat(), &both).await;
    has(&rotate(&["--finish"]).await, 0, &["from the next start on", &new]);
    assert_eq!((instance.key(), fs::read_to_string(instance.dir.join("k2/my.pub")).unwrap().trim()), (new.clone(), &*new));
    instance.is_whole(year, "finished").await;
    // What was left by a command that did not yet write it there, or of a copy, is set right by a start.
    let public = instance.process.data().join("audit/keys/log.pub");
    fs::write(&public, format!("{old}\n")).unwrap();
    instance.start_again(&[], &present).await;
    instance.signed(1).await;
    instance.task().await;
    instance.stop().await;
    assert_eq!(instance.key(), new);
    instance.is_whole(year, "after").await;
}

#[tokio::test]
async fn after_a_change_of_a_key_in_the_secret_store_the_directory_verifies_by_itself() {
    let mut instance = Instance::start().await;
    let (old, year) = (instance.key(), instance.year().await);
    instance.stop().await;
    // It is moved there: the directory has no private key any more.
    let file = instance.process.data().join("audit/keys/log.key");
    let first = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let made = instance.path("made.key");
    let begun = instance.rotate_key(&["--next-key", &made]).await;
    has(&begun, 0, &["the log announces the key"]);
    let new = begun.out.trim().to_owned();
    let second = fs::read_to_string(&made).unwrap();
    fs::remove_file(&made).unwrap();
    let secrets = instance.write("secrets.json", &serde_json::json!({"log-2025": first, "log-2026": second}).to_string());
    let args = ["--secrets", &*secrets];

    instance.start_again(&args, &[("FTE_AUDIT_KEY_SECRET", "log-2025")]).await;
    instance.task().await;
    instance.stop().await;
    instance.is_whole(year, "before").await;
    // Too early: it is refused, and nothing that checks the log knows of it.
    let early = refused(&instance, &args, &[("FTE_AUDIT_KEY_SECRET", "log-2026")]).await;
    assert!(early.contains("was signed by another key"), "{early}");
    assert_eq!(instance.key(), old);
    instance.is_whole(year, "early").await;

    instance.start_again(&args, &[("FTE_AUDIT_KEY_SECRET", "log-2025"), ("FTE_AUDIT_NEXT_KEY_SECRET", "log-2026")]).await;
    instance.signed(2).await;
    instance.task().await;
    instance.stop().await;
    assert_eq!((instance.key(), instance.former()), (old.clone(), format!("{old}\n")));
    instance.is_whole(year, "both").await;

    instance.start_again(&args, &[("FTE_AUDIT_KEY_SECRET", "log-2026")]).await;
    instance.signed(1).await;
    instance.task().await;
    instance.stop().await;
    assert_eq!((instance.key(), instance.former()), (new.clone(), format!("{old}\n")));
    instance.is_whole(year, "after").await;
    has(&fte(NOBODY, &["audit", "verify", instance.data(), "--no-memory", "--public-key", &new]).await, 0, &["first bad entry: none"]);
    let is_there = |name: &str| instance.process.data().join("audit/keys").join(name).exists();
    assert!(!is_there("log.key") && !is_there("log.next.key"), "the private halves are in the store alone");
    let absent = refused(&instance, &args, &[("FTE_AUDIT_KEY_SECRET", "log-2027")]).await;
    assert!(absent.contains("the secret log-2027 with a key of the audit log cannot be read"), "{absent}");
}
