-- Member cards, as this store last saw them. `seal` is over the columns before it.
CREATE TABLE member_card (
    no            INTEGER PRIMARY KEY,
    card_no       TEXT    NOT NULL UNIQUE,
    uid           TEXT    NOT NULL,
    technology    TEXT    NOT NULL,
    type          TEXT    NOT NULL CHECK (type IN ('named','anonymous')),
    issuing_store TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    valid_until   INTEGER,
    -- Why nothing may be written to it, until a person has looked.
    held          TEXT,
    -- As last seen or written here (JSON).
    holding       TEXT    NOT NULL,
    counter       INTEGER NOT NULL,
    seen_at       INTEGER NOT NULL,
    -- Where this store gave it out.
    issued_on     TEXT,
    issued_by     TEXT,
    issued_at     TEXT,
    seal          INTEGER
) STRICT;
CREATE INDEX member_card_issued ON member_card (issued_on) WHERE issued_on IS NOT NULL;

-- Transactions: durable before the first byte is written to the card. `seal` as above.
CREATE TABLE card_transaction (
    no           INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    card_no      TEXT    NOT NULL,
    -- intent: nothing told yet. unknown: told, the next tap decides. parked: the card went on
    -- elsewhere, only headquarters can tell.
    state        TEXT    NOT NULL CHECK (state IN ('intent','unknown','parked','committed','aborted')),
    business_day TEXT    NOT NULL,
    original     BLOB,
    technology   TEXT    NOT NULL,
    -- What it takes off the card without headquarters, for the limits; else 0.
    offline_fen  INTEGER NOT NULL,
    -- What the card holds before and after (JSON).
    before       TEXT    NOT NULL,
    after        TEXT    NOT NULL,
    -- `card.transaction` as it will be when committed.
    fact         TEXT    NOT NULL,
    begun_at     INTEGER NOT NULL,
    ended_at     INTEGER,
    -- An event said `unknown`: the next one settles.
    told_unknown INTEGER NOT NULL DEFAULT 0,
    seal         INTEGER
) STRICT;
-- One at a time on a card.
CREATE UNIQUE INDEX card_transaction_open ON card_transaction (card_no) WHERE state IN ('intent','unknown');
CREATE INDEX card_transaction_by_day ON card_transaction (business_day);
CREATE INDEX card_transaction_by_card ON card_transaction (card_no, no);
CREATE INDEX card_transaction_by_original ON card_transaction (original) WHERE original IS NOT NULL;
