"""The checker's rules against ledgers made by hand: each convicts the guilty and acquits the innocent."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.sim import rules
from aglowd.sim.checker import judge, main
from aglowd.sim.history import History
from aglowd.sim.rules import Expectation, FieldExpectation
from aglowd.sim.storage import Storage, adler32

ROOT = "gsiftp://archive/sksp"
ROOTS = (ROOT, "gsiftp://elsewhere/sksp")
RESULT = "gsiftp://se/results/t1.tar"
HOUR = 3600.0


class Book:
    """A ledger in the making; every deed is one call, at a time given in hours."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def add(self, hour: float, system: str, op: str, by: str = "client", **arguments: Any) -> Book:
        t = hour * HOUR
        self.lines.append({"t": t, "real": t, "system": system, "op": op, "by": by, **arguments})
        return self

    def stage(self, hour: float, number: int, *surls: str, takes: float = 10) -> Book:
        self.add(hour, "staging", "request_made", surls=list(surls), result=number)
        ready = (hour + takes) * HOUR
        return self.add(hour, "staging", "request_planned", "world", request=number, online=dict.fromkeys(surls, ready),
                        failed=[], finished=ready, vanished=ready, pinned_s=7 * 24 * HOUR)  # fmt: skip

    def abort(self, hour: float, number: int) -> Book:
        return self.add(hour, "staging", "request_aborted", request=number)

    def token(self, hour: float, name: str, *surls: str, **fields: Any) -> Book:
        doc = {"id": name, "rev": "1-x", "type": "targ", "lock": 0, **fields}
        self.add(hour, "couchdb", "bulk_docs", docs=[doc], refused=[])
        return self.add(hour, "couchdb", "token_surls", "world", id=name, type="targ", surls=list(surls))

    def delete(self, hour: float, name: str) -> Book:
        return self.add(hour, "couchdb", "delete", id=name, rev="2-x", result="3-x")

    def end(self, hour: float, name: str, outcome: str = "done") -> Book:
        return self.add(hour, "pilot", "token_ended", "pilot", token=name, type="targ", outcome=outcome)

    def start(self, hour: float, job: str, key: str) -> Book:
        return self.add(hour, "glite", "job_started", "world", job=job, tags={"aglowd_key": key}, nodes=1)

    def result(self, hour: float, data: bytes, name: str = "t1") -> Book:
        return self.add(hour, "pilot", "result_written", "pilot", token=name, type="targ", url=RESULT,
                        adler32=adler32(data), size=len(data), pipeline_step="targ2", inputs=[1])  # fmt: skip

    def move(self, hour: float, op: str, src: str, dst: str) -> Book:
        return self.add(hour, "storage", op, urls=[src, dst], src=src, dst=dst, result=0)

    def history(self, until: float = 0.0) -> History:
        if until:
            self.add(until, "world", "stopped", "world")
        return History(self.lines)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


def subjects(findings: Any) -> list[str]:
    return [one.subject for one in findings]


def test_a_surl_is_staged_twice_only_while_it_is_wanted_or_held() -> None:
    assert subjects(rules.surls_staged_twice(Book().stage(0, 1, "/a", "/b").stage(5, 2, "/b").history())) == ["/b"]
    assert subjects(rules.surls_staged_twice(Book().stage(0, 1, "/a").stage(20, 2, "/a").history())) == ["/a"]
    assert subjects(rules.surls_staged_twice(Book().stage(0, 1, "/a", "/a").history())) == ["/a"]
    innocent = Book().stage(0, 1, "/a").abort(5, 1).stage(6, 2, "/a").abort(20, 2).stage(21, 3, "/a").stage(22, 4, "/b")
    assert not subjects(rules.surls_staged_twice(innocent.history()))
    after_the_pin = Book().stage(0, 1, "/a").stage(10 + 7 * 24 + 1, 2, "/a")
    assert not subjects(rules.surls_staged_twice(after_the_pin.history()))


