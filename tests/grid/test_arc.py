"""ARC: recorded answers of A-REX, one row a state, two phases of a submission, and no end that its document does not tell."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.arc import Arc
from aglowd.grid.arc_text import ENDED, STATES, WAITING, code_of, document_of, entries, named, status_of, word_of
from aglowd.grid.batch import FINAL, JobStatus, Order, Terms
from aglowd.grid.descriptions import describe
from aglowd.grid.gate import Site
from aglowd.grid.http import Http, Reply
from aglowd.sim.xrsl import parse_xrsl

from .conftest import SAMPLES, Serve

ROOT = Path(__file__).parents[2]
TERMS = Terms((ROOT / "etc" / "jobs" / "arc.xrsl").read_text())
RECORDED = sorted(path.stem for path in (SAMPLES / "arc").glob("*.json"))
ORDER = Order("run/step/1/submit_jobs/0", 2, "/bin/sh", ("run.sh", "x=1"), {"run.sh": "exit 0", "secret.json": "hush"})


def sample(name: str) -> bytes:
    return (SAMPLES / "arc" / f"{name}.json").read_bytes()


def jobs_in(body: bytes) -> list[dict[str, Any]]:
    return entries(Reply(200, {}, body), "there", write=False)


def told(name: str) -> dict[str, Any]:
    (job,) = jobs_in(sample(name))
    return job


# --- what A-REX answers


@pytest.mark.parametrize("word", sorted(STATES.keys() - ENDED))
def test_a_state_that_needs_no_document(word: str) -> None:
    status = status_of("a", word, None)
    assert (status.state, status.words, status.exit_code, status.reason) == (STATES[word], word, None, "")
    assert status.is_final == (word == "WIPED")


@pytest.mark.parametrize(
    ("word", "name", "state", "words", "exit_code", "reason"),
    [
        ("FINISHED", "info_finished", "done_ok", "FINISHED", 0, ""),
        ("FAILED", "info_failed", "done_failed", "FAILED", 3, "LRMS error: (3) Job finished with wrong exit code - 3 != 0"),
        ("FAILED", "info_killed", "cancelled", "KILLED", 0, "Job is canceled by external request; "
         "Job was canceled while waiting in DTR queue"),
        ("KILLED", "info_killed", "cancelled", "KILLED", 0, "Job is canceled by external request; "
         "Job was canceled while waiting in DTR queue"),
        ("FAILED", "info_killed_waiting", "cancelled", "KILLED", None, "Job is canceled by external request"),
        ("FAILED", "info_never", "aborted", "FAILED", None, "User file: /run.sh - Timeout waiting; "
         "User file: /secret.txt - Timeout waiting"),
        ("FAILED", "info_half", "aborted", "FAILED", None, "User file: /run.sh - Timeout waiting"),
    ],
)  # fmt: skip
def test_how_a_job_ended(word: str, name: str, state: str, words: str, exit_code: int | None, reason: str) -> None:
    assert status_of("a", word, document_of(told(name))) == JobStatus("a", state, words, exit_code, reason)


@pytest.mark.parametrize("word", sorted(ENDED))
@pytest.mark.parametrize("name", ["info_running", "info_preparing", "info_accepted", "info_absent"])
def test_an_end_that_the_document_does_not_tell_yet_is_none(word: str, name: str) -> None:
    status = status_of("a", word, document_of(told(name)))
    assert (status.state, status.words, status.is_final) == ("running", word, False)
    assert status.reason == "it has ended, and A-REX does not tell yet how"


@pytest.mark.parametrize("name", ["info_finished", "info_failed"])
def test_an_end_without_exit_code_and_error_is_none(name: str) -> None:
    job = told(name)
    activity = job["info_document"]["ComputingActivity"]
    del activity["ExitCode"]
    activity.pop("Error", None)
    assert not status_of("a", "FAILED", document_of(job)).is_final


def test_another_exit_code_is_no_success_whatever_the_word() -> None:
    job = told("info_finished")
    job["info_document"]["ComputingActivity"]["ExitCode"] = "2"
    assert status_of("a", "FINISHED", document_of(job)) == JobStatus("a", "done_failed", "FINISHED", 2)


def test_which_jobs_never_ran() -> None:
    ran = {name: document.ran for name in RECORDED if name.startswith("info_") and name != "info_mixed"
           if (document := document_of(told(name))) is not None}  # fmt: skip
    assert [name for name, so in ran.items() if not so] == ["info_half", "info_never"]


def test_one_alone_is_an_object_and_none_is_nothing() -> None:
    assert jobs_in(sample("list_none")) == jobs_in(b"  \n") == []
    assert [word_of(job) for job in jobs_in(sample("list_one"))] == ["PREPARING"]
    assert {word_of(job) for job in jobs_in(sample("list_many"))} == {"PREPARING", "FAILED", "SUBMITTING", "RUNNING"}
    assert [code_of(job) for job in jobs_in(sample("info_mixed"))] == ["200", "404", "200"]
    assert [code_of(job) for job in jobs_in(sample("submit_half"))] == ["201", "500"]
    assert code_of({"status-code": 201}) == "201"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"job": 3}', b'{"job": ["a"]}', b'{"job": null}', b"\xff"])
def test_what_is_no_answer_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(Temporary, match="there: "):
        jobs_in(body)
    with pytest.raises(Unknown, match="there: "):
        entries(Reply(201, {}, body), "there", write=True)


def _values(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a tree."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(deeper for key, one in inside for deeper in _values(one, (*at, key)))]


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["200", "FAILED", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "State", "job", "x"]), inner),
    max_leaves=6,
)


@given(st.data())
def test_a_mutated_answer_gives_our_errors_only_and_no_wrong_end(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in RECORDED if sample(name).strip()]))
    tree = json.loads(sample(name))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_values(tree)))
        if not place:
            tree = data.draw(JUNK)
            continue
        inner: Any = tree
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = data.draw(JUNK)
    body = json.dumps(tree).encode()
    try:
        jobs = jobs_in(body[: data.draw(st.sampled_from([len(body), len(body) // 2]))])
    except OutsideError:
        return
    for job, one in named(jobs):
        document = document_of(one)
        for word in (word_of(one), "FINISHED", "FAILED", "RUNNING"):
            status = status_of(job, word, document)
            assert (
                status.state not in FINAL or word == "WIPED" or (word in ENDED and document and document.word in ENDED)
            )
            assert status.state != "done_ok" or (document and (document.word, document.exit_code) == ("FINISHED", 0))
        assert isinstance(code_of(one), str)


@given(st.binary(max_size=300))
def test_bytes_give_our_errors_only(body: bytes) -> None:
    try:
        found = jobs_in(body)
    except Temporary:
        return
    assert all(isinstance(job, dict) for job in found)


def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    section = (ROOT / "docs" / "jobs.md").read_text().partition("\n## ARC\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z]+)`[^|]*\| `(\w+)` \|", section, re.MULTILINE)
    assert dict(rows) == dict(STATES)
    assert re.findall(r"^\| `FAILED`[^|]*\| `(\w+)` \|", section, re.MULTILINE) == [
        "aborted",
        "cancelled",
        "done_failed",
    ]
    for word, state in rows:
        if word not in ENDED:
            assert status_of("a", word, None).state == state
    assert {word for word, state in STATES.items() if state == "submitted"} == WAITING


# --- descriptions


def test_a_description_for_each_pilot() -> None:
    order = msgspec.structs.replace(ORDER, key="a \"b\" 'c'/(d)", requirements='(memory = 2000) (x = ("a" ")"))')
    text = describe(order, msgspec.structs.replace(TERMS, queue="grid", cpus=4, wall_time_s=7300.0))
    assert "hush" not in text
    first, second = parse_xrsl(text)
    assert first == second
    assert first["jobname"] == [order.key]
    assert first["executable"] == ["/bin/sh"]
    assert first["arguments"] == ["run.sh", "x=1"]
    assert first["environment"] == [["AGLOWD_KEY", order.key]]
    assert first["inputfiles"] == [["run.sh", ""], ["secret.json", ""]]
    assert first["outputfiles"] == [["stdout.txt", ""], ["stderr.txt", ""]]
    assert (first["queue"], first["walltime"], first["count"], first["memory"]) == (
        ["grid"],
        ["121 minutes"],
        ["4"],
        ["2000"],
    )
    plain = parse_xrsl(describe(ORDER, msgspec.structs.replace(TERMS, wall_time_s=1.0)))[0]
    assert plain["walltime"] == ["1 minutes"]
    assert not plain.keys() & {"queue", "count", "memory"}


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.integers(1, 30))
def test_what_stands_in_a_description_is_what_was_meant(key: str, count: int) -> None:
    read = parse_xrsl(describe(msgspec.structs.replace(ORDER, key=key, count=count), TERMS))
    assert [one["jobname"] for one in read] == [[key]] * count


# --- the verbs


class Element:
    """A server that answers as it is told, and keeps what it was asked. A job's state is what stands in `words`."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.documents: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[], web.Response]] = {}
        self.listed = True

    def answer(self, ask: str, status: int, body: bytes = b"") -> None:
        self.answers[ask] = lambda: web.Response(status=status, body=body)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path.startswith("/arex/rest/1.0/jobs")
        rest = request.path.removeprefix("/arex/rest/1.0/jobs")
        ask = f"{request.method} {rest or request.query.get('action', 'list')}"
        self.asked.append(ask)
        body = await request.read()
        if ask in self.answers:
            return self.answers[ask]()
        if ask == "GET list":
            states = request.query["state"].split(",")
            shown = {job: word for job, word in self.words.items() if word in states} if self.listed else {}
            return _jobs([{"id": job, "state": word} for job, word in shown.items()], 200)
        if ask == "POST new":
            names = [f"job{len(self.words) + number}" for number in range(len(parse_xrsl(body.decode())))]
            self.words |= dict.fromkeys(names, "PREPARING")
            self.names |= {
                name: str(one["jobname"][0]) for name, one in zip(names, parse_xrsl(body.decode()), strict=True)
            }
            return _jobs([{"status-code": "201", "id": name, "state": "ACCEPTING"} for name in names])
        if request.method == "POST":
            ids = [one["id"] for one in json.loads(body)["job"]]
            return _jobs([self._about(ask.partition(" ")[2], job) for job in ids])
        if request.method == "PUT":
            job, name = rest.split("/session/")
            self.files.setdefault(job.strip("/"), {})[name] = body.decode()
            return web.Response()
        job, _, name = rest.lstrip("/").partition("/session")
        files = self.files.get(job, {})
        if name == "/":
            return web.json_response({"file": list(files)}) if files else web.Response()
        text = files.get(name.strip("/"))
        return web.Response(status=404) if text is None else web.Response(text=text)

    def _about(self, action: str, job: str) -> dict[str, Any]:
        if job not in self.words:
            return {"status-code": "404", "reason": "Job not found", "id": job, "state": "None", "info_document": ""}
        if action == "kill":
            return {"status-code": "202", "reason": "Queued for killing", "id": job}
        word = self.words[job]
        activity = {"Name": self.names.get(job, ""), "State": [f"arcrest:{word}"]} | self.documents.get(job, {})
        return {"status-code": "200", "id": job, "state": word, "info_document": {"ComputingActivity": activity}}


