//! `dapr.yaml` as Dapr's CLI reads it, and the command line of `daprd` that the CLI makes of it.
//!
//! A key that is not known here is an error: it would be left out without a word.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fte_tests::infrastructure::root;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunFile {
    pub(crate) version: u32,
    #[serde(default)]
    common: Options,
    apps: Vec<AppEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppEntry {
    #[serde(rename = "appID")]
    id: String,
    app_dir_path: PathBuf,
    app_port: u16,
    command: Vec<String>,
    #[serde(flatten)]
    own: Options,
}

/// What may stand in `common` and at an app; the app's own counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Options {
    resources_paths: Vec<PathBuf>,
    config_file_path: Option<PathBuf>,
    api_listen_addresses: Option<String>,
    placement_host_address: Option<String>,
    scheduler_host_address: Option<String>,
    app_protocol: Option<String>,
    enable_app_health_check: Option<bool>,
    app_health_check_path: Option<String>,
    app_health_probe_interval: Option<u32>,
    app_health_probe_timeout: Option<u32>,
    app_health_threshold: Option<u32>,
    log_level: Option<String>,
    env: BTreeMap<String, String>,
}

/// An app and its sidecar, all paths absolute.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) resources: Vec<PathBuf>,
    pub(crate) config: PathBuf,
    pub(crate) placement: String,
    pub(crate) scheduler: String,
    /// How it ends, where it is a pod; otherwise its sidecar leaves it at once.
    pub(crate) end: Option<End>,
    options: Options,
}

/// The end of a pod, as the chart has it by default.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct End {
    /// From the end of the pod on until its service is asked to end.
    #[serde(rename = "preStopSeconds")]
    pub(crate) pre_stop_s: u64,
    /// What the service then has.
    #[serde(rename = "drainSeconds")]
    pub(crate) drain_s: u64,
    #[serde(rename = "marginSeconds")]
    margin_s: u64,
    /// What the sidecar has besides.
    #[serde(rename = "sidecarSeconds")]
    sidecar_s: u64,
}

impl End {
    pub(crate) fn of_the_chart() -> Self {
        #[derive(Deserialize)]
        struct Values {
            shutdown: End,
        }
        let values = std::fs::read_to_string(root().join("deploy/helm/fte/values.yaml")).unwrap();
        serde_saphyr::from_str::<Values>(&values).unwrap().shutdown
    }

    /// How long the sidecar goes on, at most.
    fn block_s(self) -> u64 {
        self.pre_stop_s + self.drain_s + self.margin_s
    }

    /// When Kubernetes would kill what is left.
    pub(crate) fn kill_s(self) -> u64 {
        self.block_s() + self.sidecar_s + 5
    }
}

/// The ports that the CLI finds for a sidecar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SidecarPorts {
    pub(crate) http: u16,
    pub(crate) grpc: u16,
    pub(crate) internal_grpc: u16,
    pub(crate) metrics: u16,
}

impl RunFile {
    /// The apps of a run file.
    pub(crate) fn read(path: &Path) -> Vec<App> {
        let base = path.parent().unwrap();
        let file: Self = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(file.version, 1);
        let app = |entry: AppEntry| {
            let dir = base.join(&entry.app_dir_path).canonicalize().unwrap();
            // Paths of the common part are relative to the file, those of an app to its directory.
            let own = entry.own.resolved(&dir);
            let options = own.or(file.common.clone().resolved(base));
            App {
                id: entry.id,
                dir,
                port: entry.app_port,
                command: entry.command,
                env: options.env.clone(),
                resources: options.resources_paths.clone(),
                config: options.config_file_path.clone().expect("without it the CLI takes the user's own configuration"),
                placement: options.placement_host_address.clone().unwrap_or_else(|| "localhost:50005".to_owned()),
                scheduler: options.scheduler_host_address.clone().unwrap_or_else(|| "localhost:50006".to_owned()),
                end: None,
                options,
            }
        };
        file.apps.into_iter().map(app).collect()
    }
}

