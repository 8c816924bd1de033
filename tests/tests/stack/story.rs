//! A world under load, that loses parts by chance, and is held to the invariants at the end.

use std::time::Duration;

use fte_testkit::{Client, eventually_within};
use fte_tests::load::{Doors, Load};
use fte_tests::tasks::{Dice, setting};
use fte_tests::trail::settled;

use crate::world::{Store, World};

/// The one process that holds this seat is taken over at once; who waits for an approval is soon parked.
pub(crate) const ENV: &[(&str, &str)] = &[("FTE_RUNNER_SEAT", "pod-0"), ("FTE_RUNNER_APPROVAL_STAY_MS", "100")];
const POSTERS: u64 = 4;
/// Two cores carry this beside a broker and a dozen other processes.
pub(crate) const EACH: Duration = Duration::from_millis(200);
/// How many tasks must be accepted between two faults: the load has to go on by itself after each.
const BETWEEN: usize = 10;
/// How long that may take: clients of a broker that was away try again at intervals.
const RECOVERY: Duration = Duration::from_secs(90);

/// People at work on a stack, and chance.
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) load: Load,
    pub(crate) dice: Dice,
}

impl Story {
    pub(crate) async fn start(store: Store) -> Self {
        Self::on(World::start_with(store, ENV).await, EACH, POSTERS)
    }

    /// So many people at work on a world, each posting at most so often.
    pub(crate) fn on(world: World, every: Duration, posters: u64) -> Self {
        let doors = world.doors();
        Self::through(doors, world, every, posters)
    }

    /// [`Story::on`] by other ways than straight to the services.
    pub(crate) fn through(doors: Doors, world: World, every: Duration, posters: u64) -> Self {
        let seed = setting("FTE_STACK_SEED", 7);
        println!("seed: FTE_STACK_SEED={seed}");
        let load = Load::start_paced(every, posters, doors);
        Self { world, load, dice: Dice::new(seed) }
    }

    /// Waits until tasks flow, and then for a moment that nobody can foresee.
    pub(crate) async fn flows(&mut self) {
        let before = self.load.accepted();
        let load = &self.load;
        eventually_within(RECOVERY, || async {
            let more = load.accepted() - before;
            if more >= BETWEEN { Ok(()) } else { Err(format!("{more} more tasks accepted")) }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(self.dice.below(200))).await;
    }

    /// Kills a part, which comes back after a second or two.
    pub(crate) async fn loses(&mut self, part: &str) {
        self.world.infrastructure.kill(part);
        tokio::time::sleep(Duration::from_millis(500 + self.dice.below(1500))).await;
        self.world.infrastructure.start_again(part);
    }

    /// Ends the load, and holds all that happened to the invariants.
    pub(crate) async fn ends_well(self) {
        self.ends_well_with(Vec::new()).await;
    }

    /// [`Story::ends_well`], with what others had accepted.
    pub(crate) async fn ends_well_with(mut self, others: Vec<String>) {
        self.flows().await;
        let mut accepted = self.load.end().await;
        accepted.extend(others);
        let told = settled(&self.world.doors(), &accepted).await;
        self.load.go_home().await;
        println!("accepted: {}, tasks in the trail: {}, lost: 0, doubled: 0", accepted.len(), told.len());
    }
}

/// The sum of a counter over its labels, of those lines that are wanted.
pub(crate) async fn counted(api: &Client, counter: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let metrics = api.get("/metrics").await.unwrap().expect_status(200).text();
    let lines = metrics.lines().filter(|line| line.starts_with(counter) && wanted(line));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}
