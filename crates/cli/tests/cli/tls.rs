//! An instance behind a gateway that speaks TLS.

use fte_testkit::TlsServer;

use crate::run::command;

const NO_TASKS: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"items\":[]}";

#[tokio::test]
async fn an_instance_is_reached_by_https_if_somebody_who_is_trusted_vouches_for_it() {
    let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gateway = TlsServer::start(ours.path(), NO_TASKS).await;
    let tasks = async |trusted: &str| {
        command(&["tasks", "--json"]).env("FTE_URL", gateway.url()).env("SSL_CERT_FILE", trusted).output().await.unwrap()
    };
    let trusting = tasks(ours.path().join("ca.pem").to_str().unwrap()).await;
    assert!(trusting.status.success(), "{trusting:?}");
    assert_eq!(String::from_utf8_lossy(&trusting.stdout).trim(), r#"{"items":[],"next_cursor":null}"#);
    // Another authority, which has not signed this certificate.
    let _other = TlsServer::start(others.path(), NO_TASKS).await;
    let strange = tasks(others.path().join("ca.pem").to_str().unwrap()).await;
    let why = String::from_utf8_lossy(&strange.stderr);
    assert!(strange.status.code() == Some(5) && why.contains("certificate"), "{why}");
    let nobody = tasks("/dev/null").await;
    let why = String::from_utf8_lossy(&nobody.stderr);
    assert!(nobody.status.code() == Some(2) && why.contains("SSL_CERT_FILE"), "{why}");
}
