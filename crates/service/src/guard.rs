//! Who may call the public API from a browser: a web page must not be able to start local agents.
//!
//! * `Host` must be a loopback name or address, or configured. Without that, a page could point its own name at 127.0.0.1 (DNS rebinding).
//!   Where the API listens beyond loopback, any IP address will do too: no page can rebind an address.
//! * `Origin`, when a browser sends one, must be of such a host too.
//! * A browser's request from another site (`Sec-Fetch-Site: cross-site`) without an `Origin` passes only when it is somebody following a
//!   link: a GET that navigates.
//!
//! A request without these headers is no browser's; it passes.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode, Uri};

use crate::problem::Problem;

/// The rule.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    allowed: Vec<String>,
    any_address: bool,
}

impl Guard {
    pub(crate) fn new(allowed_hosts: &[String], listens_on: SocketAddr) -> Self {
        Self { allowed: allowed_hosts.to_vec(), any_address: !listens_on.ip().is_loopback() }
    }

    /// Lets the request pass, or says why not.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        // The absolute form of a request line names the host instead of the header (RFC 9112, 3.2.2).
        let host = match uri.authority() {
            Some(authority) => Some(Ok(authority.as_str())),
            None => headers.get(HOST).map(|value| value.to_str()),
        };
        if let Some(host) = host {
            let host = host.unwrap_or_default();
            if !self.knows(host_of(host)) {
                return Err(refused("host_refused", "Host", "FTE_ALLOWED_HOSTS"));
            }
        }
        match headers.get(ORIGIN) {
            Some(origin) => {
                let origin = origin.to_str().unwrap_or_default();
                let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).unwrap_or_default();
                if self.knows(host_of(authority)) { Ok(()) } else { Err(refused("origin_refused", "Origin", "FTE_ALLOWED_HOSTS")) }
            }
            None if is(headers, "sec-fetch-site", "cross-site") => {
                let follows_a_link = matches!(*method, Method::GET | Method::HEAD) && is(headers, "sec-fetch-mode", "navigate");
                if follows_a_link { Ok(()) } else { Err(refused("cross_site_refused", "Sec-Fetch-Site", "FTE_ALLOWED_HOSTS")) }
            }
            None => Ok(()),
        }
    }

    fn knows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.eq_ignore_ascii_case("localhost") || ends_with(host, ".localhost") {
            return true;
        }
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return self.any_address || address.is_loopback() || self.is_allowed(host);
        }
        self.is_allowed(host)
    }

    fn is_allowed(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

fn refused(code: &'static str, header: &str, variable: &str) -> Problem {
    let detail =
        format!("The request's {header} header names a site that may not call this API. If it is yours, add its name to {variable}.");
    Problem::new(StatusCode::FORBIDDEN, code, detail)
}

/// The host of `host[:port]`; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or("", |end| {
            let rest = &authority[end + 1..];
            if rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port) { &authority[..=end] } else { "" }
        });
    }
    match authority.split_once(':') {
        Some((host, port)) if is_port(port) => host,
        Some(_) => "",
        None => authority,
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn ends_with(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.as_bytes()[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
}

fn is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, method: Method, headers: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        guard.check(&method, &Uri::from_static("/v1/tasks"), &map).map_err(|problem| problem.code)
    }

    fn on_loopback() -> Guard {
        Guard::new(&["fte.example.com".to_owned()], "127.0.0.1:8080".parse().unwrap())
    }

    #[test]
    fn only_loopback_and_configured_hosts_are_answered() {
        let host = |host: &str| check(&on_loopback(), Method::GET, &[("host", host)]);
        for good in
            ["localhost", "LOCALHOST:8080", "app.localhost", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080", "[::1]", "fte.example.com:443"]
        {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        let bad = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "10.0.0.7",
            "[fe80::1]",
            "",
            "localhost:80:80",
            "localhost@evil.example",
            "[::1]evil.example",
            ".localhost",
        ];
        for bad in bad {
            assert_eq!(host(bad), Err("host_refused"), "{bad}");
        }
    }

    #[test]
    fn beyond_loopback_an_address_is_a_host() {
        let guard = Guard::new(&[], "0.0.0.0:8080".parse().unwrap());
        assert_eq!(check(&guard, Method::GET, &[("host", "10.0.0.7:8080")]), Ok(()));
        assert_eq!(check(&guard, Method::GET, &[("host", "evil.example")]), Err("host_refused"));
    }

    #[test]
    fn a_foreign_origin_is_refused_and_none_is_fine() {
        let origin = |origin: &str| check(&on_loopback(), Method::POST, &[("host", "localhost"), ("origin", origin)]);
        assert_eq!(check(&on_loopback(), Method::POST, &[("host", "localhost")]), Ok(()));
        for good in ["http://localhost:8080", "http://127.0.0.1:8080", "https://fte.example.com"] {
            assert_eq!(origin(good), Ok(()), "{good}");
        }
        for bad in ["https://evil.example", "null", "", "file://", "http://localhost.evil.example", "moz-extension://localhost"] {
            assert_eq!(origin(bad), Err("origin_refused"), "{bad}");
        }
    }

    #[test]
    fn from_another_site_only_links_may_be_followed() {
        let cross = |method, mode: &str| {
            check(&on_loopback(), method, &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)])
        };
        assert_eq!(cross(Method::GET, "navigate"), Ok(()));
        assert_eq!(cross(Method::GET, "no-cors"), Err("cross_site_refused"));
        assert_eq!(cross(Method::POST, "navigate"), Err("cross_site_refused"));
        assert_eq!(cross(Method::POST, "no-cors"), Err("cross_site_refused"));
        assert_eq!(check(&on_loopback(), Method::POST, &[("host", "localhost"), ("sec-fetch-site", "same-origin")]), Ok(()));
    }
}
