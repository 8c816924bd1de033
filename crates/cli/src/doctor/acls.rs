//! The access rules as the broker has them, compared with what each service does: whom it refuses something shows here before the first event meets it. As with
//! the topics, what Kafka's own tools or Kubernetes print is read.

use fte_events::{AgentName, TOPICS, Topic};
use serde_json::Value;

use super::Finding;
use super::services::SERVICES;
use crate::error::{Error, Exit};

const CHECK: &str = "access rules";
/// In a rule: every name, every operation.
const ANY: &str = "*";
const ALL: &str = "ALL";

/// A rule of the broker. Operations and kinds are in capitals, as `kafka-acls` has them.
#[derive(Debug, Clone, PartialEq)]
struct Rule {
    user: String,
    /// `TOPIC`, `GROUP`.
    kind: String,
    name: String,
    is_prefix: bool,
    operation: String,
    allows: bool,
}

impl Rule {
    fn is_about(&self, user: &str, kind: &str, name: &str, operation: &str) -> bool {
        let named = self.name == ANY || if self.is_prefix { name.starts_with(&self.name) } else { name == self.name };
        named && self.kind == kind && (self.user == user || self.user == ANY) && (self.operation == operation || self.operation == ALL)
    }
}

/// Who a service is at Kafka.
#[derive(Debug)]
pub(super) struct Users {
    of_services: Vec<(&'static str, String)>,
}

impl Users {
    /// A user of the app's name for each service, but for those that are named: `NAME` for all of them, `SERVICE=NAME` for one.
    pub(super) fn named(given: &[String]) -> Result<Self, Error> {
        let mut users: Vec<(&'static str, String)> = SERVICES.iter().map(|service| (*service, format!("fte-{service}"))).collect();
        for one in given {
            // The name of a certificate has such signs, too.
            let of_one =
                one.split_once('=').and_then(|(service, name)| Some((users.iter().position(|(known, _)| *known == service)?, name)));
            match of_one {
                Some((place, name)) => name.clone_into(&mut users[place].1),
                None => users.iter_mut().for_each(|(_, user)| one.clone_into(user)),
            }
        }
        if users.iter().any(|(_, user)| user.is_empty()) {
            return Err(Error::Usage { what: "--kafka-user: a name is empty".to_owned(), advice: "give NAME, or SERVICE=NAME".to_owned() });
        }
        Ok(Self { of_services: users })
    }
}

/// Compares the rules in a text with what each service does, where these agents are.
pub(super) fn findings(text: &str, users: &Users, agents: &[AgentName]) -> Vec<Finding> {
    let rules = parse(text);
    if rules.is_empty() {
        let advice = "give what `kafka-acls --list` or `kubectl get kafkausers -o json` prints; a broker that asks nobody has none";
        return vec![Finding::warning(CHECK, "there are none in that text", advice)];
    }
    let topics: Vec<Topic> = fte_events::topics(agents).into_iter().filter(|topic| !topic.later).collect();
    let mut findings = Vec::new();
    for (service, user) in &users.of_services {
        if !rules.iter().any(|rule| rule.user == *user || rule.user == ANY) {
            let found = format!("no rule is about the Kafka user {user}");
            let advice = format!("which one is it? --kafka-user {service}=NAME, or --kafka-user NAME where all services are one");
            findings.push(Finding::bad(service, Exit::Failed, found, advice));
            continue;
        }
        findings.extend(refused(&rules, service, user, &topics));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("each service may do what it does on all {} topics", topics.len())));
    }
    findings
}

/// What a service may not do.
fn refused(rules: &[Rule], service: &str, user: &str, topics: &[Topic]) -> Vec<Finding> {
    let may = |kind: &str, name: &str, operation: &str| {
        let mut about = rules.iter().filter(|rule| rule.is_about(user, kind, name, operation)).peekable();
        about.peek().is_some() && about.all(|rule| rule.allows)
    };
    let mut findings = Vec::new();
    for (operation, word, is_whose, then) in [
        (
            "WRITE",
            "Write",
            (|topic, service| topic.publishers.contains(&service)) as fn(&Topic, &str) -> bool,
            "what it has to say there is kept and not said",
        ),
        ("READ", "Read", |topic, service| topic.subscribers.contains(&service), "it is given nothing of any topic while one is refused"),
    ] {
        let names: Vec<&str> = topics
            .iter()
            .filter(|topic| is_whose(topic, service))
            .map(|topic| &*topic.name)
            .filter(|name| !may("TOPIC", name, operation))
            .collect();
        if !names.is_empty() {
            let found = format!("its Kafka user {user} may not {word} {}", names.join(", "));
            let advice = format!("{then}: `kafka-acls --add --allow-principal User:{user} --operation {word} --topic …`");
            findings.push(Finding::bad(service, Exit::Failed, found, advice));
        }
    }
    let group = format!("fte-{service}");
    if TOPICS.iter().any(|topic| !topic.later && topic.subscribers.contains(&service)) && !may("GROUP", &group, "READ") {
        let found = format!("its Kafka user {user} may not Read the group {group}");
        let advice = format!("it is given nothing: `kafka-acls --add --allow-principal User:{user} --operation Read --group {group}`");
        findings.push(Finding::bad(service, Exit::Failed, found, advice));
    }
    findings
}

