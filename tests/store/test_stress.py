"""A disk that is full or fails, at every write: writes wait, nothing is half recorded, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import TOY_DEEDS, FarSide, HandClock, Played, Put, begin, do, graph, new_reactor, opened, rows, step

from aglowd.effects.engine import Engine
from aglowd.errors import StoreError
from aglowd.store import db as room
from aglowd.store.db import Database, queries
from aglowd.store.store import Store

TOY = graph("toy", step("first"), step("second", "first"))
HANDLERS = (Played({"first": do(Put(what="one"), Put(what="two", ordinal=1)), "second": do(Put(what="three"))}),)
EFFECTS = 3
MOST_FAULTS = 400
"""Far more writes than the small run makes: reaching it means that no write ever succeeds."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same back-off, a hundredth as long."""
    monkeypatch.setattr(room, "RETRY_REAL_S", 0.005)
    monkeypatch.setattr(room, "RETRY_MOST_REAL_S", 0.02)


def put(source: str, value: str = "1") -> Callable[[sqlite3.Connection], None]:
    def transaction(db: sqlite3.Connection) -> None:
        db.execute(queries()["set_cursor"], {"source": source, "value": value})

    return transaction


def cursors(db: sqlite3.Connection) -> set[str]:
    return {row["source"] for row in db.execute("SELECT source FROM cursors")}


def limit(pages: int) -> Callable[[sqlite3.Connection], int]:
    return lambda db: int(db.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0])


