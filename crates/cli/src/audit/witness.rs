//! `fte audit witness`: a witness by C2SP `tlog-witness`, for the logs of other installations.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fte_audit::files::install_new;
use fte_audit::witness::server::router;
use fte_audit::witness::{StoreError, Witness as Server};
use fte_service::{Limits, chain};
use fte_tlog::{KeyAlgorithm, SignerKey};
use serde_json::json;
use tokio::net::TcpListener;

use super::verify::keys::policy_file;
use crate::error::Error;
use crate::output::Output;
use crate::signals::Shutdown;

/// How long open requests may take when the witness is asked to end.
const DRAIN: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
It prints its public key, which goes into the policies of those who rely on it, as in
  witness friend <key> http://friend.example:7480
The policy of the witness itself needs only the logs: `log <the other's audit/keys/log.pub>` and `quorum none`.
Its state must never be put back to an older copy: it would sign a second history of what it has forgotten.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Witness {
    /// Where it listens, for plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7480")]
    listen: SocketAddr,
    /// Whose checkpoints it signs: the `log` lines of a C2SP tlog-policy
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// What it has signed, and, unless --key names another place, its key
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Its private key; made, where there is neither a key nor a state
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name it signs by, a URL without scheme, when its key is made
    #[arg(long, value_name = "NAME", default_value = "witness.localhost")]
    name: String,
}

impl Witness {
    pub(crate) async fn run(self, output: Output) -> Result<(), Error> {
        let shutdown = Shutdown::on_signals(output)?;
        let policy = policy_file(&self.policy)?;
        if policy.logs.is_empty() {
            return Err(Error::usage(format!("{} names no log", self.policy.display()), "give it a line `log <key>` for each log"));
        }
        let key = self.key()?;
        let clock = Arc::new(|| u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0));
        let server = Server::open(key, &policy, &self.state, clock).map_err(unopened)?;
        let verifier = server.verifier();
        let cannot = |source: std::io::Error| Error::Start {
            what: format!("{} cannot be listened on", self.listen),
            advice: "choose another address with --listen".to_owned(),
            source: Some(source.into()),
        };
        let listener = TcpListener::bind(self.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let mut serving = fte_service::serve(listener, router(Arc::new(server)), Limits::api(256));
        if output.json {
            output.json_line(&json!({"url": format!("http://{address}"), "key": verifier.to_string()}))?;
        } else {
            output.line(verifier.to_string())?;
            output.note(format!("signs on http://{address} for {} logs", policy.logs.len()));
        }
        shutdown.asked().await;
        serving.drain();
        // Whoever is cut off asks again.
        let _ = tokio::time::timeout(DRAIN, serving.drained()).await;
        serving.close().await;
        Ok(())
    }

    fn key(&self) -> Result<SignerKey, Error> {
        let path = self.key.clone().unwrap_or_else(|| self.state.join("witness.key"));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.make_key(&path)?,
            read => read.map_err(|error| unusable(&path, &error.to_string()))?,
        };
        let key: SignerKey = text.trim().parse().map_err(|error: fte_tlog::KeyError| unusable(&path, &error.to_string()))?;
        if key.verifier().algorithm() != KeyAlgorithm::CosignatureV1 {
            return Err(unusable(&path, "it is the key of a log, and a witness signs with one of type 0x04"));
        }
        Ok(key)
    }

    /// Never in the place of a lost one: what was signed with that counts on.
    fn make_key(&self, path: &Path) -> Result<String, Error> {
        if self.state.join("lock").exists() {
            let advice = "restore it from a copy; a new witness begins with a state directory of its own".to_owned();
            return Err(Error::usage(format!("{} is gone, and {} was used with it", path.display(), self.state.display()), advice));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Error::Failed(format!("no random numbers for a key: {error}")))?;
        let key = SignerKey::new(&*self.name, KeyAlgorithm::CosignatureV1, &seed).map_err(|error| {
            Error::usage(format!("{:?} cannot be the name of a witness: {error}", self.name), "write it like witness.example/w1")
        })?;
        let text = format!("{}\n", key.private_text());
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
            install_new(path, text.as_bytes(), 0o600)
        };
        write().map_err(|source| Error::Write { what: path.display().to_string(), source })?;
        Ok(text)
    }
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::usage(format!("the key {} cannot be used: {why}", path.display()), "it looks like PRIVATE+KEY+witness.example+…")
}

fn unopened(error: StoreError) -> Error {
    let advice = match &error {
        StoreError::Locked { .. } => "stop the other process, or give this one a --state of its own",
        _ => "mend that first: a witness that has forgotten what it signed is none",
    };
    Error::Start { what: chain(&error).to_string(), advice: advice.to_owned(), source: None }
}
