//! `fte sidecar`: the embedded sidecar alone, beside any apps in any language.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use fte_service::{Env, ProcessEnv};
use fte_sidecar::{AppSpec, Options, Resiliency};
use serde::Serialize;

use crate::error::Error;
use crate::output::Output;
use crate::server;
use crate::signals::Shutdown;

#[derive(Debug, Args)]
pub(crate) struct Sidecar {
    /// Where events and state are kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// An app: its id, its own port, the port of its sidecar API (0: any free one). An id may repeat: instances of one app
    #[arg(long = "app", required = true, value_name = "ID:APP_PORT:HTTP_PORT")]
    apps: Vec<App>,
    /// Where Resiliency files are; without it failed deliveries are tried again without limit
    #[arg(long, value_name = "DIR")]
    resources_path: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    host: IpAddr,
}

#[derive(Debug, Clone)]
struct App {
    id: String,
    app_port: u16,
    http_port: u16,
}

impl FromStr for App {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.rsplitn(3, ':');
            let http_port = parts.next()?.parse().ok()?;
            let app_port = parts.next()?.parse().ok()?;
            let id = parts.next().filter(|id| !id.is_empty())?.to_owned();
            Some(Self { id, app_port, http_port })
        };
        parse().ok_or("write it like orders:8000:3500")
    }
}

#[derive(Serialize)]
struct Listening<'a> {
    app: &'a str,
    app_port: u16,
    api: String,
}

impl Sidecar {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        server::run("info", self.serve(output))
    }

    async fn serve(self, output: Output) -> Result<(), Error> {
        let shutdown = Shutdown::on_signals(output)?;
        let mut options = Options::new(&self.data);
        if let Some(dir) = &self.resources_path {
            options.resiliency = Resiliency::from_dir(dir).map_err(|error| Error::Start {
                what: "the resources are not usable".to_owned(),
                advice: "--resources-path names a directory of YAML files".to_owned(),
                source: Some(error.into()),
            })?;
        }
        // The same names as with `daprd`.
        let (api_token, app_token) = (ProcessEnv.get("DAPR_API_TOKEN"), ProcessEnv.get("APP_API_TOKEN"));
        options.apps.extend(self.apps.iter().map(|app| AppSpec {
            app_id: app.id.clone(),
            app: SocketAddr::from(([127, 0, 0, 1], app.app_port)),
            http: SocketAddr::new(self.host, app.http_port),
            api_token: api_token.clone(),
            app_token: app_token.clone(),
        }));
        let sidecar = fte_sidecar::start(options).await.map_err(|error| server::sidecar_error(error, "--app"))?;
        let apps = self.apps.iter().zip(sidecar.http_addrs());
        let listening: Vec<_> =
            apps.map(|(app, addr)| Listening { app: &app.id, app_port: app.app_port, api: format!("http://{addr}") }).collect();
        if output.json {
            output.json_items(&listening)?;
        } else {
            listening.iter().try_for_each(|it| output.line(format!("{}  {}", it.app, it.api)))?;
        }
        let outcome = tokio::select! {
            () = shutdown.asked() => Ok(()),
            () = sidecar.failed() => Err(Error::Stopped { what: "the store of the sidecar has ended; the log says why".to_owned(), source: None }),
        };
        sidecar.stop().await;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_an_id_and_two_ports() {
        let app: App = "orders:8000:3500".parse().unwrap();
        assert_eq!((app.id.as_str(), app.app_port, app.http_port), ("orders", 8000, 3500));
        for text in ["orders", "orders:8000", ":8000:3500", "orders:8000:99999", "orders:x:1"] {
            assert!(text.parse::<App>().is_err(), "{text}");
        }
    }
}
