//! What every service needs, read once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fte_bus::Bulk;

use crate::agents::Agents;
use crate::configured::Configured;
use crate::env::{ConfigError, Env};
use crate::keys::Keys;

/// Port that the sidecar calls; `dapr run` sets it.
pub const ENV_APP_PORT: &str = "APP_PORT";
/// Address of the public API. Default: loopback, and a port of each service's own.
pub const ENV_API_ADDR: &str = "FTE_API_ADDR";
/// Base URL of the sidecar. Default: loopback and [`ENV_DAPR_HTTP_PORT`].
pub const ENV_SIDECAR_URL: &str = "FTE_SIDECAR_URL";
/// Port of the sidecar's HTTP API; `dapr run` sets it. Default 3500.
pub const ENV_DAPR_HTTP_PORT: &str = "DAPR_HTTP_PORT";
/// Token that the sidecar asks for.
pub const ENV_DAPR_API_TOKEN: &str = "DAPR_API_TOKEN";
/// Token that the sidecar shows when it calls.
pub const ENV_APP_API_TOKEN: &str = "APP_API_TOKEN";
/// Pub/sub component. Default `pubsub`.
pub const ENV_PUBSUB: &str = "FTE_PUBSUB";
/// State store component. Default `statestore`.
pub const ENV_STATESTORE: &str = "FTE_STATESTORE";
/// Secret store component. Default `secretstore`.
pub const ENV_SECRETSTORE: &str = "FTE_SECRETSTORE";
/// `true` asks the sidecar for every event in quick batches; default `false`. In Dapr one lock per Kafka component guards all batches of a sidecar, over
/// all topics and partitions. Quick ones, of many partitions, stand in each other's way until each has an event or two; so only what somebody waits for comes
/// in quick ones there, and the rest in slow ones. The embedded sidecar has no such lock, and quick batches are several times as fast.
pub const ENV_BULK_DELIVERY: &str = "FTE_BULK_DELIVERY";
/// Directory of everything that is kept here. Default `fte-data`.
pub const ENV_DATA: &str = "FTE_DATA";
/// The `agents.toml`. Default: none, which means the built-in agents.
pub const ENV_AGENTS: &str = "FTE_AGENTS";
/// Longest drain at the end, in milliseconds. Default 10 000.
pub const ENV_DRAIN_MS_MAX: &str = "FTE_DRAIN_MS_MAX";
/// Further names by which the API may be called, separated by commas (`fte.example.com`). Loopback names always are.
pub const ENV_ALLOWED_HOSTS: &str = "FTE_ALLOWED_HOSTS";
/// Where people reach the API: the start of the links that they are sent, such as `https://fte.example.com`. Its host is one of those by which the API may be
/// called. Default: the API's own address.
pub const ENV_PUBLIC_URL: &str = "FTE_PUBLIC_URL";
/// Largest body of an API request, in bytes. Default 524 288: a task of 32 000 characters and its context, however they are escaped.
pub const ENV_BODY_BYTES_MAX: &str = "FTE_BODY_BYTES_MAX";
/// Most API connections at a time; more wait to be accepted. Default 1 024.
pub const ENV_CONNECTIONS_MAX: &str = "FTE_CONNECTIONS_MAX";

/// The file of API keys: see [`crate::keys`]. Default: none, which means that anybody may call, from this machine only.
pub const ENV_API_KEYS_FILE: &str = "FTE_API_KEYS_FILE";
/// `true` lets anybody call who can reach the API's address, on whatever address it listens: for an API that stands behind something that asks.
pub const ENV_ALLOW_ANONYMOUS: &str = "FTE_ALLOW_ANONYMOUS";

/// How long a quick batch gathers.
const QUICK_MS: u32 = 20;

/// The ports a service has when nobody says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// What the sidecar calls.
    pub app: u16,
    /// What people call.
    pub api: u16,
}

