"""What repeats itself: the first line, silence, one line with the number; and no error that was never seen."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from aglowd import log, repeats


class Log:
    """The filter on a handler, and a clock in the test's hand. `lines`: what was written."""

    def __init__(self) -> None:
        self.at = 0.0
        self.lines: list[Any] = []
        self.alike = repeats.Alike(lambda: self.at, lambda name, level, said: self.say(level, said))

    def say(self, level: int, message: Any) -> None:
        record = logging.LogRecord("watchers", level, "f", 1, message, None, None)
        if self.alike.filter(record):
            self.lines.append(record.msg)

    def warn(self, event: str, **about: Any) -> None:
        self.say(logging.WARNING, {"event": event, **about})

    def fail(self, error: Exception) -> None:
        """As `log.exception` does."""
        try:
            raise error
        except Exception:
            self.say(logging.ERROR, {"event": "look_raised", "exc_info": True})


def test_the_first_is_written_the_others_are_counted_and_the_count_is_told() -> None:
    out = Log()
    for number in range(8):
        out.warn("look_failed", watcher="job", error=f"no answer {number}")
    out.warn("look_failed", watcher="staging")
    assert out.lines == [
        {"event": "look_failed", "watcher": "job", "error": "no answer 0"},
        {"event": "look_failed", "watcher": "staging"},
    ]
    out.at = repeats.PERIOD_S - 0.1
    out.alike.flush()
    assert len(out.lines) == 2
    out.at = repeats.PERIOD_S
    out.alike.flush()
    assert out.lines[2:] == [{"event": "look_failed", "watcher": "job", "error": "no answer 7", "suppressed": 7}]


def test_what_goes_on_is_one_line_a_minute() -> None:
    out = Log()
    for second in range(600):
        out.at = float(second)
        out.warn("look_failed", watcher="job")
    assert len(out.lines) == 10
    out.alike.flush(at_once=True)
    assert sum(line.get("suppressed", 1) for line in out.lines) == 600, "a line is neither lost nor told twice"


def test_another_line_tells_what_is_owed() -> None:
    """Also when nothing like it comes any more."""
    out = Log()
    out.warn("look_failed", watcher="job")
    out.warn("look_failed", watcher="job")
    out.at = repeats.PERIOD_S
    out.warn("ready")
    assert out.lines[1:] == [{"event": "look_failed", "watcher": "job", "suppressed": 1}, {"event": "ready"}]


@pytest.mark.parametrize("about", ["field", "step", "effect", "watcher", "site", "channel"])
def test_two_that_are_about_different_things_are_not_alike(about: str) -> None:
    out = Log()
    for name in ("one", "two", "one"):
        out.warn("odd", **{about: name})
    assert [line[about] for line in out.lines] == ["one", "two"]


def test_what_was_ordered_or_has_ended_is_always_written() -> None:
    out = Log()
    for said in (
        {"event": "step_failed", "run": "r", "step": "s"},
        {"event": "step_done", "run": "r", "step": "s"},
        {"event": "verdict_refused", "uid": 1000, "effect": "r/s/1/put/0"},
    ):
        for _ in range(3):
            out.say(logging.INFO, said)
    assert len(out.lines) == 9


def test_an_error_that_was_never_seen_is_written_whatever_came_before() -> None:
    out = Log()
    for error in (ValueError("row 17"), KeyError("row 17"), ValueError("row 18"), ValueError("column")):
        out.fail(error)
    assert len(out.lines) == 3, "the second ValueError differs by a number alone"
    out.alike.flush(at_once=True)
    assert out.lines[-1]["suppressed"] == 1


def test_a_noisy_library_is_counted_at_every_level() -> None:
    out = Log()
    for _ in range(3):
        out.say(logging.INFO, "connection %s lost")
    assert out.lines == ["connection %s lost"]
    out.at = repeats.PERIOD_S
    out.alike.flush()
    assert out.lines[1:] == [{"event": "library_message", "message": "connection %s lost", "suppressed": 2}]


def test_the_memory_is_bounded_and_what_is_forgotten_is_told() -> None:
    out = Log()
    for _ in range(2):
        out.warn("odd", subject="first")
    for number in range(repeats.MAX_EVENTS_COUNTED + 10):
        out.warn("odd", subject=str(number))
    assert len(out.alike._seen) == repeats.MAX_EVENTS_COUNTED
    assert {"event": "odd", "subject": "first", "suppressed": 1} in out.lines
    for tail in "ab":
        out.warn("odd", subject="x" * repeats.MAX_ABOUT_CHARS + tail)
    assert not out.lines[-1]["subject"].endswith("b")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log as it is set up for a daemon."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    written = io.StringIO()
    log.configure("json", "info", written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_the_count_goes_the_way_of_all_lines_and_hides_secrets(stream: io.StringIO) -> None:
    logger = structlog.get_logger("watchers").bind(watcher="job")
    for _ in range(3):
        logger.warning("look_failed", error="password=hunter2")
        logging.getLogger("aiohttp").error("lost %s", "password=hunter2")
    log.tell_repeats()
    log.tell_repeats(at_once=True)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("suppressed") for line in lines] == [None, None, 2, 2]
    assert (lines[2]["event"], lines[2]["watcher"], lines[2]["error"]) == ("look_failed", "job", "password=***")
    assert (lines[3]["event"], lines[3]["logger"], lines[3]["level"]) == ("library_message", "aiohttp", "error")
    assert "hunter2" not in stream.getvalue()
