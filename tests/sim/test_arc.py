"""The simulated computing element: its habits, and the adapter's verbs against it, also when things go wrong."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.arc import Arc
from aglowd.grid.batch import Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.sim import arc as element
from aglowd.sim.faults import Script
from aglowd.sim.xrsl import XrslError, parse_xrsl
from tests.grid.test_arc import TERMS

from .conftest import GridMaker, SmallGrid, eventually
from .test_pilots import TODO, TYPE, stage, surls, token

SPEED = 60_000.0


def order(grid: SmallGrid, count: int = 2, key: str = "run/step/1/submit_jobs/0") -> Order:
    secrets = grid.secrets
    words = ("--url", grid.ready["couch_url"], "--database", secrets["couch_database"], "--type", TYPE)
    login = json.dumps({"user": secrets["couch_user"], "password": secrets["couch_password"]})
    return Order(
        key, count, "/usr/bin/python3", ("pilot.py", "--key", key, *words), {"picas.json": login, "pilot.py": ""}
    )


class Way:
    """An adapter to the element of a grid; used as a context."""

    def __init__(self, grid: SmallGrid, terms: Terms = TERMS) -> None:
        self.http = Http(Clock(), longest_s=3.0)
        self.arc = Arc(self.http, Site("arc", Clock()), terms, grid.ready["arc_url"], proxy=None, ca_dir=None)

    async def __aenter__(self) -> Arc:
        return self.arc

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()


async def ask(grid: SmallGrid, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with grid.http.request(method, f"{grid.ready['arc_url']}/rest/1.0/jobs{path}", data=body) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


def of_jobs(grid: SmallGrid, op: str) -> list[dict[str, Any]]:
    return [line for line in grid.ledger() if line["system"] == "arc" and line["op"] == op]


async def test_pilots_take_tokens_and_end(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid, Way(grid) as arc:
        wanted = surls(4)
        await stage(grid, wanted)
        await grid.couch("PUT", f"_design/{TYPE}", {"views": {"todo": {"map": TODO}}})
        await grid.couch("POST", "_bulk_docs", {"docs": [token(at, surl) for at, surl in enumerate(wanted)]})
        prepared = await arc.prepare(order(grid))
        assert {status.state for status in (await arc.status(prepared.split())).values()} == {"submitted"}
        assert of_jobs(grid, "job_started") == []
        jobs = await arc.submit(order(grid), prepared)
        assert await arc.submit(order(grid), prepared) == jobs

        async def ended() -> bool:
            return all(status.is_final for status in (await arc.status(jobs)).values())

        await eventually(ended)
        assert {(one.state, one.exit_code) for one in (await arc.status(jobs)).values()} == {("done_ok", 0)}
        assert sorted(await arc.find(order(grid).key)) == sorted(jobs)
        begun = of_jobs(grid, "job_started")
        keys = sorted(line["tags"]["aglowd_key"] for line in begun)
        assert keys == [f"{order(grid).key}/{number}" for number in (0, 1)]
        _, doc = await grid.couch("GET", f"{TYPE}_SB002")
        assert (doc["status"], doc["arc_job_id"] in jobs) == ("done", True)
        assert grid.secrets["couch_password"] not in json.dumps(of_jobs(grid, "new"))


async def test_a_queued_pilot_is_cancelled(small_grid: GridMaker) -> None:
    async with small_grid(speed=2000.0, slots=0) as grid, Way(grid) as arc:
        (job,) = await arc.submit(order(grid, 1), None)
        assert (await arc.status([job]))[job].state in ("queued", "submitted")
        await arc.cancel(job)
        await arc.cancel(job)
        assert (await ask(grid, "GET", "?state=FAILED"))[1] == {"job": {"id": job, "state": "FAILED"}}

        async def ended() -> bool:
            return (await arc.status([job]))[job].is_final

        await eventually(ended)
        status = (await arc.status([job]))[job]
        assert (status.state, status.words) == ("cancelled", "KILLED")
        with pytest.raises(Permanent, match="no such job"):
            await arc.cancel("nosuch")


async def test_its_habits(small_grid: GridMaker) -> None:
    async with small_grid(slots=0) as grid:
        url = grid.ready["arc_url"]
        async with grid.http.get(f"{url}/rest") as response:
            assert await response.json() == {"version": "1.0"}
        assert await ask(grid, "GET", "") == await ask(grid, "GET", "?state=HELD") == (200, None)
        assert await ask(grid, "POST", "?action=kill", b"{") == (201, None)
        assert (await ask(grid, "POST", "?action=nosuch", b"{}"))[0] == 501
        status, said = await ask(grid, "POST", "?action=new", b"&(garbage")
        assert (status, said["job"]["status-code"]) == (201, "500")
        status, said = await ask(grid, "POST", "?action=new", b"&(executable=a)(queue=nosuch)(inputfiles=(a ''))")
        assert said["job"]["reason"] == "Requested queue nosuch is not allowed for this user"
        status, said = await ask(grid, "POST", "?action=new", b"&(executable=a)(jobname=n)(inputfiles=(a ''))")
        job = said["job"]["id"]
        assert (status, said["job"]["state"], len(job)) == (201, "ACCEPTING", 54)
        assert await ask(grid, "GET", "") == (200, {"job": {"id": job}})
        body = json.dumps({"job": [{"id": job}, {"id": "nosuch"}]}).encode()
        _, said = await ask(grid, "POST", "?action=info", body)
        assert said["job"][0]["info_document"]["ComputingActivity"]["Name"] == "n"
        assert (said["job"][1]["status-code"], said["job"][1]["info_document"]) == ("404", "")
        # From the last round, which was before the job had its file.
        assert (await ask(grid, "PUT", f"/{job}/session/a", b"x"))[0] == 200
        _, said = await ask(grid, "POST", "?action=status", body)
        assert [one["state"] for one in said["job"]] == ["PREPARING", "None"]
        assert (await ask(grid, "GET", "?state=SUBMITTING"))[1] == {"job": {"id": job, "state": "SUBMITTING"}}
        assert (await ask(grid, "GET", f"/{job}/session/"))[1] == {"file": "a"}
        for path in (f"/{job}/session/stdout.txt", "/nosuch/session/a", "/nosuch/diagnose/errors", f"/{job}/session/a"):
            assert (await ask(grid, "GET", path))[0] == 404
        assert (await ask(grid, "PUT", "/nosuch/session/a", b"x"))[0] == 404


async def test_a_job_without_its_files_is_given_up(small_grid: GridMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with small_grid(speed=SPEED, slots=0) as grid, Way(grid) as arc:
        prepared = await arc.prepare(order(grid))
        monkeypatch.setattr(element, "UPLOAD_REAL_S", 0.0)

        async def given_up() -> bool:
            return all(one.is_final for one in (await arc.status(prepared.split())).values())

        await eventually(given_up)
        assert {one.state for one in (await arc.status(prepared.split())).values()} == {"aborted"}
        monkeypatch.undo()
        assert await arc.find(order(grid).key, prepared) == ()
        jobs = await arc.submit(order(grid), prepared)
        assert not set(jobs) & set(prepared.split())
        assert sorted(await arc.find(order(grid).key, prepared)) == sorted(jobs)
        assert await started(grid, 2) == sorted(jobs)


@pytest.mark.parametrize("fault", ["refuse", "hang", "reset_before", "reset_after", "lost_reply", "error_after", "half_made",
                                   "malformed", "html", "truncated"])  # fmt: skip
@pytest.mark.parametrize("op", ["new", "put"])
async def test_a_submission_that_was_struck_is_made_once(small_grid: GridMaker, fault: str, op: str) -> None:
    """As the engine does it: what was prepared is noted, and what failed is looked for before it is tried again."""
    if (fault, op) == ("half_made", "put"):
        fault = "error_before"
    script = Script(system="arc", fault=fault, op=op, value=60.0 if fault == "refuse" else None)
    async with small_grid(speed=2000.0, slots=0, faults=(script,)) as grid, Way(grid) as arc:
        jobs, prepared = await submitted(arc, order(grid))
        assert await started(grid, len(jobs)) == sorted(jobs)
        assert sorted(prepared.split()) == sorted(jobs)
        assert await arc.find(order(grid).key, prepared) == jobs
        assert any(line["system"] == "faults" for line in grid.ledger())


async def started(grid: SmallGrid, count: int) -> list[str]:
    """The jobs that began, once so many did; the ledger is written now and then."""

    async def enough() -> bool:
        return len(of_jobs(grid, "job_started")) >= count

    await eventually(enough)
    return sorted(line["job"] for line in of_jobs(grid, "job_started"))


async def submitted(arc: Arc, wanted: Order) -> tuple[tuple[str, ...], str]:
    prepared = None
    deadline = time.monotonic() + 20.0
    while True:
        assert time.monotonic() < deadline
        try:
            if prepared is None:
                prepared = await arc.prepare(wanted)
            return await arc.submit(wanted, prepared), prepared
        except (Temporary, Unknown):
            if prepared is not None and (found := await found_by(arc, wanted, prepared)):
                return found, prepared


async def found_by(arc: Arc, wanted: Order, prepared: str) -> tuple[str, ...]:
    try:
        return await arc.find(wanted.key, prepared)
    except Unknown:
        return ()


async def test_an_empty_list_ends_no_job(small_grid: GridMaker) -> None:
    scripts = (Script(system="arc", fault="empty_list", op="list", nth=2),)
    async with small_grid(speed=2000.0, slots=0, faults=scripts) as grid, Way(grid) as arc:
        (job,) = (await arc.prepare(order(grid, 1))).split()
        for _ in range(3):
            assert (await arc.status([job]))[job].state == "submitted"


@pytest.mark.parametrize(
    "text", ["", "+", "&", "&(a=)(", "&(a", "&(=b)", "(a=b)", "&(a=b)x", "&(a=" + "(" * 50, '&(a="b)', "+(a=b)"]
)
def test_what_is_no_xrsl(text: str) -> None:
    with pytest.raises(XrslError):
        parse_xrsl(text)


def test_what_is_xrsl() -> None:
    assert parse_xrsl('& (Executable = /bin/sh) (a = \'it\'\'s\' "a ""b""" ("x" ""))') == [
        {"executable": ["/bin/sh"], "a": ["it's", 'a "b"', ["x", ""]]}
    ]
    assert parse_xrsl("+(&(a=1))(&(b=2))") == [{"a": ["1"]}, {"b": ["2"]}]
