-- The tables as version 1 made them.
CREATE TABLE event (
    seq    INTEGER PRIMARY KEY,          -- the order of arrival
    task   BLOB,                         -- 16 bytes, or NULL: of no task
    id     NOT NULL,                     -- 16 bytes of a UUID, or any other text
    source TEXT NOT NULL,
    type   TEXT NOT NULL,
    stored INTEGER NOT NULL,             -- milliseconds since 1970
    body   BLOB NOT NULL                 -- the CloudEvent as it came
);
CREATE UNIQUE INDEX event_identity ON event (id, source);
CREATE INDEX event_of_task ON event (task) WHERE task IS NOT NULL;

CREATE TABLE task (
    id      BLOB PRIMARY KEY,
    status  INTEGER NOT NULL,            -- apply::status_code
    agent   TEXT,
    created INTEGER NOT NULL,            -- microseconds since 1970
    record  TEXT NOT NULL                -- model::TaskRecord as JSON
) WITHOUT ROWID;
CREATE INDEX task_by_status ON task (status, created, id);
CREATE INDEX task_by_agent ON task (agent, status, created, id) WHERE agent IS NOT NULL;

CREATE TABLE letter (
    seq     INTEGER PRIMARY KEY,         -- the order of arrival
    id      TEXT NOT NULL UNIQUE,
    state   INTEGER NOT NULL,            -- 0 open, 1 replayed, 2 discarded
    stored  INTEGER NOT NULL,            -- milliseconds since 1970
    decided INTEGER,                     -- microseconds since 1970
    topic   TEXT NOT NULL,               -- the dead-letter topic
    record  BLOB NOT NULL                -- the record as it came
);
CREATE INDEX letter_by_state ON letter (state, seq);
PRAGMA user_version = 1;
