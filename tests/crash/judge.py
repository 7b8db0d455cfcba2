"""What a case is judged by: the grid's own ledger, the bytes in its storage, and the journal held against both.

What must stay true: nothing here asks the daemon; a deed is known by what the world says of it.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from aglowd.cli.demo import ARCHIVE
from aglowd.grid.surl import read_srm_list
from aglowd.sim.checker import judge as judge_world
from aglowd.sim.dcachebulk import name_of
from aglowd.sim.history import History, Line
from aglowd.sim.rules import Expectation, FieldExpectation, Finding
from aglowd.sim.storage import Storage, adler32
from aglowd.store.archive import unpack
from aglowd.store.verify import list_breaks
from tests.crash import scenario
from tests.crash.scenario import FIELD, LEDGER, TARGET, Scenario

if TYPE_CHECKING:
    from tests.crash.lives import Result

GRACE_REAL_S = 20.0
"""Real seconds in which the world must be answered: a daemon that was just killed does not answer at once."""
SCHEDULED_S = 12 * 3600.0
"""World seconds between two times of pipelines/daily.toml."""
TWICE = frozenset({"submitted twice"})
"""Violations that are duplicates of a kind."""


class Effect(Struct, frozen=True):
    """An entry of the journal."""

    key: str
    kind: str
    state: str
    inputs: dict[str, Any]
    result: Any
    settled: float | None

    @property
    def is_done(self) -> bool:
        return self.state == "done"


class Snapshot(Struct, frozen=True):
    """The journal as a kill left it, and when that was (real epoch)."""

    effects: tuple[Effect, ...]
    at: float


def read_journal(db: sqlite3.Connection) -> tuple[Effect, ...]:
    """All effects by the time of their plans; those of packed runs as they were packed, not as they are left in the journal."""
    columns = ("planned", "key", "kind", "state", "inputs", "result", "settled")
    rows = {row[1]: row for row in db.execute(f"SELECT {', '.join(columns)} FROM effects")}
    for (material,) in db.execute("SELECT material FROM archive"):
        table = unpack(material)["effects"]
        places = [table.columns.index(name) for name in columns]
        rows |= {row[1]: row for row in (tuple(packed[at] for at in places) for packed in table.rows)}
    decode = msgspec.json.decode
    return tuple(
        Effect(key, kind, state, decode(inputs), None if result is None else decode(result), settled)
        for _, key, kind, state, inputs, result, settled in sorted(rows.values(), key=lambda row: row[:2])
    )


def snapshot(state: Path) -> Snapshot:
    """The journal of a daemon that is dead, read from a copy: to open a database changes it."""
    at = time.time()
    with tempfile.TemporaryDirectory(dir=state) as copy:
        for name in ("aglowd.db", "aglowd.db-wal"):
            if (state / name).exists():
                shutil.copy(state / name, copy)
        try:
            with closing(sqlite3.connect(Path(copy) / "aglowd.db")) as db:
                return Snapshot(read_journal(db), at)
        except sqlite3.OperationalError:
            return Snapshot((), at)  # It was killed before there was a schema.


def what_moves(path: Path) -> str:
    """The steps and effects that have not ended, for a message."""
    with closing(sqlite3.connect(path)) as db:
        steps = db.execute(
            "SELECT name, state, reason FROM steps WHERE state IN ('ready', 'working', 'waiting')"
        ).fetchall()
        effects = db.execute(
            "SELECT key, state, reason FROM effects WHERE state NOT IN ('done', 'rejected')"
        ).fetchall()
    return f"steps {steps}, effects {effects}"


def judge(world: Scenario, state: Path, snapshots: list[Snapshot], result: Result) -> None:
    """Add to the result all that speaks against the daemon."""
    with closing(sqlite3.connect(state / "aglowd.db")) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
        breaks = list_breaks(db)
        effects = read_journal(db)
        runs = db.execute("SELECT field, state, reason FROM runs").fetchall()
        # A scheduled run may have begun at the very end.
        left = db.execute(
            "SELECT run, name, state FROM steps WHERE dirty IS NOT NULL AND run NOT LIKE 'schedule%'"
        ).fetchall()
        _judge_schedule(db, world, result)
    if verdict != "ok":
        result.wrong.append(f"integrity_check: {verdict}")
    result.wrong += breaks
    result.doubtful.extend(effect.key for effect in effects if effect.state == "doubt")
    if result.doubtful:
        result.wrong.append(f"nothing in this world is beyond telling, and nobody can tell of {result.doubtful}")
    if result.wrong:
        return  # It did not come to its end, so most of what follows would say that again.
    ends = {field: {"done": "archived"}.get(end, end) for field, end, _ in runs}
    if ends.get(FIELD) != world.ends:
        result.lost.append(f"the field ended as {ends.get(FIELD)}, not {world.ends}: {runs}")
    alive = [effect.key for effect in effects if effect.state not in ("done", "rejected")]
    if alive or left:
        result.wrong.append(f"all runs have ended, and these have not: {alive} {left}")
    grid = state / "grid"
    history = History.read(grid / "ledger.jsonl")
    storage = Storage(grid / "storage")
    names = _names(history)
    effects = tuple(_numbered(effect, names) for effect in effects)
    snapshots = [Snapshot(tuple(_numbered(one, names) for one in taken.effects), taken.at) for taken in snapshots]
    report = judge_world(history, storage, _expectation(world, state))
    result.lost += _texts(report.lost)
    result.duplicated += _texts(report.duplicates)
    for finding in report.violations:
        (result.duplicated if finding.rule in TWICE else result.lost).extend(_texts((finding,)))
    forgotten = snapshots[0].effects if world.restores else None
    _compare(effects, history, storage, state, result, forgotten)
    for number, taken in enumerate(snapshots):
        _find_repeated(taken, effects, history, result)
        if number > 0 or not world.restores:
            _find_changed(taken, effects, result)
    _find_litter(state, result)


def _judge_schedule(db: sqlite3.Connection, world: Scenario, result: Result) -> None:
    """Each time of the schedule had one run at most, each run is known to the schedule, and each saw the one before."""
    begun = db.execute(
        "SELECT id, created, state, outputs FROM runs WHERE key = 'schedule/daily' ORDER BY created"
    ).fetchall()
    slots = Counter(created // SCHEDULED_S for _, created, _, _ in begun)
    result.duplicated += [f"the schedule's time {slot} had {count} runs" for slot, count in slots.items() if count > 1]
    if world.restores:
        return  # What the backup does not know is known to nobody.
    (kept,) = db.execute("SELECT value FROM cursors WHERE source = 'schedule daily'").fetchone()
    known = msgspec.json.decode(kept)
    if begun and (known["run"], known["begun"]) != begun[-1][:2]:
        result.lost.append(f"the schedule knows of {known}, and not of its run {begun[-1][0]}")
    told = [msgspec.json.decode(outputs)["count"] for _, _, end, outputs in begun if end == "done"]
    if told != list(range(1, len(told) + 1)):
        result.lost.append(f"the schedule's runs left {told} to each other")


def _names(history: History) -> dict[str, int]:
    """What dCache calls a request → the number by which the ledger knows it."""
    (started,) = history.of("world", "started")
    return {name_of(started["seed"], staging.request): staging.request for staging in history.stagings}


def _numbered(effect: Effect, names: dict[str, int]) -> Effect:
    """The effect with its request's number instead of a name."""
    inputs, result = (
        {**one, "request": names.get(one["request"], one["request"])}
        if isinstance(one, dict) and "request" in one
        else one
        for one in (effect.inputs, effect.result)
    )
    return msgspec.structs.replace(effect, inputs=inputs, result=result)


