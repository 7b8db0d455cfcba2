-- What is never so in a database of ours, and how it is found: one name a row. All tables and columns that are named here stand
-- in every schema that there ever was, or in those since the one that is named. A run that has no steps at all is packed
-- (archive.py) or forgotten. A run whose key is 'forgotten:' and its id is a tombstone (forgetting.py).

-- rule: the step {} is of a run that is not there
SELECT run || '/' || name FROM steps WHERE run NOT IN (SELECT id FROM runs);

-- rule: the run {} keeps a pipeline that is not there
SELECT id FROM runs WHERE pipeline NOT IN (SELECT digest FROM pipelines);

-- rule: the run {} has ended, and one of its steps has not
SELECT DISTINCT r.id FROM runs AS r JOIN steps AS s ON s.run = r.id
WHERE r.state <> 'running' AND s.state NOT IN ('done', 'failed', 'skipped', 'cancelled');

-- rule: the run {} is running, and all of its steps have ended
SELECT r.id FROM runs AS r WHERE r.state = 'running' AND NOT EXISTS (
  SELECT 1 FROM steps AS s WHERE s.run = r.id AND s.state NOT IN ('done', 'failed', 'skipped', 'cancelled'));

-- rule: the run {} has ended, and nobody knows when
SELECT id FROM runs WHERE state <> 'running' AND ended IS NULL;

-- rule: the field {} names a run that is not there
SELECT name FROM fields WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs);

-- rule: the effect {} is of a step that is not there
SELECT e.key FROM effects AS e LEFT JOIN runs AS r ON r.id = e.run WHERE r.id IS NULL OR r.key <> 'forgotten:' || r.id
  AND NOT EXISTS (SELECT 1 FROM steps AS s WHERE s.run = e.run AND s.name = e.step)
  AND EXISTS (SELECT 1 FROM steps AS s WHERE s.run = e.run);

-- rule: the effect {} is called otherwise than its run, step and attempt say
SELECT key FROM effects WHERE key <> run || '/' || step || '/' || attempt || '/' || kind || '/' || ordinal;

-- rule: the effect {} is of an attempt that never began
SELECT e.key FROM effects AS e JOIN steps AS s ON s.run = e.run AND s.name = e.step WHERE e.attempt > s.attempt;

-- rule: the effect {} has not ended, and its attempt has
SELECT e.key FROM effects AS e JOIN steps AS s ON s.run = e.run AND s.name = e.step
WHERE e.state IN ('planned', 'open', 'unknown', 'doubt') AND e.attempt > 0
  AND (e.attempt < s.attempt OR s.state IN ('done', 'failed', 'skipped', 'cancelled'));

-- rule: the effect {} is being carried out, and its intent has no time
SELECT key FROM effects WHERE state = 'open' AND intended IS NULL;

-- rule: the effect {} has ended, and nobody knows when
SELECT key FROM effects WHERE state IN ('done', 'rejected') AND settled IS NULL;

-- rule: the effect {} is in a state that is none
SELECT key FROM effects WHERE state NOT IN ('planned', 'open', 'unknown', 'doubt', 'done', 'rejected');

-- rule: the step {} is in a state that is none
SELECT run || '/' || name FROM steps
WHERE state NOT IN ('pending', 'ready', 'working', 'waiting', 'done', 'failed', 'skipped', 'cancelled');

-- rule: the step {} waits for a subject that is not there
SELECT run || '/' || step FROM waits WHERE active = 1 AND subject NOT IN (SELECT key FROM subjects);

-- rule: the step {} works, has no effect without an end, and nobody decides it
SELECT s.run || '/' || s.name FROM steps AS s WHERE s.state = 'working' AND s.dirty IS NULL AND NOT EXISTS (
  SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.step = s.name AND e.attempt = s.attempt
  AND e.state IN ('planned', 'open', 'unknown', 'doubt'));

-- rule: the effect {} is recorded with something that is no JSON
SELECT key FROM effects WHERE NOT (json_valid(inputs) AND json_valid(notes) AND json_valid(coalesce(result, 'null')));

-- rule since 6: the run {} has no steps, and is not packed
SELECT id FROM runs WHERE key <> 'forgotten:' || id AND id NOT IN (SELECT run FROM archive)
  AND NOT EXISTS (SELECT 1 FROM steps AS s WHERE s.run = runs.id);

-- rule since 6: the run {} is packed, and is not said to be
SELECT a.run FROM archive AS a LEFT JOIN runs AS r ON r.id = a.run WHERE r.archived IS NULL;

-- rule since 6: the run {} is packed, and has steps at work
SELECT run FROM archive WHERE run IN (SELECT run FROM steps);

-- rule since 6: the run {} is said to be packed, and is not
SELECT id FROM runs WHERE archived IS NOT NULL AND id NOT IN (SELECT run FROM archive);