/// Reads `kafka-acls --list`, or `kubectl get kafkausers -o json`.
fn parse(text: &str) -> Vec<Rule> {
    match serde_json::from_str::<Value>(text) {
        Ok(json) => strimzi(&json),
        Err(_) => lines(text),
    }
}

/// The value of `key=…` in such a list, up to the next key: the name of a certificate has commas of its own.
fn field<'t>(text: &'t str, key: &str, next: &str) -> Option<&'t str> {
    let rest = text.split_once(key)?.1;
    Some(rest.split_once(next).map_or(rest, |(value, _)| value).trim())
}

fn lines(text: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut of = None;
    for line in text.lines() {
        if let Some(pattern) = field(line, "ResourcePattern(", ")`") {
            let parts = (
                field(pattern, "resourceType=", ", name="),
                field(pattern, "name=", ", patternType="),
                field(pattern, "patternType=", ")"),
            );
            of = if let (Some(kind), Some(name), Some(pattern)) = parts { Some((kind, name, pattern == "PREFIXED")) } else { None };
        } else if let (Some((kind, name, is_prefix)), Some(user)) = (of, field(line, "(principal=User:", ", host=")) {
            let (Some(operation), Some(permission)) = (field(line, "operation=", ","), field(line, "permissionType=", ")")) else {
                continue;
            };
            // What is said of one host alone may be said of ours: a right counts, a refusal does not.
            let allows = permission == "ALLOW";
            if !allows && field(line, "host=", ",") != Some(ANY) {
                continue;
            }
            let rule = Rule {
                user: user_of(user),
                kind: kind.to_owned(),
                name: name.to_owned(),
                is_prefix,
                operation: operation.to_owned(),
                allows,
            };
            rules.push(rule);
        }
    }
    rules
}

/// A user by its name; of a certificate, as Strimzi issues them, by its common name.
fn user_of(principal: &str) -> String {
    principal.strip_prefix("CN=").map_or(principal, |name| name.split(',').next().unwrap_or(name)).to_owned()
}

