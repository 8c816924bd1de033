//! Keys of an agent that say when its tasks start: `rate` and `concurrency_key`.

use std::fmt;
use std::time::Duration;

use fte_events::TaskRequested;
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

use super::parsed;

/// Most starts that a rate can allow in its time: so many moments are remembered.
const STARTS_MAX: u32 = 10_000;
/// Longest path into a request.
const PATH_BYTES_MAX: usize = 200;

/// At most so many starts in any span of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Starts, 1 to 10 000.
    pub starts: u32,
    /// The span: a second, a minute or an hour.
    pub per: Duration,
}

const UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        let (starts, unit) = text.split_once('/')?;
        let starts = starts.trim().parse().ok().filter(|starts| (1..=STARTS_MAX).contains(starts))?;
        let seconds = UNITS.iter().find_map(|(name, seconds)| (*name == unit.trim()).then_some(*seconds))?;
        Some(Self { starts, per: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.per.as_secs()).map_or("?", |(name, _)| name);
        write!(f, "{}/{unit}", self.starts)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, r#"1 to 10000 starts per second, minute or hour, such as "60/m""#, Self::parse)
    }
}

/// Where in a request the value stands whose tasks run one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath {
    field: Field,
    /// The names below it, from the outside in.
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Context,
    Metadata,
    Requester,
}

impl KeyPath {
    fn parse(text: &str) -> Option<Self> {
        let mut names = text.split('.').map(str::to_owned);
        let field = match names.next()?.as_str() {
            "context" => Field::Context,
            "metadata" => Field::Metadata,
            "requester" => Field::Requester,
            _ => return None,
        };
        let names: Vec<String> = names.collect();
        let is_usable = match field {
            Field::Requester => matches!(names.as_slice(), [name] if name == "id"),
            Field::Context | Field::Metadata => !names.is_empty() && names.iter().all(|name| !name.is_empty()),
        };
        (is_usable && text.len() <= PATH_BYTES_MAX).then_some(Self { field, names })
    }

    /// The value as JSON text; none where the request has none there, or `null`: such a task runs beside all others.
    pub fn value(&self, request: &TaskRequested) -> Option<String> {
        let map = match self.field {
            Field::Context => &request.context,
            Field::Metadata => &request.metadata,
            Field::Requester => return request.requester.as_ref().map(|requester| Value::from(requester.id.as_str()).to_string()),
        };
        let (first, rest) = self.names.split_first()?;
        let value = rest.iter().try_fold(map.get(first)?, |value, name| value.get(name))?;
        (!value.is_null()).then(|| value.to_string())
    }
}

impl<'de> Deserialize<'de> for KeyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, r#"a place in the request: "context.NAME", "metadata.NAME" or "requester.id""#, Self::parse)
    }
}

#[cfg(test)]
mod tests {
    use fte_events::{Origin, Requester, TaskId};
    use jiff::Timestamp;
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn a_rate_is_a_number_of_starts_in_a_time() {
        let check = |text: &str, expected: Option<(u32, u64)>| {
            let rate = Rate::parse(text);
            assert_eq!(rate.map(|rate| (rate.starts, rate.per.as_secs())), expected, "{text}");
        };
        check("60/m", Some((60, 60)));
        check("1 / h", Some((1, 3600)));
        check("10000/s", Some((10_000, 1)));
        for wrong in ["", "60", "0/m", "10001/s", "60/d", "-1/s", "1.5/s", "m/60"] {
            check(wrong, None);
        }
        assert_eq!(Rate::parse("60/m").unwrap().to_string(), "60/m");
    }

    #[test]
    fn a_key_is_looked_up_where_its_path_says() {
        let mut request = TaskRequested::new(TaskId::now(), "x", Origin::Http, Timestamp::now());
        request.context = json!({ "customer_id": 7, "deep": { "er": "x" }, "nothing": null }).as_object().unwrap().clone();
        request.metadata = json!({ "list": [1] }).as_object().unwrap().clone();
        let check = |path: &str, request: &TaskRequested, expected: Option<&str>| {
            assert_eq!(KeyPath::parse(path).unwrap().value(request).as_deref(), expected, "{path}");
        };
        check("context.customer_id", &request, Some("7"));
        check("context.deep.er", &request, Some("\"x\""));
        check("context.nothing", &request, None);
        check("context.deep.none", &request, None);
        check("context.customer_id.more", &request, None);
        check("metadata.list", &request, Some("[1]"));
        check("requester.id", &request, None);
        request.requester = Some(Requester { requester_type: "user".to_owned(), id: "ada".to_owned(), extra: Map::new() });
        check("requester.id", &request, Some("\"ada\""));
        for wrong in ["", "context", "context.", "context..x", "task", "requester.type", "customer_id"] {
            assert_eq!(KeyPath::parse(wrong), None, "{wrong}");
        }
    }
}
