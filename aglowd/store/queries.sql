-- name: save_pipeline
INSERT OR IGNORE INTO pipelines (digest, name, definition) VALUES (:digest, :name, :definition);

-- name: get_pipeline
SELECT definition FROM pipelines WHERE digest = :digest;

-- name: add_event
INSERT INTO events (at, kind, field, run, step, subject, effect, data)
VALUES (:at, :kind, :field, :run, :step, :subject, :effect, :data);

-- name: add_run
INSERT INTO runs (id, field, pipeline, key, params, context, state, created)
VALUES (:id, :field, :pipeline, :key, :params, :context, 'running', :now);

-- name: add_step
INSERT INTO steps (run, name, kind, state, priority, reason, since)
VALUES (:run, :name, :kind, 'pending', :priority, :reason, :now);

-- name: latest_run
SELECT * FROM runs WHERE key = :key ORDER BY created DESC, id DESC LIMIT 1;

-- name: count_runs
SELECT count(*) FROM runs WHERE key = :key;

-- name: get_run
SELECT * FROM runs WHERE id = :run;

-- name: end_run
UPDATE runs SET state = :state, reason = :reason, outputs = :outputs, ended = :now WHERE id = :run;

-- name: run_states
SELECT name, state FROM steps WHERE run = :run;

-- name: run_outputs
SELECT name, outputs FROM steps WHERE run = :run AND state = 'done' AND outputs <> '{}';

-- name: run_failures
SELECT name, reason FROM steps WHERE run = :run AND state = 'failed' AND inherited = 0 ORDER BY ended, name;

-- name: dirty_steps
SELECT s.* FROM steps AS s WHERE s.dirty IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.step = s.name AND e.attempt = s.attempt
                  AND e.state IN ('planned', 'open', 'unknown', 'doubt'))
ORDER BY s.priority DESC, s.dirty LIMIT :most;

-- name: step_version
SELECT * FROM steps WHERE run = :run AND name = :step;

-- name: step_observations
SELECT s.key, s.version, s.at, s.data FROM waits AS w JOIN subjects AS s ON s.key = w.subject
WHERE w.run = :run AND w.step = :step;

-- name: step_effects
SELECT * FROM effects WHERE run = :run AND step = :step AND attempt = :attempt ORDER BY kind, ordinal;

-- name: live_effects_of_step
SELECT count(*) FROM effects WHERE run = :run AND step = :step AND attempt = :attempt
  AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: clear_dirty
UPDATE steps SET dirty = NULL WHERE run = :run AND name = :step AND wanted = :wanted;

-- name: set_step
UPDATE steps SET state = :state, reason = :reason, since = :since, due = :due, version = version + 1, faults = 0
WHERE run = :run AND name = :step;

-- name: begin_attempt
UPDATE steps SET started = :now, deadline = :deadline, pool = :pool WHERE run = :run AND name = :step;

-- name: end_step
UPDATE steps SET state = :state, reason = :reason, since = :now, ended = :now, due = NULL, deadline = NULL, dirty = NULL,
  outputs = :outputs, inherited = :inherited, version = version + 1 WHERE run = :run AND name = :step;

-- name: retry_step
UPDATE steps SET state = 'ready', attempt = attempt + 1, reason = :reason, since = :now, due = :due, deadline = NULL,
  started = NULL, dirty = NULL, stopping = '', version = version + 1 WHERE run = :run AND name = :step;

-- name: mark_step
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1 WHERE run = :run AND name = :step
  AND state IN ('ready', 'working', 'waiting');

-- name: mark_queued
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1
WHERE state = 'ready' AND pool <> '' AND due IS NULL;

-- name: mark_waiting
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1
WHERE (run, name) IN (SELECT run, step FROM waits WHERE subject = :subject AND active = 1) AND state IN ('ready', 'working', 'waiting');

-- name: mark_due
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1, due = CASE state WHEN 'waiting' THEN :again ELSE NULL END
WHERE due <= :now AND state IN ('ready', 'waiting', 'working');