impl Options {
    fn resolved(mut self, base: &Path) -> Self {
        let absolute = |path: &Path| base.join(path).canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.resources_paths = self.resources_paths.iter().map(|path| absolute(path)).collect();
        self.config_file_path = self.config_file_path.as_deref().map(absolute);
        self
    }

    fn or(self, common: Self) -> Self {
        let mut env = common.env;
        env.extend(self.env);
        Self {
            resources_paths: if self.resources_paths.is_empty() { common.resources_paths } else { self.resources_paths },
            config_file_path: self.config_file_path.or(common.config_file_path),
            api_listen_addresses: self.api_listen_addresses.or(common.api_listen_addresses),
            placement_host_address: self.placement_host_address.or(common.placement_host_address),
            scheduler_host_address: self.scheduler_host_address.or(common.scheduler_host_address),
            app_protocol: self.app_protocol.or(common.app_protocol),
            enable_app_health_check: self.enable_app_health_check.or(common.enable_app_health_check),
            app_health_check_path: self.app_health_check_path.or(common.app_health_check_path),
            app_health_probe_interval: self.app_health_probe_interval.or(common.app_health_probe_interval),
            app_health_probe_timeout: self.app_health_probe_timeout.or(common.app_health_probe_timeout),
            app_health_threshold: self.app_health_threshold.or(common.app_health_threshold),
            log_level: self.log_level.or(common.log_level),
            env,
        }
    }
}

impl App {
    /// What the CLI hands to `daprd`.
    pub(crate) fn daprd_arguments(&self, ports: SidecarPorts) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([format!("--{name}").into(), value]);
        add("app-id", self.id.clone().into());
        add("app-port", self.port.to_string().into());
        add("dapr-http-port", ports.http.to_string().into());
        add("dapr-grpc-port", ports.grpc.to_string().into());
        add("dapr-internal-grpc-port", ports.internal_grpc.to_string().into());
        add("metrics-port", ports.metrics.to_string().into());
        add("config", self.config.clone().into());
        add("placement-host-address", self.placement.clone().into());
        add("scheduler-host-address", self.scheduler.clone().into());
        self.resources.iter().for_each(|path| add("resources-path", path.clone().into()));
        // The CLI's own defaults.
        add("app-protocol", self.options.app_protocol.clone().unwrap_or_else(|| "http".to_owned()).into());
        add("app-max-concurrency", "-1".into());
        add("max-body-size", "4Mi".into());
        add("read-buffer-size", "4Ki".into());
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let options = &self.options;
        for (name, value) in [
            ("dapr-listen-addresses", options.api_listen_addresses.clone()),
            ("log-level", options.log_level.clone()),
            ("app-health-check-path", options.app_health_check_path.clone()),
            ("app-health-probe-interval", number(options.app_health_probe_interval)),
            ("app-health-probe-timeout", number(options.app_health_probe_timeout)),
            ("app-health-threshold", number(options.app_health_threshold)),
        ] {
            if let Some(value) = value {
                add(name, value.into());
            }
        }
        if let Some(end) = self.end {
            for (name, value) in [
                ("dapr-block-shutdown-duration", format!("{}s", end.block_s())),
                ("dapr-graceful-shutdown-seconds", end.sidecar_s.to_string()),
            ] {
                arguments.extend([format!("--{name}").into(), value.into()]);
            }
        }
        if options.enable_app_health_check == Some(true) {
            arguments.push("--enable-app-health-check".into());
        }
        arguments
    }

    /// What the CLI adds to the environment of the app.
    pub(crate) fn app_env(&self, ports: SidecarPorts) -> Vec<(String, String)> {
        let set = [
            ("APP_ID", self.id.clone()),
            ("APP_PORT", self.port.to_string()),
            ("APP_PROTOCOL", "http".to_owned()),
            ("DAPR_HTTP_PORT", ports.http.to_string()),
            ("DAPR_GRPC_PORT", ports.grpc.to_string()),
            ("DAPR_METRICS_PORT", ports.metrics.to_string()),
        ];
        set.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(self.env.clone()).collect()
    }
}
