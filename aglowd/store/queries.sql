-- name: save_pipeline
INSERT OR IGNORE INTO pipelines (digest, name, definition) VALUES (:digest, :name, :definition);

-- name: get_pipeline
SELECT definition FROM pipelines WHERE digest = :digest;

-- name: add_event
INSERT INTO events (at, kind, field, run, step, subject, effect, data, cause)
VALUES (:at, :kind, :field, :run, :step, :subject, :effect, :data, :cause);

-- name: add_run
-- What is begun later stands later, also when the clock was set back: which run of a key is the latest hangs on it.
INSERT INTO runs (id, field, pipeline, key, params, context, state, created)
VALUES (:id, :field, :pipeline, :key, :params, :context, 'running', max(:now,
  coalesce((SELECT max(created) + 0.001 FROM runs WHERE key = :key), :now),
  coalesce((SELECT max(created) + 0.001 FROM runs WHERE field = :field), :now)));

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

-- name: moment_of_run
SELECT sum(version) FROM steps WHERE run = :run;

-- name: around
SELECT name, state, attempt, version, ended, CASE WHEN state = 'failed' AND inherited = 0 THEN reason END AS failure,
  CASE WHEN state = 'done' AND outputs <> '{}' THEN outputs END AS outputs FROM steps WHERE run = :run ORDER BY name;

-- name: dirty_steps
SELECT * FROM undecided ORDER BY priority DESC, dirty LIMIT :most;

-- name: dirty_step
SELECT * FROM undecided WHERE run = :run AND name = :step;

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

-- name: set_step
-- A mark that came after the decision had been made from `wanted` stays.
UPDATE steps SET state = :state, reason = :reason, since = :since, due = :due, said = :said, started = :started,
  deadline = :deadline, pool = :pool, dirty = CASE wanted WHEN :wanted THEN NULL ELSE dirty END,
  woken = CASE wanted WHEN :wanted THEN 0 ELSE woken END, version = version + 1, faults = 0 WHERE run = :run AND name = :step;

-- name: ready_step
UPDATE steps SET state = 'ready', reason = :reason, since = :now, due = NULL, said = :said, dirty = coalesce(dirty, :now),
  wanted = wanted + 1, woken = :said, version = version + 1, faults = 0 WHERE run = :run AND name = :step;

-- name: begin_step
UPDATE steps SET started = :started, pool = :pool WHERE run = :run AND name = :step;

-- name: end_step
UPDATE steps SET state = :state, reason = :reason, since = :now, ended = :now, due = NULL, deadline = NULL, dirty = NULL,
  outputs = :outputs, inherited = :inherited, said = :said, woken = 0, version = version + 1 WHERE run = :run AND name = :step;

-- name: retry_step
UPDATE steps SET state = 'ready', attempt = attempt + 1, reason = :reason, since = :now, due = :due, deadline = NULL,
  started = NULL, dirty = NULL, stopping = '', said = :said, woken = 0, version = version + 1 WHERE run = :run AND name = :step;

-- name: mark_step
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1, woken = CASE :cause WHEN 0 THEN woken ELSE :cause END WHERE run = :run AND name = :step
  AND state IN ('ready', 'working', 'waiting');

-- name: mark_queued
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1
WHERE state = 'ready' AND pool <> '' AND due IS NULL;

-- name: mark_due
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1, due = CASE state WHEN 'waiting' THEN :again ELSE NULL END
WHERE due <= :now AND state IN ('ready', 'waiting', 'working');

-- name: mark_overdue
UPDATE steps SET dirty = coalesce(dirty, :now), wanted = wanted + 1, deadline = NULL,
  stopping = CASE stopping WHEN '' THEN 'timeout' ELSE stopping END
WHERE deadline <= :now AND state IN ('working', 'waiting')
  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = steps.run AND h.name = steps.name) RETURNING run, name;

-- name: next_timer
SELECT min(at) FROM (
  SELECT min(due) AS at FROM steps WHERE due IS NOT NULL
  UNION ALL SELECT min(s.deadline) FROM steps AS s WHERE s.deadline IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name)
  UNION ALL SELECT min(next_at) FROM effects WHERE state IN ('planned', 'open', 'unknown', 'doubt') AND next_at > :now);

-- name: effects_are_due
SELECT EXISTS (SELECT 1 FROM effects WHERE state IN ('planned', 'open', 'unknown', 'doubt') AND next_at <= :now);

-- name: add_fault
UPDATE steps SET faults = faults + 1, dirty = CASE wanted WHEN :wanted THEN NULL ELSE dirty END,
  woken = CASE wanted WHEN :wanted THEN 0 ELSE woken END, said = :said, due = :due, reason = :reason, since = :now, version = version + 1
WHERE run = :run AND name = :step;

-- name: step_said
UPDATE steps SET said = :said WHERE run = :run AND name = :step;

-- name: pool_used
SELECT count(*) FROM steps WHERE pool = :pool AND state IN ('working', 'waiting');

-- name: pool_next
SELECT s.run, s.name FROM steps AS s WHERE s.pool = :pool AND s.state = 'ready' AND s.due IS NULL
  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name)
ORDER BY s.priority DESC, s.since, s.run, s.name LIMIT 1;

-- name: rest_waits
UPDATE waits SET active = 0 WHERE run = :run AND step = :step AND active = 1;

-- name: drop_waits
DELETE FROM waits WHERE run = :run AND step = :step RETURNING subject, active;

