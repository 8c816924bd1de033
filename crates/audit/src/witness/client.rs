//! Asks the witnesses of a policy to sign a checkpoint. Nothing waits for it: not an acknowledgement, and not the log's writer.
//!
//! For each witness it knows the size that this one signed last, or asks from 0 and learns it from the 409. HTTP without TLS, as everywhere in these
//! services: a witness elsewhere is reached through a proxy on this machine.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use fte_tlog::{Checkpoint, Hash, NoteError, NoteSignature, Policy, SignedNote, Witness};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::request::{Request as AddCheckpoint, decimal};

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Why a witness has not signed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("the policy names no URL for it")]
    NoUrl,
    #[error("{0} is no URL that can be asked: it must begin with http://")]
    Url(String),
    #[error("it does not answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error("it does not answer")]
    Unreachable { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("it refuses with {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("its answer has no signature of its key that is right")]
    NotSigned,
    #[error("it has signed {remembered} entries of this log, and there are {size}: the log was put back, or there are two")]
    Ahead { remembered: u64, size: u64 },
    #[error("the proof for it cannot be made: {0}")]
    Proof(String),
}

/// Asks witnesses, and remembers how far each is.
pub struct Witnesses {
    policy: Policy,
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// The size that a witness signed last of an origin.
    sizes: HashMap<(String, String), u64>,
}

/// What came of asking.
#[derive(Debug)]
pub struct Asked {
    /// The checkpoint with the signatures that there are.
    pub note: SignedNote,
    /// Whether these are those that the policy demands.
    pub quorum_met: bool,
    /// Who has not signed, and why.
    pub failed: Vec<(String, AskError)>,
}

impl Witnesses {
    /// Those of a policy.
    pub fn new(policy: Policy) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { policy, pool: Pool::builder(TokioExecutor::new()).build(connector), sizes: HashMap::new() }
    }

    /// Asks every witness, one after another, to sign a checkpoint. `prove` makes the proof that it continues the log at an earlier size.
    pub async fn ask<P>(&mut self, checkpoint: &Checkpoint, note: SignedNote, prove: impl Fn(u64) -> P) -> Result<Asked, NoteError>
    where
        P: Future<Output = Result<Vec<Hash>, String>>,
    {
        let mut asked = Asked { note, quorum_met: false, failed: Vec::new() };
        for witness in self.policy.witnesses.clone() {
            match self.ask_one(&witness, checkpoint, &asked.note, &prove).await {
                Ok(signature) => {
                    self.sizes.insert((witness.name.clone(), checkpoint.origin.clone()), checkpoint.size);
                    asked.note = asked.note.with(signature);
                }
                Err(error) => asked.failed.push((witness.name, error)),
            }
        }
        asked.quorum_met = self.policy.witnessed(&asked.note)?.quorum_met;
        Ok(asked)
    }

    async fn ask_one<P>(
        &self,
        witness: &Witness,
        checkpoint: &Checkpoint,
        note: &SignedNote,
        prove: &impl Fn(u64) -> P,
    ) -> Result<NoteSignature, AskError>
    where
        P: Future<Output = Result<Vec<Hash>, String>>,
    {
        let url = witness.url.as_deref().ok_or(AskError::NoUrl)?;
        let known = self.sizes.get(&(witness.name.clone(), checkpoint.origin.clone())).copied();
        let mut old = known.filter(|known| *known <= checkpoint.size).unwrap_or(0);
        // The second time with the size that it says.
        for _ in 0..2 {
            let proof = if old == 0 || old == checkpoint.size { Vec::new() } else { prove(old).await.map_err(AskError::Proof)? };
            let body = AddCheckpoint { old, proof, checkpoint: note.to_string() }.to_string();
            let (status, text) = self.post(url, body).await?;
            match status {
                StatusCode::OK => return signature_of(witness, checkpoint, &text).ok_or(AskError::NotSigned),
                StatusCode::CONFLICT => {
                    let remembered = text.strip_suffix('\n').and_then(decimal);
                    let remembered = remembered.ok_or_else(|| AskError::Refused { status, text: shortened(&text) })?;
                    if remembered > checkpoint.size {
                        return Err(AskError::Ahead { remembered, size: checkpoint.size });
                    }
                    old = remembered;
                }
                status => return Err(AskError::Refused { status, text: shortened(&text) }),
            }
        }
        Err(AskError::Refused { status: StatusCode::CONFLICT, text: "somebody else asks it at the same time".to_owned() })
    }

    async fn post(&self, url: &str, body: String) -> Result<(StatusCode, String), AskError> {
        let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        if !url.starts_with("http://") {
            return Err(AskError::Url(url));
        }
        let request = Request::builder().method(Method::POST).uri(&url).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| AskError::Url(url))?;
        let call = async {
            let response = self.pool.request(request).await.map_err(|error| AskError::Unreachable { source: error.into() })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|source| AskError::Unreachable { source })?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| AskError::Timeout)?
    }
}

/// The right one among the lines of an answer. Those of other keys are not looked at.
fn signature_of(witness: &Witness, checkpoint: &Checkpoint, lines: &str) -> Option<NoteSignature> {
    let text = checkpoint.to_string();
    let signatures = lines.lines().filter_map(NoteSignature::parse).filter(|signature| witness.key.claims(signature));
    signatures.take(8).find(|signature| witness.key.verify(&text, &signature.signature).is_some())
}

fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect::<String>().trim().to_owned()
}
