"""What people order beside the pipelines: which lists are taken, and what is said of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import HandClock, opened
from tapes import JUELICH, SARA, Tape, ordering

from aglowd import orders
from aglowd.errors import AglowError
from aglowd.grid.surl import MAX_PROBLEMS, SurlListError
from aglowd.orders import ListOrder, name_of, read_list
from aglowd.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", HandClock()) as made:
        yield made


def order(*lines: str, path: str = "lists/x.txt", site: str = "") -> ListOrder:
    return ListOrder(path, "\n".join(lines), site)


# --- lists


def test_a_list_is_read_in_every_spelling() -> None:
    text = "\ufeff# of two beams\r\n\r\n" + "\r\n".join(
        (
            SARA.format(1) + " file:///L229511_SB001_uv.tar",
            f"  {JUELICH.format(7)}",
            SARA.format(0).replace("/pnfs/", "/srm/managerv2?SFN=/pnfs/").replace("grid.sara.nl:8443", "grid.sara.nl"),
            SARA.format(1).replace("/lc2_038/", "//lc2_038/"),
            "   # the end",
        )
    )
    assert read_list(text, "x") == {"sara": [SARA.format(1), SARA.format(0)], "juelich": [JUELICH.format(7)]}


def test_problems_name_file_and_line() -> None:
    with pytest.raises(SurlListError) as caught:
        read_list(f"{SARA.format(0)}\n\nnonsense\n{SARA.format(1)}\nsrm://example.org/a/L1_SB000_uv.tar\n", "x.txt")
    assert [text.partition(": ")[0] for text in caught.value.problems] == ["x.txt:3", "x.txt:5"]
    assert "expected one of *.grid.sara.nl" in caught.value.problems[1]
    with pytest.raises(SurlListError, match=r"^x\.txt:1: found no SURL"):
        read_list("# nothing\n", "x.txt")
    with pytest.raises(SurlListError) as many:
        read_list("nonsense\n" * (MAX_PROBLEMS + 2), "x.txt")
    assert many.value.problems[-1] == "x.txt: and 2 problems more"


def test_a_list_has_so_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MAX_FILES", 3)
    lines = [SARA.format(number) for number in (0, 1, 2, 2)]
    assert len(read_list("\n".join(lines), "x")["sara"]) == 3
    with pytest.raises(SurlListError, match=r"^x:5: found more files; expected at most 3 in one list"):
        read_list("\n".join([*lines, SARA.format(3)]), "x")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lists/srm229511.txt", "srm229511"),
        ("a list?.v2.txt", "a_list_.v2"),
        ("-", "-"),
        ("/", "list"),
        ("x" * 100, "x" * orders.MAX_NAME_CHARS),
    ],
)
def test_a_staging_is_called_as_its_file(path: str, name: str) -> None:
    assert name_of(path) == name


# --- staging


async def test_each_site_has_a_staging_of_its_own(store: Store) -> None:
    async with ordering(store, sara=Tape(), juelich=Tape()) as ordered:
        begun = await ordered.stage(order(SARA.format(0), JUELICH.format(0), SARA.format(1)), 7)
        assert [(one["field"], one["site"], one["files"]) for one in begun] == [
            ("stage/x-sara", "sara", 2),
            ("stage/x-juelich", "juelich", 1),
        ]
        (one,) = await ordered.stage(order(SARA.format(5), path="y"), 7)
        assert (one["name"], one["joined"]) == ("y", False)


async def test_one_site_of_a_list(store: Store) -> None:
    async with ordering(store, sara=Tape(), juelich=Tape()) as ordered:
        (one,) = await ordered.stage(order(SARA.format(0), JUELICH.format(0), site="FZJ"), 7)
        assert (one["field"], one["site"], one["files"]) == ("stage/x", "juelich", 1)
        with pytest.raises(AglowError, match=r"lists/x\.txt: no file lies at poznan; found files at sara$"):
            await ordered.stage(order(SARA.format(0), site="poznan"), 7)


async def test_a_site_that_is_not_configured_is_named(store: Store) -> None:
    async with ordering(store, sara=Tape()) as ordered:
        for asked in (ordered.stage(order(JUELICH.format(0)), 7), ordered.localities(order(JUELICH.format(0)))):
            with pytest.raises(AglowError, match=r"files lie at juelich; expected one of the configured sites: sara$"):
                await asked
    assert await store.stagings() == []


# --- where files are


@pytest.fixture
def by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "CHUNK_FILES", 2)


@pytest.mark.usefixtures("by_two")
async def test_where_files_are_is_asked_in_chunks(store: Store) -> None:
    lines = [*(SARA.format(number) for number in range(4)), JUELICH.format(0)]
    sara = Tape({lines[0]: "ONLINE", lines[1]: "LOST", lines[2]: "NEARLINE"})
    juelich = Tape({lines[4]: "ONLINE"})
    async with ordering(store, sara=sara, juelich=juelich) as ordered:
        answer = await ordered.localities(order(*lines))
    places = ("ONLINE", "LOST", "NEARLINE", "UNKNOWN", "ONLINE")
    assert list(answer["files"].items()) == list(zip(lines, places, strict=True))
    assert (answer["asked"], answer["unanswered"]) == (5, {})
    assert (sara.asked, juelich.asked) == ([2, 2], [1])


@pytest.mark.usefixtures("by_two")
async def test_what_is_known_is_told_when_a_site_fails(store: Store) -> None:
    sara = Tape({SARA.format(number): "ONLINE" for number in range(4)}, failing=SARA.format(2))
    juelich = Tape({JUELICH.format(0): "NEARLINE"})
    async with ordering(store, sara=sara, juelich=juelich) as ordered:
        answer = await ordered.localities(order(*(SARA.format(number) for number in range(6)), JUELICH.format(0)))
    assert answer["files"] == {SARA.format(0): "ONLINE", SARA.format(1): "ONLINE", JUELICH.format(0): "NEARLINE"}
    assert answer["asked"] == 7
    assert answer["unanswered"].keys() == {"sara"}
    assert "500" in answer["unanswered"]["sara"]
    assert sara.asked == [2, 2], "nothing more is asked of a site that fails"


@pytest.mark.usefixtures("by_two")
async def test_a_site_that_does_not_answer_holds_nobody_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "ASK_REAL_S", 0.5)
    tape = Tape({SARA.format(0): "ONLINE", SARA.format(1): "ONLINE"}, silent=SARA.format(2))
    async with ordering(store, sara=tape) as ordered:
        answer = await ordered.localities(order(*(SARA.format(number) for number in range(3))))
    assert answer["files"].keys() == {SARA.format(0), SARA.format(1)}
    assert answer["unanswered"] == {"sara": "no answer within 0.5 s"}