-- name: add_subject
INSERT OR IGNORE INTO subjects (key, kind, id, args) VALUES (:key, :kind, :id, :args);

-- name: subject_version
SELECT version FROM subjects WHERE key = :key;

-- name: add_wait
INSERT INTO waits (subject, run, step) VALUES (:key, :run, :step)
ON CONFLICT (subject, run, step) DO UPDATE SET active = 1;

-- name: get_subject
SELECT * FROM subjects WHERE key = :key;

-- name: observe
UPDATE subjects SET version = version + 1, at = :at, data = :data WHERE key = :key;

-- name: forget_observation
UPDATE subjects SET version = version + 1, at = :at, data = NULL WHERE key = :key AND version > 0;

-- name: watched
-- Without what was seen of them: that may be long, and whoever begins a round has no use for it.
SELECT id, args, version FROM subjects AS s
WHERE kind = :kind AND EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1) ORDER BY key;

-- name: watched_now
-- Of all that are waited for the new ones, and those that are named.
SELECT id, args, version FROM subjects AS s
WHERE kind = :kind AND version = 0 AND EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1)
UNION SELECT id, args, version FROM subjects AS s
WHERE +kind = :kind AND key IN (SELECT value FROM json_each(:keys)) AND EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1)
ORDER BY id;

-- name: observed
SELECT id, args, data FROM subjects AS s
WHERE kind = :kind AND EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1) ORDER BY key;

-- name: unended_jobs
-- That no step waits for, and of which no end was seen; some were never looked at.
SELECT id, args, data FROM subjects AS s
WHERE kind = 'job' AND NOT EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1)
  AND NOT coalesce(json_extract(data, '$.final'), 0) ORDER BY key;

-- name: waited
SELECT s.id, s.args, s.data, s.at, w.run, w.step, r.field FROM subjects AS s JOIN waits AS w ON w.subject = s.key AND w.active = 1
JOIN runs AS r ON r.id = w.run WHERE s.kind = :kind ORDER BY r.field, w.run, w.step, s.key;

-- name: field_runs
SELECT 1 FROM runs WHERE field = :field AND state = 'running';

-- name: get_cursor
SELECT value FROM cursors WHERE source = :source;

-- name: set_cursor
INSERT INTO cursors (source, value) VALUES (:source, :value) ON CONFLICT (source) DO UPDATE SET value = :value;

-- name: drop_cursors
DELETE FROM cursors WHERE substr(source, 1, length(:prefix)) = :prefix AND source NOT IN (SELECT value FROM json_each(:names));

-- name: cursors_like
SELECT source, value FROM cursors WHERE substr(source, 1, length(:prefix)) = :prefix ORDER BY source;

-- name: running_key
SELECT 1 FROM runs WHERE key = :key AND state = 'running';

-- name: last_done
SELECT * FROM runs WHERE key = :key AND state = 'done' ORDER BY created DESC, ended DESC, id DESC LIMIT 1;

-- name: get_effect
SELECT e.*, r.field FROM effects AS e JOIN runs AS r ON r.id = e.run WHERE e.key = :key;

-- name: add_effect
INSERT INTO effects (key, run, step, attempt, kind, ordinal, stop, state, inputs, digest, planned, intended, next_at)
VALUES (:key, :run, :step, :attempt, :kind, :ordinal, :stop, :state, :inputs, :digest, :now, :intended, :now);

-- name: live_effects
-- The audit may make good what a run did whose steps are packed, or forgotten.
SELECT e.*, r.field, coalesce(s.stopping, '') AS stopping FROM effects AS e JOIN runs AS r ON r.id = e.run
LEFT JOIN steps AS s ON s.run = e.run AND s.name = e.step
WHERE e.state IN ('planned', 'open', 'unknown', 'doubt') AND e.next_at <= :now AND e.key NOT IN (SELECT value FROM json_each(:busy))
ORDER BY coalesce(s.priority, 0) DESC, e.next_at, e.key LIMIT :most;

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
  reason = :reason
WHERE (key = :key OR :key IS NULL) AND state IN ('planned', 'open', 'unknown', 'doubt');

-- name: recover_effects
UPDATE effects SET state = 'unknown', next_at = :now, reason = 'aglowd was restarted while it was under way'
WHERE state = 'open';

-- name: forget_absences
UPDATE effects SET absent = NULL, next_at = :now WHERE state = 'unknown';

-- name: step_reason
UPDATE steps SET reason = :reason WHERE run = :run AND name = :step AND reason <> :reason AND state = 'working' RETURNING attempt, since;

-- name: put_field
-- A priority or a site that changed is no new offer: `version` stays.
INSERT INTO fields (name, status, data, problem, priority, field_priority, site, version, place)
VALUES (:name, :status, :data, :problem, :priority, :field_priority, :site, 1, (SELECT coalesce(max(place), 0) + 1 FROM fields))
ON CONFLICT (name) DO UPDATE SET status = :status, data = :data, problem = :problem, priority = :priority,
  field_priority = :field_priority, site = :site, version = version + (status <> :status OR data <> :data OR problem <> :problem)
WHERE status <> :status OR data <> :data OR problem <> :problem
  OR (priority, field_priority, site) <> (:priority, :field_priority, :site) RETURNING version;

-- name: list_fields
SELECT f.*, r.state AS run_state, r.reason AS run_reason, r.created, r.ended FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
ORDER BY f.name;

