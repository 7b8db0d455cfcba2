"""Backups of a database in use, and what becomes of a run whose journal is put back to an earlier time."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import (
    FarSide,
    HandClock,
    Noted,
    Order,
    Played,
    Put,
    begin,
    do,
    effect_row,
    graph,
    new_engine,
    new_reactor,
    one,
    opened,
    perform_all,
    rows,
    settle_all,
    step,
)

from aglowd.errors import StoreError
from aglowd.model import Done, FieldView, Outcome, Seen, Spawn, StepView
from aglowd.store import backup
from aglowd.store.db import Database, take_lock
from aglowd.store.restore import restore
from aglowd.store.store import Store

CHILD = graph("child", step("inner"))


def spawns(view: StepView, params: Any, seen: Seen) -> Outcome:
    ended = next(iter(seen.observations.values()), None)
    if ended is not None and ended.data:
        return Done({"child": ended.data["run"]})
    return Spawn("shared", "child", {}, "the child is done once for all", 3600.0, shared=True)


TOY = graph(
    "toy",
    step("exact"),
    step("late", "exact"),
    step("child", "exact", kind="played"),
    step("noted", "late", "child"),
    step("last", "noted"),
)
PLAYS = {
    "exact": do(Put(what="a"), Put(what="b", ordinal=1)),
    "late": do(Order(what="c")),
    "child": spawns,
    "inner": do(Put(what="d")),
    "noted": do(Noted(what="e")),
    "last": do(Put(what="f")),
}
DEEDS = 6
STRETCHES = 40


class Life:
    """One daemon on the store: what its reactor and its engine do, in small steps."""

    def __init__(self, store: Store, world: FarSide) -> None:
        self.store = store
        self.reactor = new_reactor(store, [Played(PLAYS)], TOY, CHILD)
        self.engine = new_engine(store, world)

    async def stretch(self) -> None:
        """Decide what is dirty, bring each effect one stretch further, and let time pass."""
        await settle_all(self.reactor)
        await perform_all(self.store, self.engine)
        assert isinstance(self.store.clock, HandClock)
        self.store.clock.advance(200.0)
        await self.store.due()

    async def to_the_end(self, most: int = STRETCHES) -> None:
        for _ in range(most):
            await self.stretch()
            live = await rows(self.store, "SELECT state FROM runs WHERE state = 'running'")
            if not live:
                return
        raise AssertionError(await rows(self.store, "SELECT key, state, reason FROM effects WHERE state <> 'done'"))


@asynccontextmanager
async def living(path: Path, clock: HandClock, world: FarSide) -> AsyncIterator[Life]:
    async with opened(path, clock) as store:
        yield Life(store, world)


def dump(path: Path) -> list[str]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return list(db.iterdump())
    finally:
        db.close()


# --- backups


async def test_a_backup_is_one_whole_private_file_of_one_state(store: Store, tmp_path: Path) -> None:
    await begin(store, TOY)
    target = tmp_path / "backup.db"
    size_bytes = await store.back_up(target, replace=False, uid=1234)
    assert size_bytes == target.stat().st_size > 0
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup.db"], "no log, no part of it"
    db = sqlite3.connect(f"file:{target}?mode=ro&immutable=1", uri=True)
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "delete", "it can be read where nobody may write"
    assert db.execute("SELECT count(*) FROM runs").fetchone()[0] == 1
    db.close()
    (event,) = [event for event in await store.events() if event["kind"] == "BackedUp"]
    assert event["data"] == {"path": str(target), "size_bytes": size_bytes, "uid": 1234}


async def test_writes_go_on_while_the_copy_is_made(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page a step: after each step another commit is made, and the copy still ends, with the state it began with."""
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    loop = asyncio.get_running_loop()
    commits = 0

    class Stop:
        def is_set(self) -> bool:
            nonlocal commits
            commits += 1
            asyncio.run_coroutine_threadsafe(store.ingest("source", str(commits), ()), loop).result(10)
            return False

    await store.ingest("source", "before", ())
    target = tmp_path / "backup.db"
    await asyncio.to_thread(backup.back_up, store.db.path, target, replace=False, stop=Stop())  # type: ignore[arg-type] # It asks only this.
    assert commits > 20
    assert await store.cursor("source") == str(commits)
    db = sqlite3.connect(target)
    assert db.execute("SELECT value FROM cursors WHERE source = 'source'").fetchone() == ("before",)
    db.close()


