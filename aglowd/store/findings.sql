-- What the audit met in the world and the journal does not explain. A stranger goes when the world shows it no more, a
-- duplicate when a person has dismissed it.
-- `effect`: the journal's entry that it doubles; `handled`: what aglowd did about it, or who dismissed it.
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
CREATE INDEX effects_kind ON effects (kind, planned);
