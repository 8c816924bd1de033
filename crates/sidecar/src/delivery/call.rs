//! One call to an app: its body from stored bytes, and what its answer says of each record. The two tables of Dapr.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use serde::Deserialize;

use super::{Member, Reader};
use crate::broker::{Call, Verdict};
use crate::client::{Answer, CallError};
use crate::cloudevent;
use crate::json::{Object, Pairs, Text, member, number, string};
use crate::record::{FLAG_KEY, FLAG_OPAQUE, FLAG_ORIGIN, Head, Record, RecordBuf, Records};
use crate::store::writer::now_ms;
use crate::topics::{Topic, partition_of};

/// Room for what surrounds an entry of a bulk body.
const ENTRY_BYTES: usize = 256;

impl Reader {
    /// Delivers `records`; `None` when the instance is not there. Records that never reach the app (expired, not JSON)
    /// are settled here.
    pub(super) async fn send(&self, member: &Member, call: &Call, records: Records) -> Option<Vec<(u64, Verdict)>> {
        let now_ms = self.context.store.clock.now_ms();
        let subscription = &member.subscription;
        let unsent = |record: &Record<'_>| {
            if subscription.raw {
                None
            } else if record.expires_ms != 0 && record.expires_ms < now_ms {
                Some(Verdict::Drop)
            } else if record.flags & FLAG_OPAQUE != 0 {
                // Cannot be parsed, as Dapr puts it: dead-lettered, or tried again for ever where there is no such topic.
                Some(match subscription.dead_letter {
                    Some(_) => Verdict::Drop,
                    None => Verdict::Retry { status: None },
                })
            } else {
                None
            }
        };
        let mut verdicts: Vec<(u64, Verdict)> = Vec::with_capacity(records.len());
        let mut sent: Vec<usize> = Vec::with_capacity(records.len());
        for (index, (offset, record)) in records.iter().enumerate() {
            let verdict = unsent(&record);
            if verdict.is_none() {
                sent.push(index);
            }
            verdicts.push((offset, verdict.unwrap_or(Verdict::Retry { status: None })));
        }
        let Some(first) = sent.first().copied() else {
            return Some(verdicts);
        };
        let request = if subscription.bulk.is_some() {
            self.bulk_request(member, call.partition, &records, &sent)
        } else {
            self.single_request(member, call.partition, &records, first)
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(error = %error, path = subscription.path, "request to the app cannot be built");
                return Some(verdicts);
            }
        };
        // A call may be held for long: what it was made from is let go of first.
        drop(records);
        let answer = self.context.client.call(request, call.timeout).await;
        match answer {
            Ok(answer) if subscription.bulk.is_some() => bulk_answer(&answer, &sent, &mut verdicts),
            Ok(answer) => verdicts[first].1 = single_answer(&answer),
            Err(CallError::Refused { .. }) => {
                member.instance.refused();
                return None;
            }
            Err(error) => {
                // A connection that broke because the app went away is no failure of the event.
                if matches!(error, CallError::Broken { .. }) && !member.instance.still_there().await {
                    return None;
                }
                tracing::debug!(app = %self.app, error = %crate::chain(&error), "delivery failed");
            }
        }
        Some(verdicts)
    }

    fn single_request(
        &self,
        member: &Member,
        partition: u16,
        records: &Records,
        index: usize,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request =
            member.instance.request(Method::POST, &member.subscription.path).header(CONTENT_TYPE, "application/cloudevents+json");
        let Some((offset, record)) = records.iter().nth(index) else {
            return request.body(Full::default());
        };
        let body = if member.subscription.raw {
            cloudevent::from_raw(record.value, &self.topic.name, &self.context.pubsub).into()
        } else {
            records.value(index)
        };
        if let Some(headers) = request.headers_mut() {
            headers.insert("pubsubname", header_value(&self.context.pubsub));
            if record.flags & FLAG_ORIGIN == 0 {
                headers.insert("__topic", header_value(&self.topic.name));
                headers.insert("__partition", partition.into());
                headers.insert("__offset", offset.into());
                headers.insert("__timestamp", header_value(&record.at_ms.to_string()));
            }
            if record.flags & FLAG_KEY != 0 {
                headers.insert("__key", header_value(&String::from_utf8_lossy(record.key)));
            }
            for (key, value) in header_pairs(&record).0 {
                if let Some(name) = header_name(&key) {
                    headers.insert(name, header_value(&value));
                }
            }
        }
        request.body(Full::new(body))
    }

    fn bulk_request(
        &self,
        member: &Member,
        partition: u16,
        records: &Records,
        sent: &[usize],
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let raw = member.subscription.raw;
        let bytes = if raw { records.bytes() / 3 * 4 } else { records.bytes() };
        let mut body = Vec::with_capacity(bytes + ENTRY_BYTES * (sent.len() + 1));
        body.extend_from_slice(b"{\"id\":");
        string(&mut body, uuid::Uuid::new_v4().hyphenated().encode_lower(&mut [0; 36]));
        crate::json::member(&mut body, "type", "com.dapr.event.sent.bulk");
        crate::json::member(&mut body, "topic", &self.topic.name);
        crate::json::member(&mut body, "pubsubname", &self.context.pubsub);
        body.extend_from_slice(b",\"metadata\":{\"pubsubName\":");
        string(&mut body, &self.context.pubsub);
        body.extend_from_slice(b"},\"entries\":[");
        // What is the same for every entry is written once.
        let mut place = Vec::with_capacity(96);
        member_raw(&mut place, "__topic", |out| string(out, &self.topic.name));
        place.extend_from_slice(b",\"__partition\":\"");
        number(&mut place, partition.into());
        place.extend_from_slice(b"\",\"__offset\":\"");
        let mut wanted = sent.iter().copied().peekable();
        let mut entry = 0;
        for (index, (offset, record)) in records.iter().enumerate() {
            if wanted.next_if_eq(&index).is_none() {
                continue;
            }
            if entry > 0 {
                body.push(b',');
            }
            body.extend_from_slice(b"{\"entryId\":\"");
            number(&mut body, entry);
            entry += 1;
            body.extend_from_slice(b"\",\"event\":");
            if raw {
                body.push(b'"');
                cloudevent::base64(&mut body, record.value);
                body.extend_from_slice(b"\",\"contentType\":\"application/octet-stream\",\"metadata\":{");
            } else {
                body.extend_from_slice(record.value);
                body.extend_from_slice(b",\"contentType\":\"application/cloudevents+json\",\"metadata\":{");
            }
            let start = body.len();
            body.extend_from_slice(record.headers);
            if record.flags & FLAG_KEY != 0 {
                separate(&mut body, start);
                member_raw(&mut body, "__key", |out| string(out, &String::from_utf8_lossy(record.key)));
            }
            if record.flags & FLAG_ORIGIN == 0 {
                separate(&mut body, start);
                body.extend_from_slice(&place);
                number(&mut body, offset);
                body.extend_from_slice(b"\",\"__timestamp\":\"");
                number(&mut body, record.at_ms.max(0).cast_unsigned());
                body.push(b'"');
            }
            body.extend_from_slice(b"}}");
        }
        body.extend_from_slice(b"]}");
        member
            .instance
            .request(Method::POST, &member.subscription.path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
    }
}

