//! A server that speaks TLS, with a certificate that a test's own authority has signed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::listen;

/// Answers every request alike, as `localhost`. Dropping it stops it.
#[derive(Debug)]
pub struct TlsServer {
    url: String,
    serving: JoinHandle<()>,
}

impl TlsServer {
    /// Makes an authority in `directory`, whose certificate is `ca.pem` there, and answers with these bytes, each time on a connection of its own. Takes `openssl`.
    pub async fn start(directory: &Path, answer: &'static [u8]) -> Self {
        let (cert, key) = certificate(directory);
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("the usual versions");
        let config = config.with_no_client_auth().with_single_cert(vec![cert], key).expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = listen(([127, 0, 0, 1], 0)).await;
        let url = format!("https://localhost:{}", listener.local_addr().expect("a bound listener has an address").port());
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // Who does not trust us ends here, and who has asked may be gone.
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = tls.read_u8().await else { break };
                    request.push(byte);
                }
                drop(tls.write_all(answer).await);
                drop(tls.shutdown().await);
            }
        });
        Self { url, serving }
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A certificate for localhost and its key.
fn certificate(directory: &Path) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout key.pem -out request.pem
        echo subjectAltName=DNS:localhost > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output().expect("sh");
    assert!(made.status.success(), "this takes openssl: {}", String::from_utf8_lossy(&made.stderr));
    let cert = CertificateDer::from_pem_file(directory.join("cert.pem")).expect("openssl's certificate");
    (cert, PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("openssl's key"))
}
