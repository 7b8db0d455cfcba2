"""A year of the survey: does memory stay flat, and the database small, while thousands of fields come and go?

The store, the reactor, the engine and the upkeep are the product's own; pipelines have the shape of the shipped ones, and the
outside is a toy that answers at once. Time is virtual: it goes on by a tick whenever nothing is left to decide or to do. It
runs in a child process of its own (`python -m bench.year DATABASE FIELDS DAYS`), which prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from msgspec import Struct

from aglowd import log
from aglowd.clock import Clock
from aglowd.config import HistoryConfig
from aglowd.effects.base import Deed, Intent
from aglowd.effects.engine import Engine
from aglowd.model import Do, Done, FieldView, Handler, Json, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.pipeline import Pipeline, StepDef
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.store import Store
from aglowd.upkeep import Upkeep
from bench.waiting import rss_bytes

FIELDS, DAYS = 3_168, 365.0
FILES = 244
"""Files of a field, and so tokens: 772 992 of all fields."""
AT_ONCE = 250
"""Fields under way at once, as far as the year needs them."""
TICK_S = 21_600.0
DAY_S = 86_400.0
SHARE = 4
"""Fields that have one calibrator."""
SAMPLED = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Memory and sizes are read when these parts of the fields have ended."""
ORIGIN = 1_767_225_600.0


class ToyDeed(Deed, frozen=True, kw_only=True):
    """A deed with the inputs of a real one, done at once."""

    site: str = "sara"
    surls: tuple[str, ...] = ()
    request: int | None = None
    field: str = ""
    status: str = "AAA"

    async def do(self, world: Any, intent: Intent) -> Json:
        world.done += 1
        return {"request": world.done, "jobs": [f"https://wms.example.org:9000/{world.done:020d}"], "released": True}

    async def find(self, world: Any, intent: Intent) -> Json | None:
        return None


