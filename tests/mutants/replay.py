"""Mistakes in deciding again: what is taken for the same, and what is guessed instead of said to be untold."""

from __future__ import annotations

from .kinds import SQL, STORE, Mutant, mutant

TESTS = "tests/test_replay.py"
REPLAY = "aglowd/replay.py"
SAYINGS = "aglowd/sayings.py"
ATTEMPTS = STORE + "attempts.py"
DECIDED = STORE + "decided.py"
OBSERVED = STORE + "observed.py"
RECIPES = STORE + "recipes.py"
UNPACKED = STORE + "unpacked.py"
RECIPE_TESTS = "tests/store/test_recipes.py"

REPLAYED: tuple[Mutant, ...] = (
    mutant(
        "inputs and outputs do not count", TESTS, SAYINGS, "return told and was.parts == would.parts", "return told"
    ),
    mutant(
        "another reason is the same",
        TESTS,
        SAYINGS,
        "else would.reason == was.reason",
        "else True",
    ),
    mutant("what came until the commit was seen for certain", TESTS, REPLAY, "MAX_READINGS = 8", "MAX_READINGS = 1"),
    mutant(
        "a decision is made at the moment of its event",
        TESTS,
        REPLAY,
        "if 0.0 < late_s <= self._late_s:",
        "if False:",
    ),
    mutant(
        "a decision may be as late as it likes",
        TESTS,
        REPLAY,
        "if 0.0 < late_s <= self._late_s:",
        "if 0.0 < late_s:",
    ),
    mutant(
        "what a step has waited for is forgotten",
        TESTS,
        REPLAY,
        "            attempt.waited |= _subjects(way.outcome)\n            other",
        "            other",
    ),
    mutant(
        "the seed draws nothing",
        TESTS,
        REPLAY,
        "other = way if self._seed is None else self._in_other_order(way, told)",
        "other = way",
    ),
    mutant(
        "what has changed since is shown as it was then",
        TESTS,
        ATTEMPTS,
        'return row if row["said"] == told.id else None',
        "return row",
    ),
    mutant(
        "of what an older release has cut the latest is shown",
        TESTS,
        OBSERVED,
        'if subject["at"] == event["at"] and ',
        "if ",
    ),
    mutant(
        "of what was cut the latest is shown",
        TESTS,
        OBSERVED,
        'return text if digest_of(text) == data["digest"] else None',
        "return text",
    ),
    mutant(
        "a fact is made of itself, as another was told of it",
        TESTS,
        OBSERVED,
        'if (found["at"], found["data"]) != (event["at"], event["data"]):',
        "if True:",
    ),
    mutant(
        "what is made of something else is the fact",
        RECIPE_TESTS,
        RECIPES,
        'return text if digest_of(text) == data["digest"] else None',
        "return text",
    ),
    mutant(
        "behind what has changed all is looked for from the beginning",
        RECIPE_TESTS,
        RECIPES,
        "(follows, follows + len(fresh))",
        "(follows,)",
    ),
    mutant(
        "a recipe may be as long as it likes",
        RECIPE_TESTS,
        RECIPES,
        "if len(packed) * 5 > MAX_RECIPE_CHARS * 4:",
        "if False:",
    ),
    mutant("packed runs are not decided again", TESTS, DECIDED, "    unpack_for(db, since, until)\n", ""),
    mutant(
        "what other packed runs saw is not known",
        TESTS,
        UNPACKED,
        '(tables if row["is_meant"] else _seen_of(tables))',
        '(tables if row["is_meant"] else {})',
    ),
    mutant(
        "what is packed tells of a time of which the log has forgotten",
        TESTS,
        SQL,
        "WHERE kind = 'SubjectChanged'\n  AND id > coalesce((SELECT value + 0 FROM cursors WHERE source = 'events pruned up to'), 0);",
        "WHERE kind = 'SubjectChanged';",
    ),
    mutant(
        "what went with a forgotten run was never there",
        TESTS,
        REPLAY,
        "if self._log.may_miss(known) and",
        "if False and",
    ),
    mutant(
        "a person's word is a decision",
        TESTS,
        ATTEMPTS,
        'if kind == "DoneOrdered" or (',
        "if False and (",
    ),
    mutant(
        "a time that is over is not tried",
        TESTS,
        ATTEMPTS,
        "if timeout_s and self._started is not None and self._started + timeout_s <= told.at:",
        "if False:",
    ),
    mutant(
        "an input that an older release did not know is a difference",
        TESTS,
        SAYINGS,
        '{**_defaults(name.partition("/")[0], inputs), **inputs}',
        "inputs",
    ),
    mutant(
        "what is on record gives way to a default",
        TESTS,
        SAYINGS,
        '{**_defaults(name.partition("/")[0], inputs), **inputs}',
        '_defaults(name.partition("/")[0], inputs)',
    ),
    mutant(
        "what is older than the whole log is decided again",
        TESTS,
        REPLAY,
        "if self._whole_since is not None and told.at < self._whole_since:",
        "if False:",
    ),
)