def _texts(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.rule}: {finding.what}" for finding in findings]


def _expectation(world: Scenario, state: Path) -> Expectation:
    fields = {}
    archives = world.ends == "archived" and world.pipeline == "main"
    if archives:
        path = state / "srm" / f"srm{TARGET}.txt"
        surls = read_srm_list(path.read_text(encoding="utf-8"), str(path)).surls
        fields[FIELD] = FieldExpectation(tuple(surls))
    return Expectation(
        archive_roots=(ARCHIVE,),
        archived_step=scenario.STEP if archives else None,
        fields=fields,
        finished=world.ends == "archived",
        wakeup_grace_s=GRACE_REAL_S * world.rate,
    )


def _status_of(state: Path) -> str:
    """What the catalogue says of its only field."""
    if not (state / "catalogue.db").exists():
        return (state / "fields.csv").read_text(encoding="utf-8").partition(",")[0]
    with closing(sqlite3.connect(state / "catalogue.db")) as db:
        return str(db.execute("SELECT status FROM fields").fetchone()[0])


def _compare(
    effects: tuple[Effect, ...],
    history: History,
    storage: Storage,
    state: Path,
    result: Result,
    forgotten: tuple[Effect, ...] | None,
) -> None:
    """The journal against the world: what is done there is there once; what is there is in the journal, if it is whole.

    `forgotten`: what a journal knew in whose place a backup was put; None if none was.
    """
    done = [effect for effect in effects if effect.is_done]
    by_kind = {kind: [effect for effect in done if effect.kind == kind] for kind in {effect.kind for effect in done}}

    made = [staging.request for staging in history.stagings]
    recorded = [effect.result["request"] for effect in by_kind.get("stage_files", ())]
    # One that was not told before it had vanished is known by its goal alone: that all files are online.
    untold = recorded.count(None)
    unknown = [f"request {one} is in no journal entry" for one in made if one not in recorded][untold:]
    result.lost += [f"request {one} was never made" for one in recorded if one is not None and one not in made]

    _compare_pilots(by_kind.get("submit_jobs", []), by_kind.get("cancel_jobs", []), state, result)
    started = Counter(line["tags"]["aglowd_key"] for line in history.of_jobs("job_started") if line["tags"])
    if (state / LEDGER).exists():
        started.update(effect.key for effect in by_kind["submit_jobs"])
    submitted = {effect.key: effect for effect in by_kind.get("submit_jobs", ())}
    result.lost += [f"{key} started no job" for key in submitted if not started[key]]
    unknown += [f"{key} started a job and is not done" for key in started if key not in submitted]

    created = set(history.tokens)
    planned = {name for effect in by_kind.get("create_tokens", ()) for name in effect.inputs["tokens"]}
    result.lost += [f"token {name} was never created" for name in sorted(planned - created)]
    unknown += [f"token {name} is in no journal entry" for name in sorted(created - planned)]
    result.duplicated += unknown if forgotten is None else []

    aborted = {line["request"] for line in history.of("staging", "request_aborted")}
    released = [effect.inputs["request"] for effect in by_kind.get("release_files", ())]
    result.lost += [f"request {one} was never released" for one in released if one not in aborted]

    ended = {line["job"] for line in history.of_jobs("job_ended")}
    cancelled = [effect.inputs["job"] for effect in by_kind.get("cancel_jobs", ()) if not (state / LEDGER).exists()]
    result.lost += [f"{job} was cancelled and goes on" for job in cancelled if job not in ended]

    removed = {effect.result["url"] for effect in by_kind.get("remove_file", ())}
    result.lost += [f"{url} was removed and is still there" for url in sorted(removed) if storage.exists(url)]

    gone = removed | {
        effect.result["url"] for effect in forgotten or () if effect.is_done and effect.kind == "remove_file"
    }
    for effect in (
        effect
        for kind in ("copy_file", "archive_tokens", "build_sandbox", "write_file")
        for effect in by_kind.get(kind, ())
    ):
        if effect.result["url"] in gone:  # What the judge looks for is the copy that it was removed for.
            continue
        path = storage.find_path(effect.result["url"])
        if path is None or not path.is_file():
            result.lost.append(f"{effect.result['url']} is not there")
        elif int(adler32(path.read_bytes()), 16) != effect.result["adler32"]:
            result.lost.append(f"{effect.result['url']} holds other bytes")

    written = [effect for effect in by_kind.get("write_status", ()) if effect.settled is not None]
    status = _status_of(state)
    expected = max(written, key=lambda effect: effect.settled or 0.0).inputs["status"] if written else "SND"
    if status != expected:
        result.lost.append(f"the catalogue says {status}, the journal {expected}")


