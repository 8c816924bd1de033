//! The key `sandbox` of an agent where its sandboxes are not of the runner's machine: claimed in a cluster, each for as long as one attempt takes.
//!
//! ```toml
//! sandbox = { kind = "kubernetes", warm_pool = "research", namespace = "agents", port = 8080, ready_timeout = "60s" }
//! ```

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::sandbox::RawWalls;
use super::{AgentKind, Span, Wrong};

/// How long a claim may take to be ready where nothing is said.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A pool of sandboxes in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSandbox {
    /// The `SandboxWarmPool` that a claim names; it names the template. One of size 0 has nothing warm.
    pub warm_pool: String,
    /// The namespace of pool, claims and pods.
    pub namespace: String,
    /// The port at which the agent listens in its pod.
    pub port: u16,
    /// Longest time from the claim until its sandbox is ready. Default 1 minute.
    pub ready_timeout: Duration,
}

/// The key's value: a word for what holds a program here, or a table for a place elsewhere.
pub(super) enum RawPlace {
    Here(RawWalls),
    Cluster(RawCluster),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    kind: RawKind,
    warm_pool: String,
    namespace: String,
    port: u16,
    ready_timeout: Option<Span>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Kubernetes,
}

impl<'de> Deserialize<'de> for RawPlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Place;
        impl<'de> Visitor<'de> for Place {
            type Value = RawPlace;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""bubblewrap", "none", or a table such as { kind = "kubernetes", … }"#)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawPlace, E> {
                RawWalls::deserialize(StrDeserializer::new(text)).map(RawPlace::Here)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawPlace, A::Error> {
                RawCluster::deserialize(MapAccessDeserializer::new(map)).map(RawPlace::Cluster)
            }
        }
        deserializer.deserialize_any(Place)
    }
}

/// What the key says of an agent of this kind. A program is started where the runner is; only an agent that is reached over the network can be elsewhere.
pub(super) fn place(
    kind: &AgentKind,
    raw: Option<Spanned<RawPlace>>,
) -> Result<(Option<Spanned<RawWalls>>, Option<KubernetesSandbox>), Wrong> {
    let Some(raw) = raw else { return Ok((None, None)) };
    let span = raw.span();
    let wrong = |problem: String| Wrong { key: "sandbox", at: Some(span.start), problem };
    match raw.into_inner() {
        RawPlace::Here(walls) => Ok((Some(Spanned::new(span, walls)), None)),
        RawPlace::Cluster(_) if !is_elsewhere(kind) => Err(wrong(r#"a sandbox in a cluster is only for kind = "http""#.to_owned())),
        RawPlace::Cluster(cluster) => cluster.check().map(|place| (None, Some(place))).map_err(wrong),
    }
}

fn is_elsewhere(kind: &AgentKind) -> bool {
    matches!(kind, AgentKind::Http(_))
}

impl RawCluster {
    /// The sandbox, or what is wrong with it.
    pub(super) fn check(self) -> Result<KubernetesSandbox, String> {
        let RawKind::Kubernetes = self.kind;
        if !is_subdomain(&self.warm_pool) {
            return Err(format!("warm_pool {:?}: expected the name of a SandboxWarmPool, of a-z, 0-9, - and .", self.warm_pool));
        }
        if !is_label(&self.namespace) {
            return Err(format!("namespace {:?}: expected a namespace, of a-z, 0-9 and -, at most 63 characters", self.namespace));
        }
        if self.port == 0 {
            return Err("port 0: expected the port at which the agent listens, 1 to 65535".to_owned());
        }
        let ready_timeout = self.ready_timeout.map_or(READY_TIMEOUT, |span| span.0);
        if ready_timeout.is_zero() {
            return Err("ready_timeout: expected more than nothing".to_owned());
        }
        Ok(KubernetesSandbox { warm_pool: self.warm_pool, namespace: self.namespace, port: self.port, ready_timeout })
    }
}

/// A label of RFC 1123.
fn is_label(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

/// A subdomain of RFC 1123.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<KubernetesSandbox, String> {
        toml::from_str::<RawCluster>(text).map_err(|error| error.message().to_owned()).and_then(RawCluster::check)
    }

    #[test]
    fn a_pool_is_named_with_its_namespace_and_port() {
        let read =
            |more: &str| check(&format!("kind = \"kubernetes\"\nwarm_pool = \"research.v2\"\nnamespace = \"agents\"\nport = 8080\n{more}"));
        let expected = |seconds| KubernetesSandbox {
            warm_pool: "research.v2".to_owned(),
            namespace: "agents".to_owned(),
            port: 8080,
            ready_timeout: Duration::from_secs(seconds),
        };
        assert_eq!(read(""), Ok(expected(60)));
        assert_eq!(read("ready_timeout = \"5m\""), Ok(expected(300)));
    }

    #[test]
    fn the_key_is_a_word_for_here_or_a_table_for_elsewhere() {
        let check = |value: &str, says: &str| {
            let text = format!("[agents.a]\nkind = \"process\"\ncommand = [\"x\"]\nsandbox = {value}\n");
            let error = crate::agents::Agents::parse(std::path::Path::new("agents.toml"), &text).unwrap_err().to_string();
            assert!(error.starts_with("agents.toml line 4, agents.a.sandbox: ") && error.contains(says), "{value}: {error}");
        };
        let elsewhere = "[agents.a]\nkind = \"http\"\nurl = \"http://sandbox/\"\n";
        let parse = |text: &str| crate::agents::Agents::parse(std::path::Path::new("agents.toml"), text);
        let place = r#"{ kind = "kubernetes", warm_pool = "p", namespace = "n", port = 1 }"#;
        let agents = parse(&format!("{elsewhere}sandbox = {place}\n")).unwrap();
        assert_eq!(agents.agents.values().next().unwrap().kubernetes.as_ref().unwrap().warm_pool, "p");
        let error = parse(&format!("{elsewhere}sandbox = \"none\"\n")).unwrap_err().to_string();
        assert!(error.contains("line 4, agents.a.sandbox: not for"), "{error}");
        check(place, r#"only for kind = "http""#);
        check(r#"{ kind = "kubernetes", namespace = "n", port = 1 }"#, "missing field `warm_pool`");
        check(r#""kubernetes""#, "unknown variant `kubernetes`");
        check("7", r#"{ kind = "kubernetes", … }"#);
    }

    #[test]
    fn what_no_cluster_would_take_is_refused() {
        let refused = |text: &str, says: &str| {
            let error = check(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        };
        let whole = r#"kind = "kubernetes"
            warm_pool = "p"
            namespace = "n"
            port = 1"#;
        assert!(check(whole).is_ok());
        refused(&whole.replace("kubernetes", "docker"), "unknown variant `docker`");
        refused(&whole.replace("warm_pool", "template"), "unknown field `template`");
        refused(&whole.replace(r#""p""#, r#""P""#), "warm_pool \"P\"");
        refused(&whole.replace(r#""p""#, r#""a..b""#), "warm_pool");
        refused(&whole.replace(r#""n""#, r#""n.m""#), "namespace \"n.m\"");
        refused(&whole.replace(r#""n""#, r#""-n""#), "namespace");
        refused(&whole.replace("port = 1", "port = 0"), "port 0");
        refused(&whole.replace("port = 1", "port = 70000"), "70000");
        refused(&format!("{whole}\nready_timeout = \"0s\""), "ready_timeout");
    }
}
