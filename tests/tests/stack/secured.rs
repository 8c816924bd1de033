//! Kafka with SASL/SCRAM over TLS and access rules: what goes wrong there is said clearly, costs nothing, and is over when it is mended.

use fte_testkit::eventually_within;
use fte_tests::tasks::{echo, look};
use fte_tests::trail::settled;

use crate::front::Front;
use crate::story::{EACH, ENV, Story, counted};
use crate::world::{START_PATIENCE, Store, Unusual, World, post_until_accepted, result};

const PASSWORD: &str = "FTE_SECRET_KAFKA_PASSWORD";
const TRIGGERS: &str = "fte.triggers.inbound";

impl Story {
    /// Waits until intake takes nothing, and says so with 503 and on `/ready` in this word.
    async fn intake_refuses_and_says(&mut self, word: &str) {
        let pair = self.world.pair("intake");
        eventually_within(START_PATIENCE, || async {
            let answer = pair.api.post("/v1/tasks", &echo("is anybody there?")).await.map_err(|error| error.to_string())?;
            if answer.status != 503 {
                return Err(format!("{}: {}", answer.status, answer.text()));
            }
            let ready = pair.app.get("/ready").await.map_err(|error| error.to_string())?;
            if ready.status == 503 && ready.text().contains(word) { Ok(()) } else { Err(ready.text()) }
        })
        .await;
    }