def _jobs(jobs: list[dict[str, Any]], status: int = 201) -> web.Response:
    if not jobs:
        return web.Response(status=status)
    return web.json_response({"job": jobs[0] if len(jobs) == 1 else jobs}, status=status)


@pytest.fixture
def element() -> Element:
    return Element()


@pytest.fixture
async def arc(element: Element, serve: Serve, http: Http, site: Site) -> Arc:
    return Arc(http, site, TERMS, f"{await serve(element.handle)}/arex/", proxy=None, ca_dir=None)


async def test_a_submission_in_two_phases(arc: Arc, element: Element) -> None:
    prepared = await arc.prepare(ORDER)
    assert prepared == "job0 job1"
    assert element.files == {}
    assert await arc.find(ORDER.key, prepared) == await arc.find(ORDER.key) == ()
    element.words["job0"] = "RUNNING"
    assert await arc.find(ORDER.key, prepared) == ()
    assert await arc.submit(ORDER, prepared) == ("job0", "job1")
    assert element.files == {"job1": dict(ORDER.sandbox)}
    element.words["job1"] = "QUEUING"
    assert await arc.find(ORDER.key, prepared) == await arc.find(ORDER.key) == ("job0", "job1")
    assert await arc.submit(ORDER, prepared) == ("job0", "job1")
    assert element.asked.count("POST new") == 1


