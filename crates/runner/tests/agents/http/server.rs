//! An agent elsewhere that does as a test says: a real server, whose answers may break, hang, flood or lie, and which remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::eventually;

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// So many of the same kind were asked before: of the same method and path, or of the same call.
    pub(crate) nth: usize,
}

impl Asked {
    /// What is called, where it is a call.
    pub(crate) fn call(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    fn kind(&self) -> (String, String) {
        (format!("{} {}", self.method, self.path), self.call().to_owned())
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(Asked, String) -> BoxFuture<'static, Response> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, answer, own) = (Arc::clone(&asked), Arc::new(answer), url.clone());
        let app = axum::Router::new().fallback(move |request: Request| {
            let (seen, answer, own) = (Arc::clone(&seen), Arc::clone(&answer), own.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let path = parts.uri.path().to_owned();
                let mut this = Asked { method: parts.method, path, headers: parts.headers, body, nth: 0 };
                {
                    let mut seen = seen.lock().unwrap();
                    this.nth = seen.iter().filter(|before| before.kind() == this.kind()).count();
                    seen.push(this.clone());
                }
                answer(this, own).await
            }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, asked, serving }
    }

    /// Everything that it was asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The calls of this method.
    pub(crate) fn calls(&self, method: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.call() == method).collect()
    }

    /// Waits until it was called so.
    pub(crate) async fn called(&self, method: &str) -> Asked {
        eventually(&format!("{method} is called"), || !self.calls(method).is_empty()).await;
        self.calls(method).remove(0)
    }
}

/// A piece of a body.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// The connection breaks.
    Break,
    /// Nothing more comes.
    Hang,
}

/// A body of these pieces.
pub(crate) fn body(status: StatusCode, media: &str, pieces: Vec<Piece>) -> Response {
    let pieces = stream::iter(pieces).then(|piece| async {
        match piece {
            Piece::Bytes(bytes) => Ok(Bytes::from(bytes)),
            Piece::Break => {
                // What went before is on its way by itself first.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("a seeded break"))
            }
            Piece::Hang => std::future::pending().await,
        }
    });
    Response::builder().status(status).header("content-type", media).body(Body::from_stream(pieces)).unwrap()
}

pub(crate) fn json_answer(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    body(status, "application/json", vec![Piece::Bytes(serde_json::to_vec(value).unwrap())])
}

pub(crate) fn header(mut answer: Response, name: &'static str, value: &str) -> Response {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

/// An answer that never begins.
pub(crate) async fn never() -> Response {
    std::future::pending().await
}

/// Nothing but a body that has no end.
pub(crate) fn flood(media: &str, chunk: Vec<u8>) -> Response {
    let chunks = stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from(chunk.clone())));
    Response::builder().header("content-type", media).body(Body::from_stream(chunks)).unwrap()
}

/// The result of a call.
pub(crate) fn result(value: &Value) -> Response {
    json_answer(200, &json!({"jsonrpc": "2.0", "id": 1, "result": value}))
}

/// The error of a call.
pub(crate) fn failure(code: i32, message: &str) -> Response {
    json_answer(200, &json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}))
}

/// One event of a stream.
pub(crate) fn event(value: &Value) -> Piece {
    Piece::Bytes(format!("data: {}\r\n\r\n", json!({"jsonrpc": "2.0", "id": 1, "result": value})).into_bytes())
}

pub(crate) fn events(pieces: Vec<Piece>) -> Response {
    body(StatusCode::OK, "text/event-stream", pieces)
}