def test_a_token_is_created_twice_when_it_comes_back_after_deletion() -> None:
    assert subjects(rules.tokens_created_twice(Book().token(0, "t1").delete(1, "t1").token(2, "t1").history())) == [
        "t1"
    ]
    reset = Book().token(0, "t1").add(1, "couchdb", "put", doc={"id": "t1", "type": "targ", "lock": 0, "rev": "2-x"})
    assert not subjects(rules.tokens_created_twice(reset.history()))


def test_a_final_name_is_written_once() -> None:
    twice = Book().move(0, "copy", RESULT, f"{ROOT}/a").move(1, "copy", RESULT, f"{ROOT}/a")
    assert subjects(rules.files_archived_twice(twice.history(), ROOTS)) == [f"{ROOT}/a"]
    part = f"{ROOT}/a.part"
    retried = Book().move(0, "copy", RESULT, part).move(1, "copy", RESULT, part).move(2, "rename", part, f"{ROOT}/a")
    assert not subjects(rules.files_archived_twice(retried.history(), ROOTS))
    given_up = f"{ROOT}/a.part-29879dda10a7"
    ended = Book().move(0, "copy", RESULT, given_up).move(1, "copy", RESULT, given_up)
    assert not subjects(rules.files_archived_twice(ended.history(), ROOTS)), "it never had its name"


def test_submitted_twice_and_live_twice() -> None:
    guilty = Book().start(0, "j1", "k").start(1, "j2", "k").history()
    assert subjects(rules.submitted_twice(guilty)) == ["k"]
    assert subjects(rules.jobs_live_twice(guilty)) == ["k"]
    ended = Book().start(0, "j1", "k").add(1, "glite", "job_ended", "world", job="j1", outcome="x").start(2, "j2", "k")
    assert subjects(rules.submitted_twice(ended.history())) == ["k"]
    assert not subjects(rules.jobs_live_twice(ended.history()))
    assert not subjects(rules.submitted_twice(Book().start(0, "j1", "k").start(1, "j2", "other").history()))


def test_a_skipped_subband() -> None:
    history = Book().token(0, "t1", "/a").end(1, "t1", "error").history()
    expect = Expectation(fields={"P1": FieldExpectation(("srm://h:8443/a", "/b", "/c"), left_out=("/c",))})
    assert subjects(rules.subbands_skipped(history, expect)) == ["/b"]


def test_inputs_that_are_not_there() -> None:
    book = Book().add(0, "pilot", "input_offline", "pilot", token="t1", surl="/a")
    book.add(0, "pilot", "parset_missing", "pilot", token="t2")
    assert [(one.rule, one.subject) for one in rules.inputs_not_there(book.history())] == [
        ("input not online", "/a"),
        ("parset missing", "t2"),
    ]
    assert not list(rules.inputs_not_there(Book().token(0, "t1").history()))


@pytest.mark.parametrize("detour", [f"{ROOT}/P1/x.part", "file:///tmp/x"])
def test_an_archived_file_is_followed_to_its_result(storage: Storage, detour: str) -> None:
    final = f"{ROOT}/P1/x.tar"
    book = Book().token(0, "t1").result(1, b"good").end(1, "t1").move(2, "copy", RESULT, detour)
    history = book.move(3, "rename" if detour.startswith(ROOT) else "copy", detour, final).history()
    storage.write(final, b"good")
    assert not list(rules.archived_corrupt(history, storage, ROOTS))
    assert not list(rules.lost_results(history, storage, ROOTS, "targ2"))
    storage.write(final, b"goof")
    assert subjects(rules.archived_corrupt(history, storage, ROOTS)) == [final]
    assert subjects(rules.lost_results(history, storage, ROOTS, "targ2")) == [RESULT]
    assert not list(rules.lost_results(history, storage, ROOTS, "targ1"))


def test_a_result_of_a_token_that_is_not_done_is_not_lost(storage: Storage) -> None:
    history = Book().token(0, "t1").result(1, b"good").end(2, "t1", "error").history()
    assert not list(rules.lost_results(history, storage, ROOTS, "targ2"))


