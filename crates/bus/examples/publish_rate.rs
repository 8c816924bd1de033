//! How many events a second the SDK gets acknowledged by a sidecar:
//! `publish_rate SIDECAR_URL TOPIC [EVENTS]`, with the sidecar's token in `DAPR_API_TOKEN`. Each event has 1 kB of data and a key of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fte_bus::{CloudEvent, Event, PublishOptions, Publisher, Sidecar, SidecarConfig};
use serde::{Deserialize, Serialize};

/// How many callers publish, each one event after the other: as many requests of a busy service.
const CALLERS: u64 = 2000;
/// Calls to the sidecar at the same time.
const LANES: usize = 4;

#[derive(Serialize, Deserialize)]
struct Measured {
    number: u64,
    filler: String,
}

impl Event for Measured {
    const TOPIC: &'static str = "measured";
    const TYPE: &'static str = "fte.measured.published";
    const VERSION: u32 = 1;
}

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example: its result is for the terminal, its token from the environment"
)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(topic)) = (arguments.next(), arguments.next()) else {
        return Err("publish_rate SIDECAR_URL TOPIC [EVENTS]".into());
    };
    let events: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let config = SidecarConfig { api_token: std::env::var("DAPR_API_TOKEN").ok(), ..SidecarConfig::at(url) };
    let publisher = Publisher::new(Sidecar::new(config)?, "/measure", PublishOptions { lanes: LANES, ..PublishOptions::default() });
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let (publisher, next, topic) = (publisher.clone(), Arc::clone(&next), topic.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= events {
                    return Ok::<_, fte_bus::Error>(());
                }
                let payload = Measured { number, filler: "x".repeat(1000) };
                let event = CloudEvent::new(format!("measured-{number}"), "/measure", Measured::TYPE, payload);
                publisher.publish_event(&topic, Some(&number.to_string()), &event).await?;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await??;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{events} events of 1 kB acknowledged in {took:.1} s: {:.0}/s", f64::from(u32::try_from(events)?) / took);
    Ok(())
}
