//! What an agent without a network of its own may reach: a small forward proxy for each sandbox that asks for one, by HTTP's `CONNECT` and by whole URLs.
//!
//! Always true: only hosts on the agent's list are connected to. A name is looked up here, once, and the address that was judged is the one that is connected to, so
//! that a name cannot point elsewhere a moment later. What is allowed by a pattern reaches public addresses only: no loopback, no private network, no
//! metadata service of a cloud. A host that is written out is meant, wherever it lies.
//!
//! Rejected: a filter of packets (names are not in packets, and it needs root); taking TLS apart to see more than the host (agents would have to trust us).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fte_sandbox::way_out;
use fte_service::agents::sandbox::Allowed;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::ports::Said;

/// Connections of a sandbox at a time; further ones wait.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for a head, a name or a connection.
const PATIENCE: Duration = Duration::from_secs(15);
const HEAD_BYTES_MAX: usize = 16 << 10;
/// So many denied hosts are told of.
const DENIED_TOLD_MAX: usize = 20;
/// The variables by which programs find it.
const VARIABLES: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

type Body = Either<Incoming, Full<Bytes>>;

/// Waits for a sandbox to open its way out.
#[derive(Debug)]
pub(super) struct Awaited {
    listener: UnixListener,
    socket: PathBuf,
}

/// Ends the proxy with all its connections when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    accepting: JoinHandle<()>,
    /// Tunnels end when this goes.
    _open: watch::Sender<()>,
}

/// Whom a denied host is told: the session, once there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear(Arc<OnceLock<mpsc::WeakSender<Said>>>);

impl Ear {
    /// From now on the session hears.
    pub(super) fn lend(&self, said: &mpsc::Sender<Said>) {
        // A program serves one session.
        drop(self.0.set(said.downgrade()));
    }
}

struct Rules {
    allowed: Vec<Allowed>,
    ear: Ear,
    denied: Mutex<BTreeSet<String>>,
    open: watch::Receiver<()>,
}

/// Why a host is not reached.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{host}:{port} is not among the hosts that this agent may reach (`network` in agents.toml)")]
    NotListed { host: String, port: u16 },
    #[error("{host} has no public address, and is not on this agent's list by its own name (`network` in agents.toml)")]
    NotPublic { host: String },
    #[error("{host}:{port} cannot be reached: {source}")]
    Unreachable { host: String, port: u16, source: io::Error },
    #[error("this is a proxy: it takes CONNECT, and requests for a whole http URL")]
    NotProxied,
    #[error("the request cannot be passed on: {0}")]
    Http(#[from] hyper::Error),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotListed { .. } | Self::NotPublic { .. } => StatusCode::FORBIDDEN,
            Self::Unreachable { .. } | Self::Http(_) => StatusCode::BAD_GATEWAY,
            Self::NotProxied => StatusCode::BAD_REQUEST,
        }
    }
}

impl Awaited {
    /// Listens in `directory`, which only we can enter.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        // The name of a socket may have 107 bytes; by its open directory it is short wherever that lies.
        let opened = std::fs::File::open(directory)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))?;
        Ok(Self { listener, socket: directory.join(name) })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Answers for the sandbox as soon as it has opened its port. Needs the runtime's context.
    pub(super) fn serve(self, allowed: Vec<Allowed>, ear: Ear) -> io::Result<Proxy> {
        self.listener.set_nonblocking(true)?;
        let (held, open) = watch::channel(());
        let rules = Arc::new(Rules { allowed, ear, denied: Mutex::default(), open });
        let accepting = tokio::spawn(async move {
            // A sandbox that fails to start never comes, and the proxy ends with its session.
            match self.port().await {
                Ok(port) => serve(port, rules).await,
                Err(error) => tracing::warn!(%error, "a sandbox has no way out"),
            }
        });
        Ok(Proxy { accepting, _open: held })
    }

    async fn port(self) -> io::Result<TcpListener> {
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        let (stream, _) = listener.accept().await?;
        let stream: UnixStream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        // It follows at once.
        stream.set_read_timeout(Some(PATIENCE))?;
        let port = tokio::task::spawn_blocking(move || way_out::take(&stream)).await.map_err(io::Error::other)??;
        port.set_nonblocking(true)?;
        TcpListener::from_std(port)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.socket));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What tells programs of the proxy. What runs inside stays inside, unless the list means this machine by that name.
pub(super) fn variables(allowed: &[Allowed]) -> impl Iterator<Item = (String, String)> {
    let url = format!("http://127.0.0.1:{}", way_out::PORT);
    let inside = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .filter(|name| !allowed.iter().any(|rule| rule.host.trim_matches(['[', ']']) == *name));
    let inside = inside.collect::<Vec<_>>().join(",");
    let own = [("NO_PROXY", inside.clone()), ("no_proxy", inside), ("NODE_USE_ENV_PROXY", "1".to_owned())];
    let proxies = VARIABLES.into_iter().map(move |name| (name.to_owned(), url.clone()));
    proxies.chain(own.map(|(name, value)| (name.to_owned(), value)))
}

async fn serve(port: TcpListener, rules: Arc<Rules>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = port.accept().await else { return };
        let rules = Arc::clone(&rules);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let rules = Arc::clone(&rules);
                async move { Ok::<_, Infallible>(answer(request, rules).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD_BYTES_MAX);
            drop(server.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
            drop(permit);
        });
    }
}

async fn answer(request: Request<Incoming>, rules: Arc<Rules>) -> Response<Body> {
    let answered = if request.method() == Method::CONNECT { tunnel(request, &rules).await } else { pass(request, &rules).await };
    answered.unwrap_or_else(|refusal| {
        let mut response = Response::new(Either::Right(Full::from(format!("{refusal}\n"))));
        *response.status_mut() = refusal.status();
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        response
    })
}