/// Appends `"key":` and what `value` appends.
fn member_raw(out: &mut Vec<u8>, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    value(out);
}

/// Appends a comma unless nothing was appended since `start`.
fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.push(b',');
    }
}

/// The metadata of a record.
fn header_pairs(record: &Record<'_>) -> Pairs {
    if record.headers.is_empty() {
        return Pairs::default();
    }
    let mut object = Vec::with_capacity(record.headers.len() + 2);
    object.push(b'{');
    object.extend_from_slice(record.headers);
    object.push(b'}');
    serde_json::from_slice(&object).unwrap_or_default()
}

/// The header a metadata key becomes, if it may be one.
fn header_name(key: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(key.as_bytes()).ok()?;
    let reserved = matches!(
        name.as_str(),
        "content-type"
            | "content-length"
            | "host"
            | "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "dapr-api-token"
    );
    (!reserved && !name.as_str().ends_with("-bin")).then_some(name)
}

/// A header value; bytes that may not stand in one are percent-encoded, so that no event is stuck because of them.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let mut escaped = String::with_capacity(text.len() + 8);
        for byte in text.bytes() {
            if (b' '..=b'~').contains(&byte) && byte != b'%' {
                escaped.push(byte as char);
            } else {
                escaped.push('%');
                escaped.push_str(&format!("{byte:02X}"));
            }
        }
        HeaderValue::from_str(&escaped).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

#[derive(Deserialize)]
struct SingleAnswer<'a> {
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
}

/// What an answer says of the record that was sent alone.
fn single_answer(answer: &Answer) -> Verdict {
    if answer.status == http::StatusCode::NOT_FOUND {
        return Verdict::Drop;
    }
    if !answer.status.is_success() {
        return Verdict::Retry { status: Some(answer.status.as_u16()) };
    }
    if answer.body.is_empty() {
        return Verdict::Success;
    }
    match serde_json::from_slice::<Object<SingleAnswer<'_>>>(&answer.body) {
        Err(_) => Verdict::Success,
        Ok(Object(SingleAnswer { status })) => match status.as_ref().map(|status| &*status.0) {
            None | Some("" | "SUCCESS") => Verdict::Success,
            Some("DROP") => Verdict::Drop,
            Some(_) => Verdict::Retry { status: None },
        },
    }
}

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    #[serde(borrow)]
    statuses: Vec<Object<EntryAnswer<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryAnswer<'a> {
    #[serde(borrow)]
    entry_id: Text<'a>,
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
}

