//! What sidecars differ in. A case needs a feature, or asserts one answer with it and another without.

use serde_json::Value;

/// Something that not every target does, has or shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Feature {
    /// It is the embedded sidecar, with its deliberate differences.
    Embedded,
    /// `/v1.0/publish/bulk/…`, since 1.17. Before it is a topic of a component called `bulk`.
    StableBulkPublish,
    /// `/v1.0/jobs/…`, since 1.18.
    StableJobs,
    /// A scheduler runs, so there are jobs.
    Jobs,
    /// Plain JSON in a job's `data` reaches the app. 1.14 hands on `{}`.
    JobData,
    /// `metadata.partitionNumber` chooses the partition, since 1.18.
    PartitionNumber,
    /// `metadata.cloudevent.subject`, since 1.17.
    SubjectOverride,
    /// Of a query parameter that comes twice the first counts, since 1.15; before it was the last.
    FirstValueWins,
    /// A 404 of the app sends an event to the dead-letter topic, as DROP does, since 1.17. Before it just ended it.
    NotFoundIsDeadLettered,
    /// The codes of job errors begin with `DAPR_`, since 1.15.
    DaprJobCodes,
    /// A job's call that failed is made again, since 1.16.
    JobRetries,
    /// A job is replaced only with `overwrite`, since 1.16.
    JobOverwrite,
    /// The sidecar wants an API token.
    ApiToken,
    /// The sidecar sends the app a token.
    AppToken,
    /// A sidecar with another app id takes part.
    SecondApp,
    /// Two sidecars with the first one's app id take part.
    SecondInstance,
    /// The sidecars can be killed and started again.
    Restart,
    /// The sidecars can be asked to stop, and started again.
    Stop,
}

impl Feature {
    /// Why a case that needs this is not asked.
    pub(crate) fn missing(self) -> &'static str {
        match self {
            Self::Embedded => "only the embedded sidecar promises it",
            Self::StableBulkPublish => "the target is older than 1.17",
            Self::StableJobs => "the target is older than 1.18",
            Self::Jobs => "the target has no scheduler",
            Self::JobData => "the target loses the data of jobs",
            Self::PartitionNumber => "the target does not choose partitions by number",
            Self::FirstValueWins | Self::DaprJobCodes => "the target is older than 1.15",
            Self::JobRetries | Self::JobOverwrite => "the target is older than 1.16",
            Self::SubjectOverride | Self::NotFoundIsDeadLettered => "the target is older than 1.17",
            Self::ApiToken => "the target asks for no token",
            Self::AppToken => "the target sends no token",
            Self::SecondApp => "no sidecar of a second app takes part",
            Self::SecondInstance => "no second sidecar of the first app takes part",
            Self::Restart => "the target cannot be restarted from here",
            Self::Stop => "the target cannot be stopped from here",
        }
    }
}

/// The state store behind the target, which decides some answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Redis,
    Postgres,
}

/// What `/v1.0/metadata` says of the target.
pub(crate) struct Described {
    pub(crate) app_id: String,
    pub(crate) version: (u32, u32),
    pub(crate) embedded: bool,
    pub(crate) store: Store,
}

impl Described {
    /// Reads the metadata of a sidecar. Panics when the components the suite needs are not there.
    pub(crate) fn read(metadata: &Value, pubsub: &str, statestore: &str, version: Option<&str>) -> Self {
        let kind = |name: &str| {
            let components = metadata["components"].as_array().expect("metadata lists the components");
            let component = components.iter().find(|component| component["name"] == name);
            component.unwrap_or_else(|| panic!("there is no component {name}: {components:?}"))["type"].as_str().expect("a type")
        };
        let embedded = match kind(pubsub) {
            "pubsub.sqlite" => true,
            "pubsub.kafka" => false,
            other => panic!("pub/sub has to be Kafka, not {other}: others keep no order and lose what fails"),
        };
        let store = match kind(statestore) {
            "state.sqlite" => Store::Sqlite,
            "state.redis" => Store::Redis,
            "state.postgresql" => Store::Postgres,
            other => panic!("the answers of {other} are not recorded; use SQLite, Redis or PostgreSQL"),
        };
        let version = version.or_else(|| metadata["runtimeVersion"].as_str()).unwrap_or_default();
        let mut numbers = version.trim_start_matches('v').split('.').map_while(|part| part.parse().ok());
        let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
            panic!("{version:?} is no version: a daprd built without one says edge; tell it in FTE_CONFORMANCE_VERSION, as 1.14");
        };
        Self { app_id: metadata["id"].as_str().expect("metadata names the app").to_owned(), version: (major, minor), embedded, store }
    }

    /// What follows from version and kind.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let since = |minor: u32| self.version >= (1, minor);
        [
            (self.embedded, Feature::Embedded),
            (since(17), Feature::StableBulkPublish),
            (since(18), Feature::StableJobs),
            (true, Feature::Jobs),
            (since(15), Feature::JobData),
            (since(18), Feature::PartitionNumber),
            (since(17), Feature::SubjectOverride),
            (since(15), Feature::FirstValueWins),
            (since(17), Feature::NotFoundIsDeadLettered),
            (since(15), Feature::DaprJobCodes),
            (since(16), Feature::JobRetries),
            (since(16), Feature::JobOverwrite),
        ]
        .into_iter()
        .filter_map(|(has, feature)| has.then_some(feature))
        .collect()
    }
}
