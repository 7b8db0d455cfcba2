"""How people steer runs with `aglowctl`: processes of their own, in front of a real store, reactor and socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from populated import healthy
from support import Played, Put, begin, graph, new_reactor, one, opened, rows, settle_all, step

from aglowd.cli.client import Client
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.errors import AglowError
from aglowd.model import Do, EffectState, Failed, FieldView, Outcome, Seen, StepView, Subject, Wait
from aglowd.reactor import Pipelines, Reactor
from aglowd.rehearsal import Rehearsal
from aglowd.steering import Steering
from aglowd.store.store import Store

from .test_aglowctl import Served

THING = Subject("thing", "one")
LINE = graph("line", step("a"), step("b", "a", params={"say": "{{ steps.a.outputs.say }}"}), step("c", "b"))
LOOK = graph("look", step("only", params={"say": "{{ params.depth }}"}), params=("depth",))


def undo(view: StepView, params: Any, seen: Seen) -> Do | None:
    return Do.all(Put(what="undo")) if seen.effect(Put) is None else None


class Daemon:
    """What answers, and what its steps do: `b` waits until its field is in `broken`."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.store: Store = served.store
        self.run = served.run
        self.broken: set[str] = set()
        self.played = Played({"b": self._b}, {"b": undo})
        self.reactor: Reactor = new_reactor(self.store, [self.played], LINE, LOOK)

    def _b(self, view: StepView, params: Any, seen: Seen) -> Outcome:
        return Failed("no tape", final=True) if view.field in self.broken else Wait((THING,), "waits", 600.0)

    async def begin(self, *names: str) -> None:
        for name in names:
            await begin(self.store, LINE, name)
        await settle_all(self.reactor)

    async def ok(self, *args: str) -> str:
        code, out, err = await self.run(*args)
        assert (code, err) == (0, ""), err
        return out

    async def asked(self, *args: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.ok(*args, "--json"))
        assert answer["schema"] == 1
        return answer

    async def refused(self, *args: str, code: int = 1) -> str:
        got, _, err = await self.run(*args)
        assert got == code, err
        return err

    async def states(self, field: str) -> dict[str, str]:
        found = await rows(
            self.store, "SELECT s.name, s.state FROM steps AS s JOIN runs AS r ON r.id = s.run WHERE r.field = ?", field
        )
        return {row["name"]: row["state"] for row in found}


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", Clock()))
        path = tmp_path / "aglowd.sock"
        made = Daemon(Served(path, store))
        pipelines = Pipelines({"line": LINE, "look": LOOK})
        rehearsal = Rehearsal({"played": made.played}, pipelines.digests, {})
        steering = Steering(store, made.reactor, pipelines, rehearsal, ("played",), ("sara",), "line")
        server = Control(store, healthy, store.clock, "1", steering=steering)
        await stack.enter_async_context(server.serve(path))
        yield made


async def test_a_run_is_cancelled_after_a_look_at_what_that_means(daemon: Daemon) -> None:
    await daemon.begin("P1")
    out = await daemon.ok("cancel", "P1", "--dry-run")
    assert "P1-1: running, becomes cancelled" in out
    assert "b     1        waiting  cancelled  when its handler has nothing left to undo" in out
    assert 'b undoes  put {"what": "undo"}' in out
    assert await daemon.states("P1") == {"a": "done", "b": "waiting", "c": "pending"}, "a dry run changed something"
    out = await daemon.ok("cancel", "P1", "--reason", "wrong parset", "--yes")
    assert out == "P1-1: 2 steps are changed; how it goes: aglowctl explain P1\n"
    assert await daemon.states("P1") == {"a": "done", "b": "waiting", "c": "cancelled"}
    assert "what it left outside is undone, then it ends" in await daemon.ok("explain", "P1")
    event = await one(daemon.store, "SELECT * FROM events WHERE kind = 'CancelOrdered'")
    data = msgspec.json.decode(event["data"])
    assert (event["field"], data["uid"], data["reason"]) == ("P1", os.getuid(), "wrong parset")
    for live in await daemon.store.next_effects((), 10):
        raise AssertionError(f"{live.record.key} was done before anybody decided it")
    await settle_all(daemon.reactor)
    (live,) = await daemon.store.next_effects((), 10)
    await daemon.store.settle(live, EffectState.DONE, 1)
    assert "P1-1 is being cancelled already" in await daemon.refused("cancel", "P1", "--yes")
    await settle_all(daemon.reactor)
    explained = await daemon.ok("explain", "P1")
    assert "why        cancelled by uid" in explained
    assert "next       nothing by itself; to go on from there: aglowctl retry P1" in explained
    assert "there is no field and no run 'P9'" in await daemon.refused("cancel", "P9", "--yes")
    assert "name a FIELD, a RUN or a pattern" in await daemon.refused("cancel", code=2)


