//! Stores to test, whose objects lie as files where a test can reach them, and an S3 server behind a network that can fail.

use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use fte_artifacts::{Artifacts, Digest, EPOCH_SECONDS, KeepError, Kept, Place, ReadError};
use fte_service::MapEnv;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const KEY: &str = "test";
const SECRET: &str = "test-secret";
const BUCKET: &str = "artifacts";
pub(crate) const BYTES_MAX: u64 = 64 << 20;

/// A store, its files, its clock and, where it has one, its network.
pub(crate) struct Kit {
    pub(crate) store: Artifacts,
    /// Where `sha256` is.
    pub(crate) root: PathBuf,
    pub(crate) network: Option<Network>,
    clock: Arc<AtomicU64>,
    data: TempDir,
}

impl Kit {
    pub(crate) fn directory() -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("artifacts");
        Self::new(&Place::Data, root, None, data)
    }

    pub(crate) async fn s3() -> Self {
        let (data, server) = (tempfile::tempdir().unwrap(), server());
        let network = Network::to(server.port).await;
        let prefix = format!("p{}", fastrand::u64(..));
        let place = format!("s3://{BUCKET}/{prefix}");
        let endpoint = format!("http://127.0.0.1:{}", network.port);
        let env = MapEnv::of([
            ("FTE_ARTIFACTS", place.as_str()),
            ("FTE_ARTIFACTS_ALLOW_HTTP", "true"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ]);
        let root = server.dir.join(BUCKET).join(prefix);
        Self::new(&Place::from_env(&env).unwrap(), root, Some(network), data)
    }

    fn new(place: &Place, root: PathBuf, network: Option<Network>, data: TempDir) -> Self {
        let clock = Arc::new(AtomicU64::new(2000 * EPOCH_SECONDS));
        let told = Arc::clone(&clock);
        let store = Artifacts::open(place, data.path()).unwrap().with_clock(move || told.load(Ordering::Relaxed));
        Self { store, root, network, clock, data }
    }

    pub(crate) fn epochs_pass(&self, count: u64) {
        self.clock.fetch_add(count * EPOCH_SECONDS, Ordering::Relaxed);
    }

    pub(crate) fn seconds_pass(&self, seconds: u64) -> u64 {
        self.clock.fetch_add(seconds, Ordering::Relaxed) + seconds
    }

    pub(crate) async fn keep(&self, content: &[u8]) -> Result<Kept, KeepError> {
        self.store.keep(Cursor::new(content.to_vec()), BYTES_MAX).await
    }

    /// What is given of it before the end or the error.
    pub(crate) async fn read(&self, kept: Kept, wanted: Range<u64>) -> (Vec<u8>, Result<(), ReadError>) {
        let mut bytes = Vec::new();
        let mut reading = match self.store.read(kept.digest, kept.size, wanted).await {
            Ok(reading) => reading,
            Err(error) => return (bytes, Err(error)),
        };
        loop {
            match reading.next().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return (bytes, Ok(())),
                Err(error) => return (bytes, Err(error)),
            }
        }
    }

    pub(crate) async fn whole(&self, kept: Kept) -> Vec<u8> {
        let (bytes, outcome) = self.read(kept, 0..kept.size).await;
        outcome.unwrap();
        bytes
    }

    /// The files of a content's copies, in order.
    pub(crate) fn copies(&self, digest: Digest) -> Vec<PathBuf> {
        let mut copies = files(&self.root.join("sha256"));
        copies.retain(|path| path.to_str().unwrap().contains(&digest.to_string()));
        copies
    }

    /// Everything that is kept.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        files(&self.root.join("sha256"))
    }

    /// What is half-written.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        files(&self.data.path().join("artifacts/tmp"))
    }
}

fn files(under: &Path) -> Vec<PathBuf> {
    let (mut open, mut found) = (vec![under.to_owned()], Vec::new());
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A server of this test run alone, that ends with it.
struct Server {
    port: u16,
    dir: PathBuf,
    _process: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/s3/server");
        let built = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(built.status.success(), "{script} cannot build the S3 server: it needs Go");
        let program = String::from_utf8(built.stdout).unwrap();
        let dir = tempfile::Builder::new().prefix("fte-s3-").tempdir().unwrap().keep();
        std::fs::create_dir(dir.join(BUCKET)).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        // The shell's input ends with this process, however that ends.
        let run = r#""$@" >/dev/null 2>&1 & server=$!; cat >/dev/null; kill "$server"; wait; rm -rf "$0""#;
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(run).arg(&dir).arg(program.trim());
        shell.args(["--port", &address, "--access", KEY, "--secret", SECRET, "--quiet", "posix"]).arg(&dir);
        let process = shell.stdin(Stdio::piped()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "the S3 server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Server { port, dir, _process: process }
    })
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// Nobody answers.
    Away,
    /// A connection breaks after so many bytes to the server.
    CutsRequests(usize),
    /// A connection breaks after so many bytes from the server.
    CutsAnswers(usize),
}

/// The way to the server.
pub(crate) struct Network {
    port: u16,
    weather: Arc<Mutex<(Weather, u32)>>,
}

impl Network {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(Mutex::new((Weather::Fine, 0)));
        let now = Arc::clone(&weather);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, Arc::clone(&now)));
            }
        });
        Self { port, weather }
    }

    /// From now on; after so many broken connections it is fine again.
    pub(crate) fn set(&self, weather: Weather, times: u32) {
        *self.weather.lock().unwrap() = (weather, times);
    }
}

async fn pass(client: TcpStream, server: u16, weather: Arc<Mutex<(Weather, u32)>>) {
    let current = || weather.lock().unwrap().0;
    let breaks = || {
        let mut weather = weather.lock().unwrap();
        weather.1 = weather.1.saturating_sub(1);
        if weather.1 == 0 {
            weather.0 = Weather::Fine;
        }
    };
    if current() == Weather::Away {
        return breaks();
    }
    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut sent, mut received) = (0, 0);
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let read = read.unwrap_or(0);
                if read == 0 || to_server.write_all(&up[..read]).await.is_err() {
                    return;
                }
                (sent, received) = (sent + read, 0);
            }
            read = from_server.read(&mut down) => {
                let read = read.unwrap_or(0);
                let cut = if let Weather::CutsAnswers(after) = current() { received + read > after } else { false };
                let pass = if let (true, Weather::CutsAnswers(after)) = (cut, current()) { after - received } else { read };
                if read == 0 || to_client.write_all(&down[..pass]).await.is_err() {
                    return;
                }
                (received, sent) = (received + read, 0);
                if cut {
                    return breaks();
                }
            }
        }
        match current() {
            Weather::CutsRequests(after) if sent > after => return breaks(),
            Weather::Away => return breaks(),
            _ => {}
        }
    }
}
