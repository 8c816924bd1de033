//! What the API refuses goes on record: whom, on which route, by which rule.
//!
//! Whoever can reach the API can be refused as often as they like, and an entry of the audit log is there for seven years. So entries are rationed, for each
//! owner of a key and each rule by itself: a flood under one key or against one rule hides nothing else. What is left out is counted, and an entry says
//! how many there were; the metrics count all. One ration for the whole API was the other way: a few requests a second without a key would be enough to
//! be refused unseen with one.
//!
//! Always true: a refusal has an entry of its own, or is in the number of one that is written within [`TOLD_EVERY`] or at the end of the process.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fte_events::{ActionOutcome, ActionRecorded, Actor, ActorType};
use governor::{DefaultDirectRateLimiter, Quota};
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use crate::audit::AuditTrail;
use crate::keys::Caller;
use crate::metrics::{DENIALS_LEFT_OUT, HTTP_DENIED, method_label};

/// Entries of each owner's refusals by each rule: so many at once, and as many an hour.
const PER_HOUR: NonZeroU32 = NonZeroU32::new(60).expect("it is not 0");
/// How often it is told how many were left out.
const TOLD_EVERY: Duration = Duration::from_secs(600);

type OwnerAndRule = (Option<Arc<str>>, &'static str);

/// Records what one API refuses; cheap to clone.
#[derive(Clone, Debug)]
pub struct Denials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    trail: AuditTrail,
    /// Both owners and rules are few.
    rations: Mutex<HashMap<OwnerAndRule, Ration>>,
}

#[derive(Debug)]
struct Ration {
    by: Caller,
    limiter: DefaultDirectRateLimiter,
    left_out: u64,
}

impl Ration {
    fn of(by: &Caller) -> Self {
        Self { by: by.clone(), limiter: DefaultDirectRateLimiter::direct(Quota::per_hour(PER_HOUR)), left_out: 0 }
    }
}

impl Denials {
    /// Recorded on this trail.
    pub fn new(trail: AuditTrail) -> Self {
        Self { inner: Arc::new(Inner { trail, rations: Mutex::default() }) }
    }

    /// A request was refused by the rule `code`. Nothing of it is kept but the name of its route: it could hold anything.
    pub(crate) fn record(&self, by: &Caller, method: &Method, route: Option<&str>, code: &'static str) {
        metrics::counter!(HTTP_DENIED, "code" => code).increment(1);
        let is_within = {
            let mut rations = self.inner.rations.lock().unwrap_or_else(PoisonError::into_inner);
            let ration = rations.entry((by.shared_name(), code)).or_insert_with(|| Ration::of(by));
            let is_within = ration.limiter.check().is_ok();
            ration.left_out += u64::from(!is_within);
            is_within
        };
        if is_within {
            let resource = route.map_or_else(|| "api".to_owned(), |route| format!("{} {route}", method_label(method)));
            self.note(by, code, |action| action.resource = Some(resource));
        } else {
            metrics::counter!(DENIALS_LEFT_OUT, "code" => code).increment(1);
        }
    }

    /// Says how many were left out since it did so last.
    pub(crate) fn tell(&self) {
        let mut rations = self.inner.rations.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, code), ration) in rations.iter_mut().filter(|(_, ration)| ration.left_out > 0) {
            let left_out = Value::from(std::mem::take(&mut ration.left_out));
            self.note(&ration.by, code, |action| drop(action.data.insert("left_out".to_owned(), left_out)));
        }
    }

    /// Says so regularly.
    pub(crate) async fn keep(self) {
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell();
        }
    }

    fn note(&self, by: &Caller, code: &'static str, more: impl FnOnce(&mut ActionRecorded)) {
        let trail = &self.inner.trail;
        let actor = by.name().map_or_else(|| Actor::new(ActorType::Service, trail.service()), |name| Actor::new(ActorType::User, name));
        let mut action = ActionRecorded::new("api.denied", actor, ActionOutcome::Denied, Timestamp::now());
        action.data.insert("code".to_owned(), Value::from(code));
        more(&mut action);
        trail.note_of(by.tenant(), action);
    }
}
