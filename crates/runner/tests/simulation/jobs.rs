//! Durable timers: by name, firing from their due time on every 30 s until they are deleted, at whatever process lives.
//!
//! As in Dapr 1.14, one that is firing cannot be deleted before whoever it fired at has answered: a handler that waits for that waits for itself.

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
    /// Handlers that have not answered yet, by the name of each timer that has ever fired.
    firing: BTreeMap<String, u32>,
}

/// A handler at work; its answer, or its end without one, ends this.
struct Firing {
    sim: Sim,
    name: String,
}

impl Firing {
    fn begin(sim: &Sim, world: &mut World, name: &str) -> Self {
        *world.jobs.firing.entry(name.to_owned()).or_default() += 1;
        Self { sim: sim.clone(), name: name.to_owned() }
    }
}

impl Drop for Firing {
    fn drop(&mut self) {
        let mut world = self.sim.world();
        if let Some(handlers) = world.jobs.firing.get_mut(&self.name) {
            *handlers -= 1;
        }
    }
}

impl Jobs {
    /// Gives whether it had fired before.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.timers.remove(name).is_some() && self.firing.contains_key(name)
    }

    pub(crate) fn is_firing(&self, name: &str) -> bool {
        self.firing.get(name).is_some_and(|handlers| *handlers > 0)
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
            let firing = Firing::begin(&sim, self, &name);
            self.spawn(
                process,
                Box::pin(async move {
                    let outcome = runner.timer(&name).await;
                    drop(firing);
                    sim.world().tell(|| format!("p{process} job {name}: {outcome:?}"));
                }),
            );
        }
    }
}
