"""`aglowctl logs` and `aglowctl metrics`, as processes, wherever the log is kept."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from populated import healthy
from support import opened

from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.metrics import Metrics

from .test_aglowctl import Served


def line(event: str, field: str = "", age_s: float = 0.0, **values: Any) -> str:
    """A line of the log."""
    at = datetime.fromtimestamp(time.time() - age_s, UTC).isoformat().replace("+00:00", "Z")
    about = {"field": field} if field else {}
    return json.dumps({**about, **values, "event": event, "logger": "x", "level": "info", "at": at})


@asynccontextmanager
async def daemon(tmp_path: Path, **place: str) -> AsyncIterator[Served]:
    """A daemon that says of its log what the test says."""
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        metrics = Metrics(store, healthy, store.clock, "1", {}, ())
        server = Control(store, healthy, store.clock, "1", metrics=metrics.answer, log_place=place)
        async with server.serve(tmp_path / "s"):
            yield Served(tmp_path / "s", store)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "aglowd.log"
    lines = (
        "Traceback of a start that went wrong",
        line("ready", age_s=9000),
        line("step_wait", "P1", 8000, step="stage", reason="no turn"),
        line("step_wait", "P2", 7000),
        line("step_done", "P1", 60, step="stage", odd="\x1b[31m"),
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


async def test_a_file_is_looked_through(tmp_path: Path, written: Path) -> None:
    async with daemon(tmp_path, to="file", path=str(written)) as served:
        code, out, err = await served.run("logs", "P1")
        assert (code, err) == (0, "")
        first, second = out.splitlines()
        assert first[21:] == 'info     step_wait field=P1 step=stage reason="no turn"'
        assert first[:4] == str(datetime.now(UTC).year)
        assert "\x1b" not in second
        _, out, _ = await served.run("logs", "P1", "--since", "1h")
        assert "step_done" in out
        assert "step_wait" not in out
        _, out, _ = await served.run("logs", "--json", "-n", "1")
        assert json.loads(out)["event"] == "step_done"
        _, out, _ = await served.run("logs")
        assert out.startswith("Traceback of a start")
        _, out, _ = await served.run("logs", "--since", "2099-01-01")
        assert out == ""
        code, _, err = await served.run("logs", "--since", "soon")
        assert code == 2
        assert "neither a duration" in err


async def test_a_file_is_followed_also_when_it_is_rotated(tmp_path: Path, written: Path) -> None:
    async with daemon(tmp_path, to="file", path=str(written)) as served:
        process = await served.begin("logs", "P1", "-f", "--json")
        assert process.stdout is not None

        async def event() -> str:
            assert process.stdout is not None
            text = await asyncio.wait_for(process.stdout.readline(), 30)
            return str(json.loads(text)["event"])

        assert [await event(), await event()] == ["step_wait", "step_done"]
        with written.open("a", encoding="utf-8") as file:
            file.write(f"{line('other', 'P2')}\n{line('appended', 'P1')}\n")
        assert await event() == "appended"
        written.rename(tmp_path / "aglowd.log.1")
        written.write_text(line("anew", "P1") + "\n", encoding="utf-8")
        assert await event() == "anew"
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    async with daemon(tmp_path, to="file", path=f"{tmp_path}/none.log") as served:
        code, _, err = await served.run("logs", "P1")
    assert code == 1
    assert f"the log {tmp_path}/none.log cannot be read: No such file" in err


async def test_a_log_that_nobody_keeps_is_no_silence(tmp_path: Path) -> None:
    async with daemon(tmp_path, to="stdout") as served:
        code, out, err = await served.run("logs", "P1")
    assert (code, out) == (1, "")
    assert "log_file = " in err


def fake_journalctl(tmp_path: Path, *entries: dict[str, Any]) -> str:
    """A journalctl that tells these and notes how it was called; returns a PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    (tmp_path / "entries").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    program = place / "journalctl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\ncat {tmp_path}/entries\n')
    program.chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


