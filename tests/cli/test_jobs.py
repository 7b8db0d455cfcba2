"""`aglowctl tokens` and `aglowctl jobs` as processes of their own, in front of a real store and a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from populated import healthy
from support import begin, graph, new_reactor, opened, settle_all, step

from aglowd import token_orders
from aglowd.cli.jobs import STATES, _token_page
from aglowd.cli.render import Table
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.effects.base import World
from aglowd.errors import Permanent, Temporary
from aglowd.grid.batch import JobStatus
from aglowd.grid.picas_views import STATES as STATES_OF_TOKENS
from aglowd.handlers.pilots import job_of
from aglowd.handlers.wait_tokens import counted_again, tokens_of
from aglowd.model import Wait
from aglowd.reactor import Reactor
from aglowd.store.runs import Decision
from aglowd.store.store import Store
from aglowd.token_orders import MAX_JOBS, MAX_LOG_CHARS, MAX_TOKENS, TokenOrders
from aglowd.wiring import handler_kinds, load_pipelines

from .test_aglowctl import Served

TOKEN = {
    "_id": "t:SB000",
    "_rev": "7-a",
    "type": "t",
    "status": "error",
    "lock": 99,
    "done": 99,
    "output": 1,
    "hostname": "wn1",
    "slurm_job_id": "17_3",
    "scrub_count": 1,
    "aglowd": {"key": "k", "history": [{"at": 1.7e9, "why": "lease: gone", "hostname": "wn0"}]},
    "_attachments": {"01/02/2026_10.00.00_stdout.txt": {"revpos": 4}, "srm.txt": {"revpos": 1}},
}


class Far:
    """A token database with one token, and a batch system with one array; each may be away."""

    system = "slurm"

    def __init__(self) -> None:
        self.ids: tuple[str, ...] = ("t:SB000",)
        self.is_away = False
        self.written: list[Path] = []

    async def list_ids(self, token_type: str, state: str = "") -> tuple[str, ...]:
        if self.is_away:
            raise Temporary("the database is away")
        return self.ids if (token_type, state) in (("t", ""), ("t", "error")) else ()

    async def get_docs(self, ids: Sequence[str]) -> dict[str, Any]:
        return {name: TOKEN if name == "t:SB000" else None for name in ids}

    async def get_attachment(self, doc: str, name: str) -> bytes:
        return b"began\n" + b"x" * MAX_LOG_CHARS + b"\nno space left \x1b[31m\n"

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        node = JobStatus("17_3", "done_failed", "FAILED", 3, "NonZeroExitCode")
        return {"17:2": JobStatus("17:2", "running", "RUNNING", nodes=(node,))} if "17:2" in jobs else {}

    async def output(self, job: str, directory: Path) -> Path:
        place = directory / "out"
        place.mkdir()
        return place


class Daemon:
    """What answers, and the decisions that its reactor takes."""

    def __init__(self, served: Served, far: Far, reactor: Reactor) -> None:
        self.store: Store = served.store
        self.run = served.run
        self.far = far
        self.reactor = reactor

    async def asked(self, *args: str) -> dict[str, Any]:
        code, out, err = await self.run(*args, "--json")
        assert (code, err) == (0, "")
        answer: dict[str, Any] = json.loads(out)
        assert answer["schema"] == 1
        return answer

    async def refused(self, *args: str) -> str:
        code, out, err = await self.run(*args)
        assert (code, out) == (1, "")
        return err


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    far = Far()

    def batch(site: str) -> Far:
        if site not in ("", "sara"):
            raise Permanent(f"no site {site!r} is configured; known: sara")
        return far

    world: Any = SimpleNamespace(token_base=lambda site: far, batch=batch)
    assert {"token_bases", "batches"} <= {*World.__struct_fields__}
    shipped = load_pipelines("", token_orders.RESET)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", Clock()))
        orders = TokenOrders(store, world, shipped[token_orders.RESET], shipped[token_orders.CANCEL])
        server = Control(store, healthy, store.clock, "1", token_orders=orders)
        await stack.enter_async_context(server.serve(tmp_path / "s"))
        reactor = new_reactor(store, handler_kinds().values(), *shipped.values())
        yield Daemon(Served(tmp_path / "s", store), far, reactor)


async def waits(store: Store, field: str = "P1+1") -> None:
    """A step of a field waits for tokens and for a job of its pilots."""
    pipeline = graph("waiting", step("wait"))
    run = await begin(store, pipeline, field)
    (work,) = [work for work in await store.next_dirty() if work.run.id == run]
    again = counted_again("t", f"{work.run.id}/wait/1/0/1")
    subjects = (tokens_of("t"), job_of("17:2", "sara"), again)
    await store.finish(Decision(work, Wait(subjects, "waiting", 3600.0), pipeline))
    data = {"state": "running", "words": "RUNNING", "nodes": {"17_0": "running", "17_1": "queued"}, "reason": ""}
    counts = {"todo": 3, "locked": 2, "done": 1, "error": 0, "other": 0}
    await store.ingest("test", None, [(subjects[0], counts), (subjects[1], data)])


# --- tokens


async def test_tokens_that_steps_wait_for_are_counted(daemon: Daemon) -> None:
    assert await daemon.run("tokens") == (0, "no step waits for tokens\n", "")
    await waits(daemon.store)
    (one,) = (await daemon.asked("tokens"))["types"]
    assert (one["type"], one["field"], one["step"], one["counts"]["todo"]) == ("t", "P1+1", "wait", 3)
    _, out, _ = await daemon.run("tokens")
    assert out.splitlines()[0].split() == ["type", "site", *STATES, "field"]
    assert out.splitlines()[1].split()[:7] == ["t", "3", "2", "1", "0", "0", "P1+1"]
    assert STATES == STATES_OF_TOKENS


async def test_tokens_of_a_type_are_listed(daemon: Daemon) -> None:
    (one,) = (await daemon.asked("tokens", "list", "t", "--state", "error"))["tokens"]
    assert (one["token"], one["job"], one["scrub_count"], one["history"]) == ("t:SB000", "17_3", 1, 1)
    _, out, _ = await daemon.run("tokens", "list", "t")
    assert out.splitlines()[1].split() == ["t:SB000", "error", "17_3", "wn1", "1", "1"]
    assert await daemon.run("tokens", "list", "t", "--state", "done") == (0, "no such tokens of t\n", "")
    assert "expected letters, digits" in await daemon.refused("tokens", "list", 't"x')
    daemon.far.ids = tuple(str(number) for number in range(MAX_TOKENS + 1))
    assert "ask for a state" in await daemon.refused("tokens", "list", "t")
    daemon.far.is_away = True
    assert await daemon.refused("tokens", "list", "t") == "aglowctl: the database is away\n"


async def test_a_token_is_shown_with_its_history(daemon: Daemon) -> None:
    assert (await daemon.asked("tokens", "show", "t:SB000"))["token"] == TOKEN
    _, out, _ = await daemon.run("tokens", "show", "t:SB000")
    assert "slurm_job_id" in out
    assert out.splitlines()[-1].split()[-3:] == ["lease:", "gone", "wn0"]
    for odd in ("yesterday", -1, 1e30, None, {}):
        mark = {"history": [{"at": odd, "why": "somebody wrote it"}, "odd"]}
        page = _token_page({"token": {"_id": "t:1", "aglowd": mark}})
        assert isinstance(page[-1], Table)
        assert page[-1].rows == [("", "somebody wrote it", "")], odd
    assert await daemon.refused("tokens", "show", "none") == "aglowctl: there is no token 'none'\n"


async def test_the_last_log_of_a_token_is_printed(daemon: Daemon) -> None:
    answer = await daemon.asked("tokens", "logs", "t:SB000")
    assert answer["name"] == "01/02/2026_10.00.00_stdout.txt"
    assert len(answer["text"]) == MAX_LOG_CHARS
    code, out, _ = await daemon.run("tokens", "logs", "t:SB000", "--name", "srm.txt")
    assert code == 0
    assert out.splitlines()[0] == "t:SB000: srm.txt"
    assert "\x1b" not in out
    refused = await daemon.refused("tokens", "logs", "t:SB000", "--name", "x")
    assert refused == "aglowctl: t:SB000 has no attachment 'x'; it has 01/02/2026_10.00.00_stdout.txt, srm.txt\n"


async def test_resetting_tokens_is_a_run_that_says_who_and_why(daemon: Daemon) -> None:
    args = ("tokens", "reset", "t", "t:SB000", "--reason", "the disk is repaired", "--yes")
    answer = await daemon.asked(*args)
    assert (answer["field"], answer["run"]) == ("tokens/t", "tokens_t-1")
    refused = await daemon.refused(*args)
    assert refused == "aglowctl: tokens/t is at work already; wait for its end: aglowctl explain tokens/t\n"
    await settle_all(daemon.reactor)
    (subject,) = [subject for subject, _ in await daemon.store.watched("selection")]
    assert subject.args == {"token_type": "t", "state": "error", "field": "status"}
    (event,) = [event for event in await daemon.store.events(most=100) if event["kind"] == "Ordered"]
    assert event["data"]["reason"] == "the disk is repaired"
    assert isinstance(event["data"]["uid"], int)
    token = {"rev": "7-a", "held": False, "value": "error"}
    await daemon.store.ingest("test", None, [(subject, {"tokens": {"t:SB000": token}})])
    await settle_all(daemon.reactor)
    (live,) = await daemon.store.next_effects((), 10)
    assert live.record.inputs["seen"] == {"t:SB000": "7-a"}


async def test_nothing_is_reset_or_cancelled_without_a_yes(daemon: Daemon) -> None:
    for args in (("tokens", "reset", "t"), ("jobs", "cancel", "17")):
        code, out, err = await daemon.run(*args)
        assert (code, "Aborted!" in err) == (1, True), out
    assert await daemon.store.fields() == []
    assert [event for event in await daemon.store.events(most=100) if event["kind"] == "Ordered"] == []


# --- jobs


async def test_jobs_that_steps_wait_for_are_listed(daemon: Daemon) -> None:
    assert await daemon.run("jobs") == (0, "no step waits for jobs\n", "")
    await waits(daemon.store)
    (one,) = (await daemon.asked("jobs"))["jobs"]
    assert (one["job"], one["site"], one["state"], one["field"]) == ("17:2", "sara", "running", "P1+1")
    _, out, _ = await daemon.run("jobs", "list", "P1+1")
    assert out.splitlines()[1].split() == ["17:2", "sara", "running", "1", "queued,", "1", "running", "P1+1", "RUNNING"]
    assert await daemon.run("jobs", "list", "P9") == (0, "no step waits for jobs\n", "")


async def test_a_job_is_asked_for_now(daemon: Daemon) -> None:
    job = (await daemon.asked("jobs", "show", "17:2", "--site", "sara"))["job"]
    assert (job["system"], job["state"], job["nodes"][0]["exit_code"]) == ("slurm", "running", 3)
    _, out, _ = await daemon.run("jobs", "show", "17:2", "--site", "sara")
    assert out.splitlines()[0] == "17:2 at slurm: running (RUNNING)"
    assert out.splitlines()[-1].split() == ["17_3", "done_failed", "FAILED", "3", "NonZeroExitCode"]
    assert await daemon.refused("jobs", "show", "99") == "aglowctl: there is no job '99'\n"
    refused = await daemon.refused("jobs", "show", "17:2", "--site", "poznan")
    assert refused == "aglowctl: no site 'poznan' is configured; known: sara\n"


async def test_cancelling_jobs_is_a_run(daemon: Daemon) -> None:
    answer = await daemon.asked("jobs", "cancel", "17:2", "18:4", "--site", "sara", "--yes")
    assert answer["field"] == "jobs/17:2"
    await settle_all(daemon.reactor)
    live = await daemon.store.next_effects((), 10)
    assert [(one.record.inputs["job"], one.record.inputs["site"]) for one in live] == [
        ("17:2", "sara"),
        ("18:4", "sara"),
    ]
    assert "no site 'poznan'" in await daemon.refused("jobs", "cancel", "1", "--site", "poznan", "--yes")
    many = [str(number) for number in range(MAX_JOBS + 1)]
    assert "expected jobs, site and reason" in await daemon.refused("jobs", "cancel", *many, "--yes")


async def test_the_output_of_a_job_is_fetched(daemon: Daemon, tmp_path: Path) -> None:
    code, out, _ = await daemon.run("jobs", "output", "17:2", str(tmp_path))
    assert (code, out) == (0, f"{tmp_path}/out\n")
    refused = await daemon.refused("jobs", "output", "17:2", str(tmp_path / "none"))
    assert refused == f"aglowctl: {tmp_path}/none is no directory that the daemon can see\n"
