"""Two token databases at real servers: the watcher of tokens has what each says, whatever becomes of the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support import begin, graph, opened, rows, step

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.picas import DESIGN_DOC, Picas
from aglowd.handlers.wait_tokens import tokens_of
from aglowd.model import Wait
from aglowd.store.runs import Decision
from aglowd.watchers.tokens import Tokens

from .bases import PASSWORD, USER, simulated

GRAPH = graph("waiting", step("wait"))
TOKEN = {"type": "t", "lock": 0, "done": 0}
PATIENCE_S = 20.0


async def test_one_that_is_away_keeps_nothing_of_the_other_back(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    async with simulated(tmp_path) as base, opened(tmp_path / "aglowd.db", clock) as store:
        here = base.picas()
        credential = Credential("picas-away", user=USER, password=PASSWORD)
        away = Picas(base.http, Site("picas-away", Clock()), credential, "http://127.0.0.1:9", "sksp2juelich")
        bases = {"": here, "sara": here, "juelich": away}
        await here.ensure_design("aglowd", DESIGN_DOC)
        await here.bulk([{"_id": "t:1", **TOKEN}])
        world: Any = SimpleNamespace(clock=clock, token_bases=bases, token_base=bases.__getitem__)
        run = await begin(store, GRAPH)
        (work,) = await store.next_dirty()
        subjects = (tokens_of("t", "sara"), tokens_of("t", "juelich"))
        await store.finish(Decision(work, Wait(subjects, "a test waits", 1e9), GRAPH))
        assert work.run.id == run

        async def counted(todo: int) -> None:
            """Until so many tokens are to do at the one that is there."""
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    store.bells.events.clear()
                    found = await rows(store, "SELECT key, data FROM subjects WHERE data IS NOT NULL")
                    if any(row["key"] == subjects[0].key and f'"todo":{todo}' in row["data"] for row in found):
                        assert [row["key"] for row in found] == [subjects[0].key]
                        return
                    await store.bells.events.wait()

        watcher = Tokens(world, store, 1e9)
        task = asyncio.create_task(watcher.run())
        try:
            await counted(1)
            await here.bulk([{"_id": "t:2", **TOKEN}])
            await counted(2)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
