//! The topics of the catalogue on the real broker, and who may do what with them there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use fte_events::catalogue;
use fte_events::handoffs::built_in_agents;
use fte_testkit::{ClientError, Response, built_binary, eventually_within};
use fte_tests::infrastructure::Infrastructure;
use fte_tests::trail::entries;
use serde_json::{Value, json};

use crate::grpc;
use crate::run_file::SidecarPorts;
use crate::world::{API_TOKEN, START_PATIENCE, Store, World};

#[tokio::test]
async fn the_script_of_fte_topics_makes_each_with_its_partitions_and_retention() {
    let infrastructure = Infrastructure::start_only(&["kafka"]).await;
    infrastructure.ask(&["topics", "--script"]);
    // Twice is as good as once.
    infrastructure.ask(&["topics", "--script"]);
    let described = infrastructure.ask(&["kafka-topics", "--describe"]);
    let field = |line: &str, name: &str| {
        line.split('\t').find_map(|part| part.trim().strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {line}")).trim().to_owned()
    };
    let found: BTreeMap<String, [String; 3]> = described
        .lines()
        .filter(|line| line.contains("TopicId:"))
        .map(|line| {
            let configs = field(line, "Configs:");
            let config = |name: &str| configs.split(',').find_map(|config| config.strip_prefix(name)).unwrap_or("the broker's").to_owned();
            (field(line, "Topic:"), [field(line, "PartitionCount:"), config("retention.ms="), config("segment.ms=")])
        })
        .collect();
    let expected: BTreeMap<_, _> = catalogue::topics(&built_in_agents())
        .into_iter()
        .map(|topic| {
            (topic.name.into_owned(), [topic.partitions.to_string(), topic.retention_ms.to_string(), topic.segment_ms.to_string()])
        })
        .collect();
    assert_eq!(found, expected);

    // What the doctor makes of what Kafka's own tool says.
    assert_eq!(missed(&described), Vec::<String>::new());
    let lacks: Vec<&str> = described.lines().filter(|line| !line.contains("fte.results.completed")).collect();
    let missed = missed(&lacks.join("\n"));
    assert!(missed.len() == 1 && missed[0].contains("fte.results.completed") && missed[0].contains("fte topics"), "{missed:?}");
}

/// What `fte doctor` finds wrong with the topics in such a text.
fn missed(described: &str) -> Vec<String> {
    let arguments = ["doctor", "--url", "http://127.0.0.1:1", "--topics", "-", "--json"];
    let mut doctor = Command::new(built_binary()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    doctor.stdin.take().unwrap().write_all(described.as_bytes()).unwrap();
    let output = doctor.wait_with_output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = found["items"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["check"] == "topics"), "{findings:?}");
    findings.iter().filter(|finding| finding["check"] == "topics" && finding["health"] == "bad").map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_topic_takes_events_from_its_publishers_alone_and_gives_them_to_all_its_subscribers() {
    let world = World::start(Store::Redis).await;
    let topics: Vec<_> = catalogue::topics(&built_in_agents()).into_iter().filter(|topic| !topic.later).collect();
    let mut published = BTreeMap::new();
    for topic in &topics {
        let mut ids = BTreeSet::new();
        for pair in &world.pairs {
            let service = pair.id.trim_start_matches("fte-");
            let id = format!("{}-by-{service}", topic.name);
            let event = json!({"specversion": "1.0", "id": id, "source": "elsewhere", "type": "elsewhere.happened",
                "datacontenttype": "application/json", "data": {"task": "look into it"}});
            let path = format!("/v1.0/publish/pubsub/{}", topic.name);
            // A topic that was just made may not have found its leader: Kafka says so, and whoever publishes tries again.
            let answer = eventually_within(START_PATIENCE, || async {
                let answer = pair.sidecar.post_as(&path, "application/cloudevents+json", &event).await.unwrap();
                if !answer.status.is_server_error() { Ok(answer) } else { Err(answer.text()) }
            })
            .await;
            let may = topic.publishers.contains(&service);
            assert_eq!(answer.status, if may { 204 } else { 403 }, "{service} on {}: {}", topic.name, answer.text());
            if may {
                ids.insert(id);
            }
        }
        published.insert(topic.name.to_string(), ids);
    }
    let audit = world.doors().audit;
    eventually_within(START_PATIENCE, || async {
        let mut recorded: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in entries(&audit).await.iter().filter(|entry| entry["source"] == "elsewhere") {
            recorded.entry(entry["topic"].as_str().unwrap().to_owned()).or_default().insert(entry["id"].as_str().unwrap().to_owned());
        }
        if recorded == published { Ok(()) } else { Err(recorded) }
    })
    .await;
    for topic in &topics {
        for subscriber in topic.subscribers {
            let pair = world.pairs.iter().find(|pair| pair.id == format!("fte-{subscriber}")).unwrap();
            let expected = u64::try_from(published[&*topic.name].len()).unwrap();
            eventually_within(START_PATIENCE, || async {
                let metrics = pair.api.get("/metrics").await.unwrap().expect_status(200).text();
                let counts = metrics.lines().filter(|line| {
                    line.starts_with(&format!("kf_messages_consumed_total{{topic=\"{}\",", topic.name)) && !line.contains("\"retry\"")
                });
                let consumed: u64 = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
                if consumed >= expected { Ok(()) } else { Err(format!("{subscriber} has {consumed} of {expected} on {}", topic.name)) }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_does_only_what_its_service_needs() {
    let world = World::start(Store::Redis).await;
    for pair in &world.pairs {
        let get = |path: &'static str| async move { pair.sidecar.get(path).await.unwrap() };
        let metadata: Value = get("/v1.0/metadata").await.expect_status(200).json();
        let components: BTreeSet<&str> =
            metadata["components"].as_array().unwrap().iter().map(|component| component["name"].as_str().unwrap()).collect();
        let keeps_state = ["fte-intake", "fte-runner"].contains(&pair.id.as_str());
        let expected: &[&str] = if keeps_state { &["pubsub", "secretstore", "statestore"] } else { &["pubsub", "secretstore"] };
        assert_eq!(components, expected.iter().copied().collect(), "{}", pair.id);
        // Nothing is subscribed to that the app may not have, or that is only planned.
        let own = catalogue::subscribed_by(pair.id.trim_start_matches("fte-"), &built_in_agents());
        let own: BTreeSet<&str> = own.iter().map(|topic| &*topic.name).collect();
        eventually_within(START_PATIENCE, || async {
            let metadata: Value = get("/v1.0/metadata").await.expect_status(200).json();
            let subscriptions = metadata["subscriptions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let subscribed: BTreeSet<&str> = subscriptions.iter().map(|subscription| subscription["topic"].as_str().unwrap()).collect();
            if subscribed == own { Ok(()) } else { Err(format!("{}: {subscribed:?}", pair.id)) }
        })
        .await;
        assert!(!pair.daprd.log().contains("not allowed"), "{}", pair.daprd.log_tail());
        // Neither the secrets of the components, nor another app's events and jobs, nor the sidecar's end.
        get("/v1.0/secrets/secretstore/REDIS_PASSWORD").await.expect_status(404);
        get("/v1.0/secrets/secretstore/bulk").await.expect_status(404);
        // To itself a service may say what it likes.
        if pair.id != "fte-runner" {
            let at_runner = |path: &str| format!("/v1.0/invoke/fte-runner/method/{path}");
            reached(|| async { pair.sidecar.get(&at_runner("dapr/subscribe")).await }).await.expect_status(403);
            for forged in ["events/fte.triggers.inbound", "job/anything"] {
                reached(|| async { pair.sidecar.post(&at_runner(forged), &json!({})).await }).await.expect_status(403);
            }
        }
        pair.sidecar.post("/v1.0/shutdown", &json!({})).await.unwrap().expect_status(404);
        // Nor any of it over gRPC.
        for method in [
            "SetMetadata",
            "SaveState",
            "GetSecret",
            "PublishEvent",
            "ScheduleJobAlpha1",
            "InvokeService",
            "InvokeActor",
            "TryLockAlpha1",
            "StartWorkflowBeta1",
            "Shutdown",
        ] {
            let method = format!("dapr.proto.runtime.v1.Dapr/{method}");
            for token in [Some(API_TOKEN), None] {
                let answer = grpc::call(pair.ports.grpc, &method, token, b"");
                assert_eq!(answer.status, grpc::UNIMPLEMENTED, "{method} of {}: {}", pair.id, answer.said);
            }
        }
        // The one that a rule opens, so that there is a rule, can do nothing, and is for nobody without the token.
        let unlock = |token| grpc::call(pair.ports.grpc, "dapr.proto.runtime.v1.Dapr/UnlockAlpha1", token, b"");
        assert_eq!(unlock(None).status, grpc::UNAUTHENTICATED);
        let answer = unlock(Some(API_TOKEN));
        assert_eq!(answer.status, grpc::FAILED_PRECONDITION, "{}: {}", pair.id, answer.said);
        // No rule reaches the service for workflow engines; it has nowhere to keep one.
        let workflow = [grpc::field(1, b"01"), grpc::field(2, b"anything")].concat();
        let answer = grpc::call(pair.ports.grpc, "TaskHubSidecarService/StartInstance", Some(API_TOKEN), &workflow);
        assert_ne!(answer.status, grpc::OK, "{}: {}", pair.id, answer.said);
        // Nobody on another machine. Between sidecars nobody asks for a token: whoever reaches that port can forge events and jobs.
        let SidecarPorts { http, grpc, internal_grpc, .. } = pair.ports;
        for port in [http, grpc, internal_grpc] {
            assert_eq!(listening(port), ["127.0.0.1"], "{port} of {}: {:?}", pair.id, pair.ports);
        }
        // Nobody without the token.
        let stranger = fte_testkit::Client::new(pair.sidecar.base());
        stranger.get("/v1.0/metadata").await.unwrap().expect_status(401);
    }
}

/// The addresses on which somebody listens at this port of this machine, as the kernel has them.
fn listening(port: u16) -> Vec<String> {
    const LISTENS: &str = "0A";
    let mut addresses = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, at) = fields[1].split_once(':').unwrap();
            if fields[3] == LISTENS && u16::from_str_radix(at, 16) == Ok(port) {
                let octets = u32::from_str_radix(address, 16).map(|bits| std::net::Ipv4Addr::from(bits.swap_bytes()).to_string());
                addresses.push(octets.unwrap_or_else(|_| address.to_owned()));
            }
        }
    }
    addresses
}

/// What the runner answers. Sidecars find each other by multicast, which another world on this machine takes part in: for as long as a name is remembered there, a call
/// may go to a runner that was killed in that one.
async fn reached<F: Future<Output = Result<Response, ClientError>>>(call: impl Fn() -> F) -> Response {
    eventually_within(START_PATIENCE, || async {
        let answer = call().await.map_err(|error| error.to_string())?;
        if answer.status.is_server_error() { Err(answer.text()) } else { Ok(answer) }
    })
    .await
}
