//! Whose an event is, and who sees it.
//!
//! Always true: what is kept is kept under its tenant, and an event adds to the task of its own tenant alone. The same task id under two tenants is two
//! tasks that know nothing of each other, so whoever publishes about somebody else's task adds nothing to it, in whatever order the events come. Who sees
//! every tenant's tasks is shown, for such an id, the one that was asked for first.

use std::borrow::Cow;

use fte_bus::RawEvent;
use fte_events::TENANT;

/// A tenant's name. The usual one costs nothing to keep.
pub(crate) type Tenant = Cow<'static, str>;

/// The tenant of an event, by what it says.
pub(crate) fn tenant_of(event: &RawEvent) -> Tenant {
    tenant(event.extension("ftetenant"))
}

/// The tenant of this name; without one, the usual.
pub(crate) fn tenant(name: Option<&str>) -> Tenant {
    match name {
        None | Some("" | TENANT) => Cow::Borrowed(TENANT),
        Some(other) => Cow::Owned(other.to_owned()),
    }
}

/// A tenant as it is shown: only where there is more to say than that there is one.
pub(crate) fn shown(tenant: Tenant) -> Option<Tenant> {
    Some(tenant).filter(|tenant| *tenant != TENANT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_names_no_tenant_is_of_the_usual_one() {
        for (extension, expected) in
            [("", "default"), (r#","ftetenant":"acme""#, "acme"), (r#","ftetenant":"""#, "default"), (r#","ftetenant":7"#, "default")]
        {
            let event = RawEvent::parse(format!(r#"{{"id":"1","source":"/x","type":"t"{extension}}}"#).as_bytes()).unwrap();
            assert_eq!(tenant_of(&event), expected, "{extension}");
        }
    }
}
