"""Makes the record of a field from what the store knows. Pure: the same material gives the same record.

What must stay true: a file, a token or a job is told once, however many attempts there were, and as it stood last; what one
attempt made and another one used is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from aglowd import __version__
from aglowd.chronicle.files import archived_of, copies_of, inputs_of, stagings_of, subbands_of, token_archives_of
from aglowd.chronicle.sources import moment
from aglowd.chronicle.work import jobs_of, parsets_of, software_of, tokens_of
from aglowd.clock import iso
from aglowd.provenance import Approval, Input, Missing, Record, Run, Step, Versions, hex_of
from aglowd.store.material import Material


def record_of(materials: Sequence[Material], now: float) -> Record:
    """The record; the first of the runs is the field's own, the others are those that it used."""
    first = materials[0]
    inputs = tuple(inputs_of(materials))
    copies = copies_of(materials)
    tokens = tuple(token for material in materials for token in tokens_of(material, copies))
    return Record(
        field=first.run.field,
        run=first.run.id,
        state=first.run.state,
        made=iso(now),
        catalogue=first.run.context,
        versions=Versions(aglowd=__version__, grid_lrt=_grid_lrt()),
        runs=tuple(map(_run, materials)),
        steps=tuple(step for material in materials for step in _steps(material)),
        inputs=inputs,
        stagings=tuple(staging for material in materials for staging in stagings_of(material)),
        tokens=tokens,
        jobs=tuple(job for material in materials for job in jobs_of(material)),
        parsets=tuple(parset for material in materials for parset in parsets_of(material)),
        software=tuple(one for material in materials for one in software_of(material)),
        archived=tuple(archived_of(materials)),
        token_archives=tuple(archive for material in materials for archive in token_archives_of(material)),
        missing=Missing(
            subbands=tuple(one for material in materials for one in subbands_of(material)),
            not_staged=tuple(one.surl for one in inputs if one.state == "missing"),
            excluded=tuple(one.surl for one in inputs if one.state == "excluded"),
            failed_tokens=tuple(one.id for one in tokens if one.state not in ("made", "done", "todo", "locked")),
            flagged_baselines=str(first.run.context.get("baseline_filter") or ""),
        ),
        approvals=tuple(approval for material in materials for approval in _approvals(material)),
    )


def with_contents(record: Record, contents: Mapping[str, Mapping[str, Any]]) -> Record:
    """The record with sizes and checksums of inputs (SURL → `size_bytes`, `adler32` as numbers), where it had none."""

    def filled(one: Input) -> Input:
        told = contents.get(one.surl, {})
        size = told.get("size_bytes") if one.size_bytes is None else one.size_bytes
        return msgspec.structs.replace(
            one, size_bytes=size, adler32=hex_of(told.get("adler32")) if one.adler32 is None else one.adler32
        )

    return msgspec.structs.replace(record, inputs=tuple(map(filled, record.inputs)))


@cache
def _grid_lrt() -> str:
    return metadata.version("GRID_LRT")


def _run(material: Material) -> Run:
    run = material.run
    return Run(
        id=run.id,
        field=run.field,
        key=run.key,
        pipeline=material.pipeline,
        pipeline_digest=run.pipeline,
        state=run.state,
        reason=run.reason,
        used_by=material.used_by,
        begun=iso(material.created),
        ended=moment(material.ended),
    )


def _steps(material: Material) -> Iterator[Step]:
    for step in sorted(material.steps, key=lambda step: (step.started is None, step.started or 0.0, step.name)):
        yield Step(
            run=material.run.id,
            name=step.name,
            kind=step.kind,
            state=step.state,
            attempts=step.attempts,
            reason=step.reason,
            begun=moment(step.started),
            ended=moment(step.ended),
        )


def _approvals(material: Material) -> Iterator[Approval]:
    for seen in material.observed:
        if seen.kind == "verdict":
            told = {name: seen.data[name] for name in ("approved", "verdict", "reason", "uid")}
            yield Approval(run=material.run.id, step=seen.step, at=iso(seen.data["at"]), **told)