/// What an answer says of the records that were sent together; `sent` are their places in `verdicts`.
fn bulk_answer(answer: &Answer, sent: &[usize], verdicts: &mut [(u64, Verdict)]) {
    let all = |verdicts: &mut [(u64, Verdict)], verdict| {
        for index in sent {
            verdicts[*index].1 = verdict;
        }
    };
    if answer.status == http::StatusCode::NOT_FOUND {
        return all(verdicts, Verdict::Discard);
    }
    if !answer.status.is_success() {
        let status = Some(answer.status.as_u16());
        return all(verdicts, Verdict::Retry { status });
    }
    // Not named is RETRY, which the verdicts say already; so is every one when this is not such a body.
    let Ok(Object(BulkAnswer { statuses })) = serde_json::from_slice(&answer.body) else {
        return;
    };
    for Object(EntryAnswer { entry_id, status }) in statuses {
        let Some(index) = entry_id.0.parse().ok().and_then(|entry: usize| sent.get(entry)) else {
            continue;
        };
        verdicts[*index].1 = match status.as_ref().map(|status| &*status.0) {
            Some("SUCCESS") => Verdict::Success,
            Some("DROP") => Verdict::Drop,
            _ => Verdict::Retry { status: None },
        };
    }
}

/// The records as dead letters: value, key and headers as they are, with the place they came from.
pub(super) fn dead_letters(records: &Records, from: &Topic, to: &Arc<Topic>, partition: u16, pubsub: &str) -> RecordBuf {
    let mut letters = RecordBuf::default();
    let at_ms = now_ms();
    for (offset, record) in records.iter() {
        let mut headers = record.headers.to_vec();
        if record.flags & FLAG_ORIGIN == 0 {
            let start = 0;
            separate(&mut headers, start);
            member_raw(&mut headers, "__topic", |out| string(out, &from.name));
            for (key, value) in [
                ("__partition", partition.to_string()),
                ("__offset", offset.to_string()),
                ("__timestamp", record.at_ms.to_string()),
                ("pubsubName", pubsub.to_owned()),
            ] {
                member(&mut headers, key, &value);
            }
        }
        let key = (record.flags & FLAG_KEY != 0).then_some(record.key);
        let head = Head { flags: (record.flags & FLAG_OPAQUE) | FLAG_ORIGIN, at_ms, key, headers: &headers };
        let target = match key {
            Some(key) => partition_of(key, to.partitions),
            None => partition % to.partitions,
        };
        // An expired event stays what it is, but a dead letter has to be read: its expiry is over.
        let written = letters.push::<std::convert::Infallible>(target, head, |out| {
            out.extend_from_slice(record.value);
            Ok(0)
        });
        match written {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn single_answers_mean_what_daprs_table_says() {
        let retry = |status| Verdict::Retry { status };
        for (status, body, verdict) in [
            (200, "", Verdict::Success),
            (204, "", Verdict::Success),
            (200, "thanks", Verdict::Success),
            (200, "{}", Verdict::Success),
            (200, r#"["RETRY"]"#, Verdict::Success),
            (200, r#"{"status":"SUCCESS"}"#, Verdict::Success),
            (200, r#"{"status":""}"#, Verdict::Success),
            (200, r#"{"status":"RETRY"}"#, retry(None)),
            (200, r#"{"status":"WHAT"}"#, retry(None)),
            (200, r#"{"status":"DROP"}"#, Verdict::Drop),
            (404, "", Verdict::Drop),
            (400, "", retry(Some(400))),
            (503, "", retry(Some(503))),
            (302, "", retry(Some(302))),
        ] {
            assert_eq!(single_answer(&answer(status, body)), verdict, "{status} {body}");
        }
    }

    #[test]
    fn bulk_answers_mean_what_daprs_table_says() {
        let check = |status, body: &str, expected: [Verdict; 3]| {
            let none = Verdict::Retry { status: None };
            let mut verdicts = vec![(5, none), (6, none), (7, none)];
            bulk_answer(&answer(status, body), &[0, 1, 2], &mut verdicts);
            let got: Vec<Verdict> = verdicts.iter().map(|(_, verdict)| *verdict).collect();
            assert_eq!(got, expected, "{status} {body}");
        };
        let none = Verdict::Retry { status: None };
        let code = Verdict::Retry { status: Some(500) };
        check(500, "", [code; 3]);
        check(404, "", [Verdict::Discard; 3]);
        check(200, "", [none; 3]);
        check(200, "[]", [none; 3]);
        check(
            200,
            r#"{"statuses":[{"entryId":"2","status":"SUCCESS"},{"entryId":"0","status":"DROP"},{"entryId":"9","status":"SUCCESS"}]}"#,
            [Verdict::Drop, none, Verdict::Success],
        );
        check(
            200,
            r#"{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":""},{"entryId":"2"}]}"#,
            [Verdict::Success, none, none],
        );
    }

    #[test]
    fn a_control_byte_in_a_header_sticks_no_event() {
        assert_eq!(header_value("plain"), "plain");
        assert_eq!(header_value("a\nb%"), "a%0Ab%25");
        assert!(header_name("content-type").is_none());
        assert!(header_name("x-bin").is_none());
        assert!(header_name("not a name").is_none());
        assert!(header_name("partitionKey").is_some());
    }
}
