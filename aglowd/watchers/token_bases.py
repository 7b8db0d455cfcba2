"""Which token database a subject is about: one question a round to each database, however many sites have it."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.grid.picas import Picas
from aglowd.model import Subject


def type_of(subject: Subject) -> str:
    """The token type; older subjects have it as their id."""
    return str(subject.args.get("token_type", subject.id))


def base_of(world: World, subject: Subject) -> Picas:
    """The database in which its tokens are; ValueError if its site is not configured any more."""
    try:
        return world.token_base(subject.args.get("site", ""))
    except OutsideError as error:
        raise ValueError(str(error)) from error


def by_base(world: World, subjects: Sequence[Subject]) -> list[list[Subject]]:
    """The subjects of each database together; ValueError as above."""
    groups: dict[int, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(id(base_of(world, subject)), []).append(subject)
    return list(groups.values())


def list_bases(world: World) -> list[tuple[str, Picas]]:
    """Each database once, with the first of its sites; "" is the common one."""
    found: dict[int, tuple[str, Picas]] = {}
    for site, base in sorted(world.token_bases.items()):
        found.setdefault(id(base), (site, base))
    return list(found.values())
