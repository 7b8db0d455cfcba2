"""Which fields are taken next: the pure rule by which the store admits, and of which a preview is made.

What must stay true: no limit is exceeded by what is taken here, a field with a priority below 0 is never taken, and one
of a lower priority only when those above it cannot be. Preview and deed are one function, so they cannot differ.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct


class Candidate(Struct, frozen=True):
    """A field that has no run now. `site`: where its data lie, "" = not known before it runs.

    `hindrance`: why it is not on offer at all, or ''. `problem`: why no run of it could go well, or ''.
    """

    name: str
    priority: tuple[int, int] = (0, 0)
    site: str = ""
    hindrance: str = ""
    problem: str = ""


class Limits(Struct, frozen=True):
    """How many fields may be under way: in `total`, and for each configured site; None = any site is fine."""

    total: int
    sites: Mapping[str, int] | None = None


class Verdict(Struct, frozen=True):
    """What becomes of a candidate now: taken, refused, or left with the reason `why`; `is_next`: only for want of a place."""

    name: str
    is_taken: bool = False
    is_next: bool = False
    is_refused: bool = False
    why: str = ""


def select(candidates: Sequence[Candidate], running: Mapping[str, int], limits: Limits) -> tuple[Verdict, ...]:
    """What becomes of each: first those that are taken, in that order, then those that would be next, then the others.

    Order: priority of the observation, then of the field; among equals the site at which the fewest fields run, then as
    they came. `running`: site → fields under way there, "" = where nobody knows yet.
    """
    taken: list[Verdict] = []
    next_: list[Verdict] = []
    others: list[Verdict] = []
    eligible: list[Candidate] = []
    for one in candidates:
        problem = one.problem or ("" if one.hindrance else _unknown_site(one, limits))
        if problem:
            others.append(Verdict(one.name, is_refused=True, why=problem))
        elif one.hindrance:
            others.append(Verdict(one.name, why=one.hindrance))
        elif min(one.priority) < 0:
            which = "observation" if one.priority[0] < 0 else "field"
            others.append(Verdict(one.name, why=f"the priority of its {which} is {min(one.priority)}: it is skipped"))
        else:
            eligible.append(one)
    used = Counter(running)
    for one in _in_order(eligible, used, limits):
        why = why_full(one.site, used, limits)
        if why:
            next_.append(Verdict(one.name, is_next=True, why=why))
        else:
            used[one.site] += 1
            taken.append(Verdict(one.name, is_taken=True))
    return (*taken, *next_, *others)


def _in_order(eligible: Iterable[Candidate], used: Counter[str], limits: Limits) -> Iterable[Candidate]:
    """As they would be taken. `used` is read anew before each: what was taken counts at its site."""
    groups: dict[tuple[int, int], dict[str, deque[tuple[int, Candidate]]]] = {}
    for place, one in enumerate(eligible):
        groups.setdefault(one.priority, {}).setdefault(one.site, deque()).append((place, one))
    for priority in sorted(groups, reverse=True):
        of_site = groups[priority]
        while of_site:
            site = min(of_site, key=lambda name: (used[name], of_site[name][0][0]))
            yield of_site[site].popleft()[1]
            if not of_site[site]:
                del of_site[site]


def why_full(site: str, used: Counter[str], limits: Limits) -> str:
    """Why no field more may be under way at the site, or ''. `used`: site → fields under way there."""
    at_site = None if limits.sites is None else limits.sites.get(site)
    if used.total() >= limits.total:
        return f"{used.total()} fields are under way, and max_fields is {limits.total}"
    if at_site is not None and used[site] >= at_site:
        return f"{used[site]} fields are under way at {site}, and its fields_at_once is {at_site}"
    return ""


def _unknown_site(one: Candidate, limits: Limits) -> str:
    if not one.site or limits.sites is None or one.site in limits.sites:
        return ""
    known = ", ".join(sorted(limits.sites))
    return f"its data lie at {one.site!r}, which is no configured site; expected one of {known}"