fn strimzi(json: &Value) -> Vec<Rule> {
    let items = json["items"].as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
    let mut rules = Vec::new();
    for item in &items {
        let Some(user) = item["metadata"]["name"].as_str() else { continue };
        for acl in item["spec"]["authorization"]["acls"].as_array().into_iter().flatten() {
            let (resource, text) = (&acl["resource"], |value: &Value| value.as_str().map(str::to_uppercase));
            let Some((kind, name)) = text(&resource["type"]).zip(resource["name"].as_str()) else { continue };
            let many = acl["operations"].as_array().into_iter().flatten();
            for operation in many.chain([&acl["operation"]]).filter_map(text) {
                rules.push(Rule {
                    user: user.to_owned(),
                    kind: kind.clone(),
                    name: name.to_owned(),
                    is_prefix: resource["patternType"] == "prefix",
                    operation,
                    allows: acl["type"] != "deny",
                });
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Health;

    /// What `kafka-acls --list` prints where each service may do what the catalogue says, under these names.
    fn listed(user_of: impl Fn(&str) -> String) -> String {
        let rule = |kind: &str, name: &str, service: &str, operation: &str| {
            format!(
                "Current ACLs for resource `ResourcePattern(resourceType={kind}, name={name}, patternType=LITERAL)`: \n \t(principal=User:{}, host=*, operation={operation}, permissionType=ALLOW)\n\n",
                user_of(service)
            )
        };
        let mut text = String::new();
        for topic in fte_events::topics(&agents()) {
            text.extend(topic.publishers.iter().map(|service| rule("TOPIC", &topic.name, service, "WRITE")));
            text.extend(topic.subscribers.iter().map(|service| rule("TOPIC", &topic.name, service, "READ")));
        }
        text.extend(SERVICES.iter().map(|service| rule("GROUP", &format!("fte-{service}"), service, "READ")));
        text
    }

    fn agents() -> [AgentName; 1] {
        ["writer".parse().unwrap()]
    }

    fn bad(text: &str, users: &[&str]) -> Vec<String> {
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let found = findings(text, &Users::named(&users).unwrap(), &agents());
        found
            .into_iter()
            .filter(|finding| finding.health != Health::Ok)
            .map(|finding| format!("{}: {}", finding.check, finding.found))
            .collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn who_may_do_all_that_it_does_is_fine_under_whichever_name() {
        assert_eq!(bad(&listed(|service| format!("fte-{service}")), &[]), NOTHING);
        assert_eq!(bad(&listed(|service| format!("CN=fte-{service},OU=agents")), &[]), NOTHING);
        assert_eq!(bad(&listed(|_| "fte".to_owned()), &["fte"]), NOTHING);
        assert_eq!(
            bad(&listed(|service| if service == "audit" { "scribe".to_owned() } else { "fte".to_owned() }), &["fte", "audit=scribe"]),
            NOTHING
        );
        assert_eq!(bad(&listed(|_| ANY.to_owned()), &[]), NOTHING);
    }

    #[test]
    fn each_right_that_is_missing_is_named() {
        let whole = listed(|service| format!("fte-{service}"));
        let without = |resource: &str, user: &str, operation: &str| -> String {
            let is_it = |block: &str| {
                block.contains(&format!("name={resource},")) && block.contains(&format!("User:{user},")) && block.contains(operation)
            };
            assert!(whole.split("\n\n").any(is_it), "{resource} {user} {operation}");
            whole.split("\n\n").filter(|block| !is_it(block)).map(|block| format!("{block}\n\n")).collect()
        };
        assert_eq!(
            bad(&without("fte.handoffs.writer", "fte-runner", "WRITE"), &[]),
            ["runner: its Kafka user fte-runner may not Write fte.handoffs.writer"]
        );
        assert_eq!(
            bad(&without("fte.deadletter.runner", "fte-status", "READ"), &[]),
            ["status: its Kafka user fte-status may not Read fte.deadletter.runner"]
        );
        assert_eq!(
            bad(&without("fte-audit", "fte-audit", "READ"), &[]),
            ["audit: its Kafka user fte-audit may not Read the group fte-audit"]
        );
        // Nobody reads as intake.
        assert_eq!(bad(&without("fte-intake", "fte-intake", "READ"), &[]), NOTHING);
    }

    #[test]
    fn a_refusal_counts_more_than_a_right_and_a_prefix_for_all_that_begin_so() {
        let rule = |pattern: &str, name: &str, operation: &str, host: &str, permission: &str| {
            format!(
                "Current ACLs for resource `ResourcePattern(resourceType=TOPIC, name={name}, patternType={pattern})`: \n \t(principal=User:fte, host={host}, operation={operation}, permissionType={permission})\n"
            )
        };
        let group = "Current ACLs for resource `ResourcePattern(resourceType=GROUP, name=*, patternType=LITERAL)`: \n \t(principal=User:fte, host=*, operation=ALL, permissionType=ALLOW)\n";
        let all = format!("{group}{}", rule("PREFIXED", "fte.", "ALL", "*", "ALLOW"));
        assert_eq!(bad(&all, &["fte"]), NOTHING);
        let but_one = format!("{all}{}", rule("LITERAL", "fte.handoffs.writer", "WRITE", "*", "DENY"));
        // Whoever hands on, and whoever replays.
        let refused = ["runner", "status"].map(|service| format!("{service}: its Kafka user fte may not Write fte.handoffs.writer"));
        assert_eq!(bad(&but_one, &["fte"]), refused);
        let elsewhere = format!("{all}{}", rule("LITERAL", "fte.handoffs.writer", "WRITE", "10.0.0.9", "DENY"));
        assert_eq!(bad(&elsewhere, &["fte"]), NOTHING);
        let literal = format!("{group}{}", rule("LITERAL", "fte.", "ALL", "*", "ALLOW"));
        assert!(bad(&literal, &["fte"])[0].contains("fte.triggers.inbound"));
    }

    #[test]
    fn whom_no_rule_is_about_is_asked_for() {
        let found = bad(&listed(|_| "fte".to_owned()), &[]);
        assert_eq!(found.len(), SERVICES.len());
        assert_eq!(found[0], "intake: no rule is about the Kafka user fte-intake");
        assert_eq!(bad("there is nothing here", &[]), ["access rules: there are none in that text"]);
        assert!(Users::named(&["runner=".to_owned()]).is_err());
    }

    #[test]
    fn users_of_strimzi_are_read_too() {
        let user = |name: &str| {
            serde_json::json!({"metadata": {"name": name}, "spec": {"authorization": {"type": "simple", "acls": [
                {"resource": {"type": "topic", "name": "fte.", "patternType": "prefix"}, "operations": ["Read", "Write", "Describe"]},
                {"resource": {"type": "topic", "name": "fte.handoffs.writer"}, "type": if name == "fte-runner" { "deny" } else { "allow" }, "operation": "Write"},
                {"resource": {"type": "group", "name": name}, "operations": ["Read"]}
            ]}}})
        };
        let list = serde_json::json!({"items": SERVICES.map(|service| user(&format!("fte-{service}")))});
        assert_eq!(bad(&list.to_string(), &[]), ["runner: its Kafka user fte-runner may not Write fte.handoffs.writer"]);
    }
}