async fn tunnel(request: Request<Incoming>, rules: &Rules) -> Result<Response<Body>, Refusal> {
    let authority = request.uri().authority().ok_or(Refusal::NotProxied)?;
    let mut outside = rules.connect(authority, authority.port_u16().unwrap_or(443)).await?;
    let mut open = rules.open.clone();
    // The connection is handed over once the answer is out.
    tokio::spawn(async move {
        let passed = async {
            if let Ok(upgraded) = hyper::upgrade::on(request).await {
                drop(tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut outside).await);
            }
        };
        tokio::select! {
            () = passed => {}
            // Nobody sends: this is the end of the session.
            _ = open.changed() => {}
        }
    });
    Ok(Response::new(Either::Right(Full::default())))
}

async fn pass(mut request: Request<Incoming>, rules: &Rules) -> Result<Response<Body>, Refusal> {
    if request.uri().scheme_str() != Some("http") {
        return Err(Refusal::NotProxied);
    }
    let authority = request.uri().authority().cloned().ok_or(Refusal::NotProxied)?;
    let outside = rules.connect(&authority, authority.port_u16().unwrap_or(80)).await?;
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Refusal::NotProxied)?;
    // The host that was judged is the one that is asked.
    let host = authority.as_str().parse().map_err(|_| Refusal::NotProxied)?;
    request.headers_mut().insert(header::HOST, host);
    for name in ["proxy-authorization", "proxy-connection", "connection", "upgrade"] {
        request.headers_mut().remove(name);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(outside)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(Either::Left))
}

impl Rules {
    async fn connect(&self, authority: &Authority, port: u16) -> Result<TcpStream, Refusal> {
        let host = authority.host().to_ascii_lowercase();
        let unreachable = |source| Refusal::Unreachable { host: host.clone(), port, source };
        let reach = judge(&self.allowed, &host, port).ok_or_else(|| Refusal::NotListed { host: host.clone(), port });
        let reach = reach.inspect_err(|_| self.tell(&host, port))?;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let looked_up =
            timeout(PATIENCE, tokio::net::lookup_host((name, port))).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let addresses: Vec<SocketAddr> =
            looked_up.map_err(unreachable)?.filter(|address| reach == Reach::Any || is_public(address.ip())).collect();
        if addresses.is_empty() {
            self.tell(&host, port);
            return Err(Refusal::NotPublic { host });
        }
        let connected = timeout(PATIENCE, TcpStream::connect(addresses.as_slice())).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        // What is passed on is not held back.
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(stream)
    }

    /// Each denied host is told once, and is worth a line in the audit trail.
    fn tell(&self, host: &str, port: u16) {
        let target = format!("{host}:{port}");
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < DENIED_TOLD_MAX
            && denied.insert(target.clone())
            && let Some(ear) = self.ear.0.get().and_then(mpsc::WeakSender::upgrade)
        {
            let data = Map::from_iter([("target".to_owned(), Value::from(target))]);
            // An ear that is full hears enough already.
            drop(ear.try_send(Said::Action { action: "network.denied".to_owned(), data }));
        }
    }
}

/// What a rule opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Any,
}

/// Whether a host is on the list, and how far that goes: by its own name anywhere, by a pattern to public addresses.
fn judge(allowed: &[Allowed], host: &str, port: u16) -> Option<Reach> {
    let matching = allowed.iter().filter(|rule| rule.port.map_or(matches!(port, 80 | 443), |allowed| allowed == port));
    let reaches = matching.filter_map(|rule| match rule.host.strip_prefix('*') {
        None => (rule.host == host).then_some(Reach::Any),
        Some("") => Some(Reach::Public),
        Some(below) => (host.ends_with(below) || host == &below[1..]).then_some(Reach::Public),
    });
    reaches.max_by_key(|reach| *reach == Reach::Any)
}

/// Whether an address is of the public internet. Addresses that carry another inside are judged by that.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        // An IPv4 address as such, and through a translator.
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => inner(g, h),
        (0x2002, ..) => inner(b, c),
        // Teredo carries one as well, turned over; documentation.
        (0x2001, 0 | 0xdb8, ..) => false,
        // Only this eighth of all addresses is in public use.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[&str]) -> Vec<Allowed> {
        list.iter().map(|rule| rule.parse().unwrap()).collect()
    }

    #[test]
    fn a_host_is_judged_by_its_name_and_port() {
        let list = rules(&["api.example.com:443", "*.example.org", "[::1]:8080", "10.0.0.7:80"]);
        for (host, port, expected) in [
            ("api.example.com", 443, Some(Reach::Any)),
            ("api.example.com", 80, None),
            ("example.com", 443, None),
            ("evil-api.example.com", 443, None),
            ("example.org", 443, Some(Reach::Public)),
            ("deep.below.example.org", 80, Some(Reach::Public)),
            ("badexample.org", 443, None),
            ("example.org", 22, None),
            ("[::1]", 8080, Some(Reach::Any)),
            ("10.0.0.7", 80, Some(Reach::Any)),
            ("10.0.0.8", 80, None),
        ] {
            assert_eq!(judge(&list, host, port), expected, "{host}:{port}");
        }
        let all = rules(&["*", "localhost:3000"]);
        assert_eq!(judge(&all, "anything.example", 443), Some(Reach::Public));
        assert_eq!(judge(&all, "anything.example", 25), None);
        assert_eq!(judge(&all, "localhost", 3000), Some(Reach::Any));
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for address in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2002:0101:0101::1", "64:ff9b::1.1.1.1", "::ffff:8.8.8.8"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:0a00:0001::1",
            "64:ff9b::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
