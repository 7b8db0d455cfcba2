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
from collections.abc import Mapping
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
    # Sixteen characters or more: "basic authentication" is prose.
    (re.compile(r"\b(basic|bearer)\s+[\w+/=.~-]{16,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        re.compile(r"((?:passw(?:or)?d|secret|macaroon|_token|authz)['\"]?\s*[:=]\s*)[^\s,;&)}\]]+", re.I),
        rf"\1{HIDDEN}",
    ),
)
_HINTS = ("://", "authorization", "basic", "bearer", "passw", "secret", "macaroon", "_token", "authz")
"""One of them is in every text that a pattern matches: most texts need no further look."""


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


def _name_foreign(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """A library's text is no stable name: it becomes `message`."""
    event_dict["message"] = event_dict["event"]
    event_dict["event"] = "library_message"
    return event_dict


# --- redaction


def register_secret(text: str) -> None:
    """Hide this text from now on, also where it was quoted for a URL or escaped for a message."""
    if len(text) >= MIN_SECRET_CHARS:
        spellings = {text, quote(text), quote(text, safe=""), repr(text)[1:-1], json.dumps(text)[1:-1]}
        _secrets[:] = sorted({*_secrets, *spellings}, key=len, reverse=True)


def redact(logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """Processor: `***` instead of every secret, in every value however nested. The names of keys are our own."""
    for key, value in event_dict.items():
        event_dict[key] = _redact_entry(key, value, 0)
    return event_dict


def redact_text(text: str) -> str:
    """The text without registered secrets, credentials in URLs, and what follows `Authorization:` or `password=`."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


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
        return redact_text(str(value))
    if isinstance(value, bytes | bytearray):
        return redact_text(bytes(value).decode(errors="backslashreplace"))
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {redact_text(str(key)): _redact_entry(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(inner, depth + 1) for inner in value]
    try:
        return redact_text(repr(value))
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"
