//! A real S3-compatible server, built once by `tests/s3/server`: it needs Go, and `curl` to make buckets.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::daemon::Daemon;
use crate::dir::Dir;
use crate::eventually::eventually;

const KEY: &str = "key";
const SECRET: &str = "secret";

/// The server, its objects and their locks; gone with it.
#[derive(Debug)]
pub struct S3Server {
    daemon: Daemon,
    dir: Dir,
    address: String,
}

impl S3Server {
    /// Not started yet.
    ///
    /// # Panics
    /// It cannot be built.
    #[must_use]
    pub fn new() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/s3/server");
        let built = Command::new(script).stderr(Stdio::inherit()).output().expect("the script is there");
        assert!(built.status.success(), "{script} cannot build the S3 server: it needs Go");
        let program = String::from_utf8(built.stdout).expect("a path");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let (dir, address) = (Dir::new(), free.to_string());
        let [objects, versions] = ["objects", "versions"].map(|name| dir.join(name));
        for folder in [&objects, &versions] {
            std::fs::create_dir(folder).expect("the directory is writable");
        }
        let options = ["--port", &address, "--access", KEY, "--secret", SECRET, "--quiet", "posix", "--versioning-dir"];
        let words = std::iter::once(PathBuf::from(program.trim())).chain(options.map(PathBuf::from)).chain([versions, objects]);
        Self { daemon: Daemon::new("s3", words), dir, address }
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&mut self) {
        self.daemon.start().await;
        eventually(|| async { std::net::TcpStream::connect(&self.address).map(drop).map_err(|error| error.to_string()) }).await;
    }

    /// Makes a bucket, for objects that can be locked if that is asked for.
    ///
    /// # Panics
    /// It does not answer, or refuses.
    pub fn make_bucket(&self, name: &str, locks: bool) {
        let lock = format!("x-amz-bucket-object-lock-enabled: {locks}");
        let made = self.curl(&["--fail-with-body", "--request", "PUT", "--header", &lock], name);
        assert!(made.status.success(), "{made:?}");
    }

    /// Tries to remove an object with all its versions, and gives what the server says of the last.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn remove(&self, bucket: &str, object: &str) -> String {
        let head = self.curl(&["--head"], &format!("{bucket}/{object}"));
        let head = String::from_utf8_lossy(&head.stdout).into_owned();
        let version = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("x-amz-version-id"));
        let (_, version) = version.expect("the bucket has versions");
        let removed = self.curl(&["--request", "DELETE"], &format!("{bucket}/{object}?versionId={}", version.trim()));
        String::from_utf8_lossy(&removed.stdout).into_owned()
    }

    fn curl(&self, args: &[&str], path: &str) -> Output {
        let user = format!("{KEY}:{SECRET}");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user]);
        curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]).args(args);
        curl.arg(format!("http://{}/{path}", self.address)).output().expect("curl is there")
    }

    /// Where a bucket's objects are, as files.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> PathBuf {
        self.dir.join("objects").join(bucket)
    }

    /// What a client needs to know in its environment.
    #[must_use]
    pub fn env(&self) -> [(&'static str, String); 3] {
        let endpoint = format!("http://{}", self.address);
        [("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", KEY.to_owned()), ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned())]
    }
}

impl Default for S3Server {
    fn default() -> Self {
        Self::new()
    }
}
