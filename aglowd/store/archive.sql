-- Runs that ended long ago, a row each (archive.py): `material` is what is packed of them, the other columns tell what is asked
-- without unpacking it. `first` and `last` are the numbers between which its events lie.
CREATE TABLE archive (
    run        TEXT PRIMARY KEY REFERENCES runs (id),
    field      TEXT NOT NULL,
    ended      REAL NOT NULL,
    steps      INTEGER NOT NULL,
    effects    INTEGER NOT NULL,
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    material   BLOB NOT NULL
);
CREATE INDEX archive_field ON archive (field, size_bytes);
-- When the run was packed; NULL while its rows stand in the tables of those at work.
ALTER TABLE runs ADD COLUMN archived REAL;
CREATE INDEX runs_over ON runs (ended) WHERE archived IS NULL AND state <> 'running';
-- What was seen for a run is found by the beginning of its id.
CREATE INDEX subjects_id ON subjects (id);
