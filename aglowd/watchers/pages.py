"""Web pages that steps of kind `http` wait for: the one thing that is asked once per step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from aglowd.errors import OutsideError
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher

MAX_PAGE_BYTES = 1024 * 1024


class Pages(Watcher):
    """`http:<url>` → status and body (decoded if it is JSON). Each page keeps its own poll interval, within `poll_s`."""

    kind = "http"

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        answers = await asyncio.gather(*(self._page(subject) for subject in subjects))
        return [(subject, answer) for subject, answer in zip(subjects, answers, strict=True) if answer is not None]

    async def _page(self, subject: Subject) -> Json:
        """The answer, or None when the page cannot be seen now: one bad page keeps nobody else's answer back."""
        try:
            reply = await self.world.http.request("GET", subject.args["url"], site=self.world.web, write=False)
        except OutsideError as error:
            self.log.warning("page_failed", subject=subject.key, error=str(error))
            return None
        try:
            body = msgspec.json.decode(reply.body[:MAX_PAGE_BYTES])
        except msgspec.DecodeError:
            body = reply.body[:MAX_PAGE_BYTES].decode("utf-8", "replace")
        return {"status": reply.status, "body": body}
