//! Running services: listeners up, background work alongside, and an end that is bounded.
//!
//! The end, in order: readiness closes; who keeps a connection to the API is told to open another, elsewhere; each service's `stop` runs; the listeners drain;
//! background work is dropped; what is still open is cut. All of it together takes at most the drain time, and half of that for `stop`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use fte_bus::Sidecar;
use futures_util::future::{BoxFuture, join_all};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::ApiRoutes;
use crate::api::{ApiOptions, api_router};
use crate::app::app_router;
use crate::audit::AuditTrail;
use crate::bus::Bus;
use crate::chain;
use crate::configured::Configured;
use crate::denials::Denials;
use crate::diagnosis;
use crate::metrics;
use crate::probes::{Check, Lack, Readiness, check};
use crate::server::{Limits, serve};
use crate::settings::Settings;

/// Between two trials of the state store.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Why a service's background work ended.
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

/// Why the services ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Work that must go on has ended.
    #[error("the background work of {service} failed")]
    Background {
        /// Whose.
        service: &'static str,
        /// Why.
        source: ServiceError,
    },
    /// Work that must go on has panicked; the log has the text.
    #[error("background work panicked")]
    Panicked,
}

/// A service, ready to be served.
pub struct Service {
    /// `intake`; its app id is `fte-intake`.
    pub name: &'static str,
    /// What its sidecar calls; the probes are added.
    pub app: Router,
    /// Its public routes, with their state.
    pub api: ApiRoutes,
    /// What must be there for it to be ready; [`Service::new`] puts the sidecar first.
    pub checks: Vec<(&'static str, Check)>,
    /// Work that goes on as long as the process; an error ends it.
    pub background: Vec<BoxFuture<'static, Result<(), ServiceError>>>,
    /// Called once when draining starts, before the listeners close.
    pub stop: Option<Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>>,
    /// Where it records what no topic tells besides: its start, whom the API refused, which keys are used, and what the service adds.
    pub trail: AuditTrail,
    /// What it found at its start, for its diagnosis.
    pub notes: Vec<diagnosis::Note>,
    /// Its sidecar, for its diagnosis.
    sidecar: Sidecar,
}

impl Service {
    /// A service without routes, ready when its sidecar is and nothing keeps its events from their topics. Set the rest.
    pub fn new(name: &'static str, bus: &Bus) -> Self {
        let publisher = bus.publisher.clone();
        let topics = check(move || {
            let obstacles = publisher.obstacles();
            async move { if obstacles.is_empty() { Ok(()) } else { Err(obstacles.join("; ")) } }
        });
        Self {
            name,
            app: Router::new(),
            api: ApiRoutes::default(),
            checks: vec![("sidecar", Readiness::sidecar(&bus.sidecar)), ("topics", topics)],
            background: Vec::new(),
            notes: Vec::new(),
            stop: None,
            trail: AuditTrail::new(bus.publisher.clone(), name),
            sidecar: bus.sidecar.clone(),
        }
    }

