"""`aglowctl schedules`, in front of a real store and a real socket; and the check of a schedule that is wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from populated import healthy
from support import HandClock, Played, graph, new_reactor, opened, settle_all, step

from aglowd.control import Control
from aglowd.model import Failed, Outcome
from aglowd.schedules import Schedule
from aglowd.store.schedules import Planned

from .test_aglowctl import Served
from .test_check import check, write_config

DAILY, HOURLY = graph("daily", step("look")), graph("hourly", step("look"))
PLAN = (Planned(DAILY, Schedule(cron="0 3 * * *")), Planned(HOURLY, Schedule(every="1h")))


@pytest.fixture
async def served(tmp_path: Path, clock: HandClock) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", clock))
        server = Control(store, healthy, clock, "1.2.3")
        await stack.enter_async_context(server.serve(tmp_path / "aglowd.sock"))
        yield Served(tmp_path / "aglowd.sock", store)


async def test_each_schedule_is_shown_with_its_next_time_and_its_last_run(served: Served, clock: HandClock) -> None:
    code, out, _ = await served.run("schedules")
    assert (code, out) == (0, "no schedules: no pipeline file has an enabled [schedule]\n")
    clock.at = 1_800_000_000.0  # 08:00 UTC, sharp.
    await served.store.begin_due(PLAN)
    _, out, _ = await served.run("schedules")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["pipeline", "rule"],
        ["daily", "0"],
        ["hourly", "every"],
    ]
    assert "in 19h (2027-01-16T03:00:00Z)" in out
    clock.advance(3600.0)
    await served.store.begin_due(PLAN)
    _, out, _ = await served.run("schedules")
    assert "schedule_hourly-1  running" in out
    clock.advance(7200.0)
    _, out, _ = await served.run("schedules")
    assert "when the last run has ended" in out

    def breaks(*_: object) -> Outcome:
        return Failed("it broke", final=True)

    await settle_all(new_reactor(served.store, [Played({"look": breaks})], HOURLY))
    code, out, _ = await served.run("schedules", "--json")
    daily, hourly = json.loads(out)["schedules"]
    assert (daily["next"], daily["run"], daily["state"]) == (1_800_000_000.0 + 19 * 3600, "", None)
    assert (hourly["state"], hourly["reason"], hourly["ended"]) == ("failed", "look: it broke", clock.at)
    _, out, _ = await served.run("schedules")
    assert "failed" in out
    assert "look: it broke" in out
    assert "now (" in out
    code, out, _ = await served.run("explain", "schedule/hourly")
    assert code == 0
    assert "it broke" in out


def test_a_schedule_that_is_wrong_is_told_before_anything_runs(tmp_path: Path) -> None:
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "sksp.toml").write_text(
        '[schedule]\ncron = "0 25 * * *"\n[steps.look]\nkind = "parset"\ntemplate = ""\n', encoding="utf-8"
    )
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    told = ended.stdout + ended.stderr
    assert f"{pipelines}/sksp.toml:2: schedule: '0 25 * * *' is no time that ever comes" in told
    assert "hint: five fields" in told