-- name: mark_overdue
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1, deadline = NULL,
  stopping = CASE stopping WHEN '' THEN 'timeout' ELSE stopping END
WHERE deadline <= :now AND state IN ('working', 'waiting') RETURNING run, name;

-- name: next_timer
SELECT min(at) FROM (
  SELECT min(due) AS at FROM steps WHERE due IS NOT NULL
  UNION ALL SELECT min(deadline) FROM steps WHERE deadline IS NOT NULL
  UNION ALL SELECT min(next_at) FROM effects WHERE state IN ('planned', 'open', 'unknown', 'doubt') AND next_at > :now);

-- name: effects_are_due
SELECT EXISTS (SELECT 1 FROM effects WHERE state IN ('planned', 'open', 'unknown', 'doubt') AND next_at <= :now);

-- name: add_fault
UPDATE steps SET faults = faults + 1, dirty = CASE wanted WHEN :wanted THEN NULL ELSE dirty END, due = :due, reason = :reason, since = :now, version = version + 1
WHERE run = :run AND name = :step RETURNING faults;

-- name: pool_used
SELECT count(*) FROM steps WHERE pool = :pool AND state IN ('working', 'waiting');

-- name: set_pool
UPDATE steps SET pool = :pool WHERE run = :run AND name = :step;

-- name: pool_next
SELECT run, name FROM steps WHERE pool = :pool AND state = 'ready' AND due IS NULL ORDER BY priority DESC, since, run, name LIMIT 1;

-- name: rest_waits
UPDATE waits SET active = 0 WHERE run = :run AND step = :step AND active = 1;

-- name: drop_waits
DELETE FROM waits WHERE run = :run AND step = :step;

-- name: add_subject
INSERT OR IGNORE INTO subjects (key, kind, id, args) VALUES (:key, :kind, :id, :args);

-- name: add_wait
INSERT INTO waits (subject, run, step) VALUES (:key, :run, :step)
ON CONFLICT (subject, run, step) DO UPDATE SET active = 1;

-- name: subject_version
SELECT version FROM subjects WHERE key = :key;

-- name: get_subject
SELECT * FROM subjects WHERE key = :key;

-- name: observe
UPDATE subjects SET version = version + 1, at = :at, data = :data WHERE key = :key RETURNING version;

-- name: forget_observation
UPDATE subjects SET version = version + 1, at = :at, data = NULL WHERE key = :key AND version > 0;

-- name: watched
SELECT key, kind, id, args, version, data FROM subjects AS s
WHERE kind = :kind AND EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1) ORDER BY key;

-- name: get_cursor
SELECT value FROM cursors WHERE source = :source;

-- name: set_cursor
INSERT INTO cursors (source, value) VALUES (:source, :value) ON CONFLICT (source) DO UPDATE SET value = :value;

-- name: get_effect
SELECT e.*, r.field FROM effects AS e JOIN runs AS r ON r.id = e.run WHERE e.key = :key;

-- name: add_effect
INSERT INTO effects (key, run, step, attempt, kind, ordinal, stop, state, inputs, digest, planned, intended, next_at)
VALUES (:key, :run, :step, :attempt, :kind, :ordinal, :stop, :state, :inputs, :digest, :now, :intended, :now);

-- name: live_effects
SELECT e.*, r.field, s.stopping FROM effects AS e JOIN runs AS r ON r.id = e.run JOIN steps AS s ON s.run = e.run AND s.name = e.step
WHERE e.state IN ('planned', 'open', 'unknown', 'doubt') AND e.next_at <= :now AND e.key NOT IN (SELECT value FROM json_each(:busy))
ORDER BY s.priority DESC, e.next_at, e.key LIMIT :most;

-- name: intend_effect
UPDATE effects SET state = 'open', evidence = :evidence, intended = :now, absent = NULL, looks = 0,
  notes = CASE WHEN state IN ('unknown', 'doubt') THEN json_patch(notes, :repeated) ELSE notes END WHERE key = :key
  AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: note_effect
