//! Which role each route takes: one table for all services, so that it can be read at a glance. What is not in it takes an administrator.

use std::fmt;

use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

use crate::browser::wants_page;

/// What the owner of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Post tasks, and call them off.
    Submit,
    /// See tasks, their events and results, and the agents.
    Read,
    /// Decide what awaits approval, and answer what agents hand to people.
    Approve,
    /// Read the audit log.
    Audit,
    /// All of these, and the dead letters.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Submit, Self::Read, Self::Approve, Self::Audit, Self::Admin];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Approve => "approve",
            Self::Audit => "audit",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody: probes, metrics (counters only), and the description of the API.
    Open,
    /// Whoever has a key: there is nothing at this path.
    Any,
    /// Whoever has this role.
    Needs(Role),
}

/// Who may call the route that a request matched, if it matched one.
pub(crate) fn access(method: &Method, route: Option<&str>, headers: &HeaderMap) -> Access {
    let Some(route) = route else { return Access::Any };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        "/" | "/health" | "/ready" | "/metrics" | "/openapi.json" => Access::Open,
        _ if route == "/docs" || route.starts_with("/docs/") => Access::Open,
        "/v1/tasks" | "/tasks" if *method == Method::POST => Access::Needs(Role::Submit),
        "/v1/tasks/{id}/cancel" | "/v1/tasks/{id}/messages" => Access::Needs(Role::Submit),
        // The page is the same for everybody, and asks for what it shows with its reader's key.
        "/v1/approvals/{id}" if reads && wants_page(headers) => Access::Open,
        "/v1/approvals/{id}" | "/v1/tasks/{id}/approval" | "/v1/tasks/{id}/reply" => Access::Needs(Role::Approve),
        "/v1/tasks" | "/v1/tasks/{id}" | "/v1/tasks/{id}/events" | "/v1/tasks/{id}/result" | "/v1/events" | "/v1/agents" if reads => {
            Access::Needs(Role::Read)
        }
        "/v1/tasks/{id}/tree" if reads => Access::Needs(Role::Read),
        "/v1/tasks/{id}/artifacts" | "/v1/tasks/{id}/artifacts/{artifact}" if reads => Access::Needs(Role::Read),
        // A hold names persons.
        "/v1/audit/holds" => Access::Needs(Role::Admin),
        // It gives what its maker may read entry by entry, and is on record.
        "/v1/audit/exports" => Access::Needs(Role::Audit),
        _ if reads && route.starts_with("/v1/audit/") => Access::Needs(Role::Audit),
        _ => Access::Needs(Role::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_takes_the_role_that_its_effect_needs() {
        let get = |route: &str| access(&Method::GET, Some(route), &HeaderMap::new());
        let post = |route: &str| access(&Method::POST, Some(route), &HeaderMap::new());
        for open in ["/", "/health", "/ready", "/metrics", "/openapi.json", "/docs", "/docs/{*rest}"] {
            assert_eq!(get(open), Access::Open, "{open}");
        }
        assert_eq!(post("/v1/tasks"), Access::Needs(Role::Submit));
        assert_eq!(post("/tasks"), Access::Needs(Role::Submit));
        assert_eq!(post("/v1/tasks/{id}/cancel"), Access::Needs(Role::Submit));
        assert_eq!(post("/v1/tasks/{id}/approval"), Access::Needs(Role::Approve));
        assert_eq!(post("/v1/tasks/{id}/reply"), Access::Needs(Role::Approve));
        assert_eq!(get("/v1/tasks/{id}/tree"), Access::Needs(Role::Read));
        assert_eq!(post("/v1/tasks/{id}/messages"), Access::Needs(Role::Submit));
        assert_eq!(get("/v1/approvals/{id}"), Access::Needs(Role::Approve));
        let browser = HeaderMap::from_iter([(http::header::ACCEPT, http::HeaderValue::from_static("text/html"))]);
        assert_eq!(access(&Method::GET, Some("/v1/approvals/{id}"), &browser), Access::Open, "the page holds nothing");
        assert_eq!(access(&Method::POST, Some("/v1/tasks/{id}/approval"), &browser), Access::Needs(Role::Approve));
        assert_eq!(get("/v1/tasks"), Access::Needs(Role::Read));
        assert_eq!(get("/v1/tasks/{id}/result"), Access::Needs(Role::Read));
        assert_eq!(get("/v1/tasks/{id}/artifacts"), Access::Needs(Role::Read));
        assert_eq!(get("/v1/tasks/{id}/artifacts/{artifact}"), Access::Needs(Role::Read));
        assert_eq!(post("/v1/tasks/{id}/artifacts/{artifact}"), Access::Needs(Role::Admin));
        assert_eq!(get("/v1/audit/entries"), Access::Needs(Role::Audit));
        assert_eq!(post("/v1/audit/exports"), Access::Needs(Role::Audit));
        assert_eq!(get("/v1/audit/exports/{id}"), Access::Needs(Role::Audit));
        assert_eq!(post("/v1/audit/exports/{id}"), Access::Needs(Role::Admin));
        assert_eq!(get("/v1/audit/holds"), Access::Needs(Role::Admin));
        assert_eq!(post("/v1/audit/subjects/{ref}/erasure"), Access::Needs(Role::Admin));
        assert_eq!(post("/v1/dead-letters/{id}/replay"), Access::Needs(Role::Admin));
        assert_eq!(get("/v1/dead-letters"), Access::Needs(Role::Admin));
        assert_eq!(access(&Method::DELETE, Some("/v1/audit/entries"), &HeaderMap::new()), Access::Needs(Role::Admin));
        assert_eq!(get("/v1/something-new"), Access::Needs(Role::Admin), "what has no rule takes an administrator");
        assert_eq!(access(&Method::GET, None, &HeaderMap::new()), Access::Any);
    }
}