/// A token: usable, but never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; handle with care.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What every service needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port that the sidecar calls, on loopback.
    pub app_port: u16,
    /// Address of the public API.
    pub api_addr: SocketAddr,
    /// Base URL of the sidecar.
    pub sidecar_url: String,
    /// Token that the sidecar asks for.
    pub sidecar_token: Option<Secret>,
    /// Token that the sidecar shows.
    pub app_token: Option<Secret>,
    /// Pub/sub component.
    pub pubsub: String,
    /// Whether all events are asked for in quick batches.
    pub bulk_delivery: bool,
    /// State store component.
    pub statestore: String,
    /// Secret store component.
    pub secretstore: String,
    /// Directory of everything that is kept here.
    pub data_dir: PathBuf,
    /// Where `agents` came from.
    pub agents_file: Option<PathBuf>,
    /// The configured agents.
    pub agents: Arc<Agents>,
    /// Longest drain at the end.
    pub drain: Duration,
    /// Where people reach the API, without a slash at its end.
    pub public_url: String,
    /// Further names by which the API may be called.
    pub allowed_hosts: Vec<String>,
    /// Largest body of an API request.
    pub body_bytes_max: usize,
    /// Most API connections at a time.
    pub connections_max: usize,
    /// Who may call; none: anybody.
    pub keys: Option<Keys>,
    /// What was configured, for the record.
    pub configured: Arc<Configured>,
}

impl Settings {
    /// Reads the environment, and the agents file that it names.
    pub fn from_env(env: &impl Env, ports: Ports) -> Result<Self, ConfigError> {
        let agents_file = env.parsed::<PathBuf>(ENV_AGENTS)?;
        let agents = match &agents_file {
            Some(path) => Agents::read(ENV_AGENTS, path)?,
            None => Agents::built_in(),
        };
        let api_addr = env.parsed_or(ENV_API_ADDR, SocketAddr::from(([127, 0, 0, 1], ports.api)))?;
        let keys = env.parsed::<PathBuf>(ENV_API_KEYS_FILE)?.map(|path| Keys::read(ENV_API_KEYS_FILE, &path)).transpose()?;
        let allow_anonymous = env.parsed_or(ENV_ALLOW_ANONYMOUS, false)?;
        if keys.is_none() && !api_addr.ip().is_loopback() && !allow_anonymous {
            let expected = format!(
                "an address of this machine only, such as 127.0.0.1:{}, since anybody could start agents there: name a file of API keys in \
                 {ENV_API_KEYS_FILE} (`fte keys new` makes keys), or set {ENV_ALLOW_ANONYMOUS}=true if something before this API asks who calls",
                api_addr.port()
            );
            return Err(ConfigError::variable(ENV_API_ADDR, api_addr.to_string(), expected));
        }
        let public = public_url(env)?;
        let mut allowed_hosts = hosts(env)?;
        allowed_hosts.extend(public.as_ref().and_then(|(_, host)| host.clone()));
        Ok(Self {
            app_port: env.parsed_or(ENV_APP_PORT, ports.app)?,
            api_addr,
            sidecar_url: sidecar_url(env)?,
            sidecar_token: token(env, ENV_DAPR_API_TOKEN)?,
            app_token: token(env, ENV_APP_API_TOKEN)?,
            pubsub: component(env, ENV_PUBSUB, "pubsub")?,
            bulk_delivery: env.parsed_or(ENV_BULK_DELIVERY, false)?,
            statestore: component(env, ENV_STATESTORE, "statestore")?,
            secretstore: component(env, ENV_SECRETSTORE, "secretstore")?,
            data_dir: env.parsed_or(ENV_DATA, PathBuf::from("fte-data"))?,
            agents_file,
            agents: Arc::new(agents),
            drain: env.millis_or(ENV_DRAIN_MS_MAX, Duration::from_secs(10))?,
            public_url: public.map_or_else(|| url_of(api_addr), |(url, _)| url),
            allowed_hosts,
            body_bytes_max: at_least(env, ENV_BODY_BYTES_MAX, 512 * 1024, 1024)?,
            connections_max: at_least(env, ENV_CONNECTIONS_MAX, 1024, 1)?,
            keys,
            configured: Arc::new(Configured::of(env)),
        })
    }

    /// How long a store keeps a transaction open for more events: not at all where they have gathered already, or come in many deliveries at a time.
    pub fn group_open(&self, quick: Duration) -> Duration {
        if self.bulk_delivery { quick } else { Duration::ZERO }
    }