UPDATE effects SET notes = json_patch(notes, :notes) WHERE key = :key;

-- name: settle_effect
UPDATE effects SET state = :state, result = :result, reason = :reason, settled = :now, next_at = NULL WHERE key = :key
  AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: put_off_effect
UPDATE effects SET state = :state, reason = :reason, tries = tries + :tried, looks = looks + :looked, absent = :absent, next_at = :next_at
WHERE key = :key AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: list_doubts
SELECT e.*, r.field, '' AS stopping FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE e.state IN ('doubt', 'unknown') ORDER BY e.state, e.intended, e.key;

-- name: retry_effect
UPDATE effects SET state = 'planned', reason = :reason, tries = tries + 1, absent = NULL, next_at = :now,
  notes = json_patch(notes, :repeated) WHERE key = :key;

-- name: same_result
SELECT key FROM effects WHERE kind = :kind AND key <> :key AND state = 'done'
  AND (json_extract(result, '$.job') = json_extract(:result, '$.job')
    -- Two stagers may give the same number.
    OR json_extract(result, '$.request') = json_extract(:result, '$.request') AND json_extract(inputs, '$.site') IS :site);

-- name: effects_of_kind
SELECT e.*, r.field FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE e.kind = :kind AND e.planned >= :since ORDER BY e.planned, e.key;

-- name: list_findings
SELECT * FROM findings ORDER BY found, key;

-- name: count_findings
SELECT count(*) FROM findings WHERE handled NOT LIKE 'dismissed%';

-- name: add_finding
INSERT INTO findings (key, kind, effect, field, what, data, found, handled)
VALUES (:key, :kind, :effect, :field, :what, :data, :now, :handled)
ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, effect = excluded.effect, field = excluded.field,
  what = excluded.what, data = excluded.data, handled = excluded.handled
WHERE findings.kind = 'stranger' AND excluded.kind = 'duplicate' RETURNING key;

-- name: dismiss_finding
UPDATE findings SET handled = :handled WHERE key = :key RETURNING key;

-- name: drop_findings
DELETE FROM findings WHERE key LIKE :prefix || '%' AND key NOT IN (SELECT value FROM json_each(:keys))
  AND (kind <> 'duplicate' OR handled LIKE 'dismissed%');

-- name: last_moment
SELECT max(at) FROM events;

-- name: look_first
UPDATE effects SET state = CASE state WHEN 'doubt' THEN 'doubt' ELSE 'unknown' END, notes = json_patch(notes, :note),
  intended = coalesce(intended, :since), absent = NULL, next_at = :now,
  reason = 'a backup was restored: it may have been done since'
WHERE (key = :key OR :key IS NULL) AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: recover_effects
UPDATE effects SET state = 'unknown', next_at = :now, reason = 'aglowd was restarted while it was under way'
WHERE state = 'open';

-- name: forget_absences
UPDATE effects SET absent = NULL, next_at = :now WHERE state = 'unknown';

-- name: step_reason
UPDATE steps SET reason = :reason WHERE run = :run AND name = :step AND reason <> :reason AND state = 'working';

-- name: put_field
INSERT INTO fields (name, status, data, problem, version) VALUES (:name, :status, :data, :problem, 1)
ON CONFLICT (name) DO UPDATE SET status = :status, data = :data, problem = :problem, version = version + 1
WHERE status <> :status OR data <> :data OR problem <> :problem RETURNING version;

-- name: list_fields
SELECT f.*, r.state AS run_state, r.reason AS run_reason, r.created, r.ended FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
ORDER BY f.name;

-- name: get_field
SELECT f.*, r.state AS run_state, r.reason AS run_reason, r.created, r.ended FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
WHERE f.name = :name;

-- name: pools_used
SELECT pool, count(*) AS n FROM steps WHERE pool <> '' AND state IN ('working', 'waiting') GROUP BY pool;

-- name: fields_running
SELECT count(*) FROM fields AS f JOIN runs AS r ON r.id = f.run WHERE r.state = 'running';

