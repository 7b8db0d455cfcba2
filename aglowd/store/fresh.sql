-- What is waited for and was never seen: whoever watches is told of it at once, and looks for no other beside it.
CREATE INDEX subjects_new ON subjects (kind) WHERE version = 0;
-- The steps that are to be decided, and can be.
CREATE VIEW undecided AS SELECT s.* FROM steps AS s WHERE s.dirty IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.step = s.name AND e.attempt = s.attempt
                  AND e.state IN ('planned', 'open', 'unknown', 'doubt'))
  -- A run that goes on after its end does so once the catalogue says again what its steps expect.
  AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.attempt = 0 AND e.kind = 'write_status'
                  AND e.state IN ('planned', 'open', 'unknown', 'doubt'))
  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name);