-- name: get_field
SELECT f.*, r.state AS run_state, r.reason AS run_reason, r.created, r.ended FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
WHERE f.name = :name;

-- name: pools_used
SELECT pool, count(*) AS n FROM steps WHERE pool <> '' AND state IN ('working', 'waiting') GROUP BY pool;

-- name: sites_running
-- Where the catalogue does not say (any more) where a field's data lie, its SRM list does as soon as it was read; until then what the
-- catalogue said when the run began counts.
SELECT CASE WHEN f.site <> '' THEN f.site ELSE coalesce((
    SELECT json_extract(s.outputs, '$.site') FROM steps AS s
    WHERE s.run = r.id AND s.kind = 'srm_list' AND s.state = 'done' AND json_extract(s.outputs, '$.site') IS NOT NULL
    ORDER BY s.ended, s.name LIMIT 1), json_extract(r.context, '$.site'), '') END AS site, count(*) AS n
FROM fields AS f JOIN runs AS r ON r.id = f.run WHERE r.state = 'running' GROUP BY 1;

-- name: fields_at_work
SELECT f.name, f.status, f.run FROM fields AS f JOIN runs AS r ON r.id = f.run WHERE r.state = 'running';

-- name: offered_as
SELECT r.context FROM fields AS f JOIN runs AS r ON r.id = f.run WHERE f.name = :name;

-- name: fields_idle
SELECT f.name, f.status, f.problem, f.refused, f.priority, f.field_priority, f.site, f.version > f.taken AS is_new, r.state AS run_state
FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run
WHERE r.id IS NULL OR r.state <> 'running' ORDER BY f.place, f.name;

-- name: take_field
UPDATE fields SET run = :run, taken = version, refused = '' WHERE name = :name;

-- name: refuse_field
UPDATE fields SET refused = :why WHERE name = :name;

-- name: field_seen
UPDATE fields SET taken = version WHERE name = :name;

-- name: own_status
UPDATE fields SET status = :status, version = version + 1, taken = version + 1 WHERE name = :name;

-- name: wrote_status_since
SELECT 1 FROM events AS e JOIN effects AS f ON f.key = e.effect
WHERE e.field = :name AND e.id > :since AND e.kind = 'EffectDone' AND f.kind = 'write_status' LIMIT 1;

-- name: steps_of_run
SELECT * FROM steps WHERE run = :run;

-- name: steps_that_follow
-- Those that wait for others of their own run, as what keeps files online does.
SELECT DISTINCT w.step FROM waits AS w JOIN subjects AS s ON s.key = w.subject WHERE w.run = :run AND w.active = 1 AND s.kind = 'step';

-- name: waits_of_step
SELECT w.subject, s.kind, s.id, s.version, s.at, s.data FROM waits AS w JOIN subjects AS s ON s.key = w.subject
WHERE w.run = :run AND w.step = :step AND w.active = 1 ORDER BY w.subject;

-- name: events_since
SELECT * FROM events WHERE id > :since AND id <= :until ORDER BY id LIMIT :most;

-- name: latest_events
SELECT * FROM events WHERE id <= :until ORDER BY id DESC LIMIT :most;

-- name: events_of_kind
SELECT * FROM events WHERE kind = :kind AND id > :since AND id <= :until ORDER BY id LIMIT :most;

-- name: latest_events_of_kind
SELECT * FROM events WHERE kind = :kind AND id <= :until ORDER BY id DESC LIMIT :most;

-- name: notices
SELECT e.* FROM events AS e LEFT JOIN runs AS r ON r.id = e.run
WHERE e.id > :since AND e.id <= :upto AND e.kind IN (SELECT value FROM json_each(:kinds))
  -- A reason that was too long for an event took the state with it.
  AND (e.kind <> 'RunEnded' OR coalesce(json_extract(e.data, '$.state'), r.state) = 'failed')
ORDER BY e.id LIMIT :most;

-- name: events_of_field
SELECT * FROM events WHERE field = :field AND id > :since AND id <= :until
  AND (:kinds = '[]' OR +kind IN (SELECT value FROM json_each(:kinds))) ORDER BY id LIMIT :most;

-- name: latest_events_of_field
SELECT * FROM events WHERE field = :field AND id <= :until
  AND (:kinds = '[]' OR +kind IN (SELECT value FROM json_each(:kinds))) ORDER BY id DESC LIMIT :most;

-- name: prune_events
DELETE FROM events WHERE id > :start AND id <= :end
  AND kind IN ('SubjectChanged', 'StepWorks', 'StepWaits', 'StepChanged', 'StepReady', 'EffectPlanned', 'EffectPutOff', 'EffectUnknown');

-- name: last_of_effect
SELECT coalesce(max(id), 0) FROM events WHERE effect = :effect AND effect <> '';

-- name: last_change_of_field
-- The sign keeps the planner from reading all changes of all fields.
SELECT id FROM events WHERE field = :field AND +kind = 'FieldChanged' ORDER BY id DESC LIMIT 1;

-- name: last_event
SELECT coalesce(max(id), 0) FROM events;

-- name: count_states
SELECT CASE WHEN r.state = 'done' THEN 'archived' WHEN r.state IS NOT NULL THEN r.state
            WHEN f.problem <> '' OR f.refused <> '' THEN 'failed' ELSE 'offered' END AS state, count(*) AS n
FROM fields AS f LEFT JOIN runs AS r ON r.id = f.run GROUP BY 1;

