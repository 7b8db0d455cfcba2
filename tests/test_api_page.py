"""docs/api.md lists every route of the socket and none that is gone, each with what it takes, answers and refuses."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from test_docs import rows, sections, shown_default

from aglowd import control, door
from aglowd.control.routes import ROUTES, Route
from tests.stuck.place import CALIBRATOR, FIELD, LIST, RUN, STAGE, place
from tests.virtual.loop import VirtualLoop

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
SECTIONS = {
    route: text for heading, text in sections(PAGE).items() for route in re.findall(r"`((?:GET|POST) /\S*)`", heading)
}
CODES = {name: int(cells[0]) for name, cells in rows(sections(PAGE)["Errors"]).items()}
EVERYWHERE = {"not-permitted", "unknown-path", "method-not-allowed", "internal", "too-many-connections"}
OF_BODIES = {"bad-body", "too-slow", "too-long"}
OF_HELPERS = {
    "known": {"unknown-field"},
    "asked": {"refused"},
    "instant": {"bad-parameter"},
    "number": {"bad-parameter"},
}
"""What a handler refuses by what it calls."""


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """The tables of the text by the first word of their heads, each as `rows` reads it."""
    found = re.finditer(r"^\| (\w+) \|[^\n]*\n\|---.*?(?=\n\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {table[1]: rows(table[0]) for table in found}


def source_of(route: Route) -> str:
    """What answers there, as it is written."""
    handler = route.handler
    return inspect.getsource(inspect.getclosurevars(handler).nonlocals["handler"] if route.body else handler)


SERVED = {f"{route.method} {route.path}": route for route in ROUTES}


def test_every_route_is_on_the_page_and_none_that_is_gone() -> None:
    assert sorted(SECTIONS) == sorted(SERVED)
    assert len(SERVED) == len(ROUTES) > 40


@pytest.mark.parametrize("name", SERVED)
def test_every_parameter_and_every_key_of_a_body_stands_with_its_default(name: str) -> None:
    route, listed = SERVED[name], tables(SECTIONS[name])
    source = source_of(route)
    asked = re.findall(r'query\.get(?:all)?\("(\w+)"|\b(?:instant|number)\(request, "(\w+)"', source)
    heeded = {
        *filter(None, (part for pair in asked for part in pair)),
        *re.findall(r'"(\w+)" in request\.query', source),
    }
    assert {*listed.get("parameter", ())} == heeded == {*route.query}
    if route.body is None:
        assert "body" not in listed
    else:
        expected = {entry.encode_name: shown_default(entry) for entry in msgspec.structs.fields(route.body.kind)}
        assert {key: cells[0] for key, cells in listed["body"].items()} == expected


def test_every_error_stands_with_its_status() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(control.__file__).parent.glob("*.py"))
    found = re.findall(r'(?:ApiError\(|code, message = )(\d{3}), "([\w-]+)"', source)
    raised = {code: int(status) for status, code in found}
    raised |= {f"unknown-{what}": 404 for what in re.findall(r'"(\w+)", (?:name|job)\)', source)}
    raised |= {"refused": 409, "stale": 409, "method-not-allowed": 405}  # Of asked, and of the router.
    raised |= dict.fromkeys(re.findall(r'"code": "([\w-]+)"', inspect.getsource(door)), 503)
    assert raised == CODES


@pytest.mark.parametrize("name", SERVED)
def test_each_route_names_the_errors_that_are_its_own(name: str) -> None:
    source = source_of(SERVED[name])
    may = {*re.findall(r'ApiError\(\d+, "([\w-]+)"', source)}
    may |= {f"unknown-{what}" for what in re.findall(r'"(\w+)", (?:name|job)\)', source)}
    for helper, codes in OF_HELPERS.items():
        may |= codes if re.search(rf"\b{helper}\(", source) else set()
    if "version" in tables(SECTIONS[name]).get("body", {}):
        may.add("stale")
    said = re.search(r"^Errors: (.*)\.$", SECTIONS[name], flags=re.MULTILINE)
    assert {*re.findall(r"`([\w-]+)`", said[1] if said else "")} == may - OF_BODIES - EVERYWHERE


# --- what is answered


ASKED = (
    "/live",
    "/ready",
    "/v1/status",
    "/v1/log",
    "/v1/doctor",
    "/v1/config",
    "/v1/next",
    "/v1/schedules",
    "/v1/fields",
    "/v1/candidates",
    f"/v1/fields/{FIELD}",
    f"/v1/fields/{FIELD}/explain",
    f"/v1/fields/{FIELD}/explain?at=1m",
    f"/v1/fields/{FIELD}/history",
    f"/v1/provenance/{RUN}",
    "/v1/diff?from=1m",
    f"/v1/diff?from=1m&field={FIELD}",
    "/v1/trace/1",
    "/v1/doubt",
    "/v1/stage",
    "/v1/tokens",
    "/v1/tokens/x_targ1",
    "/v1/jobs",
    "/v1/catalogue",
)


def orders(files: str, directory: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Orders that change little, each with its body."""
    return (
        ("cancel", {"targets": [FIELD], "dry_run": True}),
        ("pause", {"fields": [FIELD], "dry_run": True}),
        ("run", {"field": FIELD, "dry_run": True}),
        ("backup", {"path": str(directory / "backup.db")}),
        ("locality", {"path": "list.txt", "text": files}),
        ("tokens", {"token_type": "x_targ1"}),
        ("stage", {"path": "list.txt", "text": files}),
    )


def route_of(asked: str) -> str:
    """The route on the page that answers to the path."""
    path = asked.partition("?")[0]
    for route in SECTIONS:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path):
            return route
    raise AssertionError(asked)


async def answers() -> dict[str, set[str]]:
    """Route → the keys of all answers that a daemon at work gave."""
    found: dict[str, set[str]] = defaultdict(set)
    async with place(LIST, STAGE) as here:
        await here.until("request", "new")
        connector = aiohttp.UnixConnector(str(here.directory / "s"))
        async with aiohttp.ClientSession("http://aglowd", connector=connector) as client:
            others = (here.directory / "srm" / f"srm{CALIBRATOR}.txt").read_text(encoding="utf-8")
            asked: list[tuple[str, str, Any]] = [("GET", path, None) for path in ASKED]
            asked += [("POST", f"/v1/{verb}", body) for verb, body in orders(others, here.directory)]
            asked.append(("GET", "/v1/stage/list", None))
            for method, path, body in asked:
                async with client.request(method, path, json=body) as reply:
                    answer = await reply.json()
                assert {"schema", "now"} <= answer.keys()
                assert reply.status == 200, (path, answer)
                found[route_of(f"{method} {path}")] |= answer.keys() - {"schema", "now"}
    return found


@pytest.mark.world
def test_each_answer_has_the_keys_that_the_page_lists() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(answers())
    assert len(found) >= 30
    for route, keys in found.items():
        assert keys == set(tables(SECTIONS[route])["answer"]), route
