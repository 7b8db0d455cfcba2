"""Mistakes in where fields come from: claims, statuses that others set, and fields that are taken over."""

from __future__ import annotations

from .kinds import EFFECTS, STORE, Mutant, mutant

CONTRACT_TESTS = "tests/grid/test_catalogue_contract.py"
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
        "aglowd/reactor.py",
        "if first and step.name in adopted:",
        "if False:",
    ),
    mutant(
        "what the other program has done is done again by a retry",
        ADOPT_TESTS,
        "aglowd/reactor.py",
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