def _compare_pilots(submitted: list[Effect], cancelled: list[Effect], state: Path, result: Result) -> None:
    """Pilots of this host, by the names that they wrote down when they began: each once, and each that ought to be."""
    if not (state / LEDGER).exists():
        return
    began = Counter((state / LEDGER).read_text(encoding="utf-8").split())
    ours = {job for effect in submitted for job in effect.result["jobs"]}
    called_off = {effect.inputs["job"] for effect in cancelled}
    result.duplicated += [f"pilot {job} began {count} times" for job, count in began.items() if count > 1]
    result.duplicated += [f"pilot {job} is in no journal entry" for job in sorted(began.keys() - ours)]
    result.lost += [f"pilot {job} never began" for job in sorted(ours - began.keys() - called_off)]
    wanted = sum(effect.inputs["nodes"] for effect in submitted)
    result.lost += [f"{len(ours)} pilots were submitted, not {wanted}"] if len(ours) != wanted else []


def _find_changed(taken: Snapshot, effects: tuple[Effect, ...], result: Result) -> None:
    """What was done before a kill must be left alone after it by the journal."""
    final = {effect.key: effect for effect in effects}
    for effect in taken.effects:
        now = final.get(effect.key)
        if effect.is_done and now != effect:
            result.lost.append(f"{effect.key} was done before the kill, and the journal now says {now}")


