PRAGMA user_version = 6;
BEGIN TRANSACTION;
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
CREATE TABLE cursors (
    source TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) WITHOUT ROWID;
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
INSERT INTO "effects" VALUES('P1_1-1/done/1/put/0','P1_1-1','done',1,'put',0,0,'done',0,0,'{"ordinal":0,"what":"done"}','f151ded7ecf776ad72b280f6e04798f1',NULL,'{}','1','',1000000000.0,1000000000.0,NULL,1000000000.0,NULL);
INSERT INTO "effects" VALUES('P1_1-1/doubt/1/put/0','P1_1-1','doubt',1,'put',0,0,'doubt',1,8,'{"ordinal":0,"what":"doubt"}','757c5b1b537d81f50e3fc475bbee5e5a',NULL,'{}',NULL,'in doubt, aglowd keeps looking: connection reset',1000000000.0,1000000000.0,NULL,NULL,1000803600.0);
INSERT INTO "effects" VALUES('P1_1-1/open/1/put/0','P1_1-1','open',1,'put',0,0,'open',0,0,'{"ordinal":0,"what":"open"}','d9b0e50caf4341a34247b8df0baf4028',NULL,'{}',NULL,'',1000000000.0,1000000000.0,NULL,NULL,1000000000.0);
INSERT INTO "effects" VALUES('P1_1-1/planned/1/order/0','P1_1-1','planned',1,'order',0,0,'planned',1,0,'{"ordinal":0,"what":"planned"}','1e3713f6fb2c1ea9b904ff6f26f31a13',NULL,'{}',NULL,'order is tried again: connection refused',1000000000.0,NULL,NULL,NULL,1000000015.0);
INSERT INTO "effects" VALUES('P1_1-1/rejected/1/put/0','P1_1-1','rejected',1,'put',0,0,'rejected',0,0,'{"ordinal":0,"what":"rejected"}','0fe6345707a75954c31eab9f8d3bf0f7',NULL,'{}','null','403',1000000000.0,1000000000.0,NULL,1000000000.0,NULL);
INSERT INTO "effects" VALUES('P1_1-1/unknown/1/order/0','P1_1-1','unknown',1,'order',0,0,'unknown',1,0,'{"ordinal":0,"what":"unknown"}','3410ae3dc6b4e6bb619667555a52c184','[]','{}',NULL,'outcome unknown: connection reset',1000000000.0,1000000000.0,NULL,NULL,1000000015.0);
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
, cause INTEGER NOT NULL DEFAULT 0);
INSERT INTO "events" VALUES(1,1000000000.0,'FieldChanged','P1+1','','','','','{"problem":"","status":"SND"}',0);
INSERT INTO "events" VALUES(2,1000000000.0,'FieldChanged','P2+2','','','','','{"problem":"","status":"XXX"}',0);
INSERT INTO "events" VALUES(3,1000000000.0,'FieldChanged','P3+3','','','','','{"problem":"fields.csv:3: no OBSID","status":"SND"}',0);
INSERT INTO "events" VALUES(4,1000000000.0,'RunStarted','P1+1','P1_1-1','','','','{"digest":"digest of toy","pipeline":"toy"}',0);
INSERT INTO "events" VALUES(5,1000000000.0,'FieldRefused','P3+3','','','','','{"reason":"fields.csv:3: no OBSID"}',0);
INSERT INTO "events" VALUES(6,1000000000.0,'EffectPlanned','P1+1','P1_1-1','done','','P1_1-1/done/1/put/0','{"kind":"put","state":"open"}',0);
INSERT INTO "events" VALUES(7,1000000000.0,'StepWorks','P1+1','P1_1-1','done','','','{"attempt":1,"due":null,"reason":"under way: put"}',0);
INSERT INTO "events" VALUES(8,1000000000.0,'EffectPlanned','P1+1','P1_1-1','doubt','','P1_1-1/doubt/1/put/0','{"kind":"put","state":"open"}',0);
INSERT INTO "events" VALUES(9,1000000000.0,'StepWorks','P1+1','P1_1-1','doubt','','','{"attempt":1,"due":null,"reason":"under way: put"}',0);
INSERT INTO "events" VALUES(10,1000000000.0,'EffectPlanned','P1+1','P1_1-1','open','','P1_1-1/open/1/put/0','{"kind":"put","state":"open"}',0);
INSERT INTO "events" VALUES(11,1000000000.0,'StepWorks','P1+1','P1_1-1','open','','','{"attempt":1,"due":null,"reason":"under way: put"}',0);
INSERT INTO "events" VALUES(12,1000000000.0,'EffectPlanned','P1+1','P1_1-1','planned','','P1_1-1/planned/1/order/0','{"kind":"order","state":"planned"}',0);
INSERT INTO "events" VALUES(13,1000000000.0,'StepWorks','P1+1','P1_1-1','planned','','','{"attempt":1,"due":null,"reason":"under way: order"}',0);
INSERT INTO "events" VALUES(14,1000000000.0,'EffectPlanned','P1+1','P1_1-1','rejected','','P1_1-1/rejected/1/put/0','{"kind":"put","state":"open"}',0);
INSERT INTO "events" VALUES(15,1000000000.0,'StepWorks','P1+1','P1_1-1','rejected','','','{"attempt":1,"due":null,"reason":"under way: put"}',0);
INSERT INTO "events" VALUES(16,1000000000.0,'EffectPlanned','P1+1','P1_1-1','unknown','','P1_1-1/unknown/1/order/0','{"kind":"order","state":"planned"}',0);
INSERT INTO "events" VALUES(17,1000000000.0,'StepWorks','P1+1','P1_1-1','unknown','','','{"attempt":1,"due":null,"reason":"under way: order"}',0);
INSERT INTO "events" VALUES(18,1000000000.0,'StepWaits','P1+1','P1_1-1','waits','','','{"attempt":1,"due":1000003600.0,"reason":"waits for the thing"}',0);
INSERT INTO "events" VALUES(19,1000000000.0,'EffectDone','P1+1','P1_1-1','done','','P1_1-1/done/1/put/0','{"reason":"","result":1}',0);
INSERT INTO "events" VALUES(20,1000000000.0,'EffectRejected','P1+1','P1_1-1','rejected','','P1_1-1/rejected/1/put/0','{"reason":"403","result":null}',0);
INSERT INTO "events" VALUES(21,1000000000.0,'EffectPutOff','P1+1','P1_1-1','planned','','P1_1-1/planned/1/order/0','{"due":1000000015.0,"reason":"order is tried again: connection refused"}',0);
INSERT INTO "events" VALUES(22,1000000000.0,'EffectUnknown','P1+1','P1_1-1','unknown','','P1_1-1/unknown/1/order/0','{"due":1000000015.0,"reason":"outcome unknown: connection reset"}',0);
INSERT INTO "events" VALUES(23,1000000000.0,'EffectUnknown','P1+1','P1_1-1','doubt','','P1_1-1/doubt/1/put/0','{"due":1000000015.0,"reason":"outcome unknown: the answer was lost"}',0);
INSERT INTO "events" VALUES(24,1000100000.0,'EffectUnknown','P1+1','P1_1-1','doubt','','P1_1-1/doubt/1/put/0','{"due":1000100030.0,"reason":"outcome unknown: connection reset"}',0);
INSERT INTO "events" VALUES(25,1000800000.0,'EffectDoubtful','P1+1','P1_1-1','doubt','','P1_1-1/doubt/1/put/0','{"due":1000803600.0,"reason":"in doubt, aglowd keeps looking: connection reset"}',0);
INSERT INTO "events" VALUES(26,1000900000.0,'StepDone','P1+1','P1_1-1','done','','','{"attempt":1,"reason":"done"}',0);
INSERT INTO "events" VALUES(27,1000900000.0,'StepDone','P1+1','P1_1-1','rejected','','','{"attempt":1,"reason":"done"}',0);
CREATE TABLE fields (
    name    TEXT PRIMARY KEY,
    status  TEXT NOT NULL,
    data    TEXT NOT NULL,
    problem TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL,
    taken   INTEGER NOT NULL DEFAULT 0,
    run     TEXT
, priority INTEGER NOT NULL DEFAULT 0, field_priority INTEGER NOT NULL DEFAULT 0, site TEXT NOT NULL DEFAULT '', refused TEXT NOT NULL DEFAULT '', place INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO "fields" VALUES('P1+1','SND','{"name":"P1+1"}','',1,1,'P1_1-1',0,0,'','',0);
INSERT INTO "fields" VALUES('P2+2','XXX','{}','',1,0,NULL,0,0,'','',0);
INSERT INTO "fields" VALUES('P3+3','SND','{}','fields.csv:3: no OBSID',1,1,NULL,0,0,'','',0);
CREATE TABLE findings (
    key     TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    effect  TEXT NOT NULL DEFAULT '',
    field   TEXT NOT NULL DEFAULT '',
    what    TEXT NOT NULL,
    data    TEXT NOT NULL DEFAULT '{}',
    found   REAL NOT NULL,
    handled TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE pauses (
    scope  TEXT NOT NULL,
    name   TEXT NOT NULL,
    mode   TEXT NOT NULL,
    since  REAL NOT NULL,
    uid    INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE pipelines (
    digest     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    definition TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "pipelines" VALUES('digest of toy','toy','{"name":"toy","steps":{"done":{"name":"done","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"doubt":{"name":"doubt","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"last":{"name":"last","kind":"played","needs":["done","rejected","planned","open","unknown","doubt","waits"],"join":"done","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"open":{"name":"open","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"planned":{"name":"planned","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"rejected":{"name":"rejected","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"unknown":{"name":"unknown","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7},"waits":{"name":"waits","kind":"played","needs":[],"join":"all","when":true,"pool":"","priority":0,"retries":0,"retry_delay_s":300.0,"timeout_s":0.0,"params":{},"use":null,"local":{},"file":"toy.toml","line":7}},"params":[],"outputs":{},"aliases":{},"digest":"digest of toy"}');
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
, stopping TEXT NOT NULL DEFAULT '', archived REAL) WITHOUT ROWID;
INSERT INTO "runs" VALUES('P1_1-1','P1+1','digest of toy','P1+1','{}','{"name":"P1+1","status":"SND"}','running','','{}',1000000000.0,NULL,'',NULL);
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
    ended     REAL, base INTEGER NOT NULL DEFAULT 0, child TEXT NOT NULL DEFAULT '', said INTEGER NOT NULL DEFAULT 0, woken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, name),
    CHECK (state <> 'waiting' OR (due IS NOT NULL AND reason <> ''))
) WITHOUT ROWID;
INSERT INTO "steps" VALUES('P1_1-1','done','played','done',1,3,2,NULL,0,'','done',1000900000.0,NULL,NULL,'',0,0,'{"state":"done"}',1000000000.0,1000900000.0,0,'',26,0);
INSERT INTO "steps" VALUES('P1_1-1','doubt','played','working',1,2,1,NULL,0,'','in doubt, aglowd keeps looking: connection reset',1000000000.0,NULL,NULL,'',0,0,'{}',1000000000.0,NULL,0,'',9,0);
INSERT INTO "steps" VALUES('P1_1-1','last','played','pending',1,0,0,NULL,0,'','needs done, rejected, planned, open, unknown, doubt, waits',1000000000.0,NULL,NULL,'',0,0,'{}',NULL,NULL,0,'',0,0);
INSERT INTO "steps" VALUES('P1_1-1','open','played','working',1,2,1,NULL,0,'','under way: put',1000000000.0,NULL,NULL,'',0,0,'{}',1000000000.0,NULL,0,'',11,0);
INSERT INTO "steps" VALUES('P1_1-1','planned','played','working',1,2,1,NULL,0,'','order is tried again: connection refused',1000000000.0,NULL,NULL,'',0,0,'{}',1000000000.0,NULL,0,'',13,0);
INSERT INTO "steps" VALUES('P1_1-1','rejected','played','done',1,3,2,NULL,0,'','done',1000900000.0,NULL,NULL,'',0,0,'{"state":"rejected"}',1000000000.0,1000900000.0,0,'',27,0);
INSERT INTO "steps" VALUES('P1_1-1','unknown','played','working',1,2,1,NULL,0,'','outcome unknown: connection reset',1000000000.0,NULL,NULL,'',0,0,'{}',1000000000.0,NULL,0,'',17,0);
INSERT INTO "steps" VALUES('P1_1-1','waits','played','waiting',1,2,1,NULL,0,'','waits for the thing',1000000000.0,1000003600.0,NULL,'',0,0,'{}',1000000000.0,NULL,0,'',18,0);
CREATE TABLE subjects (
    key     TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    args    TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 0,
    at      REAL,
    data    TEXT
) WITHOUT ROWID;
INSERT INTO "subjects" VALUES('thing:one','thing','one','{}',0,NULL,NULL);
CREATE TABLE waits (
    subject TEXT NOT NULL REFERENCES subjects (key),
    run     TEXT NOT NULL,
    step    TEXT NOT NULL,
    active  INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (subject, run, step)
) WITHOUT ROWID;
INSERT INTO "waits" VALUES('thing:one','P1_1-1','waits',1);
CREATE UNIQUE INDEX runs_live ON runs (key) WHERE state = 'running';
CREATE INDEX runs_key ON runs (key, created);
CREATE INDEX runs_field ON runs (field, created);
CREATE INDEX steps_dirty ON steps (priority DESC, dirty) WHERE dirty IS NOT NULL;
CREATE INDEX steps_due ON steps (due) WHERE due IS NOT NULL;
CREATE INDEX steps_deadline ON steps (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX steps_pool ON steps (pool, state) WHERE pool <> '';
CREATE INDEX subjects_kind ON subjects (kind);
CREATE INDEX waits_step ON waits (run, step);
CREATE INDEX effects_step ON effects (run, step, attempt);
CREATE INDEX effects_live ON effects (state, next_at) WHERE state IN ('planned', 'open', 'unknown', 'doubt');
CREATE INDEX events_field ON events (field, id);
CREATE INDEX effects_kind ON effects (kind, planned);
CREATE INDEX steps_child ON steps (child) WHERE child <> '';
CREATE INDEX effects_aside ON effects (run) WHERE attempt = 0;
CREATE VIEW held AS
SELECT s.run, s.name, p.scope, p.name AS target, p.mode, p.since, p.uid, p.reason
FROM pauses AS p JOIN steps AS s JOIN runs AS r ON r.id = s.run
WHERE s.state IN ('ready', 'working', 'waiting') AND s.stopping IN ('', 'timeout')
  AND (p.mode = 'pause' OR p.scope = 'kind' AND s.state = 'ready' AND s.attempt = s.base + 1)
  AND (p.scope = 'everything'
    OR p.scope = 'field' AND p.name = r.field
    OR p.scope = 'kind' AND p.name = s.kind
    OR p.scope = 'site' AND (p.name = json_extract(r.context, '$.site') OR p.name = json_extract(r.params, '$.site')
      OR EXISTS (SELECT 1 FROM steps AS o WHERE o.run = s.run AND o.outputs <> '{}'
                 AND json_extract(o.outputs, '$.site') = p.name)));
CREATE INDEX fields_place ON fields (place);
CREATE INDEX events_cause ON events (cause);
CREATE INDEX events_step ON events (run, step);
CREATE INDEX events_effect ON events (effect) WHERE effect <> '';
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_at ON events (at);
CREATE INDEX archive_field ON archive (field, size_bytes);
CREATE INDEX runs_over ON runs (ended) WHERE archived IS NULL AND state <> 'running';
CREATE INDEX subjects_id ON subjects (id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',27);
COMMIT;
