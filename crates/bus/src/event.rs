//! Events: the trait a payload implements and the CloudEvents 1.0 envelope that carries it.
//!
//! An envelope is read leniently and passed on whole: attributes this crate does not know are kept in `extensions`, `data` is kept
//! as the bytes that arrived unless a type is asked for. Format: CloudEvents 1.0, structured JSON mode.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json;
use crate::time::OfEvent;

/// A payload that travels as the `data` of a CloudEvent.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// The topic it is published on, or the prefix of its topics where each instance has its own.
    const TOPIC: &'static str;
    /// The CloudEvents `type`.
    const TYPE: &'static str;
    /// Version of the payload's schema, from 1.
    const VERSION: u32;
}

/// The attribute that marks a replayed event: `<consumer>/<letter id>`. Consumers other than the named one acknowledge it unread.
pub const REPLAY_ATTRIBUTE: &str = "ftereplay";

/// A CloudEvent 1.0. `D` is the payload: raw JSON by default, or a type.
#[derive(Clone, Debug)]
pub struct CloudEvent<D = Box<RawValue>> {
    /// Unique within `source`: the de-duplication key, set by the producer.
    pub id: String,
    /// Who produced it, a URI reference.
    pub source: String,
    /// The event type; empty when the producer gave none.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
    /// Media type of the payload.
    pub datacontenttype: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The payload.
    pub data: Option<D>,
    /// Every other attribute, kept as it was (`data_base64` too).
    pub extensions: BTreeMap<String, Value>,
}

/// A CloudEvent whose payload is the JSON that arrived.
pub type RawEvent = CloudEvent<Box<RawValue>>;

impl<D> CloudEvent<D> {
    /// An event with the required attributes, `data` and nothing else.
    pub fn new(id: impl Into<String>, source: impl Into<String>, event_type: impl Into<String>, data: D) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            event_type: event_type.into(),
            subject: None,
            time: None,
            datacontenttype: Some("application/json".to_owned()),
            traceparent: None,
            data: Some(data),
            extensions: BTreeMap::new(),
        }
    }

    /// A text extension attribute.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).and_then(Value::as_str)
    }

    /// The consumer this event is replayed for, when it is a replay.
    pub fn replayed_for(&self) -> Option<&str> {
        let mark = self.extension(REPLAY_ATTRIBUTE)?;
        mark.split_once('/').map(|(consumer, _)| consumer)
    }

    /// The same envelope around another payload.
    pub fn with_data<T>(self, data: Option<T>) -> CloudEvent<T> {
        CloudEvent {
            id: self.id,
            source: self.source,
            event_type: self.event_type,
            subject: self.subject,
            time: self.time,
            datacontenttype: self.datacontenttype,
            traceparent: self.traceparent,
            data,
            extensions: self.extensions,
        }
    }
}

impl RawEvent {
    /// Reads an event from JSON bytes, which anybody may have written (see [`json`]).
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        json::from_slice(bytes, json::EVENT_DEPTH_MAX)
    }

    /// Decodes the payload as `T`. An absent payload is read as `null`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let data = self.data.as_ref().map_or("null", |data| data.get());
        json::from_slice(data.as_bytes(), json::DATA_DEPTH_MAX)
    }
}

impl<D: Serialize> CloudEvent<D> {
    /// The structured JSON form.
    pub fn to_bytes(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }
}

impl<D: Serialize> Serialize for CloudEvent<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("source", &self.source)?;
        map.serialize_entry("type", &self.event_type)?;
        let optional = [("subject", &self.subject), ("datacontenttype", &self.datacontenttype), ("traceparent", &self.traceparent)];
        for (name, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        if let Some(time) = &self.time {
            map.serialize_entry("time", &OfEvent(*time))?;
        }
        for (name, value) in &self.extensions {
            map.serialize_entry(name, value)?;
        }
        if let Some(data) = &self.data {
            map.serialize_entry("data", data)?;
        }
        map.end()
    }
}

