//! Measures sealing alone: whose an event is, its key found or made and durable, encryption, keyed digests.
//!
//! `cargo run --profile bench -p fte-audit --example audit_sealing -- [events] [events of a group] [directory]`
//!
//! Six events of each task, as the engine's writer gives them: one thread, a group at a time, each with its own sync where it made keys.

use std::path::PathBuf;
use std::time::Instant;

use fte_audit::entry::reading::Reading;
use fte_audit::subjects::{About, Context, Opened, Subjects, SubjectsOptions, Unsealed};
use fte_events::{EventName, TaskId, event_id};
use sha2::Digest as _;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: usize| arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (events, each) = (number(0, 300_000), number(1, 256));
    let directory = arguments.get(2).map_or_else(|| PathBuf::from("audit-sealing"), PathBuf::from);
    let subjects = Subjects::open(SubjectsOptions::at(directory)).expect("the keys open");

    let mut all: Vec<(String, String)> = Vec::with_capacity(events);
    let mut running: Vec<(TaskId, u64)> = Vec::new();
    while all.len() < events {
        running.push((TaskId::now(), 0));
        let place = if running.len() > 200 { 0 } else { fastrand::usize(..running.len()) };
        let (task, step) = &mut running[place];
        all.push(event(*task, *step));
        *step += 1;
        if *step == 6 {
            running.swap_remove(place);
        }
    }
    let started = Instant::now();
    let mut sealed = Vec::with_capacity(events);
    for group in all.chunks(each) {
        let abouts: Vec<About> =
            group.iter().map(|(_, body)| About::of(&Reading::of(body.as_bytes()).expect("an event"), "fte.status.updates")).collect();
        let unsealed: Vec<Unsealed<'_>> = group
            .iter()
            .zip(&abouts)
            .map(|((id, body), about)| Unsealed {
                about,
                context: Context { tenant: "default", source: "/fte/runner", id },
                bytes: body.as_bytes(),
                sha256: sha2::Sha256::digest(body.as_bytes()).into(),
            })
            .collect();
        sealed.extend(subjects.seal(&unsealed).expect("it seals"));
    }
    let sealing = started.elapsed();
    let started = Instant::now();
    for ((id, body), sealed) in all.iter().zip(&sealed) {
        let (enc, ciphertext) = (sealed.enc.as_ref().expect("sealed"), sealed.ciphertext.as_ref().expect("sealed"));
        let context = Context { tenant: "default", source: "/fte/runner", id };
        let opened = subjects.open_payload((enc.alg, &enc.key, &enc.nonce), context, ciphertext).expect("it opens");
        assert_eq!(opened, Opened::Bytes(body.clone().into_bytes()));
    }
    let opening = started.elapsed();
    let rate = |elapsed: std::time::Duration| events as f64 / elapsed.as_secs_f64();
    #[expect(clippy::print_stdout, reason = "this is what it is for")]
    {
        println!("{events} events of {} bytes in groups of {each}", all[0].1.len());
        println!("sealed {:.0}/s, opened {:.0}/s", rate(sealing), rate(opening));
    }
}

fn event(task: TaskId, step: u64) -> (String, String) {
    let id = event_id(task, EventName::Status { sequence: step }).to_string();
    let requester = if step == 0 { r#""requester":{"type":"user","id":"ada"},"# } else { "" };
    let body = format!(
        r#"{{"data":{{{requester}"agent":"echo","attempt":1,"details":{{"tokens":1234,"cached":true,"ratio":0.5}},"message":"The agent has read the minutes and writes the summary now.","progress_pct":50,"sequence":{step},"stage":"writing","status":"running","task_id":"{task}"}},"datacontenttype":"application/json","ftecause":"{id}","ftetenant":"default","fteversion":"1","id":"{id}","pubsubname":"pubsub","source":"/fte/runner","specversion":"1.0","subject":"{task}","time":"2026-07-01T10:00:00.123456Z","topic":"fte.status.updates","traceid":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"","type":"fte.status.changed"}}"#
    );
    (id, body)
}
