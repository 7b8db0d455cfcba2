"""`aglowctl watch` and `aglowctl status -w` as processes of their own, in front of a real store, reactor and socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import Process
from pathlib import Path

import pytest
from populated import fill, healthy
from support import opened, settle_all

from aglowd.cli import watch
from aglowd.cli.client import Client
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.model import FieldView

from .test_aglowctl import COLOUR, Served, _read_all, served  # noqa: F401 # A fixture.
from .test_steer import LINE, Daemon, daemon  # noqa: F401 # A fixture.
from .test_wait import ended, line_of, move


async def catalogued(daemon: Daemon, *names: str) -> None:  # noqa: F811
    await daemon.store.put_fields([(FieldView(name, "SND"), "") for name in names])
    await daemon.store.admit(LINE, ["SND"], 100)
    await settle_all(daemon.reactor)


async def stopped(process: Process) -> tuple[int | None, str, str]:
    """Ended with Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return await ended(process)


async def test_a_pipe_gets_a_line_for_what_is_new(daemon: Daemon) -> None:  # noqa: F811
    await catalogued(daemon, "P1", "P2")
    process = await daemon.served.begin("watch")
    first = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ P1 {13}running +1/3 b {20}waits\n"
    assert re.fullmatch(first, await line_of(process))
    assert " P2 " in await line_of(process)
    await catalogued(daemon, "P3")
    assert " P3 " in await line_of(process)
    await move(daemon, "P1")
    *_, last = [await line_of(process) for _ in range(1)]
    while "archived" not in last:
        last = await line_of(process)
    assert re.search(r" P1 +archived +3/3 -", last)
    code, out, err = await stopped(process)
    assert (code, out, err) == (0, "", "")


async def test_only_what_is_meant_is_shown(daemon: Daemon) -> None:  # noqa: F811
    await catalogued(daemon, "P1", "P2", "Q1")
    process = await daemon.served.begin("watch", "Q*", "P2", "--json")
    shown = [json.loads(await line_of(process)) for _ in range(2)]
    assert [(one["schema"], one["field"], one["step"]) for one in shown] == [(1, "P2", "b"), (1, "Q1", "b")]
    assert (await stopped(process))[:2] == (0, "")


async def test_a_name_that_looks_like_a_pattern_is_one_only_if_nobody_has_it(daemon: Daemon) -> None:  # noqa: F811
    await catalogued(daemon, "P1", "Q1", "Q[1]")
    shown = watch.Shown(Client(str(daemon.served.path)), ("Q[1]", "[P]1"), lambda page, news, lost: None)
    await asyncio.to_thread(shown.see, None)
    _, table = shown.page()
    assert not isinstance(table, str)
    assert [row[0] for row in table.rows] == ["P1", "Q[1]"]


async def test_what_is_in_a_state_is_shown_as_it_comes_there(daemon: Daemon) -> None:  # noqa: F811
    await daemon.store.put_fields([(FieldView("W1", "SND"), "srm3.txt mixes L1 and L2")])
    await catalogued(daemon, "P1", "P2", "Q1")
    await move(daemon, "P1", broken=True)
    process = await daemon.served.begin("watch", "P*", "W*", "--state", "failed", "--json")
    shown = {one["field"]: one["state"] for one in [json.loads(await line_of(process)) for _ in range(2)]}
    assert shown == {"P1": "failed", "W1": "failed"}
    await move(daemon, "Q1", broken=True)
    daemon.broken.discard("P1")
    await daemon.ok("retry", "P1", "--yes")
    await move(daemon, "P2", broken=True)
    last = json.loads(await line_of(process))
    assert (last["field"], last["state"]) == ("P2", "failed")
    assert (await stopped(process))[:2] == (0, "")


def read_until(terminal: int, words: str) -> str:
    """What stands on the terminal when these words have come."""
    text = ""
    while words not in text:
        text += os.read(terminal, 65_536).decode(errors="replace")
    return text


