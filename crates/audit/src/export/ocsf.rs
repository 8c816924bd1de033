//! An entry as OCSF 1.8.0 API Activity (class 6003). A pure function of what is stored: a better view never touches the log.

use fte_bus::json;
use serde_json::{Value, json};

use crate::entry::leaf::{Header, Kind};

/// The version of this view.
const VIEW: u32 = 1;

/// The view of an entry. Of an encrypted payload nothing is shown but what its header says.
pub fn ocsf(index: u64, header: &Header<'_>, payload: &[u8]) -> Value {
    let event: Value =
        if header.enc.is_none() { json::from_slice(payload, json::EVENT_DEPTH_MAX).unwrap_or(Value::Null) } else { Value::Null };
    let data = &event["data"];
    let operation = header.action.as_deref().or(header.event_type.as_deref()).unwrap_or_else(|| header.kind.as_str());
    let activity = activity(header.kind, operation);
    let time = header
        .time
        .as_deref()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .map_or(header.logged_time, |time| time.as_millisecond());
    let (status_id, status) = match header.outcome.as_deref() {
        Some("success") => (1, "success"),
        Some("failure") => (2, "failure"),
        Some("denied") => (2, "denied"),
        Some(_) => (99, "other"),
        None => (0, "unknown"),
    };
    let mut view = json!({
        "category_uid": 6,
        "class_uid": 6003,
        "activity_id": activity,
        "activity_name": operation,
        "type_uid": 600_300 + activity,
        "severity_id": if header.kind == Kind::Conflict { 4 } else { 1 },
        "time": time,
        "status_id": status_id,
        "status_code": status,
        "metadata": {
            "version": "1.8.0",
            "product": {"name": "FTE", "vendor_name": "FTE"},
            "logged_time": header.logged_time,
            "uid": header.id,
            "sequence": header.sequence,
            "tenant_uid": header.tenant,
            "correlation_uid": header.task,
        },
        "api": {"operation": operation, "service": {"name": header.source}},
        "actor": {"user": {"uid": header.actor}},
        "src_endpoint": {"name": header.source.as_deref().unwrap_or("unknown")},
        "unmapped": {
            "view": VIEW,
            "index": index,
            "kind": header.kind.as_str(),
            "topic": header.topic,
            "ai_agent": {"uid": header.agent},
            "input_sha256": data["input_sha256"],
            "output_sha256": data["output_sha256"],
            "confidence": data["confidence"],
        },
    });
    if let Some(resource) = data["resource"].as_str() {
        view["resources"] = json!([{"uid": resource}]);
    }
    if let Some((trace, span)) = event["traceparent"].as_str().and_then(trace) {
        view["trace"] = json!({"uid": trace});
        // A span of OCSF wants its begin and end, which nobody knows.
        view["unmapped"]["span_uid"] = json!(span);
    }
    without_nulls(&mut view);
    view
}

fn activity(kind: Kind, operation: &str) -> u32 {
    match kind {
        Kind::Read | Kind::Export => 2,
        Kind::KeyDestroyed => 4,
        _ if operation.ends_with(".requested") || operation.ends_with(".claimed") => 1,
        _ if operation.ends_with(".changed") || operation.starts_with("approval.") => 3,
        _ if operation.ends_with(".erased") || operation.ends_with(".discarded") => 4,
        _ => 99,
    }
}

fn trace(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.split('-').skip(1);
    parts.next().zip(parts.next())
}

fn without_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.values_mut().for_each(without_nulls);
        members.retain(|_, member| !member.is_null() && member.as_object().is_none_or(|inner| !inner.is_empty()));
    }
}
