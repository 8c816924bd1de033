//! Who claims, and the intervals of claiming.

use std::collections::BTreeSet;
use std::time::Duration;

use fte_events::sha256_hex;
use uuid::Uuid;

/// Who claims, and how long what may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// This process, new for each start: whose claims are whose.
    pub holder: String,
    /// A digest of what only one process in the cluster can hold at a time, such as a pod's name in its namespace: claims of another holder on the same
    /// seat are a dead predecessor's. Nothing where there is no such thing; then those end with their lease.
    pub seat: Option<String>,
    /// The namespaces that the sweeper looks through.
    pub namespaces: BTreeSet<String>,
    /// A claim that is not renewed ends after this.
    pub lease: Duration,
    /// A held claim is renewed this often.
    pub renew_every: Duration,
    /// How far clocks in the cluster may differ: the sweeper leaves a claim that much more time than its lease.
    pub skew_max: Duration,
    /// The sweeper looks this often.
    pub sweep_every: Duration,
    /// Longest time of one call.
    pub call_timeout: Duration,
    /// A claim that is waited for is looked at this often, should the watch be silent.
    pub poll_every: Duration,
    /// First wait before a failed call is tried again; doubled for each further one.
    pub retry_wait: Duration,
    /// Longest wait before a failed call is tried again, also when the server asks for more.
    pub retry_wait_max: Duration,
    /// A deletion that fails for this long is left to the sweeper.
    pub release_for: Duration,
}

impl Options {
    /// Claims in these namespaces. `seat` is what no two processes hold at the same time anywhere in the cluster.
    pub fn new(namespaces: BTreeSet<String>, seat: Option<&str>) -> Self {
        Self {
            holder: Uuid::new_v4().simple().to_string(),
            // A label's value has at most 63 characters.
            seat: seat.map(|seat| sha256_hex(seat.as_bytes())[..32].to_owned()),
            namespaces,
            lease: Duration::from_secs(180),
            renew_every: Duration::from_secs(45),
            skew_max: Duration::from_secs(60),
            sweep_every: Duration::from_secs(60),
            call_timeout: Duration::from_secs(10),
            poll_every: Duration::from_secs(5),
            retry_wait: Duration::from_millis(250),
            retry_wait_max: Duration::from_secs(15),
            release_for: Duration::from_secs(60),
        }
    }
}
