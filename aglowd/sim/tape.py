"""The tape library and the disks before it: which file is online at which instant, and who pinned it.

Shared by the LTA stager (which recalls and releases), dCache (which tells the locality) and the pilots (which read).
Nothing here runs: every file's fate is planned when it is asked for, and states are computed from times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from aglowd.sim.world import DAY_S, HOUR_S, World

RECALL_S = (2 * HOUR_S, 30 * HOUR_S)
PIN_S = 7 * DAY_S
SIZE_BYTES = (5e9, 15e9)

_SURL_PATH = re.compile(r"(?:srm://[^/?]+)?(?:/+srm/managerv2\?SFN=)?(/.*)", re.IGNORECASE)


def surl_path(surl: str) -> str:
    """The path part of a SURL, in one spelling: no managerv2 prefix, no doubled slashes."""
    found = _SURL_PATH.fullmatch(surl.strip())
    return re.sub(r"/{2,}", "/", found[1]) if found else surl.strip()


@dataclass(frozen=True)
class Pin:
    """One request's hold on a file: online from `start` to `end` (world seconds)."""

    start: float
    end: float


@dataclass
class TapeFile:
    """A file on tape, the pins that keep it on disk, and how often it was asked for."""

    pins: dict[int, Pin] = field(default_factory=dict)
    asked: int = 0
    lost: float = inf
    """From when on neither tape nor disk has it any more."""
    away_until: float = -inf
    """Until when the disk that it is on cannot be reached."""
    created: float | None = None
    """When it was ingested, if that was after the world's beginning."""

    def is_online(self, t: float) -> bool:
        return self.locality(t) == "ONLINE_AND_NEARLINE"

    def locality(self, t: float) -> str:
        """Where it is, in dCache's words."""
        if t >= self.lost:
            return "LOST"
        if not any(pin.start <= t < pin.end for pin in self.pins.values()):
            return "NEARLINE"
        return "UNAVAILABLE" if t < self.away_until else "ONLINE_AND_NEARLINE"

    def recall_expected(self, t: float) -> float | None:
        """When the file comes online by a recall that is already under way at `t`."""
        return min((pin.start for pin in self.pins.values() if pin.start > t), default=None)


class Tape:
    """Every file that the LTA holds, by path."""

    def __init__(self, world: World, surls: Iterable[str], pin_s: float = PIN_S) -> None:
        self._world = world
        self.pin_s = pin_s
        self._files = {surl_path(surl): TapeFile() for surl in surls}
        self._directories = {path.rpartition("/")[0] for path in self._files}
        self.told: Callable[[str, float, float], None] | None = None
        """Is told of each recall: the path, when it was asked for, when it is online."""

    def __len__(self) -> int:
        return len(self._files)

    def find_file(self, surl: str) -> TapeFile | None:
        return self._files.get(surl_path(surl))

    def add(self, surl: str, created: float) -> None:
        """Ingest one more file."""
        self._files[surl_path(surl)] = TapeFile(created=created)

    def list_files(self) -> Iterable[tuple[str, TapeFile]]:
        """Every path and its file."""
        return self._files.items()

    def size_bytes(self, surl: str) -> int:
        """How large it is: drawn."""
        return int(self._world.between(*SIZE_BYTES, "size", surl_path(surl)))

    def has_directory(self, path: str) -> bool:
        """Whether files lie in it."""
        return path in self._directories

    def is_online(self, surl: str, t: float) -> bool:
        file = self.find_file(surl)
        return file is not None and file.is_online(t)

    def recall(self, request: int, surl: str, t: float, until: float | None = None) -> float | None:
        """Ask for a file from `t` on and pin it; returns when it is online, or None when there is no such file.

        Its pin ends at `until`, even before the file has come; without one, when the site's pins end.
        """
        file = self.find_file(surl)
        if file is None or t >= file.lost:
            return None
        file.asked += 1
        if file.is_online(t):
            online = t
        else:
            online = t + self._world.between(*RECALL_S, "recall", surl_path(surl), file.asked)
            under_way = file.recall_expected(t)
            online = online if under_way is None else min(online, under_way)
        file.pins[request] = Pin(online, online + self.pin_s if until is None else until)
        if self.told is not None:
            self.told(surl_path(surl), t, online)
        return online

    def release(self, request: int, surls: Iterable[str]) -> None:
        """Drop the request's pins; a file goes offline unless another request holds it."""
        for surl in surls:
            file = self.find_file(surl)
            if file is not None:
                file.pins.pop(request, None)


def list_surls(directory: Path) -> tuple[str, ...]:
    """Every SURL in the directory's SRM lists: on each line, the first column that is one."""
    found: dict[str, None] = {}
    for path in sorted(directory.glob("*.txt")):
        for line in path.read_text(errors="replace").splitlines():
            surl = next((word for word in line.split() if word.startswith("srm://")), None)
            if surl:
                found[surl] = None
    return tuple(found)
