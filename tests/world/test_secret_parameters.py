"""A run whose parameters refer to a secret: those that need it get it, and no file, log or answer of the daemon holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from aglowd.cli.demo import Demo
from tests.world.small import FIELD, LIMIT_S, aglowctl, get, write_world
from tests.world.test_secrets import found_in

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

SECRET = "hunter2/and+more=="
MAIN = """
[pipeline]
name = "main"

[steps.inner]
kind = "run"
pipeline = "inner"
params = {{ token = "secret:api", url = "{url}", where = "{where}" }}

[steps.status]
kind = "set_status"
needs = ["inner"]
join = "done"
expect = "{{{{ field.status }}}}"
status = "ZZZ"
"""
INNER = """
[pipeline]
name = "inner"
params = ["token", "url", "where"]

[steps.program]
kind = "command"
argv = ["sh", "-c", "cat > $0; echo it is $TOKEN", "{{ params.where }}/program"]
stdin = "{{ params.token }}"
environment = { TOKEN = "{{ params.token }}" }

[steps.fails]
kind = "command"
argv = ["sh", "-c", "echo cannot log in with $TOKEN >&2; exit 3"]
environment = { TOKEN = "{{ params.token }}" }

[steps.tells]
kind = "http"
method = "PUT"
url = "{{ params.url }}/tell"
headers = { Authorization = "Bearer {{ params.token }}" }
body = { key = "{{ params.token }}" }

[steps.refused]
kind = "http"
method = "PUT"
url = "{{ params.url }}/refuse"
headers = { Authorization = "Bearer {{ params.token }}" }

[steps.asks]
kind = "http"
url = "{{ params.url }}/ask"
headers = { Authorization = "Bearer {{ params.token }}" }
until = "body.state == 'ready'"
poll = "10m"

[steps.shows]
kind = "command"
argv = ["echo", "{{ params.token }}"]

[outputs]
said = "{{ steps.program.outputs.stdout }}"
"""


class Service:
    """A web service that repeats whatever it is sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_route("*", "/{path}", self._meet)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _meet(self, request: web.Request) -> web.Response:
        path, header, body = request.match_info["path"], request.headers["Authorization"], await request.text()
        self.asked.append((path, header, body))
        told = {"state": "ready", "header": header, "body": body}
        return web.json_response(told, status=400 if path == "refuse" else 200)


async def test_a_secret_in_parameters_is_nowhere_but_where_it_is_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("w")
    pipelines, where = directory / "pipelines", directory / "where"
    pipelines.mkdir()
    where.mkdir()
    key = directory / "api.token"
    key.touch(mode=0o600)
    key.write_text(f"{SECRET}\n", encoding="utf-8")
    service = Service()
    async with service.serve() as url:
        (pipelines / "main.toml").write_text(MAIN.format(url=url, where=where), encoding="utf-8")
        (pipelines / "inner.toml").write_text(INNER, encoding="utf-8")
        options = msgspec.structs.replace(
            write_world(directory / "in"), pipeline=pipelines / "main.toml", config={"secrets": {"api": str(key)}}
        )
        demo = Demo(options, directory / "state")
        async with demo.world():
            try:
                await demo.start()
                await asyncio.wait_for(demo.until_done(), LIMIT_S)
                leaks_while_it_runs = leaks(demo)
                answers = {path: await get(demo, path) for path in PATHS}
                said = await aglowctl(
                    demo, f"show {FIELD}", f"explain {FIELD}", "events -n 1000", f"provenance {FIELD}", "status"
                )
            finally:
                await demo.stop()
    # Those that need it have got it.
    assert (where / "program").read_text() == SECRET
    bearer = f"Bearer {SECRET}"
    assert {path: header for path, header, _ in service.asked} == dict.fromkeys(("tell", "refuse", "ask"), bearer)
    assert {body for path, _, body in service.asked if path == "tell"} == {f'{{"key":"{SECRET}"}}'}
    # And nobody else.
    assert leaks_while_it_runs == leaks(demo) == []
    for name, text in (answers | said).items():
        assert text, name
        assert found_in(text, {"api": SECRET}) == [], name
    _check_what_is_told(answers[f"/v1/fields/{FIELD}"], (demo.state / "aglowd.db").read_bytes())


PATHS = (
    *("/live", "/v1/status", "/v1/fields", "/v1/doubt", "/v1/events?since=0&limit=1000"),
    *(f"/v1/fields/{FIELD}", f"/v1/fields/{FIELD}/explain", f"/v1/provenance/{FIELD}"),
)


def leaks(demo: Demo) -> list[str]:
    """Every file of the state directory that holds the secret."""
    files = [path for path in demo.state.rglob("*") if path.is_file()]
    assert any(path.name == "aglowd.log" for path in files)
    return [str(path) for path in files if found_in(path.read_bytes(), {"api": SECRET})]


def _check_what_is_told(field: bytes, database: bytes) -> None:
    """Reasons and results say what happened, with *** in its place; what is stored is the reference."""
    runs = msgspec.json.decode(field.partition(b"\r\n\r\n")[2])["runs"]
    steps: dict[str, Any] = {step["step"]: step for run in runs for step in run["steps"]}
    states = {name: step["state"] for name, step in steps.items()}
    assert states == {
        **dict.fromkeys(("program", "tells", "asks", "status"), "done"),
        **dict.fromkeys(("fails", "refused", "shows", "inner"), "failed"),
    }
    assert "cannot log in with ***" in steps["fails"]["reason"]
    assert "***" in steps["refused"]["reason"]
    assert "secret:api stands in argv, where others would see it" in steps["shows"]["reason"]
    assert b"it is ***" in database
    assert b"secret:api" in database
