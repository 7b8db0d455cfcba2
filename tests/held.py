"""Holds what `aglowctl --json` prints, and what the routes answer, to the JSON Schemas that the same server serves."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator

from aglowd.cli.control import main


class Held:
    """A server, and the schemas that it serves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._validators: dict[str, Draft202012Validator] = {}
        self._listed: list[dict[str, Any]] = []

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] = MappingProxyType({}),
        *,
        route: str = "",
        code: int = 200,
    ) -> Any:
        """The answer of the server, held; `route`: as the table writes it, where that has placeholders."""
        found = await self._fetch(method, path, body, code)
        name = "error" if code >= 400 and path not in ("/live", "/ready") else ""
        name = name or await self._name(f"{method} {route or path.partition('?')[0]}", "routes")
        return await self._hold(name, found, f"{method} {path}")

    async def run(self, command: str, *words: str, code: int = 0) -> Any:
        """What the command prints with `--json`, held; `command`: as the list of schemas writes it."""
        said, out, err = await self.say(*words, "--json")
        assert said == code, f"{words}: {err or out}"
        return await self.hold(command, out)

    async def hold(self, command: str, printed: str) -> Any:
        """What the command printed, held."""
        return await self._hold(await self._name(command, "commands"), printed, command)

    async def say(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of aglowctl."""
        return await asyncio.to_thread(_run, ["--socket", str(self._path), *words])

    async def _fetch(
        self, method: str, path: str, body: Mapping[str, Any] = MappingProxyType({}), code: int = 200
    ) -> str:
        connector = aiohttp.UnixConnector(str(self._path))
        async with (
            aiohttp.ClientSession("http://aglowd", connector=connector) as session,
            session.request(method, path, json=dict(body) or None) as reply,
        ):
            text = await reply.text()
            assert reply.status == code, f"{method} {path}: {text}"
            return text

    async def _name(self, asked: str, where: str) -> str:
        if not self._listed:
            self._listed = json.loads(await self._fetch("GET", "/v1/schema"))["schemas"]
        found = [one["name"] for one in self._listed if asked in one[where]]
        assert len(found) == 1, f"{asked} has no schema"
        return str(found[0])

    async def _hold(self, name: str, text: str, asked: str) -> Any:
        if name not in self._validators:
            schema = json.loads(await self._fetch("GET", f"/v1/schema/{name}"))
            Draft202012Validator.check_schema(schema)
            self._validators[name] = Draft202012Validator(schema)
        is_lines = next((one["lines"] for one in self._listed if one["name"] == name), False)
        answers = [json.loads(line) for line in text.splitlines()] if is_lines else [json.loads(text)]
        for answer in answers:
            problems = [f"{one.json_path}: {one.message[:300]}" for one in self._validators[name].iter_errors(answer)]
            assert not problems, f"{asked} does not answer as the schema {name!r} says:\n" + "\n".join(problems[:5])
        return answers if is_lines else answers[0]


def _run(argv: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of aglowctl, in this process: no other thread prints meanwhile."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(argv, prog_name="aglowctl")
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("click ends by SystemExit")
