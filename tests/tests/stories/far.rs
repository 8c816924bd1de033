//! An agent that runs elsewhere: a server on the loopback that remembers what it was asked.

use std::io;
use std::sync::{Arc, Mutex};

use fte_testkit::listen;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What was asked, as the server puts it.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    pub(crate) fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    /// How often it was asked for something that begins like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|what| what.starts_with(start)).count()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The server. Dropping it stops it.
pub(crate) struct Far {
    pub(crate) url: String,
    pub(crate) asked: Asked,
    serving: JoinHandle<()>,
}

impl Drop for Far {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Far {
    /// Each connection is answered by itself; whoever asked may be gone by then.
    pub(crate) async fn start<A>(answer: impl Fn(TcpStream, Asked) -> A + Send + 'static) -> Self
    where
        A: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = listen(([127, 0, 0, 1], 0)).await;
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let seen = asked.clone();
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let answered = answer(tcp, seen.clone());
                tokio::spawn(async move { drop(answered.await) });
            }
        });
        Self { url, asked, serving }
    }
}

/// The head of a request, and its body.
pub(crate) async fn read_request(tcp: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    tcp.read_exact(&mut body).await?;
    Ok((head, body))
}
