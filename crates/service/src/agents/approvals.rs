//! `[agents.x.approvals]` of `agents.toml`: which of an agent's questions need a person, how long one has, and what counts when nobody answers.
//!
//! Always true: one rule speaks about an action, the most exact one that fits; what no rule speaks about has the default. The rules of an agent of kind
//! `acp` are its `permissions`, which speak about the same by the kind of tool: two tables for one thing would contradict each other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Permission, RawKind, Span, Wrong, wrong};

/// Most rules, and most people who may decide.
const ENTRIES_MAX: usize = 100;
/// Longest name of an action or a person, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// Who answers an agent's questions, and by when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// What becomes of a question about an action: by its name, or by how names begin (`mail.*`).
    pub rules: BTreeMap<String, Permission>,
    /// What becomes of a question that no rule speaks about, or that names no action. Default `ask`.
    pub default: Permission,
    /// How long a person has. Default: as the runner's `FTE_RUNNER_APPROVAL_TTL` says, 24 hours.
    pub expires: Option<Duration>,
    /// Whether a question that nobody answered in time counts as approved. Default: no, its task ends.
    pub approve_on_expiry: bool,
    /// Who may decide; empty: whoever may decide at all.
    pub approvers: Vec<String>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), default: Permission::Ask, expires: None, approve_on_expiry: false, approvers: Vec::new() }
    }
}

impl Approvals {
    /// What becomes of a question about this action.
    pub fn of(&self, action: Option<&str>) -> Permission {
        let Some(action) = action else { return self.default };
        if let Some(exact) = self.rules.get(action) {
            return *exact;
        }
        let begins = |rule: &str| rule.strip_suffix('*').is_some_and(|start| action.starts_with(start));
        let longest = self.rules.iter().filter(|(rule, _)| begins(rule)).max_by_key(|(rule, _)| rule.len());
        longest.map_or(self.default, |(_, permission)| *permission)
    }

    /// Whether this person may decide.
    pub fn may_decide(&self, name: &str) -> bool {
        self.approvers.is_empty() || self.approvers.iter().any(|approver| approver == name)
    }
}

/// The table as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApprovals {
    rules: Option<Spanned<BTreeMap<String, Permission>>>,
    default: Option<Spanned<Permission>>,
    expires: Option<Spanned<Span>>,
    on_expiry: Option<OnExpiry>,
    approvers: Option<Spanned<Vec<String>>>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnExpiry {
    Reject,
    Approve,
}

const KEY: &str = "approvals";

/// The table, or what is wrong with it.
pub(super) fn check(raw: Option<RawApprovals>, kind: RawKind) -> Result<Approvals, Wrong> {
    let Some(raw) = raw else { return Ok(Approvals::default()) };
    let defaults = Approvals::default();
    if matches!(kind, RawKind::Acp) {
        let problem = r#"the rules of an agent of kind "acp" are its `permissions`, by kind of tool"#;
        if raw.rules.is_some() {
            return Err(wrong(KEY, raw.rules.as_ref(), problem));
        }
        if raw.default.is_some() {
            return Err(wrong(KEY, raw.default.as_ref(), problem));
        }
    }
    let is_rule = |rule: &&String| {
        let name = rule.strip_suffix('*').unwrap_or(rule);
        !rule.is_empty() && rule.len() <= NAME_BYTES_MAX && !name.contains('*')
    };
    let is_name = |name: &&String| !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX;
    if let Some(rules) = &raw.rules {
        if let Some(bad) = rules.get_ref().keys().find(|rule| !is_rule(rule)) {
            return Err(wrong(KEY, Some(rules), format!(r#"{bad:?}: expected an action such as "mail.send" or "mail.*""#)));
        }
        if rules.get_ref().len() > ENTRIES_MAX {
            return Err(wrong(KEY, Some(rules), format!("expected at most {ENTRIES_MAX} rules")));
        }
    }
    if let Some(approvers) = &raw.approvers {
        let names = approvers.get_ref();
        if names.is_empty() || names.len() > ENTRIES_MAX || !names.iter().all(|name| is_name(&name)) {
            return Err(wrong(KEY, Some(approvers), format!("expected 1 to {ENTRIES_MAX} names, such as [\"ada\"]")));
        }
    }
    if let Some(span) = raw.expires.as_ref().filter(|span| span.get_ref().0.is_zero() || span.get_ref().0 > fte_events::limits::AHEAD_MAX) {
        return Err(wrong(KEY, Some(span), "expires: expected more than nothing and at most 366 days"));
    }
    Ok(Approvals {
        rules: raw.rules.map(Spanned::into_inner).unwrap_or_default(),
        default: raw.default.map_or(defaults.default, Spanned::into_inner),
        expires: raw.expires.map(|span| span.into_inner().0),
        approve_on_expiry: raw.on_expiry == Some(OnExpiry::Approve),
        approvers: raw.approvers.map(Spanned::into_inner).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_rule_speaks() {
        let rules = [("*", Permission::Deny), ("mail.*", Permission::Ask), ("mail.send", Permission::Allow), ("mail", Permission::Allow)];
        let rules = rules.map(|(rule, permission)| (rule.to_owned(), permission));
        let approvals = Approvals { rules: rules.into(), ..Approvals::default() };
        let check = |action: Option<&str>, expected| assert_eq!(approvals.of(action), expected, "{action:?}");
        check(Some("mail.send"), Permission::Allow);
        check(Some("mail.send.all"), Permission::Ask);
        check(Some("mail.delete"), Permission::Ask);
        check(Some("pay"), Permission::Deny);
        check(None, Permission::Ask);
    }
}
