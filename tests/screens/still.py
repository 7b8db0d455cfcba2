"""Daemons in which nothing moves: who would be next, and what a changed configuration would change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aglowd.model import FieldView
from aglowd.wiring import shipped_pipelines
from tests.screens.stage import Stage, installed, story
from tests.still import still

CONFIG = """[daemon]
state_dir = "{0}/state"
socket = "{0}/s"
[catalogue]
kind = "own"
srm_dir = "{0}"
select = ["SND", "JND"]
max_fields = 20
[picas]
database = "sksp"
[pipelines]
directory = "{0}/pipelines"
[sites.sara]
results = "file://{0}/results"
archive = "file://{0}/archive"
files_at_once = 5000
[sites.juelich]
results = "file://{0}/results"
archive = "file://{0}/archive"
fields_at_once = 1
[jobs]
system = "none"
"""
CHANGED = {"max_fields = 20": "max_fields = 30", "files_at_once = 5000": "files_at_once = 2500", '"sksp"': '"sksp2"'}


@asynccontextmanager
async def daemon() -> AsyncIterator[tuple[Path, Any]]:
    """Its directory, and itself."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "pipelines").mkdir()
        for entry in shipped_pipelines().iterdir():
            (directory / "pipelines" / entry.name).symlink_to(entry)
        config = directory / "aglowd.toml"
        config.write_text(CONFIG.format(directory), encoding="utf-8")
        async with still(config) as here:
            yield directory, here


@story("offers")
async def offer(stage: Stage) -> None:
    """Two of five are under way."""
    async with daemon() as (directory, here):
        sara, juelich = ("SND", {}, (0, 0), "sara"), ("JND", {}, (0, 0), "juelich")
        await here._store.put_fields([(FieldView("P22Hetdex04", *sara), ""), (FieldView("P2Hetdex01", *juelich), "")])
        await here._store.admit(here._pipelines.current["sksp"], ["SND", "JND"], 20)
        waiting = (
            FieldView("P165+57", "JND", {}, (0, -1), "juelich"),
            FieldView("P23Hetdex20", "SND", {}, (4, 0), "sara"),
            FieldView("P9Hetdex01", *juelich),
        )
        await here._store.put_fields([(view, "") for view in waiting])
        await stage.show("five", directory, installed(directory))


@story("reload")
async def change(stage: Stage) -> None:
    """Three keys and a pipeline are others than at the start."""
    async with daemon() as (directory, _):
        config, pipeline = directory / "aglowd.toml", directory / "pipelines" / "sksp.toml"
        text = config.read_text(encoding="utf-8")
        for old, new in CHANGED.items():
            assert old in text
            text = text.replace(old, new)
        config.write_text(text, encoding="utf-8")
        shipped = pipeline.read_text(encoding="utf-8")
        pipeline.unlink()
        pipeline.write_text(shipped.replace('timeout = "7d"', 'timeout = "8d"'), encoding="utf-8")
        await stage.show("changed", directory, installed(directory))