async def test_nobody_answers_where_there_is_no_terminal(daemon: Daemon) -> None:
    await daemon.begin("P1")
    for args in (("cancel", "P1"), ("pause", "--everything"), ("skip", "P1", "b")):
        err = await daemon.refused(*args)
        assert "Aborted!" in err
    assert (await daemon.states("P1"))["b"] == "waiting"


async def test_failed_runs_go_on_by_pattern_and_state(daemon: Daemon) -> None:
    daemon.broken = {"P21", "P22", "Q1"}
    await daemon.begin("P21", "P22", "P23", "Q1")
    out = await daemon.ok("retry", "P2*", "--dry-run")
    assert "P21-1: failed, becomes running" in out
    assert "P23-1 is left alone: no step of P23-1 has failed or was cancelled; name one with --from STEP" in out
    answer = await daemon.asked("retry", "--state", "failed", "--dry-run")
    assert [run["run"] for run in answer["runs"]] == ["P21-1", "P22-1", "Q1-1"]
    assert answer["runs"][0]["touches"][0] == {
        "step": "b",
        "attempt": 2,
        "state": "failed",
        "becomes": "ready",
        "note": "",
    }
    await daemon.ok("retry", "P2*", "--state", "failed", "--yes")
    assert (await daemon.states("P21"))["b"] == "ready"
    assert (await daemon.states("Q1"))["b"] == "failed"
    await daemon.ok("retry", "Q1", "--from", "a", "--yes")
    assert (await daemon.states("Q1")) == {"a": "ready", "b": "pending", "c": "pending"}
    assert "to go on from here: aglowctl retry" not in await daemon.ok("explain", "Q1")
    assert "has no step 'x'" in await daemon.refused("retry", "Q1", "--from", "x", "--yes")


async def test_a_command_on_what_has_changed_since_is_refused(daemon: Daemon) -> None:
    daemon.broken = {"P1"}
    await daemon.begin("P1")
    answer = await daemon.asked("retry", "P1", "--dry-run")
    await daemon.ok("retry", "P1", "--yes")

    def late() -> None:
        path = daemon.store.db.path.with_name("aglowd.sock")
        Client(str(path)).post("v1", "retry", targets=["P1"], version=answer["version"])

    with pytest.raises(AglowError, match=r"it has changed since you looked: P1-1 RetryOrdered.*; look again"):
        await asyncio.to_thread(late)


async def test_steps_are_skipped_and_said_to_be_done(daemon: Daemon) -> None:
    await daemon.begin("P1", "P2")
    await daemon.ok("done", "P1", "b", "--outputs", '{"say": "x"}', "--reason", "looked", "--yes")
    assert await daemon.states("P1") == {"a": "done", "b": "done", "c": "ready"}
    assert "b is done already" in await daemon.refused("skip", "P1", "b", "--yes")
    await daemon.ok("skip", "P2", "c", "--yes")
    assert (await daemon.states("P2"))["c"] == "skipped"
    for outputs, why in (("nonsense", "found no JSON"), ("[1]", "expected an object")):
        assert why in await daemon.refused("done", "P2", "b", "--outputs", outputs, "--yes", code=2)
    assert "has no step 'x'; it has a, b, c" in await daemon.refused("skip", "P2", "x", "--yes")


