"""The floor: the chain written by hand with aiohttp and sqlite3, for this and nothing else.

What must stay true, so that it is a yardstick and no trick: it promises what aglowd promises of this chain. A field's
state is durable before its next step begins; the intent of an act is durable before the service is asked; after a kill
what was intended and has no result is looked for at the service before it is done. It has no retries, no log, no one to ask
and no other kind of step: the service does not fail here.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from bench.workload_w.asker import act, until_done, was_done
from bench.workload_w.chain import ACT, CHAIN, LAST, Order

SCHEMA = """
CREATE TABLE IF NOT EXISTS fields (name TEXT PRIMARY KEY, step INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acts (key TEXT PRIMARY KEY, result INTEGER) WITHOUT ROWID;
"""
Statement = tuple[str, tuple[object, ...]]


class Book:
    """What is durable. One thread writes; whatever comes while it commits shares the next commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[Sequence[Statement], asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def open(self, names: Sequence[str]) -> tuple[dict[str, int], set[str]]:
        """At which step each field stands, and the keys of the acts that were intended and have no result."""
        db = _connect(self._path)
        db.executescript(SCHEMA)
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT OR IGNORE INTO fields VALUES (?, 0)", [(name,) for name in names])
        db.execute("COMMIT")
        steps = dict(db.execute("SELECT name, step FROM fields"))
        intended = {key for (key,) in db.execute("SELECT key FROM acts WHERE result IS NULL")}
        db.close()
        self._thread.start()
        return steps, intended

    async def commit(self, *statements: Statement) -> None:
        """Return when these are durable, all of them or none."""
        done = self._loop.create_future()
        self._queue.put((statements, done))
        await done

    def _write(self) -> None:
        db = _connect(self._path)
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            db.execute("BEGIN IMMEDIATE")
            for statements, _ in batch:
                for sql, values in statements:
                    db.execute(sql, values)
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(_tell, [done for _, done in batch])


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def _tell(waiting: Sequence[asyncio.Future[None]]) -> None:
    for done in waiting:
        done.set_result(None)


class Fields:
    """Every field on its way."""

    def __init__(self, order: Order, book: Book, session: aiohttp.ClientSession, intended: set[str]) -> None:
        self._url, self._poll_s = order.url, order.load.poll_s
        self._book = book
        self._session = session
        self._intended = intended
        """What the last life was about to do, and perhaps did."""

    async def carry(self, field: str, step: int) -> None:
        """From that step to the end."""
        while step <= LAST:
            ended: list[Statement] = []
            if CHAIN[step] == ACT:
                ended.append(
                    ("UPDATE acts SET result = ? WHERE key = ?", (await self._act(field, step), f"{field}/{step}"))
                )
            else:
                await until_done(self._session, self._url, field, step, self._poll_s)
            step += 1
            ended.append(("UPDATE fields SET step = ? WHERE name = ?", (step, field)))
            if step <= LAST and CHAIN[step] == ACT:
                ended.append(("INSERT INTO acts VALUES (?, NULL)", (f"{field}/{step}",)))
            await self._book.commit(*ended)

    async def _act(self, field: str, step: int) -> int:
        """The intent of this one was committed with the end of the step before."""
        if f"{field}/{step}" in self._intended and await was_done(self._session, self._url, field, step):
            return 1
        return await act(self._session, self._url, field, step)


async def main(order: Order) -> None:
    """Carry every field to its end."""
    book = Book(order.place / "floor.db")
    steps, intended = book.open(order.load.names)
    async with aiohttp.ClientSession() as session:
        fields = Fields(order, book, session, intended)
        await asyncio.gather(*(fields.carry(field, step) for field, step in steps.items()))


if __name__ == "__main__":
    asyncio.run(main(Order.told()))
