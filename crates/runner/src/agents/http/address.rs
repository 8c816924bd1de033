//! Addresses that an agent gives: resolved as a browser would, and followed only where they stay on the origin of the agent's own URL, because every
//! request carries the secrets that are meant for it.

use http::Uri;

use super::trouble::Trouble;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(String, String, u16);

/// The origin of an absolute URL.
pub(super) fn origin(url: &Uri) -> Option<Origin> {
    let scheme = url.scheme_str()?;
    let port = url.port_u16().or(match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    })?;
    let host = url.host().filter(|host| !host.is_empty())?;
    // A user before the host would make one origin look like another.
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    plain.then(|| Origin(scheme.to_owned(), host.to_ascii_lowercase(), port))
}

/// Where `reference`, found at `base`, leads to; an error where that is another origin.
pub(super) fn follow(base: &Uri, reference: &str, what: &'static str) -> Result<Uri, Trouble> {
    let elsewhere = || Trouble::Elsewhere { what, to: reference.to_owned() };
    let url = resolve(base, reference).ok_or_else(elsewhere)?;
    match (origin(base), origin(&url)) {
        (Some(ours), Some(found)) if ours == found => Ok(url),
        _ => Err(elsewhere()),
    }
}

fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority, path) = (base.scheme_str()?, base.authority()?, base.path());
    let text = if reference.split(['/', '?']).next().is_some_and(|start| start.contains(':')) {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') || reference.is_empty() {
        format!("{scheme}://{authority}{path}{reference}")
    } else {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{reference}")
    };
    text.parse().ok()
}

/// The address of the card of the agent at `url`: beside it, or `url` itself where that names one.
pub(super) fn card(url: &Uri) -> Option<Uri> {
    if url.path().ends_with(".json") {
        return Some(url.clone());
    }
    let (scheme, authority) = (url.scheme_str()?, url.authority()?);
    format!("{scheme}://{authority}{}/.well-known/agent-card.json", url.path().trim_end_matches('/')).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_followed_on_their_own_origin_only() {
        let base: Uri = "https://a.example/jobs/run?x=1".parse().unwrap();
        let check = |reference: &str, expected: Option<&str>| {
            let found = follow(&base, reference, "a test").ok().map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{reference}");
        };
        check("/jobs/7", Some("https://a.example/jobs/7"));
        check("7", Some("https://a.example/jobs/7"));
        check("?page=2#here", Some("https://a.example/jobs/run?page=2"));
        check("https://a.example:443/x", Some("https://a.example:443/x"));
        check("https://A.EXAMPLE/x", Some("https://A.EXAMPLE/x"));
        check("//a.example/x", Some("https://a.example/x"));
        check("http://a.example/x", None);
        check("https://a.example:8443/x", None);
        check("https://b.example/x", None);
        check("//b.example/x", None);
        check("https://a.example@b.example/x", None);
        check("https://user@a.example/x", None);
        check("file:///etc/passwd", None);
        check("data:text/plain,x", None);
        check("ht tp://x", None);
    }

    #[test]
    fn the_card_is_beside_the_agent() {
        let check = |url: &str, expected: &str| assert_eq!(card(&url.parse().unwrap()).unwrap().to_string(), expected, "{url}");
        check("https://a.example", "https://a.example/.well-known/agent-card.json");
        check("https://a.example/", "https://a.example/.well-known/agent-card.json");
        check("http://a.example:8/team/writer/", "http://a.example:8/team/writer/.well-known/agent-card.json");
        check("https://a.example/cards/writer.json", "https://a.example/cards/writer.json");
    }
}
