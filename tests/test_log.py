"""The log as it comes out of the stream: JSON lines, a console, and never a secret."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aglowd import log


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """Logging as it was, and no secret of another test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    # basicConfig(force=True) closes what it finds: pytest's own handlers are not its to close.
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    log._secrets.clear()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_json_with_what_was_bound() -> None:
    stream = io.StringIO()
    log.configure("auto", "info", stream)
    bound = structlog.get_logger("reactor").bind(field="P229+62", run="P229+62-1", step="stage")
    bound.info("step_wait", reason="188 of 244 online")
    bound.debug("never_seen")
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("at"))
    assert line == {
        "level": "info",
        "logger": "reactor",
        "event": "step_wait",
        "field": "P229+62",
        "run": "P229+62-1",
        "step": "stage",
        "reason": "188 of 244 online",
    }


@pytest.mark.parametrize(
    ("fmt", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_a_terminal_gets_a_console(fmt: str, stream: type[io.StringIO], is_json: bool) -> None:
    out = stream()
    log.configure(fmt, "info", out)
    structlog.get_logger("x").info("ready", pid=7)
    assert out.getvalue().startswith("{") is is_json
    assert "ready" in out.getvalue()


def test_a_console_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure("console", "info", out)
    structlog.get_logger("x").info("ready")
    assert "\x1b" not in out.getvalue()


def test_the_libraries_go_the_same_way() -> None:
    stream = io.StringIO()
    log.configure("json", "warning", stream)
    log.register_secret("hunter2hunter2")
    logging.getLogger("aiohttp.server").error("Error %s for %s", 7, "hunter2hunter2")
    logging.getLogger("asyncio").info("not shown")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == ("library_message", "aiohttp.server", "error")
    assert line["message"] == "Error 7 for ***"


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_an_exception_is_structured_and_redacted(name: str) -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    log.register_secret("s3cr3t-word")
    try:
        raise ValueError("refused s3cr3t-word")
    except ValueError:
        if name == "ours":
            structlog.get_logger("x").exception("decision_failed")
        else:
            logging.getLogger("x").exception("it failed")
    (line,) = lines(stream)
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["exc_value"] == "refused ***"
    assert line["exception"][0]["frames"]
    assert "s3cr3t-word" not in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:pa55@lta.example/xmlrpc", "https://***@lta.example/xmlrpc"),
        ("at http://u:p@ss@host:1/x and srm://host:8443/y@z", "at http://***@host:1/x and srm://host:8443/y@z"),
        ("Authorization: Basic dTpw", "Authorization: ***"),
        ("authorization=Bearer abc.def", "authorization=***"),
        ("{'Authorization': 'Token abc'}", "{'Authorization': '***'}"),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.x", "sent Bearer ***"),
        ("GET /x?authz=MDAxY2&path=/pnfs", "GET /x?authz=***&path=/pnfs"),
        ("Credential(user='ann', password='pa55')", "Credential(user='ann', password=***)"),
        ("basic authentication failed", "basic authentication failed"),
        ("token sksp_cal_L229507_0 has token_type t", "token sksp_cal_L229507_0 has token_type t"),
        ("gsiftp://gridftp.grid.sara.nl:2811/pnfs/x", "gsiftp://gridftp.grid.sara.nl:2811/pnfs/x"),
    ],
)
def test_redacted_text(text: str, shown: str) -> None:
    assert log.redact_text(text) == shown


@pytest.mark.parametrize(
    "key", ["password", "api_token", "Authorization", "LTA-Password", "secret", "macaroon", "token"]
)
def test_values_of_telling_keys_are_hidden(key: str) -> None:
    hidden = log.redact(None, "info", {"event": "x", key: "v", "deep": [{key: {"a": "v"}}], "tokens": 3})
    assert hidden == {"event": "x", key: "***", "deep": [{key: "***"}], "tokens": 3}


@pytest.mark.parametrize("text", ["a" * 200_000 + "://", "a." * 100_000 + "://", "https://" + "a:" * 100_000])
def test_a_long_text_is_read_in_no_time(text: str) -> None:
    began = time.process_time()
    log.redact_text(text)
    assert time.process_time() - began < 1.0


def test_a_short_secret_would_hide_half_the_log() -> None:
    log.register_secret("at")
    assert log.redact_text("what is at hand") == "what is at hand"


def test_what_cannot_be_shown_does_no_harm() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    endless: list[Any] = []
    endless.append(endless)
    stream = io.StringIO()
    log.configure("json", "info", stream)
    structlog.get_logger("x").info("odd", bad=Bad(), endless=endless, raw=b"\xff", many={1, 2}, number=1.5)
    (line,) = lines(stream)
    assert (line["bad"], line["raw"], line["number"]) == ("<Bad that cannot be shown>", "\\xff", 1.5)


# A secret of asterisks could come about anew between the `***` and its surroundings.
SECRETS = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), min_size=4, max_size=40)


def planted(secret: str) -> st.SearchStrategy[Any]:
    """Any value that contains the secret somewhere, and any other value around it."""
    around = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    leaf = st.one_of(
        st.tuples(around, around).map(lambda pair: f"{pair[0]}{secret}{pair[1]}"),
        st.just(secret.encode()),
        st.builds(ValueError, st.just(secret)),
        around,
        st.integers(),
        st.none(),
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(around | st.just(secret), inner, max_size=3), st.tuples(inner)
        ),
        max_leaves=8,
    )


def texts(value: Any) -> Iterator[str]:
    """Every text in the value, keys included."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


@settings(deadline=None)
@given(secret=SECRETS, data=st.data(), fmt=st.sampled_from(["json", "console"]))
def test_a_planted_secret_never_comes_out(secret: str, data: st.DataObject, fmt: str) -> None:
    def logged(value: Any, text: str) -> list[str]:
        stream = io.StringIO()
        log.configure(fmt, "info", stream)
        logger = structlog.get_logger("x").bind(field=value)
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logger.exception("failed", value=value, told=text)
        logging.getLogger("lib").warning("told %s", text)
        # JSON writes a NUL as \u0000, which is no secret "0000": what counts is what the line says.
        return list(texts(lines(stream))) if fmt == "json" else [stream.getvalue()]

    log._secrets.clear()
    spellings = (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    assume(not any(spelling in line for spelling in spellings for line in logged(None, "")))
    value = data.draw(planted(secret))
    log.register_secret(secret)
    out = logged(value, f"it said {secret}!")
    assert not any(spelling in line for spelling in spellings for line in out)


def test_a_value_in_a_log_line_is_so_deep() -> None:
    def nested(depth: int) -> Any:
        value: Any = "x"
        for _ in range(depth):
            value = [value]
        return value

    def bottom(value: Any) -> Any:
        while isinstance(value, list):
            value = value[0]
        return value

    for more, seen in ((0, "x"), (1, "…")):
        said = log.redact(None, "info", {"event": "e", "value": nested(log.MAX_DEPTH + more)})
        assert bottom(said["value"]) == seen


def test_a_traceback_in_a_log_line_has_so_many_frames() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise RecursionError("at the bottom")
        fall(depth - 1)

    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        fall(3 * log.MAX_FRAMES)
    except RecursionError:
        logging.getLogger("a library").exception("it fell")
    (line,) = lines(stream)
    (told,) = line["exception"]
    assert len(told["frames"]) <= log.MAX_FRAMES + 1  # One of them says how many were left out.
    assert told["frames"][-1]["name"] == "fall"
