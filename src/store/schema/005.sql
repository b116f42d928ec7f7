-- What grows with the ledger is not walked through at each transaction.
-- What was spent without headquarters on a day, of a technology, by a card.
CREATE INDEX card_transaction_offline ON card_transaction (business_day, technology, card_no, state, offline_fen)
    WHERE offline_fen > 0;
-- Giving halves of transfers. No JSON function: one row that has rotted would end the migration.
CREATE INDEX card_transaction_giving ON card_transaction (state)
    WHERE original IS NULL AND instr(fact, '"kind":"transfer"') > 0;
-- Cards of other stores, by when they were last seen.
CREATE INDEX member_card_foreign ON member_card (seen_at) WHERE issued_on IS NULL;
-- What was no id was counted as one, and locked everybody out who mistyped.
DELETE FROM wrong_pin WHERE operator = '?';
