"""Databases of older releases, stopped in mid-run, are taken up and carried to the end; what cannot be is refused.

`golden/vN.sql` is the dump of a database that the last release of schema N left when it was killed: one run with an
effect in every state, a step that waits, and fields with and without a run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import (
    FarSide,
    HandClock,
    Order,
    Play,
    Played,
    Put,
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
from aglowd.model import Do, Done, Effect, Outcome, Seen, StepView, Subject, Wait
from aglowd.store import db as room
from aglowd.store.db import MIGRATIONS, Database
from aglowd.store.place import check_place, file_system

GOLDEN = Path(__file__).parent / "golden"
STATES: dict[str, type[Put]] = {
    "done": Put,
    "rejected": Put,
    "planned": Order,
    "open": Put,
    "unknown": Order,
    "doubt": Put,
}
THING = Subject("thing", "one")


def until_it_ended(effect: Effect) -> Play:
    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Done({"state": str(seen.effects[0].state)}) if seen.effects else Do((effect,))

    return play


def waits(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Done({"saw": seen.of(THING)}) if seen.of(THING) else Wait((THING,), "waits for the thing", 3600.0)


PLAYS = {name: until_it_ended(kind(what=name)) for name, kind in STATES.items()} | {"waits": waits}


def load(version: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.executescript((GOLDEN / f"v{version}.sql").read_text(encoding="utf-8"))
    db.close()


def version_of(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


OLDER = range(1, len(MIGRATIONS))


def test_there_is_a_golden_database_of_every_older_schema() -> None:
    assert {path.name for path in GOLDEN.iterdir()} >= {f"v{version}.sql" for version in OLDER}


@pytest.mark.parametrize("version", OLDER)
async def test_an_older_database_is_taken_up_in_mid_run_and_carried_to_the_end(tmp_path: Path, version: int) -> None:
    path = tmp_path / "aglowd.db"
    load(version, path)
    clock = HandClock()
    clock.advance(900_000)
    async with opened(path, clock) as store:
        assert (await one(store, "SELECT count(*) AS n FROM effects"))["n"] == len(STATES)
        world = FarSide(clock, path)
        for number, name in enumerate(("done", "doubt", "open"), 1):  # What the old release had done out there.
            world.things.append((number, f"P1_1-1/{name}/1/put/0", name, 0.0))
        reactor = new_reactor(store, [Played(PLAYS)], graph("another", step("else")))
        engine = new_engine(store, world)
        assert [row["kind"] for row, _ in [({"kind": s.kind}, v) for s, v in await store.watched("thing")]] == ["thing"]
        await store.ingest("thing", None, [(THING, {"seen": True})])
        for _ in range(12):
            await settle_all(reactor)
            await perform_all(store, engine)
            clock.advance(4_000)
        assert (await one(store, "SELECT state, reason FROM runs WHERE id = 'P1_1-1'")) == {
            "state": "done",
            "reason": "",
        }
        ended = {row["step"]: row["state"] for row in await rows(store, "SELECT step, state FROM effects")}
        assert ended == {name: "rejected" if name == "rejected" else "done" for name in STATES}
        assert sorted(key for _, key, _, _ in world.things) == sorted(
            f"P1_1-1/{name}/1/{kind.kind}/0" for name, kind in STATES.items() if name != "rejected"
        ), "each of them once, and nothing that was done already"
        states = {row["field"]: row["state"] for row in await store.fields()}
        assert states == {"P1+1": "archived", "P2+2": "offered", "P3+3": "failed"}
    assert version_of(path) == len(MIGRATIONS)


@pytest.mark.parametrize("version", OLDER)
async def test_a_copy_of_the_older_database_is_kept(tmp_path: Path, version: int) -> None:
    path = tmp_path / "aglowd.db"
    load(version, path)
    before = dump(path)
    database = Database(path)
    await database.open()
    await database.close()
    kept = tmp_path / f"aglowd.db.v{version}.bak"
    assert version_of(kept) == version
    assert dump(kept) == before
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.part"))


def dump(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return list(db.iterdump())
    finally:
        db.close()


async def test_a_new_or_current_database_leaves_no_copy(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "aglowd.db")
        await database.open()
        await database.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aglowd.db", "aglowd.db.lock"]


async def test_a_migration_that_fails_half_way_leaves_the_old_release_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "aglowd.db"
    load(1, path)
    before = dump(path)
    half = tmp_path / "half.sql"
    half.write_text("CREATE TABLE half (x); UPDATE runs SET state = 'done'; INSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr(room, "MIGRATIONS", ("schema.sql", str(half)))
    with pytest.raises(StoreError, match="no such table: nowhere"):
        await Database(path).open()
    assert dump(path) == before
    assert version_of(path) == 1
    monkeypatch.undo()
    database = Database(path)
    await database.open()
    await database.close()
    assert version_of(path) == len(MIGRATIONS)


async def refused(path: Path) -> str:
    database = Database(path)
    with pytest.raises(StoreError) as caught:
        await database.open()
    await database.close()
    return str(caught.value)


async def whole(path: Path) -> bytes:
    """A database with some pages, and its bytes."""
    database = Database(path)
    await database.open()

    def fill(db: sqlite3.Connection) -> None:
        for number in range(300):
            db.execute("INSERT INTO cursors VALUES (?, ?)", (f"source {number}", "x" * 500))

    await database.write(fill)
    await database.close()
    return path.read_bytes()


def flipped(content: bytes) -> bytes:
    return content[:4096] + b"".join(
        bytes([*page[:8]]) + b"\xff" * 32 + page[40:]
        for page in (content[at : at + 4096] for at in range(4096, len(content), 4096))
    )


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped bytes": flipped,
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut within a page": lambda content: content[:-1000],
    "not a database": lambda content: b"this is a text\n" * 1000,
    "no header": lambda content: b"\0" * 100 + content[100:],
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_refused_with_the_way_to_restore_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "aglowd.db"
    damaged = DAMAGES[damage](await whole(path))
    path.write_bytes(damaged)
    assert "restore" in await refused(path)
    assert path.read_bytes() == damaged


async def test_an_empty_file_with_a_log_beside_it_is_no_new_database(tmp_path: Path) -> None:
    path = tmp_path / "aglowd.db"
    await whole(path)
    for content, word in ((b"", "empty"), (None, "missing")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        (tmp_path / "aglowd.db-wal").write_bytes(b"what was committed last")
        said = await refused(path)
        assert f"is {word}" in said
        assert "aglowd restore FILE" in said
        assert (tmp_path / "aglowd.db-wal").read_bytes() == b"what was committed last"


async def test_an_empty_file_alone_is_where_a_first_start_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "aglowd.db"
    path.touch()
    database = Database(path)
    await database.open()
    await database.close()


async def test_the_log_that_a_kill_leaves_is_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "aglowd.db"
    database = Database(path)
    await database.open()
    await database.write(lambda db: db.execute("INSERT INTO cursors VALUES ('kept', '1')") and None)
    left = tmp_path / "left"
    left.mkdir()
    for name in ("aglowd.db", "aglowd.db-wal", "aglowd.db-shm"):
        (left / name).write_bytes((tmp_path / name).read_bytes())
    await database.close()
    again = Database(left / "aglowd.db")
    await again.open()
    assert await again.read(lambda db: db.execute("SELECT source FROM cursors").fetchone()[0]) == "kept"
    await again.close()


async def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    for version in (0, 1):
        path = tmp_path / f"{version}" / "aglowd.db"
        path.parent.mkdir()
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE theirs (x)")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
        db.close()
        assert "not one of aglowd" in await refused(path)


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF}"
    mounts = tmp_path / "mountinfo"
    for kind, fine in (("nfs4", False), ("nfs", False), ("cifs", False), ("ext4", True), ("tmpfs", True)):
        mounts.write_text(
            f"21 1 0:99 / /else rw - nfs4 a:/b rw\n22 1 {number} / /x rw,relatime shared:1 - {kind} dev rw\n"
        )
        assert file_system(tmp_path, mounts) == kind
        if fine:
            check_place(tmp_path / "aglowd.db", mounts)
        else:
            with pytest.raises(StoreError, match=rf"network file system \({kind}\).*local disk"):
                check_place(tmp_path / "aglowd.db", mounts)
    assert file_system(tmp_path) != "", "the kernel's own table is read"
