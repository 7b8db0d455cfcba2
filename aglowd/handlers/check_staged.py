"""Look which files are online, and ask for none (AGLOW's check_staged): for pipelines that branch on it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.grid.surl import parse_surl
from aglowd.handlers.base import HOUR_S, is_enough, named
from aglowd.handlers.stage import locality, site_of_all
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Wait


class CheckStaged(Handler):
    """Whether `threshold` of the files are online; with `required` the step fails if they are not.

    Outputs: `staged`, `surls` (those that are online), `online` (how many), `missing`, `away` (of these, what the site
    says of those that are not on tape either), `site`.
    """

    kind = "check_staged"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        surls: tuple[str, ...]
        threshold: float = 0.95
        required: bool = False

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        try:
            site = site_of_all(params.surls)
            surls = tuple(dict.fromkeys(str(parse_surl(surl)) for surl in params.surls))
        except ValueError as error:
            return Failed(str(error), final=True)
        look = locality(site, surls, step.key)
        found = seen.of(look)
        if found is None:
            return Wait((look,), f"looking which of {len(surls)} files are online", HOUR_S)
        if "problem" in found:
            return Failed(f"where {len(surls)} files are cannot be asked: {found['problem']}")
        missing: list[str] = found["missing"]
        absent = set(missing)
        here = [surl for surl in surls if surl not in absent]
        staged = is_enough(len(here), len(surls), params.threshold)
        if params.required and not staged:
            return Failed(f"{len(here)} of {len(surls)} files are online; not: {named(missing)}")
        files = {"surls": here, "missing": missing, "away": found["away"]}
        return Done({"staged": staged, "online": len(here), "site": site, **files})
