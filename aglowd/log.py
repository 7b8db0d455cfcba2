"""The log: one pipeline for our own events and for the libraries' records, and no secret in any line of it.

JSON lines on stdout or in a file; in the journal's own protocol when systemd has tied stdout to the journal; a readable
console when stdout is a terminal. Every event has `at` (real UTC: a log is read beside other logs, also in a demo), `level`,
`logger` and `event`, a stable machine name that docs/logs.md explains; `field`, `run` and `step` are bound where they are
known. What must stay true: redaction is the last thing before a line is rendered, so nothing that was added on the way, a
traceback included, escapes it; what repeats itself is counted, and the first time is always written.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from logging.handlers import WatchedFileHandler
from typing import Any, TextIO
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor

from aglowd import journald
from aglowd.errors import AglowError
from aglowd.repeats import Alike

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
_HINT = re.compile("@|authorization|basic|bearer|passw|secret|macaroon|_token|authz|MDA|AgE", re.IGNORECASE)
"""It is in every text that a pattern matches: most texts need no further look."""


def configure(
    fmt: str = "auto",
    level: str = "info",
    stream: TextIO | None = None,
    *,
    path: str = "",
    journal: str = journald.SOCKET,
) -> None:
    """Send everything from `level` up to the file at that path, or else to the stream (stdout), or to what stands behind it.

    `fmt`: json, console, or auto = by what the stream is. AglowError if the file cannot be opened.
    """
    stream = stream if stream is not None else sys.stdout
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    handler: logging.Handler
    if path:
        handler, is_console = _opened(path), fmt == "console"
    elif fmt == "auto" and journald.is_stream(stream):
        handler, is_console = ToJournal(journald.Journal(journal)), False
    else:
        handler = logging.StreamHandler(stream)
        is_console = fmt == "console" or (fmt == "auto" and stream.isatty())
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


def _opened(path: str) -> WatchedFileHandler:
    """The file, which is opened anew when another program has moved it away."""
    try:
        return WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise AglowError(f"daemon.log_file: {path} cannot be opened: {error.strerror}") from error


class ToJournal(logging.Handler):
    """Hands lines to the journal."""

    def __init__(self, journal: journald.Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._journal.tell(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._journal.close()
        super().close()


def place() -> dict[str, str]:
    """Where lines can be found: `to` is journal (of that `unit`, with fields of its own if `native`), file (at that `path`)
    or stdout, which nobody can look into."""
    handler = next(iter(logging.getLogger().handlers), None)
    if isinstance(handler, ToJournal):
        return {"to": "journal", "unit": journald.own_unit(), "native": "yes"}
    if isinstance(handler, WatchedFileHandler):
        return {"to": "file", "path": handler.baseFilename}
    if isinstance(handler, logging.StreamHandler):
        if journald.is_stream(handler.stream):
            return {"to": "journal", "unit": journald.own_unit(), "native": ""}
        with suppress(OSError, ValueError):
            number = handler.stream.fileno()
            if stat.S_ISREG(os.fstat(number).st_mode):
                return {"to": "file", "path": os.readlink(f"/proc/self/fd/{number}")}
    return {"to": "stdout"}


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


def tell_repeats(*, at_once: bool = False) -> None:
    """Write what was left out of what has repeated itself, as far as its minute is over; `at_once`: whatever it is."""
    for handler in logging.getLogger().handlers:
        for one in handler.filters:
            if isinstance(one, Alike):
                one.flush(at_once=at_once)


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
    if _HINT.search(text) is None:
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


@lru_cache(maxsize=256)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.fullmatch(key) is not None


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}… {len(text) - MAX_TEXT_CHARS} more"


def _redact_entry(key: str, value: Any, depth: int) -> Any:
    if value not in (None, "") and _is_secret(key):
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
