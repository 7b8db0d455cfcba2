"""`run_prefactor`: the software of the survey as real pilots call it, in the working directory of one token.

It plays the part of the container's content. It needs what a real run needs (its files online, its earlier results whole,
its parset beside it), takes its time, and leaves files whose bytes follow from what the token is about and from the bytes
that it was given. Whether it fails is drawn from that and from how often the token was given back, so that the world heals.
"""

from __future__ import annotations

import re
from random import Random
from typing import Any

import msgspec

from aglowd.sim.pilot import FAILS_UNTIL_SCRUB, ODDS_DEATH, ODDS_ERROR, RESULT_BYTES, SUBBAND, Farm
from aglowd.sim.storage import adler32, list_contents
from aglowd.sim.tools import Answer, Call, Command, Options, parse
from aglowd.sim.world import MINUTE_S

RUN_S = (5 * MINUTE_S, 40 * MINUTE_S)
"""How long it takes. A grid has thousands of places, so hours cost it little; here are a few, and a process for each token."""
NEEDED = ("--token", "--step", "--obsid", "--parset", "--attempt")
_URL = re.compile(r"[a-z]+://[^\s\"',\[\]]+")

SINGULARITY = """#!/bin/sh
# The worker nodes' container runtime, as far as pilots use it: what it is told to run finds no container around itself.
test "$1" = exec || { echo "FATAL: unknown command $1" >&2; exit 1; }
shift
while :; do
  case "$1" in
    --bind) shift 2 ;;
    --pwd) cd "$2" || exit 255; shift 2 ;;
    *) break ;;
  esac
done
shift
exec "$@"
"""


class FailedError(Exception):
    """The run failed; the message is what it prints."""


class Prefactor:
    """What of a real run's part can be judged: its inputs, its time, its results."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._world = farm.world
        self._made: dict[str, tuple[int, ...]] = {}
        """Checksum of a file that was made → the subbands that went into it."""

    def commands(self) -> dict[str, Command]:
        return {"run_prefactor": self.run}

    async def run(self, call: Call) -> Answer:
        """One run in the working directory of a pilot."""
        options = parse(call.argv, "", "--token --step --obsid --part --attempt --srm --parset --files")
        try:
            return await self._work(call, options)
        except FailedError as error:
            return Answer(stderr=f"run_prefactor: {error}\n", rc=1)

    async def _work(self, call: Call, options: Options) -> Answer:
        given = options.values
        lacking = [name for name in NEEDED if not given.get(name)]
        if lacking:
            raise FailedError(f"{', '.join(lacking)} must be given")
        surls, files = await self._inputs(call, options)
        name = (given["--obsid"], given["--step"], given.get("--part", ""))
        attempt = int(given["--attempt"])
        await self._world.clock.sleep(self._world.between(*RUN_S, "run", *name, attempt))
        if attempt < FAILS_UNTIL_SCRUB and self._world.fails(ODDS_ERROR + ODDS_DEATH, "run fails", *name, attempt):
            raise FailedError("a step failed with exit code 1")
        subbands = {int(found[1]) for surl in surls if (found := SUBBAND.search(surl))}
        for held in files.values():
            subbands.update(*(self._made.get(one, ()) for one in held))
        data = _bytes(self._world.seed, name, sorted(one for held in files.values() for one in held))
        told = {"step": given["--step"], "subbands": sorted(subbands), "inputs": [*surls, *files]}
        for path, content in (("results/data.ms", data), ("results/summary.json", msgspec.json.encode(told))):
            if not await call.write(path, content):
                raise FailedError(f"{path} cannot be written")
        checksum = adler32(data)
        self._made[checksum] = tuple(sorted(subbands))
        self._note(
            call, options, "result_made", adler32=checksum, size=len(data), inputs=sorted(subbands),
            pipeline_step=given["--step"], obsid=given["--obsid"], surls=surls, files=list(files),
        )  # fmt: skip
        return Answer(f"{given['--step']} of {given['--obsid']}: {len(subbands)} subbands, {len(data)} bytes\n")

    async def _inputs(self, call: Call, options: Options) -> tuple[list[str], dict[str, list[str]]]:
        """The SURLs of its list, and of each earlier result what it holds. What is not there goes to the ledger."""
        given = options.values
        if not await call.read(given["--parset"]):
            self._note(call, options, "parset_missing")
            raise FailedError(f"there is no parset {given['--parset']}")
        text = await call.read(given["--srm"]) if given.get("--srm") else b""
        if text is None:
            raise FailedError(f"{given['--srm']} cannot be read")
        surls = [word for word in text.decode().split() if word.startswith("srm://")]
        urls = _URL.findall(given.get("--files", ""))
        if not surls and not urls:
            raise FailedError("it has no input")
        now = self._world.now()
        offline = [surl for surl in surls if not self._farm.tape.is_online(surl, now)]
        for surl in offline:
            self._note(call, options, "input_offline", surl=surl)
        files = {url: self._held(url) for url in urls}
        absent = [url for url, held in files.items() if not held]
        for url in absent:
            self._note(call, options, "input_missing", url=url)
        if offline or absent:
            raise FailedError(f"{len(offline) + len(absent)} files cannot be had: {[*offline, *absent][0]}")
        return surls, files

    def _held(self, url: str) -> list[str]:
        """The checksums of what an earlier result holds; nothing if it is not there, or holds nothing that was made here."""
        path = self._farm.storage.find_path(url)
        if path is None or not path.is_file():
            return []
        return [one for one in list_contents(path.read_bytes()) if one in self._made]

    def _note(self, call: Call, options: Options, op: str, **arguments: Any) -> None:
        self._world.note("pilot", op, "pilot", token=options.values.get("--token"), job=call.job, **arguments)


def _bytes(seed: int, name: tuple[str, ...], inputs: list[str]) -> bytes:
    random = Random(f"{seed}/{'/'.join(name)}/{' '.join(inputs)}")
    return random.randbytes(random.randint(*RESULT_BYTES))
