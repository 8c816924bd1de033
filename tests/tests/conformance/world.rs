//! What a case has at hand: the sidecar's API, the app, and the words in which cases are told.

use std::collections::HashSet;
use std::sync::Mutex;

use bytes::Bytes;
use fte_testkit::{Client, Response, eventually_within};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::app::{Apps, Delivery, Reply, Who};
use crate::feature::Feature;
use crate::target::{Plan, START_MAX, Target};
use crate::topics::{self, INSTANCES, Mode, TOPICS};

/// The target and its apps.
pub(crate) struct World {
    // The sidecar ends before its apps do.
    pub(crate) target: Target,
    pub(crate) apps: Apps,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const CLOUD_EVENT: &str = "application/cloudevents+json";

impl World {
    /// Starts everything and waits until an event has come through every subscription.
    pub(crate) async fn start() -> Self {
        let plan = Plan::read().await;
        let whose = plan.apps().await;
        let subscriptions =
            |who| if who == Who::First { topics::subscriptions(&plan.pubsub) } else { topics::second_subscriptions(&plan.pubsub) };
        let apps = Apps::start(whose.iter().map(|(who, port)| (*who, *port, subscriptions(*who))).collect()).await;
        let ports: Vec<_> = whose.iter().enumerate().map(|(index, (who, _))| (*who, apps.port(index))).collect();
        let world = Self { target: plan.target(&ports).await, apps };
        world.ready().await;
        world.warm().await;
        if world.has(Feature::SecondInstance) {
            // One may have got all of these while the other still joins, which shares the partitions out anew: what is under way then comes again.
            world.shared().await;
            world.warm().await;
        }
        world
    }

    /// Waits until an event has come through every subscription.
    async fn warm(&self) {
        for topic in TOPICS.iter().filter(|topic| topic.mode != Mode::Unread) {
            let mark = self.publish_marked(topic.name, "warm").await;
            self.arrives(Who::First, &mark).await;
            if topics::SECOND.contains(&topic.name) && self.has(Feature::SecondApp) {
                self.arrives(Who::Second, &mark).await;
            }
        }
    }

    /// Waits until both instances of the first app get events.
    async fn shared(&self) {
        let instances = Mutex::new(HashSet::new());
        eventually_within(START_MAX, || async {
            let mark = self.mark();
            self.publish_as(INSTANCES, &mark, &mark).await;
            self.arrives(Who::First, &mark).await;
            let mut instances = instances.lock().expect("nobody panics");
            instances.extend(self.seen(&mark).iter().map(|delivery| delivery.instance));
            if instances.len() == 2 { Ok(()) } else { Err(format!("only {instances:?} got anything")) }
        })
        .await;
    }

    /// Waits for an event with more patience: a consumer group may be forming.
    pub(crate) async fn arrives(&self, who: Who, mark: &str) {
        eventually_within(START_MAX, || async {
            if self.apps.seen(who, mark).is_empty() { Err(format!("{mark} at {who:?}")) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until every sidecar says that it and its app are ready.
    pub(crate) async fn ready(&self) {
        for sidecar in &self.target.sidecars {
            eventually_within(START_MAX, || async {
                let answer = sidecar.client.get("/v1.0/healthz").await.map_err(|error| error.to_string())?;
                if answer.status == 204 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.target.features.contains(&feature)
    }

    /// The API that is asked.
    pub(crate) fn api(&self) -> &Client {
        &self.target.sidecars[0].client
    }

    pub(crate) fn app_id(&self) -> &str {
        &self.target.sidecars[0].app_id
    }

    /// Any request.
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).expect("a header name"), HeaderValue::from_str(value).expect("a header value"))
            })
            .collect();
        self.api().send(method, path, headers, body.into()).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(Method::POST, path, &[("content-type", JSON)], body.to_string()).await
    }

    /// The route that publishes to a topic, with this metadata (`name=value&…`, each with its `metadata.`).
    pub(crate) fn publish_path(&self, topic: &str, metadata: &str) -> String {
        let mark = if metadata.is_empty() { "" } else { "?" };
        format!("/v1.0/publish/{}/{topic}{mark}{metadata}", self.target.pubsub)
    }

    /// The route of bulk publish that every version has.
    pub(crate) fn bulk_path(&self, topic: &str, metadata: &str) -> String {
        let (mark, version) =
            (if metadata.is_empty() { "" } else { "?" }, if self.has(Feature::StableBulkPublish) { "v1.0" } else { "v1.0-alpha1" });
        format!("/{version}/publish/bulk/{}/{topic}{mark}{metadata}", self.target.pubsub)
    }

    /// Publishes; it has to be accepted.
    pub(crate) async fn publish(&self, topic: &str, metadata: &str, content_type: &str, body: impl Into<Bytes>) {
        let path = self.publish_path(topic, metadata);
        self.send(Method::POST, &path, &[("content-type", content_type)], body).await.expect_status(204);
    }

    /// Publishes an event that carries `mark`, behind what was published with the same `key`.
    pub(crate) async fn publish_as(&self, topic: &str, key: &str, mark: &str) {
        self.publish(topic, &format!("metadata.partitionKey={key}"), JSON, json!({ "mark": mark }).to_string()).await;
    }

    /// The same with a new mark, which is returned.
    pub(crate) async fn publish_marked(&self, topic: &str, key: &str) -> String {
        let mark = self.mark();
        self.publish_as(topic, key, &mark).await;
        mark
    }

    /// Publishes one more event behind `key` and waits for it: what was before it in its partition is settled.
    pub(crate) async fn settled(&self, topic: &str, key: &str) {
        let mark = self.publish_marked(topic, key).await;
        self.delivered(&mark, 1).await;
    }

    pub(crate) fn mark(&self) -> String {
        self.apps.mark()
    }

    pub(crate) fn reply(&self, mark: &str, replies: impl IntoIterator<Item = Reply>) {
        self.apps.reply(mark, replies);
    }

    /// What the first app got with `mark`, once that is `count` or more.
    #[track_caller]
    pub(crate) fn delivered(&self, mark: &str, count: usize) -> impl Future<Output = Vec<Delivery>> {
        self.apps.wait(Who::First, mark, count)
    }

    pub(crate) fn seen(&self, mark: &str) -> Vec<Delivery> {
        self.apps.seen(Who::First, mark)
    }
}

/// The code of an error, and that it says something.
#[track_caller]
pub(crate) fn error_code(answer: &Response) -> String {
    let body: Value = answer.json();
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "an error without a message: {body}");
    body["errorCode"].as_str().unwrap_or_default().to_owned()
}
