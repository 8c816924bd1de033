//! The alerts, tried on Prometheus's own engine: each fires on its fault, and nothing else does; none fires at rest, at work, or when a service is started anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use fte_events::catalogue::{subscribed_by, topics};
use fte_events::handoffs::built_in_agents;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::chart::{render, text, tools};

/// As in the chart's values.
const SCRAPE_S: usize = 30;
/// How often Prometheus looks at the rules.
const LOOK_S: usize = 60;
/// How long a system is watched, where nothing is said.
const MINUTES: f64 = 120.0;
const DAY: f64 = 24.0 * 60.0;
/// When something happens to it. Whatever looks back then sees as much as it wants.
const THEN: f64 = 45.0;
const SERVICES: [&str; 4] = ["fte-intake", "fte-runner", "fte-status", "fte-audit"];

/// What is scraped, by its labels: a value each time, or none where it was not there.
type Series = BTreeMap<String, Vec<Option<f64>>>;

/// All that Prometheus knows of an installation.
#[derive(Clone)]
struct System {
    series: Series,
    scrape_s: usize,
    minutes: f64,
}

/// A series as Prometheus writes it, of a pod of ours.
fn of(service: &str, metric: &str, labels: &str) -> String {
    let more = if labels.is_empty() { "" } else { "," };
    format!("{metric}{{namespace=\"fte\",job=\"{service}\",pod=\"{service}-0\",instance=\"10.0.0.1:8080\"{more}{labels}}}")
}

impl System {
    /// When it is looked at, in minutes.
    fn scrapes(&self) -> impl Iterator<Item = f64> + use<> {
        let (scrape_s, minutes) = (self.scrape_s, self.minutes);
        (0..).map(move |at| (at * scrape_s) as f64 / 60.0).take_while(move |minute| *minute < minutes)
    }

    /// What is counted goes on by so many events a minute.
    fn new(per_minute: f64, scrape_s: usize, minutes: f64) -> Self {
        let mut system = Self { series: Series::new(), scrape_s, minutes };
        let counted = |from: f64| move |minute: f64| Some(from + (minute * per_minute).floor());
        for service in SERVICES {
            system.set(of(service, "up", ""), |_| Some(1.0));
            system.set(format!("kube_pod_status_ready{{namespace=\"fte\",pod=\"{service}-0\",condition=\"true\"}}"), |_| Some(1.0));
            system.set(of(service, "fte_audit_actions_dropped_total", &format!("service=\"{}\"", &service[4..])), |_| Some(0.0));
            let claim = format!("{{namespace=\"fte\",persistentvolumeclaim=\"data-{service}-0\"}}");
            system.set(format!("kubelet_volume_stats_available_bytes{claim}"), |_| Some(70e9));
            system.set(format!("kubelet_volume_stats_capacity_bytes{claim}"), |_| Some(100e9));
            // Probes of themselves alone, and what people ask for.
            for (route, status, share) in
                [("/ready", "200", 10.0), ("/ready", "503", 0.0), ("/v1/tasks", "200", 1.0), ("/v1/tasks", "409", 0.0)]
            {
                let series = of(service, "fte_http_request_sec_count", &format!("route=\"{route}\",method=\"GET\",status=\"{status}\""));
                system.set(series, move |minute| Some((minute * per_minute.max(f64::from(u8::from(route == "/ready"))) * share).floor()));
            }
        }
        for topic in topics(&built_in_agents()) {
            for service in topic.publishers {
                let (service, label) = (format!("fte-{service}"), format!("topic=\"{}\"", topic.name));
                if SERVICES.contains(&&*service) {
                    system.set(of(&service, "kf_messages_produced_total", &label), counted(57.0));
                    system.set(of(&service, "kf_publish_retries_total", &label), |_| Some(3.0));
                }
            }
        }
        for service in SERVICES {
            for topic in subscribed_by(&service[4..], &built_in_agents()) {
                let label = format!("topic=\"{}\"", topic.name);
                for (outcome, counted_from) in [("done", Some(57.0)), ("retry", None), ("reject", None)] {
                    let series = of(service, "kf_messages_consumed_total", &format!("{label},outcome=\"{outcome}\""));
                    system.set(series, move |minute| counted_from.map_or(Some(2.0), |from| counted(from)(minute)));
                }
                system.set(of(service, "kf_dead_letters_total", &label), |_| Some(1.0));
                let lag = format!("kafka_consumergroup_lag{{consumergroup=\"{service}\",topic=\"{}\",partition=\"0\"}}", topic.name);
                system.set(lag, |_| Some(per_minute));
            }
        }
        for what in ["received", "replayed", "discarded"] {
            system.set(of("fte-status", "fte_status_dead_letters_total", &format!("what=\"{what}\"")), |_| Some(4.0));
        }
        system.set(of("fte-status", "fte_status_commits_failed_total", ""), |_| Some(1.0));
        system.set(of("fte-audit", "fte_audit_actions_missing", ""), |_| Some(0.0));
        system.set(of("fte-audit", "fte_audit_entries_total", "kind=\"conflict\""), |_| Some(2.0));
        system
    }

