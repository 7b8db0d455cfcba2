"""A recipe: of which parts of what is known already a long fact is made. So the log tells a fact whole that it has to cut.

Of a long list little changes from one look to the next, and much of it stands in the subject's arguments. What must stay true:
what a recipe makes is the fact to the letter, as its digest says, or nothing; what an event holds stays short: a recipe, and the
beginning of the fact as far as there is room beside it.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence

from aglowd.model import Json
from aglowd.store.journal import digest_of
from aglowd.store.rows import dumps, loads

UNKNOWN = -1
MAX_FACT_CHARS = 200_000
"""Nobody looks for the parts of a longer fact: it would take too long for those who wait for the commit."""
MAX_RECIPE_CHARS = 4_096
"""Few are longer than some hundred; without one of them the later facts of its subject could not be made, either."""


def recipe_of(text: str, args: str, before: str) -> dict[str, Json]:
    """What an event that is cut holds beside the beginning of the fact: its digest, and how it is `made` of the subject's
    arguments and the observation before ("" = there is none), if that is short enough."""
    told: dict[str, Json] = {"digest": digest_of(text)}
    if len(text) > MAX_FACT_CHARS:
        return told
    made: Json = _parts(text.split(","), _known(args, before))
    written = dumps(made)
    if len(written) > MAX_RECIPE_CHARS:
        packed = zlib.compress(written.encode())
        if len(packed) * 5 > MAX_RECIPE_CHARS * 4:  # Of four bytes five characters are made, and slowly.
            return told
        made = base64.b85encode(packed).decode()
    return {**told, "made": made}


def make(data: Mapping[str, Json], args: str, before: str) -> str | None:
    """The whole fact of an event that is cut; None if it has no recipe, or is made of something else than this."""
    made = data.get("made")
    if isinstance(made, str):
        made = loads(zlib.decompress(base64.b85decode(made)).decode())
    if made is None:
        return None
    known = _known(args, before)
    text = ",".join(part if isinstance(part, str) else ",".join(known[part[0] : part[0] + part[1]]) for part in made)
    return text if digest_of(text) == data["digest"] else None


def _known(args: str, before: str) -> list[str]:
    """The parts that a recipe counts. The commas of a text divide it, whatever they mean."""
    return [*args.split(","), *before.split(",")]


def _parts(wanted: Sequence[str], known: Sequence[str]) -> list[Json]:
    """[place, how many] for what is known, and a text for what is new."""
    places: dict[str, int] = {}
    for place, part in enumerate(known):
        places.setdefault(part, place)
    made: list[Json] = []
    fresh: list[str] = []
    follows = 0
    for part in wanted:
        # Most goes on as it did before, also behind what has changed in its place.
        near = (one for one in (follows, follows + len(fresh)) if one < len(known) and known[one] == part)
        place = next(near, places.get(part, UNKNOWN))
        if place == UNKNOWN:
            fresh.append(part)
            continue
        if made and not fresh and place == follows:
            made[-1][1] += 1
        else:
            made += [",".join(fresh), [place, 1]] if fresh else [[place, 1]]
        follows, fresh = place + 1, []
    return [*made, ",".join(fresh)] if fresh else made