def test_a_token_may_be_deleted_when_it_is_in_an_archive(storage: Storage) -> None:
    history = Book().token(0, "t1").token(0, "t2").delete(1, "t1").history()
    assert subjects(rules.deleted_unarchived(history, storage, ROOTS)) == ["t1"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, body in (("t1/document.json", b'{"_id": "t1"}'), ("t1/srm.txt", b"srm://x")):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    storage.write(f"{ROOT}/P1/tokens.tar.gz", packed.getvalue())
    assert not list(rules.deleted_unarchived(history, storage, ROOTS))
    storage.write(f"{ROOT}/P1/tokens.tar.gz", packed.getvalue()[:-20])
    assert subjects(rules.deleted_unarchived(history, storage, ROOTS)) == ["t1"]


def test_a_finished_staging_request_wants_an_answer() -> None:
    busy = Expectation(finished=False)
    assert subjects(rules.stagings_unanswered(Book().stage(0, 1, "/a").history(until=70), busy)) == ["1"]
    assert not subjects(rules.stagings_unanswered(Book().stage(0, 1, "/a").history(until=50), busy))
    assert subjects(rules.stagings_unanswered(Book().stage(0, 1, "/a").history(until=50), Expectation())) == ["1"]
    late = Book().stage(0, 1, "/a").token(59, "t1", "/a").history(until=60)
    assert subjects(rules.stagings_unanswered(late, busy)) == ["1"]
    for answered in (
        Book().stage(0, 1, "/a").token(20, "t1", "/a"),
        Book().stage(0, 1, "/a").abort(11, 1),
        Book().stage(0, 1, "/a").abort(5, 1),
        Book().stage(0, 1, "/a").stage(12, 2, "/a").abort(30, 2),
    ):
        assert not subjects(rules.stagings_unanswered(answered.history(until=90), Expectation()))


def test_a_finished_set_of_tokens_wants_an_answer() -> None:
    def done(book: Book) -> list[str]:
        return subjects(rules.token_sets_unanswered(book.history(until=90), Expectation()))

    def two() -> Book:
        return Book().token(0, "t1").token(0, "t2").result(5, b"x").end(5, "t1").end(9, "t2", "error")

    assert done(two()) == ["targ"]
    assert done(two().add(80, "storage", "stat", urls=[RESULT], result=0)) == ["targ"]
    assert done(two().token(2, "t3")) == []
    assert done(two().add(20, "storage", "stat", urls=[RESULT], result=0)) == []
    assert done(two().add(20, "storage", "ls", urls=["gsiftp://se/results"], result=0)) == []
    assert done(two().token(20, "next", type="targ2", INPUT_FILES=[RESULT]).delete(20, "next")) == []
    assert done(two().delete(20, "t1")) == []
    reset = two().add(20, "couchdb", "put", doc={"id": "t2", "type": "targ", "lock": 0, "rev": "3-x"})
    assert done(reset) == []
    assert done(reset.end(30, "t2")) == ["targ"]


def test_the_report_counts_and_the_command_prints_it(tmp_path: Path, storage: Storage) -> None:
    book = Book().stage(0, 1, "/a", "/b").stage(1, 2, "/b").abort(2, 1).abort(2, 2)
    for t in (1, 3, 4):
        book.add(t, "lta", "getprogress", arguments=[], result=1).add(t, "tools", "process", tool="gfal-ls")
    report = judge(book.history(), storage, Expectation(reported=("/b",)))
    assert (report.world.duplicates, report.world.duplicates_reported) == (0, 1)
    assert (report.world.staging_requests, report.world.surls_requested) == (2, 3)
    assert report.requests.storage == report.requests.processes_started == 3
    assert report.operations["lta.getprogress"].median_interval_s == 1.5 * HOUR
    assert report.is_clean
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"\n".join(map(msgspec.json.encode, book.lines)) + b'\n{"cut o')
    assert main([str(ledger)]) == 1
    expect = tmp_path / "expect.json"
    expect.write_text('{"reported": ["/b"]}')
    assert main([str(ledger), "--expect", str(expect)]) == 0
