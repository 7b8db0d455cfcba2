"""One pilot: a grid job that takes PiCaS tokens, one after the other, until none is left to do.

It walks the statuses of the GRID_PiCaS_Launcher with a write for each, needs what a real run needs (its files online,
its earlier results in place, its parset attached), and writes a result whose bytes follow from the token's content
alone. Whether it fails is drawn from that content and from how often the token was reset, so that the world heals.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aglowd.sim.pilothttp import Conflict, Gone, TokenBase
from aglowd.sim.storage import Storage, adler32
from aglowd.sim.tape import Tape
from aglowd.sim.world import HOUR_S, World

TODO_LIMIT = 100
CLAIM_ATTEMPTS = 10
TOKEN_S = (1 * HOUR_S, 8 * HOUR_S)
ODDS_ERROR = 0.02
ODDS_DEATH = 0.007
FAILS_UNTIL_SCRUB = 2
RESULT_BYTES = (512, 2048)

SUBBAND = re.compile(r"_SB(\d{3})_")
Token = dict[str, Any]


class PilotDiedError(Exception):
    """The worker node went down: the token stays locked, the job ends badly."""


class TokenLostError(Exception):
    """The token was deleted, reset or taken over while this pilot worked on it."""


class TokenFailedError(Exception):
    """The pipeline failed; the message goes into the token."""


@dataclass(frozen=True)
class Stage:
    """One status of the launcher, and its share of the token's time."""

    status: str
    share: float


@dataclass
class Farm:
    """What all pilots share: the world, the tape, the storage, and what each result was made from."""

    world: World
    tape: Tape
    storage: Storage
    subbands_of: dict[str, tuple[int, ...]] = field(default_factory=dict)


class Pilot:
    """Takes tokens of one type on behalf of one grid job."""

    def __init__(self, farm: Farm, base: TokenBase, token_type: str, job_id: str, job_key: str) -> None:
        self._farm = farm
        self._world = farm.world
        self._base = base
        self._type = token_type
        self._job_id = job_id
        self._job_key = job_key
        """Under which the job's id stands in a token: each batch system has its own."""
        self._surls: list[str] = []
        """The SURLs of the token at hand."""
        self._host = f"wn-{int(farm.world.draw('host', job_id) * 1000):03d}.gina.sara.nl"

    async def run(self) -> None:
        """Work until no token is left; raises PilotDiedError, Gone (no such view) or Refused."""
        while (token := await self._claim()) is not None:
            with suppress(TokenLostError):
                await self._work(token)

    async def _claim(self) -> Token | None:
        """A token locked for this pilot; None when there is nothing to do."""
        for attempt in range(CLAIM_ATTEMPTS):
            todo = await self._base.list_todo(self._type, TODO_LIMIT)
            if not todo:
                return None
            chosen = todo[int(len(todo) * self._world.draw("choice", self._job_id, attempt, len(todo)))]
            try:
                token = await self._base.get(chosen)
                if token.get("lock") != 0:
                    continue
                now = int(self._world.now())
                token.update(lock=now, hostname=self._host, status="pulling_container")
                token[self._job_key] = self._job_id
                token.setdefault("times", {})["pulling_container"] = now
                token["_rev"] = await self._base.put(token)
            except (Conflict, Gone):
                continue
            return token
        return None  # Others were quicker each time, so there are pilots enough.

    async def _work(self, token: Token) -> None:
        name = fate_name(token)
        scrubs = int(token.get("scrub_count") or 0)
        healthy = scrubs >= FAILS_UNTIL_SCRUB
        dies = not healthy and self._world.fails(ODDS_DEATH, "death", *name, scrubs)
        breaks = not healthy and self._world.fails(ODDS_ERROR, "error", *name, scrubs)
        stages = list(_stages(self._world, name))
        at_risk = 2 + int((len(stages) - 2) * self._world.draw("when it fails", *name, scrubs))
        total_s = self._world.between(*TOKEN_S, "duration", *name, scrubs)
        try:
            for number, stage in enumerate(stages):
                if number:
                    await self._save(token, status=stage.status)
                if stage.status == "downloading":
                    await self._check_inputs(token)
                await self._world.clock.sleep(total_s * stage.share)
                if number == at_risk and dies:
                    self._note("token_ended", token, outcome="died")
                    raise PilotDiedError
                if number == at_risk and breaks:
                    raise TokenFailedError(f"{stage.status} failed with exit code 1")
            location = self._write_result(token)
        except TokenFailedError as error:
            await self._finish(token, "error", output=1, launcher_status=str(error))
        else:
            await self._finish(token, "done", output=0, progress=1, Results_location=location)

    # --- what a run needs and makes

    async def _check_inputs(self, token: Token) -> None:
        """Every file must be where it is expected; what is not goes to the ledger, and the token fails."""
        attached = token.get("_attachments", {})
        if not any(name.endswith(".parset") for name in attached):
            self._note("parset_missing", token)
            raise TokenFailedError("no parset attached")
        now = self._world.now()
        self._surls = await self._list_surls(token)
        missing = [surl for surl in self._surls if not self._farm.tape.is_online(surl, now)]
        for surl in missing:
            self._note("input_offline", token, surl=surl)
        absent = [url for url in _listed_files(token) if not self._farm.storage.exists(url)]
        for url in absent:
            self._note("input_missing", token, url=url)
        if missing or absent:
            raise TokenFailedError(f"download failed for {len(missing) + len(absent)} files")

    async def _list_surls(self, token: Token) -> list[str]:
        """The SURLs in the token's srm.txt: on each line, the first column that is one."""
        if "srm.txt" not in token.get("_attachments", {}):
            return []
        try:
            text = (await self._base.get_attachment(token["_id"], "srm.txt")).decode()
        except Gone as error:
            raise TokenLostError from error
        return [word for line in text.splitlines() for word in line.split() if word.startswith("srm://")]

    def _write_result(self, token: Token) -> str:
        """Write the one result file and record what went into it; returns its URL."""
        directory = token.get("RESULTS_DIR")
        if not directory or self._farm.storage.find_path(str(directory)) is None:
            raise TokenFailedError(f"cannot write to RESULTS_DIR {directory!r}")
        name = str(token.get("RESULT_NAME") or token["_id"]).removesuffix(".tar")
        url = f"{str(directory).rstrip('/')}/{name}.tar"
        data = result_bytes(self._world, token)
        surls = self._surls
        files = list(_listed_files(token))
        subbands = {int(found[1]) for surl in surls if (found := SUBBAND.search(surl))}
        for file in files:
            subbands.update(self._farm.subbands_of.get(file, ()))
        self._farm.storage.write(url, data)
        self._farm.subbands_of[url] = tuple(sorted(subbands))
        self._note(
            "result_written", token, url=url, adler32=adler32(data), size=len(data), inputs=sorted(subbands),
            pipeline_step=token.get("PIPELINE_STEP"), obsid=token.get("OBSID"), surls=surls, files=files,
        )  # fmt: skip
        return url

    # --- the token

    async def _finish(self, token: Token, status: str, **fields: object) -> None:
        """Close the token, its log attached."""
        now = int(self._world.now())
        stamp = time.strftime("%d/%m/%Y_%H.%M.%S", time.gmtime(now))
        log = f"{self._host} {token['_id']} {status}\n{fields}\n".encode()
        part = {"content_type": "text/plain", "data": b64encode(log).decode()}
        token.setdefault("_attachments", {})[f"{stamp}_stdout.txt"] = part
        await self._save(token, status=status, done=now, **fields)
        self._note("token_ended", token, outcome=status)

    async def _save(self, token: Token, **fields: object) -> None:
        """Write the fields; after a conflict, on top of what another wrote, as long as the lock is still ours."""
        token.update(fields)
        if "status" in fields:
            token["times"][fields["status"]] = int(self._world.now())
        for _ in range(CLAIM_ATTEMPTS):
            try:
                token["_rev"] = await self._base.put(token)
            except Conflict:
                await self._adopt(token, fields)
            except Gone as error:
                raise TokenLostError from error
            else:
                return
        raise TokenLostError

    async def _adopt(self, token: Token, fields: dict[str, object]) -> None:
        try:
            current = await self._base.get(token["_id"])
        except Gone as error:
            self._note("token_ended", token, outcome="lost")
            raise TokenLostError from error
        if current.get("lock") != token["lock"] or current.get(self._job_key) != self._job_id:
            self._note("token_ended", token, outcome="lost")
            raise TokenLostError
        added = {name: part for name, part in token.get("_attachments", {}).items() if "data" in part}
        current["times"] = token["times"]
        token.clear()
        token.update(current, **fields)
        token["_attachments"] = current.get("_attachments", {}) | added

    def _note(self, op: str, token: Token, **arguments: object) -> None:
        names = {"token": token["_id"], "type": token.get("type"), "job": self._job_id}
        self._world.note("pilot", op, "pilot", **names, **arguments)


