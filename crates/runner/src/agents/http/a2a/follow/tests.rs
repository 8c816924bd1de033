use serde_json::json;

use super::*;

fn task(status: &Value) -> Task {
    serde_json::from_value(json!({ "id": "t", "contextId": "c", "status": status })).unwrap()
}

fn follow() -> Follow {
    Follow::new(&task(&json!({"state": "TASK_STATE_SUBMITTED"})), 3)
}

fn observe(follow: &mut Follow, event: &Value) -> Result<Vec<Said>, Trouble> {
    follow.observe(serde_json::from_value(event.clone()).unwrap())
}

fn status(state: &str, words: &str) -> Value {
    let message = json!({"messageId": format!("m-{words}"), "role": "ROLE_AGENT", "parts": [{"text": words}]});
    json!({"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": format!("TASK_STATE_{state}"), "message": message}}})
}

fn piece(text: &str, append: bool, last: bool) -> Value {
    let artifact = json!({"artifactId": "a", "parts": [{"text": text}]});
    json!({"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": artifact, "append": append, "lastChunk": last}})
}

#[test]
fn only_what_is_new_is_said() {
    let mut follow = follow();
    let stage = |name: &str| Said::Stage(name.to_owned());
    let progress = |words: &str| Said::Progress { pct: None, message: Some(words.to_owned()) };
    assert_eq!(follow.snapshot(task(&json!({"state": "TASK_STATE_SUBMITTED"}))).unwrap(), [stage("submitted")]);
    assert_eq!(observe(&mut follow, &status("WORKING", "one")).unwrap(), [stage("working"), progress("one")]);
    assert_eq!(observe(&mut follow, &status("WORKING", "one")).unwrap(), []);
    assert_eq!(observe(&mut follow, &status("WORKING", "two")).unwrap(), [progress("two")]);
    let mut telling = status("WORKING", "two");
    telling["statusUpdate"]["metadata"] = json!({"stage": "draft", "progress_pct": 12.4});
    assert_eq!(observe(&mut follow, &telling).unwrap(), [stage("draft"), Said::Progress { pct: Some(12), message: None }]);
    assert_eq!(follow.stand(), Stand::Works);
    assert_eq!(observe(&mut follow, &status("COMPLETED", "done")).unwrap(), []);
    assert_eq!(follow.stand(), Stand::Ended);
}

#[test]
fn an_answered_question_is_asked_again_only_as_a_new_one() {
    let mut follow = follow();
    observe(&mut follow, &status("INPUT_REQUIRED", "may I?")).unwrap();
    assert_eq!(follow.stand(), Stand::Asks);
    follow.answer();
    observe(&mut follow, &status("INPUT_REQUIRED", "may I?")).unwrap();
    assert_eq!(follow.stand(), Stand::Works);
    observe(&mut follow, &status("INPUT_REQUIRED", "and this?")).unwrap();
    assert_eq!(follow.stand(), Stand::Asks);
    follow.answer();
    observe(&mut follow, &status("WORKING", "")).unwrap();
    observe(&mut follow, &status("INPUT_REQUIRED", "and this?")).unwrap();
    assert_eq!(follow.stand(), Stand::Asks);
}

#[test]
fn pieces_become_one_artifact_and_a_snapshot_changes_nothing_of_it() {
    let mut follow = follow();
    observe(&mut follow, &piece("one ", false, false)).unwrap();
    observe(&mut follow, &piece("two", true, true)).unwrap();
    let held = &mut follow.artifacts[0];
    assert!(held.whole && held.artifact.parts.len() == 1, "{held:?}");
    held.kept = true;
    let mut whole = task(&json!({"state": "TASK_STATE_WORKING"}));
    whole.artifacts = serde_json::from_value(json!([{"artifactId": "a", "parts": [{"text": "one "}, {"text": "two"}]}])).unwrap();
    follow.snapshot(whole).unwrap();
    assert!(follow.artifacts[0].kept);
    observe(&mut follow, &piece("another", false, true)).unwrap();
    assert!(!follow.artifacts[0].kept, "it is another one by the same name");
}

#[test]
fn what_must_not_be_is_an_error() {
    let mut follow = follow();
    let mut foreign = status("WORKING", "x");
    foreign["statusUpdate"]["taskId"] = json!("other");
    assert!(matches!(observe(&mut follow, &foreign), Err(Trouble::Bad(text)) if text.contains("other")));
    for id in ["1", "2", "3", "4"] {
        let mut made = piece("x", false, true);
        made["artifactUpdate"]["artifact"]["artifactId"] = json!(id);
        assert_eq!(observe(&mut follow, &made).is_ok(), id != "4");
    }
    observe(&mut follow, &status("COMPLETED", "done")).unwrap();
    assert_eq!(observe(&mut follow, &status("COMPLETED", "done")).unwrap(), []);
    assert!(matches!(observe(&mut follow, &status("COMPLETED", "really")), Err(Trouble::Twice(_))));
    assert!(matches!(observe(&mut follow, &status("FAILED", "done")), Err(Trouble::Twice(_))));
}
