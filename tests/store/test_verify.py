"""A backup is verified: what is whole passes, whatever was changed by hand is named, and nothing is touched."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from populated import fill
from support import HandClock, Played, begin, graph, new_reactor, opened, settle_all, step

from aglowd.errors import StoreError
from aglowd.store.archive import Place, Terms
from aglowd.store.db import MIGRATIONS
from aglowd.store.verify import MAX_PROBLEMS, rules, verify

GOLDEN = Path(__file__).parent / "golden"
LINE = graph("line", step("only"))


@pytest.fixture
async def backup(tmp_path: Path, clock: HandClock) -> Path:
    """A backup of runs in many states, an effect in doubt and a packed run among them."""
    path = tmp_path / "backup.db"
    async with opened(tmp_path / "live" / "aglowd.db", clock) as store:
        await begin(store, LINE, "packed")
        await settle_all(new_reactor(store, [Played()], LINE))
        clock.advance(1.0)
        assert (await store.archive_runs(Terms(0.0, 0.0), Place())).packed == 1
        await fill(store)
        await store.back_up(path, replace=False, uid=0)
    return path


def test_a_good_one_is_told_what_it_is(backup: Path) -> None:
    backup.chmod(0o400)
    before, names = backup.read_bytes(), sorted(os.listdir(backup.parent))
    found = verify(backup)
    assert found.problems == ()
    assert (found.schema_version, found.fields, found.effects) == (len(MIGRATIONS), 4, {"doubt": 1})
    assert found.runs > found.running > 0
    assert found.last_event is not None
    assert (backup.read_bytes(), sorted(os.listdir(backup.parent))) == (before, names)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_those_of_every_older_release_are_good(tmp_path: Path, version: int) -> None:
    db = sqlite3.connect(tmp_path / "old.db")
    db.executescript((GOLDEN / f"v{version}.sql").read_text())
    db.close()
    found = verify(tmp_path / "old.db")
    assert (found.schema_version, found.problems) == (version, ())


CHANGES = {
    "the step gone/stage is of a run that is not there": "UPDATE steps SET run = 'gone' WHERE name = 'stage'",
    "keeps a pipeline that is not there": "DELETE FROM pipelines",
    "has ended, and one of its steps has not": "UPDATE runs SET state = 'failed', ended = 1 WHERE state = 'running'",
    "is running, and all of its steps have ended": "UPDATE steps SET state = 'done'",
    "has ended, and nobody knows when": "UPDATE runs SET ended = NULL",
    "names a run that is not there": "UPDATE fields SET run = 'gone' WHERE run IS NOT NULL",
    "is of a step that is not there": "DELETE FROM steps WHERE name = 'tokens'",
    "is called otherwise than": "UPDATE effects SET key = 'x/' || key",
    "is of an attempt that never began": "UPDATE effects SET attempt = 9",
    "has not ended, and its attempt has": "UPDATE steps SET attempt = 2 WHERE name = 'tokens'",
    "is being carried out, and its intent has no time": "UPDATE effects SET state = 'open', intended = NULL",
    "the effect P229_62-1/tokens/1/create_tokens/0 has ended, and nobody": "UPDATE effects SET state = 'done'",
    "the effect P229_62-1/tokens/1/create_tokens/0 is in a state that is none": "UPDATE effects SET state = 'lost'",
    "/tokens is in a state that is none": "UPDATE steps SET state = 'lost' WHERE name = 'tokens'",
    "waits for a subject that is not there": "DELETE FROM subjects",
    "works, has no effect without an end": "DELETE FROM effects",
    "has no steps, and is not packed": "DELETE FROM steps WHERE run IN (SELECT id FROM runs WHERE field = 'P14+30')",
    "the run packed-1 is packed, and is not said to be": "UPDATE runs SET archived = NULL",
    "the run packed-1 is packed, and has steps": "UPDATE steps SET run = 'packed-1'",
    "is said to be packed, and is not": "UPDATE runs SET archived = 1 WHERE archived IS NULL",
    "what is packed of the run packed-1 cannot be read": "UPDATE archive SET material = x'00'",
    "is no JSON": "UPDATE effects SET notes = '{'",
    "are not those that it was recorded with": "UPDATE effects SET inputs = json_set(inputs, '$.more', 1)",
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_hang_together_is_named(backup: Path, what: str) -> None:
    db = sqlite3.connect(backup)
    assert db.execute(CHANGES[what]).rowcount > 0
    db.commit()
    db.close()
    assert any(what in problem for problem in verify(backup).problems), verify(backup).problems


def test_every_rule_has_its_change() -> None:
    assert len(rules()) == len(CHANGES) - 2, "two are no SQL"


def test_what_is_told_has_an_end(backup: Path) -> None:
    db = sqlite3.connect(backup)
    for number in range(MAX_PROBLEMS + 5):
        db.execute("INSERT INTO waits VALUES (?, 'r', 's', 1)", (f"nothing:{number}",))
    db.commit()
    db.close()
    assert len(verify(backup).problems) == MAX_PROBLEMS


def test_damage_is_told(backup: Path) -> None:
    db = sqlite3.connect(backup)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_field'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    content = bytearray(backup.read_bytes())
    index = content[(page - 1) * size : page * size]
    assert b"P229" in index
    content[(page - 1) * size : page * size] = index.replace(b"P229", b"P228")
    backup.write_bytes(content)
    assert "missing from index events_field" in verify(backup).problems[0]
    content = bytearray(backup.read_bytes())
    for at in range(8192, len(content), 4096):
        content[at : at + 200] = b"\xff" * 200
    backup.write_bytes(content)
    with pytest.raises(StoreError, match=r"is no backup: .*malformed"):
        verify(backup)


def test_one_of_a_newer_release_is_told(backup: Path) -> None:
    db = sqlite3.connect(backup)
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert verify(backup).problems == (
        f"it has schema 99, this aglowctl knows {len(MIGRATIONS)}: a newer release wrote it",
    )


async def test_a_database_in_use_is_none(tmp_path: Path, clock: HandClock) -> None:
    async with opened(tmp_path / "aglowd.db", clock) as store:
        await fill(store)
        with pytest.raises(StoreError, match="a database in use"):
            verify(tmp_path / "aglowd.db")
        # Copied by hand with its log, as recover.md says, it is one, and its log is left as it is.
        for name in ("aglowd.db", "aglowd.db-wal"):
            shutil.copyfile(tmp_path / name, tmp_path / f"copy-{name}")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("copy-*")}
    assert len(before) == 2
    assert verify(tmp_path / "copy-aglowd.db").fields == 4
    assert {path.name: path.read_bytes() for path in tmp_path.glob("copy-*")} == before


@pytest.mark.parametrize("content", [None, b"", b"hello" * 1000])
def test_what_is_no_database_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "backup.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"is no file|not one of aglowd|is no backup"):
        verify(path)
