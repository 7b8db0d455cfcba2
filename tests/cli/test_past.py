"""What people ask about past and future, through the command, the socket and the store."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from populated import ARCHIVED, OFFERED, WAITS, fill, healthy
from support import HandClock, one

from aglowd.cli import ahead, past, render
from aglowd.clock import Clock
from aglowd.control import Control, SystemHealth
from aglowd.model import FieldView
from aglowd.store.store import Store

from .test_aglowctl import Served


class Limits:
    """What is left, as the daemon's Capacity tells it: the store's timers, and limits of the test's own."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def look_ahead(self, until: float) -> dict[str, Any]:
        found = await self.store.ahead(until)
        del found["pools"]
        queue = [{"run": "P1-1", "step": "stage", "wants": 40, "since": 1.0e9, "why": "sara is full"}]
        fields = [{"field": "P2", "why": "2 fields are under way, and max_fields is 2"}]
        return {
            **found,
            "limits": [
                {"what": "fields", "name": "", "used": 2, "limit": 2, "queue": fields},
                {"what": "files", "name": "sara", "used": 90, "limit": 100, "queue": queue * 12},
                {"what": "bytes", "name": "sara", "used": 10**12, "limit": 10**13, "queue": []},
                {"what": "pool", "name": "free", "used": 3, "limit": None, "queue": []},
            ],
        }


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    clock = Clock()
    store = Store(tmp_path / "aglowd.db", clock)
    await store.open()
    await fill(store)
    path = tmp_path / "aglowd.sock"
    backing_off = SystemHealth(False, None, "503", 2, clock.now() + 590.0)
    limits: Any = Limits(store)
    server = Control(store, lambda: healthy(systems={"lta": backing_off}), clock, "1.2.3", capacity=limits)
    async with server.serve(path):
        yield Served(path, store)
    await store.close()


async def test_history(served: Served) -> None:
    rc, out, err = await served.run("history", WAITS)
    assert (rc, err) == (0, "")
    assert "run P229_62-1: running, begun " in out
    assert re.search(r"\n\S+Z  stage +waiting .*LTA request 12: 188 of 244 online\n", out)
    assert re.search(r"tokens +create_tokens doubt +not ended, 2 tries +\S+/create_tokens/0: two documents answer", out)
    assert "status SND" in out
    assert out.isascii()
    rc, out, _ = await served.run("history", WAITS, "--since", "2001-09-09", "--until", "2001-09-10")
    assert (rc, "nothing happened" in out) == (0, True)
    rc, _, err = await served.run("history", WAITS, "--run", "P0-1")
    assert (rc, err) == (1, f"aglowctl: {WAITS} has no run 'P0-1'; see aglowctl show {WAITS}\n")
    rc, _, err = await served.run("history", "P0")
    assert (rc, err) == (1, "aglowctl: there is no field 'P0'; see aglowctl fields\n")


