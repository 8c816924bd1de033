//! The four services, by name: each one's configuration, and how it starts.

use clap::ValueEnum;
use fte_service::{Bus, ConfigError, Env, Ports, ProcessEnv, Service, Settings};

use crate::error::{Error, remedy};
use crate::{claims, up};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Takes tasks
    Intake,
    /// Runs them
    Runner,
    /// Shows how they go
    Status,
    /// Keeps the record
    Audit,
}

impl Name {
    pub(crate) const ALL: [Self; 4] = [Self::Intake, Self::Runner, Self::Status, Self::Audit];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Runner => "runner",
            Self::Status => "status",
            Self::Audit => "audit",
        }
    }

    /// Its id at the sidecar.
    pub(crate) fn app_id(self) -> String {
        format!("fte-{}", self.as_str())
    }

    /// The ports that it has beside a sidecar of its own when nobody says otherwise.
    pub(crate) fn ports(self) -> Ports {
        let number = 1 + self as u16;
        Ports { app: 7400 + number, api: 8400 + number }
    }
}

/// The configuration of one service, read and found usable.
pub(crate) enum Config {
    Intake(fte_intake::Config),
    Runner(fte_runner::Config),
    Status(fte_status::Config),
    Audit(fte_audit::Config),
}

impl Config {
    pub(crate) fn read(name: Name, env: &impl Env) -> Result<Self, ConfigError> {
        Ok(match name {
            Name::Intake => Self::Intake(fte_intake::Config::from_env(env)?),
            Name::Runner => Self::Runner(fte_runner::Config::from_env(env)?),
            Name::Status => Self::Status(fte_status::Config::from_env(env)?),
            Name::Audit => Self::Audit(fte_audit::Config::from_env(env)?),
        })
    }

    fn name(&self) -> Name {
        match self {
            Self::Intake(_) => Name::Intake,
            Self::Runner(_) => Name::Runner,
            Self::Status(_) => Name::Status,
            Self::Audit(_) => Name::Audit,
        }
    }

    /// Starts the service on the sidecar that `settings` name.
    pub(crate) async fn start(self, settings: &Settings) -> Result<Service, Error> {
        let name = self.name().as_str();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Start {
            what: format!("{name} does not start"),
            advice: remedy(&*source).unwrap_or_default().to_owned(),
            source: Some(source),
        };
        let bus = Bus::connect(settings, name).map_err(|error| failed(error.into()))?;
        match self {
            Self::Intake(config) => fte_intake::start(config, settings, bus).await.map_err(|error| failed(error.into())),
            // Agents get the variables that they are allowed from the process, not from what is composed here.
            Self::Runner(config) => {
                let stage = Some(fte_sandbox::Stage::this_program().map_err(|error| failed(error.into()))?);
                // The data directory is a seat on one machine; in a cluster there are others of that name.
                let seat = config.seat.as_deref().filter(|seat| *seat != up::SEAT);
                let claims = claims::of(settings, seat).await?;
                let config = fte_runner::Config { stage, claims, ..config };
                fte_runner::start(config, settings, bus, &ProcessEnv).await.map_err(|error| failed(error.into()))
            }
            Self::Status(config) => fte_status::start(config, settings, bus).await.map_err(|error| failed(error.into())),
            Self::Audit(config) => fte_audit::start(config, settings, bus).await.map_err(|error| failed(error.into())),
        }
    }
}

/// A service that ended by itself.
pub(crate) fn stopped(error: fte_service::Error) -> Error {
    Error::Stopped { what: "the process ends, because a part of it failed".to_owned(), source: Some(error.into()) }
}