async def test_pilots_without_files_wait_for_one_all_the_same(arc: Arc, element: Element) -> None:
    order = msgspec.structs.replace(ORDER, count=1, sandbox={})
    assert await arc.submit(order, None) == ("job0",)
    assert element.files == {"job0": {"aglowd.key": ORDER.key}}


async def test_jobs_that_were_given_up_before_they_had_their_files_are_made_anew(arc: Arc, element: Element) -> None:
    prepared = await arc.prepare(ORDER)
    element.words |= {"job0": "FAILED", "job1": "FAILED"}
    element.documents["job0"] = {"Error": ["User file: /run.sh - Timeout waiting"]}
    with pytest.raises(Unknown, match="job1"):
        await arc.submit(ORDER, prepared)
    with pytest.raises(Unknown, match="job1"):
        await arc.find(ORDER.key, prepared)
    element.documents["job1"] = {"Error": "User file: /secret.json - Timeout waiting"}
    assert await arc.find(ORDER.key, prepared) == ()
    assert await arc.submit(ORDER, prepared) == ("job2", "job3")
    with pytest.raises(Unknown, match="job2 has files of its pilot, and does not run yet"):
        await arc.find(ORDER.key, prepared)
    element.words |= {"job2": "RUNNING", "job3": "RUNNING"}
    assert await arc.find(ORDER.key, prepared) == ("job2", "job3")


