"""Read the list of a field's files, and say what is wrong with it before anything is asked for."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.missing import Missing, missing_of, too_many
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait


def srm_list(path: str, occasion: str) -> Subject:
    """The content of an SRM list. Each occasion is a subject of its own: a list may have been mended since."""
    return Subject("srm_list", occasion, {"path": path})


class SrmList(Handler):
    """Read an SRM list: one OBSID, one site, at least one subband. Fewer subbands than `nominal` are named; they are refused only
    if more are missing than `missing` allows.

    Outputs: `surls`, `obsid`, `site`, `subbands`, `count`, `missing`, `report`.
    """

    kind = "srm_list"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        path: str
        obsid: str
        site: str = ""
        nominal: int = 244
        missing: Missing | None = None

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = srm_list(params.path, step.key)
        content = seen.of(subject)
        if content is None:
            return Wait((subject,), f"reading {params.path}", HOUR_S)
        if "problems" in content:
            return Failed("; ".join(content["problems"][:5]), final=True)
        if content["obsid"] != params.obsid:
            return Failed(f"{params.path}:1: the files are of {content['obsid']}; expected {params.obsid}", final=True)
        if params.site and content["site"] != params.site:
            reason = (
                f"{params.path}:1: the files lie at {content['site']}; expected {params.site}, where the target lies"
            )
            return Failed(reason, final=True)
        missing = missing_of(content["subbands"], params.nominal)
        if wrong := too_many(missing, params.missing):
            return Failed(f"{params.path}:1: {wrong}", final=True)
        return Done(
            {**content, "count": len(content["surls"]), "missing": missing, "report": _report(params.obsid, missing)}
        )


def _report(obsid: str, missing: list[int]) -> str:
    """What an operator should know of the list."""
    if not missing:
        return f"{obsid} is complete"
    return f"{obsid} lacks {len(missing)} subbands: {named([f'SB{number:03d}' for number in missing])}"
