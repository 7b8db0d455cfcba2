"""Which subbands are missing, and whether an observation without them is still good enough. Pure.

What must stay true: every step that judges asks the same functions, so that one policy means the same everywhere; which
subband a file or a token has stands in its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from aglowd.handlers.base import named

_SUBBAND = re.compile(r"(?:^|[_:])SB(\d{3,4})(?=[_.]|$)")


class Missing(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be missing: at most so many subbands, and at most so many in a row. `nominal`: subbands of an observation."""

    most: int | None = None
    gap: int | None = None
    nominal: int = 244

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.most, self.gap) if limit is not None]
        if not limits or min(limits) < 0 or self.nominal < 1:
            raise ValueError("missing: expected `most` or `gap`, or both, 0 or more, and `nominal` of 1 or more")


def missing_of(subbands: Iterable[int], nominal: int, beams_of: Iterable[int] = ()) -> list[int]:
    """The subbands that a complete observation would have besides these.

    Two targets observed at once are two beams: the first has subbands 0 to 243, the second 244 to 487. A beam counts if a
    subband of it is here, or among `beams_of`.
    """
    here = set(subbands)
    beams = sorted({number // nominal for number in (*here, *beams_of)})
    return [number for beam in beams for number in range(beam * nominal, (beam + 1) * nominal) if number not in here]


def gaps_of(missing: Iterable[int]) -> list[tuple[int, int]]:
    """The first and the last subband of each gap, in order."""
    gaps: list[tuple[int, int]] = []
    for number in sorted(set(missing)):
        if gaps and gaps[-1][1] == number - 1:
            gaps[-1] = gaps[-1][0], number
        else:
            gaps.append((number, number))
    return gaps


def too_many(missing: Sequence[int], policy: Missing | None) -> str:
    """Why an observation without these subbands is not good enough; empty if it is, or if there is no policy."""
    if policy is None:
        return ""
    gaps = gaps_of(missing)
    if policy.most is not None and len(set(missing)) > policy.most:
        return (
            f"{len(set(missing))} subbands are missing, at most {policy.most} may be: {named(list(map(_span, gaps)))}"
        )
    wide = [gap for gap in gaps if policy.gap is not None and gap[1] - gap[0] >= policy.gap]
    if wide:
        return f"more than {policy.gap} subbands in a row are missing: {named(list(map(_span, wide)))}"
    return ""


def _span(gap: tuple[int, int]) -> str:
    first, last = gap
    return f"SB{first:03d}" if first == last else f"SB{first:03d} to SB{last:03d}"


def find_subband(name: str) -> int | None:
    """The subband in the name of a file or a token, or None."""
    found = _SUBBAND.search(name.rpartition("/")[2])
    return None if found is None else int(found[1])


def not_enough(names: Iterable[str], policy: Missing | None, of: Iterable[str] = ()) -> str:
    """Why these files or tokens, out of all those `of` which they should be, are not enough; empty if they are."""
    if policy is None:
        return ""
    here = {name: find_subband(name) for name in names}
    nameless = [name for name, number in here.items() if number is None]
    if nameless:
        return f"nobody can tell which subbands are missing: no subband is named by {named(nameless)}"
    if not here:
        return "no subband is there"
    numbers = [number for number in here.values() if number is not None]
    beams = [number for name in of if (number := find_subband(name)) is not None]
    return too_many(missing_of(numbers, policy.nominal, beams), policy)
