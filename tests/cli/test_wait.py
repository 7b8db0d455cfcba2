"""`aglowctl wait` as a process of its own, in front of a real store, reactor and socket."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from asyncio.subprocess import Process
from pathlib import Path

import pytest
from populated import ARCHIVED, OFFERED, WAITS, WRONG, fill, healthy
from support import opened, settle_all

from aglowd.cli import exits
from aglowd.cli.client import Client
from aglowd.cli.follow import Event, follow
from aglowd.cli.wait import Waiting
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.model import EffectState, FieldView

from .test_aglowctl import Served, served  # noqa: F401 # A fixture.
from .test_quality import Asked, asked  # noqa: F401 # A fixture.
from .test_steer import THING, Daemon, daemon  # noqa: F401 # A fixture.


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def ended(process: Process) -> tuple[int | None, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def move(daemon: Daemon, name: str, *, broken: bool = False) -> None:  # noqa: F811
    """The field ends, well or not."""
    if broken:
        daemon.broken.add(name)
        await daemon.store.ingest("test", None, [(THING, {"seen": name})])
    else:
        await daemon.ok("done", name, "b", "--yes")
    await settle_all(daemon.reactor)


async def begun(daemon: Daemon, *args: str) -> Process:  # noqa: F811
    """A wait that has looked at everything: the field P0, which is done, is told of when all were looked at."""
    await daemon.begin("P0")
    await move(daemon, "P0")
    process = await daemon.served.begin("wait", *args, "P0")
    assert await line_of(process) == "P0: done, run P0-1\n"
    return process


async def test_it_ends_when_all_are_done(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1", "P2")
    process = await begun(daemon, "P1", "P2")
    await move(daemon, "P1")
    assert await line_of(process) == "P1: done, run P1-1\n"
    await move(daemon, "P2")
    assert await ended(process) == (0, "P2: done, run P2-1\n", "")


async def test_it_ends_when_one_never_will_be(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1", "P2")
    process = await begun(daemon, "P1", "P2")
    await move(daemon, "P2", broken=True)
    assert await ended(process) == (1, "", "aglowctl: P2: failed, run P2-1: b: no tape\n")
    await daemon.ok("cancel", "P1", "--yes", "--reason", "wrong parset")
    await settle_all(daemon.reactor)
    code, _, err = await daemon.run("wait", "P1", "--until", "c")
    assert (code, "P1: c of P1-1 is cancelled: cancelled by uid" in err) == (1, True)


async def test_a_step_is_waited_for(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1", "P2")
    assert await daemon.run("wait", "P1", "--until", "a") == (0, "P1: a is done, run P1-1\n", "")
    code, _, err = await daemon.run("wait", "P1", "--until", "z")
    assert (code, err) == (1, "aglowctl: P1: P1-1 has no step 'z'; it has a, b, c\n")
    await daemon.ok("skip", "P1", "b", "--yes", "--reason", "not now")
    await settle_all(daemon.reactor)
    (undone,) = await daemon.store.next_effects((), 10)
    await daemon.store.settle(undone, EffectState.DONE, 1)
    await settle_all(daemon.reactor)
    code, _, err = await daemon.run("wait", "P1", "--until", "b", "--timeout", "30s")
    assert (code, "P1: b of P1-1 is skipped: skipped by uid" in err) == (1, True)
    await move(daemon, "P2", broken=True)
    code, out, _ = await daemon.run("wait", "P2", "--until", "b", "--json")
    assert (code, json.loads(out)["fields"]) == (
        1,
        [{"field": "P2", "outcome": "never", "run": "P2-1", "reason": "b of P2-1 is failed: no tape"}],
    )


async def test_the_time_is_over(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1")
    code, out, err = await daemon.run("wait", "P1", "--timeout", "1s")
    assert (code, out) == (8, "")
    assert err.startswith("aglowctl: P1: b is waiting since ")
    assert err.endswith(": waits\n")
    code, out, _ = await daemon.run("wait", "P1", "--timeout", "1s", "--json")
    answer = json.loads(out)
    assert (code, answer["schema"], answer["outcome"], answer["until"]) == (8, 1, "pending", "done")


async def test_nothing_more_is_asked_when_the_time_is_over(served: Served) -> None:  # noqa: F811
    client = Client(str(served.path))
    for until, looked_at in ((time.monotonic(), 1), (math.inf, 3)):
        waiting = Waiting(client, "done", fail_on_doubt=False, is_quiet=True, until=until)
        waiting.begin([OFFERED, WAITS, ARCHIVED])
        assert await asyncio.to_thread(waiting.see, None) is False
        reasons = [one["reason"] for one in waiting.told()["fields"]]
        assert 3 - reasons.count("there was no time to look at it") == looked_at
        assert waiting.code() == exits.PENDING


async def test_patterns_are_of_the_fields_that_there_are(served: Served) -> None:  # noqa: F811
    code, out, err = await served.run("wait", "P1*", "P14+30")
    assert (code, out, err) == (0, f"{ARCHIVED}: archived, run P14_30-1\n", "")
    code, _, err = await served.run("wait", "Q*")
    assert (code, err) == (1, "aglowctl: there is no field 'Q*'; see aglowctl fields\n")
    code, _, err = await served.run("wait", "Q1")
    assert (code, err) == (1, "aglowctl: there is no field 'Q1'; see aglowctl fields\n")


async def test_what_has_not_begun_is_pending_and_what_cannot_begin_is_not(served: Served) -> None:  # noqa: F811
    code, _, err = await served.run("wait", OFFERED, "--timeout", "1s", "--until", "stage")
    assert (code, err) == (8, f"aglowctl: {OFFERED}: it has not begun\n")
    code, _, err = await served.run("wait", WRONG, "--until", "stage")
    assert (code, err) == (1, f"aglowctl: {WRONG}: failed: srm3.txt mixes L1 and L2\n")


@pytest.mark.parametrize("flags", [(), ("--fail-on-doubt",)])
async def test_doubt_is_told_of_and_ends_it_if_wanted(served: Served, flags: tuple[str, ...]) -> None:  # noqa: F811
    code, out, err = await served.run("wait", WAITS, "--timeout", "2s", *flags)
    assert (code, out) == (exits.DOUBT if flags else exits.PENDING, "")
    assert "/create_tokens/0 is in doubt: two documents answer to the key" in err
    assert ("goes on only when you do something" in err) is not bool(flags)


async def test_a_verdict_that_is_asked_for_is_doubt(asked: Asked) -> None:  # noqa: F811
    code, _, err = await asked.run("wait", "P1+1", "--fail-on-doubt")
    assert (code, err.startswith("aglowctl: P1+1: P1_1-1/inspect: an operator is asked: well?")) == (5, True)


async def test_ctrl_c_ends_the_waiting_and_says_so(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1")
    process = await begun(daemon, "P1")
    process.send_signal(signal.SIGINT)
    assert await ended(process) == (1, "", "aglowctl: nobody waits any more; the fields go on\n")


@pytest.mark.parametrize("args", [(), ("P1", "--timeout", "soon"), ("P1", "--timeout", "-1s")])
async def test_wrong_usage_is_2(served: Served, args: tuple[str, ...]) -> None:  # noqa: F811
    assert (await served.run("wait", *args))[0] == 2


async def test_no_daemon_at_the_beginning_is_3(served: Served) -> None:  # noqa: F811
    assert (await served.run("--socket", "/nowhere.sock", "wait", "P1"))[0] == 3


# --- a daemon that comes and goes


async def test_what_happened_while_the_daemon_was_away_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        await fill(store)
        served = Served(tmp_path / "aglowd.sock", store)
        async with Control(store, healthy, store.clock, "1").serve(served.path):
            process = await served.begin("wait", OFFERED, ARCHIVED)
            assert await line_of(process) == f"{ARCHIVED}: archived, run P14_30-1\n"
        assert process.stderr is not None
        assert b"it is waited for" in await asyncio.wait_for(process.stderr.readline(), 60)
        await store.put_fields([(FieldView(OFFERED, "ZZZ"), "its lists are gone")])
        async with Control(store, healthy, store.clock, "1").serve(served.path):
            code, _, err = await ended(process)
    assert (code, err) == (1, f"aglowctl: aglowd is back\naglowctl: {OFFERED}: failed: its lists are gone\n")


async def test_a_daemon_that_is_away_when_the_time_is_over_is_3(tmp_path: Path) -> None:
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        await fill(store)
        served = Served(tmp_path / "aglowd.sock", store)
        async with Control(store, healthy, store.clock, "1").serve(served.path):
            process = await served.begin("wait", OFFERED, ARCHIVED, "--timeout", "5s")
            await line_of(process)
        code, _, err = await ended(process)
    assert code == 3
    assert "aglowctl: aglowd is not running" in err


async def test_nothing_is_missed_between_the_look_and_the_events(served: Served) -> None:  # noqa: F811
    """What is committed while everything is looked at comes as news."""
    loop = asyncio.get_running_loop()
    heard: list[Event] = []

    def see(news: list[Event] | None) -> bool:
        if news is None:
            work = served.store.put_fields([(FieldView("LATE", "NEW"), "")])
            asyncio.run_coroutine_threadsafe(work, loop).result(30)
            return False
        heard.extend(news)
        return bool(heard)

    found = await asyncio.to_thread(follow, Client(str(served.path)), see, lambda error: None)
    assert (found, [event["field"] for event in heard]) == (True, ["LATE"])


async def test_a_field_is_asked_about_when_an_event_names_it_and_not_else(daemon: Daemon) -> None:  # noqa: F811
    from aglowd.cli.wait import Waiting

    class Counting(Client):
        asked: list[tuple[str, ...]] = []  # noqa: RUF012 # One test, one client.

        def get(self, *parts: str, **how: object) -> dict[str, object]:  # type: ignore[override] # It passes all on.
            self.asked.append(parts)
            return super().get(*parts, **how)  # type: ignore[arg-type]

    await daemon.begin("P1", "P2")
    client = Counting(str(daemon.served.path))
    waiting = Waiting(client, "done", fail_on_doubt=False, is_quiet=True)

    def look() -> list[tuple[str, ...]]:
        waiting.begin(["P1", "P2"])
        for news in (None, (), [{"field": "P9", "run": "P9-1"}], [{"field": "P2", "run": "P2-1"}]):
            waiting.see(news)
        return client.asked

    assert [parts[2] for parts in await asyncio.to_thread(look)] == ["P1", "P2", "P2"]
