"""The process transport: bounded in time and output, and nothing that it started outlives its call."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.proc import Processes

from .conftest import Install

both = pytest.mark.parametrize("write", [False, True], ids=["read", "write"])


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def pids_in(path: Path) -> list[int]:
    """The process ids that a tool writes down, once they are there."""
    for _ in range(500):
        if path.exists() and len(path.read_text().split()) == 2:
            return [int(word) for word in path.read_text().split()]
        await asyncio.sleep(0.01)
    raise AssertionError("the tool did not start")


async def all_end(pids: list[int]) -> bool:
    for _ in range(500):
        if not any(map(is_alive, pids)):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_what_it_said_and_how_it_ended_is_told_and_not_judged(processes: Processes, install: Install) -> None:
    install("tool", r"cat; printf 'a\377b'; echo no >&2; pwd; echo $WORD; exit 3")
    done = await processes.run(["tool", "x y"], write=True, stdin=b"in:", cwd="/", env={"WORD": "w"})
    assert (done.argv, done.rc, done.stdout, done.stderr) == (("tool", "x y"), 3, "in:a\ufffdb/\nw\n", "no\n")
    assert processes.started == 1


@both
async def test_what_cannot_be_started_is_temporary(
    processes: Processes, install: Install, tmp_path: Path, write: bool
) -> None:
    (tmp_path / "bin" / "plain").write_text("not executable")
    for argv, cwd in ((["no-such-tool"], None), (["plain"], None), (["sh"], "/no/such/place")):
        with pytest.raises(Temporary, match="cannot be started"):
            await processes.run(argv, write=write, cwd=cwd)
    with pytest.raises(Permanent):
        await processes.run(["sh", "a\0b"], write=write)
    assert processes.started == 0


@both
async def test_a_timeout_kills_the_whole_group(
    processes: Processes, install: Install, tmp_path: Path, write: bool
) -> None:
    install("slow", f"sleep 60 & echo $$ $! > {tmp_path}/pids; wait")
    with pytest.raises(Unknown if write else Temporary, match=r"killed after 0\.3 s"):
        await processes.run(["slow"], write=write, timeout_s=0.3)
    assert await all_end(await pids_in(tmp_path / "pids"))


async def test_a_cancellation_kills_the_whole_group(processes: Processes, install: Install, tmp_path: Path) -> None:
    install("slow", f"sleep 60 & echo $$ $! > {tmp_path}/pids; wait")
    task = asyncio.ensure_future(processes.run(["slow"], write=True))
    pids = await pids_in(tmp_path / "pids")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_end(pids)


def stand_still_until(condition: Callable[[], object]) -> None:
    """Keep the loop from going on with a start, while the tool itself goes on."""
    give_up = time.monotonic() + 10.0
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)


async def test_a_cancellation_while_it_starts_kills_the_whole_group(
    processes: Processes, install: Install, tmp_path: Path
) -> None:
    """The process is there and its start has not returned: a grandchild that keeps the pipes must not keep us."""
    install("slow", f"sleep 60 & echo $$ $! > {tmp_path}/pids; wait")
    before = len(psutil.Process().children())
    task = asyncio.ensure_future(processes.run(["slow"], write=True))
    async with asyncio.timeout(10):
        while len(psutil.Process().children()) == before:  # noqa: ASYNC110 # It must be met in the middle of its start.
            await asyncio.sleep(0)
    stand_still_until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
    assert await all_end(await pids_in(tmp_path / "pids"))
    assert processes.started == 0, "the start had returned: this test has shown nothing"


@both
async def test_too_much_output_is_cut_off(processes: Processes, install: Install, write: bool) -> None:
    install("loud", "yes >&2")
    with pytest.raises(Unknown if write else Temporary, match="more than 10000 bytes"):
        await processes.run(["loud"], write=write, max_output_bytes=10_000)


@both
async def test_a_signal_is_no_end_of_its_own(processes: Processes, install: Install, write: bool) -> None:
    install("suicide", "echo half; kill -9 $$")
    with pytest.raises(Unknown if write else Temporary, match="signal 9"):
        await processes.run(["suicide"], write=write)


async def test_a_grandchild_that_keeps_the_pipe_holds_nobody_up(
    processes: Processes, install: Install, tmp_path: Path
) -> None:
    install("leaver", f"sleep 60 & echo $$ $! > {tmp_path}/pids; echo done")
    done = await asyncio.wait_for(processes.run(["leaver"], write=True), 10)
    assert (done.rc, done.stdout) == (0, "done\n")
    assert await all_end(await pids_in(tmp_path / "pids"))


async def test_no_more_than_its_places_at_once(tmp_path: Path) -> None:
    processes = Processes(concurrency=1, env={"PATH": os.environ["PATH"]})
    script = f"mkdir {tmp_path}/in || exit 9; sleep 0.05; rmdir {tmp_path}/in"
    ended = await asyncio.gather(*(processes.run(["sh", "-c", script], write=False) for _ in range(4)))
    assert [done.rc for done in ended] == [0] * 4


async def test_a_tool_that_does_not_read_its_input_is_fine(processes: Processes, install: Install) -> None:
    install("deaf", "exit 0")
    assert (await processes.run(["deaf"], write=False, stdin=b"x" * 1_000_000)).rc == 0


async def test_programs_that_see_other_variables_have_the_same_places(processes: Processes, install: Install) -> None:
    install("show", 'echo "$X509_USER_PROXY"')
    other = processes.with_environment(X509_USER_PROXY="/p/surveys")
    said = [(await one.run(["show"], write=False)).stdout for one in (processes, other)]
    assert said == ["\n", "/p/surveys\n"]
