"""What each watcher makes of what its outside system says."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary
from aglowd.grid.batch import JobStatus
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.gate import CONCURRENCY, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy, ProxyInfo
from aglowd.grid.stager import Progress
from aglowd.grid.storage import Storage
from aglowd.grid.tokens import told_of
from aglowd.handlers.pilots import job_of
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.directories import Directories
from aglowd.watchers.fields import Fields
from aglowd.watchers.jobs import SILENT_LOOKS, Jobs
from aglowd.watchers.localities import MAX_COPIES, Localities
from aglowd.watchers.pages import FINEST_S, TOGETHER, Pages, Turn, Turns
from aglowd.watchers.proxies import GRAIN_S, Proxies
from aglowd.watchers.results import MAX_LOG_CHARS, MAX_LOGS, Results
from aglowd.watchers.selections import MAX_VALUE_CHARS, Selections
from aglowd.watchers.srm_lists import MAX_LIST_BYTES, SrmLists, read_list
from aglowd.watchers.staging import Staging

from .conftest import PATIENCE_S, end, running, until, wait_for, world_of

HERE = "srm://srm.grid.sara.nl:8443/d/L1_SB{:03d}_uv.tar"


async def seen_by(watcher: Any, *subjects: Subject) -> dict[str, Json]:
    """Subject's id → what the watcher says of it."""
    return {subject.id: data for subject, data in await watcher.look(subjects)}


def progress(status: str, done: int = 3, *, aborted: bool = False) -> Progress:
    return Progress(status, 5, done, 60.0, "sara", aborted)


class Stager:
    def __init__(self) -> None:
        self.requests = {
            1: progress("in progress"),
            2: progress("success", aborted=True),
            3: progress("scheduled", aborted=True),
        }
        self.statuses = {4: "success"}
        self.calls: list[str] = []

    async def progress(self) -> dict[int, Progress]:
        self.calls.append("progress")
        return self.requests

    async def status(self, request: int) -> str:
        self.calls.append(f"status {request}")
        return self.statuses.get(request, "")


def request(site: str, number: int) -> Subject:
    return Subject("staging", str(number), {"site": site, "request": number})


async def test_staging(store: Store, clock: Clock) -> None:
    lta = Stager()
    watcher = Staging(world_of(clock, stager={"sara": lta, "juelich": lta}.__getitem__), store, 300.0)
    found = await seen_by(
        watcher, *(request("sara" if number % 2 else "juelich", number) for number in (1, 2, 3, 4, 5))
    )
    assert found["1"] == {"status": "in progress", "done": 3, "total": 5, "percent": 60.0}
    assert found["2"]["status"] == "success"
    assert found["3"]["status"] == "aborted"
    assert found["4"] == {"status": "success", "done": None, "total": None, "percent": None}
    assert found["5"]["status"] == "gone", "what the stager has forgotten is neither good nor bad"
    assert lta.calls == ["progress", "status 4", "status 5"], "one call for all that the stager shows"
    again = await seen_by(watcher, Subject("staging", "1/again", {"site": "sara", "request": 1}))
    assert again["1/again"] == found["1"], "an occasion of its own names its request"
    assert watcher.whole


async def test_a_stager_that_does_not_answer_keeps_no_other_ones_answer_back(store: Store, clock: Clock) -> None:
    class Silent(Stager):
        async def progress(self) -> dict[int, Progress]:
            raise Temporary("it is down")

    stagers = {"sara": Stager(), "juelich": Silent()}
    watcher = Staging(world_of(clock, stager=stagers.__getitem__), store, 300.0)
    found = await seen_by(watcher, request("juelich", 2), request("sara", 1))
    assert found.keys() == {"1"}
    with pytest.raises(Temporary, match="it is down"):
        await watcher.look([request("juelich", 2)])


async def test_a_request_that_cannot_be_read_keeps_no_other_ones_answer_back(store: Store, clock: Clock) -> None:
    class Odd(Stager):
        async def status(self, request: int) -> str:
            if request == 5:
                raise Temporary("found nonsense")
            return await super().status(request)

    def stager(site: str) -> Odd:
        if site != "sara":
            raise Permanent(f"no site {site!r} is configured")
        return Odd()

    watcher = Staging(world_of(clock, stager=stager), store, 300.0)
    found = await seen_by(watcher, *(request("sara", number) for number in (1, 4, 5)), request("poznan", 1))
    assert sorted(found) == ["1", "4"], "nor does a site that is not configured any more"


async def test_jobs(store: Store, clock: Clock) -> None:
    asked: list[Sequence[str]] = []

    class Wms:
        system = "glite"

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            asked.append(jobs)
            return {"a": JobStatus("a", "running", "Running", None, "why"), "b": JobStatus("b", "aborted", "Aborted")}

    wms = Wms()
    watcher = Jobs(world_of(clock, batches={"": wms}, batch=lambda site: wms), store, 900.0)
    assert await seen_by(watcher, *(Subject("job", name) for name in "abc")) == {
        "a": {"state": "running", "words": "Running", "reason": "why", "exit_code": None, "final": False, "nodes": {}},
        "b": {"state": "aborted", "words": "Aborted", "reason": "", "exit_code": None, "final": True, "nodes": {}},
    }
    assert asked == [["a", "b", "c"]]
    assert watcher.whole


