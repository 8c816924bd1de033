//! The protocol's ports on the simulated world, for one process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fte_runner::ports::{
    Agents, Document, Message, Outlet, Pending, PortError, Ports, Save, Saved, Session, Start, StartError, Store, Timers,
};
use jiff::Timestamp;

use crate::agents;
use crate::calls::{Answer, Request, failed};
use crate::scenario::Micros;
use crate::world::Sim;

#[derive(Clone)]
struct Port {
    sim: Sim,
    process: usize,
}

pub(crate) fn ports(sim: &Sim, process: usize) -> Ports {
    let port = Arc::new(Port { sim: sim.clone(), process });
    Ports {
        store: Arc::clone(&port) as Arc<dyn Store>,
        outlet: Arc::clone(&port) as Arc<dyn Outlet>,
        timers: Arc::clone(&port) as Arc<dyn Timers>,
        world: Arc::clone(&port) as Arc<dyn fte_runner::ports::World>,
        agents: port,
    }
}

/// A call that is issued when it is first polled.
struct Calling {
    port: Port,
    request: Option<Request>,
    call: Option<usize>,
}

impl Future for Calling {
    type Output = Result<Answer, PortError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut world = this.port.sim.world();
        if let Some(request) = this.request.take() {
            this.call = Some(world.issue(this.port.process, request, context.waker().clone()));
            return Poll::Pending;
        }
        let Some(call) = this.call else { return Poll::Pending };
        let reply = world.reply(call, context.waker());
        if reply.is_ready() {
            this.call = None;
        }
        reply
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.port.sim.world().abandon(call, 300_000);
        }
    }
}

struct Sleeping {
    port: Port,
    time: Micros,
    sleep: Option<usize>,
}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut world = this.port.sim.world();
        match this.sleep {
            None => this.sleep = Some(world.sleep(this.port.process, this.time, context.waker().clone())),
            Some(sleep) if world.sleeps[sleep].over => return Poll::Ready(()),
            Some(sleep) => world.sleeps[sleep].waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        if let Some(sleep) = self.sleep {
            self.port.sim.world().sleeps[sleep].waker = None;
        }
    }
}

/// Waits, on a process's clock.
pub(crate) fn pause(sim: &Sim, process: usize, time: Micros) -> impl Future<Output = ()> + use<> {
    Sleeping { port: Port { sim: sim.clone(), process }, time, sleep: None }
}

impl Port {
    fn call(&self, request: Request) -> Calling {
        Calling { port: self.clone(), request: Some(request), call: None }
    }

    fn done(&self, request: Request) -> Pending<Result<(), PortError>> {
        let call = self.call(request);
        Box::pin(async move { call.await.map(drop) })
    }
}

fn confused() -> PortError {
    failed("the simulation", "another kind of answer than was asked for")
}

impl Store for Port {
    fn get(&self, key: String) -> Pending<Result<Option<Document>, PortError>> {
        let call = self.call(Request::Get(key));
        Box::pin(async move { if let Answer::Document(found) = call.await? { Ok(found) } else { Err(confused()) } })
    }

    fn get_many(&self, keys: Vec<String>) -> Pending<Result<Vec<Option<Document>>, PortError>> {
        let call = self.call(Request::GetMany(keys));
        Box::pin(async move { if let Answer::Documents(found) = call.await? { Ok(found) } else { Err(confused()) } })
    }

    fn save(&self, save: Save) -> Pending<Result<Saved, PortError>> {
        let call = self.call(Request::Save(save));
        Box::pin(async move { if let Answer::Saved(saved) = call.await? { Ok(saved) } else { Err(confused()) } })
    }
}

impl Outlet for Port {
    fn send(&self, messages: Vec<Message>) -> Pending<Result<(), PortError>> {
        self.done(Request::Send(messages))
    }
}

impl Timers for Port {
    fn schedule(&self, name: String, due: Timestamp) -> Pending<Result<(), PortError>> {
        self.done(Request::Schedule(name, due))
    }

    fn delete(&self, name: String) -> Pending<Result<(), PortError>> {
        self.done(Request::Delete(name))
    }
}

impl fte_runner::ports::World for Port {
    fn now(&self) -> Timestamp {
        self.sim.world().wall(self.process)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.sim.world().monotonic(self.process))
    }

    fn sleep(&self, time: Duration) -> Pending<()> {
        let time = Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX / 4);
        Box::pin(Sleeping { port: self.clone(), time, sleep: None })
    }

    fn random(&self) -> u64 {
        self.sim.world().processes[self.process].rng.next()
    }

    fn spawn(&self, future: Pending<()>) {
        self.sim.world().spawn(self.process, future);
    }
}

impl Agents for Port {
    fn start(&self, agent: &str, start: Start) -> Pending<Result<Session, StartError>> {
        let (port, agent) = (self.clone(), agent.to_owned());
        Box::pin(async move {
            let time = {
                let mut world = port.sim.world();
                let most = *world.rng.pick(&[1_000, 50_000, 2_000_000]);
                world.rng.below(most)
            };
            pause(&port.sim, port.process, time).await;
            agents::start(&port.sim, port.process, &agent, start)
        })
    }
}
