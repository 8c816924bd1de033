//! The keys of an agent that runs elsewhere: `url`, `protocol`, `headers`.
//!
//! Always true: no secret stands in the file. A header's value names the variable of the environment that holds it, and only the runner reads that.

use std::collections::BTreeMap;

use http::{HeaderName, Uri};
use serde::Deserialize;
use toml::Spanned;

use super::{RawAgent, RawKind, Wrong, wrong};

/// Headers that a request has of itself.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "idempotency-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "a2a-version",
];
/// Most headers of an agent.
const HEADERS_MAX: usize = 32;

/// An agent that runs elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it is: `http` or `https`, with a host, without user or query.
    pub url: Uri,
    /// How it is spoken to. Default A2A.
    pub protocol: HttpProtocol,
    /// What each request carries besides.
    pub headers: Vec<HttpHeader>,
}

/// How an agent that runs elsewhere is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpProtocol {
    /// A2A 1.0, the protocol between agents.
    #[default]
    A2a,
    /// One POST per task.
    Post,
}

/// A header whose value is in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader {
    /// Its name.
    pub name: HeaderName,
    /// What stands before the value, such as `Bearer` and a space.
    pub prefix: String,
    /// The variable of the environment that holds the value.
    pub variable: String,
}

/// The agent, or the key that is wrong and why.
pub(super) fn check(
    address: Option<Spanned<String>>,
    protocol: Option<Spanned<HttpProtocol>>,
    headers: Option<Spanned<BTreeMap<String, Spanned<String>>>>,
) -> Result<Http, Wrong> {
    let Some(text) = address else { return Err(wrong::<String>("url", None, format!("missing; expected {URL}"))) };
    let Some(url) = url(text.get_ref()) else { return Err(wrong("url", Some(&text), format!("expected {URL}"))) };
    if let Some(headers) = headers.as_ref().filter(|headers| headers.get_ref().len() > HEADERS_MAX) {
        return Err(wrong("headers", Some(headers), format!("expected at most {HEADERS_MAX}")));
    }
    let headers = headers.map(Spanned::into_inner).unwrap_or_default().into_iter().map(|(name, value)| {
        let header = header(&name, value.get_ref());
        header.map_err(|problem| wrong("headers", Some(&value), format!("{name}: {problem}")))
    });
    Ok(Http { url, protocol: protocol.map(Spanned::into_inner).unwrap_or_default(), headers: headers.collect::<Result<_, _>>()? })
}

impl RawAgent {
    /// Only an agent that runs elsewhere has these keys, and it has none of those that are for a program.
    pub(super) fn check_elsewhere(&self) -> Result<(), Wrong> {
        fn absent<T>(key: &'static str, value: Option<&Spanned<T>>, problem: &str) -> Result<(), Wrong> {
            value.map_or(Ok(()), |value| Err(wrong(key, Some(value), problem)))
        }
        if !matches!(self.kind, RawKind::Http) {
            let problem = r#"only for kind = "http""#;
            absent("url", self.url.as_ref(), problem)?;
            absent("protocol", self.protocol.as_ref(), problem)?;
            return absent("headers", self.headers.as_ref(), problem);
        }
        absent("command", self.command.as_ref(), NOT_HERE)?;
        absent("env", self.env.as_ref(), NOT_HERE)?;
        absent("secrets", self.secrets.as_ref(), NOT_HERE)?;
        absent("min_warm", self.min_warm.as_ref(), NOT_HERE)
    }
}

/// Why a key for programs is of no use.
pub(super) const NOT_HERE: &str = r#"not for kind = "http": the agent runs elsewhere"#;
const URL: &str = r#"where the agent is, such as "https://agents.example.com/writer", without user, query and fragment"#;

fn url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok().filter(|_| !text.contains(['#', '?', '@']))?;
    let spoken = matches!(url.scheme_str(), Some("http" | "https"));
    (spoken && url.host().is_some_and(|host| !host.is_empty())).then_some(url)
}