async def test_a_job_that_is_named_no_more_is_lost_after_a_while_and_found_again(store: Store, clock: Clock) -> None:
    nodes = (JobStatus("a_0", "running"), JobStatus("a_1", "done_ok"))
    shown: dict[str, JobStatus] = {"a": JobStatus("a", "running", "R", nodes=nodes)}

    class Batch:
        system = "slurm"

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            return {job: shown[job] for job in jobs if job in shown}

    time = SimpleNamespace(now=lambda: time.at, at=0.0)
    batch: Any = Batch()
    world: Any = SimpleNamespace(clock=time, batches={"sara": batch}, batch=lambda site: batch)
    job, other = job_of("a", "sara"), job_of("b", "sara")
    await wait_for(store, "P", job, other)

    async def look(at: float, watcher: Jobs) -> dict[str, Any]:
        time.at = at
        found = list(await watcher.look([job, other]))
        await store.ingest("job", None, found)
        return {subject.id: data for subject, data in found}

    def told(state: str, node: str, **more: Any) -> dict[str, Any]:
        return {"state": state, "words": "R", "reason": "", "exit_code": None, "final": state == "lost",
                "nodes": {"a_0": node, "a_1": "done_ok"}, **more}  # fmt: skip

    watcher = Jobs(world, store, 900.0)
    lost_after_s = watcher.lost_after_s
    assert await look(0.0, watcher) == {"a@sara": told("running", "running")}
    gone = shown.pop("a")
    silent = told("unknown", "running", reason="slurm does not name it", silent_since=10.0)
    assert await look(10.0, watcher) == {"a@sara": silent}, "once is no end; of b nobody knows what it brings"
    assert await look(11.0, watcher) == {"a@sara": silent}
    watcher = Jobs(world, store, 900.0)
    assert await look(5.0 + lost_after_s, watcher) == {"a@sara": silent}, "a restart does not end the silence"
    for _ in range(SILENT_LOOKS - 2):
        assert await look(10.0 + lost_after_s, watcher) == {"a@sara": silent}, "it may not have answered meanwhile"
    lost = told("lost", "lost", words="", reason="slurm does not know it any more")
    assert await look(10.0 + lost_after_s, watcher) == {"a@sara": lost}
    (b,) = (await look(5.0 + 2 * lost_after_s, watcher)).values()
    assert (b["state"], b["reason"], b["nodes"]) == ("lost", "slurm does not know it", {}), "a stays as it is told"
    shown["a"] = gone
    assert await look(1e6, watcher) == {"a@sara": told("running", "running")}
    shown.clear()
    (again,) = (await look(1e6 + 1, watcher)).values()
    assert (again["state"], again["silent_since"]) == ("unknown", 1e6 + 1), "the silence begins anew"


@pytest.mark.parametrize(("state", "node"), [("unknown", "running"), ("lost", "lost")])
async def test_a_system_that_cannot_tell_of_a_job_has_not_ended_its_pilots(
    store: Store, clock: Clock, state: str, node: str
) -> None:
    nodes = (JobStatus("a_0", "running"), JobStatus("a_1", "done_ok"))
    shown = {"a": JobStatus("a", "running", "Running", nodes=nodes)}

    class Wms:
        system = "glite"

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            return dict(shown)

    job, wms = Subject("job", "a"), Wms()
    watcher = Jobs(world_of(clock, batches={"": wms}, batch=lambda _: wms), store, 900.0)
    await wait_for(store, "P", job)
    await store.ingest("job", None, list(await watcher.look([job])))
    shown["a"] = JobStatus("a", state, reason="it timed out")
    ((_, fact),) = await watcher.look([job])
    assert (fact["state"], fact["reason"], fact["nodes"]) == (state, "it timed out", {"a_0": node, "a_1": "done_ok"})


async def test_how_a_job_ended_is_known_for_good(store: Store) -> None:
    shown = {"a": JobStatus("a", "done_failed", "FAILED", 3)}

    class Batch:
        system = "slurm"

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            return dict(shown)

    world: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda: 1e9), batches={"": Batch()}, batch=lambda _: Batch())
    watcher, job = Jobs(world, store, 900.0), Subject("job", "a")
    await wait_for(store, "P", job)
    await store.ingest("job", None, list(await watcher.look([job])))
    shown.clear()
    watcher.lost_after_s = 0.0
    for _ in range(SILENT_LOOKS):
        assert list(await watcher.look([job])) == []


async def test_jobs_of_a_system_that_does_not_answer_keep_nobody_elses_back(store: Store, clock: Clock) -> None:
    class Batch:
        def __init__(self, name: str) -> None:
            self.system = name

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            if self.system == "away":
                raise Temporary("it is away")
            return {job: JobStatus(job, "queued") for job in jobs}

    batches = {"sara": Batch("slurm"), "juelich": Batch("away")}
    world: Any = SimpleNamespace(clock=clock, batches=batches, batch=batches.__getitem__)
    watcher = Jobs(world, store, 900.0)
    jobs = [job_of("a", "sara"), job_of("a", "juelich"), job_of("a", "poznan")]
    seen = {subject.key: data for subject, data in await watcher.look(jobs)}
    assert {key: data["state"] for key, data in seen.items()} == {"job:a@sara": "queued", "job:a@poznan": "unknown"}
    assert seen["job:a@poznan"]["reason"] == "no site 'poznan' is configured"
    with pytest.raises(Temporary, match="it is away"):
        await watcher.look([job_of("a", "juelich")])


