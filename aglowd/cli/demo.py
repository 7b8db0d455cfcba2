"""The demo: the simulated grid and the daemon as two processes that share the protocols and the rate of time only.

What it reports of the world is counted from the simulated grid's ledger, never from the daemon's own opinion.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from aglowd.cli.demo_catalogue import DemoCatalogue
from aglowd.cli.demo_jobs import REAL, REAL_FIELDS, REAL_SPEED, SPEED, DemoJobs, check_options
from aglowd.cli.outcome import Outcome, print_summary, progress
from aglowd.clock import Clock
from aglowd.errors import AglowError
from aglowd.grid.surl import SurlList, SurlListError, parse_surl, read_srm_list
from aglowd.sim.checker import Report, check
from aglowd.sim.grid import DATABASE, ELSEWHERE
from aglowd.sim.rules import WAKEUP_GRACE_S, Expectation, FieldExpectation
from aglowd.store.store import Store

DATA = Path(str(files("aglowd.sim"))) / "data" / "sksp"
ROOT = "/pnfs/grid.sara.nl/data/lofar/user/sksp"
HOST = f"gsiftp://gridftp.grid.sara.nl:2811{ROOT}"
ARCHIVE = f"{HOST}/archive"
PIN_DAYS = 28
"""How long files stay pinned in a world of faults, where a timeout of real seconds costs hours of the world, and with all
fields at once: pins that have to be renewed would count as files that are staged twice."""
WHOLE_SPEED = 2000.0
"""World seconds in a real one with all fields: a day of the world is then time enough for what two cores do of it."""
LOOK_REAL_S = 0.25
WAKEUP_GRACE_REAL_S = 35.0
"""Real seconds in which the daemon must have reacted, however fast the world's time flies: it may be starting anew."""
ENDED = ("archived", "failed", "cancelled")


class Options(Struct, frozen=True):
    """What the demo runs; None takes the bundled data."""

    fields: Path | None = None
    srm_dir: Path | None = None
    pipeline: Path | None = None
    speed: float = SPEED
    seed: int = 1
    state: Path | None = None
    failure_rate: float = 1.0
    daemon: tuple[str, ...] = ("-m", "aglowd.cli")
    polls: Mapping[str, str] = {}
    config: Mapping[str, Mapping[str, Any]] = {}
    """Table → key → value: what the daemon's configuration has beside, or instead of, the demo's own."""
    faults: Path | None = None
    chaos: bool = False
    staging: str = "legacy"
    """What brings files online at all sites: legacy, stageit or dcache."""
    storage: str = "gfal"
    """How storage is reached: gfal (GridFTP by the gfal tools) or webdav."""
    jobs: str = "glite"
    """Where pilots run: one of demo_jobs.SYSTEMS. At Jülich somebody else starts them."""
    catalogue: str = "csv"
    """Where the fields stand: csv, mysql or own."""
    is_whole: bool = False
    """Whether all bundled fields are run, of both sites, and not only those at SARA."""


def speed_of(jobs: str, *, is_whole: bool = False) -> float:
    """World seconds in a real one, if nobody says another number."""
    return min(REAL_SPEED if jobs in REAL else SPEED, WHOLE_SPEED if is_whole else SPEED)


class Told(Struct, frozen=True):
    """What a daemon says of its own work: field → what must be archived of it; what it reported that is there twice."""

    fields: dict[str, FieldExpectation]
    reported: tuple[str, ...]
    calibrators: int


