"""What repeats itself in the log: the first line is written, those like it are counted for a minute, and the count is told.

What must stay true: an error is written the first time, whatever came before it; each count is told, also when nothing like
it comes any more; the memory for it is bounded.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog

PERIOD_S = 60.0
"""Real seconds in which one line of an event about one subject is written; the others are counted."""
MAX_EVENTS_COUNTED = 4_096
"""Of so many different events the lines are counted at once; the oldest is told and forgotten."""
MAX_ABOUT_CHARS = 4_096
"""Of each text by which lines are told apart."""


def write(name: str, level: int, said: dict[str, Any]) -> None:
    """A line of that logger."""
    structlog.stdlib.get_logger(name).log(level, **said)


class _Window:
    """Lines alike in one period: when it began, what they are about, how many were left out since, and the last one's words."""

    def __init__(self, since: float, name: str, level: int, about: dict[str, Any]) -> None:
        self.since = since
        self.name = name
        self.level = level
        self.about = about
        self.count = 0
        self.words: dict[str, Any] = {}


class Alike(logging.Filter):
    """Of lines that say the same of the same only the first in a minute passes; a line of its own then tells how many did not.

    What a person ordered and how a step ended always passes. Two errors are the same only if their words are, too.
    """

    KEPT = ("step_done", "step_failed", "step_skipped", "step_cancelled")
    ABOUT = (
        *("field", "run", "step", "effect", "subject", "watcher", "loop", "url", "path"),
        *("base", "site", "sites", "directory", "channel", "of", "key", "address"),
    )
    WORDS = ("error", "reason", "why")

    def __init__(
        self, now: Callable[[], float] = time.monotonic, tell: Callable[[str, int, dict[str, Any]], None] = write
    ) -> None:
        super().__init__()
        self._now = now
        self._tell = tell
        self._seen: dict[tuple[object, ...], _Window] = {}
        """By what makes lines alike; the window that began first comes first."""

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.msg if isinstance(record.msg, dict) else None
        if ours is None:
            about: dict[str, Any] = {"event": "library_message", "message": str(record.msg)[:MAX_ABOUT_CHARS]}
        elif "suppressed" in ours or "uid" in ours or ours.get("event") in self.KEPT:
            return True
        else:
            about = {name: ours[name] for name in ("event", *self.ABOUT) if name in ours}
        self.flush()
        words = _error_of(record) if record.levelno >= logging.ERROR else ""
        key = (record.name, record.levelno, words, *(str(value)[:MAX_ABOUT_CHARS] for value in about.items()))
        window = self._seen.get(key)
        if window is not None:
            window.count += 1
            window.words = {
                name: str(value)[:MAX_ABOUT_CHARS] for name, value in (ours or {}).items() if name in self.WORDS
            }
            return False
        if len(self._seen) >= MAX_EVENTS_COUNTED:
            self._end(self._seen.pop(next(iter(self._seen))))
        self._seen[key] = _Window(self._now(), record.name, record.levelno, about)
        return True

    def flush(self, *, at_once: bool = False) -> None:
        """Tell what was left out in the periods that are over, or in all of them. One in which something was is followed by
        another one: what goes on and on is a line a minute."""
        now = self._now()
        over = []
        for key, window in self._seen.items():
            if now - window.since < PERIOD_S and not at_once:
                break
            over.append(key)
        for key in over:
            window = self._seen.pop(key)
            if window.count:
                self._seen[key] = _Window(now, window.name, window.level, window.about)
                self._end(window)

    def _end(self, window: _Window) -> None:
        if window.count:
            self._tell(window.name, window.level, {**window.about, **window.words, "suppressed": window.count})


def _error_of(record: logging.LogRecord) -> str:
    """What tells an error from another one: its words without the numbers, which often change."""
    ours = record.msg if isinstance(record.msg, dict) else {}
    raised = sys.exc_info()[1] if ours.get("exc_info") or record.exc_info else None
    text = f"{ours.get('error', '')} {'' if raised is None else repr(raised)}"
    return re.sub(r"\d+", "#", text[:MAX_ABOUT_CHARS])