fn header(name: &str, value: &str) -> Result<HttpHeader, String> {
    let name: HeaderName = name.parse().map_err(|_| "expected the name of a header, such as Authorization".to_owned())?;
    if OWN_HEADERS.contains(&name.as_str()) {
        return Err("a request says this header itself".to_owned());
    }
    // Never quoted: who wrote a secret here must not find it in a log as well.
    let expected =
        || r#"expected "env:" and the name of the variable that holds the value, such as "env:TOKEN" or "Bearer env:TOKEN""#.to_owned();
    let (prefix, variable) = value.split_once("env:").ok_or_else(expected)?;
    let is_name = !variable.is_empty() && variable.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_prefix = prefix.is_empty() || (prefix.ends_with(' ') && prefix.trim_end().bytes().all(|byte| byte.is_ascii_graphic()));
    if !is_name || !is_prefix {
        return Err(expected());
    }
    Ok(HttpHeader { name, prefix: prefix.to_owned(), variable: variable.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::agents::{AgentKind, Agents};

    fn parse(keys: &str) -> Result<Http, String> {
        let text = format!("[agents.far]\nkind = \"http\"\n{keys}");
        let agents = Agents::parse(Path::new("agents.toml"), &text).map_err(|error| error.to_string())?;
        match &agents.agents["far"].kind {
            AgentKind::Http(http) => Ok(http.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_agent_elsewhere_has_an_address_a_protocol_and_headers() {
        let far = parse("url = \"https://agents.example.com/writer\"\n").unwrap();
        assert_eq!((far.url.to_string().as_str(), far.protocol), ("https://agents.example.com/writer", HttpProtocol::A2a));
        let keys =
            "url = \"http://127.0.0.1:9\"\nprotocol = \"post\"\nheaders = { X-Key = \"env:KEY\", Authorization = \"Bearer env:TOKEN\" }\n";
        let far = parse(keys).unwrap();
        assert_eq!(far.protocol, HttpProtocol::Post);
        let headers: Vec<_> =
            far.headers.iter().map(|header| (header.name.as_str(), header.prefix.as_str(), header.variable.as_str())).collect();
        assert_eq!(headers, [("authorization", "Bearer ", "TOKEN"), ("x-key", "", "KEY")]);
    }

    #[test]
    fn a_bad_value_names_line_key_and_the_accepted_form() {
        let check = |keys: &str, place: &str, form: &str| {
            let error = parse(keys).unwrap_err();
            assert!(error.starts_with(&format!("agents.toml {place}:")) && error.contains(form), "{keys}: {error}");
        };
        check("", "line 1, agents.far.url", "such as");
        for url in ["agents.example.com", "ftp://x", "https://", "https://user@x/", "https://x/?a=b", "https://x/#a", "/path"] {
            check(&format!("max = 1\nurl = \"{url}\"\n"), "line 4, agents.far.url", "https://agents.example.com");
        }
        let url = "url = \"https://x\"\n";
        check(&format!("{url}protocol = \"smtp\"\n"), "line 4, agents.far.protocol", "`post`");
        check(&format!("{url}headers = {{ \"a b\" = \"env:A\" }}\n"), "line 4, agents.far.headers", "name of a header");
        check(&format!("{url}headers = {{ Host = \"env:A\" }}\n"), "line 4, agents.far.headers", "itself");
        for value in ["s3cret", "env:", "env:A B", "Bearerenv:A", "two words env:A"] {
            let keys = format!("{url}headers = {{ X = \"{value}\" }}\n");
            check(&keys, "line 4, agents.far.headers", r#""Bearer env:TOKEN""#);
            assert!(!parse(&keys).unwrap_err().contains("s3cret"));
        }
        check(&format!("{url}min_warm = 1\n"), "line 4, agents.far.min_warm", "runs elsewhere");
        check(&format!("{url}secrets = [\"A\"]\n"), "line 4, agents.far.secrets", "runs elsewhere");
        check(&format!("{url}env = [\"A\"]\n"), "line 4, agents.far.env", "runs elsewhere");
        check(&format!("{url}memory = \"1MiB\"\n"), "line 4, agents.far.memory", "runs elsewhere");
        check(&format!("{url}network = true\n"), "line 4, agents.far.network", "runs elsewhere");
        check(&format!("{url}command = [\"x\"]\n"), "line 4, agents.far.command", "runs elsewhere");
        check(&format!("{url}builtin = \"echo\"\n"), "line 4, agents.far.builtin", "only for");
        let error = Agents::parse(Path::new("agents.toml"), "[agents.x]\nkind = \"process\"\ncommand = [\"x\"]\nurl = \"https://x\"\n");
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("agents.toml line 4, agents.x.url: only for"), "{error}");
    }
}
