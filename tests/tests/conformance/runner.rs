//! Runs the cases: all at once, those that stop something afterwards one by one; prints one line each and the sum.
//!
//! Not the usual harness, because the cases share one sidecar and one app that have to be ended after the last of them, and
//! because a case that cannot be asked of a target has to be told apart from one that passed.

use std::io::Write as _;
use std::panic;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::feature::Feature;
use crate::topics::TOPICS;
use crate::world::World;

/// Longest run of one case.
const CASE_MAX: Duration = Duration::from_secs(180);
/// Cases at a time.
const CASES_AT_ONCE: usize = 24;

type Run = fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One promise of a sidecar.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Feature],
    /// It stops what others use.
    pub(crate) alone: bool,
    pub(crate) run: Run,
}

/// The cases of a module: `cases![name, name needs [Feature]]`, or `cases![alone: …]`.
macro_rules! cases {
    (alone: $($name:ident $(needs [$($feature:ident),+])?),+ $(,)?) => { cases!(@ true $($name $(needs [$($feature),+])?),+) };
    ($($name:ident $(needs [$($feature:ident),+])?),+ $(,)?) => { cases!(@ false $($name $(needs [$($feature),+])?),+) };
    (@ $alone:literal $($name:ident $(needs [$($feature:ident),+])?),+) => {
        &[$($crate::runner::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            needs: &[$($($crate::feature::Feature::$feature),+)?],
            alone: $alone,
            run: |world| Box::pin(async move { $name(&world).await }),
        }),+]
    };
}
pub(crate) use cases;

tokio::task_local! {
    /// The case whose failure is being told.
    static CASE: &'static str;
}

/// What the command line asks for. What else `cargo test` may hand on is passed over.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    quiet: bool,
    list: bool,
    topics: bool,
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--exact" => arguments.exact = true,
                "--quiet" | "-q" => arguments.quiet = true,
                "--list" => arguments.list = true,
                "--topics" => arguments.topics = true,
                "--skip" => arguments.skipped.extend(given.next()),
                "--test-threads" | "--format" | "--color" | "-Z" => drop(given.next()),
                flag if flag.starts_with('-') => {}
                _ => arguments.filters.push(argument),
            }
        }
        arguments
    }

    fn wants(&self, name: &str) -> bool {
        let named = |pattern: &String| if self.exact { name == pattern } else { name.contains(pattern.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(named)) && !self.skipped.iter().any(named)
    }
}

impl Case {
    /// Its name without that of the test binary.
    fn name(&self) -> &'static str {
        self.name.split_once("::").map_or(self.name, |(_, name)| name)
    }
}

fn say(line: impl std::fmt::Display) {
    // Nobody listens any more: then there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs what the command line asks for.
pub(crate) fn main(cases: &[Case]) -> ExitCode {
    let arguments = Arguments::read(std::env::args().skip(1));
    if arguments.topics {
        TOPICS.iter().for_each(|topic| say(format_args!("{} {}", topic.name, topic.partitions)));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<Case> = cases.iter().copied().filter(|case| arguments.wants(case.name())).collect();
    if arguments.list {
        wanted.iter().for_each(|case| say(format_args!("{}: test", case.name())));
        return ExitCode::SUCCESS;
    }
    name_the_case_that_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let failed = runtime.block_on(run(&wanted, cases.len() - wanted.len(), arguments.quiet));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn name_the_case_that_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if let Ok(name) = CASE.try_with(|name| *name) {
            let _ = writeln!(std::io::stderr(), "\n---- {name} ----");
        }
        before(panic);
    }));
}

async fn run(wanted: &[Case], filtered: usize, quiet: bool) -> bool {
    if wanted.is_empty() {
        say(format_args!("test result: ok. 0 passed; 0 failed; 0 not asked; {filtered} filtered out"));
        return false;
    }
    let started = Instant::now();
    let world = Arc::new(World::start().await);
    say(format_args!("running {} cases against {}", wanted.len(), world.target.description));

    let (mut passed, mut not_asked, mut failed) = (0, 0, Vec::new());
    let (mut crowd, mut alone) = (Vec::new(), Vec::new());
    for case in wanted {
        match case.needs.iter().find(|feature| !world.has(**feature)) {
            Some(feature) => {
                not_asked += 1;
                say(format_args!("test {} ... not asked: {}", case.name(), feature.missing()));
            }
            None if case.alone => alone.push(*case),
            None => crowd.push(*case),
        }
    }
    let mut ended = |(case, outcome, took): (Case, bool, Duration)| {
        if !outcome {
            failed.push(case.name());
        }
        passed += usize::from(outcome);
        if !outcome || !quiet {
            say(format_args!("test {} ... {} ({:.2} s)", case.name(), if outcome { "ok" } else { "FAILED" }, took.as_secs_f64()));
        }
    };
    let mut running = JoinSet::new();
    for case in crowd {
        if running.len() >= CASES_AT_ONCE
            && let Some(Ok(end)) = running.join_next().await
        {
            ended(end);
        }
        running.spawn(guard(case, world.clone()));
    }
    while let Some(Ok(end)) = running.join_next().await {
        ended(end);
    }
    for case in alone {
        ended(guard(case, world.clone()).await);
    }

    if !failed.is_empty() {
        say(format_args!("\nfailures:\n    {}\n", failed.join("\n    ")));
        if let Some(log) = world.target.log_tail() {
            say(format_args!("the log of the sidecar ends with:\n{log}"));
        }
    }
    say(format_args!(
        "test result: {}. {passed} passed; {} failed; {not_asked} not asked; {filtered} filtered out; finished in {:.2} s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        started.elapsed().as_secs_f64()
    ));
    !failed.is_empty()
}

/// Runs one case to its end, whatever that is.
async fn guard(case: Case, world: Arc<World>) -> (Case, bool, Duration) {
    let started = Instant::now();
    let task = tokio::spawn(CASE.scope(case.name(), async move {
        let limited = tokio::time::timeout(CASE_MAX, (case.run)(world)).await;
        assert!(limited.is_ok(), "it did not end within {CASE_MAX:?}");
    }));
    (case, task.await.is_ok(), started.elapsed())
}
