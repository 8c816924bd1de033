//! Who calls, as handlers see it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use fte_events::TENANT;
use http::request::Parts;

use super::Role;

/// Which tenants' tasks somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every tenant's: an operator, or no keys are in force.
    All,
    /// Those of one.
    One(Arc<str>),
}

/// Who calls: the owner of a key, or anybody where no keys are in force.
#[derive(Clone, Debug)]
pub struct Caller {
    name: Option<Arc<str>>,
    scope: Scope,
    roles: Arc<[Role]>,
}

impl Caller {
    /// Somebody of whom nothing is known: no keys are in force.
    pub fn anonymous() -> Self {
        Self { name: None, scope: Scope::All, roles: Role::ALL.into() }
    }

    /// The owner of a key; without a tenant, one for every tenant.
    pub fn of_key(name: String, tenant: Option<String>, roles: Vec<Role>) -> Self {
        let scope = tenant.map_or(Scope::All, |tenant| Scope::One(tenant.into()));
        Self { name: Some(name.into()), scope, roles: roles.into() }
    }

    /// The key's owner.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn shown(&self) -> &str {
        self.name().unwrap_or("nobody")
    }

    /// An administrator may do everything.
    pub(super) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }

    /// Whose tasks they may see.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The one tenant whose tasks they may see; none: every tenant's.
    pub fn only_tenant(&self) -> Option<&str> {
        match &self.scope {
            Scope::All => None,
            Scope::One(tenant) => Some(tenant),
        }
    }

    /// Whether they may see what belongs to this tenant.
    pub fn sees(&self, tenant: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::One(own) => **own == *tenant,
        }
    }

    /// Whose a task is that they submit.
    pub fn tenant(&self) -> &str {
        match &self.scope {
            Scope::All => TENANT,
            Scope::One(tenant) => tenant,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // The front puts it there where keys are in force; no request passes it otherwise.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::anonymous))
    }
}
