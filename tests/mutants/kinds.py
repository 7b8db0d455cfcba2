"""What a mutation is: what is broken, where, and which tests should notice it first.

A mutation replaces text that must stand in the source exactly once, so that the list cannot rot unseen
(test_list.py looks on every test run). Each is a mistake that somebody could make, not a typo: it compiles, and the
sunny day passes.
"""

from __future__ import annotations

from typing import NamedTuple

STORE = "aglowd/store/"
EFFECTS = "aglowd/effects/"
GRID = "aglowd/grid/"

DB_TESTS = "tests/store/test_db.py"
STORE_TESTS = "tests/store/test_store.py"
ENGINE_TESTS = "tests/effects/test_engine.py"
DEED_TESTS = (
    "tests/effects/test_deeds.py tests/effects/test_token_deeds.py tests/effects/test_token_archive.py"
    " tests/effects/test_file_deeds.py"
)
FILE_TESTS = "tests/effects/test_files.py"
TREE_TESTS = "tests/handlers/test_copy_tree.py"
ARRIVAL_TESTS = "tests/watchers/test_trees.py"
REACTOR_TESTS = "tests/reactor"
STORAGE_TESTS = "tests/grid/test_storage.py"
CATALOGUE_TESTS = "tests/grid/test_catalogue_csv.py"
HTTP_TESTS = "tests/grid/test_http.py"
FEED_TESTS = "tests/watchers/test_tokens.py"
WATCHER_TESTS = "tests/watchers/test_base.py"
OVERTAKEN_TESTS = "tests/model/test_overtaken.py"
PART_TESTS = "tests/test_parts.py"
LOOK_TESTS = "tests/watchers/test_looks.py"
SHARED_TESTS = "tests/reactor/test_shared.py"


class Edit(NamedTuple):
    """`old` stands in the file once and becomes `new`."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One mistake, and the tests of which one must notice it."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def mutant(name: str, tests: str, path: str, *pairs: str) -> Mutant:
    """Of one file: old, new, old, new, …"""
    edits = tuple(Edit(path, old, new) for old, new in zip(pairs[::2], pairs[1::2], strict=True))
    return Mutant(name, tuple(tests.split()), edits)


ENGINE = EFFECTS + "engine.py"
JOURNAL = STORE + "journal.py"
RUNS = STORE + "runs.py"
FACTS = STORE + "facts.py"
DB = STORE + "db.py"
VERBS = STORE + "store.py"
SQL = STORE + "queries.sql"
