//! `fte doctor`: looks at an instance and its sidecar, and says what to do about what it finds.

mod acls;
mod probe;
mod services;
mod topics;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use fte_bus::{Metadata, Sidecar, SidecarConfig};
use fte_events::AgentName;
use fte_service::agents::Agents;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Output, printable, shortened};
use crate::server::config_error;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A sidecar to look at from here, besides what the services say of theirs
    #[arg(long, env = "FTE_SIDECAR_URL", hide_env_values = true, value_name = "URL")]
    sidecar_url: Option<String>,
    /// The token of the sidecar's API
    #[arg(long, env = "DAPR_API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    sidecar_token: Option<String>,
    /// Also send a task through every service and back, and wait until the audit log has all of it
    #[arg(long)]
    probe: bool,
    /// The agent that does the probe's task [default: the instance's default agent]
    #[arg(long, requires = "probe", value_name = "NAME")]
    probe_agent: Option<String>,
    /// Compare the broker's topics with the catalogue: what `kafka-topics --describe`, `kafka-configs --describe` or `kubectl get kafkatopics -o json`
    /// printed; - for standard input
    #[arg(long, value_name = "FILE")]
    topics: Option<PathBuf>,
    /// Compare the broker's access rules with what each service does: what `kafka-acls --list` or `kubectl get kafkausers -o json` printed; - for standard
    /// input. What the broker's own configuration allows besides (`super.users`), and rules kept elsewhere, are not in it
    #[arg(long, value_name = "FILE")]
    acls: Option<PathBuf>,
    /// Who a service is at Kafka, in those rules: one user for all, or SERVICE=NAME [default: a user for each, named as its app]
    #[arg(long, requires = "acls", value_name = "NAME")]
    kafka_user: Vec<String>,
    /// The agents.toml whose agents have hand-off topics [default: the agents that the instance names]
    #[arg(long, value_name = "FILE")]
    agents: Option<PathBuf>,
}

/// Where a sidecar is when nothing says otherwise.
const SIDECAR_URL: &str = "http://127.0.0.1:3500";
/// What is asked of whoever has a `/health`.
const READY: &str = "ready";
/// The pub/sub component that the embedded sidecar has, and no `daprd`.
const EMBEDDED: &str = "pubsub.sqlite";

/// Most bytes of a text that is to be compared.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Ok,
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: String,
    #[serde(skip)]
    exit: Option<Exit>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { check: check.to_owned(), health: Health::Ok, found: found.into(), advice: String::new(), exit: None }
    }

    fn bad(check: &str, exit: Exit, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), health: Health::Bad, found: found.into(), advice: advice.into(), exit: Some(exit) }
    }

    fn warning(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.to_owned(), health: Health::Warning, found: found.into(), advice: advice.into(), exit: None }
    }
}

impl Doctor {
    pub(crate) async fn run(self, client: Client, output: Output) -> Result<(), Error> {
        let users = acls::Users::named(&self.kafka_user)?;
        let is_input = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
        if is_input(&self.topics) && is_input(&self.acls) {
            let (what, advice) = ("--topics and --acls are both on standard input", "put one of them into a file");
            return Err(Error::Usage { what: what.to_owned(), advice: advice.to_owned() });
        }
        let (agents, unknown) = self.agents(&client).await?;
        let mut findings = instance(&client).await;
        let answers = findings.first().is_some_and(|finding| finding.health != Health::Bad);
        // What only shows when something is sent is known to the services afterwards.
        let probed = if self.probe && answers { probe::findings(&client, self.probe_agent.as_deref()).await } else { Vec::new() };
        let services = if answers { services::findings(&client, &agents).await } else { Vec::new() };
        // A route or a proxy before services: each of them says for itself what it lacks, if it is one.
        if answers && services.is_empty() && findings.iter().all(|finding| finding.check != READY) {
            let found = format!("{} answers, but neither /health nor any /v1/services", client.base());
            findings = vec![Finding::warning("instance", found, "is FTE at this address? FTE_URL names another")];
        }
        if answers || self.topics.is_some() || self.acls.is_some() {
            findings.extend(unknown);
        }
        // Services that do not say what their sidecars are leave only the look from here.
        if services.is_empty() || self.sidecar_url.is_some() {
            findings.extend(self.sidecar().await);
        }
        findings.extend(services);
        if let Some(file) = &self.topics {
            findings.extend(topics::findings(&text(file)?, &agents));
        }
        if let Some(file) = &self.acls {
            findings.extend(acls::findings(&text(file)?, &users, &agents));
        }
        findings.extend(probed);
        if output.json {
            output.json_items(&findings)?;
        } else {
            for finding in &findings {
                output.line(line(finding))?;
            }
        }
        let bad: Vec<_> = findings.iter().filter(|finding| finding.health == Health::Bad).collect();
        let text = format!("{} of {} checks failed", bad.len(), findings.len());
        match bad.first().and_then(|finding| finding.exit) {
            None => Ok(()),
            Some(Exit::Unavailable) => Err(Error::Unavailable(text)),
            Some(_) => Err(Error::Failed(text)),
        }
    }