    /// How events are asked for: in batches of so many at most, quick ones, or those that gather for so many milliseconds.
    pub fn batches(&self, max_count: u32, gather_ms: u32) -> Option<Bulk> {
        Some(Bulk { max_count, max_await_ms: if self.bulk_delivery { QUICK_MS } else { gather_ms } })
    }
}

fn sidecar_url(env: &impl Env) -> Result<String, ConfigError> {
    let Some(url) = env.get(ENV_SIDECAR_URL) else {
        let port = env.parsed_or::<u16>(ENV_DAPR_HTTP_PORT, 3500)?;
        return Ok(format!("http://127.0.0.1:{port}"));
    };
    let usable = url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
    if usable { Ok(url) } else { Err(ConfigError::variable(ENV_SIDECAR_URL, url, "a URL such as http://127.0.0.1:3500")) }
}

/// The URL of the API at this address, as one calls it from the same machine.
pub fn url_of(api_addr: SocketAddr) -> String {
    if api_addr.ip().is_unspecified() { format!("http://localhost:{}", api_addr.port()) } else { format!("http://{api_addr}") }
}

/// The public URL and the name of its host, if that is a name.
fn public_url(env: &impl Env) -> Result<Option<(String, Option<String>)>, ConfigError> {
    let Some(url) = env.get(ENV_PUBLIC_URL) else { return Ok(None) };
    let uri = url.parse::<http::Uri>().ok();
    let usable =
        uri.as_ref().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !url.contains('#'));
    match usable.and_then(http::Uri::host) {
        Some(host) => {
            let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
            Ok(Some((url.trim_end_matches('/').to_owned(), is_name.then(|| host.to_ascii_lowercase()))))
        }
        None => Err(ConfigError::variable(ENV_PUBLIC_URL, url, "a URL such as https://fte.example.com")),
    }
}

fn token(env: &impl Env, name: &str) -> Result<Option<Secret>, ConfigError> {
    let Some(token) = env.get(name) else {
        return Ok(None);
    };
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Some(Secret::new(token)))
    } else {
        Err(ConfigError::variable(name, "…", "a token of visible ASCII characters, without spaces"))
    }
}

fn component(env: &impl Env, name: &str, default: &str) -> Result<String, ConfigError> {
    let value = env.get(name).unwrap_or_else(|| default.to_owned());
    // Dapr's bulk route would take a component named `bulk` for itself.
    let usable = value != "bulk" && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if usable { Ok(value) } else { Err(ConfigError::variable(name, value, "the name of a Dapr component: a-z, 0-9, '-', '.'")) }
}

fn hosts(env: &impl Env) -> Result<Vec<String>, ConfigError> {
    let Some(list) = env.get(ENV_ALLOWED_HOSTS) else {
        return Ok(Vec::new());
    };
    let names = list.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
    let names: Vec<String> = names.collect();
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    match names.iter().all(is_name) {
        true => Ok(names),
        false => Err(ConfigError::variable(ENV_ALLOWED_HOSTS, list, "host names without ports, separated by commas")),
    }
}

