"""Signals, two daemons, and the stop: an exit in time, and a journal that tells the truth."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from .child import PROGRAM, STOP_TIMEOUT_S, Home, running, start

KILL_S = 8.0
"""Real seconds beyond the stop timeout that the end of commands and of the process may take on a busy machine."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One field, one step: a command that says when it begins, and waits for the test before it makes its file."""
    made = Home(tmp_path)
    os.mkfifo(made.path / "began")
    os.mkfifo(made.path / "gate")
    made.tool(
        "slow",
        f"trap '' TERM; echo $$ > {made.path}/began; read go < {made.path}/gate; echo x >> {made.path}/site/made",
    )
    made.steps(work=f'kind = "command"\nargv = ["slow"]\ncreates = "file://{made.path}/site/made"')
    return made


async def read(path: Path) -> str:
    """The word that comes through the pipe."""
    return await asyncio.to_thread(path.read_text)


async def write(path: Path) -> None:
    await asyncio.to_thread(path.write_text, "go\n")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_second_daemon_is_refused_and_the_first_goes_on(home: Home) -> None:
    async with running(home) as first:
        await read(home.path / "began")
        second = await start(home)
        said, _ = await second.communicate()
        assert second.returncode == 75
        assert f"another aglowd uses {home.state}; stop it first, or give this one its own state_dir" in said.decode()
        assert (await first.ask("/ready"))[0] == 200
        await write(home.path / "gate")
        await first.event("RunEnded")
        assert await first.stop() == 0


async def test_a_stop_lets_an_effect_end(home: Home) -> None:
    async with running(home) as child:
        await read(home.path / "began")
        child.signal(signal.SIGTERM)
        await child.told(lambda text: "STOPPING=1" in text)
        await write(home.path / "gate")
        assert await child.end() == 0
    assert home.rows("SELECT state FROM effects") == [("done",)]


async def test_an_effect_that_does_not_end_in_time_stands_open_and_is_looked_for(home: Home) -> None:
    """The command ignores SIGTERM and hangs."""
    async with running(home) as child:
        pid = int(await read(home.path / "began"))
        assert await child.stop(STOP_TIMEOUT_S + KILL_S) == 0
        assert child.logged("effects_left_open")
    assert not is_alive(pid), "what the daemon started does not outlive it"
    assert home.rows("SELECT state FROM effects") == [("open",)]
    async with running(home) as child:
        await read(home.path / "began")  # It was looked for, it is not there: it begins again.
        await write(home.path / "gate")
        await child.event("RunEnded")
        assert await child.stop() == 0
    assert (home.path / "site" / "made").read_text() == "x\n"
    assert home.rows("SELECT state, reason FROM effects") == [("done", "")]


async def test_an_effect_that_ended_while_nobody_looked_is_found(home: Home) -> None:
    async with running(home) as child:
        await read(home.path / "began")
        assert await child.stop(STOP_TIMEOUT_S + KILL_S) == 0
    (home.path / "site" / "made").write_text("made by a process that the kill did not reach\n")
    async with running(home) as child:
        await child.event("RunEnded")
        assert await child.stop() == 0
    assert "made by" in (home.path / "site" / "made").read_text(), "it was not done again"


async def test_a_hang_up_is_no_reason_to_end(home: Home) -> None:
    async with running(home) as child:
        await read(home.path / "began")
        child.signal(signal.SIGHUP)
        await write(home.path / "gate")
        await child.event("RunEnded")
        assert (await child.ask("/ready"))[0] == 200
        assert await child.stop() == 0
        assert len(child.logged("reloaded")) == 1


async def test_a_daemon_that_was_frozen_for_hours_goes_on_and_keeps_its_lock(tmp_path: Path) -> None:
    """While it is stopped hours of the world pass: it times out nothing that has ended meanwhile, and does nothing twice."""
    home = Home(tmp_path, rate=3600.0)
    os.mkfifo(home.path / "began")
    os.mkfifo(home.path / "gate")
    home.tool("slow", f"echo $$ > {home.path}/began; read go < {home.path}/gate; echo x >> {home.path}/site/made")
    home.tool("quick", f"echo y >> {home.path}/site/quick")
    home.steps(
        work=f'kind = "command"\nargv = ["slow"]\ncreates = "file://{home.path}/site/made"\nrun_timeout = "30d"',
        after=f'kind = "command"\nneeds = ["work"]\nargv = ["quick"]\ncreates = "file://{home.path}/site/quick"',
    )
    async with running(home) as child:
        await read(home.path / "began")
        child.signal(signal.SIGSTOP)
        second = await start(home)  # Its start takes a good part of a second: that is an hour.
        said, _ = await second.communicate()
        assert second.returncode == 75, said
        await write(home.path / "gate")
        child.signal(signal.SIGCONT)
        ended = await child.event("RunEnded")
        assert ended[0]["data"]["state"] == "done"
        status, answer = await child.ask("/live")
        assert (status, answer["alive"]) == (200, True)
        assert await child.stop() == 0
    assert (home.path / "site" / "made").read_text() == "x\n"
    assert (home.path / "site" / "quick").read_text() == "y\n"


async def test_a_stop_under_load_loses_and_repeats_nothing(tmp_path: Path) -> None:
    fields = [f"P{number}+1" for number in range(12)]
    home = Home(tmp_path, fields=fields)
    home.tool("once", f'echo "$1" >> {home.path}/site/log; echo x > "{home.path}/site/$1"')
    step = 'kind = "command"\nargv = ["once", "{{{{ field.name }}}}-{0}"]\ncreates = "file://{1}/site/{{{{ field.name }}}}-{0}"\n'
    home.steps(
        first=step.format("first", home.path),
        second=step.format("second", home.path) + 'needs = ["first"]',
        third=step.format("third", home.path) + 'needs = ["second"]',
    )
    for stop_at in (3, 17):
        async with running(home) as child:
            await child.event("EffectDone", stop_at)
            assert await child.stop(STOP_TIMEOUT_S + KILL_S) == 0
            assert not child.logged("effects_left_open")
        assert home.rows("PRAGMA integrity_check") == [("ok",)]
        assert home.rows("SELECT count(*) FROM effects WHERE state = 'open' AND intended IS NULL") == [(0,)]
    async with running(home) as child:
        await child.event("RunEnded", len(fields))
        assert await child.stop() == 0
    said = (home.path / "site" / "log").read_text().split()
    assert sorted(said) == sorted(f"{field}-{name}" for field in fields for name in ("first", "second", "third"))


async def test_the_end_comes_even_if_a_thread_hangs_that_python_waits_for(home: Home) -> None:
    """As a thread of SQLite's on a state directory that is gone: the process ends itself, as a kill would."""
    os.mkfifo(home.path / "dead")
    hangs = (
        "import sys, threading; from aglowd.cli.daemon import main; "
        f"threading.Thread(target=lambda: open('{home.path}/dead').read()).start(); main()"
    )
    async with running(home, (PROGRAM[0], "-c", hangs)) as child:
        await read(home.path / "began")
        await write(home.path / "gate")
        await child.event("RunEnded")
        assert await child.stop(STOP_TIMEOUT_S + 6.0 + KILL_S) == 0
        assert child.logged("stopped"), "the stop itself was orderly"
