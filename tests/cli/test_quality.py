"""`aglowctl approve`, `reject` and `provenance` as processes of their own, in front of a real store and a real socket."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from populated import healthy
from support import begin, graph, new_reactor, settle_all, step, step_row

from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.handlers.await_approval import AwaitApproval
from aglowd.reactor import Reactor
from aglowd.store.store import Store

from .test_aglowctl import Served

ASKING = graph(
    "asking",
    step("inspect", kind="await_approval", params={"question": "well?", "show": ["https://x/1.png"]}),
    step("again", "inspect", kind="await_approval"),
)


class Asked(Served):
    """A daemon that waits for a verdict on the field P1+1."""

    reactor: Reactor


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    store = Store(tmp_path / "aglowd.db", Clock())
    await store.open()
    await begin(store, ASKING)
    path = tmp_path / "aglowd.sock"
    served = Asked(path, store)
    served.reactor = new_reactor(store, [AwaitApproval()], ASKING)
    await settle_all(served.reactor)
    async with Control(store, healthy, store.clock, "1.2.3").serve(path):
        yield served
    await store.close()


async def state(asked: Asked, name: str) -> tuple[str, str]:
    await settle_all(asked.reactor)
    row = await step_row(asked.store, "P1_1-1", name)
    return row["state"], row["reason"]


async def test_approve(asked: Asked) -> None:
    told = await asked.run("approve", "P1+1", "--verdict", "moderate", "--reason", "noisy")
    assert told == (0, "inspect of P1_1-1: approved as moderate\n", "")
    assert await state(asked, "inspect") == ("done", "done")
    assert (await state(asked, "again"))[0] == "waiting"
    (event,) = [event for event in await asked.store.events() if event["kind"] == "Approved"]
    assert event["data"] | {"at": 0} == {
        "approved": True, "verdict": "moderate", "reason": "noisy", "uid": os.getuid(), "at": 0,
    }  # fmt: skip
    rc, out, _ = await asked.run("events", "--field", "P1+1")
    assert rc == 0
    assert "Approved" in out
    assert "noisy" in out


async def test_reject(asked: Asked) -> None:
    told = await asked.run("reject", "P1_1-1", "inspect", "--reason", "no fringes")
    assert told == (0, "inspect of P1_1-1: rejected as poor\n", "")
    assert await state(asked, "inspect") == ("failed", f"rejected as poor by uid {os.getuid()}: no fringes")
    assert (await state(asked, "again"))[0] == "failed"


@pytest.mark.parametrize(
    ("words", "rc", "said"),
    [
        (("approve", "P9", "--reason", "x"), 1, "aglowctl: no step of 'P9' waits for a verdict"),
        (("approve", "P1+1", "other", "--reason", "x"), 1, "those that do: inspect"),
        (("approve", "P1+1"), 2, "say why, for the record: --reason TEXT"),
        (("reject", "P1+1", "--reason", " "), 2, "say why, for the record: --reason TEXT"),
        (("approve", "P1+1", "--verdict", "great", "--reason", "x"), 2, "'great' is not one of"),
        (("provenance", "P9"), 1, "aglowctl: nothing ran under the name 'P9'; see aglowctl fields"),
    ],
)
async def test_what_cannot_be_done_is_told(asked: Asked, words: tuple[str, ...], rc: int, said: str) -> None:
    code, out, err = await asked.run(*words)
    assert (code, out) == (rc, "")
    assert said in err
    assert (await state(asked, "inspect"))[0] == "waiting"


async def test_what_is_shown_can_be_found(asked: Asked) -> None:
    for command, line in (("show", "plots of inspect: https://x/1.png"), ("explain", "look at    https://x/1.png")):
        rc, out, _ = await asked.run(command, "P1+1")
        assert rc == 0
        assert line in out


async def test_provenance(asked: Asked) -> None:
    await asked.run("approve", "P1+1", "--reason", "fine")
    for name in ("P1+1", "P1_1-1"):
        rc, out, _ = await asked.run("provenance", name)
        assert rc == 0
        assert out.startswith("P1+1: running, run P1_1-1; as it stands ")
        assert f"verdict   inspect approved as good by uid {os.getuid()} at " in out
        assert "inputs    none" in out
    rc, out, _ = await asked.run("provenance", "P1+1", "--json")
    record = json.loads(out)["provenance"]
    assert (record["schema"], record["field"], record["run"]) == (1, "P1+1", "P1_1-1")
    assert [one["verdict"] for one in record["approvals"]] == ["good"]


@pytest.mark.parametrize(
    "body",
    [
        {"approved": True, "verdict": "good", "reason": ""},
        {"approved": True, "verdict": "great", "reason": "x"},
        {"approved": True, "verdict": "good", "reason": "x" * 501},
        {"verdict": "good", "reason": "x"},
        {"approved": True, "verdict": "good", "reason": "x", "uid": 0},
    ],
)
async def test_a_verdict_of_no_sense_is_refused(asked: Asked, body: dict[str, Any]) -> None:
    """Who says it is what the socket tells, and nothing in the body."""
    connector = aiohttp.UnixConnector(str(asked.path))
    async with (
        aiohttp.ClientSession("http://aglowd", connector=connector) as client,
        client.post("/v1/fields/P1+1/verdict", json=body) as reply,
    ):
        assert reply.status == 400
        assert (await reply.json())["error"]["code"] == "bad-body"
    assert (await state(asked, "inspect"))[0] == "waiting"
