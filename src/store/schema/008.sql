-- Cards that were reported lost or stopped before this store ever saw them. When one is seen, its
-- row takes the status over.
CREATE TABLE card_report (
    card_no TEXT    PRIMARY KEY,
    status  TEXT    NOT NULL CHECK (status IN ('lost','blocked')),
    at      INTEGER NOT NULL
) STRICT;

-- PINs of cards: the slow hash, and the wrong ones since the last right one. Never in an event.
CREATE TABLE card_pin (
    card_no TEXT    PRIMARY KEY,
    hash    TEXT    NOT NULL,
    wrong   INTEGER NOT NULL DEFAULT 0,
    set_at  INTEGER NOT NULL
) STRICT;
