//! The disk is full, or may not be written: a clear error, never a false 202, nothing corrupt, and all is well again once there is room.
//!
//! A full disk is a small tmpfs in a mount namespace of its own, which ends with its holder. Where mounting is not permitted (a container without the
//! right to), files that may not grow stand in for it: SQLite meets another error then, and the promises are the same.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use fte_testkit::{Client, Daemon, Dir, FteProcess, built_binary, eventually};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::load::Doors;
use crate::trail::settled;
use crate::world::{echo, post, result};

/// Enough for the databases and a few thousand events.
const DISK_MIB: u64 = 48;
const DATABASES: [&str; 3] = ["sidecar.sqlite", "status.sqlite", "audit/index.sqlite"];

/// A place for data whose room can be taken and given back.
#[expect(clippy::large_enum_variant, reason = "there is one in a story")]
enum Shortage {
    /// A small disk of its own.
    Mounted { holder: Daemon, at: PathBuf },
    /// Files that may not grow.
    Limited { dir: Dir, why: String },
}

impl Shortage {
    async fn new(at: &Dir) -> Self {
        let at = at.join("disk");
        fs::create_dir(&at).unwrap();
        let script = format!("mount -t tmpfs -o size={DISK_MIB}m fte-test {0} && touch {0}/mounted && exec sleep 600", at.display());
        let mut holder = Daemon::new("the disk's holder", ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script]);
        holder.start().await;
        let mut mounted = Self::Mounted { holder, at };
        let refused = eventually(|| {
            let Self::Mounted { holder, .. } = &mut mounted else { unreachable!() };
            let ended = holder.exit().map(|_| holder.log());
            let is_settled = ended.is_some() || mounted.outside("mounted").exists();
            async move { if is_settled { Ok(ended) } else { Err("not mounted yet") } }
        })
        .await;
        match refused {
            None => mounted,
            Some(why) => Self::Limited { dir: Dir::new(), why },
        }
    }

    fn data(&self) -> PathBuf {
        match self {
            Self::Mounted { at, .. } => at.join("data"),
            Self::Limited { dir, .. } => dir.join("data"),
        }
    }

    /// What a process is started with, to be on it.
    fn launcher(&self) -> Vec<String> {
        match self {
            Self::Mounted { holder, .. } => {
                vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", holder.pid().unwrap()), "--".to_owned()]
            }
            // A write past the limit is an error then, not the end.
            Self::Limited { .. } => ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"].map(str::to_owned).to_vec(),
        }
    }

    /// A path on the mounted disk as this process can reach it.
    fn outside(&self, path: &str) -> PathBuf {
        match self {
            Self::Mounted { holder, at } => {
                let inside = at.join(path);
                Path::new(&format!("/proc/{}/root", holder.pid().unwrap())).join(inside.strip_prefix("/").unwrap())
            }
            Self::Limited { dir, .. } => dir.join(path),
        }
    }

    /// Leaves `pid` only so many bytes to write.
    fn fill(&self, pid: u32, room: u64) {
        match self {
            Self::Mounted { .. } => {
                let mut ballast = fs::File::create(self.outside("ballast")).unwrap();
                let mut piece = vec![0; 1 << 20];
                while !piece.is_empty() {
                    if ballast.write_all(&piece).is_err() {
                        piece.truncate(piece.len() / 2);
                    }
                }
                let size = ballast.metadata().unwrap().len();
                ballast.set_len(size.saturating_sub(room)).unwrap();
            }
            Self::Limited { .. } => limit(pid, &(65_536 + room).to_string()),
        }
    }

    /// Gives the room back; a limit ended with its process.
    fn free(&self, pid: Option<u32>) {
        match (self, pid) {
            (Self::Mounted { .. }, _) => fs::remove_file(self.outside("ballast")).unwrap(),
            (Self::Limited { .. }, Some(pid)) => limit(pid, "unlimited"),
            (Self::Limited { .. }, None) => {}
        }
    }

    /// Opens copies of all databases, as no process has them open any more, and has SQLite check every page and index.
    fn assert_sound(&self) {
        let copies = Dir::new();
        for name in DATABASES {
            for suffix in ["", "-wal"] {
                let from = self.outside(&format!("data/{name}{suffix}"));
                if from.exists() {
                    fs::copy(from, copies.join(format!("{}{suffix}", name.replace('/', "-")))).unwrap();
                }
            }
            assert_integrity(&copies.join(name.replace('/', "-")));
        }
    }
}

fn limit(pid: u32, bytes: &str) {
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")]).status();
    assert!(done.unwrap().success());
}

fn assert_integrity(path: &Path) {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok", "{}", path.display());
}

/// Posts large tasks until one is refused; remembers those that were accepted.
async fn post_until_refused(api: &Client, accepted: &mut Vec<String>) -> fte_testkit::Response {
    let filler = "x".repeat(30_000);
    for number in 0..2000 {
        let answer = api.post("/v1/tasks", &json!({ "task": format!("{number} {filler}") })).await.unwrap();
        match answer.status.as_u16() {
            202 => accepted.push(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned()),
            _ => return answer,
        }
    }
    panic!("a full disk took everything");
}

/// Starts on a small disk, with a task that is done.
async fn start(dir: &Dir) -> (Shortage, FteProcess, Vec<String>) {
    let shortage = Shortage::new(dir).await;
    if let Shortage::Limited { why, .. } = &shortage {
        println!("note: told by a limit on the size of files, as no disk can be mounted here: {why}");
    }
    let no_env: [(&str, &str); 0] = [];
    let fte = FteProcess::start_under(shortage.launcher(), built_binary(), shortage.data(), ["--quiet"], no_env).await;
    let task = post(&fte.api(), echo("before")).await;
    result(&fte.api(), &task).await;
    (shortage, fte, vec![task])
}