fn at_least(env: &impl Env, name: &str, default: usize, min: usize) -> Result<usize, ConfigError> {
    let value = env.parsed_or(name, default)?;
    if value >= min { Ok(value) } else { Err(ConfigError::variable(name, value.to_string(), format!("at least {min}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MapEnv;

    const PORTS: Ports = Ports { app: 7001, api: 8001 };

    #[test]
    fn nothing_set_gives_loopback_and_the_services_ports() {
        let settings = Settings::from_env(&MapEnv::default(), PORTS).unwrap();
        assert_eq!(settings.api_addr.to_string(), "127.0.0.1:8001");
        assert_eq!(settings.app_port, 7001);
        assert_eq!(settings.sidecar_url, "http://127.0.0.1:3500");
        assert!(settings.agents.agents.contains_key("echo"));
    }

    #[test]
    fn dapr_s_own_variables_are_understood() {
        let env = MapEnv::of([("DAPR_HTTP_PORT", "3601"), ("APP_PORT", "9"), ("DAPR_API_TOKEN", "s3cret")]);
        let settings = Settings::from_env(&env, PORTS).unwrap();
        assert_eq!(settings.sidecar_url, "http://127.0.0.1:3601");
        assert_eq!(settings.app_port, 9);
        assert_eq!(settings.sidecar_token.as_ref().unwrap().expose(), "s3cret");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        let check = |name: &str, value: &str| {
            let error = Settings::from_env(&MapEnv::of([(name, value)]), PORTS).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("expected"), "{error}");
        };
        check(ENV_APP_PORT, "99999");
        check(ENV_API_ADDR, "localhost");
        check(ENV_SIDECAR_URL, "https://sidecar");
        check(ENV_PUBSUB, "bulk");
        check(ENV_BULK_DELIVERY, "perhaps");
        check(ENV_STATESTORE, "a/b");
        check(ENV_PUBLIC_URL, "fte.example.com");
        check(ENV_PUBLIC_URL, "https://fte.example.com/?x=1");
        check(ENV_ALLOWED_HOSTS, "http://x");
        check(ENV_BODY_BYTES_MAX, "10");
        check(ENV_DRAIN_MS_MAX, "10s");
    }

    #[test]
    fn links_begin_with_the_public_url_or_the_api_s_address() {
        let read = |env: MapEnv| Settings::from_env(&env, PORTS).unwrap();
        assert_eq!(read(MapEnv::default()).public_url, "http://127.0.0.1:8001");
        let anywhere = [(ENV_API_ADDR, "0.0.0.0:9000"), (ENV_ALLOW_ANONYMOUS, "true")];
        assert_eq!(read(MapEnv::of(anywhere)).public_url, "http://localhost:9000");
        let settings = read(MapEnv::of([(ENV_PUBLIC_URL, "https://FTE.example.com/ai/"), (ENV_ALLOWED_HOSTS, "other.example.com")]));
        assert_eq!(settings.public_url, "https://FTE.example.com/ai");
        assert_eq!(settings.allowed_hosts, ["other.example.com", "fte.example.com"], "links must be of use");
    }

    #[test]
    fn events_come_in_quick_batches_only_where_that_is_asked_for() {
        let read = |env: MapEnv| Settings::from_env(&env, PORTS).unwrap();
        let ways = |settings: &Settings| {
            let await_ms = |bulk: Option<Bulk>| bulk.map(|bulk| (bulk.max_count, bulk.max_await_ms));
            let open = settings.group_open(Duration::from_millis(8));
            (await_ms(settings.batches(512, 500)), open)
        };
        assert_eq!(ways(&read(MapEnv::of([]))), (Some((512, 500)), Duration::ZERO));
        let quick = read(MapEnv::of([(ENV_BULK_DELIVERY, "true")]));
        assert_eq!(ways(&quick), (Some((512, 20)), Duration::from_millis(8)));
    }

    #[test]
    fn an_address_that_others_can_reach_takes_keys() {
        let public = (ENV_API_ADDR, "0.0.0.0:8080");
        let error = Settings::from_env(&MapEnv::of([public]), PORTS).unwrap_err().to_string();
        assert!(error.contains("FTE_API_KEYS_FILE") && error.contains("FTE_ALLOW_ANONYMOUS=true"), "{error}");
        assert!(Settings::from_env(&MapEnv::of([public, (ENV_ALLOW_ANONYMOUS, "true")]), PORTS).is_ok());
        let error = Settings::from_env(&MapEnv::of([(ENV_API_KEYS_FILE, "/nowhere/keys.toml")]), PORTS).unwrap_err().to_string();
        assert!(error.starts_with("FTE_API_KEYS_FILE=/nowhere/keys.toml"), "{error}");
    }

    #[test]
    fn a_bad_token_is_refused_without_being_shown() {
        let error = Settings::from_env(&MapEnv::of([("APP_API_TOKEN", "two words")]), PORTS).unwrap_err();
        assert_eq!(error.to_string(), "APP_API_TOKEN=…: expected a token of visible ASCII characters, without spaces");
    }
}