async def test_an_older_backup_is_replaced_only_by_force(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match=r"exists already.*--force"):
        await store.back_up(target, replace=False, uid=0)
    assert target.read_text() == "precious"
    await store.back_up(target, replace=True, uid=0)
    assert target.read_bytes()[:15] == b"SQLite format 3"


async def test_a_backup_that_cannot_be_written_says_why_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be written by the daemon's user: .*No such file"):
        await store.back_up(tmp_path / "no" / "such" / "backup.db", replace=False, uid=0)
    for name in ("aglowd.db", "aglowd.db-wal", "aglowd.db.lock"):
        with pytest.raises(StoreError, match="keeps for itself"):
            await store.back_up(store.db.path.with_name(name), replace=True, uid=0)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "aglowd.db", "aglowd.db-shm", "aglowd.db-wal", "aglowd.db.lock", "state",
    ]  # fmt: skip


async def test_a_copy_of_a_damaged_database_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = Database(path)
    await database.open()
    await database.write(
        lambda db: (
            db.executemany("INSERT INTO cursors VALUES (?, ?)", [(str(n), "x" * 900) for n in range(400)]) and None
        )
    )
    await database.close()
    content = bytearray(path.read_bytes())
    content[-8192:-8100] = b"\xff" * 92
    path.write_bytes(content)
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises((StoreError, sqlite3.DatabaseError), match=r"not whole|malformed"):
        backup.copy(db, tmp_path / "backup.db", replace=False)
    db.close()
    assert not list(tmp_path.glob("backup*"))


async def test_a_backup_that_hangs_holds_nobody_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, mended = threading.Event(), threading.Event()

    def hangs(db: sqlite3.Connection, *, thoroughly: bool = False) -> str:
        reached.set()
        mended.wait(30)
        return "the mount was dead for a while"

    monkeypatch.setattr(backup, "check", hangs)
    making = asyncio.create_task(store.back_up(tmp_path / "backup.db", replace=False, uid=0))
    assert await asyncio.to_thread(reached.wait, 30)
    await store.ingest("source", "written meanwhile", ())
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    mended.set()
    await asyncio.wait_for(store._threads._places.acquire(), 10)
    assert not list(tmp_path.glob("backup*"))