async def test_an_id_that_is_none_there_keeps_back_no_word_about_the_others(store: Store, clock: Clock) -> None:
    asked: list[int] = []

    class Batch:
        system = "slurm"

        async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
            asked.append(len(jobs))
            if any("://" in job for job in jobs):
                raise Permanent("found job id 'https://wms/x'; expected a number")
            return {job: JobStatus(job, "running") for job in jobs}

    world: Any = SimpleNamespace(clock=clock, batches={"": Batch()}, batch=lambda _: Batch())
    jobs = [Subject("job", name) for name in ("1", "2", "https://wms/x", "3")]
    seen = {subject.id: data for subject, data in await Jobs(world, store, 900.0).look(jobs)}
    assert {name: data["state"] for name, data in seen.items()} == {
        "1": "running", "2": "running", "https://wms/x": "unknown", "3": "running",
    }  # fmt: skip
    assert "expected a number" in seen["https://wms/x"]["reason"]
    assert asked == [4, 2, 2, 1, 1]


async def test_localities(store: Store, clock: Clock) -> None:
    one, two, three, four, five = (HERE.format(number) for number in range(5))
    asked: list[list[str]] = []
    sought: list[str] = []
    lost: set[str] = set()

    class Dcache:
        async def localities(self, surls: list[str], sizes: dict[str, int]) -> dict[str, str]:
            asked.append(surls)
            sizes.update({one: 9, two: 7} if one in surls else {four: 5, five: 6})
            return {one: "ONLINE", two: "NEARLINE", four: "LOST", five: "NONE", **dict.fromkeys(lost, "LOST")}

        async def copies(self, surl: str) -> str | None:
            sought.append(surl)
            return f"{surl}.new" if surl == four else None

    class Down:
        async def localities(self, surls: list[str], sizes: dict[str, int]) -> dict[str, str]:
            raise Temporary("it is down")

    watcher = Localities(world_of(clock, archive={"sara": Dcache(), "juelich": Down()}.__getitem__), store, 300.0)
    first = Subject("locality", "x", {"site": "sara", "surls": [one, two]})
    second = Subject("locality", "y", {"site": "sara", "surls": [three, one]})
    elsewhere = Subject("locality", "z", {"site": "juelich", "surls": [one]})
    assert await seen_by(watcher, first, elsewhere, second) == {
        "x": {"missing": [two], "away": {}, "copies": {}, "counts": {"ONLINE": 1, "NEARLINE": 1}, "file_bytes": 7},
        "y": {"missing": [three], "away": {three: "UNKNOWN"}, "copies": {}, "counts": {"UNKNOWN": 1, "ONLINE": 1}},
    }, "a site that does not answer keeps no other one's answer back"
    assert asked == [[one, two, three]], "each file is asked for once"
    gone = await seen_by(watcher, Subject("locality", "w", {"site": "sara", "surls": [four, five]}))
    assert gone["w"]["away"] == {four: "LOST", five: "NONE"}
    assert gone["w"]["file_bytes"] == 6, "the largest"
    assert gone["w"]["copies"] == {four: f"{four}.new"}, "one was ingested again"
    assert sought == [four, five]
    many = [f"{four}.{number}" for number in range(MAX_COPIES + 5)]
    lost.update(many)
    sought.clear()
    await seen_by(watcher, Subject("locality", "v", {"site": "sara", "surls": many}))
    assert sought == many[:MAX_COPIES]


async def test_files_of_a_site_that_is_not_configured_are_told_of(store: Store, clock: Clock) -> None:
    def archive(site: str) -> None:
        raise Permanent(f"no site {site!r} is configured; known: sara")

    watcher = Localities(world_of(clock, archive=archive), store, 300.0)
    seen = await seen_by(watcher, Subject("locality", "x", {"site": "poznan", "surls": [HERE.format(1)]}))
    assert seen["x"]["problem"] == "no site 'poznan' is configured; known: sara"
    assert seen["x"]["missing"] == [HERE.format(1)]


async def test_a_file_that_cannot_be_asked_for_keeps_no_other_ones_answer_back(store: Store, clock: Clock) -> None:
    good, bad = HERE.format(1), "srm://srm.grid.sara.nl:8443/d/notes.txt"
    asked: list[list[str]] = []

    class Strict:
        async def localities(self, surls: list[str], sizes: dict[str, int]) -> dict[str, str]:
            asked.append(surls)
            if bad in surls:
                raise Permanent("expected L<OBSID>_….tar")
            return dict.fromkeys(surls, "ONLINE")

        async def copies(self, surl: str) -> None:
            return None

    watcher = Localities(world_of(clock, archive=lambda site: Strict()), store, 300.0)
    subjects = [
        Subject("locality", name, {"site": "sara", "surls": [surl]})
        for name, surl in zip("gb", (good, bad), strict=True)
    ]
    assert list(await seen_by(watcher, *subjects)) == ["g"]
    assert len(asked) == 3
    with pytest.raises(Permanent, match="OBSID"):
        await watcher.look(subjects[1:])


