//! What keeps events from a topic until somebody mends it: the broker lacks the topic, or refuses this application.
//!
//! Always true: an obstacle is forgotten with the first event that gets through, and after a while in any case: who is kept from trying because of it
//! would otherwise never learn that it is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;

const REMEMBERED: Duration = Duration::from_secs(15);

/// What the broker says, by words that Kafka and TLS use, and what to do about it.
const MENDED_BY_PEOPLE: &[(&str, &str)] = &[
    ("does not exist on this broker", "the broker has no such topic: create it (`fte topics` prints how)"),
    ("not authorized", "the broker does not let this application publish there: its access rules have to name it"),
    ("SASL", "the broker refuses the sidecar's user or password"),
    ("x509", "the certificate between sidecar and broker is not valid"),
    ("certificate", "the certificate between sidecar and broker is not valid"),
];

#[derive(Clone, Debug, Default)]
pub(super) struct Obstacles(Arc<Mutex<BTreeMap<Arc<str>, Obstacle>>>);

#[derive(Debug)]
struct Obstacle {
    advice: &'static str,
    seen: Instant,
}

impl Obstacles {
    /// A try to publish on this topic ended.
    pub(super) fn note(&self, topic: &Arc<str>, failure: Option<&Error>) {
        let mut obstacles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(failure) = failure else {
            if obstacles.remove(topic).is_some() {
                tracing::info!(%topic, "events reach the topic again");
            }
            return;
        };
        let Some(advice) = advice(failure) else { return };
        let known = obstacles.insert(Arc::clone(topic), Obstacle { advice, seen: Instant::now() });
        if known.is_none() {
            tracing::error!(%topic, error = %failure, "no event reaches the topic: {advice}");
        }
    }

    /// Which topics cannot be reached, and what to do about each.
    pub(super) fn list(&self) -> Vec<String> {
        let obstacles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = obstacles.iter().filter(|(_, obstacle)| obstacle.seen.elapsed() < REMEMBERED);
        current.map(|(topic, obstacle)| format!("{topic}: {}", obstacle.advice)).collect()
    }
}

fn advice(failure: &Error) -> Option<&'static str> {
    match failure {
        Error::Answered { status: 403, .. } => {
            Some("the sidecar's component does not let this application publish there: see its publishingScopes")
        }
        Error::Answered { message, .. } => MENDED_BY_PEOPLE.iter().find(|(words, _)| message.contains(words)).map(|(_, advice)| *advice),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, message: &str) -> Error {
        Error::Answered { status, code: "ERR_PUBSUB_PUBLISH_MESSAGE".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn an_obstacle_is_told_with_its_remedy_until_an_event_gets_through() {
        let (obstacles, topic) = (Obstacles::default(), Arc::from("orders"));
        let missing = answered(500, "kafka server: Request was for a topic or partition that does not exist on this broker");
        obstacles.note(&topic, Some(&missing));
        obstacles.note(&Arc::from("letters"), Some(&answered(403, "topic letters is not allowed")));
        let told = obstacles.list();
        assert_eq!(told.len(), 2);
        assert!(told[1].starts_with("orders: the broker has no such topic"), "{told:?}");
        obstacles.note(&topic, None);
        assert_eq!(obstacles.list().len(), 1);
    }

    #[test]
    fn what_heals_by_itself_is_no_obstacle() {
        let obstacles = Obstacles::default();
        obstacles.note(&Arc::from("orders"), Some(&answered(500, "kafka: client has run out of available brokers")));
        obstacles.note(&Arc::from("orders"), Some(&Error::Closed));
        assert!(obstacles.list().is_empty());
    }
}
