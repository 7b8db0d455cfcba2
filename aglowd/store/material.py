"""What the store knows of a run, and of the runs whose outputs it used: what the record of a field is made of.

What must stay true: all of it is of one committed state, and it is only read. `aglowd.provenance` makes the record of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from aglowd.model import EffectRecord, Json, StepState
from aglowd.store.db import queries
from aglowd.store.rows import Run, dumps, effect_of, is_forgotten, loads, run_of

EFFECTS = ("stage_files", "create_tokens", "attach_files", "submit_jobs", "copy_file", "archive_tokens")
"""The kinds of effects of which a record tells."""
OBSERVED = ("results", "directory", "inputs", "verdict")
"""The kinds of subjects that belong to a step and of which a record tells."""
RUN_KIND = "run"
"""The kind of the steps that start or join other runs."""


class StepRow(Struct, frozen=True):
    """How a step of the run stands. Times are world seconds."""

    name: str
    kind: str
    state: StepState
    attempts: int
    reason: str
    started: float | None
    ended: float | None
    outputs: dict[str, Json]


class DoneEffect(Struct, frozen=True):
    """An effect that was done: for which step, in which attempt, and when that was known."""

    step: str
    attempt: int
    at: float
    record: EffectRecord


class Observed(Struct, frozen=True):
    """The last observation of a subject `kind:<run>/<step>/<attempt>…`."""

    kind: str
    id: str
    at: float
    data: Json

    @property
    def step(self) -> str:
        """The step that it belongs to."""
        return self.id.split("/")[1]


class Material(Struct, frozen=True):
    """One run with all that belongs to it. `used_by`: the run and the step that use its outputs, "" for the first."""

    run: Run
    pipeline: str
    created: float
    ended: float | None
    used_by: str
    steps: tuple[StepRow, ...]
    effects: tuple[DoneEffect, ...]
    observed: tuple[Observed, ...]
    jobs: dict[str, Json]
    """Job → what was last seen of it."""


def list_materials(db: sqlite3.Connection, name: str) -> tuple[Material, ...]:
    """The run of that id, or the latest run of the field or other name, first; then the runs that it used, each once."""
    first = _find_run(db, name)
    found: dict[str, Material] = {}
    queue = [(first, "")] if first else []
    while queue:
        run, used_by = queue.pop(0)
        if run not in found:
            found[run] = _material(db, run, used_by)
            queue.extend(_used(db, found[run]))
    return tuple(found.values())


def _find_run(db: sqlite3.Connection, name: str) -> str:
    """The id of the run that is meant, or ''."""
    run = db.execute(queries()["get_run"], {"run": name}).fetchone()
    if run is not None:
        return "" if is_forgotten(run) else name
    row = db.execute(queries()["get_field"], {"name": name}).fetchone()
    run = None if row is None else db.execute(queries()["get_run"], {"run": row["run"]}).fetchone()
    if run is None or is_forgotten(run):
        row = db.execute(queries()["get_run_as_field"], {"name": name}).fetchone()
    return "" if row is None else str(row["run"])


def _material(db: sqlite3.Connection, run_id: str, used_by: str) -> Material:
    row = db.execute(queries()["get_run"], {"run": run_id}).fetchone()
    effects = tuple(_effects(db, run_id))
    observed = tuple(
        Observed(subject["kind"], subject["id"], subject["at"], loads(subject["data"]))
        for kind in OBSERVED
        for subject in db.execute(queries()["subjects_of_run"], {"kind": kind, "run": run_id})
    )
    return Material(
        run=run_of(row),
        pipeline=db.execute(queries()["pipeline_name"], {"digest": row["pipeline"]}).fetchone()["name"],
        created=row["created"],
        ended=row["ended"],
        used_by=used_by,
        steps=tuple(_steps(db, run_id)),
        effects=effects,
        observed=observed,
        jobs=dict(_jobs(db, effects)),
    )


def _steps(db: sqlite3.Connection, run: str) -> Iterator[StepRow]:
    for row in db.execute(queries()["steps_of_run"], {"run": run}):
        values = {name: row[name] for name in ("name", "kind", "reason", "started", "ended")}
        state = StepState(row["state"])
        yield StepRow(**values, state=state, attempts=row["attempt"], outputs=loads(row["outputs"]))


def _effects(db: sqlite3.Connection, run: str) -> Iterator[DoneEffect]:
    for row in db.execute(queries()["effects_of_run"], {"run": run, "kinds": dumps(EFFECTS)}):
        yield DoneEffect(row["step"], row["attempt"], row["settled"], effect_of(row))


def _jobs(db: sqlite3.Connection, effects: tuple[DoneEffect, ...]) -> Iterator[tuple[str, Json]]:
    """What was last seen of each job that was submitted; a job of a site is a subject by both names."""
    for done in effects:
        result, site = done.record.result, done.record.inputs.get("site", "")
        for job in result.get("jobs", ()) if isinstance(result, dict) else ():
            key = f"job:{job}@{site}" if site else f"job:{job}"
            row = db.execute(queries()["get_subject"], {"key": key}).fetchone()
            if row is not None and row["version"] > 0:
                yield job, loads(row["data"])


def _used(db: sqlite3.Connection, material: Material) -> Iterator[tuple[str, str]]:
    """The runs whose outputs its steps have or wait for, each with who uses it."""
    for step in material.steps:
        used = step.outputs.get("run")
        # Outputs may be a person's word, who knows of runs that never were.
        if step.kind == RUN_KIND and isinstance(used, str) and _find_run(db, used) == used:
            yield used, f"{material.run.id}/{step.name}"
    for row in db.execute(queries()["runs_waited"], {"run": material.run.id}).fetchall():
        latest = db.execute(queries()["latest_run"], {"key": row["id"]}).fetchone()
        if latest is not None:
            yield latest["id"], material.run.id