async def test_directories(store: Store, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "b").write_text("hello")
    (tmp_path / "r" / "a").write_text("")
    (tmp_path / "r" / "inner").mkdir()
    storage = Storage(Processes(env={"PATH": os.environ["PATH"]}), Site("storage", clock))
    watcher = Directories(world_of(clock, storage=storage), store, 600.0)
    url = (tmp_path / "r").as_uri()
    files = [{"url": f"{url}/a", "size_bytes": 0}, {"url": f"{url}/b", "size_bytes": 5}]
    subjects = [Subject("directory", f"occasion {number}", {"url": url}) for number in range(2)]
    there = {"absent": False, "files": files}
    gone = Subject("directory", "gone", {"url": f"{url}/none"})
    assert await seen_by(watcher, *subjects, gone) == {
        "occasion 0": there,
        "occasion 1": there,
        "gone": {"absent": True, "files": []},
    }


async def test_a_directory_that_may_not_be_seen_is_not_an_empty_one(store: Store, clock: Clock) -> None:
    asked: list[str] = []

    class Forbidding:
        async def list(self, url: str) -> tuple[()]:
            asked.append(url)
            if url == "x://no":
                raise Permanent("forbidden")
            return ()

    watcher = Directories(world_of(clock, storage=Forbidding()), store, 600.0)
    both = [Subject("directory", name, {"url": f"x://{name}"}) for name in ("no", "yes")]
    seen = list(await watcher.look(both))
    assert [subject.id for subject, _ in seen] == ["yes"], "one door that is closed keeps nobody else's answer back"
    asked.clear()
    await watcher.look([Subject("directory", name, {"url": "x://yes"}) for name in "ab"])
    assert asked == ["x://yes"], "one directory is listed once a round"


async def test_results(store: Store, clock: Clock) -> None:
    documents: dict[str, Any] = {
        "t:1": {
            "status": "done",
            "Results_location": "file:///r/1",
            "aglowd": {"result": {"size_bytes": 7}},
        },
        "t:2": {"status": "done", "aglowd": {"result": {"size_bytes": "many"}}},
        "t:3": {
            "status": "error",
            "Results_location": "file:///r/3",
            "_attachments": {
                "01/02/2026_10.00.00_stdout.txt": {"revpos": 3},
                "01/02/2026_09.00.00_stderr.txt": {"revpos": 2},
                "srm.txt": {"revpos": 9},
            },
        },
        "t:4": {},
        "t:5": None,
        # As picasclient ends them: without a status.
        "t:6": {"lock": 5, "done": 6, "exit_code": 0, "Results_location": "file:///r/6"},
        "t:7": {"lock": 5, "done": 6, "exit_code": 1},
    }

    class Couch:
        async def list_ids(self, token_type: str) -> tuple[str, ...]:
            return tuple(documents) if token_type == "t" else ()

        async def get_docs(self, ids: Sequence[str]) -> dict[str, Any]:
            return {name: documents[name] for name in ids}

        async def get_attachment(self, doc: str, name: str) -> bytes:
            assert (doc, name) == ("t:3", "01/02/2026_10.00.00_stdout.txt")
            return b"x" * 1000 + b"\n\n  no space left \n"

    watcher = Results(world_of(clock, picas=Couch()), store, 60.0)
    subjects = [Subject("results", name, {"token_type": name}) for name in "tu"]
    assert await seen_by(watcher, *subjects) == {
        "t": {
            "done": {"t:1": "file:///r/1", "t:2": "", "t:6": "file:///r/6"},
            "other": {"t:3": "error", "t:4": "queued", "t:7": "queued"},
            "logs": {"t:3": "x" * (MAX_LOG_CHARS - 16) + " / no space left"},
            "sizes": {"file:///r/1": 7},
            "tokens": {name: told_of(document) for name, document in documents.items() if document is not None},
        },
        "u": {"done": {}, "other": {}, "logs": {}, "sizes": {}, "tokens": {}},
    }


async def test_srm_lists(store: Store, clock: Clock, tmp_path: Path) -> None:
    good, mixed, binary, long, empty = (
        tmp_path / f"{name}.txt" for name in ("good", "mixed", "binary", "long", "empty")
    )
    good.write_text(f"{HERE.format(2)}\n{HERE.format(1)}\n")
    mixed.write_text(f"{HERE.format(2)}\n{HERE.format(1).replace('L1', 'L2')}\n")
    binary.write_bytes(b"\xff\xfe")
    long.write_bytes(b"\n" * (MAX_LIST_BYTES + 1))
    empty.write_text("")
    watcher = SrmLists(world_of(clock), store, 300.0)
    names = [str(path) for path in (good, mixed, binary, long, empty, tmp_path / "none.txt")]
    found = await seen_by(watcher, *(Subject("srm_list", name, {"path": name}) for name in names))
    assert found[names[0]] == {
        "path": names[0],
        "obsid": "L1",
        "site": "sara",
        "surls": [HERE.format(2), HERE.format(1)],
        "subbands": [1, 2],
    }
    said = {Path(name).stem: found[name]["problems"] for name in names[1:]}
    assert [len(problems) for problems in said.values()] == [1] * 5
    assert said["mixed"][0].startswith(f"{mixed}:2: found OBSID L2; expected L1")
    assert "cannot be read" in said["binary"][0]
    assert said["long"][0] == f"{long}:1: the list is longer than {MAX_LIST_BYTES} bytes"
    assert said["empty"][0].startswith(f"{empty}:1: found no SURL")
    assert "No such file" in said["none"][0]
    assert read_list(names[0]) == found[names[0]]


