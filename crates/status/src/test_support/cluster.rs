//! A PostgreSQL of this test run alone, on a Unix socket in a directory of its own, with a database for each test.
//!
//! It runs under a shell that starts it again when it is killed, as an init system would, and that ends it and removes its directory when its input
//! ends, which it does with this process, however that ends.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fte_service::Secret;
use fte_testkit::eventually_within;

/// With the server's directory as `$1` and the programs' as `$2`. A server that may be killed must not leave its successor to wait for its own children.
const RUN: &str = r#"
set -u
"$2/initdb" -D "$1/data" -U fte -A trust -E UTF8 --locale=C -N >"$1/log" 2>&1 || exit 1
printf "listen_addresses = ''\nunix_socket_directories = '%s'\nmax_connections = 200\nshared_buffers = 32MB\n" "$1" >>"$1/data/postgresql.conf"
( while [ ! -e "$1/stop" ]; do "$2/postgres" -D "$1/data" >>"$1/log" 2>&1; sleep 0.2; done ) &
cat >/dev/null
touch "$1/stop"
kill -QUIT "$(head -1 "$1/data/postmaster.pid")" 2>/dev/null
wait
rm -rf "$1"
"#;

/// How long a server may take to be made and to start, beside everything else that is tested.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// The user of no rights, and its group.
const NOBODY: u32 = 65_534;

/// A server.
pub(crate) struct Cluster {
    dir: PathBuf,
    databases: AtomicU32,
    _shell: Child,
    _input: ChildStdin,
}

/// The server that most tests share.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("fte-pg-").tempdir().unwrap().keep();
        // It refuses to be run by root.
        let mut command = if is_root() {
            // Its own directory, so that it can remove it.
            std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}")).args(["--clear-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let shell = command.arg("-c").arg(RUN).arg("postgres-of-the-tests").arg(&dir).arg(programs());
        let mut shell = shell.current_dir(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let input = shell.stdin.take().unwrap();
        Self { dir, databases: AtomicU32::new(0), _shell: shell, _input: input }
    }

    /// A new database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name}");
        eventually_within(START_PATIENCE, || async {
            let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            self.run("postgres", &sql).await.map_err(|error| format!("{error}; {}", log()))
        })
        .await;
        name
    }

    /// Runs SQL in a database.
    pub(crate) async fn run(&self, database: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(self.url(database).expose(), tokio_postgres::NoTls).await?;
        let driver = tokio::spawn(connection);
        let outcome = client.batch_execute(sql).await;
        driver.abort();
        outcome
    }

    /// Copies the events of one database to another, empty one, and tells nobody.
    pub(crate) async fn copy_events(&self, from: &str, to: &str) {
        let file = self.dir.join(format!("{from}.copy")).display().to_string();
        self.run(from, &format!("COPY fte_status.event TO '{file}'")).await.unwrap();
        let head = "UPDATE fte_status.head SET seq = (SELECT max(seq) FROM fte_status.event)";
        self.run(to, &format!("BEGIN; COPY fte_status.event FROM '{file}'; {head}; COMMIT")).await.unwrap();
    }

    pub(crate) fn url(&self, database: &str) -> Secret {
        Secret::new(format!("postgres://fte@/{database}?host={}", self.dir.display()))
    }

    /// Kills the server with all that it was at; it is started again.
    pub(crate) fn kill(&self) {
        let pid = self.pid().expect("the server runs");
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }

    fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
    }
}

fn is_root() -> bool {
    let mut status = String::new();
    std::fs::File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Debian keeps the server's programs out of the path.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let usual = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let has = |dir: &Path| dir.join("initdb").exists() && dir.join("postgres").exists();
    versions.into_iter().rev().chain(usual).find(|dir| has(dir)).expect("PostgreSQL is installed (the package postgresql)")
}
