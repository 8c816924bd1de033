//! A fake of the API: for each route the answers to give, in order; the last one repeats. It keeps what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
}

pub(crate) fn json(status: u16, body: &str) -> Reply {
    Reply { status, content_type: "application/json", body: body.to_owned() }
}

pub(crate) fn problem(status: u16, code: &str, title: &str) -> Reply {
    let body = format!(r#"{{"type":"about:blank","status":{status},"code":"{code}","title":"{title}","detail":"for this test"}}"#);
    Reply { status, content_type: "application/problem+json", body }
}

/// An event stream that ends behind these frames.
pub(crate) fn stream(frames: &[(u32, &str)]) -> Reply {
    let body = frames.iter().map(|(id, data)| format!("id: {id}\nevent: x\ndata: {data}\n\n")).collect();
    Reply { status: 200, content_type: "text/event-stream", body }
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) route: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

#[derive(Default)]
struct Inner {
    replies: BTreeMap<String, Vec<Reply>>,
    asked: Vec<Asked>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    pub(crate) url: String,
}

impl Fake {
    /// Routes are `METHOD /path?query`.
    pub(crate) async fn start(routes: impl IntoIterator<Item = (&str, Vec<Reply>)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { url: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        fake.inner.lock().unwrap().replies = routes.into_iter().map(|(route, replies)| (route.to_owned(), replies)).collect();
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.lock().unwrap().asked.clone()
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().into()).unwrap();
    let route = format!("{} {}", head.method, head.uri);
    let mut inner = fake.inner.lock().unwrap();
    inner.asked.push(Asked { route: route.clone(), headers: head.headers, body });
    let reply = match inner.replies.get_mut(&route) {
        Some(replies) if replies.len() > 1 => replies.remove(0),
        Some(replies) => replies[0].clone(),
        None => problem(404, "route_not_found", &format!("No route {route}")),
    };
    let builder = Response::builder().status(reply.status).header("content-type", reply.content_type);
    builder.body(Body::from(reply.body)).unwrap()
}
