//! Copies of years that have ended: verified where they lie, never written over, locked where that is to be had.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fte_testkit::{Dir, S3Server};

use crate::audit::live_in;
use crate::run::{Ran, command};

/// Two years that have ended, and the one that is written.
const YEARS: [i16; 3] = [2023, 2024, 2025];

async fn log_of_three_years(dir: &Dir) -> (String, String) {
    let data = dir.join("data");
    for year in YEARS {
        live_in(&data, year).await;
    }
    let key = data.join("audit/keys/log.pub").display().to_string();
    (data.display().to_string(), key)
}

/// Runs a verb on the audit log, with these variables.
async fn audit(env: &[(&'static str, String)], args: &[&str]) -> Ran {
    let mut command = command(&[&["audit"], args].concat());
    let output = command.envs(env.iter().map(|(name, value)| (*name, value.as_str()))).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
fn has(ran: &Ran, code: i32, texts: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for text in texts {
        assert!(ran.out.contains(text) || ran.err.contains(text), "{text:?} in {ran:?}");
    }
}

fn files_below(top: &Path) -> Vec<std::path::PathBuf> {
    let (mut open, mut found) = (vec![top.to_owned()], Vec::new());
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn years_that_ended_are_copied_to_a_directory_read_only_and_the_copy_verifies_by_itself() {
    let dir = Dir::new();
    let (data, key) = log_of_three_years(&dir).await;
    let copy = dir.join("copy");
    fs::create_dir(&copy).unwrap();
    let to = copy.display().to_string();
    let archive =
        async |more: &[&str]| audit(&[], &[&["archive", "--data", &data, "--to", &to, "--public-key", &key], more].concat()).await;
    has(&archive(&["--shard", "2025"]).await, 2, &["2025 has not ended"]);
    has(&archive(&["--shard", "1999"]).await, 2, &["1999 is not in the log"]);
    let done = archive(&["--shard", "2023"]).await;
    has(&done, 0, &["2023 is copied and verified: 2 entries", "to be kept until 2030-03-01T00:00:00.000Z"]);
    has(&archive(&[]).await, 0, &["2023 is there already", "2024 is copied and verified"]);
    assert!(!copy.join("2025").exists());
    // The very files of the log, and nothing but them; each with the time until which it is kept.
    let (log, copied) = (Path::new(&data).join("audit/2023/log"), copy.join("2023/log"));
    let within = |top: &Path| files_below(top).iter().map(|path| path.strip_prefix(top).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(within(&copied), within(&log));
    let until: std::time::SystemTime = "2030-03-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
    for name in within(&log) {
        let metadata = fs::metadata(copied.join(&name)).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.accessed().unwrap()), (0o444, until), "{}", name.display());
        assert_eq!(fs::read(copied.join(&name)).unwrap(), fs::read(log.join(&name)).unwrap());
    }
    let verify = async || audit(&[], &["verify", &to, "--public-key", &key, "--no-memory"]).await;
    has(&verify().await, 0, &["entries 4/4", "first bad entry: none"]);

    // What is not whole is carried on; what is another's stops it, and is left as it is.
    fs::remove_file(copy.join("2024.json")).unwrap();
    let files = files_below(&copy.join("2024"));
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(&files[2]).unwrap();
    has(&archive(&["--dry-run"]).await, 0, &["2023 is there already", "2024 would be copied: 2 entries"]);
    assert!(!files[2].exists());
    has(&archive(&[]).await, 0, &["2023 is there already", "2024 is copied and verified"]);
    assert_eq!(fs::metadata(&files[1]).unwrap().permissions().mode() & 0o777, 0o444);
    has(&verify().await, 0, &["entries 4/4", "first bad entry: none"]);
    fs::remove_file(copy.join("2024.json")).unwrap();
    fs::set_permissions(&files[1], fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&files[1], "another").unwrap();
    has(&archive(&[]).await, 1, &["the copy is not what the log is", "nothing in a copy is written over"]);
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), "another");
    has(&verify().await, 1, &[]);
    // A record by itself is no copy.
    fs::remove_dir_all(copy.join("2023")).unwrap();
    has(&archive(&["--shard", "2023"]).await, 1, &["the copy has another 2023/log/checkpoint"]);
}

#[tokio::test]
async fn a_copy_goes_to_a_directory_that_is_there_and_apart_from_the_log_and_only_of_what_is_whole() {
    let dir = Dir::new();
    let (data, key) = log_of_three_years(&dir).await;
    let archive =
        async |to: &str, more: &[&str]| audit(&[], &[&["archive", "--data", &data, "--to", to, "--public-key", &key], more].concat()).await;
    let before = files_below(Path::new(&data));
    for to in [&data, &format!("{data}/audit"), &dir.join("").display().to_string()] {
        has(&archive(to, &[]).await, 2, &["is no place apart from the log"]);
    }
    has(&archive(&dir.join("nowhere").display().to_string(), &[]).await, 2, &["make it, or mount"]);
    assert_eq!(files_below(Path::new(&data)), before);
    // A year of which something is missing is named, and the others can be copied.
    let bundle = files_below(&Path::new(&data).join("audit/2023/log/tile/entries")).remove(0);
    fs::rename(&bundle, dir.join("bundle")).unwrap();
    let copy = dir.join("copies");
    fs::create_dir(&copy).unwrap();
    let to = copy.display().to_string();
    has(&archive(&to, &[]).await, 6, &["2023 is not whole, so nothing was copied"]);
    let json = archive(&to, &["--shard", "2024", "--json"]).await;
    assert_eq!((json.code, json.json()["years"][0]["outcome"].as_str()), (0, Some("copied")), "{json:?}");
    has(&audit(&[], &["verify", &to, "--public-key", &key, "--no-memory"]).await, 0, &["entries 2/2"]);
}

#[tokio::test]
async fn a_year_that_an_earlier_key_signed_is_copied_too_and_the_next_year_answers_for_it() {
    let dir = Dir::new();
    let data = dir.join("data");
    let at = data.display().to_string();
    live_in(&data, 2022).await;
    live_in(&data, 2023).await;
    has(&audit(&[], &["rotate-key", "--data", &at]).await, 0, &[]);
    live_in(&data, 2024).await;
    has(&audit(&[], &["rotate-key", "--data", &at, "--finish"]).await, 0, &[]);
    live_in(&data, 2025).await;
    // Whoever checks knows the new key alone.
    let key = fs::read_to_string(data.join("audit/keys/log.pub")).unwrap();
    fs::create_dir(dir.join("copy")).unwrap();
    let to = dir.join("copy").display().to_string();
    has(&audit(&[], &["archive", "--data", &at, "--to", &to, "--public-key", key.trim()]).await, 0, &["2022 is copied", "2024 is copied"]);
    let verify = async |keys: &[&str]| audit(&[], &[&["verify", &to, "--no-memory"], keys].concat()).await;
    has(&verify(&["--public-key", key.trim()]).await, 0, &["first bad entry: none"]);
}

#[tokio::test]
async fn nothing_is_copied_of_a_log_that_is_not_what_was_signed() {
    let dir = Dir::new();
    let (data, key) = log_of_three_years(&dir).await;
    let bundle = files_below(&Path::new(&data).join("audit/2024/log/tile/entries")).remove(0);
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    fs::create_dir(dir.join("copy")).unwrap();
    let to = dir.join("copy").display().to_string();
    has(&audit(&[], &["archive", "--data", &data, "--to", &to, "--public-key", &key]).await, 1, &["so nothing was copied"]);
    assert_eq!(files_below(&dir.join("copy")).len(), 0);
}

#[tokio::test]
async fn a_bucket_locks_each_object_until_seven_years_after_the_last_entry() {
    let dir = Dir::new();
    let (data, key) = log_of_three_years(&dir).await;
    let mut server = S3Server::new();
    server.start().await;
    server.make_bucket("locked", true);
    server.make_bucket("loose", false);
    let mut env = server.env().to_vec();
    let archive = async |env: &[(&'static str, String)], to: &str, more: &[&str]| {
        audit(env, &[&["archive", "--data", &data, "--to", to, "--public-key", &key], more].concat()).await
    };
    has(&archive(&env, "s3://locked/log", &[]).await, 2, &["AWS_ENDPOINT_URL", "FTE_AUDIT_ARCHIVE_ALLOW_HTTP=true"]);
    env.push(("FTE_AUDIT_ARCHIVE_ALLOW_HTTP", "true".to_owned()));
    has(&archive(&env, "gs://locked/log", &[]).await, 2, &["s3://bucket/prefix"]);
    // A bucket that keeps nothing is found out by the first file, and not after seven years.
    has(&archive(&env, "s3://loose/log", &[]).await, 1, &["the place does not keep what it is given"]);
    assert!(files_below(&server.objects("loose")).len() <= 1);
    has(&archive(&env, "s3://loose/log", &["--lock", "none"]).await, 0, &["2024 is copied and verified", "nothing was locked"]);
    // That a copy is there is not enough where it should be locked.
    has(&archive(&env, "s3://loose/log", &[]).await, 1, &["2023.json is not kept as it should be"]);

    has(&archive(&env, "s3://locked/log", &[]).await, 0, &["2023 is copied and verified", "2024 is copied and verified"]);
    has(&archive(&env, "s3://locked/log", &[]).await, 0, &["2023 is there already", "2024 is there already"]);
    let verify = async |what: &str| audit(&env, &["verify", what, "--public-key", &key, "--no-memory"]).await;
    has(&verify("s3://locked/log").await, 0, &["entries 4/4", "first bad entry: none"]);
    has(&verify("s3://locked/nothing").await, 2, &["has no copy of an audit log"]);
    // The store itself refuses to let go of any of it.
    let said = server.remove("locked", "log/2023/log/checkpoint");
    assert!(said.contains("AccessDenied"), "{said}");
    has(&verify("s3://locked/log").await, 0, &["entries 4/4"]);
    // One that was changed behind the store's back is found.
    let bundle = files_below(&server.objects("locked").join("log/2024/log/tile/entries")).remove(0);
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[100] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    has(&verify("s3://locked/log").await, 1, &["2024"]);
}
