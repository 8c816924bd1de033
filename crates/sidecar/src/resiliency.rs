//! Retry policies from Dapr's Resiliency files, and when the next try is due.
//!
//! Only what decides over a delivery is used: the inbound retry and time-out of a pub/sub component. The defaults of
//! missing fields are Dapr's; the default of a missing *file* is ours: exponential, without limit, at most 5 s, because
//! an outage must never spend good work.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// All Resiliency documents in force.
#[derive(Debug, Clone, Default)]
pub struct Resiliency {
    documents: Vec<Document>,
    /// What stands in the files and is not applied, for the log.
    warnings: Vec<String>,
}

/// Why a Resiliency file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ResiliencyError {
    #[error("resources in {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("resiliency file{} is not valid YAML", at(file))]
    Yaml { file: Option<PathBuf>, source: Box<serde_saphyr::Error> },
    #[error("resiliency{}: {what}", at(file))]
    Value { file: Option<PathBuf>, what: String },
}

fn at(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default()
}

/// How a failed delivery is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub backoff: Backoff,
    /// Tries after the first; `None` is without limit, `Some(0)` none.
    pub retries_max: Option<u32>,
    /// Codes that are retried; `None` is every code. An answer without a code is always retried.
    pub codes: Option<Vec<(u16, u16)>>,
    /// Limit of one try. Dapr has none by default.
    pub timeout: Option<Duration>,
}

/// The wait before a try.
#[derive(Debug, Clone, PartialEq)]
pub enum Backoff {
    Constant(Duration),
    /// From 500 ms, times 1.5, give or take half, up to this.
    Exponential {
        max: Duration,
    },
}

/// First wait of an exponential policy, as in Dapr.
const EXPONENTIAL_FIRST: Duration = Duration::from_millis(500);
/// Wait between two rounds of a spent policy where there is no dead-letter topic: Dapr's Kafka component.
pub(crate) const ROUND_PAUSE: Duration = Duration::from_secs(5);

impl Policy {
    /// The policy without a Resiliency file.
    pub fn unlimited() -> Self {
        Self { backoff: Backoff::Exponential { max: Duration::from_secs(5) }, retries_max: None, codes: None, timeout: None }
    }

    /// Files exist and none names this component: Dapr tries once.
    fn none() -> Self {
        Self { backoff: Backoff::Constant(ROUND_PAUSE), retries_max: Some(0), codes: None, timeout: None }
    }

    /// The wait before try `failed + 1` after `failed` failures, or `None` when the policy is spent.
    /// `jitter` is uniform in 0..1.
    pub(crate) fn wait(&self, failed: u32, status: Option<u16>, jitter: f64) -> Option<Duration> {
        if self.retries_max.is_some_and(|max| failed > max) {
            return None;
        }
        if let (Some(codes), Some(status)) = (&self.codes, status)
            && !codes.iter().any(|(low, high)| (*low..=*high).contains(&status))
        {
            return None;
        }
        Some(match &self.backoff {
            Backoff::Constant(wait) => *wait,
            Backoff::Exponential { max } => {
                let steps = i32::try_from(failed.saturating_sub(1).min(64)).unwrap_or(64);
                let base = EXPONENTIAL_FIRST.as_secs_f64() * 1.5_f64.powi(steps);
                let capped = base.min(max.as_secs_f64());
                Duration::from_secs_f64((capped * (0.5 + jitter)).min(max.as_secs_f64()))
            }
        })
    }
}

impl Resiliency {
    /// Reads the `kind: Resiliency` documents of one YAML text. Other kinds are passed over.
    pub fn from_yaml(text: &str) -> Result<Self, ResiliencyError> {
        let mut all = Self::default();
        all.add(text, None)?;
        Ok(all)
    }

