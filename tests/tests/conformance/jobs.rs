//! Jobs: when they are called and how often, and what each answer of the app means.

use std::time::{Duration, Instant};

use fte_testkit::in_time;
use http::Method;
use serde_json::{Value, json};

use crate::app::Reply;
use crate::feature::Feature;
use crate::runner::{Case, cases};
use crate::world::{JSON, World, error_code};

pub(crate) const CASES: &[Case] = cases![
    the_stable_route_is_there_since_1_18,
    a_job_is_called_once_when_it_is_due needs [Jobs],
    a_schedule_calls_until_its_repeats_are_spent needs [Jobs],
    a_job_is_read_and_deleted needs [Jobs],
    a_404_drops_a_call needs [Jobs],
    a_failed_call_is_made_again needs [Jobs],
    a_job_that_makes_no_sense_is_refused needs [Jobs],
    a_name_with_special_characters_comes_back_as_it_was needs [Jobs, Embedded],
    a_job_is_replaced_only_when_told_to needs [Jobs],
];

/// The route every version has.
const ALPHA: &str = "/v1.0-alpha1/jobs";

/// The code of a job's error, which had no `DAPR_` before 1.15.
fn job_code(world: &World, code: &str) -> String {
    if world.has(Feature::DaprJobCodes) { format!("DAPR_{code}") } else { code.to_owned() }
}

/// Returns when a job has been called that was due three seconds from now, so that whatever was due before has been called, too.
async fn later(world: &World) {
    let mark = world.mark();
    world.post(&format!("{ALPHA}/{mark}"), &json!({"dueTime": "3s"})).await.expect_status(204);
    world.delivered(&mark, 1).await;
}

fn routes(world: &World) -> Vec<&'static str> {
    if world.has(Feature::StableJobs) { vec![ALPHA, "/v1.0/jobs"] } else { vec![ALPHA] }
}

async fn the_stable_route_is_there_since_1_18(world: &World) {
    let answer = world.post("/v1.0/jobs/x", &json!({})).await;
    if world.has(Feature::StableJobs) {
        assert_ne!(answer.status, 404, "{}", answer.text());
    } else {
        // How a client knows an old sidecar.
        assert_eq!(error_code(&answer.expect_status(404)), "ERR_DIRECT_INVOKE");
    }
}

async fn a_job_is_called_once_when_it_is_due(world: &World) {
    for route in routes(world) {
        let mark = world.mark();
        let asked = Instant::now();
        let answer =
            world.post(&format!("{route}/{mark}"), &json!({"dueTime": "2s", "data": {"text": "ü", "n": 1}})).await.expect_status(204);
        assert_eq!(answer.text(), "");
        let call = world.delivered(&mark, 1).await.remove(0);
        // Dapr counts in whole seconds and may be one early.
        let earliest = Duration::from_secs(if world.has(Feature::Embedded) { 2 } else { 1 });
        assert!(call.at - asked > earliest, "too early: {:?}", call.at - asked);
        assert_eq!((call.method.clone(), call.path.clone()), (Method::POST, format!("/job/{mark}")));
        if world.has(Feature::JobData) {
            assert_eq!(call.event, json!({"text": "ü", "n": 1}));
        } else {
            assert_eq!(call.event, json!({}), "1.14 wants a protobuf Any and loses plain JSON");
        }
        if let Some(token) = &world.target.app_token {
            assert_eq!(call.header("dapr-api-token"), *token);
        }
        later(world).await;
        assert_eq!(world.seen(&mark).len(), 1);
    }
}

async fn a_schedule_calls_until_its_repeats_are_spent(world: &World) {
    let mark = world.mark();
    let asked = Instant::now();
    world.post(&format!("{ALPHA}/{mark}"), &json!({"schedule": "@every 1s", "repeats": 3})).await.expect_status(204);
    let calls = world.delivered(&mark, 3).await;
    // A call may be late and the next one in time: what counts is when the job was asked for. Dapr may be a second early, as above.
    for (number, call) in (if world.has(Feature::Embedded) { 1.. } else { 0.. }).zip(&calls) {
        assert!(call.at - asked >= Duration::from_secs(number), "the call that is {number} s after: {:?}", call.at - asked);
    }
    later(world).await;
    assert_eq!(world.seen(&mark).len(), 3);
}

async fn a_job_is_read_and_deleted(world: &World) {
    for route in routes(world) {
        let (mark, asked, due) = in_time(Duration::from_secs(2), async |due| {
            let mark = world.mark();
            let path = format!("{route}/{mark}");
            let due_time = format!("{}s", due.as_secs());
            let asked = Instant::now();
            world.post(&path, &json!({"schedule": "@every 1h", "dueTime": due_time, "repeats": 5})).await.expect_status(204);
            let job: Value = world.get(&path).await.expect_status(200).json();
            assert_eq!(
                (job["schedule"].as_str(), job["repeats"].as_i64(), job["dueTime"].as_str()),
                (Some("@every 1h"), Some(5), Some(due_time.as_str())),
                "{job}"
            );
            assert!(job.get("name").is_none_or(|name| *name == *mark), "{job}");
            let answer = world.delete(&path).await.expect_status(204);
            let took = asked.elapsed();
            assert_eq!(answer.text(), "");
            let gone = world.get(&path).await.expect_status(500);
            assert_eq!(error_code(&gone), job_code(world, "SCHEDULER_GET_JOB"));
            world.delete(&path).await.expect_status(204);
            // Dapr may be a second early.
            if took + Duration::from_secs(1) < due { Ok((mark, asked, due)) } else { Err(took) }
        })
        .await;
        while asked.elapsed() < due {
            later(world).await;
        }
        later(world).await;
        assert!(world.seen(&mark).is_empty(), "a deleted job was called");
    }
}

