-- Members that the shop had before: what a card is to carry once one is given out to them here. Gone
-- with that. What headquarters ordered to be issued anew stands here likewise.
CREATE TABLE listed_member (
    card_no        TEXT    PRIMARY KEY,
    type           TEXT    NOT NULL CHECK (type IN ('named','anonymous')),
    tier           INTEGER NOT NULL CHECK (tier BETWEEN 0 AND 255),
    discount_class INTEGER NOT NULL CHECK (discount_class BETWEEN 0 AND 255),
    valid_until    TEXT,
    at             INTEGER NOT NULL
) STRICT;
