"""The chain that every field goes through, and what a system under test is told of it.

What must stay true: this imports the standard library alone, because it is read in the environments of the peers, too.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

WAIT, ACT = "wait", "act"
CHAIN = (WAIT, ACT, ACT, WAIT, WAIT, ACT, ACT, WAIT, ACT)
ACTS = tuple(step for step, what in enumerate(CHAIN) if what == ACT)
LAST = len(CHAIN) - 1


class Load(NamedTuple):
    """So many fields at once; a wait is done `wait_s` after it was first asked for, and is asked every `poll_s`."""

    fields: int
    wait_s: float
    poll_s: float

    @property
    def names(self) -> list[str]:
        """The fields, as aglowd's catalogue calls them."""
        return [f"P{number}" for number in range(self.fields)]

    @property
    def ideal_s(self) -> float:
        """Waits × the polls that one takes × the time between two: an act takes no time, and a poll comes at once."""
        return CHAIN.count(WAIT) * math.ceil(self.wait_s / self.poll_s) * self.poll_s


class Order(NamedTuple):
    """What a system under test is told: where the service is, which fields, and where its files lie."""

    url: str
    load: Load
    place: Path

    def environment(self) -> dict[str, str]:
        """As variables, which every system can read."""
        fields, wait_s, poll_s = map(str, self.load)
        return {
            "W_URL": self.url,
            "W_FIELDS": fields,
            "W_WAIT_S": wait_s,
            "W_POLL_S": poll_s,
            "W_PLACE": str(self.place),
        }

    @classmethod
    def told(cls) -> Order:
        """The order of this process."""
        told = os.environ
        load = Load(int(told["W_FIELDS"]), float(told["W_WAIT_S"]), float(told["W_POLL_S"]))
        return cls(told["W_URL"], load, Path(told["W_PLACE"]))
