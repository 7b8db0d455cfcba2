"""What steps do in the tests of the reactor, and how a run stands."""

from __future__ import annotations

from typing import Any

from support import (
    one,
    rows,
)

from aglowd.model import Done, Failed, Outcome, Seen, StepView, Subject, Wait
from aglowd.store.store import Store

STAGING = Subject("staging", "12", {"request": 12})


def says(outcome: Outcome) -> Any:
    return lambda view, params, seen: outcome


def fails(reason: str = "no", **values: Any) -> Any:
    return says(Failed(reason, **values))


def raises(view: StepView, params: Any, seen: Seen) -> Outcome:
    raise RuntimeError("a defect of the handler")


def until_seen(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Wait for the subject, and pass on what was seen."""
    found = seen.of(STAGING)
    return Wait((STAGING,), "not looked at yet", 600.0) if found is None else Done({"seen": found})


async def states(store: Store, run: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in await rows(store, "SELECT * FROM steps WHERE run = ?", run)}


async def run_row(store: Store, run: str) -> dict[str, Any]:
    return await one(store, "SELECT * FROM runs WHERE id = ?", run)
