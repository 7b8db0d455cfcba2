"""The grid proxy: how long it is still good for, by its certificate and by its VOMS attributes.

Both clocks count: attributes usually end after 12 to 24 h, even in a proxy of a week. A number is believed only when
the tool succeeded and said nothing else: on a truncated file it prints an error *and* a number (recorded).
"""

from __future__ import annotations

import re

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import Temporary
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.words import quoted

_NUMBER = re.compile(r"-?[0-9]{1,12}")
RENEW = "run `voms-proxy-init -voms lofar` (or renew it as your site does)"


class ProxyInfo(Struct, frozen=True):
    """World seconds that are left; no attributes at all are None. An expired proxy has 0 seconds left."""

    seconds_left: float
    ac_seconds_left: float | None
    subject: str


class Proxy:
    """The proxy in the file `path`; None = where the tools look for it themselves."""

    def __init__(self, processes: Processes, path: str | None) -> None:
        self._processes = processes
        self._path = path

    @seam
    async def info(self) -> ProxyInfo:
        """What `voms-proxy-info` tells; Temporary, with what to do, when there is no usable proxy."""
        left = await self._ask("-timeleft")
        seconds = _seconds(left)
        if seconds is None:
            said = quoted(left.stderr, left.stdout, most=200) or f"exit code {left.rc}"
            where = self._path or "$X509_USER_PROXY or /tmp/x509up_u<uid>"
            raise Temporary(f"no usable grid proxy at {where} (voms-proxy-info: {said}); {RENEW}")
        attributes = _seconds(await self._ask("-actimeleft"))
        subject = await self._ask("-subject")
        return ProxyInfo(seconds, attributes, quoted(subject.stdout) if subject.rc == 0 else "")

    @seam
    async def _ask(self, option: str) -> Finished:
        where = ["-file", self._path] if self._path else []
        return await self._processes.run(["voms-proxy-info", *where, option], write=False, timeout_s=30.0)


def _seconds(answer: Finished) -> float | None:
    text = answer.stdout.strip()
    return max(0.0, float(text)) if answer.rc == 0 and _NUMBER.fullmatch(text) else None