async def test_the_journal_is_asked_by_its_fields(tmp_path: Path) -> None:
    path = fake_journalctl(
        tmp_path, {"AGLOW_DATA": line("step_done", "P1", step="stage"), "MESSAGE": "x"}, {"MESSAGE": "y"}
    )
    async with daemon(tmp_path, to="journal", unit="aglowd.service", native="yes") as served:
        code, out, err = await served.run("logs", "P1", "--since", "2026-11-26T08:00", "-f", PATH=path)
    assert (code, err) == (0, "")
    assert out[21:] == "info     step_done field=P1 step=stage\n"
    words = (tmp_path / "argv").read_text().split("\n")
    assert {"--output=json", "--all", "--follow", "AGLOW_FIELD=P1", "_SYSTEMD_UNIT=aglowd.service"} <= set(words)
    assert f"--since=@{datetime(2026, 11, 26, 8, tzinfo=UTC).timestamp():.0f}" in words


async def test_json_in_the_journal_is_picked_by_us(tmp_path: Path) -> None:
    path = fake_journalctl(tmp_path, {"MESSAGE": line("a", "P1")}, {"MESSAGE": line("b", "P2")}, {"MESSAGE": [1, 2]})
    async with daemon(tmp_path, to="journal", unit="aglowd.service", native="") as served:
        _, out, _ = await served.run("logs", "P1", "--json", PATH=path)
    assert [json.loads(one)["event"] for one in out.splitlines()] == ["a"]
    assert not any(word.startswith("AGLOW_FIELD") for word in (tmp_path / "argv").read_text().split("\n"))


async def test_of_a_daemon_that_is_down_the_journal_is_asked(tmp_path: Path, written: Path) -> None:
    path = fake_journalctl(tmp_path, {"AGLOW_DATA": line("stopped", "P1")})
    nobody: Any = None
    served = Served(tmp_path / "s", nobody)
    code, out, _ = await served.run("logs", "P1", PATH=path)
    assert code == 0
    assert "stopped" in out
    assert "SYSLOG_IDENTIFIER=aglowd" in (tmp_path / "argv").read_text()
    code, _, err = await served.run("logs", "P1", PATH="/nowhere")
    assert code == 3
    assert "--file PATH" in err
    code, out, _ = await served.run("logs", "P1", "--file", str(written), PATH="/nowhere")
    assert (code, len(out.splitlines())) == (0, 2)


async def test_a_journalctl_that_fails_is_told(tmp_path: Path) -> None:
    path = fake_journalctl(tmp_path)
    (tmp_path / "bin" / "journalctl").write_text("#!/bin/sh\necho 'No journal files' >&2\nexit 1\n")
    async with daemon(tmp_path, to="journal", unit="", native="yes") as served:
        code, _, err = await served.run("logs", PATH=path)
    assert code == 1
    assert "No journal files" in err
    assert "journalctl ended with 1" in err


async def test_metrics_are_shown(tmp_path: Path) -> None:
    async with daemon(tmp_path, to="stdout") as served:
        code, out, err = await served.run("metrics")
        assert (code, err) == (0, "")
        assert "\naglowd_alive 1.0\n" in out
        _, out, _ = await served.run("metrics", "--json")
        answer = json.loads(out)
        assert answer["schema"] == 1
        assert {"name": "aglowd_alive", "labels": {}, "value": 1.0} in answer["metrics"]


async def test_a_report_holds_the_latest_lines_without_secrets(tmp_path: Path, written: Path) -> None:
    with written.open("a", encoding="utf-8") as log:
        log.write(f"{line('told', header='Authorization: Bearer abcdef')}\n")
    async with daemon(tmp_path, to="file", path=str(written)) as served:
        code, _, err = await served.run("report", "-o", str(tmp_path / "report.tgz"))
    assert (code, err) == (0, "")
    with tarfile.open(tmp_path / "report.tgz") as tar:
        (name,) = (name for name in tar.getnames() if name.endswith("/log.jsonl"))
        file = tar.extractfile(name)
        assert file is not None
        first, *others = map(json.loads, file.read().splitlines())
    assert first == "Traceback of a start that went wrong"
    assert [one["event"] for one in others] == ["ready", "step_wait", "step_wait", "step_done", "told"]
    assert "abcdef" not in json.dumps(others)


async def test_a_report_says_why_it_holds_no_log(tmp_path: Path) -> None:
    async with daemon(tmp_path, to="nowhere") as served:
        code, out, _ = await served.run("report", "-o", str(tmp_path / "report.tgz"))
    assert code == 0
    assert "not in it: log.jsonl: aglowd writes its log to where it was started" in out
