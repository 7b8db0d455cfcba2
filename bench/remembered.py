"""What a long log costs: opening a database with many events, and asking for what happened to one field.

The fields are as many as LoTSS has, each with a step that waits; the log is filled to one size after the other. The daemon
is the real command, from its start to the READY that systemd is told (`python -m bench.remembered DIRECTORY COUNT…`; a JSON
object for each count).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from aglowd.clock import Clock
from aglowd.model import FieldView
from aglowd.reactor import outputs_of
from aglowd.store.journal import add_event, last_event
from aglowd.store.store import Store
from bench.asking import name_of
from bench.catalogue import FIELDS
from bench.toy import house, pipeline_of

TOGETHER = 5000
"""Events that are written in one transaction."""
ASKED = 50
READY_REAL_S = 300.0
CONFIG = """\
[daemon]
state_dir = "{here}/state"
socket = "{here}/s"
[catalogue]
path = "{here}/fields.csv"
srm_dir = "{here}"
[lta]
url = "http://127.0.0.1:9/"
[dcache]
url = "http://127.0.0.1:9/"
[picas]
url = "http://127.0.0.1:9/"
[sites.sara]
results = "file://{here}/results"
archive = "file://{here}/archive"
"""


async def begin(path: Path, fields: int) -> None:
    """A run of each field, with a step that waits."""
    async with house(path) as here:
        views = [(FieldView(name_of(number), "SND", {"name": name_of(number)}), "") for number in range(fields)]
        await here.store.put_fields(views)
        await here.store.admit(pipeline_of("tokens"), ("SND",), fields)
        await here.store.until_finished(fields)


async def fill(store: Store, fields: int, upto: int) -> None:
    """Add what daemons write while fields wait, until the log has so many events."""
    runs = await store.at_work()
    while (last := await store.last_event()) < upto:

        def add(db: sqlite3.Connection, first: int = last + 1) -> None:
            for number in range(first, min(first + TOGETHER, upto + 1)):
                field = name_of(number // 2 % fields)
                at = {"field": field, "run": runs[field][1], "step": "wait"}
                done, cause = number // (2 * fields), max(0, number - 2 * fields)
                if number % 2:
                    counts = {"todo": 0, "locked": 1, "done": done, "error": 0, "other": 0}
                    subject = f"tokens:{field}"
                    add_event(db, store.clock.now(), "SubjectChanged", **at, subject=subject, data=counts, cause=cause)
                else:
                    told = {"attempt": 1, "reason": f"{field}: {done} of 244 tokens done", "due": 2e9}
                    add_event(db, store.clock.now(), "StepWaits", **at, data=told, cause=cause)

        await store.db.write(add)


async def _cost(ask: Callable[[str], Awaitable[Any]], fields: int) -> dict[str, float]:
    """Milliseconds for an answer about one field, of the clock and of CPU time."""
    took, cpu = [], time.process_time()
    for number in range(ASKED):
        began = time.perf_counter()
        await ask(name_of(number * fields // ASKED))
        took.append((time.perf_counter() - began) * 1e3)
    return {"ms": median(took), "cpu_ms": (time.process_time() - cpu) / ASKED * 1e3}


async def ask(store: Store, fields: int) -> dict[str, dict[str, float]]:
    """What `history`, `explain` and `events` cost of one field."""
    return {
        "history": await _cost(lambda name: store.history(name, 0.0, 1e12, "", 1000), fields),
        "explain": await _cost(store.explain, fields),
        "explain_then": await _cost(lambda name: store.explain_then(name, store.clock.now()), fields),
        "events": await _cost(lambda name: store.events(field=name), fields),
    }


def start(directory: Path) -> dict[str, float]:
    """Seconds from the command to READY, and the CPU seconds in them."""
    (directory / "aglowd.toml").write_text(CONFIG.format(here=directory), encoding="utf-8")
    (directory / "fields.csv").write_text("SND,229507,,16,4,244,229587,,16,4,244,P1+1,\n", encoding="utf-8")
    place = directory / "n"
    place.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "aglowd.cli", "start", "--config", str(directory / "aglowd.toml")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (directory / "log").open("w") as log:
        notify.bind(str(place))
        notify.settimeout(1.0)
        began = time.perf_counter()
        environ = {**os.environ, "NOTIFY_SOCKET": str(place)}
        with subprocess.Popen(argv, env=environ, stdout=log, stderr=log, cwd=Path(__file__).parent.parent) as daemon:
            try:
                while not _is_ready(notify):
                    if daemon.poll() is not None or time.perf_counter() - began > READY_REAL_S:
                        raise RuntimeError(f"aglowd did not start; its log is {directory}/log")
                fields = Path(f"/proc/{daemon.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                return {"ready_s": time.perf_counter() - began, "ready_cpu_s": ticks / os.sysconf("SC_CLK_TCK")}
            finally:
                daemon.send_signal(signal.SIGKILL)


def _is_ready(notify: socket.socket) -> bool:
    """Whether the next word to systemd is that; nothing is said for a second now and then."""
    with suppress(TimeoutError):
        return b"READY=1" in notify.recv(65_536)
    return False


async def measure(directory: Path, counts: list[int], fields: int = FIELDS) -> None:
    """One size after the other; a line of JSON for each."""
    path = directory / "state" / "aglowd.db"
    path.parent.mkdir()
    await begin(path, fields)
    for count in counts:
        store = Store(path, Clock(), outputs_of)
        await store.open()
        await fill(store, fields, count)
        answers = await ask(store, fields)
        events = await store.db.read(last_event)
        await store.close()
        cpu, began = time.process_time(), time.perf_counter()
        await store.open()
        opened = {"open_s": time.perf_counter() - began, "open_cpu_s": time.process_time() - cpu}
        await store.close()
        size = {"log": events, "database_mb": path.stat().st_size / 1e6}
        print(json.dumps({**size, **opened, **await asyncio.to_thread(start, directory), **answers}), flush=True)


if __name__ == "__main__":
    asyncio.run(measure(Path(sys.argv[1]), [int(count) for count in sys.argv[2:]]))
