//! All topics of the suite, who subscribes to them and how. Fixed, because Kafka's topics are made beforehand and `daprd`
//! asks an app once.

use serde_json::{Value, json};

/// How a topic is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Single,
    /// At most this many a call.
    Bulk(usize),
    /// Nobody subscribes.
    Unread,
}

/// A topic and the subscription of the first app to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    /// Partitions the cases need at least.
    pub(crate) partitions: u16,
    pub(crate) mode: Mode,
    /// The subscription says `rawPayload`.
    pub(crate) raw: bool,
    pub(crate) dead_letter: Option<&'static str>,
}

const fn topic(name: &'static str, partitions: u16, mode: Mode) -> Topic {
    Topic { name, partitions, mode, raw: false, dead_letter: None }
}

const fn letters(topic: Topic, dead_letter: &'static str) -> Topic {
    Topic { dead_letter: Some(dead_letter), ..topic }
}

const fn raw(topic: Topic) -> Topic {
    Topic { raw: true, ..topic }
}

/// Envelopes, headers, keys: nothing here is ever refused.
pub(crate) const EVENTS: &str = "conf.events";
/// Answers of every kind, without a dead-letter topic.
pub(crate) const ANSWERS: &str = "conf.answers";
/// A policy that ends, without a dead-letter topic: what is behind waits.
pub(crate) const ROUNDS: &str = "conf.rounds";
/// Answers of every kind, with a dead-letter topic.
pub(crate) const DEAD: &str = "conf.dead";
pub(crate) const DEAD_LETTERS: &str = "conf.dead.letters";
/// Records that are not JSON, and where they end.
pub(crate) const BROKEN: &str = "conf.broken";
pub(crate) const BROKEN_LETTERS: &str = "conf.broken.letters";
pub(crate) const RAW: &str = "conf.raw";
pub(crate) const ORDER: &str = "conf.order";
pub(crate) const HOLD: &str = "conf.hold";
pub(crate) const BULK: &str = "conf.bulk";
/// Most records of a delivery of [`BULK`].
pub(crate) const BULK_MAX: usize = 10;
/// Bulk deliveries of which single entries fail.
pub(crate) const BULK_ENTRIES: &str = "conf.bulk.entries";
pub(crate) const BULK_LETTERS: &str = "conf.bulk.letters";
/// Bulk deliveries that are answered as a whole.
pub(crate) const BULK_WHOLE: &str = "conf.bulk.whole";
/// Bulk deliveries that are answered 404.
pub(crate) const BULK_GONE: &str = "conf.bulk.gone";
pub(crate) const BULK_RAW: &str = "conf.bulk.raw";
/// The second app subscribes to this, too, in bulk.
pub(crate) const GROUPS: &str = "conf.groups";
/// So it does to this, where calls fail: a bulk call that fails comes again with all that is in it, so what is counted must not share it.
pub(crate) const GROUPS_FAIL: &str = "conf.groups.fail";
pub(crate) const INSTANCES: &str = "conf.instances";
pub(crate) const UNREAD: &str = "conf.unread";
/// What the cases use that stop something.
pub(crate) const OUTAGES: &str = "conf.outages";

pub(crate) const TOPICS: &[Topic] = &[
    topic(EVENTS, 3, Mode::Single),
    topic(ANSWERS, 6, Mode::Single),
    topic(ROUNDS, 1, Mode::Single),
    letters(topic(DEAD, 6, Mode::Single), DEAD_LETTERS),
    topic(DEAD_LETTERS, 1, Mode::Single),
    letters(topic(BROKEN, 1, Mode::Single), BROKEN_LETTERS),
    raw(topic(BROKEN_LETTERS, 1, Mode::Single)),
    raw(topic(RAW, 1, Mode::Single)),
    topic(ORDER, 6, Mode::Single),
    topic(HOLD, 6, Mode::Single),
    topic(BULK, 3, Mode::Bulk(BULK_MAX)),
    letters(topic(BULK_ENTRIES, 1, Mode::Bulk(20)), BULK_LETTERS),
    topic(BULK_LETTERS, 1, Mode::Single),
    topic(BULK_WHOLE, 1, Mode::Bulk(20)),
    letters(topic(BULK_GONE, 1, Mode::Bulk(20)), BULK_LETTERS),
    raw(topic(BULK_RAW, 1, Mode::Bulk(20))),
    topic(GROUPS, 3, Mode::Single),
    topic(GROUPS_FAIL, 3, Mode::Single),
    topic(INSTANCES, 6, Mode::Single),
    topic(UNREAD, 1, Mode::Unread),
    topic(OUTAGES, 3, Mode::Single),
];

/// What the second app subscribes to, in bulk.
pub(crate) const SECOND: [&str; 2] = [GROUPS, GROUPS_FAIL];

/// Where the first app takes a topic's events.
pub(crate) fn route(topic: &str) -> String {
    format!("/events/{topic}")
}

/// The answer of the first app to `GET /dapr/subscribe`.
pub(crate) fn subscriptions(pubsub: &str) -> Value {
    TOPICS.iter().filter(|topic| topic.mode != Mode::Unread).map(|topic| subscription(pubsub, topic)).collect()
}

/// The answer of the second app.
pub(crate) fn second_subscriptions(pubsub: &str) -> Value {
    SECOND.iter().map(|name| subscription(pubsub, &topic(name, 3, Mode::Bulk(100)))).collect()
}

fn subscription(pubsub: &str, topic: &Topic) -> Value {
    let mut subscription = json!({"pubsubname": pubsub, "topic": topic.name, "route": route(topic.name)});
    if topic.raw {
        subscription["metadata"] = json!({"rawPayload": "true"});
    }
    if let Some(letters) = topic.dead_letter {
        subscription["deadLetterTopic"] = letters.into();
    }
    if let Mode::Bulk(max) = topic.mode {
        subscription["bulkSubscribe"] = json!({"enabled": true, "maxMessagesCount": max, "maxAwaitDurationMs": 50});
    }
    subscription
}
