"""What tokens say in one of their fields, as a list of files for the steps behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.modify_tokens import State, selection_of
from aglowd.model import Done, Failed, Handler, Json, Outcome, Seen, StepView, Wait


class TokensToSurls(Handler):
    """The URLs in `field` of the tokens in `state`, in the order of the tokens, each once.

    A field may hold one, a list, or several with blanks between them. Outputs: `surls`, `count`, `without` (tokens whose
    field is empty; with `required` they fail the step).
    """

    kind = "tokens_to_surls"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        state: State = "done"
        field: str = "Results_location"
        required: bool = True
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        look = selection_of(step, params.token_type, params.state, params.site, params.field)
        found = seen.of(look)
        if found is None:
            return Wait((look,), f"looking what tokens of {params.token_type} say in {params.field}", HOUR_S)
        urls = {name: tuple(_urls(token["value"])) for name, token in sorted(found["tokens"].items())}
        without = [name for name, of_token in urls.items() if not of_token]
        if without and params.required:
            return Failed(f"{len(without)} of {len(urls)} tokens name no file in {params.field}: {named(without)}")
        surls = list(dict.fromkeys(url for of_token in urls.values() for url in of_token))
        return Done({"surls": surls, "count": len(surls), "without": without})


def _urls(value: Json) -> Iterator[str]:
    """The URLs in a field: whatever of it looks like one."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str):
            yield from (word for word in part.split() if "://" in word)
