//! `fte bench`: load on an instance, and proof that every task it sent has exactly one result.
//!
//! Closed loop (`--concurrency`): that many callers, each sending its next task when the last one is accepted. It finds the highest
//! rate. Open loop (`--rate`): tasks start when the clock says so, and latency counts from that moment, however late they were
//! sent; it shows what callers see at that rate, with the waiting that a closed loop hides.
//!
//! It mostly runs beside the server that it measures, and so it is cheap: one thread, one request's bytes for all tasks, one event
//! stream for all results, ids found by a byte search, and memory that depends only on the number of tasks.

mod check;
mod connection;
mod disk;
mod feed;
mod load;
mod memory;
mod pace;
mod report;
mod tally;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::LocalSet;

use crate::client::{Client, Target};
use crate::error::Error;
use crate::input;
use crate::output::{Output, stderr_is_terminal};
use check::Sample;
use connection::Requests;
use tally::Tally;

/// Up to this rate each task's result is waited for by its own caller, as a client would.
const WAITING_RATE_MAX: f64 = 50.0;
/// So many ids are held at most, 64 bytes each.
const TASKS_MAX: u64 = 10_000_000;

#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// How many tasks [default: 10000, or as many as fit in --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=TASKS_MAX))]
    tasks: Option<u64>,
    /// Callers at one time, a connection each
    #[arg(long, default_value_t = 64, value_name = "C", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// Open loop: tasks per second, by the clock
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Stop sending after this
    #[arg(long, value_name = "DURATION", value_parser = input::duration)]
    duration: Option<Duration>,
    /// Closed loop: most tasks accepted and without a result; callers wait beyond
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// Who does the tasks
    #[arg(long, default_value = "echo", value_name = "NAME")]
    agent: String,
    /// Length of a task's text
    #[arg(long, default_value_t = 100, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=32_000))]
    payload_bytes: u32,
    /// Each caller also waits for its task's result; on by itself up to 50 tasks/s
    #[arg(long)]
    wait_results: bool,
    /// How long to wait for missing results while none comes; then their tasks are lost, or unfinished where they are still under way
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = input::duration)]
    grace: Duration,
    /// How many tasks to look up afterwards: a number, or `all`
    #[arg(long, default_value = "1000", value_name = "N")]
    check: Sample,
    /// Also measure fdatasync in this directory
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// Also watch the resident memory of this process, the server's
    #[arg(long, value_name = "PID")]
    sample_memory: Option<u32>,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (0.01..=100_000.0).contains(rate)).ok_or_else(|| "a rate is 0.01 to 100000 tasks/s".to_owned())
}

impl Bench {
    pub(crate) fn run(self, target: Target, output: Output) -> Result<(), Error> {
        let disk = self.disk.as_deref().map(disk::fdatasync_ms).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Failed(format!("the async runtime does not start: {error}")))?;
        let mut report = LocalSet::new().block_on(&runtime, self.measure(target, output))?;
        report.fdatasync_ms = disk;
        if output.json {
            output.json_line(&report)?
        } else {
            output.line(report.text(&self))?
        }
        report.verdict()
    }

    /// How many tasks to send at most.
    fn tasks_max(&self) -> u64 {
        let in_time = match (self.rate, self.duration) {
            (Some(rate), Some(duration)) => Some((rate * duration.as_secs_f64()) as u64),
            (Some(rate), None) if self.tasks.is_none() => Some((rate * 10.0) as u64),
            _ => None,
        };
        let asked = self.tasks.or_else(|| self.duration.map(|_| TASKS_MAX));
        match (asked, in_time) {
            (None, None) => 10_000,
            (Some(tasks), None) | (None, Some(tasks)) => tasks.clamp(1, TASKS_MAX),
            (Some(asked), Some(in_time)) => asked.min(in_time).clamp(1, TASKS_MAX),
        }
    }

    fn waits(&self) -> bool {
        self.wait_results || self.rate.is_some_and(|rate| rate <= WAITING_RATE_MAX)
    }

    async fn measure(&self, target: Target, output: Output) -> Result<report::Report, Error> {
        let requests = Rc::new(Requests::new(&target, &self.agent, self.payload_bytes as usize)?);
        let tally = Rc::new(RefCell::new(Tally::new(self.tasks_max().min(1_000_000) as usize)));

        // The stream is open before the first task is sent, so that no result is missed.
        let feed = feed::open(Rc::clone(&requests), Rc::clone(&tally)).await?;
        let memory = self.sample_memory.map(|pid| memory::watch(pid, Rc::clone(&tally))).transpose()?;
        let progress = stderr_is_terminal().then(|| tokio::task::spawn_local(show_progress(Rc::clone(&tally), self.tasks_max())));

        load::send(self, &requests, &tally).await?;
        wait_for_results(&tally, self.grace).await;

        feed.abort();
        if let Some(progress) = progress {
            progress.abort();
        }
        let memory = memory.map(memory::Watch::end);
        if tally.borrow().accepted == 0 {
            return Err(nothing_accepted(&target, &mut tally.borrow_mut()));
        }
        let chosen = check::choose(&tally.borrow(), self.check);
        let found = check::check(&Client::new(target), chosen, output).await;
        Ok(report::Report::new(&tally.borrow(), &found, memory))
    }
}

fn nothing_accepted(target: &Target, tally: &mut Tally) -> Error {
    match tally.first_refusal.take() {
        Some(problem) => Error::Refused(Box::new(problem)),
        None => Error::Unreachable { url: target.base.clone(), source: "no task was accepted".into() },
    }
}

/// Waits until every task has its result, or none came for `grace`.
async fn wait_for_results(tally: &RefCell<Tally>, grace: Duration) {
    let mut seen = 0;
    let mut since = Instant::now();
    loop {
        let (completed, accepted) = (tally.borrow().completed, tally.borrow().accepted);
        if completed >= accepted || since.elapsed() > grace {
            return;
        }
        if completed != seen {
            (seen, since) = (completed, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn show_progress(tally: Rc<RefCell<Tally>>, tasks_max: u64) {
    let bar = ProgressBar::new(tasks_max);
    // The template is checked by every run at a terminal; a wrong one falls back to the default look.
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>5} [{bar:40}] {pos}/{len} results, {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (accepted, completed) = (tally.borrow().accepted, tally.borrow().completed);
        bar.set_position(completed);
        bar.set_message(format!("{accepted} accepted, {}/s", (completed - before) * 4));
        before = completed;
    }
}