async def test_files_that_were_not_all_sent(arc: Arc, element: Element) -> None:
    prepared = await arc.prepare(ORDER)
    element.answer("PUT /job1/session/secret.json", 500)
    with pytest.raises(Unknown, match=r"1 of 4 files of pilots were not sent: .*HTTP 500"):
        await arc.submit(ORDER, prepared)
    assert await arc.find(ORDER.key, prepared) == ()
    element.answer("PUT /job1/session/secret.json", 200, b"<html>Log in</html>")
    with pytest.raises(Unknown, match="found an answer of 19 bytes; expected an empty one"):
        await arc.submit(ORDER, prepared)
    element.answer("PUT /job1/session/secret.json", 403)
    with pytest.raises(Unknown, match=r"1 of 4 files of pilots were not sent: .*no account"):
        await arc.submit(ORDER, prepared)  # That one would be Temporary, but job0 has all its files, and runs.
    element.answers.clear()
    assert await arc.submit(ORDER, prepared) == ("job0", "job1")
    for job in ("job0", "job1"):
        for name in ORDER.sandbox:
            element.answer(f"PUT /{job}/session/{name}", 403)
    with pytest.raises(Temporary, match="no account for nobody"):
        await arc.submit(ORDER, prepared)


async def test_a_job_of_which_nothing_is_known(arc: Arc, element: Element) -> None:
    prepared = await arc.prepare(ORDER)
    del element.words["job1"]
    for ask in (arc.find(ORDER.key, prepared), arc.submit(ORDER, prepared)):
        with pytest.raises(Unknown, match="job1"):
            await ask
    element.answer("GET list", 503)
    for look in (arc.find(ORDER.key, prepared), arc.find(ORDER.key)):
        with pytest.raises(Unknown, match="nobody can tell"):
            await look


async def test_a_job_that_has_no_name_yet_may_be_ours(arc: Arc, element: Element) -> None:
    element.words["other"] = "RUNNING"
    assert await arc.find(ORDER.key) == ()
    element.words["other"] = "ACCEPTING"
    with pytest.raises(Unknown, match="the names of 1 jobs"):
        await arc.find(ORDER.key)


@pytest.mark.parametrize(
    ("name", "expected", "why"),
    [
        ("submit_bad", Permanent, "500: No job description parser was able"),
        ("submit_queue", Permanent, "500: Requested queue nosuch"),
        ("submit_half", Permanent, "500: Requested queue nosuch"),
        ("submit_many", Unknown, "found 3 job ids; expected 2"),
        ("unreadable", Unknown, "found 0 job ids"),
    ],
)
async def test_submissions_that_went_wrong(
    arc: Arc, element: Element, name: str, expected: type[OutsideError], why: str
) -> None:
    element.answer("POST new", 201, sample(name))
    with pytest.raises(OutsideError, match=why) as caught:
        await arc.submit(ORDER, None)
    assert type(caught.value) is expected
    assert element.files == {}


