"""The grid proxy: how long it is still good for, by its certificate and by its VOMS attributes.

Both clocks count: attributes usually end after 12 to 24 h, even in a proxy of a week. A number is believed only when
the tool succeeded and said nothing else: on a truncated file it prints an error *and* a number (recorded). Where there is
no tool, the file itself is read. A file that others can read is refused by both ways, though the tool would take it.
"""

from __future__ import annotations

import re
from functools import partial

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import Temporary
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.proxy_file import check_mode, place_of, read_proxy
from aglowd.grid.words import quoted
from aglowd.threads import Threads

TOOL = "voms-proxy-info"
_NUMBER = re.compile(r"-?[0-9]{1,12}")
RENEW = "run `voms-proxy-init -voms lofar` (or renew it as your site does)"


class ProxyInfo(Struct, frozen=True):
    """World seconds that are left; no attributes at all are None. An expired proxy has 0 seconds left."""

    seconds_left: float
    ac_seconds_left: float | None
    subject: str

    @property
    def left_s(self) -> float:
        """For how long it is good for pilots: both clocks count."""
        return self.seconds_left if self.ac_seconds_left is None else min(self.seconds_left, self.ac_seconds_left)


class Proxy:
    """The proxy in the file `path`; None = where the tools look for it themselves."""

    def __init__(self, processes: Processes, path: str | None, clock: Clock | None = None) -> None:
        self._processes = processes
        self._path = path
        self._clock = clock or Clock()
        self._threads = Threads("the grid proxy", most=2)

    @property
    def place(self) -> str:
        """The path of its file."""
        return place_of(self._path)

    @seam
    async def info(self) -> ProxyInfo:
        """How long it is good for; Temporary, with what to do, when there is no usable proxy."""
        try:
            if not await self._processes.has(TOOL):
                return await self._threads.run(self._read)
            await self._threads.run(partial(check_mode, self.place))
        except OSError as error:
            raise Temporary(f"the grid proxy {self.place} cannot be read: {error}") from error
        left = await self._ask("-timeleft")
        seconds = _seconds(left)
        if seconds is None:
            said = quoted(left.stderr, left.stdout, most=200) or f"exit code {left.rc}"
            raise Temporary(f"no usable grid proxy at {self.place} ({TOOL}: {said}); {RENEW}")
        attributes = _seconds(await self._ask("-actimeleft"))
        subject = await self._ask("-subject")
        return ProxyInfo(seconds, attributes, quoted(subject.stdout) if subject.rc == 0 else "")

    def _read(self) -> ProxyInfo:
        try:
            found, now = read_proxy(self.place), self._clock.now()
        except Temporary as error:
            raise Temporary(f"{error}; {RENEW}") from error
        attributes = None if found.attributes_end is None else max(0.0, found.attributes_end - now)
        return ProxyInfo(max(0.0, found.ends - now), attributes, found.subject)

    @seam
    async def _ask(self, option: str) -> Finished:
        where = ["-file", self._path] if self._path else []
        return await self._processes.run([TOOL, *where, option], write=False, timeout_s=30.0)


def _seconds(answer: Finished) -> float | None:
    text = answer.stdout.strip()
    return max(0.0, float(text)) if answer.rc == 0 and _NUMBER.fullmatch(text) else None
