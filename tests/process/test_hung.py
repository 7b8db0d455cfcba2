"""Mounts and commands that hang: neither the loop, nor the socket, nor the stop waits for them.

A pipe that nobody writes to stands for the dead mount: who opens it waits in the kernel. What a pipe cannot show is a
process that not even SIGKILL ends; the transport leaves such a one to the kernel after KILL_GRACE_S (tests/grid).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from aglowd import threads as product
from aglowd.clock import Clock
from aglowd.errors import OutsideError, Temporary, Unknown
from aglowd.grid import proc
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage

from .child import STOP_TIMEOUT_S, Home, running

ANSWER_S = 3.0
"""Real seconds within which the socket answers on a busy machine."""


async def test_a_daemon_all_of_whose_mounts_are_dead_answers_and_stops(tmp_path: Path) -> None:
    home = Home(tmp_path)
    secret = home.path / "lta.password"
    secret.touch(mode=0o600)
    secret.write_text("password")
    home.write_config(lta=f'url = "http://127.0.0.1:9/"\nuser = "me"\npassword_file = "{secret}"', rate=1.0)
    dead = home.path / "dead"
    os.mkfifo(dead)
    (home.bin / "tool").symlink_to(dead)
    dead.chmod(0o700)
    home.steps(
        list=f'kind = "srm_list"\npath = "{dead}"\nobsid = "L229507"',
        copy=f'kind = "copy_files"\nfiles = ["file://{dead}"]\ndirectory = "file://{home.path}/site/a"',
        tool='kind = "command"\nargv = ["tool"]\nrepeatable = true',
    )
    async with running(home, env={"WATCHDOG_USEC": "1500000"}) as child:
        await child.event("EffectPlanned", 2)
        await child.event("StepWaits")
        secret.unlink()
        os.mkfifo(secret, 0o600)
        home.catalogue.unlink()
        os.mkfifo(home.catalogue)
        await child.told(lambda text: "WATCHDOG=1" in text)
        for _ in range(5):
            for path in ("/live", "/ready", "/v1/status", "/v1/fields/P1+1/explain"):
                assert (await child.ask(path, ANSWER_S))[0] == 200
        began = time.monotonic()
        assert await child.stop(STOP_TIMEOUT_S + 5.0) == 0
        assert time.monotonic() - began < STOP_TIMEOUT_S + 5.0
        assert not child.logged("effect_raised")
    states = {"copy_file": "open", "make_directory": "done", "run_command": "open"}
    assert dict(home.rows("SELECT kind, state FROM effects")) == states


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path that hangs, and little patience with it."""
    monkeypatch.setattr(product, "FILE_REAL_S", 0.1)
    monkeypatch.setattr(proc, "REACH_REAL_S", 0.1)
    path = tmp_path / "dead"
    os.mkfifo(path, 0o700)
    return path


async def test_a_catalogue_that_hangs_is_temporary_for_a_read_and_unknown_for_a_write(dead: Path) -> None:
    catalogue = CsvCatalogue(dead, "here")
    with pytest.raises(Temporary, match="is its mount dead"):
        await catalogue.rows()
    with pytest.raises(Unknown, match="is its mount dead"):
        await catalogue.write_status("P1", "SND", "AAA", "key")
    with pytest.raises(Temporary, match="earlier calls hang"):
        await catalogue.read_status("P1")


async def test_storage_that_hangs_does_not_hold_up_storage_that_is_well(
    dead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aglowd.grid.storage.CHECKSUM_TIMEOUT_S", 0.1)
    monkeypatch.setattr("aglowd.grid.storage.TRANSFER_TIMEOUT_S", 0.1)
    storage = Storage(Processes(env={}), Site("storage", Clock()))
    there = tmp_path / "well"
    with pytest.raises(Temporary):
        await storage.checksum(dead.as_uri())
    with pytest.raises(Unknown):
        await storage.copy(dead.as_uri(), there.as_uri())
    results = await asyncio.gather(*(storage.checksum(dead.as_uri()) for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {Temporary}
    well = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    if well != tmp_path:
        assert isinstance(await storage.list(well.as_uri()), tuple)


async def test_an_executable_on_a_dead_mount_does_not_block_the_loop(dead: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tool").symlink_to(dead)
    processes = Processes(path=str(tmp_path / "bin"), env={"PATH": os.environ["PATH"]})
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    try:
        with pytest.raises(Temporary, match="tool cannot be started: executables: no answer"):
            await processes.run(["tool"], write=True)
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
    assert ticks >= 3, "the loop went on"
    assert processes.started == 0
    assert (await processes.run(["echo", "well"], write=False)).stdout == "well\n"


async def ended(pid: int) -> None:
    """End the process, and let asyncio hear of it while its loop lives."""
    gone = asyncio.Event()
    fd = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, gone.set)
    os.kill(pid, signal.SIGKILL)
    await gone.wait()
    loop.remove_reader(fd)
    os.close(fd)
    for thread in threading.enumerate():
        if "waitpid-" in thread.name:  # So asyncio waits in Python 3.11; later ones need no thread.
            await asyncio.to_thread(thread.join, 10)
    for _ in range(4):  # The news takes two turns of the loop from the waiting thread to the process's own object.
        await asyncio.sleep(0)


async def test_a_command_that_no_kill_ends_is_left_to_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in uninterruptible sleep: the kill is sent, and nothing happens."""
    monkeypatch.setattr(proc, "KILL_GRACE_S", 0.2)
    pids: list[int] = []
    for verb in ("kill", "killpg"):
        monkeypatch.setattr(os, verb, lambda pid, number: pids.append(pid))
    processes = Processes(concurrency=1, env={"PATH": os.environ["PATH"]})
    began = time.monotonic()
    try:
        with pytest.raises(OutsideError) as caught:
            await processes.run(["sleep", "120"], write=True, timeout_s=0.2)
        assert isinstance(caught.value, Unknown)
        assert (await processes.run(["echo", "next"], write=False)).stdout == "next\n", "its place is free again"
        assert time.monotonic() - began < 30
    finally:
        monkeypatch.undo()
        assert pids, "it was never told to end"
        await ended(pids[0])
