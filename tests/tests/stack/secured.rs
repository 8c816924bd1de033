//! Kafka with SASL/SCRAM over TLS and access rules: what goes wrong there is said clearly, costs nothing, and is over when it is mended.

use fte_testkit::eventually_within;
use fte_tests::tasks::echo;

use crate::story::{EACH, ENV, Story};
use crate::world::{START_PATIENCE, Store, Unusual, World};

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
