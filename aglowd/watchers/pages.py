"""Web pages that steps of kind `http` wait for: the one thing that is asked once per step."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
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
from aglowd.watchers.base import MAX_DEFECT_CHARS, Watcher

MAX_PAGE_BYTES = 1024 * 1024
ROUND = "30s"
"""Between two looks at all that is waited for; also the poll interval of a page that was given none."""
FINEST_S = 1.0
"""World seconds: the finest poll interval that a page can have."""
LATE = 0.25
"""By this part of its interval a page may be asked late, so that pages which are due soon after each other share a turn."""
TOGETHER = 32
"""Pages of one turn at most, the longest due first."""


class Turn(NamedTuple):
    """When a page is due, and by when it is to be asked."""

    at: float
    latest: float


NO_TURN = Turn(math.nan, math.nan)
"""That of a page that is not known: its times are equal to none, not even to themselves."""


class Turns:
    """Whose turn it is and whose is next, without a look at all who wait."""

    def __init__(self) -> None:
        self.pages: dict[str, Subject] = {}
        self._turns: dict[str, Turn] = {}
        self._due: list[tuple[float, str]] = []
        self._latest: list[tuple[float, str]] = []
        """Heaps; an entry that is not its page's turn any more is passed over when it comes up."""

    def of(self, key: str) -> Turn | None:
        """The next turn of the page of that key; None if it is not known."""
        return self._turns.get(key)

    def give(self, page: Subject, turn: Turn) -> None:
        """Let that be the page's next turn."""
        self.pages[page.key], self._turns[page.key] = page, turn
        heappush(self._due, (turn.at, page.key))
        heappush(self._latest, (turn.latest, page.key))

    def forget(self, key: str) -> None:
        """Nobody waits for the page of that key."""
        del self.pages[key], self._turns[key]

    def keep(self, pages: Iterable[Subject], now: float) -> None:
        """Forget all but these; one that is new is due now."""
        self.pages = {page.key: page for page in pages}
        self._turns = {key: self._turns.get(key, Turn(now, now)) for key in self.pages}
        self._due = [(turn.at, key) for key, turn in self._turns.items()]
        self._latest = [(turn.latest, key) for key, turn in self._turns.items()]
        heapify(self._due)
        heapify(self._latest)

    def due(self, now: float, most: int) -> list[str]:
        """Keys of pages whose turn has come, the longest due first; each is to be given its next one, or forgotten."""
        found: list[str] = []
        while len(found) < most and (key := _first(self._due, lambda key: self._at(key).at, now)) is not None:
            found.append(key)
            heappop(self._due)
        return found

    def next_at(self) -> float:
        """By when somebody is to be asked; infinite if nobody is known."""
        _first(self._latest, lambda key: self._at(key).latest)
        return self._latest[0][0] if self._latest else math.inf

    def _at(self, key: str) -> Turn:
        return self._turns.get(key, NO_TURN)


