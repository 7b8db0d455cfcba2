"""What tokens say of themselves when their jobs are over: state and result."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher

MAX_URL_CHARS = 2000
MAX_STATUS_CHARS = 100


class Results(Watcher):
    """`results:<occasion>` (args: token_type) → `done` (id → Results_location) and `other` (id → status)."""

    kind = "results"

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.gather

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        seen = []
        for subject in subjects:
            ids = await self.world.picas.list_ids(subject.args["token_type"])
            documents = await self.world.picas.get_docs(ids)
            done: dict[str, Json] = {}
            other: dict[str, Json] = {}
            for name, document in documents.items():
                if document is None:
                    continue
                if document.get("status") == "done":
                    done[name] = _text(document.get("Results_location"), MAX_URL_CHARS)
                else:
                    other[name] = _text(document.get("status"), MAX_STATUS_CHARS) or "queued"
            seen.append((subject, {"done": done, "other": other}))
        return seen


def _text(value: Json, most: int) -> str:
    """What a pilot or a person wrote there, if it is a text; nothing makes them write one."""
    return value[:most] if isinstance(value, str) else ""
