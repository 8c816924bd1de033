use fte_bus::{Job, Jobs, Sidecar, SidecarConfig};
use fte_testkit::{Answer, FakeApp};
use serde_json::{Value, json};

/// A sidecar that has jobs on the alpha route, and answers this to the stable one.
async fn without_the_stable_route(answer: fn() -> Answer) -> FakeApp {
    FakeApp::start(json!([]), move |received| async move {
        if received.path.starts_with("/v1.0/jobs/") { answer() } else { Answer::status(204) }
    })
    .await
}

async fn uses_the_alpha_route_and_remembers(fake: &FakeApp) {
    let jobs = Jobs::new(Sidecar::new(SidecarConfig::at_port(fake.port())).unwrap());
    let job = Job { due: "2030-01-01T00:00:00Z".parse().unwrap(), every: None, ttl: None };
    for _ in 0..3 {
        jobs.schedule("one", &job).await.unwrap();
        jobs.delete("one").await.unwrap();
    }
    let calls = |route: &str| fake.received().iter().filter(|received| received.path.starts_with(route)).count();
    assert_eq!((calls("/v1.0/jobs/"), calls("/v1.0-alpha1/jobs/")), (1, 6));
}

fn not_found(body: &Value) -> Answer {
    Answer { status: http::StatusCode::NOT_FOUND, ..Answer::json(body) }
}

#[tokio::test]
async fn a_sidecar_that_takes_jobs_for_an_invocation_is_asked_once_and_remembered() {
    let fake = without_the_stable_route(|| not_found(&json!({ "errorCode": "ERR_DIRECT_INVOKE", "message": "no app id" }))).await;
    uses_the_alpha_route_and_remembers(&fake).await;
}

#[tokio::test]
async fn a_sidecar_that_allows_no_invocation_is_asked_once_and_remembered() {
    // What Dapr 1.14 answers on a route it does not know when its configuration closes service invocation: "404 page not found".
    let fake = without_the_stable_route(|| not_found(&json!("404 page not found"))).await;
    uses_the_alpha_route_and_remembers(&fake).await;
}
