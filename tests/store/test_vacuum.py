"""Room that is free goes back to the file system: a little at a time while the daemon works, all of it when a person says so."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import HandClock, begin, graph, opened, step

from aglowd.cli.daemon import main
from aglowd.errors import StoreError
from aglowd.store import vacuum
from aglowd.store.db import LOG_MOST_BYTES
from aglowd.store.store import Store
from aglowd.store.vacuum import INCREMENTAL, PAGES_AT_ONCE, compact
from aglowd.store.verify import check_in_use

GOLDEN = Path(__file__).parent / "golden" / "v5.sql"
PAGE_BYTES = 4_096


async def fill_and_empty(store: Store, pages: int) -> None:
    """Leave so many pages free, or a few more."""

    def fill(db: sqlite3.Connection) -> None:
        for number in range(pages):
            db.execute("INSERT INTO cursors VALUES (?, ?)", (f"page {number}", "x" * 2_500))

    await store.db.write(fill)
    await store.db.write(lambda db: db.execute("DELETE FROM cursors").rowcount)


async def free(store: Store) -> int:
    return await store.db.read(lambda db: int(db.execute("PRAGMA freelist_count").fetchone()[0]))


async def test_free_pages_go_a_few_at_a_time_and_some_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacuum, "SPARE_PAGES", 50)
    await begin(store, graph("line", step("only")), "P1")
    await fill_and_empty(store, 2 * PAGES_AT_ONCE)
    before = await free(store)
    assert before > 2 * PAGES_AT_ONCE
    assert await store.give_back() == PAGES_AT_ONCE
    assert await free(store) == before - PAGES_AT_ONCE
    while await store.give_back():
        pass
    assert 50 <= await free(store) <= 60
    assert check_in_use(store.db.path) == []
    assert (await store.figures()).free_bytes == await free(store) * PAGE_BYTES


async def test_a_few_free_pages_are_left_for_what_comes(store: Store) -> None:
    await fill_and_empty(store, 100)
    assert await store.give_back() == 0


async def test_what_is_written_ahead_is_cut_when_it_stands_in_the_database(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "aglowd.db"
    async with opened(path, clock) as store:
        await fill_and_empty(store, 2 * LOG_MOST_BYTES // PAGE_BYTES)
        await fill_and_empty(store, 1)
        await fill_and_empty(store, 1)
        assert os.stat(f"{path}-wal").st_size <= LOG_MOST_BYTES
    assert not Path(f"{path}-wal").exists(), "a database that is closed is one file"


def older(path: Path) -> None:
    """A database that an older release made, with free pages."""
    db = sqlite3.connect(path)
    db.executescript(GOLDEN.read_text())
    db.executemany("INSERT INTO cursors VALUES (?, ?)", [(f"page {number}", "x" * 2_500) for number in range(500)])
    db.commit()
    db.execute("DELETE FROM cursors")
    db.commit()
    db.close()


async def test_one_that_an_older_release_made_is_rewritten_once(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "aglowd.db"
    older(path)
    async with opened(path, clock) as store:
        await fill_and_empty(store, 3_000)
        assert await store.give_back() == 0, "its pages cannot go singly"
        with pytest.raises(StoreError, match="another aglowd uses"):
            compact(path)
    size = path.stat().st_size
    done = compact(path)
    assert (done.before, done.after) == (size, path.stat().st_size)
    assert done.after < done.before / 4
    async with opened(path, clock) as store:
        (mode,) = await store.db.read(lambda db: db.execute("PRAGMA auto_vacuum").fetchone())
        assert mode == INCREMENTAL
        assert check_in_use(path) == []


def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        compact(tmp_path / "aglowd.db")
    (tmp_path / "aglowd.db").write_bytes(b"this is a text" * 1000)
    with pytest.raises(StoreError, match="cannot be compacted"):
        compact(tmp_path / "aglowd.db")
    assert (tmp_path / "aglowd.db").read_bytes() == b"this is a text" * 1000


def test_an_operator_says_so(tmp_path: Path) -> None:
    (tmp_path / "srm").mkdir()
    config = tmp_path / "aglowd.toml"
    text = f'[daemon]\nstate_dir = "{tmp_path}"\n[catalogue]\npath = "f.csv"\nsrm_dir = "{tmp_path}/srm"\n'
    config.write_text(f'{text}[sites.sara]\nresults = "file:///r"\narchive = "file:///a"\n')
    ended = CliRunner().invoke(main, ["compact", "--config", str(config)])
    assert (ended.exit_code, "there is no database" in ended.output) == (75, True)
    older(tmp_path / "aglowd.db")
    ended = CliRunner().invoke(main, ["compact", "--config", str(config)])
    assert ended.exit_code == 0, ended.output
    assert "bytes before" in ended.output
    config.write_text("[catalogue]\n")
    assert CliRunner().invoke(main, ["compact", "--config", str(config)]).exit_code == 78
