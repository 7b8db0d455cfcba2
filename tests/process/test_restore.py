"""`aglowctl backup` and `aglowd restore` as an operator types them; and a whole run that loses a part of its journal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from world.small import LIMIT_S, SPEED, write_world

from aglowd.cli.demo import Demo

from .child import Home, events, running

AGLOWCTL = "from aglowd.cli.control import main; main(prog_name='aglowctl')"


async def aglowctl(socket: Path, *args: str, cwd: Path) -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", AGLOWCTL, "--socket", str(socket), *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


async def restore(config: Path, file: Path) -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "aglowd.cli", "restore", str(file), "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.tool("once", f'echo "$1" >> {made.path}/site/log; echo x > "{made.path}/site/$1"')
    os.mkfifo(made.path / "gate")
    made.tool("wait", f"read go < {made.path}/gate; echo x > {made.path}/site/waited")
    made.steps(
        first=f'kind = "command"\nargv = ["once", "first"]\ncreates = "file://{made.path}/site/first"',
        gate=f'kind = "command"\nneeds = ["first"]\nargv = ["wait"]\ncreates = "file://{made.path}/site/waited"',
        second=f'kind = "command"\nneeds = ["gate"]\nargv = ["once", "second"]\ncreates = "file://{made.path}/site/second"',
    )
    return made


async def open_gate(home: Home) -> None:
    await asyncio.to_thread((home.path / "gate").write_text, "go\n")


async def test_a_backup_is_made_put_back_and_gone_on_from(home: Home) -> None:
    """What ran after the backup is not run again: the journal does not know of it, the world does."""
    async with running(home) as child:
        await child.event("EffectDone")
        code, out, err = await aglowctl(home.socket, "backup", "saved.bak", cwd=home.path)
        assert (code, err) == (0, "")
        assert out.startswith(f"{home.path}/saved.bak: ")
        assert out.endswith(" bytes, whole and checked\n")
        code, _, err = await aglowctl(home.socket, "backup", "saved.bak", cwd=home.path)
        assert code == 1
        assert "exists already" in err
        assert (await aglowctl(home.socket, "backup", "--force", "saved.bak", cwd=home.path))[0] == 0
        assert [event["data"]["uid"] for event in await child.event("BackedUp", 2)] == [os.getuid()] * 2
        code, _, err = await restore(home.config, home.path / "saved.bak")
        assert code == 75
        assert "nothing was restored: another aglowd uses" in err
        await open_gate(home)
        await child.event("RunEnded")
        child.signal(signal.SIGKILL)
        await child.end()
    code, out, err = await restore(home.config, home.path / "saved.bak")
    assert (code, err) == (0, "")
    assert f"kept as {home.state}/aglowd.db.replaced-1" in out
    assert "effects under way then are looked for" in out
    assert home.rows("SELECT state FROM runs") == [("running",)]
    ((told,),) = home.rows("SELECT data FROM events WHERE kind = 'Restored'")
    assert (json.loads(told)["uid"], json.loads(told)["backup"]) == (os.getuid(), f"{home.path}/saved.bak")
    async with running(home) as again:
        await again.event("RunEnded")
        assert await again.stop() == 0
    assert (home.path / "site" / "log").read_text() == "first\nsecond\n", "each of them once"
    assert home.rows("SELECT DISTINCT state FROM effects") == [("done",)]


async def test_what_cannot_be_restored_is_said_and_nothing_changes(home: Home) -> None:
    async with running(home) as child:
        await child.event("EffectDone")
        await open_gate(home)
        await child.event("RunEnded")
        assert await child.stop() == 0
    (home.path / "text").write_text("no backup")
    before = home.rows("SELECT * FROM events")
    for name in ("text", "missing"):
        code, out, err = await restore(home.config, home.path / name)
        assert (code, out) == (75, "")
        assert err.startswith("nothing was restored: ")
    assert home.rows("SELECT * FROM events") == before
    code, _, err = await restore(home.path / "no.toml", home.path / "text")
    assert code == 78


async def until(demo: Demo, kind: str) -> None:
    """Wait until an effect of that kind is done."""
    await events(demo.socket, lambda event: event["kind"] == "EffectDone" and f"/{kind}/" in event["effect"])


@pytest.mark.world
@pytest.mark.parametrize(
    ("saved", "lost"),
    [
        ("write_status", "stage_files"),
        pytest.param("stage_files", "submit_jobs", marks=pytest.mark.long),
        pytest.param("create_tokens", "archive_tokens", marks=pytest.mark.long),
    ],
)
async def test_a_whole_run_that_lost_a_part_of_its_journal(tmp_path: Path, saved: str, lost: str) -> None:
    """Backed up when the first `saved` is done, killed when the first `lost` is, restored, and carried to the end: the
    ledger of the simulated grid shows nothing twice, and nothing lost."""
    # Slowly: on a busy machine the world goes on for days between the kill and the next life, and pins run out.
    options = msgspec.structs.replace(write_world(tmp_path, subbands=4), speed=SPEED / 3)
    demo = Demo(options, tmp_path / "s")
    async with demo.world():
        try:
            await demo.start()
            await until(demo, saved)
            code, _, err = await aglowctl(demo.socket, "backup", str(tmp_path / "saved.bak"), cwd=tmp_path)
            assert code == 0, err
            await until(demo, lost)
            await demo.kill()
            code, out, err = await restore(demo.state / "aglowd.toml", tmp_path / "saved.bak")
            assert code == 0, err
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
        finally:
            await demo.stop()
    report, _ = await demo.judge(fields)
    db = sqlite3.connect(demo.state / "aglowd.db")
    failures = db.execute("SELECT run, name, reason FROM steps WHERE state = 'failed' AND inherited = 0").fetchall()
    db.close()
    assert not report.duplicates, report.duplicates
    assert not report.lost, report.lost
    assert [field["state"] for field in fields] == ["archived"], (failures, out)
