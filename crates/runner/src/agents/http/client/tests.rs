use std::path::Path;

use fte_service::MapEnv;
use fte_service::agents::{AgentKind, Agents};
use fte_testkit::TlsServer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::*;

fn http(url: &str, headers: &str) -> Http {
    let text = format!("[agents.far]\nkind = \"http\"\nurl = \"{url}\"\nheaders = {headers}\n");
    match &Agents::parse(Path::new("agents.toml"), &text).unwrap().agents["far"].kind {
        AgentKind::Http(http) => http.clone(),
        other => panic!("{other:?}"),
    }
}

fn client(url: &str, headers: &str, env: &MapEnv, roots: RootCertStore) -> Result<Client, ConfigError> {
    Client::new("far", &http(url, headers), env, &HttpLimits::default(), roots)
}

#[test]
fn a_missing_secret_stops_the_start_and_names_its_key() {
    let refused = |env: &MapEnv| {
        client("http://x", r#"{ Authorization = "Bearer env:TOKEN" }"#, env, RootCertStore::empty()).err().map(|error| error.to_string())
    };
    let error = refused(&MapEnv::of([])).unwrap();
    assert!(error.starts_with("TOKEN=: expected a value") && error.contains("agents.far.headers, authorization"), "{error}");
    let error = refused(&MapEnv::of([("TOKEN", "s3cret\nsecond line")])).unwrap();
    assert!(error.starts_with("TOKEN=…: ") && !error.contains("s3cret"), "{error}");
    assert_eq!(refused(&MapEnv::of([("TOKEN", "s3cret")])), None);
}

#[test]
fn secrets_are_never_shown() {
    let env = MapEnv::of([("TOKEN", "s3cret-token")]);
    let client = client("http://x", r#"{ Authorization = "Bearer env:TOKEN" }"#, &env, RootCertStore::empty()).unwrap();
    assert!(!format!("{:?}", client.headers).contains("s3cret"));
    assert_eq!(client.clean("you sent Bearer s3cret-token, or s3cret-token".to_owned()), "you sent …, or …");
    assert_eq!(client.clean(clip(format!("you sent {}", "s3cret-token".repeat(20)), 100)), format!("you sent {}", "…".repeat(8)));
    assert_eq!(client.clean("you sent s3cret-tok…".to_owned()), "you sent …");
}

#[test]
fn a_refusal_is_quoted_by_its_words() {
    let check = |body: &str, expected: &str| assert_eq!(detail(body.as_bytes()), expected, "{body}");
    check(r#"{"title":"Bad","detail":"the task is empty"}"#, ": the task is empty");
    check(r#"{"title":"Bad"}"#, ": Bad");
    check(r#"{"error":{"code":1,"message":"no"}}"#, ": no");
    check("plain words\n", ": plain words");
    check("", "");
    assert!(detail("x".repeat(100_000).as_bytes()).len() < QUOTE_BYTES_MAX + 10);
}

async fn ask(client: &Client, url: &str) -> Result<Vec<u8>, Trouble> {
    let url: Uri = url.parse().unwrap();
    let ask = Ask { method: Method::GET, url: &url, headers: Vec::new(), body: None, accept: "*/*", within: client.limits.answer };
    client.ask(ask, &Meter::new(1000)).await?.body.whole(1000).await
}

#[tokio::test]
async fn https_is_spoken_with_who_is_trusted_only() {
    let directory = tempfile::tempdir().unwrap();
    let server = TlsServer::start(directory.path(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let url = server.url().to_owned();
    let authority = CertificateDer::from_pem_file(directory.path().join("ca.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let trusting = client(&url, "{}", &MapEnv::of([]), roots).unwrap();
    assert_eq!(ask(&trusting, &url).await.unwrap(), b"hi");
    let strange = client(&url, "{}", &MapEnv::of([]), trusted_roots()).unwrap();
    let trouble = ask(&strange, &url).await.unwrap_err();
    assert!(matches!(&trouble, Trouble::Unreachable { reason, .. } if reason.contains("certificate")), "{trouble}");
}

#[tokio::test]
async fn nothing_is_asked_of_another_origin() {
    let client = client("http://127.0.0.1:1", "{}", &MapEnv::of([]), RootCertStore::empty()).unwrap();
    assert!(matches!(ask(&client, "http://127.0.0.1:2/x").await, Err(Trouble::Elsewhere { .. })));
}
