-- What followed from what. `cause`: the event from which this one followed; 0 = none in the log: a person, the world, a clock.
ALTER TABLE events ADD COLUMN cause INTEGER NOT NULL DEFAULT 0;
-- `said`: the event that tells how the step stands. `woken`: the event for which it was marked since it was last decided.
ALTER TABLE steps ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
ALTER TABLE steps ADD COLUMN woken INTEGER NOT NULL DEFAULT 0;
CREATE INDEX events_cause ON events (cause);
CREATE INDEX events_step ON events (run, step);
CREATE INDEX events_effect ON events (effect) WHERE effect <> '';
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_at ON events (at);
UPDATE steps SET said = coalesce((
  SELECT max(id) FROM events AS e WHERE e.run = steps.run AND e.step = steps.name AND e.kind LIKE 'Step%'), 0);
