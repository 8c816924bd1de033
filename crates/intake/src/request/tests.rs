use proptest::prelude::*;
use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-07-01T10:00:00Z".parse().unwrap()
}

fn read_body(body: Value) -> Result<TaskRequested, Refusal> {
    let Value::Object(body) = body else { panic!("{body} is no object") };
    read(body, fte_events::sample::task_id(), &Agents::built_in(), now())
}

#[test]
fn everything_that_may_be_said_arrives_in_the_event() {
    let said = NewTask {
        task: "summarise".to_owned(),
        agent: Some("demo".to_owned()),
        context: Some(Map::from_iter([("minutes".to_owned(), json!([1, 2]))])),
        require_approval: Some(true),
        priority: Some(Priority::P1),
        deadline: Some("2026-07-01T11:00:00Z".parse().unwrap()),
        delay: Some("30s".to_owned()),
        budget_usd: Some(0.5),
        budget_tokens: Some(1000),
        metadata: Some(Map::from_iter([("project".to_owned(), json!("x"))])),
    };
    let read = read_body(serde_json::to_value(&said).unwrap()).unwrap();
    assert_eq!(read.task, "summarise");
    assert_eq!(read.agent.as_deref(), Some("demo"));
    assert_eq!(Some(read.context), said.context);
    assert!(read.require_approval);
    assert_eq!(read.priority, Priority::P1);
    assert_eq!(read.deadline, said.deadline);
    assert_eq!(read.not_before, Some("2026-07-01T10:00:30Z".parse().unwrap()));
    assert_eq!((read.budget_usd, read.budget_tokens), (Some(0.5), Some(1000)));
    assert_eq!(Some(read.metadata), said.metadata);
    assert_eq!((read.origin, read.submitted_at), (Origin::Http, now()));
}

#[test]
fn a_text_is_enough() {
    let read = read_body(json!({"task": "x", "agent": null, "deadline": null})).unwrap();
    assert_eq!(read.agent.as_deref(), Some("echo"));
    assert_eq!((read.require_approval, read.priority, read.not_before, read.deadline), (false, Priority::P2, None, None));
}

#[test]
fn a_task_has_1_to_32000_characters_whatever_their_bytes() {
    assert!(read_body(json!({"task": "ü".repeat(32_000)})).is_ok());
    assert!(read_body(json!({"task": "🙂".repeat(32_000)})).is_ok());
    for bad in [json!("x".repeat(32_001)), json!("🙂".repeat(32_001)), json!(""), json!(" \n\t"), json!(7), Value::Null] {
        assert_eq!(read_body(json!({"task": bad})).unwrap_err().errors[0].pointer, "/task");
    }
}

#[test]
fn each_field_is_refused_by_its_name_and_told_the_form() {
    let check = |field: &str, value: Value, form: &str| {
        let refusal = read_body(json!({"task": "x", field: value})).unwrap_err();
        assert_eq!(refusal.errors.len(), 1, "{refusal:?}");
        assert_eq!(refusal.errors[0].pointer, format!("/{field}"));
        assert!(refusal.errors[0].detail.contains(form), "{refusal:?}");
    };
    check("agent", json!("nobody"), "there are: demo, echo");
    check("agent", json!(1), "expected one of: demo, echo");
    check("context", json!([]), "expected an object of at most 65536 bytes");
    check("context", json!({"a": "x".repeat(65_536)}), "not 65544");
    check("metadata", json!({"a": "x".repeat(16_384)}), "at most 16384 bytes");
    check("require_approval", json!("yes"), "true or false");
    check("priority", json!("P4"), r#""P1", "P2" or "P3""#);
    check("priority", json!("p1"), r#""P1", "P2" or "P3""#);
    check("deadline", json!("2026-07-01T10:00:00Z"), "in the future");
    check("deadline", json!("2028-07-01T10:00:00Z"), "within 366 days");
    check("deadline", json!("tomorrow"), "RFC 3339");
    check("deadline", json!(1_800_000_000), "RFC 3339");
    check("delay", json!("30"), "a duration");
    check("delay", json!(30), "a duration");
    check("delay", json!("9000h"), "at most 366 days");
    check("budget_usd", json!(0), "above 0");
    check("budget_usd", json!(-1), "above 0");
    check("budget_usd", json!(1_000_001), "at most 1000000");
    check("require_aproval", json!(true), "there is no such field; there are: task, agent");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let refusal = read_body(json!({"agent": "nobody", "context": 1, "priority": 1, "a/b": 1})).unwrap_err();
    let pointers: Vec<&str> = refusal.errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(pointers, ["/task", "/agent", "/context", "/priority", "/a~1b"]);
    assert!(!refusal.agent_unknown);
}

#[test]
fn an_unknown_agent_is_its_own_kind_of_refusal_when_it_is_the_only_one() {
    assert!(read_body(json!({"task": "x", "agent": "nobody"})).unwrap_err().agent_unknown);
    assert!(!read_body(json!({"task": "x", "agent": 1})).unwrap_err().agent_unknown);
}

#[test]
fn a_deadline_comes_after_the_delay() {
    let refusal = read_body(json!({"task": "x", "delay": "2h", "deadline": "2026-07-01T11:00:00Z"})).unwrap_err();
    assert_eq!(refusal.errors[0].pointer, "/deadline");
    assert!(read_body(json!({"task": "x", "delay": "30m", "deadline": "2026-07-01T11:00:00+00:00"})).is_ok());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_breaks_it(values in prop::collection::vec(any_json(), 9), extra in ".{0,8}") {
        let names = ["task", "agent", "context", "require_approval", "priority", "deadline", "delay", "budget_usd", extra.as_str()];
        let body = names.iter().map(|name| (*name).to_owned()).zip(values).collect();
        if let Err(refusal) = read(body, fte_events::sample::task_id(), &Agents::built_in(), now()) {
            prop_assert!(!refusal.errors.is_empty());
        }
    }
}