-- name: count_effects
SELECT state, count(*) AS n FROM effects GROUP BY state;

-- name: count_other_steps
-- Those that wait are counted by `oldest_waits`. Sorting is what costs here, not reading: so each step is sorted once, and by one word.
SELECT state, count(*) AS n FROM steps WHERE state <> 'waiting' GROUP BY state;

-- name: oldest_waits
SELECT kind, count(*) AS n, min(since) AS since FROM steps WHERE state = 'waiting' GROUP BY kind ORDER BY since;

-- name: waiting_runs
SELECT w.run, w.step, r.field, s.said FROM waits AS w JOIN runs AS r ON r.id = w.run JOIN steps AS s ON s.run = w.run AND s.name = w.step
WHERE w.subject = :subject AND w.active = 1;

-- name: hurry_effects
UPDATE effects SET next_at = :now WHERE run = :run AND step = :step AND state = 'planned';

-- name: list_live_effects
SELECT e.*, r.field, '' AS stopping FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE e.run = :run AND e.state IN ('planned', 'open', 'unknown', 'doubt') ORDER BY e.key;

-- name: runs_of_field
SELECT * FROM runs WHERE field = :field AND key <> 'forgotten:' || id ORDER BY created, id;

-- name: count_runs_of
SELECT count(*) FROM runs AS r JOIN pipelines AS p ON p.digest = r.pipeline WHERE p.name = :name;

-- name: get_run_as_field
SELECT r.field AS name, NULL AS status, '{}' AS data, '' AS problem, '' AS refused, '' AS site, r.id AS run, r.state AS run_state, r.reason AS run_reason,
  r.created, r.ended FROM runs AS r WHERE r.field = :name AND r.key <> 'forgotten:' || r.id ORDER BY r.created DESC, r.id DESC LIMIT 1;

-- name: stagings
SELECT r.field AS name, NULL AS status, '' AS problem, '' AS refused, r.id AS run, r.state AS run_state, r.reason AS run_reason,
  r.created, r.ended, r.context, r.outputs, (
    SELECT json_extract(s.data, '$.counts') FROM subjects AS s
    WHERE s.key > 'locality:' || r.id || '/' AND s.key < 'locality:' || r.id || '0' AND s.version > 0
    ORDER BY s.at DESC, s.key DESC LIMIT 1) AS counts
FROM runs AS r WHERE r.field GLOB :like AND r.key <> 'forgotten:' || r.id ORDER BY r.created DESC, r.id DESC LIMIT :most;

-- name: stagings_running
SELECT * FROM runs WHERE field GLOB :like AND state = 'running' ORDER BY created, id;

-- name: is_held
SELECT scope, target, mode, since, uid, reason FROM held WHERE run = :run AND name = :step ORDER BY scope, target;

-- name: set_child
UPDATE steps SET child = :child WHERE run = :run AND name = :step;

-- name: runs_waited_for
SELECT t.id FROM waits AS w JOIN subjects AS t ON t.key = w.subject
WHERE w.run = :run AND w.step = :step AND w.active = 1 AND t.kind = 'run' ORDER BY t.id;

-- name: waiters_of_run
SELECT count(*) FROM waits AS w JOIN steps AS s ON s.run = w.run AND s.name = w.step
WHERE w.subject = :subject AND w.active = 1 AND s.stopping NOT LIKE 'cancel%';

-- name: stop_run
UPDATE runs SET stopping = :why WHERE id = :run;

-- name: stop_step
UPDATE steps SET stopping = :how, deadline = NULL, dirty = coalesce(dirty, :now), wanted = wanted + 1, woken = :cause
WHERE run = :run AND name = :step;

-- name: reopen_run
UPDATE runs SET state = 'running', reason = '', outputs = '{}', ended = NULL, stopping = '' WHERE id = :run;

-- name: reset_step
UPDATE steps SET state = 'pending', attempt = attempt + (started IS NOT NULL), base = attempt + (started IS NOT NULL) - 1,
  reason = :reason, since = :now, due = NULL, deadline = NULL, started = NULL, ended = NULL, dirty = NULL, pool = '',
  stopping = '', inherited = 0, faults = 0, outputs = '{}', child = '', said = :said, woken = 0, version = version + 1
WHERE run = :run AND name = :step;

-- name: failed_waiters
SELECT s.run, s.name FROM steps AS s WHERE s.child = :key AND s.state = 'failed' AND s.inherited = 0 ORDER BY s.run, s.name;

-- name: statuses_of_run
SELECT step, attempt, inputs FROM effects WHERE run = :run AND kind = 'write_status' AND state <> 'rejected'
ORDER BY planned, settled, attempt DESC;

-- name: live_keys_of_step
SELECT key, state FROM effects WHERE run = :run AND step = :step AND attempt = :attempt
  AND state IN ('planned', 'open', 'unknown', 'doubt') ORDER BY key;

-- name: owner_of_run
SELECT s.run, s.name FROM runs AS r JOIN runs AS p ON p.field = r.field AND p.id <> r.id JOIN steps AS s ON s.run = p.id
WHERE r.id = :run AND r.key <> r.field AND substr(r.key, 1, length(s.run) + length(s.name) + 2) = s.run || '.' || s.name || '.'
LIMIT 1;

