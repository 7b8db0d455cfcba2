"""Calls that may hang: bounded for whoever waits, apart by place, and nobody's concern at the end of the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aglowd.threads import Threads


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


async def test_what_the_call_returned_or_raised() -> None:
    threads = Threads("a place")
    assert await threads.run(lambda: threading.current_thread().name) == "aglowd a place"
    with pytest.raises(FileNotFoundError):
        await threads.run(lambda: os.stat("/no/such/file"))


async def test_a_call_that_hangs_is_given_up_and_says_where(gate: threading.Event) -> None:
    with pytest.raises(TimeoutError, match=r"/data: no answer within 0\.05 s: is its mount dead\?"):
        await Threads("/data").run(gate.wait, 0.05)


async def test_calls_that_hang_take_no_place_from_others_and_end_when_the_mount_is_back(gate: threading.Event) -> None:
    dead, well = Threads("/dead", most=2), Threads("/well", most=2)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="no answer"):
            await dead.run(gate.wait, 0.01)
    before = threading.active_count()
    for _ in range(20):
        with pytest.raises(TimeoutError, match="earlier calls hang, nothing more is asked"):
            await dead.run(gate.wait, 0.001)
    assert threading.active_count() == before, "no thread is added to those that hang"
    assert await asyncio.gather(*(well.run(lambda: 1) for _ in range(40))) == [1] * 40
    gate.set()
    assert await dead.run(lambda: 2) == 2


async def test_a_caller_that_is_cancelled_keeps_its_place_until_the_call_ends(gate: threading.Event) -> None:
    threads = Threads("/data", most=1)
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(began.set)
        gate.wait()
        raise OSError("nobody hears it")

    task = asyncio.create_task(threads.run(hang))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await threads.run(lambda: None, 0.01)
    gate.set()
    assert await threads.run(lambda: 3) == 3


def test_a_thread_that_hangs_holds_up_neither_the_loop_nor_the_exit(tmp_path: Path) -> None:
    """A pipe without a writer: who opens it waits in the kernel, as on a dead mount."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import asyncio, sys\n"
        "from aglowd.threads import Threads\n"
        "async def main():\n"
        "    try:\n"
        "        await Threads('pipe').run(lambda: open(sys.argv[1]).read(), 0.1)\n"
        "    except TimeoutError as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, pipe], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no answer within 0.1 s" in done.stdout
