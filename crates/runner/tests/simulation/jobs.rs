//! Durable timers: by name, firing from their due time on every 30 s until they are deleted, at whatever process lives.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::coverage::Met;
use crate::scenario::{S, Sabotage, virtual_time};
use crate::world::{Happening, Sim, World};

#[derive(Default)]
pub(crate) struct Jobs {
    /// By name: which making of it counts.
    timers: BTreeMap<String, u64>,
    made: u64,
}

impl Jobs {
    pub(crate) fn delete(&mut self, name: &str) {
        self.timers.remove(name);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.timers.keys()
    }
}

impl World {
    pub(crate) fn schedule(&mut self, name: &str, due: Timestamp) {
        self.jobs.made += 1;
        let making = self.jobs.made;
        self.jobs.timers.insert(name.to_owned(), making);
        // The clock of whoever fires may be ahead of the runners'.
        let ahead = if self.calm { 0 } else { self.rng.between(0, S) };
        self.at(virtual_time(due).saturating_sub(ahead), Happening::Fire(name.to_owned(), making));
    }

    pub(crate) fn fire(&mut self, sim: &Sim, name: String, making: u64) {
        if self.jobs.timers.get(&name) != Some(&making) {
            return;
        }
        let mut times = 1;
        if self.sabotage != Some(Sabotage::FireOnce) {
            self.after(30 * S, Happening::Fire(name.clone(), making));
        }
        if !self.calm && self.rng.chance(self.scenario.rates.duplicate) {
            times = 2;
        }
        for _ in 0..times {
            let Some((process, runner)) = self.somebody() else { return };
            self.met(Met::TimerFired);
            self.tell(|| format!("p{process} job {name} fires"));
            let (sim, name) = (sim.clone(), name.clone());
            self.spawn(
                process,
                Box::pin(async move {
                    let outcome = runner.timer(&name).await;
                    let mut world = sim.world();
                    world.tell(|| format!("p{process} job {name}: {outcome:?}"));
                    if outcome.is_ok() && !world.jobs.timers.contains_key(&name) {
                        world.met(Met::TimerSelfEnded);
                    }
                }),
            );
        }
    }
}