def fate_name(token: Token) -> tuple[str, ...]:
    """What a token is about: the same for the same work, whatever id a run gave it."""
    if "OBSID" not in token:
        return (str(token["_id"]),)
    names = ("OBSID", "STARTSB", "ABN", "PIPELINE_STEP")
    about = [str(token[name]) for name in names if token.get(name) not in (None, "")]
    if not (token.get("STARTSB") or token.get("ABN")):
        # A calibrator's only token, or one that tells its subbands by nothing but its list.
        about.append(str(token.get("_attachments", {}).get("srm.txt", {}).get("digest") or token.get("RESULT_NAME")))
    return tuple(about)


def result_bytes(world: World, token: Token) -> bytes:
    """The result's content, which depends on the seed and on what the token is about."""
    random = Random(f"{world.seed}/{'/'.join(fate_name(token))}")
    return random.randbytes(random.randint(*RESULT_BYTES))


def _stages(world: World, name: tuple[str, ...]) -> Iterator[Stage]:
    yield Stage("pulling_container", 0.01)
    yield Stage("building_sandbox", 0.01)
    yield Stage("launched", 0.02)
    yield Stage("downloading", 0.20)
    yield Stage("extracting", 0.10)
    if world.draw("steps", *name) < 0.5:
        yield Stage("prefactor", 0.56)
    else:
        yield Stage("dppp", 0.20)
        yield Stage("prefactor", 0.36)
    yield Stage("cleaning up", 0.10)


def _listed_files(token: Token) -> Iterator[str]:
    """The URLs of earlier results that the token names."""
    for name in ("CAL2_SOLUTIONS", "INPUT_FILES"):
        given = token.get(name) or ()
        for url in given.split() if isinstance(given, str) else given:
            yield str(url)
