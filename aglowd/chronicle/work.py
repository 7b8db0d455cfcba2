"""The work in a record: tokens, the jobs that did them, and what these were told to run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from aglowd.chronicle.sources import effects_of, moment, surls_in
from aglowd.clock import iso
from aglowd.model import Json
from aglowd.provenance import End, File, Job, Parset, Software, Token, hex_of
from aglowd.store.material import Material


def tokens_of(material: Material, copies: Mapping[str, Mapping[str, Any]]) -> Iterator[Token]:
    own = {
        name: files for _, inputs, _ in effects_of(material, "attach_files") for name, files in inputs["own"].items()
    }
    facts: dict[str, dict[str, Any]] = {}
    seen_by: dict[str, str] = {}
    results: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for seen in material.observed:
        if seen.kind == "directory":
            sizes |= {file["url"]: file["size_bytes"] for file in seen.data["files"]}
        if seen.kind == "results":
            facts |= seen.data.get("tokens", {})
            results |= seen.data["done"]
            seen_by |= dict.fromkeys(seen.data.get("tokens", {}), seen.step)
            for name, status in seen.data["other"].items():
                facts.setdefault(name, {"state": status})
    made = {
        name: (done, inputs) for done, inputs, _ in effects_of(material, "create_tokens") for name in inputs["tokens"]
    }
    # Those that nobody made here are another program's, which began the field.
    for name in sorted({*made, *seen_by}):
        step, token_type, document = seen_by.get(name, ""), "", {}
        if name in made:
            done, inputs = made[name]
            step, token_type, document = done.step, inputs["token_type"], inputs["tokens"][name]
        told = facts.get(name, {})
        yield Token(
            id=name,
            type=token_type or told.get("type") or "",
            run=material.run.id,
            step=step,
            state=told.get("state") or ("done" if name in results else "made"),
            scrubs=told.get("scrubs"),
            retries=told.get("retries"),
            job=told.get("job", ""),
            host=told.get("host", ""),
            begun=moment(told.get("begun")),
            ended=moment(told.get("ended")),
            inputs=tuple(surls_in(own.get(name, {}))) or _files(document),
            result=_result(results.get(name, ""), told, sizes, copies),
            ends=tuple(
                End(at=moment(end["at"]), why=end["why"], job=end["job"], host=end["host"])
                for end in told.get("ends", ())
            ),
        )


def _files(document: Mapping[str, Json]) -> tuple[str, ...]:
    """The results of an earlier pass that the token is made of."""
    files = document.get("INPUT_FILES")
    return tuple(map(str, files)) if isinstance(files, list) else ()


def _result(
    url: str, told: Mapping[str, Any], sizes: Mapping[str, int], copies: Mapping[str, Mapping[str, Any]]
) -> File | None:
    """What the token's pilot wrote, in its words; where it said nothing, as it was seen when it was copied or listed."""
    if not url:
        return None
    size, adler32 = told.get("size_bytes"), told.get("adler32")
    copy = copies.get(url, {})
    return File(
        url=url,
        size_bytes=copy.get("size_bytes", sizes.get(url)) if size is None else size,
        adler32=hex_of(copy.get("adler32") if adler32 is None else adler32),
    )


def jobs_of(material: Material) -> Iterator[Job]:
    for done, inputs, result in effects_of(material, "submit_jobs"):
        for job in result["jobs"] if "jobs" in result else [result["job"]]:
            yield Job(
                id=job,
                site=inputs.get("site", ""),
                run=material.run.id,
                step=done.step,
                attempt=done.attempt,
                submitted=iso(done.record.intended_at or done.at),
                state=material.jobs.get(job, {}).get("state", ""),
            )


def parsets_of(material: Material) -> Iterator[Parset]:
    attached: dict[str, list[str]] = {}
    for _, inputs, _ in effects_of(material, "attach_files"):
        types = sorted({name.partition(":")[0] for name in inputs["own"]})
        for name, text in inputs.get("shared", {}).items():
            attached.setdefault(text, []).extend(f"{token_type}/{name}" for token_type in types)
    for step in material.steps:
        text = step.outputs.get("parset")
        if step.kind == "parset" and isinstance(text, str):
            digest = hashlib.sha256(text.encode()).hexdigest()
            names = tuple(dict.fromkeys(attached.get(text, ())))
            yield Parset(run=material.run.id, step=step.name, sha256=digest, text=text, attached=names)


def software_of(material: Material) -> Iterator[Software]:
    """Of each set of tokens; all of a set are made of one configuration."""
    found: dict[str, Software] = {}
    for done, inputs, _ in effects_of(material, "create_tokens"):
        document: dict[str, Any] = next(iter(inputs["tokens"].values()), {})
        config = document.get("config.json")
        config = config if isinstance(config, dict) else {}
        found[inputs["token_type"]] = Software(
            run=material.run.id,
            step=done.step,
            token_type=inputs["token_type"],
            tokens=len(inputs["tokens"]),
            command=str(config.get("command", "")),
            sandbox=config.get("sandbox"),
            container=config.get("container"),
        )
    return iter(found.values())
