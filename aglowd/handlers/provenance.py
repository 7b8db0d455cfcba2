"""Write the record of the field beside its results: what they were made of, how, by whom and when (docs/provenance.md)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from aglowd.chronicle import with_contents
from aglowd.durations import duration_s
from aglowd.effects.files import WriteFile
from aglowd.handlers.base import HOUR_S, named, once
from aglowd.model import Handler, Outcome, Seen, StepView, Subject, Wait
from aglowd.provenance import NAME, Record, text_of


def record(run: str, occasion: str) -> Subject:
    """The record of that run as the store could write it. Each occasion is a subject of its own: a record is never an old one."""
    return Subject("provenance", occasion, {"run": run})


def inputs(site: str, surls: tuple[str, ...], occasion: str) -> Subject:
    """Sizes and checksums of files at that site."""
    return Subject("inputs", f"{occasion}/{site}", {"site": site, "surls": list(surls)})


class Provenance(Handler):
    """Write `provenance.json` into the directory: of this run and of the runs whose outputs it used, as they stand now.

    The sites are asked for sizes and checksums of the inputs; what they do not tell within `patience` stays null. A later
    attempt writes `provenance-2.json` and so on: nothing is overwritten. Outputs: `url`, `size_bytes`, `adler32`.
    """

    kind = "provenance"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str
        patience: str = "6h"

        def __post_init__(self) -> None:
            duration_s(self.patience)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = record(step.run, step.key)
        told = seen.observations.get(subject.key)
        if told is None:
            return Wait((subject,), f"gathering what is known of {step.run}", HOUR_S)
        found = msgspec.convert(told.data, Record)
        contents: dict[str, Any] = {}
        silent = []
        for look in _looks(found, step.key):
            answer = seen.of(look)
            if answer is None:
                silent.append(look)
            else:
                contents |= answer["files"]
        left_s = told.at + duration_s(params.patience) - seen.now
        if silent and left_s > 0 and not seen.effects:
            sites = named([look.args["site"] for look in silent])
            return Wait(tuple(silent), f"asking {sites} for sizes and checksums of the inputs", min(left_s, HOUR_S))
        name = NAME if step.attempt == 1 else NAME.replace(".", f"-{step.attempt}.")
        url = f"{params.directory.rstrip('/')}/{name}"
        return once(seen, WriteFile(url=url, text=text_of(with_contents(found, contents))))


def _looks(found: Record, occasion: str) -> list[Subject]:
    """A question for each site at which inputs lie of which the record does not know enough."""
    surls: dict[str, list[str]] = {}
    for one in found.inputs:
        if one.site and None in (one.size_bytes, one.adler32):
            surls.setdefault(one.site, []).append(one.surl)
    return [inputs(site, tuple(of_site), occasion) for site, of_site in sorted(surls.items())]