    /// Whose hand-off topics there are. Where nobody says, those of no agent are looked at, and that is said.
    async fn agents(&self, client: &Client) -> Result<(Vec<AgentName>, Option<Finding>), Error> {
        #[derive(Deserialize)]
        struct Agent {
            name: AgentName,
        }
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Agent>,
        }
        if let Some(file) = &self.agents {
            return Ok((Agents::read("--agents", file).map_err(config_error)?.agents.into_keys().collect(), None));
        }
        let named = async { client.get("/v1/agents").await?.json::<Page>() };
        Ok(match named.await {
            Ok(page) => (page.items.into_iter().map(|agent| agent.name).collect(), None),
            Err(error) => {
                let found = format!("which there are is not known, so their hand-off topics are not looked at: {}", brief(&error));
                (
                    Vec::new(),
                    Some(Finding::warning("agents", found, "--agents agents.toml names them; to ask takes a key with the role read")),
                )
            }
        })
    }

    async fn sidecar(&self) -> Vec<Finding> {
        const CHECK: &str = "sidecar";
        let url = self.sidecar_url.as_deref().unwrap_or(SIDECAR_URL);
        let config =
            SidecarConfig { api_token: self.sidecar_token.clone(), call_timeout: Duration::from_secs(5), ..SidecarConfig::at(url) };
        let sidecar = match Sidecar::new(config) {
            Ok(sidecar) => sidecar,
            Err(error) => {
                return vec![Finding::bad(CHECK, Exit::Usage, of(url, &error), "set FTE_SIDECAR_URL to a URL like http://127.0.0.1:3500")];
            }
        };
        if let Err(error) = sidecar.outbound_ready().await {
            let advice = "`fte up` and `fte sidecar` bring one; FTE_SIDECAR_URL names another, DAPR_API_TOKEN is its token";
            return vec![Finding::bad(CHECK, Exit::Unavailable, of(url, &error), advice)];
        }
        match sidecar.metadata().await {
            Ok(metadata) => metadata_findings(url, &metadata),
            Err(error) => {
                vec![Finding::bad(CHECK, Exit::Failed, of(url, &error), "look at the sidecar's log")]
            }
        }
    }
}

/// The text in a file, or on standard input for `-`.
fn text(file: &Path) -> Result<String, Error> {
    let usage = |error: std::io::Error| Error::Usage {
        what: format!("{}: {error}", file.display()),
        advice: "give a file, or - for standard input".to_owned(),
    };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(BYTES_MAX).read_to_string(&mut text).map_err(usage)?;
    } else {
        std::fs::File::open(file).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)).map_err(usage)?;
    }
    Ok(text)
}

