"""`aglowd start --once`: one pass, to the end of what it began, and an exit code that says whether anything is in doubt."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from .child import LIMIT_S, PROGRAM, Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One field, one step: a command that makes a file."""
    made = Home(tmp_path)
    made.tool("make", f"echo x >> {made.path}/site/made")
    made.steps(
        first=f'kind = "command"\nargv = ["make"]\ncreates = "file://{made.path}/site/made"',
        second=f'kind = "wait_files"\nneeds = ["first"]\ndirectory = "file://{made.path}/site"\nexpected = ["later"]\nquiet = "1s"',
    )
    return made


async def once(home: Home, *more: str) -> tuple[int | None, str]:
    argv = (*PROGRAM, "start", "--config", str(home.config), "--once", *more)
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out.decode()


async def test_one_pass_does_what_is_due_and_leaves_what_is_not(home: Home) -> None:
    code, out = await once(home)
    assert code == 0, out
    assert (home.path / "site" / "made").read_text() == "x\n"
    assert dict(home.rows("SELECT name, state FROM steps")) == {"first": "done", "second": "waiting"}
    assert home.rows("SELECT version FROM subjects") != [(0,)], "what it waits for was looked at"
    assert "one_pass_is_over" in out
    code, out = await once(home)
    assert code == 0, out
    assert (home.path / "site" / "made").read_text() == "x\n", "nothing is done twice"
    assert not home.socket.exists()


async def test_it_waits_for_the_end_of_what_it_began(home: Home) -> None:
    os.mkfifo(home.path / "gate")
    home.tool("make", f"read go < {home.path}/gate; echo x >> {home.path}/site/made")
    pass_ = asyncio.create_task(once(home))
    # The pipe has a reader when the command runs: until then this waits, and so does the pass afterwards.
    await asyncio.to_thread((home.path / "gate").write_text, "go\n")
    code, out = await pass_
    assert code == 0, out
    assert dict(home.rows("SELECT name, state FROM steps"))["first"] == "done"


async def test_what_is_in_doubt_is_its_exit_code(home: Home) -> None:
    home.tool("make", "kill -9 $$")
    home.steps(first='kind = "command"\nargv = ["make"]')
    code, out = await once(home)
    assert code == 5, out
    ((state,),) = home.rows("SELECT state FROM effects")
    assert state == "unknown"


async def test_people_are_told_before_it_ends(home: Home) -> None:
    told = home.path / "told"
    home.tool("tell", f"cat >> {told}")
    home.write_config(notify=f'command = ["{home.bin}/tell"]')
    assert (await once(home))[0] == 0  # A way that is new tells nothing of what was before.
    home.tool("break", "exit 1")
    home.steps(first='kind = "command"\nargv = ["break"]')
    home.catalogue.write_text(home.catalogue.read_text().replace("P1+1", "P2+2"))
    code, out = await once(home)
    assert code == 0, out
    message = json.loads(told.read_text())
    assert any("P2+2: run P2_2-1 failed" in notice["text"] for notice in message["notices"]), message


async def test_a_stop_ends_it_as_any_daemon(home: Home) -> None:
    os.mkfifo(home.path / "gate")
    home.tool("make", f"trap '' TERM; echo go > {home.path}/gate; read go < {home.path}/gate")
    argv = (*PROGRAM, "start", "--config", str(home.config), "--once")
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL, start_new_session=True)
    await asyncio.to_thread((home.path / "gate").read_text)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), LIMIT_S) == 5, "what was under way is not known"
