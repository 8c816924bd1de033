//! Who calls, as handlers see it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use fte_events::TENANT;
use http::request::Parts;

/// Which tenants' tasks somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every tenant's: an operator, or no keys are in force.
    All,
    /// Those of one.
    One(Arc<str>),
}

impl Scope {
    /// The one tenant, if it is not every one.
    pub fn only(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::One(tenant) => Some(tenant),
        }
    }

    /// Whether what belongs to this tenant is among it.
    pub fn sees(&self, tenant: &str) -> bool {
        self.only().is_none_or(|only| only == tenant)
    }
}

/// Who calls: the owner of a key, or anybody where no keys are in force.
#[derive(Clone, Debug)]
pub struct Caller {
    name: Option<Arc<str>>,
    scope: Scope,
}

impl Caller {
    /// Somebody of whom nothing is known: no keys are in force.
    pub fn anonymous() -> Self {
        Self { name: None, scope: Scope::All }
    }

    /// The owner of a key; without a tenant, one for every tenant.
    pub fn of_key(name: String, tenant: Option<String>) -> Self {
        let scope = tenant.map_or(Scope::All, |tenant| Scope::One(tenant.into()));
        Self { name: Some(name.into()), scope }
    }

    /// The key's owner.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same, to be kept.
    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// Whose tasks they may see.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The one tenant whose tasks they may see; none: every tenant's.
    pub fn only_tenant(&self) -> Option<&str> {
        self.scope.only()
    }

    /// Whether they may see what belongs to this tenant.
    pub fn sees(&self, tenant: &str) -> bool {
        self.scope.sees(tenant)
    }

    /// Whose a task is that they submit.
    pub fn tenant(&self) -> &str {
        self.scope.only().unwrap_or(TENANT)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // The front puts it there where keys are in force; no request passes it otherwise.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(Self::anonymous))
    }
}
