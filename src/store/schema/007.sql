-- Rows of a batch of cards to give out; the batch itself is a request of kind `card.batch`.
CREATE TABLE batch_row (
    batch      BLOB    NOT NULL,
    -- From 1.
    n          INTEGER NOT NULL,
    card_no    TEXT    NOT NULL,
    -- What is to stand on the card (JSON).
    asked      TEXT    NOT NULL,
    -- What is to stand on its face (JSON); gone as soon as that is queued.
    face       TEXT,
    state      TEXT    NOT NULL CHECK (state IN ('waiting','issuing','issued','refused','cancelled')),
    -- The `card.issue` that is under way, or was the last.
    request    BLOB,
    -- What came of it (JSON).
    outcome    TEXT,
    -- The print job of its face.
    job        BLOB,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (batch, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX batch_row_open ON batch_row (batch, state, n) WHERE state IN ('waiting','issuing');
-- A number waits in one batch only.
CREATE UNIQUE INDEX batch_row_number ON batch_row (card_no) WHERE state IN ('waiting','issuing');