def page_count(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA page_count").fetchone()[0])


class Troubles(dict[str, str]):
    """The troubles of a database, which ring."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        database._troubles = self

    def __setitem__(self, verb: str, text: str) -> None:
        super().__setitem__(verb, text)
        self.ended.clear()
        self.began.set()

    def pop(self, verb: str, *default: Any) -> Any:
        if verb in self:
            self.began.clear()
            self.ended.set()
        return super().pop(verb, *default)


async def in_trouble(database: Database) -> str:
    """What it says when it says something."""
    if not isinstance(database._troubles, Troubles):
        Troubles(database)
    assert isinstance(database._troubles, Troubles)
    await database._troubles.began.wait()
    return database.trouble


class BrokenDisk:
    """Makes each write of the database's log fail as on a broken disk: its descriptor becomes a read-only one."""

    def __init__(self, database: Database) -> None:
        self._log = f"{database.path}-wal"
        self._kept: dict[int, int] = {}

    def smash(self) -> None:
        if not self._kept:
            found = [int(fd) for fd in os.listdir("/proc/self/fd") if _points_to(fd, self._log)]
            self._kept = {fd: os.dup(fd) for fd in found}
            assert self._kept
            read_only = os.open(self._log, os.O_RDONLY)
            for fd in self._kept:
                os.dup2(read_only, fd)
            os.close(read_only)

    def mend(self) -> None:
        for fd, kept in self._kept.items():
            os.dup2(kept, fd)
            os.close(kept)
        self._kept.clear()


def _points_to(fd: str, path: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == path
    except OSError:
        return False


async def test_a_full_disk_makes_writes_wait_and_says_why(tmp_path: Path) -> None:
    database = Database(tmp_path / "state" / "aglowd.db")
    await database.open()
    try:
        await database._writer.run(limit(await database._writer.run(page_count)))
        big = asyncio.create_task(database.write(put("big", "x" * 200_000)))
        small = asyncio.create_task(database.write(put("small")))
        assert "cannot be written: database or disk is full; make room on its disk" in await in_trouble(database)
        assert await database.read(cursors) == set(), "reads go on, and see nothing half written"
        assert not big.done()
        assert not small.done()
        tried = database.commits
        await asyncio.sleep(0.05)
        assert database.commits == tried, "a batch is tried again, not counted again"
        await database._writer.run(limit(1_000_000))
        await asyncio.gather(big, small)
        assert await database.read(cursors) == {"big", "small"}
        assert database.trouble == ""
    finally:
        await database.close()


async def test_a_waiting_write_is_not_tried_without_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RETRY_REAL_S", 30.0)
    monkeypatch.setattr(room, "RETRY_MOST_REAL_S", 30.0)
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    tries = 0

    def counted(db: sqlite3.Connection) -> None:
        nonlocal tries
        tries += 1
        put("big", "x" * 200_000)(db)

    await database._writer.run(limit(await database._writer.run(page_count)))
    waiting = asyncio.create_task(database.write(counted))
    await in_trouble(database)
    for _ in range(50):
        await database.read(cursors)  # Each goes to a thread and back: time enough for a second try.
    assert tries == 1
    await asyncio.wait_for(database.close(), 5)  # The rest ends with the stop, after one last try.
    assert tries == 2
    with pytest.raises(StoreError, match="disk is full"):
        await waiting


async def test_the_stop_does_not_wait_for_a_full_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    await database._writer.run(limit(await database._writer.run(page_count)))
    waiting = [asyncio.create_task(database.write(put(f"s{n}", "x" * 50_000))) for n in range(600)]
    await in_trouble(database)
    await asyncio.wait_for(database.close(), 20)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in told} == {StoreError}
    again = Database(tmp_path / "aglowd.db")
    await again.open()
    assert await again.read(cursors) == set()
    await again.close()


async def test_an_error_of_the_disk_is_waited_for(tmp_path: Path) -> None:
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    disk = BrokenDisk(database)
    try:
        await database.write(put("before"))
        disk.smash()
        waiting = asyncio.create_task(database.write(put("after")))
        assert "cannot be written: disk I/O error; look at its disk" in await in_trouble(database)
        assert await database.read(cursors) == {"before"}
        disk.mend()
        await waiting
        assert await database.read(cursors) == {"before", "after"}
        assert await database.read(lambda db: db.execute("PRAGMA integrity_check").fetchone()[0]) == "ok"
    finally:
        disk.mend()
        await database.close()


async def test_another_program_that_holds_the_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BUSY_REAL_S", 0.01)
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    other = sqlite3.connect(database.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(database.write(put("mine")))
        assert "database is locked; another program holds it" in await in_trouble(database)
        other.execute("ROLLBACK")
        await waiting
        assert await database.read(cursors) == {"mine"}
    finally:
        other.close()
        await database.close()


async def test_an_error_of_the_disk_within_one_transaction_makes_all_that_share_its_commit_wait(tmp_path: Path) -> None:
    """SQLite may keep the transaction open behind such an error: it is no failure of that one function all the same."""
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    tries = 0

    def refused_once(db: sqlite3.Connection) -> str:
        nonlocal tries
        tries += 1
        put("refused once")(db)
        if tries == 1:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return "written"

    try:
        results = await asyncio.gather(database.write(refused_once), database.write(put("beside it")))
        assert results[0] == "written"
        assert tries == 2
        assert await database.read(cursors) == {"beside it", "refused once"}
    finally:
        await database.close()


async def test_a_defect_is_no_trouble(tmp_path: Path) -> None:
    """What will never pass goes to the caller at once."""
    database = Database(tmp_path / "aglowd.db")
    await database.open()
    try:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await database.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(put("no"))
        assert database.trouble == ""
    finally:
        await database.close()


class Failing:
    """SQLite's own way to test a disk: its n-th write fails; once, or from then on until somebody mends it."""

    def __init__(self, store: Store, number: int, *, once: bool) -> None:
        self.disk = BrokenDisk(store.db)
        self.number = number
        self.once = once
        self.passed = 0
        self.struck = 0
        self._run = store.db._writer.run
        self._writer = store.db._writer
        self._writer.run = self._count  # type: ignore[method-assign] # Every write passes here.

    async def _count(self, function: Any) -> Any:
        self.passed += 1
        if self.passed == self.number or (self.passed > self.number and not self.once):
            self.struck += 1
            self.disk.smash()
        try:
            return await self._run(function)
        finally:
            self.disk.mend()

    def stop(self) -> None:
        self.number = sys.maxsize
        self._writer.run = self._run  # type: ignore[method-assign] # As it was


async def run_small(path: Path, number: int, clock: HandClock, *, once: bool) -> tuple[FarSide, int]:
    """The whole small run while the disk fails; returns the world's truth, and how many writes failed."""
    async with opened(path, clock) as store:
        world = FarSide(clock, path)
        reactor = new_reactor(store, HANDLERS, TOY)
        engine = Engine(store, world, TOY_DEEDS, clock)  # type: ignore[arg-type] # A toy world for toy deeds
        troubles = Troubles(store.db)
        failing = Failing(store, number, once=once)
        mender = asyncio.create_task(_mend(troubles, failing))
        try:
            await begin(store, TOY)
            for _ in range(40):
                if not await reactor.decide_once() and not await _perform(store, engine):
                    break
            assert [row["state"] for row in await rows(store, "SELECT state FROM runs")] == ["done"]
            assert store.db.trouble == ""
        finally:
            mender.cancel()
            await asyncio.wait([mender])
            failing.stop()
    return world, failing.struck


async def _mend(troubles: Troubles, failing: Failing) -> None:
    """Mend the disk when it has failed three times."""
    await troubles.began.wait()
    while failing.struck < 3 and not failing.once:
        troubles.began.clear()
        await troubles.began.wait()
    failing.number = sys.maxsize


async def _perform(store: Store, engine: Engine) -> int:
    lives = await store.next_effects((), 10)
    await asyncio.gather(*map(engine.perform, lives))
    return len(lives)


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
async def test_a_disk_that_fails_at_the_nth_write(tmp_path: Path, once: bool) -> None:
    """For growing n, until none of them fails any more: each effect once, each with its intent before it (FarSide)."""
    n = 0
    while True:
        n += 1
        assert n < MOST_FAULTS, "the disk never stops to fail"
        path = tmp_path / str(n) / "aglowd.db"
        world, struck = await run_small(path, n, HandClock(), once=once)
        assert len(world.things) == EFFECTS, f"n={n}: {world.things}"
        assert len({key for _, key, _, _ in world.things}) == EFFECTS, f"n={n}: {world.things}"
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert db.execute("SELECT count(*) FROM effects WHERE state = 'done'").fetchone()[0] == EFFECTS
        assert db.execute("SELECT count(*) FROM events WHERE kind = 'EffectDone'").fetchone()[0] == EFFECTS
        db.close()
        if not struck:
            break
        assert struck == (1 if once else 3), f"n={n}"
    assert n >= 7, "the small run writes more often than that"


LIMITS = (1, 2_000, 4_130, 21_111, 60_000)
"""Bytes by which the log may still grow: before, in and behind a page."""

CHILD = """
import asyncio, resource, signal, sqlite3, sys
from pathlib import Path
from aglowd.store import db as room
from aglowd.store.db import Database, queries

async def main(path, most_bytes, heal):
    room.RETRY_REAL_S, room.RETRY_MOST_REAL_S = 0.005, 0.02
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    database = Database(Path(path))
    await database.open()
    def put(n):
        return lambda db: db.execute(queries()["set_cursor"], {"source": f"s{n}", "value": "x" * 3000})
    most_bytes += Path(f"{path}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    for n in range(8):
        writing = asyncio.create_task(database.write(put(n)))
        while not writing.done() and not database.trouble:
            await asyncio.sleep(0)
        if not writing.done() and not heal:
            print("trouble", n, database.trouble, flush=True)
            await asyncio.sleep(60)
        if not writing.done():
            print("trouble", n, flush=True)
            await asyncio.sleep(0.02)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await writing
        print("written", n, flush=True)
    await database.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "heal"))
"""


@pytest.mark.parametrize("heal", ["heal", "kill"])
def test_short_writes_by_a_limit_on_the_file(tmp_path: Path, heal: str) -> None:
    """RLIMIT_FSIZE cuts a write in the middle of a page. Wherever that is: what was reported stands, nothing else does."""
    troubled = 0
    for most in LIMITS:
        path = tmp_path / f"{most}" / "aglowd.db"
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(most), heal], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            lines = []
            for line in child.stdout:
                lines.append(line.split())
                if line.startswith("trouble") and heal == "kill":
                    child.kill()
            code = child.wait(60)
        written = {f"s{words[1]}" for words in lines if words[0] == "written"}
        troubled += any(words[0] == "trouble" for words in lines)
        assert code == (-signal.SIGKILL if heal == "kill" and lines[-1][0] == "trouble" else 0)
        db = sqlite3.connect(path)
        db.row_factory = sqlite3.Row
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert cursors(db) == written
        db.close()
        if heal == "heal":
            assert len(written) == 8
    assert troubled >= 4, f"only {troubled} of {len(LIMITS)} limits were ever felt"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "the limit is the child's alone"
