"""Small worlds: few fields, few subbands, and time that flies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aglowd.cli.demo import DATA, Demo, Options
from aglowd.sim.checker import Report

SPEED = 20_000.0
LIMIT_S = 180.0
"""Real seconds after which a run is given up."""

FIELD = "P22Hetdex04"
TARGET, CALIBRATOR = "229511", "229507"


def srm_lines(obsid: str, subbands: int) -> list[str]:
    """The first lines of a real SRM list."""
    return (DATA / "srm" / f"srm{obsid}.txt").read_text(encoding="utf-8").splitlines()[:subbands]


def csv_row(name: str) -> str:
    """The real catalogue's row of that field."""
    rows = (DATA / "fields.csv").read_text(encoding="utf-8").splitlines()
    return next(row for row in rows if f",{name}," in row)


def write_world(
    directory: Path, rows: Sequence[str] = (), lists: dict[str, Sequence[str]] | None = None, subbands: int = 8
) -> Options:
    """A catalogue with FIELD and further rows, the SRM lists that they name, and the options of a demo on them."""
    srm = directory / "srm"
    srm.mkdir(parents=True)
    for obsid in (TARGET, CALIBRATOR):
        (srm / f"srm{obsid}.txt").write_text("\n".join(srm_lines(obsid, subbands)) + "\n", encoding="utf-8")
    for name, lines in (lists or {}).items():
        (srm / f"srm{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    fields = directory / "input.csv"
    fields.write_text("".join(f"{row}\n" for row in (csv_row(FIELD), *rows)), encoding="utf-8")
    return Options(fields=fields, srm_dir=srm, speed=SPEED)


async def run_to_end(demo: Demo) -> tuple[list[dict[str, Any]], Report, int]:
    """Start the daemon, let every field come to its end, stop, and judge."""
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
        finally:
            await demo.stop()
    return (fields, *await demo.judge(fields))


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition says once it says something."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.1)


def states(fields: list[dict[str, Any]]) -> dict[str, str]:
    """How each field ended."""
    return {field["field"]: field["state"] for field in fields}


async def get(demo: Demo, path: str) -> bytes:
    """The daemon's answer, head and all, as it goes over the socket."""
    reader, writer = await asyncio.open_unix_connection(str(demo.socket))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    return answer


async def aglowctl(demo: Demo, *commands: str) -> dict[str, bytes]:
    """What each command prints, which ends well."""
    said = {}
    for command in commands:
        argv = ["-c", "from aglowd.cli.control import main; main()", "--socket", str(demo.socket), *command.split()]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said[command], _ = await process.communicate()
        assert process.returncode == 0, said[command]
    return said