async fn a_404_drops_a_call(world: &World) {
    let mark = world.mark();
    world.reply(&mark, [Reply::status(404)]);
    world.post(&format!("{ALPHA}/{mark}"), &json!({"dueTime": "0s"})).await.expect_status(204);
    world.delivered(&mark, 1).await;
    later(world).await;
    assert_eq!(world.seen(&mark).len(), 1);
}

async fn a_failed_call_is_made_again(world: &World) {
    let mark = world.mark();
    world.reply(&mark, [Reply::status(500), Reply::status(503)]);
    world.post(&format!("{ALPHA}/{mark}"), &json!({"dueTime": "0s"})).await.expect_status(204);
    // Without failure policies a call that fails is over.
    let calls = if world.has(Feature::JobRetries) { 3 } else { 1 };
    world.delivered(&mark, calls).await;
    later(world).await;
    assert_eq!(world.seen(&mark).len(), calls);
    if world.has(Feature::JobRetries) {
        let dropped = world.mark();
        world.reply(&dropped, [Reply::status(500)]);
        world.post(&format!("{ALPHA}/{dropped}"), &json!({"dueTime": "0s", "failurePolicy": {"drop": {}}})).await.expect_status(204);
        world.delivered(&dropped, 1).await;
        later(world).await;
        assert_eq!(world.seen(&dropped).len(), 1);
    }
}

async fn a_job_that_makes_no_sense_is_refused(world: &World) {
    let path = format!("{ALPHA}/{}", world.mark());
    // Dapr says 500 to a schedule that is none, which asks to try again what can never be accepted.
    let bad = if world.has(Feature::Embedded) { 400 } else { 500 };
    for (body, status, code) in [
        ("{}", 400, "SCHEDULER_SCHEDULE_EMPTY"),
        ("", 400, "SCHEDULER_SCHEDULE_EMPTY"),
        (r#"{"dueTime": "1h", "name": "other"}"#, 400, "SCHEDULER_JOB_NAME"),
        (r#"{"schedule": "whenever"}"#, bad, "SCHEDULER_SCHEDULE_JOB"),
        (r#"{"dueTime": "whenever"}"#, bad, "SCHEDULER_SCHEDULE_JOB"),
        (r#"{"dueTime": "1h", "repeats": 3}"#, bad, "SCHEDULER_SCHEDULE_JOB"),
        (r#"{"dueTime": "1h", "ttl": "2h"}"#, bad, "SCHEDULER_SCHEDULE_JOB"),
    ] {
        let answer = world.send(Method::POST, &path, &[("content-type", JSON)], body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text());
        assert_eq!(error_code(&answer), job_code(world, code), "{body}");
    }
    for body in ["{broken", "[]", r#"["1h"]"#, "7"] {
        let answer = world.send(Method::POST, &path, &[("content-type", JSON)], body).await.expect_status(400);
        assert_eq!(error_code(&answer), "ERR_MALFORMED_REQUEST", "{body}");
    }
}

async fn a_name_with_special_characters_comes_back_as_it_was(world: &World) {
    let name = format!("{}%2F1%20x:approval", world.mark());
    let mark = name.split('%').next().unwrap_or_default().to_owned();
    world.post(&format!("{ALPHA}/{name}"), &json!({"dueTime": "0s"})).await.expect_status(204);
    assert_eq!(world.delivered(&mark, 1).await[0].path, format!("/job/{name}"));
}

async fn a_job_is_replaced_only_when_told_to(world: &World) {
    let mark = world.mark();
    let path = format!("{ALPHA}/{mark}");
    world.post(&path, &json!({"dueTime": "1h"})).await.expect_status(204);
    if world.has(Feature::JobOverwrite) {
        let taken = world.post(&path, &json!({"dueTime": "0s"})).await;
        assert!(!taken.status.is_success(), "{}", taken.status);
        assert_eq!(error_code(&taken), job_code(world, "SCHEDULER_SCHEDULE_JOB"));
        assert!(!world.has(Feature::Embedded) || taken.status == 409, "{}", taken.status);
        world.post(&path, &json!({"dueTime": "0s", "overwrite": true})).await.expect_status(204);
    } else {
        world.post(&path, &json!({"dueTime": "0s"})).await.expect_status(204);
    }
    world.delivered(&mark, 1).await;
}