    fn at_rest() -> Self {
        Self::new(0.0, SCRAPE_S, MINUTES)
    }

    fn at_work() -> Self {
        Self::new(20.0, SCRAPE_S, MINUTES)
    }

    /// A series has these values, by the minute.
    fn set(&mut self, series: String, value: impl Fn(f64) -> Option<f64>) {
        self.series.insert(series, self.scrapes().map(value).collect());
    }

    /// From then on each of these series has other values: by the minutes since then, and the value that it had.
    fn change(&mut self, is_it: impl Fn(&str) -> bool, value: impl Fn(f64, f64) -> Option<f64>) {
        let mut changed = 0;
        let scrapes: Vec<f64> = self.scrapes().collect();
        for (_, values) in self.series.iter_mut().filter(|(series, _)| is_it(series)) {
            changed += 1;
            let mut last = 0.0;
            for (minute, at) in scrapes.iter().copied().zip(values) {
                if minute < THEN {
                    last = at.unwrap_or(last);
                } else {
                    *at = value(minute - THEN, last);
                }
            }
        }
        assert!(changed > 0, "no such series");
    }

    /// [`System::change`] of the series that have all these words.
    fn changed(mut self, words: &[&str], value: impl Fn(f64, f64) -> Option<f64>) -> Self {
        self.change(|series| words.iter().all(|word| series.contains(word)), value);
        self
    }

    /// These series are not there from then on, or were never.
    fn without(mut self, words: &[&str]) -> Self {
        self.series.retain(|series, _| !words.iter().all(|word| series.contains(word)));
        self
    }

    /// A service's pod is gone for so long, and then another one is there: it counts from 0, and has met so many events of each topic when it is first scraped.
    fn restarted(mut self, service: &str, minutes: f64, met: f64) -> Self {
        let (of_pod, old) = (format!("job=\"{service}\""), self.clone());
        for (series, values) in old.series.iter().filter(|(series, _)| series.contains(&of_pod)) {
            let is_counter = series.contains("_total") || series.contains("_count");
            let at_end = old.scrapes().zip(values).filter(|(minute, _)| *minute < THEN + minutes).filter_map(|(_, value)| *value).last();
            let new = series.replace("10.0.0.1", "10.0.0.2");
            let starts = move |minute: f64, value: f64| {
                let met = if series.contains("consumed") && series.contains("done") { met } else { 0.0 };
                (minute >= THEN + minutes).then(|| if is_counter { value - at_end.unwrap_or(0.0) + met } else { value })
            };
            let values: Vec<Option<f64>> = old.scrapes().zip(values).map(|(minute, value)| starts(minute, (*value)?)).collect();
            self.series.insert(new, values);
        }
        self.change(|series| series.contains(&of_pod) && series.contains("10.0.0.1"), |_, _| None);
        let ready = format!("pod=\"{service}-0\",condition");
        self.changed(&["kube_pod_status_ready", &ready], move |minute, _| Some(f64::from(u8::from(minute > minutes))))
    }

