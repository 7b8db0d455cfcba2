"""A store that holds what an operator asks about, filled through its own verbs: a field that waits in three ways, one
that has ended, one whose row is wrong, one that is only offered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from aglowd.control import Health, LoopHealth, SystemHealth
from aglowd.model import Do, Done, Effect, EffectState, FieldView, Outcome, Spawn, Subject, Wait
from aglowd.pipeline import Pipeline, StepDef
from aglowd.store.runs import Decision
from aglowd.store.store import Store

WAITS = "P229+62"
ARCHIVED = "P14+30"
WRONG = "P3+3"
OFFERED = "P9+9"
CALIBRATOR = "calibrator/L229587"
STAGING = Subject("staging", "12", {"request": 12})


class CreateTokens(Effect, frozen=True, kw_only=True):
    kind: ClassVar[str] = "create_tokens"
    count: int


def graph(name: str, *steps: StepDef) -> Pipeline:
    return Pipeline(name=name, digest=name, steps={step.name: step for step in steps})


FIELD = graph(
    "field",
    StepDef(name="stage", kind="stage", timeout_s=7 * 86400.0),
    StepDef(name="calibrator", kind="run"),
    StepDef(name="tokens", kind="tokens"),
    StepDef(name="archive", kind="copy", needs=("stage", "calibrator", "tokens")),
)
CHILD = graph("calibrator", StepDef(name="wait", kind="wait_tokens"))
SHORT = graph("short", StepDef(name="only", kind="branch"))
GRAPHS = {one.digest: one for one in (FIELD, CHILD, SHORT)}

OUTCOMES: Mapping[str, Outcome] = {
    "stage": Wait((STAGING,), "LTA request 12: 188 of 244 online", 21_600.0),
    "calibrator": Spawn(CALIBRATOR, "calibrator", {}, "the calibrator is reduced once for all", 86_400.0, shared=True),
    "tokens": Do((CreateTokens(count=244),)),
    "wait": Wait((Subject("tokens", "cal_L229587"),), "1 token: 0 done", 3_600.0),
    "only": Done(),
}


async def decide_all(store: Store) -> None:
    """Decide every dirty step by OUTCOMES, until nothing is dirty."""
    while works := await store.next_dirty():
        for work in works:
            decision = Decision(work, OUTCOMES[work.step.name], GRAPHS[work.run.pipeline], child=CHILD)
            await store.finish(decision)


async def fill(store: Store) -> None:
    """Make the four fields and let them come as far as they do."""
    await store.put_fields([(FieldView(ARCHIVED, "SND"), "")])
    await store.admit(SHORT, ["SND"], 10)
    await store.put_fields(
        [
            (FieldView(WAITS, "SND", {"site": "sara"}), ""),
            (FieldView(WRONG, "SND"), "srm3.txt mixes L1 and L2"),
            (FieldView(OFFERED, "ZZZ"), ""),
        ]
    )
    await store.admit(FIELD, ["SND"], 10)
    await decide_all(store)
    await store.ingest("staging", None, [(STAGING, {"online": 188, "total": 244})])
    await decide_all(store)
    for live in await store.next_effects((), 10):
        await store.put_off(live, EffectState.DOUBT, "two documents answer to the key", 60.0)


def healthy(**changes: object) -> Health:
    """A daemon in which all is well, but for the changes."""
    values: dict[str, object] = {
        "alive": True,
        "ready": True,
        "missing": (),
        "loops": {"reactor": LoopHealth(0.1, 60.0, True)},
        "systems": {"lta": SystemHealth(True, 1.0e9), "picas": SystemHealth(False, None, "connection refused", 3)},
        "credentials": {"lta": ""},
        "proxy_seconds_left": 40_000.0,
        "started": 1.0e9,
        "pid": os.getpid(),
        "pools": {"staging-sara": (1, 2)},
    }
    return Health(**{**values, **changes})  # type: ignore[arg-type] # The values are as their names say.
