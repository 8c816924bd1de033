//! The heart: `kill -9` at random moments under load, many times, and nothing is lost or doubled.
//!
//! Seeded: `FTE_KILL_SEED` repeats the moments of a run (not the machine's own timing), `FTE_KILLS` changes how many there are.

use std::time::Duration;

use crate::load::{Doors, Load};
use crate::trail::settled;
use crate::world::{Dice, Fte, setting};

/// Tasks posted at the same time.
const POSTERS: u64 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_doubles_nothing() {
    let kills = setting("FTE_KILLS", 30);
    let seed = setting("FTE_KILL_SEED", 0x5eed);
    let mut dice = Dice::new(seed);
    println!("seed: FTE_KILL_SEED={seed}");
    let mut fte = Fte::start_with(&["--quiet"], &[("FTE_RUNNER_APPROVAL_STAY_MS", "100")]).await;
    let mut load = Load::start(POSTERS, Doors::all(&fte.api()));
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(30 + dice.below(400))).await;
        fte.process.kill().await;
        load.close();
        fte.process.restart().await;
        load.open(Doors::all(&fte.api()));
    }
    let accepted = load.end().await;
    assert!(accepted.len() > kills as usize, "only {} tasks were accepted: no load", accepted.len());
    let trail = settled(&Doors::all(&fte.api()), &accepted).await.len();
    load.go_home().await;
    println!("kills: {kills}, accepted: {}, tasks in the trail: {trail}, lost: 0, doubled: 0", accepted.len());
}
