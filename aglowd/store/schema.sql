-- The state of one aglowd. Times are world seconds since 1970; JSON is text.
-- user_version counts the migrations of db.py that this schema contains.

CREATE TABLE pipelines (
    digest     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    definition TEXT NOT NULL
) WITHOUT ROWID;

-- One execution of a pipeline. `key` names what is shared; of two runs with one key only one is running.
CREATE TABLE runs (
    id       TEXT PRIMARY KEY,
    field    TEXT NOT NULL,
    pipeline TEXT NOT NULL REFERENCES pipelines (digest),
    key      TEXT NOT NULL,
    params   TEXT NOT NULL,
    context  TEXT NOT NULL,
    state    TEXT NOT NULL,
    reason   TEXT NOT NULL DEFAULT '',
    outputs  TEXT NOT NULL DEFAULT '{}',
    created  REAL NOT NULL,
    ended    REAL
) WITHOUT ROWID;
CREATE UNIQUE INDEX runs_live ON runs (key) WHERE state = 'running';
CREATE INDEX runs_key ON runs (key, created);
CREATE INDEX runs_field ON runs (field, created);

-- A field of the survey: what the catalogue says of it and the run that carries it.
CREATE TABLE fields (
    name    TEXT PRIMARY KEY,
    status  TEXT NOT NULL,
    data    TEXT NOT NULL,
    problem TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL,
    taken   INTEGER NOT NULL DEFAULT 0,
    run     TEXT
) WITHOUT ROWID;

-- `dirty` is the work queue; `wanted` counts the marks, so that a mark set during a decision survives it.
CREATE TABLE steps (
    run       TEXT NOT NULL REFERENCES runs (id),
    name      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    state     TEXT NOT NULL,
    attempt   INTEGER NOT NULL DEFAULT 1,
    version   INTEGER NOT NULL DEFAULT 0,
    wanted    INTEGER NOT NULL DEFAULT 0,
    dirty     REAL,
    priority  INTEGER NOT NULL DEFAULT 0,
    pool      TEXT NOT NULL DEFAULT '',
    reason    TEXT NOT NULL,
    since     REAL NOT NULL,
    due       REAL,
    deadline  REAL,
    stopping  TEXT NOT NULL DEFAULT '',
    inherited INTEGER NOT NULL DEFAULT 0,
    faults    INTEGER NOT NULL DEFAULT 0,
    outputs   TEXT NOT NULL DEFAULT '{}',
    started   REAL,
    ended     REAL,
    PRIMARY KEY (run, name),
    CHECK (state <> 'waiting' OR (due IS NOT NULL AND reason <> ''))
) WITHOUT ROWID;
CREATE INDEX steps_dirty ON steps (priority DESC, dirty) WHERE dirty IS NOT NULL;
CREATE INDEX steps_due ON steps (due) WHERE due IS NOT NULL;
CREATE INDEX steps_deadline ON steps (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX steps_pool ON steps (pool, state) WHERE pool <> '';

-- The latest observation of everything that is, or was, waited for. version 0: not yet looked at.
CREATE TABLE subjects (
    key     TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    args    TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,
    at      REAL,
    data    TEXT
) WITHOUT ROWID;
CREATE INDEX subjects_kind ON subjects (kind);

-- Which step waits for which subject. A subject that its attempt no longer waits for stays, inactive: what a handler
-- was once shown it keeps seeing until the attempt ends.
CREATE TABLE waits (
    subject TEXT NOT NULL REFERENCES subjects (key),
    run     TEXT NOT NULL,
    step    TEXT NOT NULL,
    active  INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (subject, run, step)
) WITHOUT ROWID;
CREATE INDEX waits_step ON waits (run, step);

-- The journal: docs/design.md (a). `stop`: decided while the attempt was being stopped.
CREATE TABLE effects (
    key      TEXT PRIMARY KEY,
    run      TEXT NOT NULL,
    step     TEXT NOT NULL,
    attempt  INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    ordinal  INTEGER NOT NULL,
    stop     INTEGER NOT NULL DEFAULT 0,
    state    TEXT NOT NULL,
    tries    INTEGER NOT NULL DEFAULT 0,
    looks    INTEGER NOT NULL DEFAULT 0,
    inputs   TEXT NOT NULL,
    digest   TEXT NOT NULL,
    evidence TEXT,
    notes    TEXT NOT NULL DEFAULT '{}',
    result   TEXT,
    reason   TEXT NOT NULL DEFAULT '',
    planned  REAL NOT NULL,
    intended REAL,
    absent   REAL,
    settled  REAL,
    next_at  REAL
) WITHOUT ROWID;
CREATE INDEX effects_step ON effects (run, step, attempt);
CREATE INDEX effects_live ON effects (state, next_at) WHERE state IN ('planned', 'open', 'unknown', 'doubt');

-- What happened, for people. Nothing is ever decided from it.
CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      REAL NOT NULL,
    kind    TEXT NOT NULL,
    field   TEXT NOT NULL DEFAULT '',
    run     TEXT NOT NULL DEFAULT '',
    step    TEXT NOT NULL DEFAULT '',
    subject TEXT NOT NULL DEFAULT '',
    effect  TEXT NOT NULL DEFAULT '',
    data    TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX events_field ON events (field, id);

CREATE TABLE cursors (
    source TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) WITHOUT ROWID;
