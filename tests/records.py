"""A run of two tokens as the store would tell of it, for tests of the record that is made of it."""

from __future__ import annotations

from typing import Any

from aglowd.model import EffectRecord, EffectState, Json, RunState, StepState
from aglowd.store.material import DoneEffect, Material, Observed, StepRow
from aglowd.store.rows import Run

AT = 1_800_000_000.0
SURLS = [f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(4)]
PARSET = "a = 1\n"
TYPE = "P1-1_t"


def step(name: str, kind: str, at: float = AT, **outputs: Json) -> StepRow:
    return StepRow(name, kind, StepState.DONE, 1, "done", at, at + 60.0, outputs)


def effect(kind: str, of: str, inputs: Json, result: Json, attempt: int = 1, ordinal: int = 0) -> DoneEffect:
    key = f"P1-1/{of}/{attempt}/{kind}/{ordinal}"
    record = EffectRecord(key, kind, ordinal, EffectState.DONE, inputs, result=result, intended_at=AT)
    return DoneEffect(of, attempt, AT, record)


def told(state: str = "done", **more: Json) -> dict[str, Json]:
    """What is told of a token."""
    empty: dict[str, Json] = {"state": state, "status": state, "scrubs": 0, "retries": 0, "job": "j1", "host": "wn1"}
    return {**empty, "begun": AT, "ended": AT + 60, "ends": [], **more}


def material(**changed: Any) -> Material:
    """The run of field P1: three files listed and one missing, two tokens of which one failed, one result archived."""
    tokens: dict[str, Json] = {
        f"{TYPE}:SB{number:03d}": {
            "config.json": {"command": "run", "sandbox": {"commit": "c0ffee"}, "container": {"img": "x"}}
        }
        for number in (0, 1)
    }
    own = {name: {"srm.txt": f"{SURLS[number]}\n"} for number, name in enumerate(tokens)}
    values: dict[str, Any] = {
        "run": Run("P1-1", "P1", "digest", "P1", {}, {"name": "P1", "baseline_filter": "[CR]S*&"}, RunState.RUNNING),
        "pipeline": "sksp",
        "created": AT,
        "ended": None,
        "used_by": "",
        "steps": (
            step("list", "srm_list", surls=SURLS, missing=[7], obsid="L1"),
            step("early", "stage", AT + 1, surls=SURLS[:1], missing=SURLS[1:], excluded=[], replaced={}),
            step("stage", "stage", AT + 2, surls=SURLS[:3], missing=SURLS[3:], excluded=[], replaced={}),
            step("parset", "parset", AT + 3, parset=PARSET),
        ),
        "effects": (
            effect("stage_files", "stage", {"surls": SURLS, "site": "sara"}, {"request": 12}),
            effect("create_tokens", "tokens", {"token_type": TYPE, "tokens": tokens}, {"created": 2}),
            effect("attach_files", "attach", {"own": own, "shared": {"a.parset": PARSET}}, {"attached": 2}),
            effect("submit_jobs", "submit", {"site": "sara"}, {"jobs": ["j1"], "nodes": 2}),
            effect(
                "copy_file",
                "archive",
                {"source": "file:///r/0", "destination": "file:///a/0"},
                {"url": "file:///a/0", "size_bytes": 5, "adler32": 0xAB, "copied": True},
            ),
            effect(
                "archive_tokens",
                "archive_tokens",
                {"token_type": TYPE},
                {"url": "file:///a/t.gz", "size_bytes": 9, "adler32": 1, "revisions": dict.fromkeys(tokens, "1-a")},
            ),
        ),
        "observed": (
            Observed(
                "results",
                "P1-1/collect/1/results",
                AT,
                {
                    "done": {f"{TYPE}:SB000": "file:///r/0"},
                    "other": {f"{TYPE}:SB001": "error"},
                    "tokens": {
                        f"{TYPE}:SB000": told(),
                        f"{TYPE}:SB001": told(
                            "error", scrubs=2, ends=[{"at": AT, "why": "error", "job": "j0", "host": "wn0"}]
                        ),
                    },
                },
            ),
            Observed(
                "verdict",
                "P1-1/inspect/1",
                AT,
                {"approved": True, "verdict": "good", "reason": "fine", "uid": 7, "at": AT},
            ),
        ),
        "jobs": {"j1": {"state": "done_ok"}},
    }
    return Material(**{**values, **changed})