async def test_what_is_held_is_shown_and_goes_on(daemon: Daemon) -> None:
    await daemon.begin("P1", "P2")
    assert await daemon.ok("pause", "P*", "--dry-run") == "field P1 would be paused\nfield P2 would be paused\n"
    out = await daemon.ok("pause", "P1", "--kind", "played", "--site", "sara", "--reason", "maintenance", "--yes")
    assert out.splitlines() == ["field P1 is paused", "kind played is paused", "site sara is paused"]
    status = await daemon.ok("status")
    assert "PAUSED   field P1 since " in status
    assert f"by uid {os.getuid()}: maintenance" in status
    explained = await daemon.ok("explain", "P1")
    assert "why        paused since " in explained
    assert (
        "next       nothing new until it is resumed: aglowctl resume P1 and aglowctl resume --kind played and "
        "aglowctl resume --site sara" in explained
    )
    assert await daemon.ok("drain", "--everything", "--yes") == "everything is drained\n"
    await daemon.store.put_fields([(FieldView("P7", "SND"), "")])
    assert await daemon.store.admit(LINE, ["SND"], 10) == 0
    assert "it has not begun: drained since " in await daemon.ok("explain", "P7")
    assert "DRAINED  everything since" in await daemon.ok("status")
    assert await daemon.ok("resume", "P1", "--kind", "played", "--yes") == (
        "field P1 is resumed; it was paused\nkind played is resumed; it was paused\n"
    )
    answer = await daemon.asked("status")
    assert [(one["scope"], one["name"], one["mode"]) for one in answer["paused"]] == [
        ("everything", "", "drain"),
        ("site", "sara", "pause"),
    ]
    assert "there is no site moon; known: sara" in await daemon.refused("pause", "--site", "moon", "--yes")
    assert "there is no kind x; known: played" in await daemon.refused("pause", "--kind", "x", "--yes")
    assert "there is no field 'P9'" in await daemon.refused("pause", "P9", "--yes")
    assert "nothing of that is held" in await daemon.refused("resume", "P2", "--yes")
    assert "--everything goes with no name" in await daemon.refused("drain", "P1", "--everything", code=2)


async def test_a_run_is_begun_by_hand_after_a_rehearsal(daemon: Daemon) -> None:
    await daemon.store.put_fields([(FieldView("P5", "ZZZ"), "")])
    out = await daemon.ok("run", "P5", "--dry-run")
    assert out.startswith("P5: P5-1 would be a run of line\n\na (played)\n")
    assert "b (played), needs a\n  say = None\n" in out or "say = null" in out
    assert await rows(daemon.store, "SELECT * FROM runs") == []
    answer = await daemon.asked("run", "P5", "--pipeline", "look", "--param", "depth=[1, 2]", "--dry-run")
    assert answer["steps"][0]["params"] == {"say": [1, 2]}
    assert await daemon.ok("run", "P5", "--yes") == "P5: run P5-1 has begun; how it goes: aglowctl explain P5\n"
    assert "P5 is at work already" in await daemon.refused("run", "P5", "--yes")
    for args, why in (
        (("--pipeline", "x"), "there is no pipeline 'x'; known: line, look"),
        (("--param", "depth=1"), "line takes no parameter depth; it takes: none"),
        (("--pipeline", "look"), "look needs depth: --param NAME=VALUE"),
    ):
        assert why in await daemon.refused("run", "P5", *args, "--yes")
    assert "expected NAME=VALUE" in await daemon.refused("run", "P5", "--param", "depth", code=2)
    assert "the field 'P9' is not in the catalogue" in await daemon.refused("run", "P9", "--dry-run")