async def test_a_limit_of_the_element_may_pass(arc: Arc, element: Element) -> None:
    element.answer("POST new", 201, b'{"job": {"status-code": "500", "reason": "Jobs per DN limit is reached"}}')
    with pytest.raises(Temporary, match="limit is reached"):
        await arc.submit(ORDER, None)
    element.answer("POST new", 500)
    with pytest.raises(Unknown, match="HTTP 500"):
        await arc.submit(ORDER, None)


@pytest.mark.parametrize("requirements", ["(a = 1", ")(", "(a = 1)) (", '(a = ")', "x", "(a = (b (c)))"])
async def test_requirements_are_relations(arc: Arc, element: Element, requirements: str) -> None:
    with pytest.raises(Permanent, match=r"requirements .*: expected xRSL relations"):
        await arc.prepare(msgspec.structs.replace(ORDER, requirements=requirements))
    assert element.asked == []


async def test_statuses_in_a_bounded_number_of_calls(arc: Arc, element: Element) -> None:
    jobs = [f"a{number}" for number in range(1300)]
    element.words = dict.fromkeys(jobs, "RUNNING") | dict.fromkeys(jobs[:700], "FINISHED") | {"a1299": "WIPED"}
    element.documents = {job: {"ExitCode": "0"} for job in jobs[:699]}
    found = await arc.status([*jobs, "nosuch", "a5"])
    assert found.keys() == set(jobs)
    assert {found[job].state for job in jobs[:699]} == {"done_ok"}
    assert [found[job].state for job in ("a699", "a700", "a1299")] == ["running", "running", "lost"]
    assert element.asked == ["GET list", "POST status", "POST info", "POST info"]
    element.asked.clear()
    assert await arc.status([]) == {}
    assert element.asked == []
    assert (await arc.list_ours()).keys() == set(jobs)


async def test_an_empty_list_is_not_believed(arc: Arc, element: Element) -> None:
    element.words = {"a": "RUNNING", "b": "UNDEFINED"}
    element.listed = False
    found = await arc.status(["a", "b", "c"])
    assert found == {"a": JobStatus("a", "running", "RUNNING"), "b": JobStatus("b", "unknown", "UNDEFINED")}
    element.answer("POST status", 201, sample("unreadable"))
    with pytest.raises(Temporary, match="the answer is empty"):
        await arc.status(["a"])
    element.answer("POST status", 201, b'{"job": {"id": "a", "status-code": "500", "reason": "busy"}}')
    assert (await arc.status(["a", "b"]))["a"] == JobStatus("a", "unknown", reason="A-REX said nothing about it")


async def test_cancelling(arc: Arc, element: Element) -> None:
    element.words["a"] = "RUNNING"
    await arc.cancel("a")
    await arc.cancel("a")
    with pytest.raises(Permanent) as caught:
        await arc.cancel("b")
    assert caught.value.absent
    for body in (sample("unreadable"), b'{"job": {"id": "a", "status-code": "500"}}', b'{"job": {"id": "b"}}'):
        element.answer("POST kill", 201, body)
        with pytest.raises(Unknown):
            await arc.cancel("a")