-- name: latest_top_run
-- A part of another run bears that one's id in its key.
SELECT * FROM runs AS r WHERE r.field = :field AND r.key <> 'forgotten:' || r.id AND (r.key = r.field OR NOT EXISTS (
  SELECT 1 FROM runs AS p WHERE p.field = r.field AND p.id <> r.id AND substr(r.key, 1, length(p.id) + 1) = p.id || '.'))
ORDER BY r.created DESC, r.id DESC LIMIT 1;

-- name: names_with_runs
SELECT field FROM runs WHERE key <> 'forgotten:' || id UNION SELECT name FROM fields ORDER BY 1;

-- name: list_pauses
SELECT * FROM pauses ORDER BY scope, name;

-- name: set_pause
INSERT INTO pauses (scope, name, mode, since, uid, reason) VALUES (:scope, :name, :mode, :now, :uid, :reason)
ON CONFLICT (scope, name) DO UPDATE SET mode = :mode, since = :now, uid = :uid, reason = :reason;

-- name: drop_pause
DELETE FROM pauses WHERE scope = :scope AND name = :name;

-- name: held_by
SELECT h.run, h.name, s.started FROM held AS h JOIN steps AS s ON s.run = h.run AND s.name = h.name
WHERE h.scope = :scope AND h.target = :name;

-- name: lengthen_deadline
UPDATE steps SET deadline = deadline + :by_s WHERE run = :run AND name = :step AND deadline IS NOT NULL;

-- name: events_of_runs_since
SELECT run, step, kind FROM events WHERE id > :since AND run IN (SELECT value FROM json_each(:runs))
  AND (kind LIKE 'Step%' OR kind LIKE 'Run%' OR kind LIKE '%Ordered' OR kind = 'AttemptFailed') ORDER BY id;

-- name: events_of_holds_since
SELECT kind, CASE WHEN field <> '' THEN field ELSE trim(json_extract(data, '$.scope') || ' ' || json_extract(data, '$.name')) END AS name
FROM events WHERE id > :since AND (kind IN ('Paused', 'Drained', 'Resumed')
  OR (kind LIKE 'Run%' OR kind LIKE '%Ordered') AND field IN (SELECT value FROM json_each(:fields))) ORDER BY id;

-- name: pipeline_name
SELECT name FROM pipelines WHERE digest = :digest;

-- name: effects_of_run
SELECT * FROM effects WHERE run = :run AND state = 'done' AND kind IN (SELECT value FROM json_each(:kinds))
ORDER BY settled, planned, key;

-- name: subjects_of_run
SELECT * FROM subjects WHERE key > :kind || ':' || :run || '/' AND key < :kind || ':' || :run || '0' AND version > 0
ORDER BY at, key;

-- name: runs_waited
SELECT s.id FROM waits AS w JOIN subjects AS s ON s.key = w.subject WHERE w.run = :run AND s.kind = 'run' AND w.active = 1
ORDER BY s.key;

-- name: awaiting_verdict
SELECT w.subject, w.run, w.step, s.version, r.field FROM subjects AS s JOIN waits AS w ON w.subject = s.key AND w.active = 1
JOIN runs AS r ON r.id = w.run WHERE s.kind = :kind AND :name IN (r.field, r.id) ORDER BY w.run, w.step;

-- name: event_before
SELECT id, at FROM events WHERE at <= :at ORDER BY at DESC, id DESC LIMIT 1;

-- name: get_event
SELECT * FROM events WHERE id = :id;

-- name: field_event_before
-- The signs here and below keep the planner from reading all events of a kind for the sake of one field.
SELECT id, at, kind, data FROM events WHERE field = :field AND id <= :last
  AND +kind IN (SELECT value FROM json_each(:kinds)) ORDER BY id DESC LIMIT 1;

-- name: first_event_of_field
SELECT id FROM events WHERE field = :field ORDER BY id LIMIT 1;

-- name: step_event_before
SELECT id, at, kind, data FROM events WHERE run = :run AND step = :step AND id <= :last
  AND +kind IN (SELECT value FROM json_each(:kinds)) ORDER BY id DESC LIMIT 1;

-- name: observations_before
SELECT id, at, subject, data FROM events WHERE run = :run AND step = :step AND id >= :first AND id <= :last
  AND +kind = 'SubjectChanged' ORDER BY id DESC LIMIT :most;

-- name: run_before
SELECT * FROM runs WHERE key = :key AND created <= :at ORDER BY created DESC, id DESC LIMIT 1;

-- name: run_of_field_before
SELECT * FROM runs WHERE field = :field AND created <= :at ORDER BY created DESC, id DESC LIMIT 1;

-- name: effects_under_way_at
SELECT key FROM effects WHERE run = :run AND step = :step AND planned <= :at AND (settled IS NULL OR settled > :at) ORDER BY key;

-- name: effect_event_before
SELECT id, kind, data FROM events WHERE effect = :effect AND effect <> '' AND id <= :last ORDER BY id DESC LIMIT 1;

-- name: statuses_written_before
SELECT e.inputs, e.settled FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE r.field = :field AND +e.kind = 'write_status' AND e.state = 'done' AND e.settled <= :at ORDER BY e.settled DESC LIMIT 1;

-- name: holds_before
-- What people hold is never packed.
SELECT kind, at, data FROM main.events WHERE kind IN ('Paused', 'Drained', 'Resumed') AND id <= :last ORDER BY id;

-- name: first_event_after
SELECT id, at FROM events WHERE id > :id ORDER BY id LIMIT 1;

