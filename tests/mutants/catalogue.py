"""Mistakes in where fields come from: claims, statuses that others set, and fields that are taken over."""

from __future__ import annotations

from .kinds import EFFECTS, STORE, Mutant, mutant

CONTRACT_TESTS = "tests/grid/test_catalogue_contract.py"
DAEMONS_TESTS = "tests/test_two_daemons.py"
WORD_TESTS = "tests/test_field_orders.py"
ADOPT_TESTS = "tests/test_take_over.py"
LIFE_TESTS = "tests/virtual/test_adopt.py"
GRID = "aglowd/grid/"

CATALOGUE: tuple[Mutant, ...] = (
    mutant(
        "our own catalogue overwrites whatever stands there",
        CONTRACT_TESTS,
        GRID + "catalogue_own.py",
        'if db.execute(_sql("write"), values).rowcount != 1:',
        'if db.execute(_sql("write"), {**values, "expect": shown[0]}).rowcount != 1:',
    ),
    mutant(
        "what another daemon holds is written over where the status is the expected one",
        CONTRACT_TESTS,
        GRID + "catalogue.py",
        "if not is_free and self.daemon",
        "if False and self.daemon",
    ),
    mutant(
        "whose field it is does not matter, if only somebody is named from whom it is taken",
        CONTRACT_TESTS,
        GRID + "catalogue.py",
        "self.daemon != of",
        "not of",
    ),
    mutant(
        "a field is taken over from another daemon than the one that is named",
        DAEMONS_TESTS,
        "aglowd/adoption.py",
        'holder.partition(" by ")[0] != of',
        "not holder",
    ),
    mutant(
        "runs of several daemons have one name",
        DAEMONS_TESTS,
        "aglowd/store/runs.py",
        "identity.tag_of(db)",
        "''",
    ),
    mutant(
        "the same key of another daemon is taken for ours",
        CONTRACT_TESTS,
        GRID + "catalogue.py",
        'if self.key and self._name in ("", daemon) else None',
        "if self.key else None",
    ),
    mutant(
        "nobody may give back what another daemon holds",
        CONTRACT_TESTS,
        GRID + "catalogue.py",
        "(status in offered or self.status in offered)",
        "self.status in offered",
    ),
    mutant(
        "two databases in one place have one name",
        DAEMONS_TESTS,
        GRID + "catalogue.py",
        "+ SIGN + token",
        '+ SIGN + "0"',
    ),
    mutant(
        "a field is taken over from another daemon, and only its claim is refused",
        DAEMONS_TESTS,
        "aglowd/adoption.py",
        "if holder and not of:",
        "if False:",
    ),
    mutant(
        "a row that is older than our own word is believed",
        WORD_TESTS,
        STORE + "facts.py",
        "if since is not None and db.execute(",
        "if False and db.execute(",
    ),
    mutant(
        "the event before which the catalogue was read is taken after it",
        WORD_TESTS,
        "aglowd/watchers/fields.py",
        "        since = await self.store.last_event()\n",
        "",
        "others, since=since)",
        "others, since=await self.store.last_event())",
    ),
    mutant(
        "a field is taken over whatever its row says by now",
        ADOPT_TESTS,
        STORE + "manual.py",
        'if context["status"] != left.status:',
        "if False:",
    ),
    mutant(
        "what is done of a field that is taken over is done again",
        ADOPT_TESTS,
        "aglowd/deciding.py",
        "if first and step.name in adopted:",
        "if False:",
    ),
    mutant(
        "what the other program has done is done again by a retry",
        ADOPT_TESTS,
        "aglowd/deciding.py",
        "if first and step.name in adopted:",
        "if first and step.name in adopted and work.step.attempt <= 1:",
    ),
    mutant(
        "a row that says something else by now is taken over",
        ADOPT_TESTS,
        "aglowd/adoption.py",
        "if shown != status:",
        "if False:",
    ),
    mutant(
        "a take-over that has changed since it was shown is done",
        ADOPT_TESTS,
        "aglowd/adoption.py",
        "if order.version and order.version != version:",
        "if False:",
    ),
    mutant(
        "a field at a full site is taken over",
        ADOPT_TESTS,
        "aglowd/adoption.py",
        "                used[site] += 1\n",
        "",
    ),
    mutant(
        "what is drained is taken over",
        ADOPT_TESTS,
        "aglowd/store/manual.py",
        'one["mode"] == "drain"]',
        "False]",
    ),
    mutant(
        "of a request that is larger than its turn the rest is made again",
        LIFE_TESTS,
        "aglowd/handlers/stage.py",
        "site=site, besides=rest, ordinal",
        "site=site, besides=here, ordinal",
    ),
    mutant(
        "a notice that is sent again takes along what has come since",
        "tests/test_teller.py",
        "aglowd/teller.py",
        "MAX_TOLD, tried if tried > since else None)",
        "MAX_TOLD)",
    ),
    mutant(
        "solutions that are not there are taken over",
        ADOPT_TESTS,
        "aglowd/adoption.py",
        "        await self._check_files(done)\n",
        "",
    ),
    mutant(
        "a running request of the other program's is made again",
        LIFE_TESTS,
        EFFECTS + "staging.py",
        "    may_be_anothers: ClassVar[bool] = True\n",
        "",
    ),
    mutant(
        "tokens that were taken over are not archived",
        "tests/effects/test_token_archive.py",
        EFFECTS + "token_archive.py",
        "if self.tokens or is_ours(document))",
        "if is_ours(document))",
    ),
)
