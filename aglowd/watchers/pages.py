"""Web pages that steps of kind `http` wait for: the one thing that is asked once per step."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from heapq import nsmallest
from typing import NamedTuple

import msgspec

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.grid.gate import CONCURRENCY
from aglowd.log import hide_secrets
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher

MAX_PAGE_BYTES = 1024 * 1024
ROUND = "30s"
"""Between two looks at all that is waited for; also the poll interval of a page that was given none."""
FINEST_S = 1.0
"""World seconds: the finest poll interval that a page can have."""
LATE = 0.25
"""By this part of its interval a page may be asked late, so that pages which are due soon after each other share a turn."""
TOGETHER = 32
"""Pages of one turn at most, the longest due first: a new one, or an act of another step, never waits for very many."""
TOGETHER_REAL_S = 0.005
"""Real seconds in which answers are gathered before they are written down."""
PATIENCE_REAL_S = 30.0
"""Real seconds after which one that waits for answers shows that it is alive: each request has an end of its own."""


class Turn(NamedTuple):
    """When a page is due, and by when it is to be asked."""

    at: float
    latest: float


class Answer(NamedTuple):
    """What a page said."""

    status: int
    body: bytes

    @property
    def digest(self) -> bytes:
        """By which it is told from another answer."""
        return hashlib.blake2b(b"%d %b" % self, digest_size=16).digest()

    @property
    def data(self) -> Json:
        """As it is observed: without secrets, and decoded if it is JSON."""
        text = hide_secrets(self.body.decode("utf-8", "replace"))
        try:
            return {"status": self.status, "body": msgspec.json.decode(text)}
        except (msgspec.DecodeError, RecursionError):
            return {"status": self.status, "body": text}


class Pages(Watcher):
    """`http:<occasion>` (args: url, poll_s) → status and body (decoded if it is JSON).

    Each page keeps its own poll interval and its own phase, so that many of them are not asked, nor decided on, at one moment.
    Answers are written down as they come, if they are news: a page that answers late keeps no other step waiting for
    what was seen, and others from being asked only until its request has its end.
    """

    kind = "http"
    gather_real_s = 0.0
    """Each page is a request of its own: there is nothing to be gathered for."""

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._turns: dict[str, Turn] = {}
        """Key of each page that is known to be waited for → its next turn."""
        self._told: dict[str, bytes] = {}
        """Key → digest of what was last written down of it."""
        self._places = asyncio.Semaphore(CONCURRENCY)
        """No more pages stand in the queue of their site than are asked at once: an act that comes is the next one there."""

    async def watch(self) -> None:
        bell = self.store.bells.subject(self.kind)
        list_at = self.clock.now()
        while True:
            self.progress_at = now = self.clock.now()
            self.rested = False
            bell.clear()
            if now >= list_at:
                list_at = now + self.poll_s
                watched = await self.store.watched(self.kind)
                self._turns = {page.key: self._turns.get(page.key, Turn(now, now)) for page, _ in watched}
                self._told = {key: digest for key, digest in self._told.items() if key in self._turns}
                self.forget_silent(page for page, _ in watched)
            waiting = ((turn.at, key) for key, turn in self._turns.items() if turn.at <= now)
            due = [key for _, key in nsmallest(TOGETHER, waiting)]
            found = await self.store.watched_now(self.kind, due)
            for key in set(due).difference(page.key for page, _ in found):  # Nobody waits for it any more.
                del self._turns[key]
                self._told.pop(key, None)
            for page, version in found:
                self._turns.setdefault(page.key, Turn(now, now))
                if version == 0:
                    self._told.pop(page.key, None)
            self._waited_for(is_so=bool(self._turns))
            if chosen := [page for page, _ in found if self._turns[page.key].at <= now]:
                self._take_turn(chosen, now)
                await self._look(chosen)
            self.rested = True
            await self._sleep(bell, min((list_at, *(turn.latest for turn in self._turns.values()))))

    def _take_turn(self, pages: Sequence[Subject], now: float) -> None:
        """They are asked now; the next turn of each lies an interval behind the one that it has."""
        for page in pages:
            interval_s = max(float(page.args.get("poll_s", duration_s(ROUND))), FINEST_S)
            turn = self._turns.get(page.key, Turn(now, now))
            if turn.at == turn.latest:  # What began together is spread: from a third of the interval to a whole one.
                at = now + interval_s * self.clock.jitter(0.5) / 1.5
            else:
                at = max(turn.at, now - LATE * interval_s) + interval_s
            self._turns[page.key] = Turn(at, at + LATE * interval_s)

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        async with asyncio.TaskGroup() as group:
            waiting = {group.create_task(self._page(page)): page for page in subjects}
            while waiting:
                await asyncio.wait(waiting, timeout=PATIENCE_REAL_S, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(TOGETHER_REAL_S)
                self.progress_at = self.clock.now()
                told = [(waiting.pop(task), task.result()) for task in [*waiting] if task.done()]
                await self._write_down([(page, answer) for page, answer in told if answer is not None])
        return ()  # All of it is written down.

    async def _write_down(self, told: Sequence[tuple[Subject, Answer]]) -> None:
        digests = {page.key: answer.digest for page, answer in told}
        news = [(page, answer.data) for page, answer in told if self._told.get(page.key) != digests[page.key]]
        if news:
            await self.store.ingest(self.kind, None, news)
            self._told |= {page.key: digests[page.key] for page, _ in news}

    async def _page(self, subject: Subject) -> Answer | None:
        """The answer, or None when the page cannot be seen now: one bad page keeps nobody else's answer back."""
        try:
            headers = self.world.filled(subject.args["headers"]) if "headers" in subject.args else None
            async with self._places:
                reply = await self.world.http.request(
                    "GET", subject.args["url"], site=self.world.web, write=False, headers=headers, is_kept=True
                )
        except OutsideError as error:
            self.miss([subject], error)
            self.log.warning("page_failed", subject=subject.key, error=str(error))
            return None
        return Answer(reply.status, reply.body[:MAX_PAGE_BYTES])