-- name: history_of_field
SELECT * FROM events WHERE field = :field AND +at >= :since AND +at <= :until AND :run IN ('', run)
  AND +kind NOT IN (SELECT value FROM json_each(:bulk)) ORDER BY id;

-- name: history_of_effects
SELECT e.*, (SELECT v.id FROM events AS v WHERE v.effect = e.key AND v.effect <> '' ORDER BY v.id DESC LIMIT 1) AS event
FROM effects AS e WHERE e.run = :run AND e.planned <= :until AND coalesce(e.settled, :until) >= :since
ORDER BY e.planned, e.key;

-- name: shared_runs
SELECT * FROM runs WHERE key = field AND field IN (
  SELECT s.child FROM steps AS s WHERE s.run IN (SELECT value FROM json_each(:runs)) AND s.child <> '') ORDER BY created;

-- name: holds_between
SELECT * FROM main.events WHERE kind IN (SELECT value FROM json_each(:kinds)) AND +at >= :since AND +at <= :until ORDER BY +id;

-- name: parts_of_run
-- Its own parts, which bear its name, and what its steps share with others.
SELECT r.id FROM runs AS p JOIN runs AS r ON r.field = p.field AND r.id <> p.id AND substr(r.key, 1, length(p.id) + 1) = p.id || '.'
WHERE p.id = :run
UNION SELECT r.id FROM runs AS r WHERE r.key IN (SELECT s.child FROM steps AS s WHERE s.run = :run AND s.child <> '')
  AND r.created = (SELECT max(o.created) FROM runs AS o WHERE o.key = r.key);

-- name: trace_of_run
SELECT * FROM events WHERE run = :run ORDER BY +id DESC LIMIT :most;

-- name: trace_of_step
SELECT * FROM events WHERE run = :run AND step = :step ORDER BY id DESC LIMIT :most;

-- name: trace_of_effect
SELECT * FROM events WHERE effect = :effect AND effect <> '' ORDER BY id DESC LIMIT :most;

-- name: trace_from
SELECT id FROM events WHERE cause = :id ORDER BY id LIMIT :most;

-- name: events_by_id
SELECT * FROM events WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id;

-- name: effects_by_key
SELECT * FROM effects WHERE key IN (SELECT value FROM json_each(:keys)) ORDER BY key;

-- name: tokens_before
SELECT data FROM events WHERE run = :run AND step = :step AND id <= :last
  AND +kind = 'SubjectChanged' AND substr(subject, 1, 7) = 'tokens:' ORDER BY id DESC LIMIT 1;

-- name: count_events_between
SELECT count(*) FROM events WHERE kind = :kind AND id > :first AND id <= :last;

-- name: timers_of_steps
SELECT r.field, s.*, coalesce(json_extract(p.definition, '$.steps."' || s.name || '".retries'), 0) AS retries FROM steps AS s JOIN runs AS r ON r.id = s.run JOIN pipelines AS p ON p.digest = r.pipeline
WHERE s.due IS NOT NULL AND s.due <= :until ORDER BY s.due LIMIT :most;

-- name: deadlines_of_steps
SELECT r.field, s.*, coalesce(json_extract(p.definition, '$.steps."' || s.name || '".retries'), 0) AS retries FROM steps AS s JOIN runs AS r ON r.id = s.run JOIN pipelines AS p ON p.digest = r.pipeline
WHERE s.deadline IS NOT NULL AND s.deadline <= :until
  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name) ORDER BY s.deadline LIMIT :most;

-- name: timers_of_effects
SELECT r.field, e.* FROM effects AS e JOIN runs AS r ON r.id = e.run
WHERE e.state IN ('planned', 'open', 'unknown', 'doubt') AND e.next_at <= :until ORDER BY e.next_at LIMIT :most;

-- name: pool_queue
SELECT s.pool, r.field, s.run, s.name, s.priority, s.since FROM steps AS s JOIN runs AS r ON r.id = s.run
WHERE s.pool <> '' AND s.state = 'ready' AND s.due IS NULL
  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name)
ORDER BY s.pool, s.priority DESC, s.since, s.run, s.name;
-- name: figures_waits
-- What waits has a due date, and of these there is an index.
SELECT kind, count(*) AS n, min(since) AS since FROM steps WHERE due IS NOT NULL AND state = 'waiting' GROUP BY kind;

-- name: figures_effects
SELECT kind, state, count(*) AS n FROM effects WHERE state IN ('planned', 'open', 'unknown', 'doubt') GROUP BY kind, state;

-- name: figures_files
-- Of subjects only those are read that steps wait for now, by way of the steps: the others stay for ever.
SELECT coalesce(json_extract(s.args, '$.site'), '') AS site, sum(place.value) AS requested,
  sum(CASE place.key WHEN 'ONLINE' THEN place.value ELSE 0 END) AS online
FROM (SELECT DISTINCT w.subject FROM steps AS t CROSS JOIN waits AS w ON w.run = t.run AND w.step = t.name AND w.active = 1
      WHERE t.due IS NOT NULL) AS awaited
CROSS JOIN subjects AS s ON s.key = awaited.subject CROSS JOIN json_each(s.data, '$.counts') AS place
WHERE s.kind = 'locality' GROUP BY 1;