@pytest.mark.parametrize(
    ("left", "attributes", "counts"), [(90_000.0, None, 90_000.0), (90_000.0, 5_000.0, 5_000.0), (10.0, 90.0, 10.0)]
)
async def test_the_proxy(store: Store, left: float, attributes: float | None, counts: float) -> None:
    class Tool:
        async def info(self) -> ProxyInfo:
            return ProxyInfo(left, attributes, "/CN=me")

    class Still(Clock):
        def now(self) -> float:
            return 1_000_000_123.0

    watcher = Proxies(world_of(Still(), proxy=Tool()), store, 900.0)
    (valid_until,) = (data["valid_until"] for data in (await seen_by(watcher, Subject("proxy", "default"))).values())
    assert valid_until % GRAIN_S == 0
    assert 0 <= 1_000_000_123.0 + counts - valid_until < GRAIN_S, "it is never said to be good for longer than it is"


async def test_a_projects_proxy_is_looked_at_where_it_lies(store: Store, clock: Clock, tmp_path: Path) -> None:
    """One that is not there keeps back no word of the others."""
    tool = tmp_path / "voms-proxy-info"
    tool.write_text('#!/bin/sh\ncase "$*" in *missing*) exit 1;; *-file*) echo 7200;; *) echo 90000;; esac\n')
    tool.chmod(0o755)
    processes = Processes(path=str(tmp_path), env={"PATH": os.environ["PATH"]})
    watcher = Proxies(world_of(clock, proxy=Proxy(processes, None), processes=processes), store, 900.0)
    subjects = [Subject("proxy", path, {"path": path}) for path in ("/p/surveys", "/p/missing")]
    found = await seen_by(watcher, Subject("proxy", "default"), *subjects)
    left = {key: round((data["valid_until"] - clock.now()) / 3600) for key, data in found.items()}
    assert left == {"default": 25, "/p/surveys": 2}


# --- web pages


