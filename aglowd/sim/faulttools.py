"""What a fault does to an executable: it lies about its end, says too much or too little, hangs, dies, or loses its proxy.

The process is real and so is what becomes of it: the signal, the child that keeps the pipe, the hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aglowd.sim.faults import Faults, Strike
from aglowd.sim.proxy import Proxy
from aglowd.sim.storage import Storage
from aglowd.sim.tools import Answer, Call

WARNING = "Warning: connection refused by the first of 2 servers, trying the next one (error 111)\n"
FAILURE = "\nError - the connection timed out while waiting for the answer\n\n"
EXPIRED = "\nError - Proxy validity Error\nYour proxy credential has expired\n\n"

Work = Callable[[], Awaitable[Answer]]


def name_of(call: Call) -> tuple[str, str]:
    """The system and the operation that a call of an executable is."""
    family, _, verb = call.tool.partition("-")
    if family == "gfal":
        return "storage", verb
    if family == "glite":
        verb = verb.removeprefix("wms-job-")
        if verb == "submit" and "--register-only" in call.argv:
            return "glite", "register"
        return "glite", "start" if "--start" in call.argv else verb
    if family == "dirac":
        return "dirac", verb.removeprefix("wms-").removeprefix("job-").removeprefix("get-").split("-")[0]
    return "proxy", "info"


class ToolFaults:
    """The faults of all executables."""

    def __init__(self, faults: Faults, proxy: Proxy, storage: Storage) -> None:
        self._faults = faults
        self._proxy = proxy
        self._storage = storage

    async def answer(self, call: Call, work: Work) -> None:
        """Do the work and end the process, as the plan has it."""
        strike = self._faults.strike(*name_of(call))
        if strike is None:
            await call.end(await work())
        else:
            await self._suffer(call, work, strike)

    async def _suffer(self, call: Call, work: Work, strike: Strike) -> None:
        fault = strike.fault
        if fault == "hang_before":
            await call.hang()
        elif fault == "kill_before":
            await call.die()
        elif fault == "half_file":
            with self._storage.full():
                await work()
            await call.die()
        elif fault == "disk_full":
            self._storage.is_full = True
            self._faults.later(strike.value, self._make_room)
            await call.end(await work())
        elif fault == "proxy_before":
            self._expire(strike)
            await call.end(await work())
        else:
            await self._spoil(call, await work(), strike)

    async def _spoil(self, call: Call, done: Answer, strike: Strike) -> None:
        """It was done; what the caller sees of it."""
        fault = strike.fault
        if fault == "warn":
            done = Answer(done.stdout, WARNING + done.stderr, done.rc)
        elif fault == "fail_after":
            done = Answer(done.stdout, done.stderr + FAILURE, done.rc or 1)
        elif fault == "half_line":
            await call.say(done.stdout[: len(done.stdout) // 2])
            await call.die()
            return
        elif fault == "hang_after":
            await call.say(done.stdout)
            await call.hang()
            return
        elif fault == "flood":
            await call.flood(int(strike.value * 1e6))
        elif fault == "keep_pipe":
            await call.fork()
        elif fault in ("proxy_during", "proxy_after"):
            self._expire(strike)
            if fault == "proxy_during":
                done = Answer(stderr=EXPIRED, rc=1)
        await call.end(done)

    def _expire(self, strike: Strike) -> None:
        """The proxy ends now; somebody renews it in a while."""
        self._proxy.expire()
        self._faults.later(strike.value, self._renew)

    async def _renew(self) -> None:
        self._proxy.renew()

    async def _make_room(self) -> None:
        self._storage.is_full = False
