-- Where the log stood when a transaction was committed, so that a shift can be added up. Behind
-- the seal, which is not over it.
ALTER TABLE card_transaction ADD COLUMN committed_after INTEGER;
CREATE INDEX card_transaction_by_commit ON card_transaction (committed_after) WHERE committed_after IS NOT NULL;

-- Cards that headquarters stopped. Which version of its list this is stands in `meta`.
CREATE TABLE hotlist (card_no TEXT PRIMARY KEY) STRICT;
