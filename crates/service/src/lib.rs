//! What every service shares: config, telemetry, problem bodies, health, run and drain.
