"""The file and its one writer: what a commit promises, and what a database that cannot be used says."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aglowd.errors import StoreError
from aglowd.store import db as room
from aglowd.store.db import GROUP_LIMIT, MIGRATIONS, Database, _Connection, _Entry, queries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "aglowd.db"


async def opened(path: Path) -> Database:
    database = Database(path)
    await database.open()
    return database


def put(source: str, value: str = "1"):  # type: ignore[no-untyped-def] # A transaction
    def transaction(db: sqlite3.Connection) -> str:
        db.execute(queries()["set_cursor"], {"source": source, "value": value})
        return source

    return transaction


def cursors(db: sqlite3.Connection) -> dict[str, str]:
    return {row["source"]: row["value"] for row in db.execute("SELECT * FROM cursors")}


def pragma(name: str):  # type: ignore[no-untyped-def] # A transaction
    return lambda db: db.execute(f"PRAGMA {name}").fetchone()[0]


async def test_the_file_is_durable_and_knows_its_schema(path: Path) -> None:
    database = await opened(path)
    try:
        assert await database._writer.run(pragma("journal_mode")) == "wal"
        assert await database._writer.run(pragma("synchronous")) == 2, "a commit must survive the host"
        assert await database._writer.run(pragma("foreign_keys")) == 1
        assert await database._reader.run(pragma("query_only")) == 1
        assert await database.read(pragma("user_version")) == len(MIGRATIONS)
    finally:
        await database.close()
    reader = sqlite3.connect(path)
    assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    reader.close()


async def test_writers_that_wait_at_once_share_one_commit(path: Path) -> None:
    database = await opened(path)
    try:
        before = database.commits
        names = await asyncio.gather(*(database.write(put(f"s{number}")) for number in range(100)))
        assert names == [f"s{number}" for number in range(100)]
        assert database.commits - before <= 2
        assert len(await database.read(cursors)) == 100
    finally:
        await database.close()


async def test_one_commit_takes_no_more_than_its_limit(path: Path) -> None:
    database = await opened(path)
    try:
        before = database.commits
        await asyncio.gather(*(database.write(put(f"s{number}")) for number in range(2 * GROUP_LIMIT + 1)))
        assert database.commits - before >= 3
    finally:
        await database.close()


async def test_a_transaction_that_fails_rolls_back_alone(path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        put("half")(db)
        raise ValueError("no")

    database = await opened(path)
    try:
        before = database.commits
        results = await asyncio.gather(
            database.write(put("one")),
            database.write(half),
            database.write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)")),
            database.write(put("two")),
            return_exceptions=True,
        )
        assert database.commits - before == 1
        assert [type(result) for result in results] == [str, ValueError, sqlite3.OperationalError, str]
        assert set(await database.read(cursors)) == {"one", "two"}
    finally:
        await database.close()


async def test_a_failure_that_ends_the_transaction_fails_all_that_shared_it(path: Path) -> None:
    def breaks(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR ROLLBACK INTO cursors VALUES ('one', 'again')")

    database = await opened(path)
    try:
        results = await asyncio.gather(
            database.write(put("one")), database.write(breaks), database.write(put("two")), return_exceptions=True
        )
        assert [type(result) for result in results] == [sqlite3.IntegrityError] * 3
        assert await database.read(cursors) == {}
        assert await database.write(put("three")) == "three", "the writer goes on"
    finally:
        await database.close()


async def test_nothing_is_answered_before_its_commit(path: Path) -> None:
    """What only the commit itself finds wrong, as a reference to nothing, is no success."""

    def refers_to_nothing(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute("INSERT INTO steps (run, name, kind, state, reason, since) VALUES ('no', 's', 'k', 'ready', 'r', 0)")

    database = await opened(path)
    try:
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(refers_to_nothing)
        assert await database.write(put("next")) == "next"
    finally:
        await database.close()


async def test_a_caller_that_is_cancelled_does_not_take_its_write_with_it(path: Path) -> None:
    database = await opened(path)
    try:
        task = asyncio.create_task(database.write(put("kept")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await database.write(put("next")) == "next"
        assert set(await database.read(cursors)) == {"kept", "next"}
    finally:
        await database.close()


async def test_a_failure_whose_caller_has_gone_disturbs_nobody(path: Path) -> None:
    def fails(db: sqlite3.Connection) -> None:
        raise ValueError("nobody hears it")

    database = await opened(path)
    try:
        task = asyncio.create_task(database.write(fails))
        await asyncio.sleep(0)
        task.cancel()
        assert await database.write(put("next")) == "next"
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        await database.close()


async def test_a_future_that_was_cancelled_is_passed_over(path: Path) -> None:
    database = await opened(path)
    try:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.cancel()
        database._queue.put_nowait(_Entry(put("kept"), lambda: None, future))
        await database.write(put("next"))
        assert set(await database.read(cursors)) == {"kept", "next"}
    finally:
        await database.close()


async def test_what_stumbles_over_a_commit_does_not_stop_the_writer(path: Path) -> None:
    database = await opened(path)

    def stumble() -> None:
        raise ValueError("a defect")

    try:
        await database.write(put("kept"), stumble)
        await database.write(put("next"))
        assert set(await database.read(cursors)) == {"kept", "next"}
    finally:
        await database.close()


async def test_closing_writes_what_is_queued(path: Path) -> None:
    database = await opened(path)
    writes = [asyncio.create_task(database.write(put(f"s{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await database.close()
    assert len(await asyncio.gather(*writes)) == 5
    with pytest.raises(StoreError, match="is closed"):
        await database.write(put("late"))
    await database.close()
    again = await opened(path)
    assert len(await again.read(cursors)) == 5
    await again.close()


async def test_a_write_that_comes_while_the_file_closes_is_told_so(path: Path) -> None:
    """It is written or refused; its caller never waits for ever."""
    database = await opened(path)
    late: list[asyncio.Task[str]] = []
    loop = asyncio.get_running_loop()

    def slow(db: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(lambda: late.append(loop.create_task(database.write(put("late")))))
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=5)

    first = asyncio.create_task(database.write(slow))
    await asyncio.sleep(0)
    await database.close()
    await first
    done, waiting = await asyncio.wait(late, timeout=2)
    for task in waiting:
        task.cancel()
    assert not waiting, "the caller waits for ever"
    assert isinstance(done.pop().exception(), StoreError | None)


async def test_a_read_sees_one_state_from_beginning_to_end(path: Path) -> None:
    database = await opened(path)
    loop = asyncio.get_running_loop()

    def twice(db: sqlite3.Connection) -> tuple[dict[str, str], dict[str, str]]:
        before = cursors(db)
        asyncio.run_coroutine_threadsafe(database.write(put("between")), loop).result(timeout=5)
        return before, cursors(db)

    try:
        before, after = await database.read(twice)
        assert before == after == {}
        assert set(await database.read(cursors)) == {"between"}
    finally:
        await database.close()


async def test_a_query_that_fails_leaves_the_reader_usable_and_reading_never_writes(path: Path) -> None:
    database = await opened(path)
    try:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read(put("no"))
        assert await database.read(cursors) == {}
    finally:
        await database.close()


async def test_a_second_daemon_is_refused_until_the_first_has_gone(path: Path) -> None:
    first = await opened(path)
    second = Database(path)
    try:
        with pytest.raises(StoreError, match=r"another aglowd uses .*state_dir"):
            await second.open()
        await first.write(put("mine"))
    finally:
        await second.close()
        await first.close()
    third = await opened(path)
    assert await third.read(cursors) == {"mine": "1"}
    await third.close()


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(path: Path) -> None:
    await (await opened(path)).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="newer release"):
        await opened(path)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.close()
    await (await opened(path)).close()  # The lock was let go.


async def test_what_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is a text, not a database" * 100)
    with pytest.raises(StoreError, match="cannot be used: file is not a database; restore the last backup"):
        await opened(path)


async def test_a_database_that_cannot_be_opened_leaves_no_thread_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ended later would report to a loop that is gone."""
    ends: list[asyncio.Future[Any] | None] = []
    stop = _Connection.stop

    def noted(self: _Connection) -> asyncio.Future[Any] | None:
        ends.append(stop(self))
        return ends[-1]

    monkeypatch.setattr(_Connection, "stop", noted)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is a text, not a database" * 100)
    with pytest.raises(StoreError):
        await opened(path)
    assert [end is not None and end.done() for end in ends] == [True]


