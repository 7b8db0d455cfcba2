"""A reload of a real daemon: by signal and by command, with systemd told, and what is wrong taken by nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from .child import Child, Home, events, running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two fields, of which one is taken; its step waits for the test."""
    made = Home(tmp_path, fields=("P1+1", "P2+1"))
    os.mkfifo(made.path / "gate")
    made.tool("slow", f'read go < {made.path}/gate; echo x > "{made.path}/site/$1"')
    made.steps(work=f'kind = "command"\nargv = ["slow", "made"]\ncreates = "file://{made.path}/site/made"')
    (made.path / "aglowd.d").mkdir()
    drop(made, "[catalogue]\nmax_fields = 1\n")
    return made


def drop(home: Home, text: str) -> None:
    (home.path / "aglowd.d" / "10.toml").write_text(text)


async def ctl(home: Home, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from aglowd.cli.control import main; main()", "--socket", str(home.socket), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def begun(child: Child, count: int) -> list[dict[str, Any]]:
    return await events(child.home.socket, lambda event: bool(event["kind"] == "RunStarted"), count)


async def test_a_hang_up_reads_everything_anew_and_stops_nothing(home: Home) -> None:
    async with running(home) as child:
        await begun(child, 1)
        drop(home, "[catalogue]\nmax_fields = 2\n[daemon]\nlog_level = 'warning'\n")
        child.signal(signal.SIGHUP)
        word = await child.told(lambda text: text.startswith("RELOADING=1"))
        assert int(word.partition("MONOTONIC_USEC=")[2]) > 0
        await child.told(lambda text: "READY=1" in text)
        await begun(child, 2)
        (event,) = await child.event("Reloaded")
        assert (event["data"]["uid"], event["data"]["restart"]) == (None, [])
        assert event["data"]["changed"] == ["catalogue.max_fields: 1 → 2", 'daemon.log_level: "info" → "warning"']
        assert (await child.ask("/ready"))[0] == 200
        assert await child.stop() == 0
        assert not child.logged("stopping"), "the level of the log has changed, too"


async def test_what_is_wrong_is_told_and_the_daemon_goes_on_as_before(home: Home) -> None:
    async with running(home) as child:
        await begun(child, 1)
        drop(home, "[catalogue]\nmax_fields = 0\ncolour = 1\n")
        code, out, err = await ctl(home, "reload", "--reason", "more")
        where = home.path / "aglowd.d" / "10.toml"
        assert (code, out) == (1, "")
        assert f"{where}:2: catalogue.max_fields: 0 is too small" in err
        assert f"{where}:3: unknown key 'colour'" in err
        child.signal(signal.SIGHUP)
        refused = await child.event("ReloadRefused", 2)
        assert [one["data"]["uid"] for one in refused] == [os.getuid(), None]
        assert refused[0]["data"]["reason"] == "more"
        await child.told(lambda text: text.startswith("RELOADING=1"))
        await child.told(lambda text: "READY=1" in text)
        drop(home, "[catalogue]\nmax_fields = 1\n")
        code, out, _ = await ctl(home, "reload")
        assert (code, out) == (0, "nothing has changed\n")
        assert await child.stop() == 0
        assert len(child.logged("reload_refused")) == 2


async def test_a_command_shows_what_differs_and_what_needs_a_restart(home: Home) -> None:
    async with running(home) as child:
        await begun(child, 1)
        drop(
            home,
            "[catalogue]\nmax_fields = 2\n[daemon]\nprocesses = 3\n[notify]\nwebhook = 'http://127.0.0.1:9/sesame'\n",
        )
        home.pipeline.write_text(home.pipeline.read_text().replace('"made"', '"other"'))
        lines = [
            "daemon.processes: 8 → 3 (needs a restart)",
            "catalogue.max_fields: 1 → 2",
            'notify.webhook: "" → "***"',
            "pipeline toy is another one for new runs",
        ]
        code, out, _ = await ctl(home, "reload", "--dry-run")
        assert (code, sorted(out.splitlines())) == (0, sorted([*lines, "nothing was changed: this was a dry run"]))
        code, out, _ = await ctl(home, "reload", "--json")
        assert (code, json.loads(out)["done"]) == (0, True)
        code, out, _ = await ctl(home, "reload")
        assert (code, out.splitlines()) == (0, lines[:1]), "it waits for the restart, and is told until then"
        _, out, _ = await ctl(home, "status")
        assert "RESTART  changed in the configuration, and waiting for it: daemon.processes\n" in out
        _, out, _ = await ctl(home, "events", "-n", "1000")
        assert "catalogue.max_fields: 1 → 2" in out, "whoever reads the events sees what was changed"
        (event, _) = await child.event("Reloaded", 2)
        assert event["data"]["uid"] == os.getuid()
        assert event["data"]["pipelines"]["changed"] == ["toy"]
        await begun(child, 2)
        assert await child.stop() == 0
        assert "sesame" not in json.dumps(child.log)
    first, second = home.rows("SELECT pipeline FROM runs ORDER BY id")
    assert first != second, "the field that runs keeps the pipeline that it began with"


async def test_many_hang_ups_at_once_do_no_harm(home: Home) -> None:
    async with running(home) as child:
        await begun(child, 1)
        for number in range(50):
            drop(home, f"[catalogue]\nmax_fields = {number % 2 + 1}\n")
            child.signal(signal.SIGHUP)
        drop(home, "[catalogue]\nmax_fields = 2\n")
        child.signal(signal.SIGHUP)
        await begun(child, 2)
        assert (await child.ask("/live"))[0] == 200
        assert await child.stop() == 0
        assert not child.logged("reload_raised")
