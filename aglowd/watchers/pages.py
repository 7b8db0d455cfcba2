"""Web pages that steps of kind `http` wait for: the one thing that is asked once per step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.log import hide_secrets
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher

MAX_PAGE_BYTES = 1024 * 1024
ROUND = "30s"
"""A round is no longer, and shorter where a page is due sooner."""
FINEST_S = 1.0
"""World seconds between two rounds: the finest poll interval that a page can have."""
EARLY = 0.1
"""By this part of its interval a page may be asked before it is due, so that pages share their rounds."""
TOGETHER_REAL_S = 0.005
"""Real seconds in which answers are gathered before they are written down."""
PATIENCE_REAL_S = 30.0
"""Real seconds after which one that waits for answers shows that it is alive: each request has an end of its own."""


class Pages(Watcher):
    """`http:<occasion>` (args: url, poll_s) → status and body (decoded if it is JSON).

    Each page keeps its own poll interval. Answers are written down as they come: a page that answers late keeps no other
    step waiting for what was seen.
    """

    kind = "http"
    gather_real_s = 0.0
    """Each page is a request of its own: there is nothing to be gathered for."""

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._next_at: dict[str, float] = {}

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        now = self.clock.now()
        due = [subject for subject in subjects if self._is_due(subject, now)]
        asked = {subject.key for subject in due}
        self.skip(subject for subject in subjects if subject.key not in asked)
        await self._ask(due)
        self._next_at = {subject.key: self._next_at.get(subject.key, now) for subject in subjects}
        self._next_at |= {subject.key: now + self._interval_s(subject) for subject in due}
        self.poll_s = max(min(self._next_at.values()) - now, FINEST_S)
        return ()  # All of it is written down.

    def _is_due(self, subject: Subject, now: float) -> bool:
        return self._next_at.get(subject.key, now) <= now + EARLY * self._interval_s(subject)

    def _interval_s(self, subject: Subject) -> float:
        return float(subject.args.get("poll_s", duration_s(ROUND)))

    async def _ask(self, due: Sequence[Subject]) -> None:
        async with asyncio.TaskGroup() as group:
            waiting = {group.create_task(self._page(subject)): subject for subject in due}
            while waiting:
                await asyncio.wait(waiting, timeout=PATIENCE_REAL_S, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(TOGETHER_REAL_S)
                self.progress_at = self.clock.now()
                answered = [task for task in waiting if task.done()]
                told = [(waiting.pop(task), task.result()) for task in answered]
                await self.store.ingest(
                    self.kind, None, [(page, answer) for page, answer in told if answer is not None]
                )

    async def _page(self, subject: Subject) -> Json:
        """The answer, or None when the page cannot be seen now: one bad page keeps nobody else's answer back."""
        try:
            headers = self.world.filled(subject.args["headers"]) if "headers" in subject.args else None
            reply = await self.world.http.request(
                "GET", subject.args["url"], site=self.world.web, write=False, headers=headers, is_kept=True
            )
        except OutsideError as error:
            self.miss([subject], error)
            self.log.warning("page_failed", subject=subject.key, error=str(error))
            return None
        text = hide_secrets(reply.body[:MAX_PAGE_BYTES].decode("utf-8", "replace"))
        try:
            body = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            body = text
        return {"status": reply.status, "body": body}