class Demo:
    """One world and one daemon, which may be killed and started again."""

    def __init__(self, options: Options, state: Path) -> None:
        self.options = options
        self.state = state
        self.socket = state / "aglowd.sock"
        self.fields_file = state / "fields.csv"
        self.srm_dir = options.srm_dir or DATA / "srm"
        self.origin = time.time()
        self.clock = Clock(options.speed, self.origin)
        self.catalogue = DemoCatalogue(options.catalogue, self.fields_file, state)
        self.jobs = DemoJobs(options.jobs, options.speed, state)
        self.daemon: asyncio.subprocess.Process | None = None
        self.root = HOST
        """The URL below which results and archive lie."""
        self._grid: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def world(self) -> AsyncIterator[dict[str, Any]]:
        """The simulated grid, and a configuration of the daemon for it."""
        check_options(self.options.jobs, self.options.storage)
        self.state.mkdir(parents=True, exist_ok=True)
        if len(str(self.socket)) > 100:
            raise AglowError(f"{self.socket} is too long for a socket; choose a shorter --state")
        options = self.options
        if self.options.fields is not None:
            shutil.copyfile(self.options.fields, self.fields_file)
        else:
            rows = (DATA / "fields.csv").read_text(encoding="utf-8").splitlines(keepends=True)
            ours = [row for row in rows if row.startswith("SND") or options.is_whole]
            ours = ours[:REAL_FIELDS] if self.jobs.is_real and not options.is_whole else ours
            self.fields_file.write_text("".join(ours), encoding="utf-8")
        arguments = {
            "dir": self.state / "grid",
            "srm-dir": self.srm_dir,
            "seed": options.seed,
            "speed": options.speed,
            "origin": repr(self.origin),
            "failure-rate": options.failure_rate,
            "proxy-hours": 2000,  # Somebody renews the proxy in time; what happens if nobody does is not shown here.
        }
        argv = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        argv += ["--faults", str(options.faults)] if options.faults is not None else []
        argv += ["--pin-days", str(PIN_DAYS)] if options.chaos or options.is_whole else []
        argv += ["--chaos"] if options.chaos else []
        self._grid = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aglowd.sim", *argv, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        try:
            assert self._grid.stdout is not None
            line = await self._grid.stdout.readline()
            if not line:
                raise AglowError("the simulated grid did not start; its last words are above")
            ready = msgspec.json.decode(line)
            async with self.catalogue.running(), self.jobs.running():
                self._write_config(ready)
                yield ready
        finally:
            await _end(self._grid)

    def _write_config(self, ready: dict[str, Any]) -> None:
        secrets = ready["credentials"]
        kept = {"lta.password": secrets["lta_password"], "couch.password": secrets["couch_password"]}
        kept |= {f"{name}.token": secrets[f"{name}_token"] for name in ("stageit", "dcache", "webdav")}
        for name, secret in kept.items():
            path = self.state / name
            path.touch(mode=0o600)
            path.write_text(secret, encoding="utf-8")
        if self.options.storage == "webdav":
            self.root = ready["webdav_url"] + ROOT
        polls = {"staging": "10m", "dcache": "10m", "gather": "5m", "jobs": "20m", "storage": "10m", "catalogue": "30m"}
        polls |= self.options.polls
        pipelines, pipeline = "", "sksp"
        if self.options.pipeline is not None:
            pipelines, pipeline = str(self.options.pipeline.parent), self.options.pipeline.stem
        values: dict[str, dict[str, Any]] = {
            "daemon": {
                "state_dir": str(self.state),
                "socket": str(self.socket),
                "log_format": "json",
                "tool_path": ready["bin"],
            },
            "clock": {"rate": self.options.speed, "origin": self.origin},
            "catalogue": {
                "kind": self.options.catalogue,
                "srm_dir": str(self.srm_dir),
                **self.catalogue.table,
                "pipeline": pipeline,
                "poll": polls["catalogue"],
            },
            "lta": {
                "url": ready["lta_url"],
                "user": secrets["lta_user"],
                "password_file": str(self.state / "lta.password"),
            },
            "staging": {"poll": polls["staging"], **({"lifetime": f"{PIN_DAYS}d"} if self.options.is_whole else {})},
            "stageit": {"url": ready["stageit_url"], "token_file": str(self.state / "stageit.token")},
            "dcache": {
                "url": ready["dcache_url"],
                "token_file": str(self.state / "dcache.token"),
                "poll": polls["dcache"],
                "events": True,
            },
            "picas": {
                "url": ready["couch_url"],
                "database": secrets["couch_database"],
                "user": secrets["couch_user"],
                "password_file": str(self.state / "couch.password"),
                "gather": polls["gather"],
                "poll": "12h",
            },
            "storage": {"poll": polls["storage"], "token_file": str(self.state / "webdav.token")},
            "proxy": {"minimum": "12h", "poll": "2h"},
            "pipelines": {"directory": pipelines},
            **{f"sites.{name}": self._site(name) for name in ("sara", "juelich")},
            # Where somebody else starts the pilots, into a database of their own.
            "sites.juelich.picas": {"database": secrets["couch_databases"]["juelich"]},
            "sites.juelich.jobs": {"system": "none"},
        }
        ours = self.jobs.tables(ready, polls["jobs"])
        for table, changed in (*ours.items(), *self.options.config.items()):
            values.setdefault(table, {}).update(changed)
        lines = []
        for table, entries in values.items():
            lines.append(f"[{table}]")
            lines.extend(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in entries.items())
        (self.state / "aglowd.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _site(self, name: str) -> dict[str, str]:
        return {
            "results": f"{self.root}/results/{name}",
            "archive": f"{self.root}/archive/{name}",
            "staging": self.options.staging,
        }

    async def start(self) -> None:
        """Start the daemon, and return when it answers."""
        log = await asyncio.to_thread((self.state / "aglowd.log").open, "ab")
        with log:
            self.daemon = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.options.daemon,
                "start",
                "--config",
                str(self.state / "aglowd.toml"),
                env={**os.environ, **self.jobs.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while await self.ask("/ready") is None:
            if self.daemon.returncode is not None:
                tail = (self.state / "aglowd.log").read_text(encoding="utf-8", errors="replace")[-2000:]
                raise AglowError(f"the daemon ended with {self.daemon.returncode}:\n{tail}")
            await asyncio.sleep(0.05)
        await self.catalogue.fill(self.socket)

    async def kill(self) -> None:
        """kill -9, as a supported way to stop."""
        if self.daemon is not None and self.daemon.returncode is None:
            self.daemon.kill()
            await self.daemon.wait()

    async def stop(self) -> None:
        """The orderly stop."""
        if self.daemon is not None:
            await _end(self.daemon)

    async def ask(self, path: str) -> Any:
        """The daemon's answer, or None when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
                session.get(f"http://aglowd{path}", timeout=aiohttp.ClientTimeout(10)) as reply,
            ):
                return await reply.json(content_type=None) if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def fields(self) -> list[dict[str, Any]]:
        """How the fields stand; empty when the daemon does not answer."""
        answer = await self.ask("/v1/fields")
        return [] if answer is None else list(answer["fields"])

    async def doubtful(self) -> list[dict[str, str]]:
        """The effects whose outcome cannot be told, with the reasons."""
        answer = await self.ask("/v1/doubt")
        doubts = [] if answer is None else [one for one in answer["doubts"] if one.get("state", "doubt") == "doubt"]
        return [{"key": one["key"], "reason": one["reason"]} for one in doubts]

    async def until_done(
        self, show: Callable[[list[dict[str, Any]]], None] = lambda fields: None
    ) -> list[dict[str, Any]]:
        """Wait until every row of the catalogue has come to its end."""
        rows = self._count_rows()
        while True:
            fields = await self.fields()
            show(fields)
            if len(fields) >= rows and all(field["state"] in ENDED for field in fields):
                return fields
            if self.daemon is not None and self.daemon.returncode is not None:
                raise AglowError(f"the daemon ended with {self.daemon.returncode}; see {self.state / 'aglowd.log'}")
            await asyncio.sleep(LOOK_REAL_S)

    def _count_rows(self) -> int:
        with self.fields_file.open(encoding="utf-8", newline="") as file:
            return sum(1 for row in csv.reader(file) if row and not row[0].startswith("#"))

    async def judge(self, fields: list[dict[str, Any]], *, finished: bool = True) -> tuple[Report, int]:
        """The checker's report on the ledger, and how many calibrators were run. The daemon must have stopped.

        `finished`: the daemon says that nothing is left to do, so every wait must have been answered.
        """
        told = await self.told_by(self.state / "aglowd.db", fields)
        return await self.judge_by([told], finished=finished), told.calibrators

    async def told_by(self, database: Path, fields: list[dict[str, Any]]) -> Told:
        """What a daemon that has stopped says of its part: of those fields that it has archived."""
        store = Store(database, self.clock)
        await store.open()
        try:
            calibrators = await store.count_runs_of("calibrator")
            expected: dict[str, FieldExpectation] = {}
            for field in fields:
                found = await store.field(field["field"])
                if field["state"] == "archived" and found is not None:
                    expected[field["field"]] = self._expect(found)
            return Told(expected, await self._reported(store), calibrators)
        finally:
            await store.close()

    async def judge_by(self, told: Sequence[Told], *, finished: bool = True) -> Report:
        """The checker's report on the ledger, of all that these daemons say that they have done."""
        expect = Expectation(
            archive_roots=(f"{self.root}/archive",),
            archived_step="targ2",
            fields={name: field for one in told for name, field in one.fields.items()},
            reported=tuple(key for one in told for key in one.reported),
            finished=finished,
            wakeup_grace_s=max(WAKEUP_GRACE_S, WAKEUP_GRACE_REAL_S * self.options.speed),
        )
        grid = self.state / "grid"
        return await asyncio.to_thread(check, grid / "ledger.jsonl", grid / "storage", expect)

    async def _reported(self, store: Store) -> tuple[str, ...]:
        """What the daemon itself said that it is there twice: paths of files, and keys of submissions."""
        subjects: list[str] = []
        for finding in (await store.doubts())["findings"]:
            of = await store.effect(finding["effect"])
            if finding["kind"] == "duplicate" and of is not None:
                subjects += [of.record.key, *(parse_surl(surl).path for surl in of.record.inputs.get("surls", ()))]
        return tuple(subjects)

    def count_routes(self, fields: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Site → its fields, how many of them are archived, its token database, and the tokens that were made there."""
        with self.fields_file.open(encoding="utf-8", newline="") as file:
            obsids = {row[11]: row[1] for row in csv.reader(file) if len(row) > 11}
        states: dict[str, list[str]] = {}
        for field in fields:
            found = self._list_of(obsids.get(field["field"], ""))
            if found is not None:
                states.setdefault(found.site, []).append(field["state"])
        tokens: Counter[str] = Counter()
        with (self.state / "grid" / "ledger.jsonl").open("rb") as ledger:
            for line in map(msgspec.json.decode, ledger):
                if (line["system"], line["op"], line["by"]) == ("couchdb", "bulk_docs", "client"):
                    tokens[line["database"]] += sum(
                        "type" in doc and doc["rev"].startswith("1-") for doc in line["docs"]
                    )
        return {
            site: {
                "fields": len(of_site),
                "archived": of_site.count("archived"),
                "database": (database := ELSEWHERE.get(site, DATABASE)),
                "tokens": tokens[database],
            }
            for site, of_site in sorted(states.items())
        }

    def _list_of(self, obsid: str) -> SurlList | None:
        path = self.srm_dir / f"srm{obsid}.txt"
        try:
            return read_srm_list(path.read_text(encoding="utf-8"), str(path))
        except (OSError, SurlListError):
            return None

    def _expect(self, field: dict[str, Any]) -> FieldExpectation:
        found = self._list_of(field["data"]["target"]["obsid"][1:])
        surls = () if found is None else found.surls
        left_out = field["runs"][-1]["outputs"].get("not_staged", ())
        return FieldExpectation(tuple(surls), tuple(left_out))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def carry_out(options: Options, state: Path, show: Callable[[list[dict[str, Any]]], None]) -> Outcome:
    """Run every field to its end and judge the world."""
    demo = Demo(options, state)
    began = time.monotonic()
    async with demo.world():
        try:
            await demo.start()
            fields = await demo.until_done(show)
            wall_s = time.monotonic() - began
        finally:
            await demo.stop()
    return await conclude(demo, fields, wall_s)


async def conclude(demo: Demo, fields: list[dict[str, Any]], wall_s: float) -> Outcome:
    """What came of a run that has ended, in the words of the judge."""
    finished = all(field["state"] in ENDED for field in fields)
    report, calibrators = await demo.judge(fields, finished=finished)
    states = {
        field["field"]: {"state": field["state"], "reason": field["reason"] if field["state"] != "archived" else ""}
        for field in fields
    }
    routes = await asyncio.to_thread(demo.count_routes, fields)
    return Outcome(states, report, wall_s, wall_s * demo.options.speed, calibrators, {"routes": routes})


CarryOut = Callable[[Options, Path, Callable[[list[dict[str, Any]]], None]], Awaitable[Outcome]]
"""A way to run the demo: options, where its state lies, and whom to show the progress."""


async def run_demo(options: Options, carry_out: CarryOut = carry_out, *, as_json: bool) -> int:
    """The command: progress on a terminal, then a summary; returns the exit code."""
    with contextlib.ExitStack() as stack:
        state = options.state
        if state is None:
            state = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="aglowd-demo-", ignore_cleanup_errors=True))
            )
        try:
            with progress(options.speed) as show:
                outcome = await carry_out(options, state, show)
        except AglowError as error:
            print(f"aglowd demo: {error}", file=sys.stderr)  # noqa: T201 - this is a command
            return 1
    print_summary(outcome)
    if as_json:
        print(msgspec.json.encode(outcome.to_json()).decode())  # noqa: T201 - this is a command
    return 0 if outcome.is_well else 1