    /// What fires, and when.
    fn fires(&self) -> Vec<Firing> {
        let labels = |series: &str| -> Value {
            let (metric, rest) = series.split_once('{').unwrap();
            let pairs = rest.trim_end_matches("\"}").split("\",").map(|pair| pair.split_once("=\"").unwrap());
            pairs.chain([("__name__", metric)]).map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
        };
        let series: Vec<Value> = self.series.iter().map(|(series, values)| json!({"labels": labels(series), "values": values})).collect();
        let rules = render("secured")["PrometheusRule/fte"].value["spec"]["groups"][0]["rules"].clone();
        let given = json!({"scrape_s": self.scrape_s, "look_s": self.scrape_s.max(LOOK_S), "rules": rules, "series": series});
        let mut engine = Command::new(tools().join("alerts")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        engine.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
        let out = engine.wait_with_output().unwrap();
        assert!(out.status.success());
        serde_json::from_slice::<Option<Vec<Firing>>>(&out.stdout).unwrap().unwrap_or_default()
    }

    /// The names of what fires.
    fn alerts(&self) -> BTreeSet<String> {
        self.fires().into_iter().map(|firing| firing.alert).collect()
    }
}

#[derive(Debug, Deserialize)]
struct Firing {
    alert: String,
    labels: BTreeMap<String, String>,
    from_s: u32,
    to_s: u32,
    annotations: BTreeMap<String, String>,
}

impl Firing {
    /// Minutes from what happened until it fires.
    fn after(&self) -> f64 {
        f64::from(self.from_s) / 60.0 - THEN
    }
}

const NOTHING: [&str; 0] = [];

/// Exactly this alert fires, for something with these words in its summary, within so many minutes.
fn only(system: &System, alert: &str, words: &[&str], within: f64) {
    let fires = system.fires();
    assert!(fires.iter().all(|firing| firing.alert == alert), "{fires:#?}");
    let named = fires.iter().find(|firing| words.iter().all(|word| firing.annotations["summary"].contains(word)));
    let named = named.unwrap_or_else(|| panic!("{alert} does not fire on {words:?}: {fires:#?}"));
    assert!((0.0..=within).contains(&named.after()), "{named:?}");
}

/// It goes on for ever.
fn more(each_minute: f64) -> impl Fn(f64, f64) -> Option<f64> {
    move |minute, value| Some(value + (minute * each_minute).floor())
}

#[test]
fn nothing_fires_at_rest_and_at_work() {
    for system in [System::at_rest(), System::at_work()] {
        assert_eq!(system.fires().len(), 0, "{:#?}", system.fires());
    }
}

#[test]
fn nothing_fires_when_a_service_is_started_anew() {
    for service in SERVICES {
        for (system, minutes, met) in
            [(System::at_rest(), 4.0, 0.0), (System::at_rest(), 0.5, 1.0), (System::at_work(), 0.5, 0.0), (System::at_work(), 4.0, 7.0)]
        {
            let fires = system.restarted(service, minutes, met).fires();
            assert!(fires.is_empty(), "{service}: {fires:#?}");
        }
        // Its container alone: the same pod counts from 0.
        let (of_pod, mut system) = (format!("job=\"{service}\""), System::at_work());
        system.change(|series| series.contains("_total") && series.contains(&of_pod), |_, _| Some(0.0));
        let goes_on = |series: &str| (series.contains("produced") || series.contains("\"done\"")) && series.contains(&of_pod);
        system.change(goes_on, |minute, _| Some((minute * 20.0).floor()));
        let fires = system.fires();
        assert!(fires.is_empty(), "{service}: {fires:#?}");
    }
}

/// What waited for the service is handled before anybody has looked at its new pod.
#[test]
fn nothing_fires_where_one_event_waited_for_a_service_that_starts_at_rest() {
    for service in ["fte-runner", "fte-status", "fte-audit"] {
        let of_intake = "kf_messages_produced_total{namespace=\"fte\",job=\"fte-intake\"";
        let system =
            System::at_rest().changed(&[of_intake, "fte.triggers.inbound"], |_, value| Some(value + 1.0)).restarted(service, 2.0, 1.0);
        // The others have it, too.
        let others = ["fte-runner", "fte-status", "fte-audit"].into_iter().filter(|other| *other != service);
        let system = others.fold(system, |system, other| {
            system.changed(&["consumed", &format!("job=\"{other}\""), "\"fte.triggers.inbound\"", "done"], |_, value| Some(value + 1.0))
        });
        assert_eq!(system.alerts().len(), 0, "{service}: {:#?}", system.fires());
    }
}

#[test]
fn a_pod_that_is_not_ready() {
    let system = System::at_work().changed(&["kube_pod_status_ready", "fte-runner"], |_, _| Some(0.0));
    only(&system, "FteNotReady", &["fte-runner-0"], 10.5);
}

#[test]
fn a_service_that_is_gone_whether_its_pod_is_still_listed_or_not() {
    let is_of_status = |series: &str| series.contains("job=\"fte-status\"");
    let mut listed = System::at_work();
    listed.change(|series| is_of_status(series) && !series.starts_with("up"), |_, _| None);
    let listed = listed.changed(&["up{", "fte-status"], |_, _| Some(0.0));
    only(&listed, "FteServiceGone", &["fte-status"], 5.5);
    let mut gone = System::at_work();
    gone.change(is_of_status, |_, _| None);
    only(&gone, "FteServiceGone", &["fte-status"], 5.5);
}

#[test]
fn a_group_that_is_far_behind() {
    let system = System::at_work().changed(&["kafka_consumergroup_lag", "fte-audit", "fte.status.updates"], |_, _| Some(1001.0));
    only(&system, "FteConsumerLag", &["fte-audit", "1001", "fte.status.updates"], 10.5);
}

/// Its sidecar reads nothing at all, as where Kafka refuses a topic or the group.
#[test]
fn a_service_that_is_given_nothing() {
    for service in ["fte-runner", "fte-status", "fte-audit"] {
        let of_service = format!("job=\"{service}\"");
        let system = System::at_work().changed(&["kf_messages_consumed_total", &of_service], |_, value| Some(value));
        only(&system, "FteNothingArrives", &[service, "fte.triggers.inbound"], 20.5);
        let fires = system.fires();
        assert!(fires.iter().all(|firing| firing.labels["job"] == service), "{fires:#?}");
        assert!(fires.iter().all(|firing| f64::from(firing.to_s) >= (MINUTES - 1.0) * 60.0), "it fires until it is over: {fires:#?}");
        // It has never counted anything.
        let absent = System::at_work().without(&["kf_messages_consumed_total", &of_service]);
        assert_eq!(absent.alerts(), BTreeSet::from(["FteNothingArrives".to_owned()]), "{service}");
        let summary = &absent.fires()[0].annotations["summary"];
        assert_eq!(*summary, format!("{service} is given nothing of fte.triggers.inbound"));
        // Nobody has anything for it.
        assert_eq!(System::at_rest().without(&["kf_messages_consumed_total", &of_service]).alerts().len(), 0);
    }
}

/// It was started anew, and has been given nothing since.
#[test]
fn a_service_that_is_given_nothing_since_its_start() {
    let system = System::at_work()
        .restarted("fte-status", 1.0, 0.0)
        .changed(&["kf_messages_consumed_total", "fte-status", "10.0.0.2"], |minute, _| (minute >= 1.0).then_some(0.0));
    only(&system, "FteNothingArrives", &["fte-status", "fte.results.completed"], 21.0);
}

/// One task in two hours is enough, and one topic.
#[test]
fn a_single_event_of_a_single_topic_that_does_not_arrive() {
    let of_intake = "kf_messages_produced_total{namespace=\"fte\",job=\"fte-intake\"";
    let system = System::at_rest().changed(&[of_intake, "fte.triggers.inbound"], |_, value| Some(value + 1.0));
    let system = ["fte-runner", "fte-audit"].into_iter().fold(system, |system, has_it| {
        system.changed(&["consumed", &format!("job=\"{has_it}\""), "\"fte.triggers.inbound\"", "done"], |_, value| Some(value + 1.0))
    });
    only(&system, "FteNothingArrives", &["fte-status", "fte.triggers.inbound"], 6.0);
    assert!(system.fires().iter().all(|firing| firing.labels["job"] == "fte-status"));
}

/// All places of the runner are taken: it is given events, and asks for them again.
#[test]
fn who_puts_off_what_it_is_given_is_given_something() {
    let mut system = System::at_work();
    let consumed = |series: &str| series.contains("consumed") && series.contains("fte-runner");
    system.change(|series| consumed(series) && series.contains("done"), |_, value| Some(value));
    system.change(|series| consumed(series) && series.contains("retry"), more(10.0));
    only(&system, "FteRetries", &["fte-runner", "fte.triggers.inbound"], 26.0);
}

#[test]
fn an_event_that_can_never_be_handled() {
    let once = |_: f64, value: f64| Some(value + 1.0);
    let sent = System::at_rest().changed(&["kf_dead_letters_total", "fte-runner", "fte.triggers.inbound"], once);
    only(&sent, "FteDeadLetters", &[], 1.0);
    // Dapr's own letter, which no service of ours has sent.
    let received = System::at_rest().changed(&["fte_status_dead_letters_total", "received"], once);
    only(&received, "FteDeadLetters", &[], 1.0);
    let decided = System::at_rest().changed(&["fte_status_dead_letters_total", "replayed"], once);
    assert_eq!(decided.alerts().into_iter().collect::<Vec<_>>(), NOTHING);
}

/// Kafka refuses some, or all.
#[test]
fn what_is_published_at_the_second_try_or_not_at_all() {
    let of_topic = ["fte-runner", "fte.status.updates"];
    let some = System::at_work().changed(&[&["kf_publish_retries_total"][..], &of_topic].concat(), more(5.0));
    only(&some, "FtePublishRetries", &of_topic, 26.0);
    let all = some.changed(&[&["kf_messages_produced_total"][..], &of_topic].concat(), |_, value| Some(value));
    only(&all, "FtePublishRetries", &of_topic, 26.0);
}

#[test]
fn actions_that_are_missing_or_were_dropped() {
    only(&System::at_rest().changed(&["fte_audit_actions_missing"], |_, _| Some(2.0)), "FteAuditGap", &["2 recorded actions"], 15.5);
    // On its way for a while.
    let late = System::at_rest().changed(&["fte_audit_actions_missing"], |minute, _| Some(f64::from(u8::from(minute < 10.0))));
    assert_eq!(late.alerts().len(), 0);
    // It is told for a day, and again when there is more.
    let days = System::new(0.0, 300, 3.0 * DAY);
    let twice = days.changed(&["fte_audit_actions_missing"], |minute, _| Some(if minute < 2.0 * DAY { 2.0 } else { 3.0 }));
    let told: Vec<(f64, String)> = twice.fires().iter().map(|firing| (firing.after(), firing.annotations["summary"].clone())).collect();
    assert!(told.len() == 2 && told[0].0 < 20.0 && told[1].0 > 2.0 * DAY && told[1].1.starts_with("3 recorded"), "{told:?}");
    assert!(f64::from(twice.fires()[0].to_s) / 60.0 < THEN + DAY + 10.0, "{:?}", twice.fires()[0]);
    let dropped = System::at_rest().changed(&["fte_audit_actions_dropped_total", "fte-intake"], |_, value| Some(value + 1.0));
    only(&dropped, "FteAuditActionsDropped", &["fte-intake"], 1.0);
    let conflict = System::at_rest().changed(&["fte_audit_entries_total", "conflict"], |_, value| Some(value + 1.0));
    only(&conflict, "FteAuditConflict", &["came again with other contents"], 1.0);
}

#[test]
fn a_read_model_that_cannot_write_and_a_volume_that_is_nearly_full() {
    only(&System::at_work().changed(&["fte_status_commits_failed_total"], more(1.0)), "FteStatusWritesFail", &[], 2.0);
    let full = System::at_rest().changed(&["kubelet_volume_stats_available_bytes", "data-fte-audit-0"], |_, _| Some(14e9));
    only(&full, "FteVolumeFull", &["data-fte-audit-0"], 15.5);
}

/// The series of an answer appears with the first such answer.
#[test]
fn answers_that_are_errors_or_put_off() {
    let answers = |system: &mut System, status: &str, each_minute: f64| {
        let series = of("fte-intake", "fte_http_request_sec_count", &format!("route=\"/v1/tasks\",method=\"POST\",status=\"{status}\""));
        system.set(series, move |minute| (minute >= THEN).then(|| (1.0 + (minute - THEN) * each_minute).floor()));
    };
    for (status, alert) in [("500", "FteErrors"), ("5xx", "FteErrors"), ("503", "FteBusy"), ("429", "FteBusy")] {
        let mut system = System::at_work();
        answers(&mut system, status, 10.0);
        only(&system, alert, &["fte-intake"], 16.0);
        let mut few = System::at_work();
        answers(&mut few, status, 0.5);
        assert_eq!(few.alerts().len(), 0, "{status}: {:#?}", few.fires());
        // Whoever asks a quiet service once an hour, and gets this, wakes nobody.
        let mut once = System::at_rest();
        answers(&mut once, status, 0.0);
        assert_eq!(once.alerts().len(), 0, "{status}: {:#?}", once.fires());
    }
}

/// Each rule has a case above, by its name.
#[test]
fn every_alert_is_tried() {
    let tried = include_str!("firing.rs");
    let rules = render("secured")["PrometheusRule/fte"].value["spec"]["groups"][0]["rules"].clone();
    for rule in rules.as_array().unwrap() {
        let alert = text(rule, "alert");
        assert!(tried.contains(&format!("\"{alert}\"")), "{alert} is not tried");
    }
}