async fn instance(client: &Client) -> Vec<Finding> {
    let started = Instant::now();
    let health = match client.get("/health").await {
        Ok(answer) => answer,
        Err(Error::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
            return vec![Finding::ok("instance", format!("{} answers for services behind it", client.base()))];
        }
        Err(error) => {
            let advice = "`fte up` starts one on this machine; FTE_URL names another";
            return vec![Finding::bad("instance", Exit::Unavailable, brief(&error), advice)];
        }
    };
    let version = health.json::<Value>().ok().and_then(|body| body.get("version")?.as_str().map(str::to_owned));
    let version = version.map_or_else(String::new, |version| format!(", version {version}"));
    let found = format!("{} answers in {} ms{version}", client.base(), started.elapsed().as_millis());
    let mut findings = vec![Finding::ok("instance", found)];
    findings.push(match client.get("/ready").await {
        Ok(_) => Finding::ok(READY, "every check passes"),
        Err(Error::Refused(problem)) => {
            let mut reasons: Vec<_> = problem.errors.iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect();
            if reasons.is_empty() {
                reasons.push(if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() });
            }
            Finding::bad(READY, Exit::Unavailable, reasons.join("; "), "the named part has to come back; it recovers by itself")
        }
        Err(error) => Finding::bad(READY, Exit::Unavailable, brief(&error), "look at the instance's log"),
    });
    findings
}

fn metadata_findings(url: &str, metadata: &Metadata) -> Vec<Finding> {
    let Metadata { id, runtime_version, rest } = metadata;
    let components = rest.get("components").and_then(Value::as_array);
    let is_embedded = components.into_iter().flatten().any(|component| component.get("type").and_then(Value::as_str) == Some(EMBEDDED));
    let version = version(runtime_version, is_embedded);
    let mut findings = vec![Finding::ok("sidecar", format!("{url} serves app {id}, {version}"))];
    if is_older_than_1_14(runtime_version) {
        findings.push(Finding::warning("sidecar version", runtime_version.clone(), "services need Dapr 1.14 or later"));
    }
    for (kind, prefix) in [("pubsub", "pubsub."), ("statestore", "state.")] {
        let found = components.into_iter().flatten().find(|component| {
            component.get("type").and_then(Value::as_str).is_some_and(|component_type| component_type.starts_with(prefix))
        });
        findings.push(match found {
            Some(component) => {
                let text = |field: &str| component.get(field).and_then(Value::as_str).unwrap_or_default();
                Finding::ok(kind, format!("component {} of type {}", text("name"), text("type")))
            }
            None => {
                Finding::bad(kind, Exit::Failed, format!("the sidecar has no {kind} component"), "give it one: see dapr/ in the repository")
            }
        });
    }
    findings
}

/// Of a sidecar. The embedded one says which Dapr it is like.
fn version(version: &str, is_embedded: bool) -> String {
    match (version, is_embedded) {
        ("", true) => "embedded".to_owned(),
        ("", false) => "of unknown version".to_owned(),
        (_, true) => format!("embedded, as Dapr {version}"),
        (_, false) => format!("version {version}"),
    }
}

fn is_older_than_1_14(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < (1, 14))
}

/// What failed and what was at the root of it. What the layers between them say adds nothing for who reads.
fn brief(error: &(dyn std::error::Error + 'static)) -> String {
    let root = std::iter::successors(error.source(), |error| error.source()).last();
    let (words, root) = (error.to_string(), root.map(ToString::to_string).unwrap_or_default());
    if root.is_empty() || words.contains(&root) { words } else { format!("{words}: {root}") }
}

/// The same of this address, which is named once.
fn of(url: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let words = brief(error);
    if words.contains(url) { words } else { format!("{url}: {words}") }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.health {
        Health::Ok => "ok      ",
        Health::Warning => "warning ",
        Health::Bad => "BAD     ",
    };
    let mut line = format!("{mark} {:<15}  {}", finding.check, printable(&shortened(&finding.found, 400)));
    if !finding.advice.is_empty() {
        line.push_str("\n          → ");
        line.push_str(&finding.advice);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers_and_unknown_ones_are_let_be() {
        for (version, is_old) in [("1.9.0", true), ("1.14.0", false), ("v1.13.4", true), ("2.0", false), ("edge", false), ("", false)] {
            assert_eq!(is_older_than_1_14(version), is_old, "{version}");
        }
    }
}