async def test_trace(served: Served) -> None:
    rc, out, err = await served.run("trace", WAITS)
    assert (rc, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(r"\(from \d+ \S+Z FieldChanged of P229\+62\)", lines[1])
    assert re.search(r"^\d+ \S+Z P229_62-1 RunStarted: ", lines[2])
    assert re.search(r"\n *\d+ \S+Z P229_62-1/tokens EffectPlanned 1/create_tokens/0: ", out)
    depths = {
        re.search(r"/(\w+) StepReady", line)[1]: len(line) - len(line.lstrip()) for line in lines if "StepReady" in line
    }  # type: ignore[index] # every such line names its step
    assert sorted(depths.values())[0] == 0
    assert max(depths.values()) > 0, "several things followed from one"
    assert out.isascii()
    rc, out, _ = await served.run("trace", f"{WAITS}/stage")
    assert (rc, "/tokens" in out) == (0, False)
    number = (await one(served.store, "SELECT id FROM events WHERE kind = 'EffectDoubtful'"))["id"]
    rc, out, _ = await served.run("trace", str(number))
    assert (rc, "FieldChanged" in out, "EffectDoubtful" in out) == (0, True, True)
    rc, _, err = await served.run("trace", "nothing")
    assert rc == 1
    assert "nothing is called 'nothing'; expected a field, a run, RUN/STEP" in err


async def test_diff(served: Served) -> None:
    rc, out, _ = await served.run("diff", "--from", "2001-09-09")
    assert rc == 0
    assert re.search(r"running +0 +1 +\+1\n", out)
    assert f"{ARCHIVED}: - -> archived" in out
    rc, out, err = await served.run("diff", WAITS, "--from", "2001-09-09")
    assert (rc, out) == (1, "")
    assert f"nothing was known of {WAITS} at that time" in err
    rc, out, _ = await served.run("diff", WAITS, "--from", "0s", "--to", "0s")
    assert rc == 0
    assert out.endswith("nothing differs\n")
    rc, _, err = await served.run("diff", "--from", "0s", "--to", "1h")
    assert rc == 1
    assert "exchange them" in err
    rc, _, err = await served.run("diff", "--from", "2999-01-01")
    assert rc == 1
    assert "has not come yet" in err


async def test_next(served: Served) -> None:
    rc, out, err = await served.run("next", "--within", "7h")
    assert (rc, err) == (0, "")
    assert re.search(r"P229\+62 +stage +it is decided again with what has been seen by then +LTA request 12", out)
    assert re.search(r"in \dm \d+s \(\S+Z\) +- +lta is asked again +503", out)
    assert re.search(r"fields +all +2 +2 +0 +1\n", out)
    assert re.search(r"bytes +sara +1 TB +10 TB +9 TB", out)
    assert re.search(r"pool +free +3 +no limit\n", out)
    assert "waiting for files of sara, next first:\n  1. P1-1/stage, wants 40, for " in out
    assert "  10. P1-1/stage" in out
    assert "  11. " not in out
    assert "... and 2 more" in out
    rc, out, _ = await served.run("next", "--within", "1m")
    assert "stage" not in out.partition("limit")[0]
    rc, _, err = await served.run("next", "--within", "soon")
    assert rc == 1
    assert "within: 'soon' is no duration" in err


async def test_explain_at(served: Served) -> None:
    rc, out, _ = await served.run("explain", WAITS, "--at", "0s")
    assert rc == 0
    assert "why        LTA request 12: 188 of 244 online" in out
    assert re.search(r"had seen   staging:12, \d+s ago: online 188, total 244", out)
    assert "/create_tokens/0, doubt: two documents answer to the key\n" in out
    assert re.search(r"in run calibrator_L229587-1:\n\s+wait \(wait_tokens\) is waiting", out)
    rc, _, err = await served.run("explain", WAITS, "--at", "2001-09-09")
    assert rc == 1
    assert "nothing was known of P229+62 at that time" in err
    rc, out, _ = await served.run("explain", OFFERED, "--at", "0s", "--json")
    assert json.loads(out)["state"] == "offered"


async def test_events_by_time_and_kind(served: Served) -> None:
    every = [json.loads(line) for line in (await served.run("events", "--since", "0", "--json"))[1].splitlines()]
    recent = [json.loads(line) for line in (await served.run("events", "--since", "1h", "--json"))[1].splitlines()]
    assert recent == every
    assert len(every) > 15
    kinds = ("--kind", "RunStarted", "--kind", "RunEnded")
    some = [json.loads(line) for line in (await served.run("events", *kinds, "--json"))[1].splitlines()]
    assert some == [event for event in every if event["kind"] in ("RunStarted", "RunEnded")]
    some = [
        json.loads(line)
        for line in (await served.run("events", *kinds, "--field", WAITS, "--since", "1h", "--json"))[1].splitlines()
    ]
    assert [event["kind"] for event in some] == ["RunStarted"]
    assert (await served.run("events", "--until", "2001-09-09"))[:2] == (0, "")
    assert (await served.run("events", "--since", "0s"))[:2] == (0, "")
    rc, _, err = await served.run("events", "-f", "--until", "0s")
    assert rc == 1
    assert "follow has no end" in err


async def test_all_events_since_a_time_are_shown_however_many(served: Served) -> None:
    for number in range(1_100):
        await served.store.record("Noted", {"number": number})
    _, out, _ = await served.run("events", "--since", "1h", "--kind", "Noted", "--json")
    assert [json.loads(line)["data"]["number"] for line in out.splitlines()] == list(range(1_100))
    _, out, _ = await served.run("events", "--since", "1h", "--kind", "Noted", "-n", "10", "--json")
    assert len(out.splitlines()) == 10


async def test_a_follower_gets_only_its_kinds(served: Served) -> None:
    process = await served.begin("events", "-f", "--kind", "FieldChanged", "--json", "-n", "1")
    assert process.stdout is not None
    await process.stdout.readline()
    await served.store.record("Noted", {})
    await served.store.put_fields([(FieldView("LATE", "NEW"), "")])
    assert json.loads(await process.stdout.readline())["field"] == "LATE"
    process.kill()
    await process.communicate()


async def test_all_have_json_with_a_schema(served: Served) -> None:
    for args in (
        ("history", WAITS), ("trace", WAITS), ("diff", "--from", "1h"), ("diff", WAITS, "--from", "0s"), ("next",),
        ("explain", WAITS, "--at", "0s"),
    ):  # fmt: skip
        rc, out, _ = await served.run(*args, "--json")
        assert (rc, json.loads(out)["schema"]) == (0, 1), args


@pytest.mark.parametrize(
    "args",
    [
        ("diff", "--from", "yesterday"), ("explain", WAITS, "--at", "12"), ("history",), ("trace",),
        ("history", WAITS, "--since", "2026-13-01"), ("trace", WAITS, "-n", "0"),
    ],
)  # fmt: skip
async def test_wrong_usage_is_2(served: Served, args: tuple[str, ...]) -> None:
    rc, _, err = await served.run(*args)
    assert (rc, "Usage: aglowctl" in err) == (2, True)


def test_what_has_been_forgotten_is_said(clock: HandClock) -> None:
    answer = {"whole_since": 2.0e9}
    assert past.forgotten(answer, 1.0e9) == [
        "before 2033-05-18T03:33:20Z the log keeps only what was done: reasons and observations have been forgotten"
    ]
    assert past.forgotten(answer, 2.5e9) == []
    told = {
        "field": "P1",
        "state": "running",
        "run": None,
        "steps": [],
        "held": "",
        "reason": "",
        "catalogue_status": "",
    }
    page = render.explain({**told, "now": 3.0e9, "at": 1.0e9, "whole_since": 2.0e9})
    assert "reasons may be missing" in str(page)


def test_a_long_chain_is_no_deep_tree() -> None:
    """A step that waits for weeks: its looks and waits stand below each other, and no stack ends."""
    event = {
        "at": 1.0e9,
        "field": "P1",
        "run": "P1-1",
        "step": "s",
        "subject": "",
        "effect": "",
        "data": {"reason": "x"},
    }
    chain = [{**event, "id": number, "cause": number - 1, "kind": "StepWaits"} for number in range(1, 3_000)]
    idle = [{**event, "id": 5_000 + n, "cause": 7, "kind": "SubjectChanged"} for n in range(4)]
    answer = {"what": "field", "name": "P1", "now": 1.0e9, "left_out": 0, "causes": [], "effects": {}}
    page = past.trace_page({**answer, "events": [*chain, *idle]})
    lines = [str(line) for line in page]
    assert len(lines) == 1 + 2_999 + 1
    assert [line for line in lines if line.startswith(" ")] == ["  ... 4 looks from which nothing followed"]


def test_an_empty_future() -> None:
    page = ahead.page_of({"now": 0.0, "until": 60.0, "timers": [], "left_out": 3, "limits": []})
    assert "no timer fires" in page
    assert "... and 3 more; --within shows less" in page
