"""Mistakes about which fields are taken, and about whose token database is meant."""

from __future__ import annotations

from .kinds import EFFECTS, STORE, Mutant, mutant

SELECTION = "aglowd/selection.py"
SELECTION_TESTS = "tests/test_selection.py"
OFFERS_TESTS = "tests/store/test_offers.py"
BASES_TESTS = "tests/watchers/test_token_bases.py"
TOKENS = "aglowd/watchers/tokens.py"
WIRING_TESTS = "tests/test_wiring.py"

ROUTES: tuple[Mutant, ...] = (
    mutant(
        "a preview is kept when others have committed since",
        OFFERS_TESTS,
        "aglowd/store/offers.py",
        "if (db, version, intake) != self._at:",
        "if self._at is None or self._at[2] != intake:",
    ),
    mutant(
        "a preview is kept for another configuration",
        OFFERS_TESTS,
        "aglowd/store/offers.py",
        "if (db, version, intake) != self._at:",
        "if self._at is None or self._at[1] != version:",
    ),
    mutant(
        "the total is exceeded by one",
        SELECTION_TESTS,
        SELECTION,
        "if used.total() >= limits.total:",
        "if used.total() > limits.total:",
    ),
    mutant(
        "a site's limit does not count what is taken now",
        SELECTION_TESTS,
        SELECTION,
        "            used[one.site] += 1\n",
        "            used[''] += 1\n",
    ),
    mutant(
        "a field of which only the observation is skipped is taken",
        SELECTION_TESTS,
        SELECTION,
        "elif min(one.priority) < 0:",
        "elif one.priority[1] < 0:",
    ),
    mutant(
        "the lowest priority comes first", SELECTION_TESTS, SELECTION, "sorted(groups, reverse=True)", "sorted(groups)"
    ),
    mutant(
        "the busiest site comes first",
        SELECTION_TESTS,
        SELECTION,
        "key=lambda name: (used[name], ",
        "key=lambda name: (-used[name], ",
    ),
    mutant(
        "a full site keeps the others back",
        SELECTION_TESTS,
        SELECTION,
        "            next_.append(Verdict(one.name, is_next=True, why=why))\n",
        "            next_.append(Verdict(one.name, is_next=True, why=why))\n            break\n",
    ),
    mutant(
        "a changed priority is a new offer",
        OFFERS_TESTS,
        STORE + "queries.sql",
        "site = :site, version = version + (status <> :status OR data <> :data OR problem <> :problem)",
        "site = :site, version = version + 1",
    ),
    mutant(
        "a site is not learnt from the list",
        OFFERS_TESTS,
        STORE + "queries.sql",
        "WHERE s.run = r.id AND s.kind = 'srm_list'",
        "WHERE s.run = r.id AND s.kind = 'no_list'",
    ),
    mutant(
        "a field that was refused once is never taken",
        OFFERS_TESTS,
        STORE + "offers.py",
        '    if row["problem"]:\n        db.execute(',
        "    if why:\n        db.execute(",
    ),
    mutant(
        "tokens of all sites are counted in the first database",
        BASES_TESTS,
        TOKENS,
        "        base = base_of(self.world, subjects[0])\n        counts",
        '        base = self.world.token_base("")\n        counts',
    ),
    mutant(
        "what changed at a database that failed is forgotten",
        "tests/watchers/test_tokens.py",
        TOKENS,
        "                    base.changed |= changed | set(map(type_of, chosen))\n",
        "",
    ),
    mutant(
        "one feed's place is another's",
        BASES_TESTS,
        TOKENS,
        'self.source = f"{SOURCE}-{site}" if site else SOURCE',
        "self.source = SOURCE",
    ),
    mutant(
        "tokens are made in the common database",
        "tests/effects/test_token_deeds.py",
        EFFECTS + "tokens.py",
        'await write_all(world.token_base(self.site), missing, "were refused")',
        'await write_all(world.token_base(""), missing, "were refused")',
    ),
    mutant(
        "a token is made without its files",
        "tests/effects/test_token_deeds.py",
        EFFECTS + "tokens.py",
        ', "aglowd": {"key": intent.key}, **self._files(name)}',
        ', "aglowd": {"key": intent.key}}',
    ),
    mutant(
        "another server gets the common password",
        WIRING_TESTS,
        "aglowd/config.py",
        "        if server_of(picas.url) != server_of(config.picas.url):\n",
        "        if False:\n",
    ),
    mutant(
        "pilots are told the common database",
        WIRING_TESTS,
        "aglowd/wiring.py",
        '"database": self._base.database,',
        '"database": "sksp",',
    ),
)
