-- What headquarters sent for the counter about members: `word` is a `CounterWord` in JSON, true at `as_of`.
CREATE TABLE counter_word (
    card_no TEXT    PRIMARY KEY,
    as_of   INTEGER NOT NULL,
    word    TEXT    NOT NULL
) STRICT;