-- name: figures_tokens
SELECT coalesce(json_extract(s.args, '$.site'), '') AS site, one.key AS state, sum(one.value) AS n
FROM (SELECT DISTINCT w.subject FROM steps AS t CROSS JOIN waits AS w ON w.run = t.run AND w.step = t.name AND w.active = 1
      WHERE t.due IS NOT NULL) AS awaited
CROSS JOIN subjects AS s ON s.key = awaited.subject CROSS JOIN json_each(s.data) AS one
WHERE s.kind = 'tokens' AND one.key IN ('todo', 'locked', 'error', 'done', 'other') GROUP BY 1, 2;

-- name: figures_pilots
-- A job of which no pilots are told yet is counted as one, as it stands itself.
SELECT coalesce(json_extract(s.args, '$.site'), '') AS site,
  coalesce(node.value, json_extract(s.data, '$.state'), 'unknown') AS state, count(*) AS n
FROM (SELECT DISTINCT w.subject FROM steps AS t CROSS JOIN waits AS w ON w.run = t.run AND w.step = t.name AND w.active = 1
      WHERE t.due IS NOT NULL) AS awaited
CROSS JOIN subjects AS s ON s.key = awaited.subject LEFT JOIN json_each(s.data, '$.nodes') AS node
WHERE s.kind = 'job' GROUP BY 1, 2;
-- name: all_runs
SELECT id, field, key, state, ended FROM runs ORDER BY created, id;

-- name: count_steps_of
SELECT coalesce((SELECT steps FROM archive WHERE run = :run), (SELECT count(*) FROM steps WHERE run = :run));

-- name: count_effects_of
SELECT coalesce((SELECT effects FROM archive WHERE run = :run), (SELECT count(*) FROM effects WHERE run = :run));

-- name: live_effects_of
SELECT key, state FROM effects WHERE run = :run AND state IN ('planned', 'open', 'unknown', 'doubt') ORDER BY key LIMIT 1;

-- name: finding_about
SELECT key FROM findings WHERE handled = '' AND substr(effect, 1, length(:like)) = :like LIMIT 1;

-- name: running_users_of
-- Those that wait for it, and those whose step has its outputs.
SELECT s.run FROM steps AS s JOIN runs AS r ON r.id = s.run WHERE r.state = 'running' AND r.id <> :run
  AND (s.child <> '' AND s.child = :key OR s.kind = 'run' AND json_extract(s.outputs, '$.run') = :run
    OR EXISTS (SELECT 1 FROM waits AS w WHERE w.subject = :subject AND w.run = s.run AND w.step = s.name AND w.active = 1))
ORDER BY s.run LIMIT 1;

-- name: done_of_kind
SELECT inputs FROM effects WHERE kind = :kind AND state = 'done' AND planned >= :since;

-- name: forget_subjects
-- Those that are called after it: its turns, lists and results (RUN/…), and its tokens (RUN_…). What somebody waits for stays.
DELETE FROM subjects WHERE (id > :run || '/' AND id < :run || '0' OR id > :run || '_' AND id < :run || '`')
  AND NOT EXISTS (SELECT 1 FROM waits AS w WHERE w.subject = subjects.key);

-- name: forget_waits
DELETE FROM waits WHERE run = :run;

-- name: forget_steps
DELETE FROM steps WHERE run = :run;

-- name: slim_effects
-- Of a release the request is still asked for: it says that others' requests were given back.
UPDATE effects SET evidence = NULL, inputs = json_object('site', coalesce(json_extract(inputs, '$.site'), ''), 'surls', json('[]'),
  'request', json_extract(inputs, '$.request')) WHERE run = :run;

-- name: bury_run
UPDATE runs SET key = 'forgotten:' || id, params = '{}', outputs = '{}', archived = NULL,
  context = json_object('name', json_extract(context, '$.name'), 'status', coalesce(json_extract(context, '$.status'), '')),
  reason = CASE WHEN reason = '' THEN :why ELSE reason || '; ' || :why END WHERE id = :run;


-- name: decisions_between
-- A StepWorks with `since` only repeats what an effect says of itself.
SELECT id, field FROM events WHERE at >= :since AND at < :until AND +kind IN (SELECT value FROM json_each(:kinds))
  AND json_extract(data, '$.inherited') IS NULL AND json_extract(data, '$.since') IS NULL;

-- name: story_of_step
SELECT * FROM events WHERE run = :run AND step = :step AND id > :first AND id <= :last ORDER BY id;

-- name: planned_by
SELECT effect FROM events WHERE cause = :id AND kind = 'EffectPlanned' ORDER BY id;

-- name: keep_observed
-- Packed runs may hold older ones than the log; of those it does not hold the latest may be gone.
CREATE TEMP TABLE observed AS SELECT subject, id FROM events WHERE kind = 'SubjectChanged'
  AND id > coalesce((SELECT value + 0 FROM cursors WHERE source = 'events pruned up to'), 0);

-- name: index_observed
CREATE INDEX temp.observed_subject ON observed (subject, id);

-- name: observed_before
SELECT id FROM observed WHERE subject = :subject AND id <= :last ORDER BY id DESC LIMIT 1;

-- name: last_forgotten
SELECT max(ended) FROM runs WHERE key = 'forgotten:' || id;

-- name: run_began_between
SELECT 1 FROM runs AS r JOIN events AS e ON e.run = r.id AND e.step = ''
WHERE r.key = :key AND e.id > :first AND e.id <= :last AND +e.kind IN ('RunStarted', 'RunReopened') LIMIT 1;