-- name: fields_on_offer
SELECT f.* FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
WHERE (r.id IS NULL OR r.state <> 'running') AND f.version > f.taken
  AND (f.problem <> '' OR f.status IN (SELECT value FROM json_each(:select)))
ORDER BY f.name;

-- name: take_field
UPDATE fields SET run = :run, taken = :taken WHERE name = :name;

-- name: field_seen
UPDATE fields SET taken = version WHERE name = :name;

-- name: own_status
UPDATE fields SET status = :status, version = version + 1, taken = version + 1 WHERE name = :name;

-- name: steps_of_run
SELECT * FROM steps WHERE run = :run;

-- name: waits_of_step
SELECT w.subject, s.kind, s.id, s.version, s.at, s.data FROM waits AS w JOIN subjects AS s ON s.key = w.subject
WHERE w.run = :run AND w.step = :step AND w.active = 1 ORDER BY w.subject;

-- name: events_since
SELECT * FROM events WHERE id > :since ORDER BY id LIMIT :most;

-- name: events_of_field
SELECT * FROM events WHERE field = :field AND id > :since ORDER BY id LIMIT :most;

-- name: latest_events_of_field
SELECT * FROM events WHERE field = :field ORDER BY id DESC LIMIT :most;

-- name: prune_events
DELETE FROM events WHERE id > :start AND id <= :end
  AND kind IN ('SubjectChanged', 'StepWorks', 'StepWaits', 'StepChanged', 'EffectPlanned', 'EffectPutOff', 'EffectUnknown');

-- name: last_event
SELECT coalesce(max(id), 0) FROM events;

-- name: count_states
SELECT CASE WHEN r.state = 'done' THEN 'archived' WHEN r.state IS NOT NULL THEN r.state
            WHEN f.problem <> '' THEN 'failed' ELSE 'offered' END AS state, count(*) AS n
FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run GROUP BY 1;

-- name: count_effects
SELECT state, count(*) AS n FROM effects GROUP BY state;

-- name: count_steps
SELECT state, count(*) AS n FROM steps GROUP BY state;

-- name: oldest_waits
SELECT kind, count(*) AS n, min(since) AS since FROM steps WHERE state = 'waiting' GROUP BY kind ORDER BY since;

-- name: waiting_runs
SELECT w.run, w.step, r.field FROM waits AS w JOIN runs AS r ON r.id = w.run
WHERE w.subject = :subject AND w.active = 1;

-- name: hurry_effects
UPDATE effects SET next_at = :now WHERE run = :run AND step = :step AND state = 'planned';

-- name: list_live_effects
SELECT e.*, r.field, '' AS stopping FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE e.run = :run AND e.state IN ('planned', 'open', 'unknown', 'doubt') ORDER BY e.key;

-- name: runs_of_field
SELECT * FROM runs WHERE field = :field ORDER BY created, id;

-- name: count_runs_of
SELECT count(*) FROM runs AS r JOIN pipelines AS p ON p.digest = r.pipeline WHERE p.name = :name;

-- name: get_run_as_field
SELECT r.field AS name, NULL AS status, '{}' AS data, '' AS problem, r.id AS run, r.state AS run_state, r.reason AS run_reason,
  r.created, r.ended FROM runs AS r WHERE r.field = :name ORDER BY r.created DESC, r.id DESC LIMIT 1;

-- name: stagings
SELECT r.field AS name, NULL AS status, '' AS problem, r.id AS run, r.state AS run_state, r.reason AS run_reason,
  r.created, r.ended, r.context, r.outputs, (
    SELECT json_extract(s.data, '$.counts') FROM subjects AS s
    WHERE s.key > 'locality:' || r.id || '/' AND s.key < 'locality:' || r.id || '0' AND s.version > 0
    ORDER BY s.at DESC, s.key DESC LIMIT 1) AS counts
FROM runs AS r WHERE r.field GLOB :like ORDER BY r.created DESC, r.id DESC LIMIT :most;

-- name: stagings_running
SELECT * FROM runs WHERE field GLOB :like AND state = 'running' ORDER BY created, id;
