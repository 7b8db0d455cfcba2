"""The grid proxy and `voms-proxy-info` (C++ client 2.1.0): lifetimes are world time, from when the file was written.

So a proxy is renewed as a real one is: its file is written again.
"""

from __future__ import annotations

import os
from pathlib import Path

from aglowd.sim.tools import Answer, Call, Command, Options, Usage, parse
from aglowd.sim.world import HOUR_S, World

SUBJECT = "/O=dutchgrid/O=users/O=sara/CN=Test User"
FQANS = ("/lofar/Role=NULL/Capability=NULL", "/lofar/user/sksp/Role=NULL/Capability=NULL")
MISSING = "\nCouldn't find a valid proxy.\n\n"
_FLAGS = "timeleft actimeleft all exists vo fqan path subject issuer identity type text"
_VALUED = "file valid acexists hours"


class Proxy:
    """One user's proxy with its VOMS attributes, both valid for `hours`."""

    def __init__(self, world: World, path: Path, hours: float) -> None:
        self._world = world
        self.path = path
        self._life_s = hours * HOUR_S
        self.renew()

    def renew(self) -> None:
        """Write the proxy anew: its whole life is ahead of it."""
        self.path.write_text("-----BEGIN CERTIFICATE-----\nsimulated\n-----END CERTIFICATE-----\n")
        self.path.chmod(0o600)
        os.utime(self.path, (self._world.clock.wall(),) * 2)
        self._world.note("proxy", "renewed", "world", life_s=self._life_s)

    def expire(self) -> None:
        """Let its life be over, as if it had been written so long ago."""
        clock = self._world.clock
        ended = self._world.now() - self._life_s - 1.0
        written = clock.origin + (ended - clock.origin) / clock.speed
        os.utime(self.path, (written, written))
        self._world.note("proxy", "expired", "world")

    def find_timeleft(self, path: str = "") -> int | None:
        """World seconds that the proxy is still valid; None when there is no file."""
        try:
            written = os.stat(path or self.path).st_mtime
        except OSError:
            return None
        clock = self._world.clock
        born = clock.origin + (written - clock.origin) * clock.speed
        return max(0, int(born + self._life_s - self._world.now()))

    def commands(self) -> dict[str, Command]:
        return {"voms-proxy-info": self.info}

    async def info(self, call: Call) -> Answer:
        """The executable `voms-proxy-info`."""
        both = " ".join(f"--{name}|-{name}" for name in _FLAGS.split())
        try:
            options = parse(call.argv, both, " ".join(f"--{name}|-{name}" for name in _VALUED.split()))
        except Usage as usage:
            return Answer(stderr=f"voms-proxy-info: {usage}\n", rc=1)
        path = options.values.get("-file") or call.proxy
        left = self.find_timeleft(path)
        self._world.note("proxy", "info", argv=call.argv, result=left)
        if left is None:
            return Answer(stderr=MISSING, rc=1)
        return self._print(options, left, path or str(self.path))

    def _print(self, options: Options, left: int, path: str) -> Answer:
        flags = options.flags
        if "-exists" in flags:
            return Answer(rc=0 if left > _valid_s(options.values.get("-valid", "0:00")) else 1)
        if "-acexists" in options.values:
            return Answer(rc=0 if options.values["-acexists"] == "lofar" else 1)
        if flags & {"-timeleft", "-actimeleft"}:
            return Answer(f"{left}\n")
        if "-vo" in flags:
            return Answer("lofar\n")
        if "-fqan" in flags:
            return Answer("".join(f"{name}\n" for name in FQANS))
        single = {"-path": path, "-subject": f"{SUBJECT}/CN=1457416527", "-issuer": SUBJECT, "-identity": SUBJECT}
        for name, value in single.items():
            if name in flags:
                return Answer(f"{value}\n")
        timeleft = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        lines = [
            f"subject   : {SUBJECT}/CN=1457416527",
            f"issuer    : {SUBJECT}",
            f"identity  : {SUBJECT}",
            "type      : RFC compliant proxy",
            "strength  : 2048 bits",
            f"path      : {path}",
            f"timeleft  : {timeleft}",
        ]
        if "-all" in flags:
            lines += [
                "key usage : Digital Signature, Key Encipherment",
                "=== VO lofar extension information ===",
                "VO        : lofar",
                f"subject   : {SUBJECT}",
                "issuer    : /O=dutchgrid/O=hosts/OU=sara.nl/CN=voms.grid.sara.nl",
                *(f"attribute : {name}" for name in FQANS),
                f"timeleft  : {timeleft}",
                "uri       : voms.grid.sara.nl:30019",
            ]
        return Answer("".join(f"{line}\n" for line in lines))


def _valid_s(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 3600 + int(minutes or 0) * 60
