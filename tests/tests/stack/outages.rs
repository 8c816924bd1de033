//! What is broken for longer than a restart takes: a broker that hangs or has no room, a topic that is not there, a clock that jumps, chance for minutes.

use std::io::Write;
use std::time::Duration;

use fte_testkit::eventually_within;
use fte_tests::tasks::{echo, post, setting};

use crate::story::{EACH, ENV, Story};
use crate::world::{CLOCKS, START_PATIENCE, Store, Unusual, World, post_until_accepted, result};

const PAUSED: Duration = Duration::from_secs(60);

impl Story {
    /// The broker is there and does nothing, for longer than any time limit.
    async fn broker_hangs_for_a_minute(&self) {
        self.world.infrastructure.pause("kafka");
        let resume = tokio::time::Instant::now() + PAUSED;
        let answer = self.world.doors().intake.post("/v1/tasks", &echo("while nothing moves")).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.headers.contains_key("retry-after"));
        tokio::time::sleep_until(resume).await;
        self.world.infrastructure.resume("kafka");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_named_and_once_it_is_made_everything_goes_on() {
    let missing = "fte.status.updates";
    let world = World::start_unusual(Store::Redis, Unusual { env: ENV, lacks: &[missing], ..Unusual::default() }).await;
    let doors = world.doors();
    // Intake can do its part: the request is with the broker.
    let task = post_until_accepted(&doors.intake, echo("look into it")).await;
    // Whoever publishes there says what is wrong, and what to do.
    let runner = world.pairs.iter().find(|pair| pair.id == "fte-runner").unwrap();
    eventually_within(START_PATIENCE, || async {
        let ready = runner.app.get("/ready").await.map_err(|error| error.to_string())?;
        let text = ready.text();
        if ready.status == 503 && text.contains(missing) && text.contains("fte topics") { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(runner.service.log().contains(missing), "{}", runner.service.log_tail());
    // Whoever subscribes to it gets nothing at all any more, and its sidecar says why.
    let audit = world.pairs.iter().find(|pair| pair.id == "fte-audit").unwrap();
    assert!(audit.daprd.log().contains("does not exist"), "{}", audit.daprd.log_tail());

    world.infrastructure.ask(&["topics"]);
    world.ready().await;
    assert_eq!(result(&doors.status, &task).await["status"], "completed");
    fte_tests::trail::settled(&doors, &[task]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_disk_is_full_loses_nothing_that_it_took_and_intake_says_that_it_takes_nothing() {
    assert!(
        rustix::process::geteuid().is_root(),
        "only root can give the broker a small disk: tell this story as root, or leave it out with `--skip a_broker_whose_disk_is_full`"
    );
    let unusual = Unusual { env: ENV, stack: &["--kafka-disk-mb", "128"], ..Unusual::default() };
    let world = World::start_unusual(Store::Redis, unusual).await;
    world.ready().await;
    let mut story = Story::on(world, EACH, 4);
    story.flows().await;
    let ballast = story.world.infrastructure.data("kafka").join("ballast");
    // To the last byte, again and again: what the broker lets go of is taken, too.
    let fill = || {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&ballast).unwrap();
        for bytes in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; bytes]).is_ok() {}
        }
    };
    let intake = story.world.doors().intake;
    eventually_within(START_PATIENCE, || async {
        fill();
        let answer = intake.post("/v1/tasks", &echo("is there room?")).await.map_err(|error| error.to_string())?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    std::fs::remove_file(&ballast).unwrap();
    // Kafka gives up a disk that has failed it; whoever made room starts it again.
    story.world.infrastructure.kill("kafka");
    story.world.infrastructure.start_again("kafka");
    story.ends_well().await;
}

/// What stands between a process and the time of day, where Debian puts it.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.expect("apt-get install libfaketime").to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_an_hour_and_back_loses_nothing_and_doubles_nothing() {
    let library = faketime();
    let env: Vec<_> = CLOCKS.into_iter().chain([("LD_PRELOAD", library.as_str())]).collect();
    let mut story = Story::on(World::start_with(Store::Redis, &[ENV, &env].concat()).await, EACH, 4);
    for service in ["runner", "status", "audit"] {
        for offset_s in [3600, -3600, 0] {
            story.flows().await;
            story.world.set_clock(service, offset_s).await;
        }
        story.flows().await;
    }
    // What is asked for "in a second" by a clock that is an hour ahead is due in an hour: nobody asks for that here.
    story.load.pause().await;
    for offset_s in [3600, -3600, 0] {
        story.world.set_clock("intake", offset_s).await;
        let doors = story.world.doors();
        // A thread that has not looked at the clock for a moment still goes by the old time.
        eventually_within(START_PATIENCE, || async {
            let task = post(&doors.intake, echo("what time is it?")).await;
            assert_eq!(result(&doors.status, &task).await["status"], "completed");
            let task: serde_json::Value = doors.status.get(&format!("/v1/tasks/{task}")).await.unwrap().expect_status(200).json();
            let created: jiff::Timestamp = task["created_at"].as_str().unwrap().parse().unwrap();
            let off_s = (created - jiff::Timestamp::now()).get_seconds() - offset_s;
            if off_s.abs() < 300 { Ok(()) } else { Err(task) }
        })
        .await;
    }
    story.load.open(story.world.doors());
    story.ends_well().await;
}

/// A broker that hangs for a minute, and then faults by chance, one after the other: two minutes in all; with `FTE_STACK_SOAK_S=1800` half an hour, with a
/// fault each minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_for_a_minute_and_faults_by_chance_lose_nothing_and_double_nothing() {
    const SERVICES: [&str; 4] = ["intake", "runner", "status", "audit"];
    const PARTS: [&str; 4] = ["kafka", "redis", "scheduler", "placement"];
    let seconds = setting("FTE_STACK_SOAK_S", 120);
    let between = if seconds > 300 { Duration::from_secs(60) } else { Duration::from_secs(20) };
    // Half of what is sustained.
    let each = Duration::from_millis(4 * 1000 / setting("FTE_STACK_SOAK_TASKS_PER_S", 20).max(1));
    let mut story = Story::on(World::start_with(Store::Redis, ENV).await, each, 4);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    story.flows().await;
    story.broker_hangs_for_a_minute().await;
    let mut next = tokio::time::Instant::now();
    let mut told = Vec::new();
    while next < end {
        story.flows().await;
        let place = usize::try_from(story.dice.below(4)).unwrap();
        let (kind, what) = match story.dice.below(4) {
            0 => ("service", SERVICES[place]),
            1 => ("sidecar", SERVICES[place]),
            2 => ("hang", PARTS[place]),
            _ => ("part", PARTS[place]),
        };
        told.push(format!("{kind} {what}"));
        println!("{kind} {what}");
        match kind {
            "service" => story.world.pair(what).kill_service_and_restart().await,
            "sidecar" => story.world.pair(what).kill_sidecar_and_restart().await,
            "hang" => {
                story.world.infrastructure.pause(what);
                tokio::time::sleep(Duration::from_millis(3000 + story.dice.below(9000))).await;
                story.world.infrastructure.resume(what);
            }
            _ => story.loses(what).await,
        }
        next = (next + between).max(tokio::time::Instant::now());
        tokio::time::sleep_until(next).await;
    }
    story.ends_well().await;
    println!("faults: {}", told.join(", "));
}