impl<'de, D: Deserialize<'de>> Deserialize<'de> for CloudEvent<D> {
    fn deserialize<A: Deserializer<'de>>(deserializer: A) -> Result<Self, A::Error> {
        deserializer.deserialize_map(EnvelopeVisitor(PhantomData))
    }
}

/// Reads attributes in any order; written by hand because a flattened map would buffer every value twice on the hottest path.
struct EnvelopeVisitor<D>(PhantomData<D>);

impl<'de, D: Deserialize<'de>> Visitor<'de> for EnvelopeVisitor<D> {
    type Value = CloudEvent<D>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent: a JSON object with id, source and type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = CloudEvent {
            id: String::new(),
            source: String::new(),
            event_type: String::new(),
            subject: None,
            time: None,
            datacontenttype: None,
            traceparent: None,
            data: None,
            extensions: BTreeMap::new(),
        };
        while let Some(name) = map.next_key::<Attribute>()? {
            match name {
                Attribute::Specversion => {
                    map.next_value::<IgnoredAny>()?;
                }
                Attribute::Id => event.id = map.next_value()?,
                Attribute::Source => event.source = map.next_value()?,
                Attribute::Type => event.event_type = map.next_value::<Option<String>>()?.unwrap_or_default(),
                Attribute::Subject => event.subject = map.next_value()?,
                Attribute::Time => event.time = lenient_time(map.next_value()?),
                Attribute::DataContentType => event.datacontenttype = map.next_value()?,
                Attribute::Traceparent => event.traceparent = map.next_value()?,
                Attribute::Data => event.data = Some(map.next_value()?),
                Attribute::Other(name) => {
                    event.extensions.insert(name, map.next_value()?);
                }
            }
        }
        if event.id.is_empty() {
            return Err(serde::de::Error::missing_field("id"));
        }
        Ok(event)
    }
}

/// A producer's malformed time must not make a good event unreadable; it is read as absent.
fn lenient_time(value: Option<Value>) -> Option<Timestamp> {
    value.as_ref().and_then(Value::as_str).and_then(|text| text.parse().ok())
}

enum Attribute {
    Specversion,
    Id,
    Source,
    Type,
    Subject,
    Time,
    DataContentType,
    Traceparent,
    Data,
    Other(String),
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<A: Deserializer<'de>>(deserializer: A) -> Result<Self, A::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Attribute;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute name")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Attribute, E> {
                Ok(match name {
                    "specversion" => Attribute::Specversion,
                    "id" => Attribute::Id,
                    "source" => Attribute::Source,
                    "type" => Attribute::Type,
                    "subject" => Attribute::Subject,
                    "time" => Attribute::Time,
                    "datacontenttype" => Attribute::DataContentType,
                    "traceparent" => Attribute::Traceparent,
                    "data" => Attribute::Data,
                    other => Attribute::Other(other.to_owned()),
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_attributes_and_data_bytes_survive_a_round_trip() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","newattr":{"a":1},"data":{"b": 2}}"#;
        let event = RawEvent::parse(text.as_bytes()).unwrap();
        assert_eq!(event.data.as_ref().unwrap().get(), r#"{"b": 2}"#);
        let again = serde_json::to_value(&event).unwrap();
        assert_eq!(again["newattr"]["a"], 1);
        assert_eq!(again["data"]["b"], 2);
    }

    #[test]
    fn an_event_without_an_id_is_refused() {
        assert!(RawEvent::parse(br#"{"specversion":"1.0","source":"/s","type":"t"}"#).is_err());
        assert!(RawEvent::parse(b"[]").is_err());
    }

    #[test]
    fn a_replay_names_its_consumer() {
        let event = RawEvent::parse(br#"{"id":"1","source":"/s","type":"t","ftereplay":"fte-runner/abc"}"#).unwrap();
        assert_eq!(event.replayed_for(), Some("fte-runner"));
    }
}
