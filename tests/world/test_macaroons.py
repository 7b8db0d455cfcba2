"""A whole run in which nothing but StageIT's macaroons shows where files are: it comes to its end, and none of them shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from aglowd.cli.demo import Demo
from aglowd.sim.dcachegate import DcacheSettings
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.macaroons import Macaroons
from tests.world.small import FIELD, LIMIT_S, SPEED, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

MACAROON = re.compile(rb"MDA[\w+/-]{40}")
OWN = frozenset({"grid"})
"""Directories of the state that are the simulated grid's."""


class Keyed(Demo):
    """A demo whose dCache takes macaroons, and a token that nobody has."""

    @asynccontextmanager
    async def world(self) -> AsyncIterator[dict[str, Any]]:
        self.state.mkdir()
        assert self.options.fields is not None
        self.fields_file.write_bytes(self.options.fields.read_bytes())
        settings = Settings(
            directory=self.state / "grid", srm_dir=self.srm_dir, seed=1, speed=SPEED, origin=self.origin,
            proxy_hours=2000.0, dcache=DcacheSettings(token="of-nobody", macaroons=True),
        )  # fmt: skip
        async with simulated_grid(settings) as ready, self.catalogue.running():
            config: dict[str, dict[str, Any]] = {"dcache": {"token_file": "", "ask": "namespace", "events": False}}
            config |= {f"sites.{name}": {"dcache": ready["dcache_url"]} for name in ("sara", "juelich")}
            self.options = structs.replace(self.options, config=config)
            self._write_config(ready)
            yield ready


async def test_a_run_with_nothing_but_macaroons(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("w")
    options = structs.replace(write_world(place / "in", subbands=4), staging="stageit")
    demo = Keyed(options, place / "s")
    assert MACAROON.match(Macaroons("x", lambda: 0.0).issue("7", ["path:/x"]).encode())
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
            said = [json.dumps(await demo.ask(path)).encode() for path in ("/v1/status", f"/v1/fields/{FIELD}/explain")]
        finally:
            await demo.stop()
        ledger = (demo.state / "grid" / "ledger.jsonl").read_text(encoding="utf-8")
        assert states(fields) == {FIELD: "archived"}
        lines = [json.loads(line) for line in ledger.splitlines()]
        assert any(line["system"] == "dcache" and line["op"] == "namespace" for line in lines)
        assert not [line for line in lines if line["system"] == "dcache" and line["op"] == "error_counted"]
    for path in demo.state.rglob("*"):
        if path.is_file() and not OWN & {*path.relative_to(demo.state).parts}:
            assert not MACAROON.search(path.read_bytes()), path.name
    assert all(said)
    assert not [text for text in (*said, ledger.encode()) if MACAROON.search(text)]
