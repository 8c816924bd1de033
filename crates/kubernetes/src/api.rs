//! What is used of agent-sandbox's objects: `SandboxClaim` of `extensions.agents.x-k8s.io/v1beta1` and `Sandbox` of `agents.x-k8s.io/v1beta1`, as of v0.5.6.
//!
//! Read leniently (everything but what a claim cannot be without is optional, unknown fields are ignored) and written narrowly: a creation has what stands
//! here and nothing else, a patch has one field. An object that was read is never written back, so that unknown fields of others are safe.

use jiff::Timestamp;
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};

/// What all our claims are found by.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(crate) const FTE: &str = "fte";
/// The process that holds a claim.
pub(crate) const HOLDER: &str = "fte/holder";
/// The digest of its seat.
pub(crate) const SEAT: &str = "fte/seat";
pub(crate) const TASK: &str = "fte/task";
pub(crate) const CLAIM: &str = "fte/claim";
pub(crate) const AGENT: &str = "fte/agent";
/// On a sandbox: `warm` or `cold`.
const LAUNCH_TYPE: &str = "agents.x-k8s.io/launch-type";

/// What is asked for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(group = "extensions.agents.x-k8s.io", version = "v1beta1", kind = "SandboxClaim", namespaced, schema = "disabled")]
#[kube(status = "ClaimStatus", derive = "PartialEq")]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimSpec {
    /// The pool, which names the template.
    pub(crate) warm_pool_ref: PoolRef,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lifecycle: Option<Lifecycle>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolRef {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lifecycle {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shutdown_time: Option<Timestamp>,
    /// The default, `Retain`, keeps the object after its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shutdown_policy: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimStatus {
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    #[serde(default)]
    pub(crate) sandbox: BoundSandbox,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BoundSandbox {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, rename = "podIPs")]
    pub(crate) pod_ips: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Condition {
    pub(crate) r#type: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// The sandbox behind a claim. Nothing of its specification is used.
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(group = "agents.x-k8s.io", version = "v1beta1", kind = "Sandbox", namespaced, schema = "disabled", status = "SandboxStatus")]
pub(crate) struct SandboxSpec {}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SandboxStatus {
    #[serde(default, rename = "serviceFQDN")]
    pub(crate) service_fqdn: String,
    #[serde(default, rename = "podIPs")]
    pub(crate) pod_ips: Vec<String>,
}

impl SandboxClaim {
    pub(crate) fn condition(&self, r#type: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.r#type == r#type)
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    pub(crate) fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// When it ends unless somebody renews it; nothing where neither that nor its beginning is known.
    pub(crate) fn ends_at(&self, lease: std::time::Duration) -> Option<Timestamp> {
        let said = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.shutdown_time);
        let born = || self.metadata.creation_timestamp.as_ref().and_then(|time| time.0.checked_add(lease).ok());
        said.or_else(born)
    }
}

impl Sandbox {
    /// Whether it stood ready before it was claimed.
    pub(crate) fn warm(&self) -> Option<bool> {
        match self.labels().get(LAUNCH_TYPE).map(String::as_str) {
            Some("warm") => Some(true),
            Some("cold") => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_of_the_controller_is_read_whatever_else_it_says() {
        let claim: SandboxClaim = serde_json::from_value(json!({
            "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim",
            "metadata": {"name": "fte-1", "labels": {"fte/holder": "h"}, "creationTimestamp": "2026-08-22T00:00:00Z"},
            "spec": {"warmPoolRef": {"name": "p"}, "env": [{"name": "A", "value": "b"}],
                     "lifecycle": {"shutdownTime": "2026-08-22T00:03:00Z", "shutdownPolicy": "Delete", "ttlSecondsAfterFinished": 1}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "DependenciesReady", "message": "m", "observedGeneration": 2}],
                       "sandbox": {"name": "p-abc", "podIPs": ["10.1.2.3"], "later": 1}, "observed": {}}
        }))
        .unwrap();
        let lease = std::time::Duration::from_secs(60);
        assert_eq!(claim.ends_at(lease), "2026-08-22T00:03:00Z".parse().ok());
        assert_eq!((claim.label(HOLDER), claim.condition("Ready").unwrap().status.as_str()), (Some("h"), "True"));
        assert_eq!(claim.status.unwrap().sandbox.pod_ips, ["10.1.2.3"]);
        let bare: SandboxClaim = serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-08-22T00:00:00Z"}, "spec": {"warmPoolRef": {"name": "p"}}
        }))
        .unwrap();
        assert_eq!(bare.ends_at(lease), "2026-08-22T00:01:00Z".parse().ok());
    }

    #[test]
    fn a_sandbox_says_whether_it_was_warm_only_in_words_that_are_known() {
        let check = |labels: serde_json::Value, expected| {
            let sandbox: Sandbox = serde_json::from_value(json!({"metadata": {"labels": labels}, "spec": {"podTemplate": {}}})).unwrap();
            assert_eq!(sandbox.warm(), expected);
        };
        check(json!({LAUNCH_TYPE: "warm"}), Some(true));
        check(json!({LAUNCH_TYPE: "cold"}), Some(false));
        check(json!({LAUNCH_TYPE: "tepid"}), None);
        check(json!({}), None);
    }
}
