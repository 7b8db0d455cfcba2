"""What a person means who names several: by names, by patterns as a shell has them, and by a state.

What must stay true: every command and every route that takes several takes them so. A name or a pattern that stands for
nothing is refused by its name, whatever stands beside it, and so is a choice that means nothing. What somebody has for a
name means him alone, though it may look like a pattern: the catalogue allows `[` and `]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from aglowd.errors import AglowError

WILD = frozenset("*?[")
RUN_STATES = ("running", "failed", "cancelled", "archived")
FIELD_STATES = ("offered", *RUN_STATES)
"""Of fields: without a run they are offered."""
MAX_TARGETS = 2_000
"""Runs, or fields, that one command may change, or show in full."""
MAX_TOLD = 200
"""Characters of a name that nobody knows."""

T = TypeVar("T")


def is_pattern(name: str) -> bool:
    """Whether it may stand for several, as the shell's patterns do."""
    return not WILD.isdisjoint(name)


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Those that the pattern means."""
    return [name for name in names if fnmatchcase(name, pattern)]


def no_field(name: str) -> str:
    """What is said of a name, or a pattern, that no field has."""
    return f"there is no field {name[:MAX_TOLD]!r}; see aglowctl fields"


class Choice(NamedTuple):
    """Names and patterns, () = all; of these only what is in that state, "" = in any."""

    names: tuple[str, ...] = ()
    state: str = ""

    def is_exact(self, known: Collection[str] = ()) -> bool:
        """Whether each that is meant was named: then one of which a command makes no sense is an error.

        `known`: names, for some of them look like patterns.
        """
        return bool(self.names) and not self.state and all(not is_pattern(name) or name in known for name in self.names)

    def in_any_state(self) -> Choice:
        """The same names, whatever their state."""
        return Choice(self.names or ("*",))

    def of(
        self,
        known: Collection[str],
        find: Callable[[str], T | None],
        state_of: Callable[[T], str],
        unknown: Callable[[str], str] = no_field,
        named: Callable[[str], T | None] | None = None,
    ) -> dict[str, T]:
        """Name → what it stands for, of those that are meant; AglowError if that is nothing.

        `find`: what a name stands for, None = nothing; `named`: the same of one given in full, if that may be more.
        `unknown`: what is said of a name that stands for nothing.
        """
        if not self.names and not self.state:
            raise AglowError("expected a name, a pattern or a state; found none of them")
        found: dict[str, T] = {}
        for name in self.names or ("*",):
            things = {name: (named or find)(name)}
            if things[name] is None and is_pattern(name) and name not in known:
                things = {one: find(one) for one in matching(known, name)}
            meant = {one: thing for one, thing in things.items() if thing is not None}
            if not meant:
                raise AglowError(unknown(name))
            found.update(meant)
        return self._in_state(found, state_of) if self.state else found

    def _in_state(self, found: dict[str, T], state_of: Callable[[T], str]) -> dict[str, T]:
        states = {name: state_of(thing) for name, thing in found.items()}
        left = {name: thing for name, thing in found.items() if states[name] == self.state}
        if not left:
            told = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).most_common())
            raise AglowError(f"none of them is {self.state}; there are: {told}")
        return left


def check_number(count: int, what: str = "runs") -> None:
    """AglowError if one command would change, or show, too many."""
    if count > MAX_TARGETS:
        raise AglowError(f"{count} {what} are meant; expected at most {MAX_TARGETS}: name a narrower pattern")