    /// Reads every `*.yaml` and `*.yml` of a resources directory, in order of name.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ResiliencyError> {
        let dir = dir.as_ref();
        let read = |source| ResiliencyError::Read { path: dir.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
                files.push(path);
            }
        }
        files.sort();
        let mut all = Self::default();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(|source| ResiliencyError::Read { path: path.clone(), source })?;
            all.add(&text, Some(path))?;
        }
        Ok(all)
    }

    /// What stands in the files and is not applied.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn add(&mut self, text: &str, file: Option<PathBuf>) -> Result<(), ResiliencyError> {
        for part in documents(text) {
            let kind: Kind =
                serde_saphyr::from_str(&part).map_err(|source| ResiliencyError::Yaml { file: file.clone(), source: Box::new(source) })?;
            if kind.kind.as_deref() != Some("Resiliency") {
                continue;
            }
            let document: Document =
                serde_saphyr::from_str(&part).map_err(|source| ResiliencyError::Yaml { file: file.clone(), source: Box::new(source) })?;
            let bad = |what| ResiliencyError::Value { file: file.clone(), what };
            document.check().map_err(bad)?;
            if !document.spec.policies.circuit_breakers.is_empty() {
                self.warnings.push("circuit breakers are not applied: an open breaker would dead-letter good events".to_owned());
            }
            self.documents.push(document);
        }
        Ok(())
    }

    /// The policy for deliveries of `component` to `app_id`, chosen as Dapr does: the target's own, else the most special
    /// default.
    pub fn inbound(&self, app_id: &str, component: &str) -> Policy {
        let mut in_force =
            self.documents.iter().filter(|document| document.scopes.is_empty() || document.scopes.iter().any(|s| s == app_id)).peekable();
        if in_force.peek().is_none() {
            return Policy::unlimited();
        }
        let documents: Vec<&Document> = in_force.collect();
        let target =
            documents.iter().find_map(|document| document.spec.targets.components.get(component)).and_then(|target| target.inbound.clone());
        let named = |kind: &str, own: Option<String>| -> Vec<String> {
            own.into_iter()
                .chain(
                    ["PubsubComponentInbound", "ComponentInbound", "Component", ""]
                        .iter()
                        .map(|middle| format!("Default{middle}{kind}Policy")),
                )
                .collect()
        };
        // A target that is named takes only what it names.
        let (retry, timeout) = match target {
            Some(target) => (target.retry.into_iter().collect(), target.timeout.into_iter().collect()),
            None => (named("Retry", None), named("Timeout", None)),
        };
        let retry: Option<&Retry> =
            retry.iter().find_map(|name: &String| documents.iter().find_map(|document| document.spec.policies.retries.get(name)));
        let timeout: Option<&String> =
            timeout.iter().find_map(|name: &String| documents.iter().find_map(|document| document.spec.policies.timeouts.get(name)));
        let mut policy = retry.map_or_else(Policy::none, Retry::policy);
        policy.timeout = timeout.and_then(|text| duration(text)).filter(|d| !d.is_zero());
        policy
    }
}