def _first(heap: list[tuple[float, str]], time_of: Callable[[str], float], upto: float = math.inf) -> str | None:
    """The key that stands first in the heap, if its time is not after `upto`; what does not hold any more is taken out."""
    while heap and time_of(heap[0][1]) != heap[0][0]:
        heappop(heap)
    return heap[0][1] if heap and heap[0][0] <= upto else None


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
    Answers are written down as they come, if they are news: a page that answers late, or not at all, keeps no other one waiting.
    """

    kind = "http"
    gather_real_s = 0.0
    """Each page is a request of its own: there is nothing to be gathered for."""

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._turns = Turns()
        """Of the pages that are known to be waited for."""
        self._doubtful: set[str] = set()
        """Keys of those that had news since it was last known: perhaps nobody waits for them any more."""
        self._told: dict[str, bytes] = {}
        """Key → digest of what was last written down of it."""
        self._asked: set[str] = set()
        """Keys of the pages that were asked, and of which nothing is written down yet."""
        self._answers: list[tuple[Subject, Answer]] = []
        self._answered = asyncio.Event()
        self._places = asyncio.Semaphore(CONCURRENCY)
        """No more pages stand in the queue of their site than are asked at once: an act that comes is the next one there."""
        self._defects: dict[str, str] = {}
        """Key → over what the last look at it stumbled."""

    @property
    def is_at_rest(self) -> bool:
        return super().is_at_rest and not self._asked

    async def watch(self) -> None:
        """Ask each page in its own time, and a new one at once, for ever."""
        bell, list_at = self.store.bells.subject(self.kind), self.clock.now()
        self._asked, self._answers = set(), []
        self._answered.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_down(), name="watcher http: answers")
            while True:
                self.progress_at = now = self.clock.now()
                self.rested = False
                is_told = bell.is_set()
                bell.clear()
                if now >= list_at:
                    list_at = now + self.poll_s
                    await self._list(now)
                for page in await self._due(now, is_told=is_told):
                    self._take_turn(page, now)
                    if page.key not in self._asked:
                        self._asked.add(page.key)
                        group.create_task(self._ask(page), name=f"watcher http: {page.key}")
                self.rested = True
                await self._sleep(bell, min(list_at, self._turns.next_at()))

    async def _list(self, now: float) -> None:
        """All that is waited for: also what was seen before, and is waited for again."""
        self._doubtful.clear()
        watched = await self.store.watched(self.kind)
        self._turns.keep((page for page, _ in watched), now)
        for kept in (self._told, self._defects):
            for key in kept.keys() - self._turns.pages.keys():
                del kept[key]
        self.defect = next(iter(self._defects.values()), "")
        self._missed.clear()
        self.forget_silent(page for page, _ in watched)
        self.last_ok = now

    async def _due(self, now: float, *, is_told: bool) -> list[Subject]:
        """The pages whose turn it is, the longest due first, and new ones.

        The store is asked only if it has rung, or for whom nobody may wait any more: a look that showed nothing new ends no
        wait. Of a wait that ended otherwise the next list tells.
        """
        due = self._turns.due(now, TOGETHER)
        doubtful = self._doubtful.intersection(due)
        fresh: list[Subject] = []
        if is_told or doubtful:
            self._doubtful -= doubtful
            found = await self.store.watched_now(self.kind, doubtful)
            for key in doubtful.difference(page.key for page, _ in found):  # Nobody waits for it any more.
                self._turns.forget(key)
                self._told.pop(key, None)
            for page, version in found:
                if self._turns.of(page.key) is None:
                    fresh.append(page)
                if version == 0:
                    self._told.pop(page.key, None)
        pages = [*(self._turns.pages[key] for key in due if key in self._turns.pages), *fresh]
        self._waited_for(is_so=bool(self._turns.pages or fresh))
        return pages

    def _take_turn(self, page: Subject, now: float) -> None:
        """It is asked now; its next turn lies an interval behind the one that it has."""
        interval_s = max(float(page.args.get("poll_s", duration_s(ROUND))), FINEST_S)
        turn = self._turns.of(page.key) or Turn(now, now)
        if turn.at == turn.latest:  # What began together is spread: from a third of the interval to a whole one.
            at = now + interval_s * self.clock.jitter(0.5) / 1.5
        else:
            at = max(turn.at, now - LATE * interval_s) + interval_s
        self._turns.give(page, Turn(at, at + LATE * interval_s))

    async def _ask(self, page: Subject) -> None:
        """Ask, and hand the answer over. What cannot be seen now, and a defect, are this page's own."""
        try:
            answer = await self._answer(page)
            self._answers.append((page, answer))
            self._answered.set()
        except OutsideError as error:
            self._asked.discard(page.key)
            self.miss([page], error)
            self.log.warning("page_failed", subject=page.key, error=str(error))
        except Exception as error:  # A page or an answer that nobody thought of.
            self._asked.discard(page.key)
            self.defect = self._defects[page.key] = f"{page.key}: {type(error).__name__}: {error}"[:MAX_DEFECT_CHARS]
            self.log.exception("look_raised", subject=page.key, subjects=1)

    async def _answer(self, page: Subject) -> Answer:
        headers = self.world.filled(page.args["headers"]) if "headers" in page.args else None
        async with self._places:
            reply = await self.world.http.request(
                "GET", page.args["url"], site=self.world.web, write=False, headers=headers, is_kept=True
            )
        return Answer(reply.status, reply.body[:MAX_PAGE_BYTES])

    async def _write_down(self) -> None:
        """Record what is news of the answers as they come, for ever; those that come meanwhile are written down together."""
        while True:
            await self._answered.wait()
            self._answered.clear()
            answers, self._answers = self._answers, []
            digests = {page.key: answer.digest for page, answer in answers}
            news = [(page, answer.data) for page, answer in answers if self._told.get(page.key) != digests[page.key]]
            if news:
                await self.store.ingest(self.kind, None, news)
                self._doubtful.update(page.key for page, _ in news)
            self._told |= digests
            for key in digests:
                self._asked.discard(key)
                self.silent.pop(key, None)
                if self._defects.pop(key, None):
                    self.defect = next(iter(self._defects.values()), "")
            self.failures, self.last_error, self.last_ok = 0, "", self.clock.now()
