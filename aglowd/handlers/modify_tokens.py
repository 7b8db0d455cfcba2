"""Change tokens that are in some state: give them back, set fields in them, delete them once they are archived."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from aglowd.effects.token_archive import ArchiveTokens, DeleteTokens
from aglowd.effects.tokens import ModifyTokens, ResetTokens, check_fields
from aglowd.handlers.base import HOUR_S, failure, named
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Seen, StepView, Subject, Wait

Action = Literal["reset", "set", "delete"]
State = Literal["", "todo", "done", "error", "other"]
"""As the watchers count; those that somebody works on are nobody else's."""


def selection_of(step: StepView, token_type: str, state: str, site: str, field: str = "status") -> Subject:
    """Which tokens are in that state when the attempt looks."""
    args = {"token_type": token_type, "state": state, "field": field, **({"site": site} if site else {})}
    return Subject("selection", step.key, args)


class ModifyTokensStep(Handler):
    """`reset` the tokens, `set` `values` in them, or `delete` them, with an archive of them in `archive` read back first.

    `state`: those that are todo, done, error or other; "" = all but those that somebody works on. `tokens`: only these. `site` tells
    their database.
    Outputs: `tokens` (ids), `left` (how many had changed meanwhile and were left alone), `archive` (its URL).
    """

    kind = "modify_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        action: Action
        state: State = ""
        tokens: tuple[str, ...] = ()
        values: dict[str, Json] = {}
        archive: str = ""
        site: str = ""

        def __post_init__(self) -> None:
            check_fields(self.values)
            if (self.action == "set") != bool(self.values):
                raise ValueError("values go with the action set, which needs some")
            if (self.action == "delete") != bool(self.archive):
                raise ValueError("a directory for the archive goes with the action delete, which needs one")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        look = selection_of(step, params.token_type, params.state, params.site)
        found = seen.of(look)
        if found is None:
            return Wait((look,), f"looking which tokens of {params.token_type} are {params.state or 'free'}", HOUR_S)
        strangers = sorted(set(params.tokens) - found["tokens"].keys())
        if strangers:
            return Failed(f"{params.state or 'there'} are no such tokens of {params.token_type}: {named(strangers)}")
        chosen = {
            name: token["rev"]
            for name, token in sorted(found["tokens"].items())
            if not token["held"] and (not params.tokens or name in params.tokens)
        }
        if not chosen:
            return Done({"tokens": [], "left": 0, "archive": ""})
        return (
            self._delete(step, params, seen, chosen)
            if params.action == "delete"
            else self._change(params, seen, chosen)
        )

    def _change(self, params: Any, seen: Seen, chosen: dict[str, str]) -> Outcome:
        kind = ResetTokens if params.action == "reset" else ModifyTokens
        result = seen.result(kind)
        if result is not None:
            return Done({"tokens": list(chosen), "left": result["left"], "archive": ""})
        if params.action == "reset":
            why = dict.fromkeys(chosen, "asked for")
            return Do.all(ResetTokens(tokens=tuple(chosen), seen=chosen, why=why, site=params.site))
        return Do.all(ModifyTokens(tokens=chosen, values=params.values, site=params.site))

    def _delete(self, step: StepView, params: Any, seen: Seen, chosen: dict[str, str]) -> Outcome:
        again = f"-{step.attempt}" if step.attempt > 1 else ""
        archive = seen.result(ArchiveTokens)
        if archive is None:
            url = f"{params.archive}/{params.token_type}.{step.run}.tokens{again}.tar.gz"
            return Do.all(ArchiveTokens(token_type=params.token_type, url=url, tokens=tuple(chosen), site=params.site))
        if seen.result(DeleteTokens) is None:
            return Do.all(
                DeleteTokens(
                    token_type=params.token_type,
                    revisions=archive["revisions"],
                    archive=archive["url"],
                    adler32=archive["adler32"],
                    is_part=True,
                    site=params.site,
                )
            )
        return Done({"tokens": list(chosen), "left": 0, "archive": archive["url"]})