    /// Work that goes on as long as the process and rests on the state store: it begins once the store was tried and can be worked with. One that cannot, and twice
    /// in the same way, ends the process, with what to do: whatever was written to it would be a promise that nobody keeps. The routes do not wait for that, but the
    /// service is not ready before the store was asked; one that is away then is no reason, since what does not need it can be done.
    pub fn on_state(&mut self, bus: &Bus, work: impl Future<Output = Result<(), ServiceError>> + Send + 'static) {
        let (store, sidecar) = (bus.state.clone(), bus.sidecar.clone());
        let lack = Arc::new(Mutex::new(Some(Lack::from("it was not tried yet whether the state store can be worked with".to_owned()))));
        let lacks = Arc::clone(&lack);
        self.checks.push((
            "statestore",
            check(move || {
                let lack = lacks.lock().unwrap_or_else(PoisonError::into_inner).clone();
                async move { lack.map_or(Ok(()), Err) }
            }),
        ));
        let now_lacks = move |now: Option<Lack>| *lack.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.background.push(Box::pin(async move {
            let (mut judged, mut said) = (None, String::new());
            loop {
                Readiness::sidecar_is_there(&sidecar).await;
                let away = match store.fitness().await {
                    Ok(Ok(())) => break,
                    // Once may have been a store that began anew just then.
                    Ok(Err(unfit)) if judged.as_ref() == Some(&unfit) => return Err(unfit.into()),
                    Ok(Err(unfit)) => {
                        let found = unfit.to_string();
                        judged = Some(unfit);
                        found
                    }
                    Err(error) => chain(&error),
                };
                if away != said {
                    tracing::warn!(error = away, "the state store cannot be worked with yet; nothing that rests on it begins");
                    said.clone_from(&away);
                }
                now_lacks(Some(Lack::that_serves(away)));
                tokio::time::sleep(TRY_EVERY).await;
            }
            now_lacks(None);
            work.await
        }));
    }
}

/// Serves each service on its app listener and all of them together on the API listener, until `shutdown` resolves or background work fails;
/// then drains for at most `settings.drain`.
pub async fn run(
    services: Vec<(Service, TcpListener)>,
    api: TcpListener,
    settings: &Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let mut options = ApiOptions::new(settings);
    options.listens_on = api.local_addr().unwrap_or(settings.api_addr);
    if !options.listens_on.ip().is_loopback() && options.keys.is_none() {
        tracing::warn!(address = %options.listens_on, "the API can be called from other machines, and asks nobody who they are");
    }
    let (mut routes, mut all_checks) = (Vec::new(), Vec::new());
    let (mut servings, mut readinesses, mut stops, mut trails) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut background = JoinSet::new();
    for (service, listener) in services {
        let name = service.name;
        let checks: Vec<(String, Check)> = service.checks.into_iter().map(|(check, ready)| (format!("{name}/{check}"), ready)).collect();
        all_checks.extend(checks.iter().cloned());
        let readiness = Readiness::new(checks);
        servings.push(serve(listener, app_router(service.app, &readiness), Limits::app()));
        readinesses.push(readiness.clone());
        background.spawn(record_start(service.sidecar.clone(), service.trail.clone(), Arc::clone(&settings.configured)));
        trails.push(service.trail);
        routes.push(service.api);
        routes.push(diagnosis::routes(name, service.sidecar, service.notes, readiness, settings));
        stops.extend(service.stop);
        for work in service.background {
            background.spawn(async move { work.await.map_err(|source| Error::Background { service: name, source }) });
        }
    }
    background.spawn(upkeep());
    if let Some(keys) = options.keys.clone() {
        background.spawn(async move {
            keys.keep().await;
            Ok(())
        });
    }
    // What the one API port of several services refuses is recorded by the first of them.
    options.trail = trails.first().cloned();
    options.denials = options.trail.clone().map(Denials::new);
    let denials = options.denials.clone();
    if let Some(denials) = denials.clone() {
        background.spawn(async move {
            denials.keep().await;
            Ok(())
        });
    }
    let readiness = Readiness::new(all_checks);
    servings.push(serve(api, api_router(routes, &readiness, options), Limits::api(settings.connections_max)));
    readinesses.push(readiness);

    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        failure = first_failure(&mut background) => Err(failure),
    };

    let started = Instant::now();
    let deadline = started + settings.drain;
    readinesses.iter().for_each(Readiness::drain);
    // While the services can still do what they are asked.
    if let Some(api) = servings.last() {
        api.leave(settings.drain / 20).await;
    }
    if timeout_at(Instant::now() + settings.drain / 2, join_all(stops.into_iter().map(|stop| stop()))).await.is_err() {
        tracing::warn!("a service took too long to stop; going on without it");
    }
    servings.iter().for_each(|serving| serving.drain());
    if timeout_at(deadline, join_all(servings.iter_mut().map(|serving| serving.drained()))).await.is_err() {
        tracing::warn!("some requests did not end in time; they are cut");
    }
    denials.iter().for_each(Denials::tell);
    let left = deadline.saturating_duration_since(Instant::now());
    join_all(trails.iter().map(|trail| trail.flush(left))).await;
    join_all(servings.into_iter().map(|serving| serving.close())).await;
    background.shutdown().await;
    outcome
}

/// Waits for the first failure; work that ends well is done.
async fn first_failure(background: &mut JoinSet<Result<(), Error>>) -> Error {
    loop {
        match background.join_next().await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return error,
            Some(Err(_)) => return Error::Panicked,
            None => std::future::pending().await,
        }
    }
}

/// Records the start once the sidecar is there: before that nobody could be told, which is no news.
async fn record_start(sidecar: Sidecar, trail: AuditTrail, configured: Arc<Configured>) -> Result<(), Error> {
    Readiness::sidecar_is_there(&sidecar).await;
    trail.started(&configured);
    Ok(())
}

async fn upkeep() -> Result<(), Error> {
    let mut ticks = tokio::time::interval(metrics::UPKEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics::upkeep();
    }
}

#[cfg(test)]
mod tests;
