//! A real nginx with the chart's configuration.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fte_testkit::Dir;

/// The name by which people call in the matrix.
pub(crate) const HOST: &str = "fte.example.com";

pub(crate) struct Front {
    nginx: Child,
    pub(crate) port: u16,
    dir: Dir,
}

impl Front {
    /// Before services on these ports.
    pub(crate) fn start(conf: &str, services: &BTreeMap<String, u16>) -> Self {
        let dir = Dir::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut conf = conf.replace("listen 8080;", &format!("listen 127.0.0.1:{port};")).replace("/tmp/", &format!("{}/", dir.display()));
        for (service, port) in services {
            let name = format!("fte-{service}.fte.svc:80");
            assert!(conf.contains(&name), "{name}");
            conf = conf.replace(&name, &format!("127.0.0.1:{port}"));
        }
        let file = dir.write("nginx.conf", conf);
        let log = dir.join("start.log");
        let mut nginx = Command::new("nginx");
        nginx.args(["-g", "daemon off;", "-e"]).arg(log).arg("-c").arg(file);
        let nginx = nginx.spawn().unwrap_or_else(|error| panic!("nginx (the package nginx-light): {error}"));
        let mut front = Self { nginx, port, dir };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(front.nginx.try_wait().unwrap().is_none() && Instant::now() < until, "nginx does not start: {}", front.dir.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        front
    }

    /// The status and body of one request, with a header line of one's own.
    pub(crate) fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
        ask(self.port, HOST, method, path, header, body).unwrap()
    }
}

/// The status and body of one request. An error where nobody listens yet.
pub(crate) fn ask(port: u16, host: &str, method: &str, path: &str, header: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{header}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

impl Drop for Front {
    fn drop(&mut self) {
        // Its workers end with it: SIGTERM is its fast shutdown.
        let pid = rustix::process::Pid::from_child(&self.nginx);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.nginx.wait().unwrap();
    }
}

/// A service that answers each request with its own name, and the request's method, path and host.
pub(crate) fn answering(service: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            std::thread::spawn(move || {
                let (mut request, mut host) = (String::new(), String::new());
                for line in stream.by_ref().lines().map_while(Result::ok) {
                    match line.split_once(": ") {
                        None if line.is_empty() => break,
                        None => request = line.rsplit_once(' ').unwrap().0.to_owned(),
                        Some((name, value)) if name.eq_ignore_ascii_case("host") => host = value.to_owned(),
                        Some(_) => {}
                    }
                }
                let body = format!("{service} {request} {host}");
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            });
        }
    });
    port
}
