//! The tables on the server, in a schema of their own. See the SQLite ones for what the columns mean.

use super::connection::{Connector, SCHEMA};
use super::{artifacts, erasing};
use crate::store::StoreError;

/// The version of the tables.
const VERSION: i64 = 3;

/// Names are compared by their bytes, as everywhere else in this program. An event's id is `u` and the 16 bytes of a UUID, or `t` and any other text.
const TABLES: &str = r#"
CREATE TABLE fte_status.head (one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), seq BIGINT NOT NULL, version BIGINT NOT NULL);

CREATE TABLE fte_status.event (
    seq    BIGINT PRIMARY KEY,
    task   BYTEA,
    tenant TEXT COLLATE "C" NOT NULL,
    id     BYTEA NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    type   TEXT COLLATE "C" NOT NULL,
    stored BIGINT NOT NULL,
    body   BYTEA NOT NULL
);
CREATE UNIQUE INDEX event_identity ON fte_status.event (id, source);
CREATE INDEX event_of_task ON fte_status.event (task, seq) WHERE task IS NOT NULL;

CREATE TABLE fte_status.task (
    id      BYTEA NOT NULL,
    tenant  TEXT COLLATE "C" NOT NULL,
    status  SMALLINT NOT NULL,
    agent   TEXT COLLATE "C",
    created BIGINT NOT NULL,
    record  TEXT NOT NULL,
    PRIMARY KEY (id, tenant)
);
CREATE INDEX task_by_status ON fte_status.task (tenant, status, created, id);
CREATE INDEX task_by_agent ON fte_status.task (tenant, agent, status, created, id) WHERE agent IS NOT NULL;

CREATE TABLE fte_status.letter (
    seq     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant  TEXT COLLATE "C" NOT NULL,
    state   SMALLINT NOT NULL,
    stored  BIGINT NOT NULL,
    decided BIGINT,
    topic   TEXT NOT NULL,
    record  BYTEA NOT NULL
);
CREATE INDEX letter_by_state ON fte_status.letter (state, seq);
CREATE INDEX letter_by_tenant ON fte_status.letter (tenant, seq);
"#;

/// Makes the tables where they are not there, one process at a time, and gives back the number of the last event.
pub(super) async fn prepare(connector: &Connector) -> Result<i64, StoreError> {
    let session = connector.session().await?;
    session.batch(&format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA})")).await?;
    // Making a schema asks for a right that is not needed where it has been made beforehand.
    let row = session.query_one("SELECT to_regnamespace('fte_status') IS NULL, to_regclass('fte_status.head') IS NULL", &[]).await?;
    if row.get(0) {
        session.batch("CREATE SCHEMA fte_status").await?;
    }
    if row.get(1) {
        session.batch(TABLES).await?;
        session.batch(artifacts::TABLES).await?;
        session.batch(erasing::TABLES).await?;
        session.execute("INSERT INTO fte_status.head (seq, version) VALUES (0, $1)", &[&VERSION]).await?;
    }
    let row = session.query_one("SELECT seq, version FROM fte_status.head", &[]).await?;
    let mut found: i64 = row.get(1);
    if found == 1 || found == 2 {
        tracing::info!("the status database is brought to the schema of this version");
        if found == 1 {
            session.batch(artifacts::TABLES).await?;
            artifacts::fill(&session).await?;
        }
        session.batch(erasing::TABLES).await?;
        session.execute("UPDATE fte_status.head SET version = $1", &[&VERSION]).await?;
        found = VERSION;
    }
    if found != VERSION {
        return Err(StoreError::NewerServer { found, known: VERSION });
    }
    session.batch("COMMIT").await?;
    Ok(row.get(0))
}
