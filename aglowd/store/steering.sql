-- How people steer runs. `pauses`: what decides nothing new (mode pause), or takes up nothing new and ends what runs (drain).
CREATE TABLE pauses (
    scope  TEXT NOT NULL,
    name   TEXT NOT NULL,
    mode   TEXT NOT NULL,
    since  REAL NOT NULL,
    uid    INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;

-- Why a run is being cancelled; empty while it is not.
ALTER TABLE runs ADD COLUMN stopping TEXT NOT NULL DEFAULT '';
-- How many attempts were over when a person asked for another one: `retries` are counted from there.
ALTER TABLE steps ADD COLUMN base INTEGER NOT NULL DEFAULT 0;
-- The key of the run that the attempt started or joined.
ALTER TABLE steps ADD COLUMN child TEXT NOT NULL DEFAULT '';
UPDATE steps SET child = coalesce((
  SELECT t.id FROM waits AS w JOIN subjects AS t ON t.key = w.subject
  WHERE w.run = steps.run AND w.step = steps.name AND w.active = 1 AND t.kind = 'run'), '');
CREATE INDEX steps_child ON steps (child) WHERE child <> '';
CREATE INDEX effects_aside ON effects (run) WHERE attempt = 0;

-- The steps that are held, and by what. What is being cancelled or skipped is held by nothing. The site of a run is where
-- its field's data lie, as far as its field, its parameters or the outputs of its steps say.
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
