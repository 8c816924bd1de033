//! An instance behind a gateway that speaks TLS.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::run::command;

/// An authority and a certificate of it for localhost, made by `openssl`.
fn certificates(directory: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout key.pem -out request.pem
        echo subjectAltName=DNS:localhost > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output().expect("sh");
    assert!(made.status.success(), "this test needs openssl: {}", String::from_utf8_lossy(&made.stderr));
}

/// Answers every request with an empty list; its URL.
async fn gateway(directory: &Path) -> String {
    let cert = CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // Who does not trust us ends here.
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = tls.read_u8().await else { break };
                request.push(byte);
            }
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"items\":[]}";
            drop(tls.write_all(answer).await);
            drop(tls.shutdown().await);
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn an_instance_is_reached_by_https_if_somebody_who_is_trusted_vouches_for_it() {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let url = gateway(directory.path()).await;
    let tasks =
        async |trusted: &str| command(&["tasks", "--json"]).env("FTE_URL", &url).env("SSL_CERT_FILE", trusted).output().await.unwrap();
    let trusting = tasks(directory.path().join("ca.pem").to_str().unwrap()).await;
    assert!(trusting.status.success(), "{trusting:?}");
    assert_eq!(String::from_utf8_lossy(&trusting.stdout).trim(), r#"{"items":[],"next_cursor":null}"#);
    // Another authority, which nobody made this certificate with.
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let strange = tasks(other.path().join("ca.pem").to_str().unwrap()).await;
    let why = String::from_utf8_lossy(&strange.stderr);
    assert!(strange.status.code() == Some(5) && why.contains("certificate"), "{why}");
    let nobody = tasks("/dev/null").await;
    let why = String::from_utf8_lossy(&nobody.stderr);
    assert!(nobody.status.code() == Some(2) && why.contains("SSL_CERT_FILE"), "{why}");
}
