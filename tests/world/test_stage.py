"""Staging without a pipeline: aglowctl, a daemon and a simulated grid, whose ledger says what was asked for."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.cli.demo import Demo
from aglowd.sim.history import History
from tests.process.child import events
from tests.world.small import TARGET, srm_lines, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

AGLOWCTL = "from aglowd.cli.control import main; main(prog_name='aglowctl')"
FILES = 8
JUELICH = "srm://lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops/projects/lc3_028/343224/"


def new_demo(directory: Path, staging: str = "legacy", config: Mapping[str, Any] | None = None) -> Demo:
    """A world in which no field is on offer."""
    options = write_world(directory / "in", subbands=FILES)
    assert options.fields is not None
    row = options.fields.read_text(encoding="utf-8")
    options.fields.write_text(row.replace("SND,", "XXX,", 1), encoding="utf-8")
    return Demo(msgspec.structs.replace(options, staging=staging, config=config or {}), directory / "state")


async def begin(demo: Demo, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGLOWCTL, "--socket", str(demo.socket), *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def aglowctl(demo: Demo, *args: str) -> tuple[int | None, str, str]:
    process = await begin(demo, *args)
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


def asked(demo: Demo) -> Counter[str]:
    """How often each file was asked for, by the name that it has at the end of its SURL."""
    history = History.read(demo.state / "grid" / "ledger.jsonl")
    return Counter(surl.rpartition("/")[2] for one in history.stagings for surl in one.surls)


def names(obsid: str) -> list[str]:
    return [line.split()[0].rpartition("/")[2] for line in srm_lines(obsid, FILES)]


@pytest.mark.parametrize("staging", [pytest.param("legacy", marks=pytest.mark.long), "stageit"])
async def test_a_list_is_staged_once_though_the_daemon_is_killed(
    tmp_path_factory: pytest.TempPathFactory, staging: str
) -> None:
    demo = new_demo(tmp_path_factory.mktemp("w"), staging)
    path = str(demo.srm_dir / f"srm{TARGET}.txt")
    async with demo.world():
        try:
            await demo.start()
            waiting = await begin(demo, "stage", path, "--wait", "--json")
            await events(demo.socket, lambda event: event["kind"] == "EffectDone")
            await demo.kill()
            await demo.start()
            # Whoever asks for the same files again joins, or comes when all are online.
            code, out, err = await aglowctl(demo, "stage", path, "--wait")
            assert (code, err) == (0, "")
            assert f"online   {FILES} of {FILES} (100.0 %) at sara" in out
            out, err = (text.decode() for text in await asyncio.wait_for(waiting.communicate(), 60))
            assert (waiting.returncode, err) == (0, "")
            (entry,) = json.loads(out)["stagings"]
        finally:
            await demo.stop()
    assert entry["state"] == "done"
    assert (entry["online"], entry["files"], entry["site"]) == (FILES, FILES, "sara")
    assert entry["pinned_until"] > entry["since"] + 6 * 86_400
    assert asked(demo) == Counter(names(TARGET))
