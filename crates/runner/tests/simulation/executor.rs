//! Runs the futures of all simulated processes on one thread, one poll at a time, in the order that the caller picks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use fte_runner::ports::Pending;

/// A future's number, in the order of spawning.
pub(crate) type Task = usize;

struct Running {
    process: usize,
    future: Pending<()>,
    waker: Waker,
    flag: Arc<Flag>,
}

struct Flag {
    task: Task,
    woken: AtomicBool,
    list: Arc<Mutex<Vec<Task>>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            self.list.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
        }
    }
}

#[derive(Default)]
pub(crate) struct Executor {
    tasks: Vec<Option<Running>>,
    woken: Arc<Mutex<Vec<Task>>>,
    ready: Vec<Task>,
}

impl Executor {
    /// Takes a future in; its number is the count of those before it.
    pub(crate) fn spawn(&mut self, process: usize, future: Pending<()>) {
        let task = self.tasks.len();
        let flag = Arc::new(Flag { task, woken: AtomicBool::new(true), list: Arc::clone(&self.woken) });
        self.tasks.push(Some(Running { process, future, waker: Waker::from(Arc::clone(&flag)), flag }));
        self.ready.push(task);
    }

    /// The tasks that could run now.
    pub(crate) fn ready(&mut self) -> &[Task] {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        // In which order a library wakes those who wait for one thing may be its secret, and random.
        woken.sort_unstable();
        self.ready.append(&mut woken);
        &self.ready
    }

    pub(crate) fn process_of(&self, task: Task) -> Option<usize> {
        self.tasks.get(task)?.as_ref().map(|running| running.process)
    }

    /// Polls the task that stands at `position` among the ready ones.
    pub(crate) fn poll(&mut self, position: usize) {
        let task = self.ready.swap_remove(position);
        let Some(Some(running)) = self.tasks.get_mut(task) else { return };
        running.flag.woken.store(false, Ordering::Relaxed);
        let outcome = running.future.as_mut().poll(&mut Context::from_waker(&running.waker));
        if outcome == Poll::Ready(()) {
            self.tasks[task] = None;
        }
    }

    pub(crate) fn drop_ready(&mut self, position: usize) {
        self.ready.swap_remove(position);
    }

    /// Drops a future where it stands.
    pub(crate) fn kill(&mut self, task: Task) {
        if let Some(running) = self.tasks.get_mut(task) {
            drop(running.take());
        }
    }

    /// Drops all futures of a process where they stand.
    pub(crate) fn kill_process(&mut self, process: usize) {
        for task in 0..self.tasks.len() {
            if self.process_of(task) == Some(process) {
                self.kill(task);
            }
        }
    }
}
