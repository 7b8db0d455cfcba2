-- aglowd's own catalogue: what a fields file says of a field, and whose word its status is.

-- name: schema
CREATE TABLE fields (
    name     TEXT PRIMARY KEY,
    status   TEXT NOT NULL,
    data     TEXT NOT NULL,
    key      TEXT NOT NULL DEFAULT '',
    of       TEXT NOT NULL DEFAULT '',
    daemon   TEXT NOT NULL DEFAULT '',
    at       TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
-- One number that every change raises, whoever makes it.
CREATE TABLE changes (number INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
CREATE TRIGGER fields_added AFTER INSERT ON fields BEGIN UPDATE changes SET number = number + 1; END;
CREATE TRIGGER fields_changed AFTER UPDATE ON fields BEGIN UPDATE changes SET number = number + 1; END;
CREATE TRIGGER fields_removed AFTER DELETE ON fields BEGIN UPDATE changes SET number = number + 1; END;

-- name: stamp
SELECT number FROM changes;

-- name: rows
SELECT name, status, data FROM fields ORDER BY name LIMIT :most;

-- name: count
SELECT count(*) FROM fields;

-- name: look
SELECT status, key, daemon, of FROM fields WHERE name = :name;

-- name: write
UPDATE fields SET status = :status, key = :key, of = :status, daemon = :daemon, at = :at
WHERE name = :name AND status = :expect;

-- name: add
INSERT INTO fields (name, status, data) VALUES (:name, :status, :data) ON CONFLICT (name) DO NOTHING;
