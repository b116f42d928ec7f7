-- Version 1. One file, one writer. Times are UTC milliseconds, ids are 16-byte UUIDs.

-- The life of this log. offset = base_offset + sequence for every event of an epoch.
CREATE TABLE epoch (
    no           INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    base_offset  INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    begun_at     INTEGER NOT NULL
) STRICT;

-- Named values: source, machine_id, file_birth, clean_shutdown, restored, salvaged,
-- epoch_untold, card_writes_held, epoch/NO (a second
-- copy of `epoch`, on another page) …
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- The log. `event_offset` never leaves the house; the outside sees epoch and sequence.
CREATE TABLE event (
    event_offset   INTEGER PRIMARY KEY,
    epoch_no       INTEGER NOT NULL,
    class          INTEGER NOT NULL,
    class_sequence INTEGER NOT NULL,
    id             BLOB    NOT NULL,
    kind           TEXT    NOT NULL,
    subject        TEXT    NOT NULL,
    time           INTEGER NOT NULL,
    synced         INTEGER NOT NULL,
    boot           BLOB    NOT NULL,
    data           TEXT    NOT NULL,
    -- Weight of the class up to and including this row, over the file's life, in bytes:
    -- the difference of two rows is what lies between them, without a scan.
    class_bytes    INTEGER NOT NULL,
    -- First 8 bytes of SHA-256 over offset, epoch, class, class sequence, time, synced (8 bytes each, big-endian),
    -- the boot with its length, and the SHA-256 over id, kind, subject and data, each with its length
    -- (8 bytes): damage is seen, not believed.
    seal           INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_by_class ON event (class, epoch_no, class_sequence);

-- Per class: where it stands in the running epoch, and what it weighs. Sequences go on
-- from here, not from the rows: what was trimmed is never numbered again.
CREATE TABLE class_counter (
    class         INTEGER PRIMARY KEY,
    last_sequence INTEGER NOT NULL,
    last_offset   INTEGER NOT NULL,
    total_bytes   INTEGER NOT NULL,
    rows          INTEGER NOT NULL,
    bytes         INTEGER NOT NULL
) STRICT;

-- Where the classes stood when an epoch ended.
CREATE TABLE epoch_end (
    epoch_no      INTEGER NOT NULL,
    class         INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    PRIMARY KEY (epoch_no, class)
) STRICT, WITHOUT ROWID;

-- Stretches of unsent events that are gone: trimmed or lost in a damaged file. Told once,
-- as one gateway.gap, when the stretch has ended.
CREATE TABLE gap (
    class         INTEGER NOT NULL,
    epoch_no      INTEGER NOT NULL,
    from_sequence INTEGER NOT NULL,
    to_sequence   INTEGER NOT NULL,
    count         INTEGER NOT NULL,
    reason        TEXT    NOT NULL CHECK (reason IN ('full','damaged')),
    told          INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (class, epoch_no, from_sequence)
) STRICT, WITHOUT ROWID;

-- Durable positions of the readers of the log (by event_offset).
CREATE TABLE cursor (name TEXT PRIMARY KEY, event_offset INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The uplink's positions, one a class: delivered up to and including.
CREATE TABLE delivered (
    class          INTEGER PRIMARY KEY,
    epoch_no       INTEGER NOT NULL,
    class_sequence INTEGER NOT NULL,
    -- As an event's: a position that rotted upwards would pass unsent events over.
    seal           INTEGER
) STRICT;

-- Events set aside because the broker will never take them.
CREATE TABLE quarantine (
    event_offset INTEGER PRIMARY KEY,
    class        INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    envelope     TEXT    NOT NULL
) STRICT;

-- Requests: from a till, the CLI or headquarters; a row before anything is done.
CREATE TABLE request (
    id              BLOB    PRIMARY KEY,
    kind            TEXT    NOT NULL,
    target          TEXT    NOT NULL,
    scope           TEXT    NOT NULL,
    idempotency_key TEXT,
    body_sha256     BLOB    NOT NULL,
    body            TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending','running','done','failed')),
    outcome         TEXT,
    created_at      INTEGER NOT NULL,
    settled_at      INTEGER
) STRICT;
CREATE UNIQUE INDEX request_by_key ON request (scope, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX request_settled ON request (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX request_open ON request (kind, target) WHERE state IN ('pending','running');

-- What devices last said of themselves.
CREATE TABLE device (
    kind   TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    state  TEXT    NOT NULL,
    reason TEXT,
    detail TEXT,
    since  INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- The card now in each reader's field.
CREATE TABLE card_in_field (
    reader     TEXT PRIMARY KEY,
    uid        TEXT    NOT NULL,
    technology TEXT    NOT NULL,
    atr        TEXT,
    since      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Visits of cars; the open one of a link has no ended_at.
CREATE TABLE visit (
    id         BLOB    PRIMARY KEY,
    link       TEXT    NOT NULL,
    vin        TEXT,
    work_order TEXT,
    protocol   TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    reason     TEXT,
    report     TEXT
) STRICT;
CREATE UNIQUE INDEX visit_open ON visit (link) WHERE ended_at IS NULL;
CREATE INDEX visit_by_vin ON visit (vin, started_at) WHERE vin IS NOT NULL;

-- What is remembered of an adapter, by its identity (JSON).
CREATE TABLE adapter (identity TEXT PRIMARY KEY, capabilities TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- Warnings; `car` is the VIN, or `visit/UUID` where there is none.
CREATE TABLE warning (
    id         BLOB    PRIMARY KEY,
    car        TEXT    NOT NULL,
    rule       TEXT    NOT NULL,
    event      TEXT    NOT NULL,
    first_seen INTEGER NOT NULL,
    cleared_at INTEGER
) STRICT;
CREATE UNIQUE INDEX warning_open ON warning (car, rule) WHERE cleared_at IS NULL;

-- Print jobs. `fields` is what the template asks for (JSON).
CREATE TABLE print_job (
    id         BLOB    PRIMARY KEY,
    printer    TEXT    NOT NULL,
    card_no    TEXT,
    template   TEXT    NOT NULL,
    fields     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    error      TEXT,
    output     TEXT,
    attempts   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX print_job_open ON print_job (printer, created_at)
    WHERE state IN ('queued','waiting-card','printing');

-- Bearer tokens, hashed.
CREATE TABLE token (
    id         BLOB    PRIMARY KEY,
    name       TEXT    NOT NULL,
    sha256     BLOB    NOT NULL UNIQUE,
    scopes     TEXT    NOT NULL,
    till       TEXT,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

-- Commands of headquarters, each id at most once.
CREATE TABLE command (
    id          BLOB    PRIMARY KEY,
    name        TEXT    NOT NULL,
    body_sha256 BLOB    NOT NULL,
    received_at INTEGER NOT NULL
) STRICT;
