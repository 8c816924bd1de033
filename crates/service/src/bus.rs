//! The sidecar as a service uses it.

use fte_bus::{Jobs, PublishOptions, Publisher, Secrets, Sidecar, SidecarConfig, StateStore};

use crate::settings::{Secret, Settings};

/// Handles to one sidecar; cheap to clone. Nothing is sent before the first call.
#[derive(Clone, Debug)]
pub struct Bus {
    /// The connection.
    pub sidecar: Sidecar,
    /// Publishing, as `/fte/<service>`.
    pub publisher: Publisher,
    /// The state store.
    pub state: StateStore,
    /// Jobs.
    pub jobs: Jobs,
    /// The secret store.
    pub secrets: Secrets,
}

impl Bus {
    /// The sidecar that `settings` name, for the service of this name. Needs a tokio runtime.
    pub fn connect(settings: &Settings, service: &str) -> Result<Self, fte_bus::Error> {
        let mut config = SidecarConfig::at(&settings.sidecar_url);
        config.api_token = settings.sidecar_token.as_ref().map(Secret::expose).map(str::to_owned);
        let sidecar = Sidecar::new(config)?;
        let options = PublishOptions { pubsub: settings.pubsub.clone(), ..PublishOptions::default() };
        Ok(Self {
            publisher: Publisher::new(sidecar.clone(), format!("/fte/{service}"), options),
            state: StateStore::new(sidecar.clone(), &settings.statestore),
            jobs: Jobs::new(sidecar.clone()),
            secrets: Secrets::new(sidecar.clone(), &settings.secretstore),
            sidecar,
        })
    }
}
