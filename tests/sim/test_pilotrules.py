"""The rules about real pilots, whose deeds are told by what the world saw of them: guilty and innocent ledgers."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from aglowd.sim import pilotrules, rules
from aglowd.sim.checker import judge
from aglowd.sim.rules import Expectation
from aglowd.sim.storage import Storage, adler32, list_contents

from .test_rules import ROOT, ROOTS, Book, subjects

MADE, OTHER = b"what was made", b"what was made for somebody else"
PLACE = "gsiftp://se/results"
ARCHIVED = f"{ROOT}/P1/x.tar"


def packed(*files: bytes) -> bytes:
    """A tar archive as the launcher makes it."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for number, data in enumerate(files):
            info = tarfile.TarInfo(str(number))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return whole.getvalue()


class Shift(Book):
    """A ledger of real pilots."""

    def make(self, hour: float, token: str, data: bytes = MADE) -> Shift:
        self.add(hour, "pilot", "result_made", "pilot", token=token, adler32=adler32(data), size=len(data), inputs=[7],
                 pipeline_step="targ2", obsid="L1", surls=[], files=[])  # fmt: skip
        return self

    def upload(self, hour: float, url: str, data: bytes, result: int = 0) -> Shift:
        self.add(hour, "storage", "copy", "pilot", urls=["file:///tmp/x", url], src="file:///tmp/x", dst=url, size=len(data),
                 adler32=adler32(data), holds=list_contents(data), result=result, job="j1")  # fmt: skip
        return self

    def write(self, hour: float, token: str, status: str, by: str = "pilot", **fields: object) -> Shift:
        doc = {"id": token, "rev": "2-x", "type": "targ", "lock": 7, "status": status, **fields}
        self.add(hour, "couchdb", "put", by, doc=doc)
        return self

    def accept(self, hour: float, token: str, url: str) -> Shift:
        return self.write(hour, token, "done", Results_location=url)

    def mark(self, hour: float, key: str, job: str, rev: str = "1-x") -> Shift:
        self.add(
            hour, "couchdb", "put", "pilot", doc={"id": f"aglowd:pilot:{job}", "rev": rev, "pilot": key, "job": job}
        )
        return self

    def work(self, hour: float, token: str, url: str, data: bytes = MADE) -> Shift:
        """All that a pilot does for a token that ends well."""
        return self.make(hour, token, data).upload(hour + 1, url, packed(data, b"log")).accept(hour + 2, token, url)


def shift(*tokens: str) -> Shift:
    book = Shift()
    for name in tokens or ("t1",):
        book.token(0, name)
    return book


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "storage")


def judged(book: Book, storage: Storage) -> list[tuple[str, str]]:
    return [(one.rule, one.subject) for one in pilotrules.results_not_accepted(book.history(), storage)]


def test_what_a_real_pilot_made_is_known_by_its_upload_and_the_token() -> None:
    history = shift().work(1, "t1", f"{PLACE}/a.tar").history()
    result = history.results[f"{PLACE}/a.tar"]
    data = packed(MADE, b"log")
    assert (result["adler32"], result["size"], result["token"]) == (adler32(data), len(data), "t1")
    assert (result["inputs"], result["pipeline_step"], result["type"]) == ([7], "targ2", "targ")
    assert history.done_tokens == {"t1"}
    failed = shift().make(1, "t1").write(2, "t1", "error", output=1).history()
    assert [outcome for _, outcome in failed.tokens["t1"].ended] == ["error"]
    assert not failed.done_tokens
    assert not failed.results
    stopped = shift().make(1, "t1").upload(2, f"{PLACE}/a.tar", MADE, result=28).accept(3, "t1", f"{PLACE}/a.tar")
    assert not stopped.history().results, "it never came there"


