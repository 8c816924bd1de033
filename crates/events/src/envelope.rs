//! From types to the wire: the CloudEvent that carries a payload, with every attribute the catalogue asks for.

use bytes::Bytes;
use fte_bus::RawEvent;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ids::TaskId;
use crate::payload::Payload;

/// The tenant where there is just one.
pub const TENANT: &str = "default";

/// An event about to be published. It serialises as the CloudEvent, straight from the payload.
#[derive(Debug, Clone)]
pub struct Outgoing<'a, P> {
    service: &'a str,
    id: Uuid,
    time: Timestamp,
    subject: Option<TaskId>,
    tenant: &'a str,
    cause: Option<&'a str>,
    traceparent: Option<&'a str>,
    data: &'a P,
}

impl<'a, P: Payload> Outgoing<'a, P> {
    /// `data` said by `service`, with `id` from [`crate::event_id`] (or a UUIDv7 where there is no task), happened at `time`.
    /// The subject is the task that the payload names.
    pub fn new(service: &'a str, id: Uuid, time: Timestamp, data: &'a P) -> Self {
        let subject = data.task_id();
        Self { service, id, time, subject, tenant: TENANT, cause: None, traceparent: None, data }
    }

    /// The task it is about, where the payload does not name it (sandboxes, dead letters).
    pub fn about(mut self, task: TaskId) -> Self {
        self.subject = Some(task);
        self
    }

    /// The id of the event that caused this one.
    pub fn cause(mut self, event_id: &'a str) -> Self {
        self.cause = Some(event_id);
        self
    }

    /// The W3C trace context of the work that made it.
    pub fn traceparent(mut self, traceparent: Option<&'a str>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// A tenant other than [`TENANT`].
    pub fn tenant(mut self, tenant: &'a str) -> Self {
        self.tenant = tenant;
        self
    }

    /// The topic to publish it on.
    pub fn topic(&self) -> std::borrow::Cow<'static, str> {
        self.data.topic()
    }

    /// The Kafka key, which keeps a task's events in order.
    pub fn partition_key(&self) -> Option<String> {
        self.subject.map(|task| task.to_string())
    }

    /// The CloudEvent as bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, self).expect(SERIALISES);
        bytes.into()
    }

    /// The CloudEvent as JSON to put into another document.
    pub fn to_raw(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(self).expect(SERIALISES)
    }

    /// The CloudEvent with its attributes at hand.
    pub fn to_event(&self) -> RawEvent {
        serde_json::from_slice(&self.to_bytes()).expect(SERIALISES)
    }
}

/// Room for most events: growing on the way there would copy them twice.
const USUAL_BYTES: usize = 768;
/// Nothing in the catalogue has a key that is not text, the one thing that JSON refuses.
const SERIALISES: &str = "payloads of the catalogue are JSON";

impl<P: Payload> Serialize for Outgoing<'_, P> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a, P> {
            specversion: &'static str,
            id: &'a str,
            source: Text<std::fmt::Arguments<'a>>,
            #[serde(rename = "type")]
            event_type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            subject: Option<TaskId>,
            #[serde(serialize_with = "fte_bus::time::serialize")]
            time: Timestamp,
            datacontenttype: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            traceparent: Option<&'a str>,
            ftetenant: &'a str,
            fteversion: Text<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ftecause: Option<&'a str>,
            data: &'a P,
        }

        Wire {
            specversion: "1.0",
            id: self.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
            source: Text(format_args!("/fte/{}", self.service)),
            event_type: self.data.event_type(),
            subject: self.subject,
            time: self.time,
            datacontenttype: "application/json",
            traceparent: self.traceparent,
            ftetenant: self.tenant,
            fteversion: Text(self.data.version()),
            ftecause: self.cause,
            data: self.data,
        }
        .serialize(serializer)
    }
}

/// A value as its text, written without building it first.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn optional_attributes_are_there_only_when_set() {
        let change = sample::sandbox_change(crate::SandboxKind::Claimed);
        let id = Uuid::from_u128(1);
        let plain = Outgoing::new("runner", id, sample::time(0), &change);
        let event = plain.to_event();
        assert_eq!((event.subject.as_deref(), event.traceparent.as_deref(), event.extension("ftecause")), (None, None, None));
        assert_eq!(
            (event.source.as_str(), event.extension("ftetenant"), event.extension("fteversion")),
            ("/fte/runner", Some("default"), Some("1"))
        );
        assert_eq!(plain.partition_key(), None);

        let full = plain.about(sample::task_id()).cause("7").tenant("acme").traceparent(Some("00-a-b-01"));
        let event = full.to_event();
        assert_eq!(event.subject, full.partition_key());
        assert_eq!(event.subject, Some(sample::task_id().to_string()));
        assert_eq!((event.extension("ftecause"), event.extension("ftetenant")), (Some("7"), Some("acme")));
        assert_eq!(event.traceparent.as_deref(), Some("00-a-b-01"));
        assert_eq!(full.to_raw().get().as_bytes(), full.to_bytes());
    }
}