/// The documents of a YAML stream.
fn documents(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|part| part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    parts
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Document {
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    policies: Policies,
    targets: Targets,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policies {
    timeouts: BTreeMap<String, String>,
    retries: BTreeMap<String, Retry>,
    circuit_breakers: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Retry {
    policy: Option<String>,
    duration: Option<String>,
    max_interval: Option<String>,
    max_retries: Option<i64>,
    matching: Option<Matching>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Matching {
    #[serde(rename = "httpStatusCodes")]
    http_status_codes: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Targets {
    components: BTreeMap<String, Target>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Target {
    inbound: Option<Names>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Names {
    timeout: Option<String>,
    retry: Option<String>,
}

impl Retry {
    fn policy(&self) -> Policy {
        let backoff = match self.policy.as_deref() {
            Some("exponential") => {
                Backoff::Exponential { max: self.max_interval.as_deref().and_then(duration).unwrap_or(Duration::from_secs(60)) }
            }
            _ => Backoff::Constant(self.duration.as_deref().and_then(duration).unwrap_or(Duration::from_secs(5))),
        };
        Policy {
            backoff,
            retries_max: self.max_retries.and_then(|max| u32::try_from(max).ok()),
            codes: self.matching.as_ref().and_then(|matching| matching.http_status_codes.as_deref()).and_then(|text| codes(text).ok()),
            timeout: None,
        }
    }
}

impl Document {
    fn check(&self) -> Result<(), String> {
        for (name, retry) in &self.spec.policies.retries {
            if let Some(policy) = &retry.policy
                && policy != "constant"
                && policy != "exponential"
            {
                return Err(format!("retry {name}: policy {policy} is neither constant nor exponential"));
            }
            for (key, text) in [("duration", &retry.duration), ("maxInterval", &retry.max_interval)] {
                if let Some(text) = text
                    && duration(text).is_none()
                {
                    return Err(format!("retry {name}: {key} {text} is not a duration such as 5s or 500ms"));
                }
            }
            if let Some(text) = retry.matching.as_ref().and_then(|matching| matching.http_status_codes.as_deref()) {
                codes(text).map_err(|part| format!("retry {name}: httpStatusCodes: {part} is not a code or a range such as 500-599"))?;
            }
        }
        for (name, text) in &self.spec.policies.timeouts {
            if duration(text).is_none() {
                return Err(format!("timeout {name}: {text} is not a duration such as 5s"));
            }
        }
        for (component, target) in &self.spec.targets.components {
            let Some(inbound) = &target.inbound else {
                continue;
            };
            if let Some(retry) = &inbound.retry
                && !self.spec.policies.retries.contains_key(retry)
            {
                return Err(format!("target {component}: retry {retry} does not exist"));
            }
            if let Some(timeout) = &inbound.timeout
                && !self.spec.policies.timeouts.contains_key(timeout)
            {
                return Err(format!("target {component}: timeout {timeout} does not exist"));
            }
        }
        Ok(())
    }
}

fn codes(text: &str) -> Result<Vec<(u16, u16)>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            match (low.trim().parse(), high.trim().parse()) {
                (Ok(low), Ok(high)) if low <= high => Ok((low, high)),
                _ => Err(part.to_owned()),
            }
        })
        .collect()
}

/// A Go duration: `1h30m`, `1.5s`, `500ms`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: fte}
spec:
  policies:
    timeouts: {slow: 90s}
    retries:
      forever: {policy: exponential, maxInterval: 5s, maxRetries: -1}
      thrice: {policy: constant, duration: 20ms, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}
      DefaultPubsubComponentInboundRetryPolicy: {policy: constant, duration: 1s}
  targets:
    components:
      pubsub: {inbound: {retry: thrice, timeout: slow}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: x}
"#;

    #[test]
    fn a_named_target_takes_its_policy_and_others_the_default() {
        let all = Resiliency::from_yaml(FILE).unwrap();
        let named = all.inbound("app", "pubsub");
        assert_eq!(named.retries_max, Some(3));
        assert_eq!(named.timeout, Some(Duration::from_secs(90)));
        assert_eq!(named.wait(1, Some(503), 0.5), Some(Duration::from_millis(20)));
        assert_eq!(named.wait(1, Some(400), 0.5), None, "a code that does not match");
        assert_eq!(named.wait(4, None, 0.5), None, "spent");
        let other = all.inbound("app", "other");
        assert_eq!(other.backoff, Backoff::Constant(Duration::from_secs(1)));
        assert_eq!(other.retries_max, None);
    }

    #[test]
    fn without_a_file_an_outage_is_retried_for_ever() {
        let policy = Resiliency::default().inbound("app", "pubsub");
        assert_eq!(policy.retries_max, None);
        for failed in 1..200 {
            let wait = policy.wait(failed, Some(500), 0.999).unwrap();
            assert!(wait <= Duration::from_secs(5) && wait >= Duration::from_millis(250));
        }
    }

    #[test]
    fn mistakes_name_the_value() {
        for (yaml, says) in [
            ("kind: Resiliency\nspec: {policies: {retries: {a: {policy: linear}}}}", "linear"),
            ("kind: Resiliency\nspec: {policies: {retries: {a: {duration: fast}}}}", "fast"),
            ("kind: Resiliency\nspec: {targets: {components: {p: {inbound: {retry: gone}}}}}", "gone"),
        ] {
            let error = Resiliency::from_yaml(yaml).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn go_durations_are_read() {
        let check = |text, expected: Option<u64>| {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        };
        check("1h30m", Some(5_400_000));
        check("1.5s", Some(1500));
        check("500ms", Some(500));
        check("0", Some(0));
        check("5", None);
        check("", None);
        check("s", None);
        check("-1s", None);
    }
}