def test_of_a_done_token_one_result_is_accepted_and_it_was_made_for_it(storage: Storage) -> None:
    innocent = (
        shift().make(1, "t1").upload(2, f"{PLACE}/dead.tar", packed(MADE)).write(3, "t1", "reset", "client", lock=0)
    )
    assert judged(innocent.work(4, "t1", f"{PLACE}/a.tar").accept(7, "t1", f"{PLACE}/a.tar"), storage) == []
    twice = shift().work(1, "t1", f"{PLACE}/a.tar").work(4, "t1", f"{PLACE}/b.tar")
    assert judged(twice, storage) == [("not one result accepted", "t1")]
    again = shift().work(1, "t1", f"{PLACE}/a.tar").write(5, "t1", "reset", "client", lock=0)
    assert judged(again.work(6, "t1", f"{PLACE}/b.tar"), storage) == [], "somebody wanted it again"
    assert judged(shift().make(1, "t1").write(2, "t1", "done"), storage) == [("not one result accepted", "t1")]
    assert judged(shift().make(1, "t1").accept(2, "t1", f"{PLACE}/a.tar"), storage) == [("accepted not made", "t1")]
    of_another = shift("t1", "t2").make(1, "t2", OTHER).upload(2, f"{PLACE}/a.tar", packed(OTHER))
    assert judged(of_another.accept(3, "t1", f"{PLACE}/a.tar"), storage) == [("accepted not made", "t1")]
    single = shift().make(1, "t1").upload(2, f"{PLACE}/a.ms", MADE).accept(3, "t1", f"{PLACE}/a.ms")
    assert judged(single, storage) == [], "one file needs no archive around it"


def test_what_was_accepted_stays_what_it_was(storage: Storage) -> None:
    book = shift().work(1, "t1", f"{PLACE}/a.tar")
    storage.write(f"{PLACE}/a.tar", packed(MADE, b"log"))
    assert judged(book, storage) == []
    storage.write(f"{PLACE}/a.tar", packed(MADE))
    assert judged(book, storage) == [("accepted not made", "t1")]


def test_simulated_pilots_are_judged_alike(storage: Storage) -> None:
    url = "gsiftp://se/results/t1.tar"
    assert judged(shift().result(1, b"good").accept(2, "t1", url).end(2, "t1"), storage) == []
    assert judged(shift().result(1, b"good", "t2").accept(2, "t1", url), storage) == [("accepted not made", "t1")]


@pytest.mark.parametrize("detour", [f"{ARCHIVED}.part-0123456789ab", "file:///tmp/x"])
def test_what_no_token_names_is_not_archived(storage: Storage, detour: str) -> None:
    for accepted, guilty in (("a", []), ("b", [ARCHIVED])):
        book = shift().make(1, "t1").upload(2, f"{PLACE}/a.tar", packed(MADE)).work(3, "t1", f"{PLACE}/b.tar")
        book = book if accepted == "b" else shift().work(1, "t1", f"{PLACE}/a.tar")
        book.move(8, "copy", f"{PLACE}/a.tar", detour).move(9, "rename", detour, ARCHIVED)
        storage.write(ARCHIVED, packed(MADE))
        assert subjects(pilotrules.archived_unaccepted(book.history(), storage, ROOTS)) == guilty


def test_the_report_tells_all_of_it(storage: Storage) -> None:
    book = shift("t1", "t2").make(1, "t1").upload(2, f"{PLACE}/a.tar", packed(MADE)).write(3, "t2", "done")
    book.move(4, "copy", f"{PLACE}/a.tar", ARCHIVED)
    storage.write(ARCHIVED, packed(MADE))
    report = judge(book.history(), storage, Expectation(archive_roots=ROOTS))
    assert {"not one result accepted", "archived unaccepted"} <= {one.rule for one in report.violations}


def test_a_pilots_upload_is_no_transfer_of_the_client(storage: Storage) -> None:
    book = shift().upload(1, ARCHIVED, MADE).upload(2, ARCHIVED, MADE)
    assert not list(rules.files_archived_twice(book.history(), ROOTS))


def test_marks_tell_how_often_a_key_was_submitted(storage: Storage) -> None:
    array = Shift().mark(1, "k", "17_0").mark(1, "k", "17_1").mark(2, "k", "17_1", "2-x").mark(3, "other", "18")
    assert not list(pilotrules.marks_made_twice(array.history()))
    report = judge(array.history(), storage, Expectation())
    assert (report.world.jobs_submitted, report.world.pilots_submitted) == (2, 3)
    twice = Shift().mark(1, "k", "17_0").mark(1, "k", "18_0").history()
    assert subjects(pilotrules.marks_made_twice(twice)) == ["k"]
    assert judge(twice, storage, Expectation()).world.duplicates == 1
    here = Shift().mark(1, "k", "0123456789abcdef01234567-0").mark(1, "k", "0123456789abcdef01234567-12")
    assert not list(pilotrules.marks_made_twice(here.history()))