/// Waits until it is ready, and has accepted the task that it refused before.
async fn healed(fte: &FteProcess, key: &str, accepted: &mut Vec<String>) {
    let api = fte.api().with_header("idempotency-key", key);
    eventually(|| async {
        let ready = api.get("/ready").await.map_err(|error| error.to_string())?;
        if ready.status == 200 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    let task = eventually(|| async {
        let answer = api.post("/v1/tasks", &echo("keyed")).await.map_err(|error| error.to_string())?;
        if answer.status == 202 { Ok(answer.json::<Value>()["task_id"].as_str().unwrap().to_owned()) } else { Err(answer.text()) }
    });
    accepted.push(task.await);
}

#[tokio::test]
async fn a_full_disk_is_told_nothing_is_accepted_falsely_and_room_heals_it() {
    let dir = Dir::new();
    let (shortage, mut fte, mut accepted) = start(&dir).await;
    let api = fte.api();
    // The less room is left, the sooner the next write fails: another one each time, of another database.
    for room in [0, 150_000, 400_000, 1_000_000, 3_000_000, 0] {
        shortage.fill(fte.ready().pid, room);
        let refused = post_until_refused(&api, &mut accepted).await.expect_status(503);
        assert_eq!(refused.problem_code(), "task_not_accepted");
        let key = format!("room-{room}");
        let keyed = api.clone().with_header("idempotency-key", &key).post("/v1/tasks", &echo("keyed")).await.unwrap();
        assert!([202, 503].contains(&keyed.status.as_u16()), "{}", keyed.text());
        // It says what is wrong, lives on, and still shows what it has.
        let told =
            || async { if fte.log().contains("disk full") || fte.log().contains("check the disk") { Ok(()) } else { Err(fte.log()) } };
        eventually(told).await;
        api.get("/health").await.unwrap().expect_status(200);
        api.get(&format!("/v1/tasks/{}", accepted[0])).await.unwrap().expect_status(200);
        api.get("/v1/audit/entries").await.unwrap().expect_status(200);
        shortage.free(Some(fte.ready().pid));
        healed(&fte, &key, &mut accepted).await;
    }
    settled(&Doors::all(&api), &accepted).await;
    assert!(fte.stop().await.success());
    shortage.assert_sound();
}

#[tokio::test]
async fn a_crash_on_a_full_disk_corrupts_nothing_and_loses_nothing() {
    let dir = Dir::new();
    let (shortage, mut fte, mut accepted) = start(&dir).await;
    for room in [500_000, 0] {
        shortage.fill(fte.ready().pid, room);
        post_until_refused(&fte.api(), &mut accepted).await.expect_status(503);
        fte.kill().await;
        // It may find enough room to start, or say why it cannot.
        if let Err(failure) = fte.try_restart().await {
            assert_eq!(fte.daemon().exit().and_then(|status| status.code()), Some(2), "{failure}");
            assert!(failure.contains("disk full") || failure.contains("disk is full"), "{failure}");
        }
        fte.kill().await;
        shortage.free(None);
        fte.restart().await;
        healed(&fte, &format!("room-{room}"), &mut accepted).await;
    }
    settled(&Doors::all(&fte.api()), &accepted).await;
    assert!(fte.stop().await.success());
    shortage.assert_sound();
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_ends_the_start_with_one_clear_line() {
    let dir = Dir::new();
    let data = dir.join("data");
    // Once empty, and once with databases that were written before.
    for round in ["empty", "used"] {
        fs::create_dir_all(&data).unwrap();
        set_writable(&data, false);
        let commands = [
            vec!["up", "--port", "0", "--sidecar-port", "0", "--data", data.to_str().unwrap()],
            vec!["sidecar", "--app", "a:1:0", "--data", data.to_str().unwrap()],
            vec!["serve", "status"],
            vec!["serve", "audit"],
            vec!["serve", "runner"],
        ];
        for command in commands {
            let mut fte = Daemon::new(command.join(" "), unprivileged(built_binary()));
            for word in &command {
                fte = fte.arg(*word);
            }
            let mut fte = fte.env("FTE_DATA", &data).env("APP_PORT", "0").env("FTE_API_ADDR", "127.0.0.1:0").env("FTE_LOG", "warn");
            fte.start().await;
            let status = fte.ended().await;
            let log = fte.log();
            assert_eq!(status.code(), Some(2), "{round}: fte {}: {log}", command.join(" "));
            assert!(log.starts_with("error: ") && log.contains(data.to_str().unwrap()), "{round}: fte {}: {log}", command.join(" "));
        }
        set_writable(&data, true);
        if round == "empty" {
            let mut fte = FteProcess::start(built_binary(), &data).await;
            let task = post(&fte.api(), echo("write it")).await;
            result(&fte.api(), &task).await;
            assert!(fte.stop().await.success());
        }
    }
    for name in DATABASES {
        assert_integrity(&data.join(name));
    }
}

/// Lets nobody write the directory and what is in it, or its owner again.
fn set_writable(path: &Path, writable: bool) {
    use std::os::unix::fs::PermissionsExt as _;
    let is_dir = path.is_dir();
    fs::set_permissions(path, fs::Permissions::from_mode(if writable { 0o755 } else { 0o555 })).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten().filter(|_| is_dir) {
        set_writable(&entry.unwrap().path(), writable);
    }
}

/// The program as somebody to whom modes apply: root without its right to pass over them, or whoever runs the test.
fn unprivileged(program: PathBuf) -> Vec<std::ffi::OsString> {
    use std::os::unix::fs::MetadataExt as _;
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let setpriv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"].map(Into::into);
    setpriv.into_iter().take(if is_root { 2 } else { 0 }).chain([program.into()]).collect()
}
