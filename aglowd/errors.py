"""The three ways in which anything at the boundary to the outside world fails.

Adapters raise nothing else. `Unknown` is the default for a write: an adapter must *earn* the other two by
knowing that the outside world did not change.
"""

from __future__ import annotations


class AglowError(Exception):
    """What aglowd raises on purpose; its text is fit for an operator: it names what failed and what was expected."""


class OutsideError(AglowError):
    """Anything that an outside system did or failed to do; only its three children are raised."""


class Temporary(OutsideError):
    """It did not happen, and it may succeed later: refused, name unknown, site busy, credential frozen."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Permanent(OutsideError):
    """It did not happen, and asking again the same way will not help. `absent`: what was asked for does not exist."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


class Conflict(Permanent):
    """Something else stands where ours should be: known for sure, so that even a look for a lost write may end it."""


class Unknown(OutsideError):
    """Nobody can tell whether it happened: the outside world must be asked before anything else is tried."""


class StoreError(AglowError):
    """The state directory cannot be used: locked by another daemon, damaged, or written by a newer release."""


class StaleVersion(AglowError):
    """The step changed since the caller looked; what was decided from the old look is not committed."""
