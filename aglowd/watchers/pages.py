"""Web pages that steps of kind `http` wait for: the one thing that is asked once per step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from aglowd.config import Config
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.log import hide_secrets
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher

MAX_PAGE_BYTES = 1024 * 1024
ROUND = "30s"
"""The finest poll interval that a page can have."""


class Pages(Watcher):
    """`http:<occasion>` (args: url, poll_s) → status and body (decoded if it is JSON).

    Each page keeps its own poll interval, as nearly as this watcher's rounds allow.
    """

    kind = "http"

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._next_at: dict[str, float] = {}

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        now = self.clock.now()
        due = [subject for subject in subjects if self._next_at.get(subject.key, now) <= now]
        self.skip(subject for subject in subjects if subject not in due)
        self._next_at = {key: at for key, at in self._next_at.items() if at > now}
        self._next_at |= {subject.key: now + subject.args.get("poll_s", self.poll_s) for subject in due}
        answers = await asyncio.gather(*map(self._page, due))
        return [(subject, answer) for subject, answer in zip(due, answers, strict=True) if answer is not None]

    async def _page(self, subject: Subject) -> Json:
        """The answer, or None when the page cannot be seen now: one bad page keeps nobody else's answer back."""
        try:
            headers = self.world.filled(subject.args["headers"]) if "headers" in subject.args else None
            reply = await self.world.http.request(
                "GET", subject.args["url"], site=self.world.web, write=False, headers=headers
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