async def test_a_damaged_database_is_refused(path: Path) -> None:
    database = await opened(path)
    await asyncio.gather(*(database.write(put(f"source {number}", "x" * 500)) for number in range(200)))
    await database.close()
    content = bytearray(path.read_bytes())
    page = 4096
    for start in range(len(content) // page // 2 * page, len(content), page):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        await opened(path)


async def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        await opened(tmp_path / "file" / "state" / "aglowd.db")


async def test_an_older_schema_is_brought_up_without_losing_anything(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await opened(path)
    await database.write(put("old", "kept"))
    await database.close()
    script = path.parent / "more.sql"
    script.write_text("ALTER TABLE cursors ADD COLUMN note TEXT NOT NULL DEFAULT 'new';")
    monkeypatch.setattr(room, "MIGRATIONS", (*MIGRATIONS, str(script)))
    database = await opened(path)
    try:
        found = await database.read(lambda db: dict(db.execute("SELECT * FROM cursors").fetchone()))
        assert found == {"source": "old", "value": "kept", "note": "new"}
        assert await database.read(pragma("user_version")) == len(MIGRATIONS) + 1
    finally:
        await database.close()


async def test_a_migration_that_fails_leaves_the_old_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await opened(path)).close()
    script = path.parent / "bad.sql"
    script.write_text("CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr(room, "MIGRATIONS", (*MIGRATIONS, str(script)))
    with pytest.raises(StoreError, match="cannot be used: no such table"):
        await opened(path)
    monkeypatch.undo()
    database = await opened(path)
    try:
        tables = await database.read(lambda db: {row["name"] for row in db.execute("SELECT name FROM sqlite_master")})
        assert "half" not in tables
    finally:
        await database.close()


def test_every_statement_has_a_name_of_its_own() -> None:
    text = (Path(room.__file__).parent / "queries.sql").read_text()
    assert text.count("-- name: ") == len(queries())
    assert all(statement and not statement.endswith(";") for statement in queries().values())