    /// Waits until the log of intake's sidecar, from this many bytes on, has one of these.
    async fn sidecar_says(&mut self, from: usize, words: &[&str]) {
        let daprd = &self.world.pair("intake").daprd;
        eventually_within(START_PATIENCE, || async {
            let log = daprd.log();
            let new = &log[from..];
            if words.iter().any(|word| new.contains(word)) { Ok(()) } else { Err(new.to_owned()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_an_expired_certificate_and_a_denied_topic_are_named_and_lose_nothing() {
    let world = World::start_unusual(Store::Redis, Unusual { env: ENV, secured: true, ..Unusual::default() }).await;
    world.ready().await;
    let mut story = Story::on(world, EACH, 4);
    story.flows().await;

    // A password that the broker does not know: the sidecar ends, and says why.
    let right = story.world.infrastructure.secrets_of("fte-intake").find(|(name, _)| *name == PASSWORD).unwrap().1.to_owned();
    let pair = story.world.pair("intake");
    let from = pair.daprd.log().len();
    pair.daprd.set_env(PASSWORD, "not this one");
    pair.daprd.start().await;
    story.sidecar_says(from, &["SASL"]).await;
    story.intake_refuses_and_says("sidecar").await;
    let pair = story.world.pair("intake");
    pair.daprd.set_env(PASSWORD, right);
    pair.kill_sidecar_and_restart().await;
    story.flows().await;

    // The broker's certificate has expired.
    let from = story.world.pair("intake").daprd.log().len();
    story.world.infrastructure.ask(&["certificate", "-1"]);
    story.world.infrastructure.kill("kafka");
    story.world.infrastructure.start_again("kafka");
    story.intake_refuses_and_says("certificate").await;
    let service = story.world.pair("intake").service.log();
    assert!(service.contains("certificate"), "{service}");
    println!(
        "of the certificate the sidecar says: {}",
        story.world.pair("intake").daprd.log()[from..].lines().next_back().unwrap_or_default()
    );
    story.world.infrastructure.ask(&["certificate", "30"]);
    story.world.infrastructure.kill("kafka");
    story.world.infrastructure.start_again("kafka");
    story.flows().await;

    // The rules of the broker do not name intake any more.
    let rule = ["--allow-principal", "User:fte-intake", "--operation", "Write", "--topic", TRIGGERS];
    story.world.infrastructure.ask(&[&["kafka-acls", "--remove", "--force"][..], &rule].concat());
    story.intake_refuses_and_says(TRIGGERS).await;
    let service = story.world.pair("intake").service.log();
    assert!(service.contains("access rules"), "{service}");
    story.world.infrastructure.ask(&["topics"]);
    story.flows().await;
    story.ends_well().await;
}

/// The rule of the broker by which an app may do this.
fn rule<'a>(app: &'a str, operation: &'a str, kind: &'a str, name: &'a str) -> [&'a str; 6] {
    ["--allow-principal", app, "--operation", operation, kind, name]
}

impl World {
    /// Takes a right from an app, and has it start anew without it.
    async fn takes_away(&mut self, service: &str, rule: [&str; 6]) {
        self.infrastructure.ask(&[&["kafka-acls", "--remove", "--force"][..], &rule].concat());
        let pair = self.pair(service);
        pair.daprd.start().await;
        pair.service.start().await;
    }

    /// The bytes of the log of a service's sidecar.
    fn said_by_sidecar(&mut self, service: &str) -> String {
        self.pair(service).daprd.log()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_or_write_is_found_by_the_doctor_and_gets_everything_once_it_may() {
    let mut world = World::start_unusual(Store::Redis, Unusual { env: ENV, secured: true, ..Unusual::default() }).await;
    world.ready().await;
    let doors = world.doors();
    let front = Front::of(&world).await;
    let mut tasks = vec![post_until_accepted(&doors.intake, echo("before")).await];
    assert_eq!(result(&doors.status, &tasks[0]).await["status"], "completed");

    // Status may not read one of its topics, and audit not its group.
    let from = [world.said_by_sidecar("status").len(), world.said_by_sidecar("audit").len()];
    world.takes_away("status", rule("User:fte-status", "Read", "--topic", "fte.results.completed")).await;
    world.takes_away("audit", rule("User:fte-audit", "Read", "--group", "fte-audit")).await;
    world.pair("status").ready().await;
    tasks.push(post_until_accepted(&doors.intake, echo("while some are refused")).await);
    let audit = world.pair("audit").api.clone();
    eventually_within(START_PATIENCE, || async {
        let lacks = look(&audit, "/v1/services/audit").await?["lacks"].to_string();
        if lacks.contains("audit/deliveries") { Ok(()) } else { Err(lacks) }
    })
    .await;
    let found = front.doctor_finds(&[], |found| {
        found.names("status", &["fte.triggers.inbound", "fte-status", "Read", "log of its sidecar"])
            && found.names("audit", &["audit/deliveries", "nothing was delivered", "access rules", "group"])
            && found.names("probe trail", &["the audit log lacks everything"])
    });
    assert!(!found.await.passed);
    // What the alert FteNothingArrives asks for.
    for service in [&doors.status, &audit] {
        assert_eq!(counted(service, "kf_messages_consumed_total{topic=\"fte.triggers.inbound\"", |_| true).await, 0, "{}", service.base());
    }
    // What it has can be read all the same.
    audit.get("/ready").await.unwrap().expect_status(200);
    audit.get(&format!("/v1/audit/tasks/{}", tasks[0])).await.unwrap().expect_status(200);
    for (service, from) in ["status", "audit"].into_iter().zip(from) {
        let said = world.said_by_sidecar(service);
        assert!(said[from..].contains("not authorized"), "{service}: {}", &said[from..]);
    }

    // The rules are as they were.
    world.infrastructure.ask(&["topics"]);
    world.ready().await;
    tasks.push(post_until_accepted(&doors.intake, echo("after")).await);
    for task in &tasks {
        assert_eq!(result(&doors.status, task).await["status"], "completed");
    }
    settled(&doors, &tasks).await;

    // The runner may not write where the states go.
    let write = rule("User:fte-runner", "Write", "--topic", "fte.status.updates");
    world.infrastructure.ask(&[&["kafka-acls", "--remove", "--force"][..], &write].concat());
    front.doctor_finds(&[], |found| found.names("runner", &["fte.status.updates", "access rules"])).await;
    world.infrastructure.ask(&["topics"]);
    world.ready().await;
    front.finds_nothing_wrong(&[]).await;
    settled(&doors, &tasks).await;

    // What nobody has handed on yet shows in the broker's rules.
    let listed = world.infrastructure.data("acls");
    let list = || std::fs::write(&listed, world.infrastructure.ask(&["kafka-acls", "--list"])).unwrap();
    let acls = ["--acls", listed.to_str().unwrap()];
    list();
    assert!(front.finds_nothing_wrong(&acls).await.well().contains(&"access rules"));
    world
        .infrastructure
        .ask(&[&["kafka-acls", "--remove", "--force"][..], &rule("User:fte-runner", "Write", "--topic", "fte.handoffs.demo")].concat());
    list();
    let found = front.doctor(&acls).await;
    assert_eq!(found.bad().len(), 1, "{:?}", found.bad());
    assert!(found.names("runner", &["may not Write fte.handoffs.demo"]));
}