-- name: turns_of_run
SELECT id FROM events WHERE run = :run AND +kind IN (SELECT value FROM json_each(:kinds));

-- name: runs_to_archive
-- Of the runs of a key that went wrong the latest stays: it may be retried. A part of another run goes with that one.
SELECT id, ended FROM runs AS r WHERE r.archived IS NULL AND r.state <> 'running' AND r.ended <= :before
  AND (r.ended, r.id) > (:ended, :run) AND r.key <> 'forgotten:' || r.id
  AND (r.state = 'done' OR EXISTS (SELECT 1 FROM runs AS o WHERE o.key = r.key AND o.created > r.created))
  AND (r.key = r.field OR NOT EXISTS (
    SELECT 1 FROM runs AS p WHERE p.field = r.field AND p.id <> r.id AND substr(r.key, 1, length(p.id) + 1) = p.id || '.'))
ORDER BY r.ended, r.id LIMIT :most;

-- name: own_parts
-- All of them, also of parts: the id of each begins with what its key begins with.
WITH RECURSIVE part (id) AS (
  SELECT :run UNION SELECT r.id FROM part AS p JOIN runs AS w ON w.id = p.id JOIN runs AS r ON r.field = w.field AND r.id <> p.id
    AND r.archived IS NULL AND substr(r.key, 1, length(p.id) + 1) = p.id || '.')
SELECT r.* FROM part AS p JOIN runs AS r ON r.id = p.id;

-- name: pack_steps
SELECT * FROM steps WHERE run = :run ORDER BY name;

-- name: pack_effects
SELECT * FROM effects WHERE run = :run ORDER BY key;

-- name: pack_waits
SELECT * FROM waits WHERE run = :run ORDER BY subject, step;

-- name: pack_subjects
-- What is called after the run, its parts among it, and what its steps were shown. The ends of shared work stay: others join it.
SELECT * FROM subjects WHERE id > :run || '/' AND id < :run || '0' OR id > :run || '_' AND id < :run || '`'
  OR key > 'run:' || :run || '.' AND key < 'run:' || :run || '/'
UNION SELECT s.* FROM subjects AS s WHERE s.key IN (
  SELECT e.subject FROM events AS e WHERE e.run = :run AND +e.kind = 'SubjectChanged') AND s.kind <> 'run'
ORDER BY key;

-- name: pack_events
SELECT * FROM events WHERE run = :run ORDER BY +id;

-- name: drop_packed_events
-- What people said stays in the log, too, as does what concerns the run as a whole, and that from which something followed elsewhere.
DELETE FROM events WHERE run = :run AND step <> '' AND json_extract(data, '$.uid') IS NULL
  AND NOT EXISTS (SELECT 1 FROM events AS o WHERE o.cause = events.id AND o.run <> :run);

-- name: drop_subjects
DELETE FROM subjects WHERE key IN (SELECT value FROM json_each(:keys))
  AND NOT EXISTS (SELECT 1 FROM waits AS w WHERE w.subject = subjects.key);

-- name: drop_effects
-- What the audit did by itself stays too: it is not done again.
DELETE FROM effects WHERE run = :run AND attempt > 0 AND kind NOT IN (SELECT value FROM json_each(:kept));

-- name: slim_effect
UPDATE effects SET evidence = NULL, inputs = :inputs, digest = :digest WHERE key = :key;

-- name: add_to_archive
INSERT INTO archive (run, field, ended, steps, effects, first, last, size_bytes, material)
VALUES (:run, :field, :ended, :steps, :effects, :first, :last, :size_bytes, :material);

-- name: mark_archived
UPDATE runs SET archived = :now WHERE id = :run;

-- name: drop_from_archive
DELETE FROM archive WHERE run = :run;

-- name: archived_steps
SELECT steps FROM archive WHERE run = :run;

-- name: archive_of_field
SELECT run, material FROM archive WHERE field = :field ORDER BY ended, run;

-- name: archive_between
SELECT run, material FROM archive WHERE last > :first AND first <= :last;

-- name: archive_until
-- Without those of which the log had begun to forget before they ended.
SELECT a.run, a.material, r.ended >= :since AS is_meant FROM archive AS a JOIN runs AS r ON r.id = a.run
WHERE r.created < :until AND a.last > :pruned ORDER BY a.ended, a.run;

-- name: archived_stagings
SELECT field FROM archive WHERE field GLOB :like GROUP BY field ORDER BY max(ended) DESC LIMIT :most;

-- name: fields_of_runs
SELECT DISTINCT field FROM runs WHERE id IN (SELECT value FROM json_each(:names)) OR key IN (SELECT value FROM json_each(:names));

-- name: used_by_field
SELECT s.child, json_extract(s.outputs, '$.run') FROM steps AS s WHERE s.run IN (SELECT id FROM runs WHERE field = :field);

-- name: count_archive
SELECT count(*) AS runs, coalesce(sum(size_bytes), 0) AS size_bytes FROM archive INDEXED BY archive_field;

-- name: free_pages
SELECT f.freelist_count AS free, c.page_count AS pages, s.page_size AS page_bytes, v.auto_vacuum AS mode
FROM pragma_freelist_count AS f, pragma_page_count AS c, pragma_page_size AS s, pragma_auto_vacuum AS v;

-- name: statements_of_tables
SELECT type, tbl_name, sql FROM main.sqlite_master
WHERE tbl_name IN (SELECT value FROM json_each(:tables)) AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC, name;
