//! The runner's protocol under deterministic simulation.
//!
//! Instances, store, broker, jobs, agents, people and clocks are simulated in one thread; the protocol is the real code. A seed decides everything: which
//! tasks, which faults, when and in which order. Faults are crashes, freezes, lost answers, late writes, duplicates and more, at every await. After a
//! while they end, and then everything must come to rest with every promise kept; many are checked at every write besides.
//!
//! * `cargo test --profile bench -p fte-runner --test simulation` runs the schedules; `FTE_SIM_SCHEDULES` says how many.
//! * `FTE_SIM_SEED=<n>` replays one and prints each step.
//! * `FTE_SIM_WITHOUT=freeze,crash`, `FTE_SIM_TASKS=1`, `FTE_SIM_PROCESSES=1` leave out what a failure does not need.

mod agents;
mod broker;
mod calls;
mod check;
mod coverage;
mod executor;
mod handoffs;
mod jobs;
mod letters;
mod people;
mod ports;
mod rng;
mod run;
mod scenario;
mod store;
mod world;

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coverage::Coverage;
use run::run;
use scenario::{Fault, Sabotage, Without};

#[expect(clippy::print_stdout, reason = "a replay is read on the terminal")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "a test's own switches, not the configuration of a service")]
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    text(name).and_then(|value| value.parse().ok())
}

/// The profile this was built with, by the name of its directory.
fn profile() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let directory = program.parent().and_then(|deps| deps.parent()).and_then(|profile| profile.file_name());
    directory.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Few without optimisation, where they are slow.
fn schedules() -> u64 {
    variable("FTE_SIM_SCHEDULES").unwrap_or_else(|| if profile() == "debug" { 1_000 } else { 50_000 })
}

fn without() -> Without {
    let faults = text("FTE_SIM_WITHOUT").unwrap_or_default();
    let faults = faults.split(',').filter(|name| !name.is_empty());
    Without {
        faults: faults.map(|name| Fault::named(name).unwrap_or_else(|| panic!("there is no fault {name}: {:?}", Fault::ALL))).collect(),
        tasks_max: variable("FTE_SIM_TASKS"),
        processes_max: variable("FTE_SIM_PROCESSES"),
    }
}

/// Runs seeds on all cores until one fails or all have run.
fn sweep(seeds: u64, without: &Without, sabotage: Option<Sabotage>) -> (Coverage, u64, Option<(u64, String)>) {
    let next = AtomicU64::new(variable("FTE_SIM_FROM").unwrap_or(0));
    let end = next.load(Ordering::Relaxed) + seeds;
    let over = AtomicBool::new(false);
    let total = Mutex::new((Coverage::default(), 0, None));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut coverage, mut steps) = (Coverage::default(), 0);
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let outcome = run(seed, without, sabotage, false);
                    coverage.add(&outcome.coverage);
                    steps += outcome.steps;
                    if let Some(violation) = outcome.violation {
                        over.store(true, Ordering::Relaxed);
                        total.lock().expect("no thread panics").2 = Some((seed, violation));
                    }
                }
                let mut total = total.lock().expect("no thread panics");
                total.0.add(&coverage);
                total.1 += steps;
            });
        }
    });
    total.into_inner().expect("no thread panics")
}

/// Leaves out one thing after the other for as long as the seed still fails.
fn shrink(seed: u64, without: &Without) -> Without {
    let mut smallest = without.clone();
    let fails = |without: &Without| run(seed, without, None, false).violation.is_some();
    for fault in Fault::ALL {
        let mut smaller = smallest.clone();
        smaller.faults.push(fault);
        if !smallest.faults.contains(&fault) && fails(&smaller) {
            smallest = smaller;
        }
    }
    for most in 1..=4 {
        let smaller = Without { tasks_max: Some(most), ..smallest.clone() };
        if fails(&smaller) {
            smallest = smaller;
            break;
        }
    }
    for most in 1..=2 {
        let smaller = Without { processes_max: Some(most), ..smallest.clone() };
        if fails(&smaller) {
            smallest = smaller;
            break;
        }
    }
    smallest
}

fn command(seed: u64, without: &Without) -> String {
    let mut command = format!("FTE_SIM_SEED={seed} ");
    if !without.faults.is_empty() {
        let faults: Vec<String> = without.faults.iter().map(|fault| format!("{fault:?}")).collect();
        command += &format!("FTE_SIM_WITHOUT={} ", faults.join(","));
    }
    if let Some(most) = without.tasks_max {
        command += &format!("FTE_SIM_TASKS={most} ");
    }
    if let Some(most) = without.processes_max {
        command += &format!("FTE_SIM_PROCESSES={most} ");
    }
    let profile = match profile().as_str() {
        "debug" => String::new(),
        "release" => "--profile bench ".to_owned(),
        other => format!("--profile {other} "),
    };
    command + &format!("cargo test {profile}-p fte-runner --test simulation every_schedule -- --nocapture")
}

#[test]
fn every_schedule_keeps_every_promise() {
    let without = without();
    if let Some(seed) = variable("FTE_SIM_SEED") {
        let outcome = run(seed, &without, None, true);
        assert!(outcome.violation.is_none(), "seed {seed}: {}", outcome.violation.unwrap_or_default());
        return;
    }
    let seeds = schedules();
    let began = std::time::Instant::now();
    let (coverage, steps, failed) = sweep(seeds, &without, None);
    if let Some((seed, violation)) = failed {
        let smallest = shrink(seed, &without);
        let small = run(seed, &smallest, None, false).violation.unwrap_or_default();
        panic!(
            "seed {seed}: {violation}\nreplay it with\n  {}\nor smaller ({small})\n  {}",
            command(seed, &without),
            command(seed, &smallest)
        );
    }
    print(&format!("{seeds} schedules, {steps} steps, {:.1} s\n{coverage}", began.elapsed().as_secs_f64()));
    if seeds >= 400 && without.faults.is_empty() {
        assert!(coverage.missing().is_empty(), "never met: {:?}", coverage.missing());
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..200 {
        let runs = [(); 2].map(|()| run(seed, &Without::default(), None, false));
        assert_eq!(runs[0].steps, runs[1].steps, "seed {seed}");
        assert_eq!(runs[0].coverage.to_string(), runs[1].coverage.to_string(), "seed {seed}");
    }
}

#[test]
fn a_broken_world_is_found_out() {
    for sabotage in Sabotage::ALL {
        let (_, _, failed) = sweep(400, &Without::default(), Some(sabotage));
        assert!(failed.is_some(), "{sabotage:?} was not found out");
    }
}
