"""What tokens say of themselves when their jobs are over: state and result, and the last words of those that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aglowd.config import Config
from aglowd.errors import OutsideError
from aglowd.grid.picas import Picas, state_of
from aglowd.grid.tokens import last_log, told_of
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.token_bases import base_of, by_base

MAX_URL_CHARS = 2000
MAX_STATUS_CHARS = 100
MAX_LOGS = 3
"""Tokens whose last log is fetched; the others' are like them mostly, and `aglowctl tokens logs` shows any."""
MAX_LOG_CHARS = 300


class Results(Watcher):
    """`results:<occasion>` (args: token_type, site) → `done` (id → Results_location), `other` (id → status), `logs` (id → the end of its
    last log), `sizes` (result → bytes, where its token says so), `tokens` (id → what became of it: `grid.tokens.told_of`)."""

    kind = "results"

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.gather

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each(by_base(self.world, subjects), self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        base, seen = base_of(self.world, subjects[0]), []
        for subject in subjects:
            documents = await base.get_docs(await base.list_ids(subject.args["token_type"]))
            done: dict[str, Json] = {}
            other: dict[str, Json] = {}
            logs: dict[str, Json] = {}
            sizes: dict[str, Json] = {}
            told: dict[str, Json] = {}
            for name, document in documents.items():
                if document is None:
                    continue
                told[name] = told_of(document)
                if state_of(document) == "done":
                    done[name] = _text(document.get("Results_location"), MAX_URL_CHARS)
                    size = _size(document)
                    sizes |= {} if size is None else {done[name]: size}
                else:
                    other[name] = _text(document.get("status"), MAX_STATUS_CHARS) or "queued"
                    if len(logs) < MAX_LOGS and (log := last_log(document)):
                        logs[name] = await self._last_words(base, name, log)
            seen.append((subject, {"done": done, "other": other, "logs": logs, "sizes": sizes, "tokens": told}))
        return seen

    async def _last_words(self, base: Picas, token: str, log: str) -> str:
        """The last lines of that attachment, on one line; whatever keeps them back is no reason to know nothing else."""
        try:
            text = (await base.get_attachment(token, log)).decode("utf-8", "replace")
        except OutsideError as error:
            return f"({log} cannot be read: {error})"[:MAX_LOG_CHARS]
        return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-MAX_LOG_CHARS:]


def _size(document: Mapping[str, Any]) -> int | None:
    """How many bytes the pilot says its result has; not every launcher says it."""
    mark = document.get("aglowd")
    result = mark.get("result") if isinstance(mark, dict) else None
    size = result.get("size_bytes") if isinstance(result, dict) else None
    return size if isinstance(size, int) and size >= 0 else None


def _text(value: Json, most: int) -> str:
    """What a pilot or a person wrote there, if it is a text; nothing makes them write one."""
    return value[:most] if isinstance(value, str) else ""
