-- What the catalogue says of a field beside its status, and what keeps one that is on offer from being taken for good.
-- `priority` is that of the observation, `place` the order in which the catalogue first named the fields.
ALTER TABLE fields ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fields ADD COLUMN field_priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fields ADD COLUMN site TEXT NOT NULL DEFAULT '';
ALTER TABLE fields ADD COLUMN refused TEXT NOT NULL DEFAULT '';
ALTER TABLE fields ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
CREATE INDEX fields_place ON fields (place);
