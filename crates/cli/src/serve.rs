//! `fte serve`: one service beside a real Dapr sidecar, configured by the environment as `dapr run` and Kubernetes set it.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;
use fte_service::{ProcessEnv, Settings};
use tokio::net::TcpListener;

use crate::error::Error;
use crate::output::Output;
use crate::server;
use crate::services::{Config, Name, stopped};
use crate::signals::Shutdown;

const AFTER_HELP: &str = "\
Everything else is read from the environment: APP_PORT, FTE_API_ADDR, DAPR_HTTP_PORT or FTE_SIDECAR_URL,
DAPR_API_TOKEN, APP_API_TOKEN, FTE_DATA, FTE_ARTIFACTS, FTE_AGENTS, FTE_LOG, FTE_LOG_FORMAT.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Serve {
    /// Which one
    service: Name,
}

impl Serve {
    pub(crate) fn run(self, output: Output) -> Result<(), Error> {
        server::run("info", self.serve(output))
    }

    async fn serve(self, output: Output) -> Result<(), Error> {
        let shutdown = Shutdown::on_signals(output)?;
        let settings = Settings::from_env(&ProcessEnv, self.service.ports()).map_err(server::config_error)?;
        let config = Config::read(self.service, &ProcessEnv).map_err(server::config_error)?;
        let app = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, settings.app_port)), "APP_PORT").await?;
        let api = listen(settings.api_addr, "FTE_API_ADDR").await?;
        let service = config.start(&settings).await?;
        tracing::info!(
            service = self.service.as_str(),
            app = app.local_addr().ok().map(tracing::field::display),
            api = api.local_addr().ok().map(tracing::field::display),
            sidecar = settings.sidecar_url,
            "serving"
        );
        fte_service::run(vec![(service, app)], api, &settings, shutdown.asked()).await.map_err(stopped)
    }
}

/// Listens; `option` is what chooses another port.
pub(crate) async fn listen(addr: SocketAddr, option: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(addr).await.map_err(|source| server::busy(&addr.to_string(), source, option))
}
