-- People at the tills. Locked when they leave, never deleted: the ledger names them.
CREATE TABLE operator (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    role       TEXT    NOT NULL CHECK (role IN ('cashier','manager','technician','admin')),
    -- Argon2id, as a PHC string with its own salt and parameters.
    pin_hash   TEXT    NOT NULL,
    -- The card that names this operator instead of typing the id; proves nothing by itself.
    card_uid   TEXT,
    locked     INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX operator_by_card ON operator (card_uid) WHERE card_uid IS NOT NULL;

-- Wrong PINs since the last right one, by the id as typed, whether anybody has it or not.
CREATE TABLE wrong_pin (operator TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;

-- Who logged in or was refused, and what was changed about operators. Never a PIN.
CREATE TABLE operator_log (
    no       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    what     TEXT    NOT NULL,
    operator TEXT    NOT NULL,
    -- Where: a till, `control`, or the id of a script's token.
    place    TEXT    NOT NULL
) STRICT;

-- Shifts; the open one of a till has no closed_at. The ledger's rows of a shift are those of its
-- till behind `after_offset`, up to and including `through_offset` (as event_offset).
CREATE TABLE shift (
    id             BLOB    PRIMARY KEY,
    till           TEXT    NOT NULL,
    opened_by      TEXT    NOT NULL,
    opened_at      INTEGER NOT NULL,
    after_offset   INTEGER NOT NULL,
    closed_by      TEXT,
    closed_at      INTEGER,
    through_offset INTEGER,
    -- Per tender (JSON), as told at closing; none where there is no ledger to add up.
    totals         TEXT
) STRICT;
CREATE UNIQUE INDEX shift_open ON shift (till) WHERE closed_at IS NULL;