def _find_repeated(taken: Snapshot, effects: tuple[Effect, ...], history: History, result: Result) -> None:
    """What was done before a kill must not be done to the world again, whatever the journal remembers."""
    since = [line for line in history.lines if line["real"] > taken.at and line["by"] == "client"]
    done = {effect.key for effect in taken.effects if effect.is_done}
    # A new attempt asks for what an earlier one gave back; that each request has its entry is looked at elsewhere.
    anew = [{*one.inputs["surls"]} for one in effects if one.kind == "stage_files" and one.key not in done]
    for effect in taken.effects:
        if effect.is_done and not (effect.kind == "stage_files" and {*effect.inputs["surls"]} in anew):
            result.duplicated += [f"{effect.key} was repeated: {line}" for line in since if _does(effect, line)]


def _does(effect: Effect, line: Line) -> bool:
    """Whether the line is what the effect does to the world."""
    inputs, op = effect.inputs, f"{line['system']}.{line['op']}"
    match effect.kind:
        case "stage_files":
            return op == "staging.request_made" and set(line["surls"]) == set(inputs["surls"])
        case "release_files":
            return op == "staging.request_aborted" and line["request"] == inputs["request"]
        case "copy_file" | "archive_tokens" | "build_sandbox":
            url = effect.result["url"]
            return op in ("storage.copy", "storage.rename") and line["urls"][-1].startswith(url)
        case "attach_files":
            return op == "couchdb.bulk_docs" and any(
                doc["id"] in inputs["own"] and doc["rev"].startswith("2-") for doc in line["docs"]
            )
        case "cancel_jobs":
            return op == "glite.cancel" and inputs["job"] in line["jobs"]
    return False


def _find_litter(state: Path, result: Result) -> None:
    """Nothing half done may stay behind, least of all a credential."""
    result.wrong += [f"left behind: {path.relative_to(state)}" for path in _litter(state)]


def _litter(state: Path) -> Iterator[Path]:
    yield from (state / "work").iterdir()
    for place in ("grid/storage", "srm"):
        yield from (path for path in (state / place).rglob("*") if ".part" in path.name or ".remove-" in path.name)