async def test_the_output(arc: Arc, element: Element, tmp_path: Path) -> None:
    element.words["a"] = "RUNNING"
    with pytest.raises(Temporary, match="nothing yet"):
        await arc.output("a", tmp_path / "out")
    element.answer("GET /a/diagnose/errors", 200, b"log")
    with pytest.raises(Temporary, match="nothing yet"):
        await arc.output("a", tmp_path / "out")
    element.files["a"] = {"stdout.txt": "said\n" * 400_000, "secret.json": "hush"}
    place = await arc.output("a", tmp_path / "out")
    assert {path.name: path.stat().st_size for path in place.iterdir()} == {"stdout.txt": 2_000_000, "errors": 3}
    assert place.parent == tmp_path / "out"
    del element.files["a"]
    element.words["a"] = "FAILED"
    element.documents["a"] = {"Error": "User file: /x - Timeout waiting"}
    assert [path.name for path in (await arc.output("a", tmp_path / "out")).iterdir()] == ["errors"]
    with pytest.raises(Permanent, match="no such job"):
        await arc.output("b", tmp_path / "out")
    element.answer("GET /a/session/stdout.txt", 500)
    with pytest.raises(Temporary, match="HTTP 500"):
        await arc.output("a", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2


async def test_what_is_no_job_id_is_never_asked_for(arc: Arc, element: Element, tmp_path: Path) -> None:
    for wrong in ("", "../x", "a b", "https://x/y", "x" * 129, "a?action=clean"):
        for ask in (arc.status([wrong]), arc.cancel(wrong), arc.output(wrong, tmp_path)):
            with pytest.raises(Permanent, match="job id"):
                await ask
    assert element.asked == []


async def test_who_is_not_let_in_is_told_why(arc: Arc, element: Element) -> None:
    element.answer("GET list", 403)
    element.answer("POST new", 403)
    for ask in (arc.status(["a"]), arc.submit(ORDER, None), arc.list_ours()):
        with pytest.raises(Temporary, match="no account for nobody: no proxy is configured"):
            await ask


# --- the proxy


def openssl(*argv: str, cwd: Path) -> None:
    subprocess.run(("openssl", *argv), cwd=cwd, check=True, capture_output=True, timeout=30)


async def test_a_proxy_that_cannot_be_used_is_named(http: Http, site: Site, tmp_path: Path) -> None:
    proxy = tmp_path / "x509up"
    arc = Arc(http, site, TERMS, "https://127.0.0.1:1/arex", proxy=proxy, ca_dir=tmp_path)
    with pytest.raises(
        Temporary, match=f"the proxy {proxy} cannot be used: No such file or directory; run `voms-proxy-init"
    ):
        await arc.list_ours()
    proxy.write_text("no certificate")
    with pytest.raises(Temporary, match=f"the proxy {proxy} cannot be used: "):
        await arc.list_ours()
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=a", "-keyout", "key", "-out", "cert",
            cwd=tmp_path)  # fmt: skip
    text = (tmp_path / "cert").read_text() + (tmp_path / "key").read_text()
    proxy.write_text(text)
    with pytest.raises(Temporary, match="no connection"):
        await arc.list_ours()
    renewed = tmp_path / "new"
    renewed.write_text("half a certificate")
    os.replace(renewed, proxy)
    with pytest.raises(Temporary, match=f"the proxy {proxy} cannot be used: "):
        await arc.list_ours()


def certify(here: Path, name: str, days: int) -> Path:
    """A certificate for this host that signed itself, and its key, in one file."""
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            cwd=here)  # fmt: skip
    (here / "san").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-days", str(days), "-in", f"{name}.csr", "-signkey", f"{name}.key", "-extfile", "san",
            "-out", f"{name}.crt", cwd=here)  # fmt: skip
    both = here / f"{name}.pem"
    both.write_text((here / f"{name}.crt").read_text() + (here / f"{name}.key").read_text())
    return both


async def test_an_expired_proxy_is_named_before_anything_is_sent(http: Http, site: Site, tmp_path: Path) -> None:
    server, expired = certify(tmp_path, "server", 1), certify(tmp_path, "expired", -1)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "server.pem").write_text((tmp_path / "server.crt").read_text())
    openssl("rehash", str(trusted), cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    context.load_verify_locations(tmp_path / "expired.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    read: list[bytes] = []

    def serve_two(listening: socket.socket) -> None:
        # The servers of asyncio hang up before their alert is sent.
        for _ in range(2):
            connection, _address = listening.accept()
            with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                read.append(secured.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(asyncio.to_thread(serve_two, listening))
        url = f"https://localhost:{listening.getsockname()[1]}/arex"
        arc = Arc(http, site, TERMS, url, proxy=expired, ca_dir=trusted)
        with pytest.raises(Temporary, match=f"the proxy {expired} is refused: certificate expired"):
            await arc.submit(ORDER, None)
        with pytest.raises(Temporary, match=r"no connection: .*[Cc]ertificate"):
            await Arc(http, site, TERMS, url, proxy=expired, ca_dir=tmp_path).list_ours()
        await serving
    assert read == []


async def test_a_handshake_that_breaks_is_begun_anew(http: Http, site: Site) -> None:
    begun = 0

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        begun += 1
        await reader.read(1)
        writer.write(b"\x15\x03\x03\x00\x01\x00")  # An alert that is none: so A-REX breaks handshakes.
        writer.close()

    async with await asyncio.start_server(broken, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/arex"
        arc = Arc(http, site, TERMS, url, proxy=None, ca_dir=None)
        with pytest.raises(Temporary, match="no TLS connection"):
            await arc.submit(ORDER, None)
    assert begun == 5
