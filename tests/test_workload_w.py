"""The workload W on the floor and on aglowd: whatever it costs, every field ends, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.workload_w import asker
from bench.workload_w.cell import served
from bench.workload_w.chain import LAST, Load

ROOT = Path(__file__).parent.parent
FIELDS = 4
ACTS = 5
LIMIT_S = 100.0


def begin(out: Path, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "bench.workload_w", "--out", str(out), "--dir", str(out.parent), *options]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def played(directory: Path, *options: str) -> tuple[list[dict[str, Any]], str]:
    """The cells that were measured, and the table."""
    out = directory / "out.json"
    with begin(out, *options) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.terminate()  # It takes with it whatever it started.
    assert process.returncode == 0, said
    cells: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return cells, said


@pytest.mark.parametrize("system", ["floor", "aglowd"])
def test_every_field_ends_and_nothing_is_lost_or_done_twice(system: str, tmp_path: Path) -> None:
    cells, table = played(
        *(tmp_path, "--on", system, "--fields", str(FIELDS), "--kill"), *("--wait-s", "0.2", "--poll-s", "0.1")
    )
    assert [cell["killed"] for cell in cells] == [False, True]
    for cell in cells:
        assert cell.get("trouble") is None
        assert (cell["finished"], cell["acts"]) == (FIELDS, FIELDS * ACTS)
        assert (cell["duplicates"], cell["lost"]) == (0, 0)
        assert cell["act_requests"] == FIELDS * ACTS + cell["repeated"]
        assert cell["over_ideal"] > 0.9
        assert cell["cpu_per_step_ms"] > 0
        assert cell["peak_mb"] > 5
    assert cells[0]["repeated"] == 0
    # Of each field one act was on its way. aglowd does that again under its key; the floor asks whether it was done.
    assert cells[1]["repeated"] <= (FIELDS if system == "aglowd" else 0)
    assert f"{system} {FIELDS} killed" in table


async def test_the_service_tells_apart_what_is_asked_twice_done_twice_and_never_done() -> None:
    with served(Load(2, wait_s=0.05, poll_s=0.01)) as (url, _):
        async with aiohttp.ClientSession() as session:

            async def act(field: str, step: int, key: str) -> Any:
                headers = {"Idempotency-Key": key}
                async with session.post(f"{url}/act/{field}/{step}", headers=headers) as reply:
                    return (await reply.json())["number"]

            await asker.until_done(session, url, "P0", 0, 0.01)
            assert not await asker.was_done(session, url, "P0", 1)
            assert [await act("P0", 1, key) for key in ("a", "a", "b")] == [1, 1, 2]
            assert await asker.was_done(session, url, "P0", 1)
            await act("P0", LAST, "c")
            async with session.get(f"{url}/when", params={"finished": 1}) as reply:
                tally = await reply.json()
    assert (tally["act_requests"], tally["repeated"], tally["duplicates"]) == (4, 1, 1)
    assert tally["acts"] == 2
    assert tally["lost"] == ACTS - 2
    assert len(tally["delays_s"]) == 1
    assert tally["polls"] > 1


def test_the_ideal_is_whole_polls_of_every_wait() -> None:
    assert Load(1, wait_s=10, poll_s=2).ideal_s == 40
    assert Load(1, wait_s=3, poll_s=2).ideal_s == 16


def test_whoever_stops_it_leaves_no_process_behind(tmp_path: Path) -> None:
    with begin(tmp_path / "out.json", "--on", "floor", "--fields", "1", "--wait-s", "1000") as process:
        group: set[int] = set()
        while not any((tmp_path / place / "floor.db").exists() for place in os.listdir(tmp_path)):
            assert process.poll() is None
        group = {int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == process.pid}
        assert len(group) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
    assert not [pid for pid in group if Path(f"/proc/{pid}").exists()]
    assert not [place for place in tmp_path.iterdir() if place.name.startswith("w-")]


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0
