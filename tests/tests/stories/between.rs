//! What stands between a service and its sidecar: it passes every call on, counts those that change something, holds everything from a chosen one on, and can be
//! cut through as a sidecar does that has found its app dead.

use std::io;
use std::sync::{Arc, Mutex};

use fte_testkit::listen;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Where a chosen call is held, and all that come later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// It has no effect.
    Before,
    /// It has had its effect, and is not answered.
    After,
}

/// The change that is waited for: how many there are before it, and where it is held.
type Trap = Option<(usize, Moment)>;

struct Shared {
    to: u16,
    trap: Mutex<Trap>,
    /// The call that was held, or what was said that it cannot pass on.
    caught: watch::Sender<Option<Result<String, String>>>,
}

/// What stands between.
pub(crate) struct Between {
    port: u16,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl Drop for Between {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
        // Where nobody has waited for a call.
        if let Some(Err(breach)) = &*self.shared.caught.borrow() {
            println!("what stands between a service and its sidecar has broken off: {breach}");
        }
    }
}

impl Between {
    /// Listens at one port, and passes on to another.
    pub(crate) async fn start(port: u16, to: u16) -> Self {
        let shared = Arc::new(Shared { to, trap: Mutex::default(), caught: watch::Sender::new(None) });
        let mut between = Self { port, shared, serving: None };
        between.mend().await;
        between
    }

    /// Breaks all connections; nobody listens any more.
    pub(crate) async fn cut(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // It ends by that.
            drop(serving.await);
        }
    }

    /// Listens again.
    pub(crate) async fn mend(&mut self) {
        self.cut().await;
        let listener = listen(([127, 0, 0, 1], self.port)).await;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared))));
    }

    /// Lets so many changes through and holds the one after them, and every call from then on.
    pub(crate) fn catch(&self, after: usize, moment: Moment) {
        *self.shared.trap.lock().unwrap() = Some((after, moment));
    }

    /// Which call is held, once one is.
    pub(crate) async fn caught(&self) -> String {
        let mut caught = self.shared.caught.subscribe();
        let call = caught.wait_for(Option::is_some).await.unwrap().clone();
        call.unwrap().unwrap_or_else(|breach| panic!("what stands between a service and its sidecar has broken off: {breach}"))
    }

    /// Passes everything on. What is held stays so until its connection breaks.
    pub(crate) fn let_through(&self) {
        *self.shared.trap.lock().unwrap() = None;
        // A breach stays one.
        self.shared.caught.send_if_modified(|caught| caught.take_if(|call| call.is_ok()).is_some());
    }
}

/// The connections live in the set of this task: they end when it does.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A connection that breaks breaks on the other side, too.
            if let Err(error) = pass_on(near, &shared).await
                && error.kind() == io::ErrorKind::Unsupported
            {
                shared.caught.send_replace(Some(Err(error.to_string())));
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass_on(mut near: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut far = TcpStream::connect(("127.0.0.1", shared.to)).await?;
    let (mut near_rest, mut far_rest) = (Vec::new(), Vec::new());
    loop {
        let asked = read_message(&mut near, &mut near_rest).await?;
        let held = shared.look(&asked);
        if matches!(held, Some(Moment::Before)) {
            shared.hold(&asked, &mut near).await?;
        }
        far.write_all(&asked).await?;
        let answer = read_message(&mut far, &mut far_rest).await?;
        if matches!(held, Some(Moment::After)) {
            shared.hold(&asked, &mut near).await?;
        }
        near.write_all(&answer).await?;
    }
}

impl Shared {
    /// Whether this call is held, and where. When one was, nothing goes through any more.
    fn look(&self, asked: &[u8]) -> Option<Moment> {
        if self.caught.borrow().is_some() {
            return Some(Moment::Before);
        }
        let mut trap = self.trap.lock().unwrap();
        let (left, moment) = trap.as_mut().filter(|_| changes(asked))?;
        match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                None
            }
            None => {
                let moment = *moment;
                *trap = None;
                Some(moment)
            }
        }
    }

    /// Until who asked is gone.
    async fn hold(&self, asked: &[u8], near: &mut TcpStream) -> io::Result<()> {
        self.caught.send_if_modified(|caught| {
            let first = caught.is_none();
            caught.get_or_insert_with(|| Ok(first_line(asked)));
            first
        });
        near.read_u8().await?;
        Err(io::Error::other("who is held says more"))
    }
}

fn first_line(asked: &[u8]) -> String {
    String::from_utf8_lossy(asked).lines().next().unwrap_or_default().to_owned()
}

/// Whether a call of a service changes something for its tasks: a write, a publish, a timer. That it lives, and answers for no task, changes nothing.
fn changes(asked: &[u8]) -> bool {
    let line = first_line(asked);
    let path = line.split(' ').nth(1).unwrap_or_default();
    let writes = path.starts_with("/v1.0/state/") && !path.ends_with("/bulk") && !line.starts_with("GET ");
    let is_lease_alone = || {
        let body = asked.windows(4).position(|end| end == b"\r\n\r\n").map(|end| &asked[end + 4..]);
        let saved = body.and_then(|body| serde_json::from_slice::<Value>(body).ok()).unwrap_or_default();
        saved[0]["value"]["entries"].as_array().is_some_and(Vec::is_empty)
    };
    (writes && !is_lease_alone()) || path.contains("/publish/") || (path.contains("/jobs/") && !line.starts_with("GET "))
}

/// A whole request or answer: its head, and as much after it as that says. `rest` is what was read beyond the one before.
async fn read_message(from: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = rest.windows(4).position(|end| end == b"\r\n\r\n") {
            let length = length(&rest[..end])?;
            while rest.len() < end + 4 + length {
                read_more(from, rest).await?;
            }
            let next = rest.split_off(end + 4 + length);
            return Ok(std::mem::replace(rest, next));
        }
        if rest.len() > HEAD_BYTES_MAX {
            return Err(unsupported("no head of HTTP"));
        }
        read_more(from, rest).await?;
    }
}

async fn read_more(from: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    if from.read_buf(into).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// What would leave who asks without an answer, and the test without a reason.
fn unsupported(said: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, said)
}

fn length(head: &[u8]) -> io::Result<usize> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("transfer-encoding") {
        return Err(unsupported(&format!("it reads lengths only: {head}")));
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.map_or(Ok(0), |length| length.trim().parse().map_err(io::Error::other))
}
