"""Which tokens of a type are in some state now, and what they say in one of their fields."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.grid.picas import is_held
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.token_bases import base_of, by_base

MAX_VALUE_CHARS = 100_000


class Selections(Watcher):
    """`selection:<occasion>` (args: token_type, site, state ("" = any), field) → token → `rev`, `held`, `value` of the field."""

    kind = "selection"

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.gather

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each(by_base(self.world, subjects), self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        base, seen = base_of(self.world, subjects[0]), []
        for subject in subjects:
            ids = await base.list_ids(subject.args["token_type"], subject.args.get("state", ""))
            documents = await base.get_docs(ids)
            field = subject.args.get("field", "status")
            tokens = {
                name: {
                    "rev": document["_rev"],
                    "held": is_held(document),
                    "value": _short(document.get(field)),
                }
                for name, document in documents.items()
                if document is not None
            }
            seen.append((subject, {"tokens": tokens}))
        return seen


def _short(value: Json) -> Json:
    """A text that is too long is told as its length: a part of it might be taken for the whole."""
    return {"characters": len(value)} if isinstance(value, str) and len(value) > MAX_VALUE_CHARS else value