async def test_a_backup_that_nobody_waits_for_any_more_ends(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(backup.Stopped):
        await asyncio.to_thread(backup.back_up, store.db.path, tmp_path / "backup.db", replace=False, stop=stop)
    assert not list(tmp_path.glob("backup*"))


async def test_a_file_that_comes_to_be_meanwhile_is_not_replaced(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "saved.bak"
    sync = backup.sync

    def late(path: Path) -> None:
        sync(path)
        target.write_text("somebody else's")

    monkeypatch.setattr(backup, "sync", late)
    with pytest.raises(StoreError, match="exists already"):
        await store.back_up(target, replace=False, uid=0)
    assert target.read_text() == "somebody else's"
    assert [path.name for path in tmp_path.glob("*saved*")] == ["saved.bak"]


async def test_a_file_system_without_links_holds_backups_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr("aglowd.store.backup.os.link", refused)
    assert await store.back_up(tmp_path / "saved.bak", replace=False, uid=0) > 0
    assert [path.name for path in tmp_path.glob("*saved*")] == ["saved.bak"]


# --- restore: the files


async def test_restore_keeps_the_replaced_database_with_its_log(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "aglowd.db"
    async with opened(path, clock) as store:
        await store.back_up(tmp_path / "saved.bak", replace=False, uid=0)
        await store.ingest("source", "since", ())
        for name in ("aglowd.db", "aglowd.db-wal"):  # As a kill leaves them.
            shutil.copy(tmp_path / name, tmp_path / f"left-{name}")
    for name in ("aglowd.db", "aglowd.db-wal"):
        (tmp_path / f"left-{name}").replace(tmp_path / name)
    done = restore(path, tmp_path / "saved.bak", clock.now())
    assert done.kept == tmp_path / "aglowd.db.replaced-1"
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "aglowd.db", "aglowd.db.lock", "aglowd.db.replaced-1", "aglowd.db.replaced-1-wal", "saved.bak",
    ]  # fmt: skip
    db = sqlite3.connect(done.kept)
    assert db.execute("SELECT value FROM cursors").fetchone() == ("since",), "nothing of the old one is lost"
    db.close()
    async with opened(path, clock) as store:
        assert await store.cursor("source") is None
    assert restore(path, tmp_path / "saved.bak", clock.now()).kept == tmp_path / "aglowd.db.replaced-2"


async def test_the_log_of_a_database_that_was_lost_replaces_no_other_log(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "aglowd.db"
    async with opened(path, clock) as store:
        await store.back_up(tmp_path / "saved.bak", replace=False, uid=0)
    path.unlink()
    for name in ("replaced-1", "replaced-1-wal"):
        (tmp_path / f"aglowd.db.{name}").write_text("of an earlier restore")
    Path(f"{path}-wal").write_text("of the lost one")
    assert restore(path, tmp_path / "saved.bak", clock.now()).kept is None
    assert (tmp_path / "aglowd.db.replaced-1-wal").read_text() == "of an earlier restore"
    assert (tmp_path / "aglowd.db.replaced-2-wal").read_text() == "of the lost one"


async def test_restore_is_refused_while_a_daemon_runs(store: Store, tmp_path: Path, clock: HandClock) -> None:
    await store.back_up(tmp_path / "saved.bak", replace=False, uid=0)
    with pytest.raises(StoreError, match="another aglowd uses"):
        restore(store.db.path, tmp_path / "saved.bak", clock.now())
    await store.ingest("source", "1", ())


@pytest.mark.parametrize("content", [None, b"", b"a text" * 1000, "newer", "cut"])
async def test_what_is_no_whole_backup_changes_nothing(tmp_path: Path, clock: HandClock, content: object) -> None:
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    async with opened(path, clock) as store:
        await store.ingest("source", "kept", ())
        await store.back_up(file, replace=False, uid=0)
    if content == "newer":
        db = sqlite3.connect(file)
        db.execute("PRAGMA user_version = 99")
        db.close()
    elif content == "cut":
        file.write_bytes(file.read_bytes()[:20_000])
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.unlink()
    before = dump(path)
    with pytest.raises(StoreError):
        restore(path, file, clock.now())
    assert dump(path) == before
    os.close(take_lock(path))  # The lock was let go.


@pytest.mark.parametrize("log", [False, True], ids=["stopped", "killed"])
async def test_a_restore_that_dies_at_any_moment_is_ended_by_a_second_one(
    tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch, log: bool
) -> None:
    """Each change of a name is a place to die. Behind it stands the old database, or the new, or a start that is refused."""

    class Dies(BaseException):
        pass

    ways = set()
    for number in range(1, 12):
        home = tmp_path / str(number)
        path, file = home / "aglowd.db", home / "saved.bak"
        async with opened(path, clock) as store:
            await store.ingest("source", "backup", ())
            await store.back_up(file, replace=False, uid=0)
            await store.ingest("source", "now", ())
            if log:
                shutil.copytree(home, tmp_path / f"left-{number}")
        if log:
            shutil.rmtree(home)
            (tmp_path / f"left-{number}").rename(home)
            (home / "aglowd.db-shm").unlink()
        left = number

        def dies(original: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Dies
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for verb in ("rename", "unlink"):
                patch.setattr(Path, verb, dies(getattr(Path, verb)))
            patch.setattr(backup, "sync", dies(backup.sync))
            try:
                restore(path, file, clock.now())
            except Dies:
                pass
            else:
                ways.add("ended")
                break
        try:
            async with opened(path, clock) as store:
                found = await store.cursor("source")
                assert found in ("now", "backup")
                ways.add(str(found))
        except StoreError as error:
            ways.add("refused" if "aglowd restore FILE" in str(error) else str(error))
        restore(path, file, clock.now())
        async with opened(path, clock) as store:
            assert await store.cursor("source") == "backup"
        kept = {}
        for one_kept in sorted(home.glob("aglowd.db.replaced-?")):
            db = sqlite3.connect(one_kept)
            kept[one_kept.name] = db.execute("SELECT value FROM cursors WHERE source = 'source'").fetchone()[0]
            db.close()
        assert "now" in kept.values(), f"the database of before is lost: {kept} at {number}"
    assert ways == {"now", "refused", "backup", "ended"}


# --- restore: nothing is done twice


async def play_until(life: Life, stretches: int) -> None:
    for _ in range(stretches):
        await life.stretch()


@pytest.mark.parametrize("goes_on", [1, 2, 4, STRETCHES])
@pytest.mark.parametrize("saved_at", range(7))
async def test_what_was_done_after_the_backup_is_not_done_again(
    tmp_path: Path, clock: HandClock, saved_at: int, goes_on: int
) -> None:
    """A backup at any moment of a run, the run goes on for a while or to its end, the backup is restored: the second
    life finds all that the first one did, though its journal knows nothing of it."""
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    world = FarSide(clock)
    async with living(path, clock, world) as life:
        await begin(life.store, TOY)
        await play_until(life, saved_at)
        await life.store.back_up(file, replace=False, uid=0)
        await play_until(life, goes_on)
    done_before = len(world.things)
    restore(path, file, clock.now())
    async with living(path, clock, world) as life:
        await life.to_the_end()
        assert (await one(life.store, "SELECT state FROM runs WHERE key = 'P1+1'"))["state"] == "done"
        assert (await one(life.store, "SELECT count(*) AS n FROM effects WHERE state = 'done'"))["n"] == DEEDS
    keys = [key for _, key, _, _ in world.things]
    assert len(keys) == len(set(keys)) == DEEDS, f"{done_before} were done before, now: {sorted(keys)}"


async def test_a_run_that_begins_after_the_restore_cannot_meet_the_keys_of_a_lost_one(
    tmp_path: Path, clock: HandClock
) -> None:
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    world = FarSide(clock)
    async with living(path, clock, world) as life:
        await life.store.back_up(file, replace=False, uid=0)
        await begin(life.store, TOY, key="P1+1")
        await life.to_the_end()
    lost = {key for _, key, _, _ in world.things}
    assert len(lost) == DEEDS
    restore(path, file, clock.now())
    async with living(path, clock, world) as life:
        run = await begin(life.store, TOY, key="P1+1")
        assert run.startswith("P1_1-1r")
        await life.to_the_end()
        found = world.count("find")
        first = await effect_row(life.store, f"{run}/exact/1/put/0")
        assert "restored" not in first["notes"], "it is new: nobody has to look for it"
    fresh = {key for _, key, _, _ in world.things} - lost
    assert len(fresh) == DEEDS
    assert found == 0


async def test_a_second_restore_doubts_the_runs_of_the_first(tmp_path: Path, clock: HandClock) -> None:
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    world = FarSide(clock)
    async with living(path, clock, world) as life:
        await life.store.back_up(file, replace=False, uid=0)
    restore(path, file, clock.now())
    async with living(path, clock, world) as life:
        run = await begin(life.store, TOY)
        await life.stretch()
        await life.store.back_up(file, replace=True, uid=0)
        await life.to_the_end()
    assert len(world.things) == DEEDS
    clock.advance(10)
    restore(path, file, clock.now())
    async with living(path, clock, world) as life:
        await life.to_the_end()
        assert [row["id"] for row in await rows(life.store, "SELECT id FROM runs WHERE key = 'P1+1'")] == [run]
    assert len(world.things) == DEEDS


async def test_every_effect_of_that_time_is_looked_for_whatever_state_it_had(tmp_path: Path, clock: HandClock) -> None:
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    world = FarSide(clock)
    async with living(path, clock, world) as life:
        run = await begin(life.store, TOY)
        await settle_all(life.reactor)
        world.moods.extend(["temporary", "well"])  # One goes back to planned, one is done.
        await perform_all(life.store, life.engine)
        await life.store.back_up(file, replace=False, uid=0)
    since = clock.now()
    clock.advance(5_000)
    done = restore(path, file, clock.now())
    assert done.effects == 1
    assert done.since == since
    async with living(path, clock, world) as life:
        states = {row["key"]: row for row in await rows(life.store, "SELECT * FROM effects")}
        doubted = [row for row in states.values() if row["state"] == "unknown"]
        assert len(doubted) == 1
        assert doubted[0]["intended"] == since, "what find looks for began with the backup"
        assert "backup was restored" in doubted[0]["reason"]
        await life.to_the_end()
        assert {key.split("/")[0] for key in states} == {run}
    assert len(world.things) == DEEDS


async def test_fields_are_offered_again_as_the_catalogue_says(tmp_path: Path, clock: HandClock) -> None:
    """A field that was claimed in the lost time is no offer any more; one that was put back to SND is."""
    path, file = tmp_path / "aglowd.db", tmp_path / "saved.bak"
    world = FarSide(clock)
    async with living(path, clock, world) as life:
        await life.store.put_fields([(FieldView("P1+1", "SND", {}), ""), (FieldView("P2+2", "SND", {}), "")])
        await life.store.back_up(file, replace=False, uid=0)
        assert await life.store.admit(TOY, ("SND",), 10) == 2
    restore(path, file, clock.now())
    async with living(path, clock, world) as life:
        await life.store.put_fields([(FieldView("P1+1", "AAA", {}), ""), (FieldView("P2+2", "SND", {}), "")])
        assert await life.store.admit(TOY, ("SND",), 10) == 1
        assert (await one(life.store, "SELECT field FROM runs"))["field"] == "P2+2"


async def test_random_histories_with_restores(tmp_path: Path, clock: HandClock, request: pytest.FixtureRequest) -> None:
    """Backups, kills and restores at random, in a world that also loses answers: never twice, never none."""
    seed = random.SystemRandom().randrange(1_000_000)
    print("seed", seed)  # Shown when it fails.
    chance = random.Random(seed)
    for number in range(12):
        path, file = tmp_path / f"{number}" / "aglowd.db", tmp_path / f"{number}" / "saved.bak"
        world = FarSide(clock)
        async with living(path, clock, world) as life:
            await begin(life.store, TOY)
            await life.store.back_up(file, replace=False, uid=0)
        for _ in range(chance.randrange(1, 5)):
            async with living(path, clock, world) as life:
                for _ in range(chance.randrange(8)):
                    if chance.random() < 0.4:
                        world.moods.append(chance.choice(["lost", "temporary", "unknown"]))
                    await life.stretch()
                    world.moods.clear()
                    if chance.random() < 0.3:
                        await life.store.back_up(file, replace=True, uid=0)
            if chance.random() < 0.7:
                restore(path, file, clock.now())
        async with living(path, clock, world) as life:
            await life.to_the_end()
            assert (await one(life.store, "SELECT state FROM runs WHERE key = 'P1+1'"))["state"] == "done"
        keys = [key for _, key, _, _ in world.things]
        assert len(keys) == len(set(keys)) == DEEDS, f"seed {seed}, history {number}: {sorted(keys)}"
