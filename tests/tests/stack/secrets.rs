//! No log says a secret: not of a service, not of a sidecar, not while what the secrets are for is away.

use std::process::Command;

use fte_testkit::{Client, Dir, built_binary};
use fte_tests::tasks::echo;
use serde_json::json;

use crate::story::ENV;
use crate::world::{API_TOKEN, APP_TOKEN, Store, Unusual, World, post_until_accepted, result};

/// A key for everything, in a file for the services.
fn key(dir: &Dir) -> (String, String) {
    let file = dir.join("keys.toml");
    let made = Command::new(built_binary()).args(["keys", "new", "ada", "--role", "admin", "--file"]).arg(&file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (String::from_utf8(made.stdout).unwrap().trim().to_owned(), file.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_says_a_secret() {
    const WRONG_KEY: &str = "fte_this-is-nobodys-key-and-still-nobodys-business";
    let dir = Dir::new();
    let (key, file) = key(&dir);
    let env = [ENV, &[("FTE_API_KEYS_FILE", file.as_str()), ("FTE_LOG", "debug")]].concat();
    let mut world =
        World::start_unusual(Store::Redis, Unusual { env: &env, secured: true, status_on_postgresql: true, ..Unusual::default() }).await;
    world.ready().await;
    let mut doors = world.doors();
    let bearer = format!("Bearer {key}");
    for door in [&mut doors.intake, &mut doors.runner, &mut doors.status, &mut doors.audit] {
        *door = door.clone().with_header("authorization", &bearer);
    }
    let task = post_until_accepted(&doors.intake, echo("with a key")).await;
    assert_eq!(result(&doors.status, &task).await["status"], "completed");
    doors.runner.post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(409);
    let nobody = Client::new(doors.intake.base()).with_header("authorization", &format!("Bearer {WRONG_KEY}"));
    nobody.post("/v1/tasks", &echo("without")).await.unwrap().expect_status(401);
    Client::new(world.pair("intake").sidecar.base()).get("/v1.0/metadata").await.unwrap().expect_status(401);

    // What fails says why; each of these is reached with a secret.
    for part in ["postgres", "redis", "kafka"] {
        world.infrastructure.kill(part);
        let answer = doors.intake.post("/v1/tasks", &echo("while something is away")).await;
        drop(answer.map(|answer| answer.status));
        world.infrastructure.start_again(part);
    }
    world.pair("intake").kill_sidecar_and_restart().await;
    world.pair("status").kill_service_and_restart().await;
    world.ready().await;
    let task = post_until_accepted(&doors.intake, echo("again")).await;
    assert_eq!(result(&doors.status, &task).await["status"], "completed");

    let mut secrets = vec![API_TOKEN.to_owned(), APP_TOKEN.to_owned(), key, WRONG_KEY.to_owned()];
    for (name, secret) in world.infrastructure.secrets() {
        // A connection string has one word that is secret.
        let word = secret.split(' ').find_map(|part| part.strip_prefix("password=")).unwrap_or(secret);
        assert!(word.len() >= 16, "{name} is too short to look for");
        secrets.push(word.to_owned());
    }
    for pair in &world.pairs {
        let own = world.infrastructure.secrets_of(&pair.id);
        secrets.extend(own.filter(|(name, _)| name.ends_with("PASSWORD")).map(|(_, secret)| secret.to_owned()));
    }
    assert_eq!(secrets.len(), 4 + 2 + 4);
    // They are looked for where something is said: of Kafka, which was away.
    let intake = world.pair("intake");
    assert!(format!("{}{}", intake.service.log(), intake.daprd.log()).contains("kafka"), "nothing is said of Kafka");
    for pair in &world.pairs {
        for (whose, log) in [("service", pair.service.log()), ("sidecar", pair.daprd.log())] {
            assert!(!log.is_empty(), "the {whose} of {} says nothing", pair.id);
            for secret in &secrets {
                let said = log.lines().find(|line| line.contains(secret.as_str()));
                assert_eq!(said, None, "the {whose} of {} says a secret", pair.id);
            }
        }
    }
}
