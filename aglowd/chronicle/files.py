"""The files in a record: what went in, how it came online, what was archived, and what the lists lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from aglowd.chronicle.sources import effects_of, listed, surls_in
from aglowd.clock import iso
from aglowd.grid.surl import parse_surl, site_of
from aglowd.model import StepState
from aglowd.provenance import Archived, Input, Staging, Subbands, TokenArchive, hex_of
from aglowd.store.material import Material

State = Literal["used", "online", "missing", "excluded", "replaced", "listed"]


def inputs_of(materials: Sequence[Material]) -> Iterator[Input]:
    states: dict[str, State] = {}
    contents: dict[str, Any] = {}
    for material in materials:
        _follow_steps(material, states)
    for material in materials:
        for _, inputs, _ in effects_of(material, "attach_files"):
            for files in inputs["own"].values():
                states.update(dict.fromkeys(surls_in(files), "used"))
        for seen in material.observed:
            contents |= seen.data["files"] if seen.kind == "inputs" else {}
    for surl, state in states.items():
        site, obsid, subband = _place(surl)
        told = contents.get(surl, {})
        yield Input(
            surl=surl,
            site=site,
            obsid=obsid,
            subband=subband,
            state=state,
            size_bytes=told.get("size_bytes"),
            adler32=hex_of(told.get("adler32")),
        )


def _follow_steps(material: Material, states: dict[str, State]) -> None:
    """What the steps said of files, the later ones last."""
    ended = [step for step in material.steps if step.state is StepState.DONE]
    for step in sorted(ended, key=lambda step: (step.ended or 0.0, step.name)):
        outputs = step.outputs
        if step.kind == "srm_list":
            for surl in listed(outputs, "surls", str):
                states.setdefault(surl, "listed")
        elif step.kind == "stage":
            told: tuple[tuple[State, Sequence[str]], ...] = (
                ("replaced", listed(outputs, "replaced", str)),
                ("online", listed(outputs, "surls", str)),
                ("missing", listed(outputs, "missing", str)),
                ("excluded", listed(outputs, "excluded", str)),
            )
            for state, surls in told:
                states.update(dict.fromkeys(surls, state))


def _place(surl: str) -> tuple[str, str, int | None]:
    try:
        file = parse_surl(surl)
        return site_of(file.host), file.obsid, file.subband
    except ValueError:
        return "", "", None


def stagings_of(material: Material) -> Iterator[Staging]:
    for done, inputs, result in effects_of(material, "stage_files"):
        yield Staging(
            request=result.get("request"),
            site=inputs.get("site", ""),
            run=material.run.id,
            step=done.step,
            files=len(inputs["surls"]),
            made=iso(done.record.intended_at or done.at),
        )


def copies_of(materials: Sequence[Material]) -> dict[str, dict[str, Any]]:
    """What was copied → the copy, which has the same bytes."""
    return {
        inputs["source"]: result
        for material in materials
        for _, inputs, result in effects_of(material, "copy_file")
        if "adler32" in result
    }


def archived_of(materials: Sequence[Material]) -> Iterator[Archived]:
    """Each copy once: a later attempt finds what an earlier one copied."""
    found: dict[str, Archived] = {}
    for material in materials:
        for done, inputs, result in effects_of(material, "copy_file"):
            found[result["url"]] = Archived(
                url=result["url"],
                size_bytes=result["size_bytes"],
                adler32=f"{result['adler32']:08x}",
                source=inputs["source"],
                run=material.run.id,
                step=done.step,
            )
    return iter(found.values())


def token_archives_of(material: Material) -> Iterator[TokenArchive]:
    for done, inputs, result in effects_of(material, "archive_tokens"):
        yield TokenArchive(
            url=result["url"],
            size_bytes=result["size_bytes"],
            adler32=f"{result['adler32']:08x}",
            token_type=inputs["token_type"],
            tokens=len(result["revisions"]),
            run=material.run.id,
            step=done.step,
        )


def subbands_of(material: Material) -> Iterator[Subbands]:
    for step in material.steps:
        if step.kind == "srm_list" and (missing := listed(step.outputs, "missing", int)):
            obsid = str(step.outputs.get("obsid", ""))
            yield Subbands(run=material.run.id, step=step.name, obsid=obsid, subbands=missing)
