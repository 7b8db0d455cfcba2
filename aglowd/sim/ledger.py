"""The world's own record: everything that was ever done to it, and what it did itself, as JSON lines.

Append-only, one writer. It is the strongest oracle that the tests have, so it must not depend on what the daemon
believes: each line is written where the deed takes effect. Lines are buffered and reach the file within `FLUSH_S`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

FLUSH_S = 0.05
_encode = msgspec.json.Encoder().encode


class Ledger:
    """Appends lines to one file: t (world), real (epoch), system, op, by, and the deed's own arguments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []

    def write(self, t: float, system: str, op: str, by: str, arguments: dict[str, Any]) -> None:
        """Record one deed; `by` is client, pilot or world."""
        head = {"t": round(t, 3), "real": round(time.time(), 4), "system": system, "op": op, "by": by}
        self._lines.append(_encode(head | arguments))

    def flush(self) -> None:
        """Bring every line to the file."""
        if self._lines:
            lines, self._lines = self._lines, []
            self._file.write(b"\n".join(lines) + b"\n")

    async def run(self) -> None:
        """Flush for ever; the owner cancels it and calls `close`."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()

    def close(self) -> None:
        self.flush()
        self._file.close()