class Service:
    """A web service on loopback: path → status and body."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.connections: set[Any] = set()
        self._came = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self._came.set()
        self.connections.add(request.transport)
        if request.path in self.held:
            await self.held[request.path].wait()
        status, body = self.pages.get(request.path, (404, b"no"))
        return web.Response(status=status, body=body)

    async def until_asked(self, path: str, times: int) -> None:
        """For that page, so often."""
        async with asyncio.timeout(PATIENCE_S):
            while self.asked.count(path) < times:
                self._came.clear()
                await self._came.wait()

    def hang_up(self) -> None:
        for connection in self.connections:
            connection.close()


@pytest.fixture
async def service() -> Any:
    found = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined] # known only now
    yield found
    await runner.cleanup()


@pytest.fixture
async def http(clock: Clock) -> Any:
    client = Http(clock, timeout_s=10.0)
    yield client
    await client.close()


def page(url: str, poll_s: float = 60.0) -> Subject:
    return Subject("http", url, {"url": url, "poll_s": poll_s})


def pages(store: Store, clock: Clock, http: Http) -> Pages:
    return Pages(world_of(clock, http=http, web=Site("web", clock)), store, 30.0)


async def read(store: Store) -> dict[str, Json]:
    """URL → what is known of the page."""
    return {one["id"]: one["data"] for one in await store.waited("http") if one["data"] is not None}


async def at_rest(watcher: Pages) -> None:
    """Return when it has asked all that is due, and written down what was answered."""
    async with asyncio.timeout(PATIENCE_S):
        while not watcher.is_at_rest:
            await read(watcher.store)


async def test_pages(store: Store, clock: Clock, service: Any, http: Http) -> None:
    service.pages = {"/json": (200, b'{"state": "ready"}'), "/text": (200, b"ready \xff"), "/none": (204, b"")}
    urls = {name: f"{service.url}/{name}" for name in ("json", "text", "none", "absent")}
    subjects = [*map(page, urls.values()), page("http://127.0.0.1:1/refused")]
    await wait_for(store, "P1", *subjects)
    watcher = pages(store, clock, http)
    async with running(watcher):
        await at_rest(watcher)
    assert await read(store) == {
        urls["json"]: {"status": 200, "body": {"state": "ready"}},
        urls["text"]: {"status": 200, "body": "ready \ufffd"},
        urls["none"]: {"status": 204, "body": ""},
    }
    assert sorted(service.asked) == ["/absent", "/json", "/none", "/text"]
    assert watcher.silent.keys() == {subjects[-2].key, subjects[-1].key}


async def test_each_page_keeps_its_own_interval(store: Store, clock: Clock, service: Any, http: Http) -> None:
    service.pages = {"/often": (200, b"1"), "/seldom": (200, b"1")}
    await wait_for(store, "P1", page(f"{service.url}/often", 20.0), page(f"{service.url}/seldom", 1e9))
    async with running(pages(store, clock, http)):
        began = clock.now()
        await service.until_asked("/often", 5)
        assert clock.now() - began >= 3.3 * 20.0, (
            "the second time after a third of an interval, then one after the other"
        )
    assert service.asked.count("/seldom") == 1


def turns_of(watcher: Pages, subjects: Iterable[Subject]) -> dict[str, Turn]:
    """Key of each → its next turn; it must have one."""
    turns = {subject.key: watcher._turns.of(subject.key) for subject in subjects}
    return {key: turn for key, turn in turns.items() if turn is not None}


def test_turns_come_in_the_order_of_their_times_whatever_was_given_and_taken_back() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        turns, known, now = Turns(), dict[str, Turn](), 0.0
        subjects = {subject.key: subject for subject in (Subject("http", str(number)) for number in range(20))}
        for _ in range(200):
            now += draw.uniform(0.0, 0.3)
            key = draw.choice(list(subjects))
            match draw.randrange(5):
                case 0 if key in known:
                    turns.forget(key)
                    del known[key]
                case 1:
                    kept = draw.sample(list(subjects), draw.randrange(20))
                    turns.keep([subjects[one] for one in kept], now)
                    known = {one: known.get(one, Turn(now, now)) for one in kept}
                case _ if key not in known:
                    at = now + draw.uniform(0.0, 9.0)
                    known[key] = Turn(at, at + draw.uniform(0.0, 9.0))
                    turns.give(subjects[key], known[key])
            assert turns.next_at() == min((turn.latest for turn in known.values()), default=math.inf), seed
            due = turns.due(now, 3)
            expected = sorted((turn.at, key) for key, turn in known.items() if turn.at <= now)[:3]
            assert due == [key for _, key in expected], seed
            for key in due:
                known[key] = Turn(now + draw.uniform(0.1, 5.0), now + 6.0)
                turns.give(subjects[key], known[key])
            assert turns.pages.keys() == known.keys(), seed
            assert {key: turns.of(key) for key in subjects} == {key: known.get(key) for key in subjects}, seed


async def test_pages_that_began_together_are_not_asked_together_for_ever(
    store: Store, clock: Clock, http: Http
) -> None:
    watcher = pages(store, clock, http)
    subjects = [page(f"http://127.0.0.1:1/{number}", 100.0) for number in range(40)]
    now = clock.now()
    for subject in subjects:
        watcher._take_turn(subject, now)
    turns = turns_of(watcher, subjects).values()
    assert all(now + 33.3 <= turn.at <= now + 100.0 for turn in turns)
    assert max(turn.at for turn in turns) - min(turn.at for turn in turns) > 35.0
    before = {key: turn.at for key, turn in turns_of(watcher, subjects).items()}
    hasty = page("http://127.0.0.1:1/hasty", 1e-9)
    watcher._take_turn(hasty, now)
    assert turns_of(watcher, [hasty])[hasty.key].at >= now + FINEST_S / 3
    for subject in subjects:
        watcher._take_turn(subject, now + 55.0)
    assert {key: turn.at - 100.0 for key, turn in turns_of(watcher, subjects).items()} == pytest.approx(
        before, abs=1e-3
    ), "each keeps its phase"


async def test_a_page_that_was_seen_before_is_asked_when_it_is_waited_for_again(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    service.pages = {"/seldom": (200, b"1"), "/again": (200, b"1")}
    again = page(f"{service.url}/again")
    await wait_for(store, "P1", page(f"{service.url}/seldom", 1e9))
    await wait_for(store, "P2", again)
    await store.ingest("http", None, [(again, {"status": 200, "body": 0})])
    await end(store, "P2")
    async with running(pages(store, clock, http)):
        await service.until_asked("/seldom", 1)
        await wait_for(store, "P3", again)
        await service.until_asked("/again", 1)


async def test_a_new_page_is_asked_at_once_and_not_at_the_next_list(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    service.pages = {"/seldom": (200, b"1"), "/new": (200, b"1")}
    await wait_for(store, "P1", page(f"{service.url}/seldom", 1e9))
    watcher = pages(store, clock, http)
    watcher.poll_s = 1e9
    async with running(watcher):
        await service.until_asked("/seldom", 1)
        await wait_for(store, "P2", page(f"{service.url}/new", 1e9))
        await service.until_asked("/new", 1)


async def test_an_answer_that_is_known_is_not_written_down_again(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    service.pages = {"/page": (200, b"1")}
    subject = page(f"{service.url}/page", 20.0)
    await wait_for(store, "P1", subject)

    async def is_another() -> bool:
        return (await read(store)).get(subject.id) == {"status": 200, "body": 2}

    async with running(pages(store, clock, http)):
        await service.until_asked("/page", 2)
        commits = store.db.commits
        await service.until_asked("/page", 6)
        assert store.db.commits == commits
        service.pages = {"/page": (200, b"2")}
        await until(store, is_another)


@pytest.mark.parametrize("ends", ["with an answer", "otherwise"])
async def test_a_page_that_nobody_waits_for_any_more_is_asked_no_more(
    store: Store, clock: Clock, service: Any, http: Http, ends: str
) -> None:
    """A wait that ends with what was seen is known to have ended at the next turn, any other one at the next list."""
    service.pages = {"/gone": (200, b"1"), "/stays": (200, b"1")}
    gone, stays = (page(f"{service.url}/{name}", 50.0) for name in ("gone", "stays"))
    await wait_for(store, "P1", gone)
    await wait_for(store, "P2", stays)
    watcher = pages(store, clock, http)
    watcher.poll_s = 1e9 if ends == "with an answer" else 100.0
    async with running(watcher):
        await service.until_asked("/gone", 2)
        await end(store, "P1")
        asked = service.asked.count("/gone")
        if ends == "with an answer":
            service.pages["/gone"] = (200, b"2")
        await service.until_asked("/stays", service.asked.count("/stays") + 8)
    assert service.asked.count("/gone") <= asked + 3, "two until the next list, and one may have been on its way"
    assert watcher._turns.pages.keys() == {stays.key}


async def test_a_page_that_does_not_answer_keeps_nobody_waiting(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    """Others go on to be asked, it is not asked a second time meanwhile, and what it says at last is written down."""
    service.pages = {"/late": (200, b"2")} | {f"/{number}": (200, b"1") for number in range(8)}
    late = page(f"{service.url}/late", 200.0)
    await wait_for(store, "P1", late)
    service.held = {"/late": asyncio.Event()}

    async def is_read() -> bool:
        return late.id in await read(store)

    watcher = pages(store, clock, http)
    async with running(watcher):
        await service.until_asked("/late", 1)
        await wait_for(store, "P2", *(page(f"{service.url}/{number}", 200.0) for number in range(8)))
        await service.until_asked("/0", 4)
        assert not watcher.is_at_rest
        assert await read(store) == {f"{service.url}/{number}": {"status": 200, "body": 1} for number in range(8)}
        assert service.asked.count("/late") == 1
        service.held["/late"].set()
        await until(store, is_read)


async def test_a_page_over_which_the_watcher_stumbles_is_found_among_the_others(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    service.pages = {f"/{number}": (200, b"1") for number in range(4)}
    subjects = [page(f"{service.url}/{number}") for number in range(4)]
    odd = Subject("http", "odd", {"url": None, "poll_s": 60.0})  # No handler asks for such a one.
    await wait_for(store, "P1", *subjects, odd)
    watcher = pages(store, clock, http)
    async with running(watcher), asyncio.timeout(PATIENCE_S):
        while "odd" not in watcher.defect or len(await read(store)) < 4:
            await read(store)


async def test_what_went_wrong_before_is_over_when_a_page_has_answered(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    """Or the watcher would be deaf to the bell, and called unwell, for ever."""
    service.pages = {"/page": (200, b"1")}
    await wait_for(store, "P1", page(f"{service.url}/page"))
    watcher = pages(store, clock, http)
    watcher.failures, watcher.last_error, watcher.defect = 3, "a defect", "a defect"
    async with running(watcher):
        await at_rest(watcher)
    assert (watcher.failures, watcher.last_error, watcher.defect) == (0, "", "")


async def test_a_watcher_whose_pages_are_seldom_due_is_not_blind(
    store: Store, clock: Clock, service: Any, http: Http
) -> None:
    """Each list of all that is waited for is a good look, or the alert on the lag would ring for pages of an hour."""
    service.pages = {"/seldom": (200, b"1")}
    await wait_for(store, "P1", page(f"{service.url}/seldom", 1e9))
    watcher = pages(store, clock, http)
    async with running(watcher), asyncio.timeout(PATIENCE_S):
        await at_rest(watcher)
        before = watcher.last_ok
        while watcher.last_ok == before:
            await read(store)
    assert service.asked == ["/seldom"]


async def test_pages_of_one_host_share_connections(store: Store, clock: Clock, service: Any, http: Http) -> None:
    service.pages = {f"/{number}": (200, b"1") for number in range(3 * TOGETHER)}
    await wait_for(store, "P1", *(page(f"{service.url}/{number}", 200.0) for number in range(3 * TOGETHER)))
    watcher = pages(store, clock, http)
    async with running(watcher):
        await service.until_asked("/0", 3)
        assert len(service.connections) <= CONCURRENCY
        service.hang_up()  # As a server does with those that rest.
        await service.until_asked("/0", 5)
    assert watcher.silent == {}


async def test_a_write_has_a_connection_of_its_own_if_it_may_not_be_asked_twice(
    clock: Clock, service: Any, http: Http
) -> None:
    service.pages = {"/act": (200, b"1")}
    for is_kept in (False, False, True, True):
        await http.request("POST", f"{service.url}/act", site=Site("web", clock), write=True, is_kept=is_kept)
    assert len(service.connections) == 3


# --- the catalogue

ROW = "{},229511,x,4,4,244,229507,x,8,2,243,{},[CR]S\n"


async def test_fields(store: Store, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    path.write_text(ROW.format("SND", "P1") + "SND,1\n" + ROW.format("SND", "P1"))
    watcher = Fields(world_of(clock, catalogue=CsvCatalogue(path, "here", clock=clock)), store, 50.0)

    async def fields() -> dict[str, Any]:
        return {field["field"]: field for field in await store.fields()}

    async def have_come() -> bool:
        return len(await fields()) == 3

    async def has_changed() -> bool:
        return any(
            event["data"]["status"] == "JND" for event in await store.events() if event["kind"] == "FieldChanged"
        )

    async with running(watcher):
        await until(store, have_come)
        assert set(await fields()) == {"P1", "line-2", "P1@line-3"}
        path.write_text(ROW.format("JND", "P1"))
        await until(store, has_changed)
        assert watcher.failures == 0
    changed = [event["field"] for event in await store.events() if event["kind"] == "FieldChanged"]
    assert sorted(changed) == ["P1", "P1", "P1@line-3", "line-2"], "what did not change is no event"


async def test_a_field_as_pipelines_see_it(store: Store, clock: Clock, tmp_path: Path) -> None:
    from aglowd.watchers.fields import view_of

    path = tmp_path / "fields.csv"
    path.write_text("# a comment\n" + ROW.format("SND", "P1"))
    (row,) = await CsvCatalogue(path, "here", clock=clock).rows()
    view = view_of(row)
    assert (view.name, view.status) == ("P1", "SND")
    assert view.data == {
        "target": {"obsid": "L229511", "freq_resolution": 4, "time_resolution": 4.0, "subbands": 244},
        "calibrator": {"obsid": "L229507", "freq_resolution": 8, "time_resolution": 2.0, "subbands": 243},
        "baseline_filter": "[CR]S",
        "demix_sources": "",
        "field_name": "P1",
    }
    assert (view.priority, view.site) == ((0, 0), "sara"), "a fields file says of what is not done where it is"


async def test_a_catalogue_that_cannot_be_read_is_read_again(store: Store, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    real = CsvCatalogue(path, "here", clock=clock)
    failures: list[int] = []

    class Waiting:
        async def stamp(self) -> str:
            return ""

        async def rows(self) -> Any:
            failures.append(watcher.failures)
            if len(failures) == 3:
                path.write_text(ROW.format("SND", "P1"))
            return await real.rows()

    watcher = Fields(world_of(clock, catalogue=Waiting()), store, 20.0)

    async def has_come() -> bool:
        return bool(await store.fields())

    async with running(watcher):
        await until(store, has_come)
    assert failures[:3] == [0, 1, 2]
    assert (watcher.failures, watcher.last_error) == (0, "")
    path.unlink()
    with pytest.raises(Temporary):
        await real.rows()


async def test_a_selection_says_of_each_token_what_one_of_its_fields_says(store: Store, clock: Clock) -> None:
    documents: dict[str, Any] = {
        "t:1": {"_rev": "1-a", "lock": 0, "done": 0, "status": "x" * (MAX_VALUE_CHARS + 1)},
        "t:2": {"_rev": "2-a", "lock": 7, "done": 0, "status": "launched", "files": ["a", "b"]},
        "t:3": {"_rev": "3-a", "lock": 7, "done": 9},
        "t:4": None,
    }
    asked: list[tuple[str, str]] = []

    class Couch:
        async def list_ids(self, token_type: str, state: str) -> tuple[str, ...]:
            asked.append((token_type, state))
            return tuple(documents)

        async def get_docs(self, ids: Sequence[str]) -> dict[str, Any]:
            return {name: documents[name] for name in ids}

    watcher = Selections(world_of(clock, picas=Couch()), store, 60.0)
    subjects = [
        Subject("selection", "a", {"token_type": "t", "state": "error"}),
        Subject("selection", "b", {"token_type": "t", "state": "", "field": "files"}),
    ]
    found = await seen_by(watcher, *subjects)
    assert found["a"]["tokens"]["t:1"] == {"rev": "1-a", "held": False, "value": {"characters": MAX_VALUE_CHARS + 1}}
    held = {name: (token["held"], token["value"]) for name, token in found["b"]["tokens"].items()}
    assert held == {"t:1": (False, None), "t:2": (True, ["a", "b"]), "t:3": (False, None)}
    assert asked == [("t", "error"), ("t", "")]


async def test_the_last_words_of_a_few_tokens_stand_for_those_of_all(store: Store, clock: Clock) -> None:
    log = {"_attachments": {"01/02/2026_10.00.00_stderr.txt": {"revpos": 3}}}

    class Couch:
        async def list_ids(self, token_type: str) -> tuple[str, ...]:
            return tuple(f"t:{number}" for number in range(MAX_LOGS + 2))

        async def get_docs(self, ids: Sequence[str]) -> dict[str, Any]:
            return {name: {"status": "error", **log} for name in ids}

        async def get_attachment(self, doc: str, name: str) -> bytes:
            if doc == "t:1":
                raise Temporary("it is away")
            return b"words"

    watcher = Results(world_of(clock, picas=Couch()), store, 60.0)
    found = await seen_by(watcher, Subject("results", "t", {"token_type": "t"}))
    assert found["t"]["logs"] == {
        "t:0": "words", "t:1": "(01/02/2026_10.00.00_stderr.txt cannot be read: it is away)", "t:2": "words",
    }  # fmt: skip