class Stage(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "stage_files"


class Release(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "release_files"


class Create(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "create_tokens"


class Submit(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "submit_jobs"


class Write(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "write_status"


class Copy(ToyDeed, frozen=True, kw_only=True):
    kind: ClassVar[str] = "copy_file"


DEEDS: dict[str, type[ToyDeed]] = {deed.kind: deed for deed in (Stage, Release, Create, Submit, Write, Copy)}


class Toy(Handler):
    """Do so many deeds, see so many changes of what they are about, and leave so many URLs to the steps behind."""

    kind = "toy"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        deed: str = ""
        deeds: int = 1
        files: int = 0
        watch: str = ""
        rounds: int = 0
        leaves: int = 0

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.deed:
            deed = DEEDS[params.deed]
            missing = [number for number in range(params.deeds) if seen.effect(deed, number) is None]
            if missing:
                surls = _urls(step.run, params.files)
                return Do(tuple(deed(ordinal=number, surls=surls, field=step.field) for number in missing))
        if params.rounds:
            subject = Subject(params.watch, f"{step.run}/{step.name}/{step.attempt}", {"rounds": params.rounds})
            looks = (seen.of(subject) or {}).get("done", 0)
            if looks < params.rounds:
                return Wait((subject,), f"{looks} of {params.rounds} are done at sara", 2 * TICK_S)
        return Done({"site": "sara", "files": list(_urls(step.run, params.leaves))})


class Join(Handler):
    """Start the calibrator's run, or join it."""

    kind = "run"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        key: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        ended = seen.of(Subject("run", params.key))
        if ended is not None:
            return Done({"run": ended["run"], "solutions": ended["outputs"].get("files", [])})
        return Spawn(params.key, "calibrator", {}, "reduced once for all", 30 * DAY_S, shared=True)


def _urls(run: str, count: int) -> tuple[str, ...]:
    root = f"srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc3_030/{run}"
    return tuple(f"{root}/L000000_SB{number:03d}_uv.dppp.MS.tar" for number in range(count))


def _pipeline(name: str, *steps: tuple[str, str, dict[str, Any]], **values: Any) -> Pipeline:
    """`steps`: the name, blanks between the names of what it needs, and what it does."""
    made = {
        name: StepDef(name=name, kind="run" if "key" in does else "toy", needs=tuple(needs.split()), params=does)
        for name, needs, does in steps
    }
    return Pipeline(name=name, digest=f"year-{name}", steps=made, **values)


def _job(name: str, needs: str, tokens: int, rounds: int) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """A pass over tokens, as the shipped fragment makes it."""
    return (
        (f"{name}_tokens", needs, {"deed": "create_tokens", "files": tokens}),
        (f"{name}_attach", f"{name}_tokens", {"deed": "copy_file", "deeds": 2}),
        (f"{name}_submit", f"{name}_attach", {"deed": "submit_jobs", "deeds": 1 + tokens // 50}),
        (f"{name}_wait", f"{name}_submit", {"watch": "tokens", "rounds": rounds}),
        (name, f"{name}_wait", {"leaves": tokens}),
    )


STATUS = {"deed": "write_status"}
CALIBRATOR = _pipeline(
    "calibrator",
    ("look", "", {}),
    ("parset", "look", {"leaves": 10}),
    ("stage", "look", {"deed": "stage_files", "files": FILES, "watch": "locality", "rounds": 8}),
    *_job("solve", "stage parset", 1, 4),
    ("archive_tokens", "solve", {"deed": "copy_file"}),
    ("release", "archive_tokens", {"deed": "release_files"}),
    outputs={"files": "{{ steps.solve.outputs.files }}"},
)
FIELD = _pipeline(
    "field",
    ("claim", "", STATUS),
    ("target_list", "claim", {"leaves": FILES}),
    ("calibrator_list", "target_list", {"leaves": FILES}),
    ("calibrator", "calibrator_list", {"key": "calibrator/{{ field.calibrator }}"}),
    ("target_stage", "calibrator_list", {"deed": "stage_files", "files": FILES, "watch": "locality", "rounds": 8}),
    ("status_calibrated", "calibrator", STATUS),
    ("target_parset", "calibrator", {"leaves": 10}),
    ("target_online", "target_stage target_parset status_calibrated", {"watch": "locality", "rounds": 2}),
    *_job("target", "target_online", FILES, 40),
    ("target2_parset", "target", {"leaves": 10}),
    *_job("target2", "target target2_parset", 25, 12),
    ("status_target", "target2", STATUS),
    ("archive", "target2 status_target", {"deed": "copy_file", "deeds": 25, "leaves": 25}),
    ("archive_tokens", "archive", {"deed": "copy_file"}),
    ("provenance", "archive_tokens", {"deed": "copy_file"}),
    ("release", "target_stage archive", {"deed": "release_files"}),
    ("release_late", "target_online archive", {"deed": "release_files"}),
    ("status_archived", "provenance release release_late", STATUS),
    ("status_failed", "status_archived", {}),
    outputs={"files": "{{ steps.archive.outputs.files }}"},
)
"""27 steps and its part in another run, as `sksp` has them."""
WATCHED = ("locality", "tokens")


class VirtualClock(Clock):
    """World time that goes on when it is told to."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        super().__init__(wall=lambda: ORIGIN, monotonic=lambda: self.passed_s, seed=1)


class Year(Struct):
    """The survey under way."""

    store: Store
    reactor: Reactor
    engine: Engine
    upkeep: Upkeep
    clock: VirtualClock

    async def tick(self, at_once: int) -> None:
        """One look at everything outside, and all that follows from it; then time goes on."""
        await self.store.admit(FIELD, ("SND",), at_once)
        for kind in WATCHED:
            seen = await self.store.observed(kind)
            later = [
                (one, {"done": (data or {}).get("done", 0) + 1, "counts": {"ONLINE": FILES}}) for one, data in seen
            ]
            await self.store.ingest(kind, None, later)
        while True:
            decided = await self.reactor.decide_once()
            effects = await self.store.next_effects((), 256)
            await asyncio.gather(*map(self.engine.perform, effects))
            if not decided and not effects:
                break
        self.clock.passed_s += TICK_S
        await self.store.due()

    async def sample(self, ended: int) -> dict[str, Any]:
        """Memory and sizes as they are now."""
        figures = await self.store.figures()
        size_bytes, packed_bytes = figures.size_bytes["database"], figures.packed_bytes
        return {
            "ended": ended,
            "rss_mb": rss_bytes() / 1e6,
            "database_mb": size_bytes / 1e6,
            "packed_mb": packed_bytes / 1e6,
            "free_mb": figures.free_bytes / 1e6,
            "hot_mb": (size_bytes - packed_bytes - figures.free_bytes) / 1e6,
            "wal_mb": figures.size_bytes.get("wal", 0) / 1e6,
            "packed_runs": figures.packed_runs,
            "last_event": await self.store.last_event(),
        }


async def live(path: Path, fields: int, days: float) -> dict[str, Any]:
    """So many fields in so many days, and what that took."""
    nowhere = await asyncio.to_thread(open, os.devnull, "w", encoding="utf-8")
    log.configure("json", "warning", nowhere)
    clock = VirtualClock()
    store = Store(path, clock, outputs_of)
    world: Any = SimpleNamespace(clock=clock, done=0)
    await store.open()
    try:
        pipelines = Pipelines({one.name: one for one in (FIELD, CALIBRATOR)})
        terms: Any = {"pools": {}, "shown": {}, "select": ("SND",), "field_pipeline": "field", "max_fields": AT_ONCE}
        reactor = Reactor(store, {Toy.kind: Toy(), Join.kind: Join()}, pipelines, clock, **terms)
        year = Year(
            store,
            reactor,
            Engine(store, world, DEEDS, clock),
            Upkeep(store, clock, HistoryConfig(), 7 * DAY_S),
            clock,
        )
        began, samples, begun, packing_s = time.perf_counter(), [], 0, 0.0
        at = list(SAMPLED)
        while at:
            # The survey offers its fields evenly over the year, less the time that the last ones take.
            offered = min(fields, 1 + int(fields * clock.passed_s / DAY_S / (days - 25.0)))
            if offered > begun:
                await store.put_fields([(_row(number), "") for number in range(begun, offered)])
                begun = offered
            await year.tick(AT_ONCE)
            if clock.passed_s % DAY_S == 0:
                before = time.perf_counter()
                await year.upkeep.look()
                packing_s += time.perf_counter() - before
                counts = (await store.status())["fields"]
                ended = counts.get("archived", 0)
                while at and ended >= at[0] * fields:
                    samples.append({"part": at.pop(0), **await year.sample(ended)})
                if counts.get("failed") or clock.passed_s > 2 * days * DAY_S:
                    raise RuntimeError(f"the year does not go on: {counts}")
        return {
            "fields": fields,
            "tokens": fields * FILES,
            "days": clock.passed_s / DAY_S,
            "real_s": time.perf_counter() - began,
            "upkeep_s": packing_s,
            "decisions": reactor.decisions,
            "effects": world.done,
            "samples": samples,
        }
    finally:
        await store.close()
        nowhere.close()


def _row(number: int) -> FieldView:
    data = {
        "calibrator": str(number // SHARE),
        "obsid": str(200_000 + number),
        "filter": "CS*&&;!RS208HBA",
        "note": "x" * 200,
    }
    return FieldView(f"P{number:04d}+{number % 90:02d}", "SND", data, site="sara")


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """The year, in a child process."""
    fields, days = (12, 80.0) if quick else (FIELDS, DAYS)
    argv = [sys.executable, "-m", "bench.year", str(directory / "year.db"), str(fields), str(days)]
    root = Path(__file__).parent.parent
    done = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True, timeout=7200)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(live(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
