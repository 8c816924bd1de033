//! What every payload can say of itself: its topic, its type, its version and its task.
//!
//! [`fte_bus::Event`] says topic and type as constants, which subscribing needs. A result has six types and a hand-off one topic
//! per agent, so publishing asks the value instead, through [`Payload`].

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::ids::TaskId;

/// Fields this version does not know: kept, and passed on.
pub type Extra = Map<String, Value>;

/// The `data` of an event of the catalogue, which knows where it belongs.
pub trait Payload: Serialize {
    /// The topic it is published on.
    fn topic(&self) -> Cow<'static, str>;
    /// The CloudEvents `type`.
    fn event_type(&self) -> &'static str;
    /// The schema version of `data` (`fteversion`).
    fn version(&self) -> u32;
    /// The task it is about, if `data` names one: the event's `subject` and its Kafka key.
    fn task_id(&self) -> Option<TaskId>;
}

/// Gives a payload its one topic and type: both [`fte_bus::Event`] and [`Payload`].
macro_rules! event {
    ($payload:ty, $topic:expr, $type:literal, v $version:literal, task: |$this:ident| $task:expr) => {
        impl fte_bus::Event for $payload {
            const TOPIC: &'static str = $topic;
            const TYPE: &'static str = $type;
            const VERSION: u32 = $version;
        }

        impl $crate::payload::Payload for $payload {
            fn topic(&self) -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed($topic)
            }
            fn event_type(&self) -> &'static str {
                $type
            }
            fn version(&self) -> u32 {
                $version
            }
            fn task_id(&self) -> Option<$crate::ids::TaskId> {
                let $this = self;
                $task
            }
        }
    };
}
