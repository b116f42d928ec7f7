-- What people type in about a visit, and where its VIN comes from.
-- `vin` is the car's own where it gave one (`vin_is_read`), else the typed one.
ALTER TABLE visit ADD COLUMN vin_is_read INTEGER NOT NULL DEFAULT 0;
ALTER TABLE visit ADD COLUMN typed_vin TEXT;
ALTER TABLE visit ADD COLUMN odometer_km REAL;
ALTER TABLE visit ADD COLUMN odometer_source TEXT;
ALTER TABLE visit ADD COLUMN purpose TEXT;
-- The member's card; never without the time of the consent.
ALTER TABLE visit ADD COLUMN card_no TEXT;
ALTER TABLE visit ADD COLUMN consent_at INTEGER;
-- What the battery rested at, in volts: how it is judged next time.
ALTER TABLE visit ADD COLUMN resting_v REAL;
-- Rises with every change, so that two who read before they write do not undo each other.
ALTER TABLE visit ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
UPDATE visit SET vin_is_read = 1 WHERE vin IS NOT NULL;
