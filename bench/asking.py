"""How fast an operator is answered: a whole survey waits, and events come all the time.

The daemon's side runs in a child process of its own (`python -m bench.asking DATABASE FIELDS`): store, reactor and control
socket as in production, and a stream of observations, each of which wakes a step. The commands run here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from aglowd import __version__
from aglowd.cli.client import Client
from aglowd.control import Control, Health
from aglowd.model import FieldView, Subject
from bench.toy import House, house, pipeline_of

EVENTS_A_MINUTE = 5000
ASKED = 200
COMMANDS = 20
READY = "ready"
STATUS = "SND"
START = "from aglowd.cli.control import main; main(prog_name='aglowctl')"
ROOT = Path(__file__).parent.parent


def _health() -> Health:
    return Health(True, True, (), {}, {}, {}, None, 0.0, 0, {})


async def _disturb(here: House, count: int) -> None:
    """Two events an observation: that it was made, and what the step decided from it."""
    number, began = 0, time.perf_counter()
    while True:
        name = name_of(number % count)
        counts = {"todo": 0, "locked": 1, "done": number // count, "error": 0, "other": 0}
        await here.store.ingest("bench", None, [(Subject("tokens", name), counts)])
        number += 1
        await asyncio.sleep(max(0.0, began + number * 60 / EVENTS_A_MINUTE - time.perf_counter()))


def name_of(number: int) -> str:
    """The name of a field."""
    return f"P{number}"


async def serve(path: Path, count: int) -> None:
    """Answer until standard input ends; a line says when everything waits, and one at the end how many events there were."""
    async with house(path) as here:
        views = [(FieldView(name_of(number), STATUS, {"name": name_of(number)}), "") for number in range(count)]
        await here.store.put_fields(views)
        await here.store.admit(pipeline_of("tokens"), (STATUS,), count)
        await here.store.until_finished(count)
        control = Control(here.store, _health, here.store.clock, __version__)
        async with control.serve(path.parent / "s"):
            print(READY, flush=True)
            load = asyncio.create_task(_disturb(here, count))
            before, began = await here.store.last_event(), time.perf_counter()
            await asyncio.to_thread(sys.stdin.read)
            events = (await here.store.last_event() - before) / (time.perf_counter() - began) * 60
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load
        print(json.dumps({"events_a_minute": events}), flush=True)


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Milliseconds for an answer on the socket, and for whole commands, of which Python's own start is the larger part."""
    count, asked, commands = (300, 20, 2) if quick else (10_000, ASKED, COMMANDS)
    argv = [sys.executable, "-m", "bench.asking", str(directory / "asking.db"), str(count)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        if daemon.stdout.readline().strip() != READY:
            raise RuntimeError("the bench's daemon did not start")
        client, field = Client(str(directory / "s")), name_of(count // 2)
        answers = {
            name: _timed(lambda parts=parts: client.get(*parts), asked)
            for name, parts in {"status": ("v1", "status"), "explain": ("v1", "fields", field, "explain")}.items()
        }
        aglowctl = [sys.executable, "-c", START, "--socket", str(directory / "s")]
        whole = {
            "python": _timed(lambda: _run([sys.executable, "-c", ""]), commands),
            "status": _timed(lambda: _run([*aglowctl, "status"]), commands),
            "explain": _timed(lambda: _run([*aglowctl, "explain", field]), commands),
            "tab_command": _timed(lambda: _complete(directory / "s", "sta"), commands),
            "tab_field": _timed(lambda: _complete(directory / "s", "show", field[:-1]), commands),
        }
        told, _ = daemon.communicate()
    return {"fields": count, "answers": answers, "commands": whole, **json.loads(told)}


def _run(argv: list[str], **env: str) -> None:
    told = {**os.environ, **env}
    subprocess.run(argv, env=told, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=60)


def _complete(socket: Path, *words: str) -> None:
    """What happens when an operator presses Tab behind these words."""
    line = {"COMP_WORDS": " ".join(("aglowctl", *words)), "COMP_CWORD": str(len(words))}
    _run([sys.executable, "-c", START], _AGLOWCTL_COMPLETE="bash_complete", AGLOWD_SOCKET=str(socket), **line)


def _timed(work: Any, times: int) -> dict[str, float]:
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1e3)
    took.sort()
    return {"median_ms": median(took), "p99_ms": took[int(0.99 * (len(took) - 1))]}


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