async def test_a_terminal_gets_a_table_that_stays_up_to_date(daemon: Daemon) -> None:  # noqa: F811
    await catalogued(daemon, "P1", "P2")
    ours, theirs = os.openpty()
    process = await daemon.served.begin("watch", stdout=theirs)
    os.close(theirs)
    text = await asyncio.to_thread(read_until, ours, "2 fields at work; now ")
    await move(daemon, "P1")
    text += await asyncio.to_thread(read_until, ours, "1 fields at work; now ")
    process.send_signal(signal.SIGINT)
    text += await asyncio.to_thread(_read_all, ours)
    await process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert COLOUR.search(text)
    assert "archived" in text
    assert "\x1b[2K" in text, "the table takes the place of the one before"


@pytest.mark.parametrize("args", [("watch",), ("status", "-w", "1")])
async def test_a_daemon_that_goes_is_waited_for(tmp_path: Path, args: tuple[str, ...]) -> None:
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        await fill(store)
        served = Served(tmp_path / "aglowd.sock", store)
        async with Control(store, healthy, store.clock, "1").serve(served.path):
            process = await served.begin(*args, "--json")
            first = json.loads(await line_of(process))
        assert process.stderr is not None
        assert b"it is waited for" in await asyncio.wait_for(process.stderr.readline(), 60)
        async with Control(store, healthy, store.clock, "2").serve(served.path):
            assert await asyncio.wait_for(process.stderr.readline(), 60) == b"aglowctl: aglowd is back\n"
            if args[0] == "status":
                while json.loads(await line_of(process))["version"] == first["version"]:
                    pass
            code, _, err = await stopped(process)
    assert (code, err) == (0, "")


async def test_status_is_shown_again_and_again(served: Served) -> None:  # noqa: F811
    process = await served.begin("status", "-w", "1")
    heads = 0
    while heads < 2:
        heads += (await line_of(process)).startswith("aglowd 1.2.3, pid ")
    assert (await stopped(process))[0] == 0
    assert (await served.run("status", "-w", "soon"))[0] == 2
    assert (await served.run("status", "-w", "0"))[0] == 2
    assert (await served.run("--socket", "/nowhere.sock", "status", "-w"))[0] == 3
    assert (await served.run("--socket", "/nowhere.sock", "watch"))[0] == 3


async def test_many_fields_at_once_are_asked_for_in_one_call(daemon: Daemon) -> None:  # noqa: F811
    names = [f"P{number}" for number in range(watch.MANY + 1)]
    await catalogued(daemon, *names)

    class Counting(Client):
        asked = 0

        def get(self, *parts: str, **how: object) -> dict[str, object]:  # type: ignore[override] # It passes all on.
            self.asked += 1
            return super().get(*parts, **how)  # type: ignore[arg-type]

    client = Counting(str(daemon.served.path))
    shown = watch.Shown(client, (), lambda page, news, lost: None)

    def look(named: list[str]) -> int:
        before = client.asked
        shown.see([{"field": name} for name in named])
        return client.asked - before

    assert await asyncio.to_thread(shown.see, None) is False
    assert await asyncio.to_thread(look, names) == 1
    assert await asyncio.to_thread(look, names[:2]) == 2
    assert await asyncio.to_thread(look, []) == 0


async def test_fields_that_have_ended_stay_for_a_while(daemon: Daemon) -> None:  # noqa: F811
    await catalogued(daemon, "P1", "P2")
    shown = watch.Shown(Client(str(daemon.served.path)), (), lambda page, news, lost: None)
    await asyncio.to_thread(shown.see, None)
    await move(daemon, "P1", broken=True)
    await settle_all(daemon.reactor)
    await asyncio.to_thread(shown.see, [{"field": "P1"}, {"field": "cal/nobody"}])
    head, table = shown.page()
    assert isinstance(head, str)
    assert head.startswith("1 fields at work")
    assert not isinstance(table, str)
    assert [(row[0], row[1], row[5]) for row in table.rows] == [
        ("P2", "running", "waits"),
        ("P1", "failed", "b: no tape"),
    ]
