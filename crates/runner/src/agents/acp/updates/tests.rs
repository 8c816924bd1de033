use super::*;

const MAX: usize = 1000;

fn hear(updates: &mut Updates, update: Value) -> Vec<Said> {
    updates.hear(serde_json::from_value(update).unwrap(), MAX).unwrap()
}

fn chunk(text: &str) -> Value {
    json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}})
}

fn call(id: &str, status: &str) -> Value {
    json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": "Read x", "kind": "read", "status": status, "rawInput": {"path": "x"},
        "content": [{"type": "content", "content": {"type": "text", "text": "secret"}}]})
}

fn usage(amount: Value, currency: &str) -> Value {
    json!({"sessionUpdate": "usage_update", "used": 10, "size": 100, "cost": {"amount": amount, "currency": currency}})
}

fn action(name: &str, data: Value) -> Said {
    Said::Action { action: name.to_owned(), data: data.as_object().cloned().unwrap() }
}

#[test]
fn messages_are_collected_and_each_is_said_once_when_it_is_over() {
    let mut updates = Updates::default();
    assert_eq!(hear(&mut updates, chunk("Hel")), []);
    assert_eq!(hear(&mut updates, chunk("lo")), []);
    assert_eq!(hear(&mut updates, call("1", "pending"))[0], Said::Log("Hello".into()));
    assert_eq!(hear(&mut updates, usage(json!(0.5), "USD")), [Said::Cost(0.5)]);
    assert_eq!(hear(&mut updates, chunk("World")), []);
    let link = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "resource_link", "name": "a", "uri": "file:///a"}});
    assert_eq!(hear(&mut updates, link), []);
    let (said, text) = updates.finish();
    assert_eq!((said, text.as_str()), (vec![Said::Log("World[a](file:///a)".into())], "Hello\n\nWorld[a](file:///a)"));
}

#[test]
fn another_message_id_is_another_message() {
    let mut updates = Updates::default();
    let with_id = |text: &str, id: &str| {
        let mut chunk = chunk(text);
        chunk["messageId"] = id.into();
        chunk
    };
    assert_eq!(hear(&mut updates, with_id("a", "1")), []);
    assert_eq!(hear(&mut updates, with_id("b", "1")), []);
    assert_eq!(hear(&mut updates, with_id("c", "2")), [Said::Log("ab".into())]);
    assert_eq!(updates.finish(), (vec![Said::Log("c".into())], "ab\n\nc".to_owned()));
}

#[test]
fn text_past_a_result_is_too_much() {
    let mut updates = Updates::default();
    hear(&mut updates, chunk(&"x".repeat(MAX)));
    assert_eq!(updates.hear(serde_json::from_value(chunk("y")).unwrap(), MAX), Err(TooMuchText));
}

#[test]
fn a_call_is_an_action_when_it_is_met_and_when_it_has_ended_without_what_it_read() {
    let mut updates = Updates::default();
    let data = |status: &str| json!({"call": "1", "kind": "read", "title": "Read x", "status": status});
    let met = [action("tool.called", data("pending")), Said::Progress { pct: None, message: Some("Read x".into()) }];
    assert_eq!(hear(&mut updates, call("1", "pending")), met);
    let update =
        |status: &str| json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": status, "rawOutput": {"text": "secret"}});
    assert_eq!(hear(&mut updates, update("in_progress")), []);
    assert_eq!(hear(&mut updates, update("completed")), [action("tool.completed", data("completed"))]);
    assert_eq!(hear(&mut updates, update("completed")), []);
    let failed = json!({"sessionUpdate": "tool_call_update", "toolCallId": "2", "status": "failed"});
    let data = json!({"call": "2", "kind": "other", "title": "a tool", "status": "failed"});
    assert_eq!(hear(&mut updates, failed)[0], action("tool.called", data));
    assert_eq!(updates.known(&"1".into()).kind, ToolKind::Read);
}

#[test]
fn only_so_many_calls_are_remembered() {
    let mut updates = Updates::default();
    for id in 0..=CALLS_MAX {
        hear(&mut updates, call(&id.to_string(), "pending"));
    }
    assert_eq!(updates.calls.len(), CALLS_MAX);
    assert_eq!((updates.known(&"0".into()).kind, updates.known(&"1".into()).kind), (ToolKind::Other, ToolKind::Read));
}

#[test]
fn a_plan_is_an_action_once_and_progress_as_it_goes() {
    let mut updates = Updates::default();
    let plan = |first: &str, second: &str, word: &str| {
        json!({"sessionUpdate": "plan", "entries": [
            {"content": "look", "priority": "high", "status": first}, {"content": word, "priority": "low", "status": second}]})
    };
    let steps = |word: &str| json!({"steps": [{"step": "look", "priority": "high"}, {"step": word, "priority": "low"}]});
    let progress = |pct: u8, message: Option<&str>| Said::Progress { pct: Some(pct), message: message.map(str::to_owned) };
    let made = [action("plan.made", steps("do")), Said::Stage("look".into()), progress(0, Some("look"))];
    assert_eq!(hear(&mut updates, plan("in_progress", "pending", "do")), made);
    assert_eq!(hear(&mut updates, plan("completed", "in_progress", "do")), [Said::Stage("do".into()), progress(50, Some("do"))]);
    let changed = [action("plan.changed", steps("do it")), progress(50, None)];
    assert_eq!(hear(&mut updates, plan("completed", "pending", "do it")), changed);
    assert_eq!(hear(&mut updates, plan("completed", "completed", "do it")), [progress(100, None)]);
    assert_eq!(hear(&mut updates, json!({"sessionUpdate": "plan", "entries": []})), []);
}

#[test]
fn costs_are_what_came_on_top_in_dollars() {
    let mut updates = Updates::new(1.0);
    assert_eq!(hear(&mut updates, usage(json!(1.0), "USD")), []);
    assert_eq!(hear(&mut updates, usage(json!(1.5), "usd")), [Said::Cost(0.5)]);
    assert_eq!(hear(&mut updates, usage(json!(1.25), "USD")), []);
    assert_eq!(hear(&mut updates, usage(json!(-7), "USD")), []);
    assert_eq!(hear(&mut updates, usage(json!(1e300), "USD")), []);
    assert_eq!(hear(&mut updates, usage(json!(4), "EUR")), [Said::Log("warning: costs in EUR do not count against the budget".into())]);
    assert_eq!(hear(&mut updates, usage(json!(5), "EUR")), []);
    assert_eq!(updates.usd(), 1.5);
    let late = serde_json::from_value(usage(json!(2), "USD")).unwrap();
    assert_eq!(updates.hear_late(late), [Said::Cost(0.5)]);
}

#[test]
fn tokens_are_told_where_the_protocol_tells_them() {
    let mut updates = Updates::default();
    let response = |value: Value| serde_json::from_value::<PromptResponse>(value).unwrap();
    assert_eq!(updates.tokens(&response(json!({"stopReason": "end_turn"}))), None);
    hear(&mut updates, json!({"sessionUpdate": "usage_update", "used": 10, "size": 100}));
    let usage = json!({"stopReason": "end_turn", "usage": {"totalTokens": 7, "inputTokens": 4, "outputTokens": 3, "cachedReadTokens": 2}});
    let data = json!({"input_tokens": 4, "output_tokens": 3, "total_tokens": 7, "cached_read_tokens": 2, "context_tokens": 10,
        "context_tokens_max": 100});
    assert_eq!(updates.tokens(&response(usage)), Some(action("tokens.used", data)));
}
