"""The log: one pipeline for our own events and for the libraries' records, and no secret in any line of it.

JSON lines on stdout, for journald and for machines; a readable console when stdout is a terminal. Every event has
`at` (real UTC: a log is read beside other logs, also in a demo), `level`, `logger` and `event`, a stable machine
name; `field`, `run` and `step` are bound where they are known. What must stay true: redaction is the last thing
before a line is rendered, so nothing that was added on the way, a traceback included, escapes it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TextIO
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor

HIDDEN = "***"
MIN_SECRET_CHARS = 4
"""A shorter secret is part of so many words that hiding it would make the log unreadable."""
MAX_DEPTH = 12
"""A value nested deeper than this is cut: a log line is for people."""
MAX_FRAMES = 20
"""Frames of a traceback in a JSON line."""
MAX_TEXT_CHARS = 4_096
"""Of each text in a line; what is longer is cut."""
MAX_ITEMS = 100
"""Of each list in a line."""
MAX_ALIKE = 5
"""As many lines of one event about one subject are written in a period; the others are counted."""
PERIOD_S = 60.0
"""Real seconds."""
MAX_EVENTS_COUNTED = 4_096
"""Of so many different events the lines are counted at once; the longest unseen is forgotten."""

_secrets: list[str] = []
"""The longest first, since a secret may begin like another one. This is the one mutable state of a module in aglowd: a
secret must be hidden wherever in the process it turns up, also by code that was never handed anything to hide it with."""

_SECRET_KEY = re.compile(r"(.*[_-])?(password|passwd|token|authorization|secret|macaroon|cookie)", re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]{0,19}://)[^\s/@:]*:[^\s/]*@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"(authorization['\"]?\s*[:=,]\s*(?:b(?=['\"]))?['\"]?)(?:(?:basic|bearer|token)\s+)?[^\s'\",;]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # A macaroon, registered or not, whole or cut: it begins with the length of its first packet, or as format 2 does.
    (re.compile(r"(?<![\w+/-])(?:MDA|AgE)[\w+/-]{40,}={0,2}"), HIDDEN),
    # Sixteen characters or more: "basic authentication" is prose.
    (re.compile(r"\b(basic|bearer)\s+[\w+/=.~-]{16,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(r"((?:passw(?:or)?d|secret|macaroon|_token|authz)['\"]?\s*[:=]\s*)[^\s,;&)}\]]+", re.I),
        rf"\1{HIDDEN}",
    ),
)
_HINTS = ("://", "authorization", "basic", "bearer", "passw", "secret", "macaroon", "_token", "authz")
_MACAROONS = ("MDA", "AgE")
"""One of these is in every text that a pattern matches: most texts need no further look."""


def configure(fmt: str = "auto", level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything from `level` up to the stream (stdout). `fmt`: json, console, or auto = by what the stream is."""
    stream = stream if stream is not None else sys.stdout
    is_console = fmt == "console" or (fmt == "auto" and stream.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    handler = logging.StreamHandler(stream)
    handler.addFilter(Alike())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_foreign],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                *(_console(stream) if is_console else _json()),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _json() -> list[Processor]:
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)
    return [structlog.processors.ExceptionRenderer(frames), redact, structlog.processors.JSONRenderer()]


def _console(stream: TextIO) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        timestamp_key="at",
    )
    return [structlog.processors.format_exc_info, redact, renderer]


class Alike(logging.Filter):
    """Lets the first few of many warnings that say the same pass; the next one that passes tells how many did not.

    What says that something was done or has ended always passes, as do all lines below a warning that are our own: their
    number is bounded by what happens. Libraries are counted at every level.
    """

    KEPT = ("step_", "effect_", "verdict", "effects_left_open", "not_accepting")
    ABOUT = ("field", "run", "step", "effect", "subject", "watcher", "loop", "url", "path")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.msg if isinstance(record.msg, dict) else None
        if said is None:
            key: tuple[object, ...] = (record.name, record.levelno, str(record.msg)[:MAX_TEXT_CHARS])
        elif record.levelno < logging.WARNING or str(said.get("event")).startswith(self.KEPT):
            return True
        else:
            about = (str(said.get(name, ""))[:MAX_TEXT_CHARS] for name in self.ABOUT)
            key = (record.name, record.levelno, str(said.get("event")), *about)
        now = self._now()
        since, count = self._seen.pop(key, (now, 0))
        left_out = 0
        if now - since >= PERIOD_S:
            since, count, left_out = now, 0, max(0, count - MAX_ALIKE)
        self._seen[key] = since, count + 1
        if len(self._seen) > MAX_EVENTS_COUNTED:
            del self._seen[next(iter(self._seen))]
        if count >= MAX_ALIKE:
            return False
        if left_out and said is not None:
            said["left_out"] = left_out
        elif left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} alike were left out)", None
        return True


def _name_foreign(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """A library's text is no stable name: it becomes `message`."""
    event_dict["message"] = event_dict["event"]
    event_dict["event"] = "library_message"
    return event_dict


# --- redaction


def register_secret(text: str) -> None:
    """Hide this text from now on, also where it was quoted for a URL or escaped for a message."""
    if len(text) >= MIN_SECRET_CHARS:
        _secrets[:] = sorted({*_secrets, *_spellings(text)}, key=len, reverse=True)


def forget_secret(text: str) -> None:
    """It opens nothing any more: who registers secrets that come and go takes them out, or every line costs ever more."""
    gone = _spellings(text)
    _secrets[:] = [secret for secret in _secrets if secret not in gone]


def hide_secrets(text: str) -> str:
    """The text without registered secrets, and otherwise as it was: for what is kept as a result."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _spellings(text: str) -> set[str]:
    return {text, quote(text), quote(text, safe=""), repr(text)[1:-1], json.dumps(text)[1:-1]}


def redact(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """Processor: `***` instead of every secret, in every value however nested. The names of keys are our own."""
    for key, value in event_dict.items():
        event_dict[key] = _redact_entry(key, value, 0)
    return event_dict


def redact_text(text: str) -> str:
    """The text without registered secrets, credentials in URLs, and what follows `Authorization:` or `password=`."""
    text = hide_secrets(text)
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS) and not any(start in text for start in _MACAROONS):
        return text
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def redact_all(value: Any) -> Any:
    """What JSON can hold, with `redact_text` for each text in it but for keys, which are our own."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact_all(inner) for key, inner in value.items()}
    return [redact_all(inner) for inner in value] if isinstance(value, list | tuple) else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}… {len(text) - MAX_TEXT_CHARS} more"


def _redact_entry(key: str, value: Any, depth: int) -> Any:
    if _SECRET_KEY.fullmatch(key) and value not in (None, ""):
        return HIDDEN
    return _redact_value(value, depth)


def _redact_value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        text = str(value)
        return value if redact_text(text) == text else HIDDEN
    if isinstance(value, str):
        return _cut(redact_text(str(value)))
    if isinstance(value, bytes | bytearray):
        return _cut(redact_text(bytes(value).decode(errors="backslashreplace")))
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        chosen = islice(value.items(), MAX_ITEMS)
        return {_cut(redact_text(str(key))): _redact_entry(str(key), inner, depth + 1) for key, inner in chosen}
    if isinstance(value, list | tuple | set | frozenset):
        more = [f"… {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else []
        return [*(_redact_value(inner, depth + 1) for inner in islice(value, MAX_ITEMS)), *more]
    try:
        return _cut(redact_text(repr(value)))
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"
