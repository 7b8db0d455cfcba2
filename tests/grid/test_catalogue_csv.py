"""The fields file: the real fields can be read, bad rows are named, and a status replaces only what we expect."""

# ruff: noqa: ASYNC230 - a test may block: nothing else runs in its loop.

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid import catalogue_csv
from aglowd.grid.catalogue_csv import CsvCatalogue, Row

from .conftest import DATA

LINE = "SND,229511,2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,P22Hetdex04,"
OTHER = LINE.replace("P22Hetdex04", "P2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fields.csv"


@pytest.fixture
def catalogue(path: Path) -> CsvCatalogue:
    return CsvCatalogue(path, "daemon#1")


async def rows_of(path: Path, *lines: str) -> tuple[Row, ...]:
    path.write_text("".join(f"{line}\n" for line in lines))
    return await CsvCatalogue(path, "d").rows()


async def test_the_real_fields_can_be_imported() -> None:
    rows = await CsvCatalogue(DATA / "fields.csv", "d").rows()
    assert len(rows) == len({row.name for row in rows}) == 15
    assert not [row.problem for row in rows if row.problem]
    assert len({row.calibrator_obsid for row in rows}) == 8
    assert [row.status for row in rows] == ["JND"] * 11 + ["SND"] * 4
    row = rows[11]
    assert (row.line, row.name, row.target_obsid, row.calibrator_obsid) == (12, "P22Hetdex04", "L229511", "L229507")
    assert (row.target_freq_resolution, row.target_time_resolution, row.target_subbands) == (8, 2.01326592, 242)
    assert (row.calibrator_freq_resolution, row.calibrator_time_resolution, row.calibrator_subbands) == (
        8,
        2.01326592,
        244,
    )
    assert row.columns == tuple(LINE.split(","))
    lists = {path.stem.replace("srm", "L") for path in DATA.glob("srm/*.txt")}
    assert {row.target_obsid for row in rows} | {row.calibrator_obsid for row in rows} == lists


async def test_blank_lines_comments_and_line_ends(path: Path) -> None:
    rows = await rows_of(path, "", "  \r", "# SND,comment", f"{LINE}\r", "\ufeff" + OTHER + '"a,b"')
    assert [(row.line, row.name, row.problem) for row in rows] == [(4, "P22Hetdex04", None), (5, "P2", None)]
    assert rows[1].baseline_filter == "a,b"


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("SND,229511", "line-2", ["found 2 columns", "at least 13"]),
        ("junk", "line-2", ["1 columns", "'junk'"]),
        (OTHER.replace("SND", "XYZ"), "P2", ["'XYZ'", "AAA"]),
        (OTHER.replace("229511", "L229511"), "P2", ["target OBSID 'L229511'", "column 1"]),
        (OTHER.replace("229507", ""), "P2", ["calibrator OBSID ''", "column 6"]),
        (OTHER.replace("P2", ""), "line-2", ["no field name"]),
        (OTHER.replace(",8,", ",eight,", 1), "P2", ["'eight'", "column 3"]),
        (OTHER.replace("242", "nan"), "P2", ["'nan'", "column 5"]),
        (LINE, "P22Hetdex04@line-2", ["P22Hetdex04 a second time", "line 1"]),
    ],
)
async def test_bad_rows_are_named_with_file_and_line_and_the_others_are_fine(
    path: Path, line: str, name: str, words: list[str]
) -> None:
    good, bad = await rows_of(path, LINE, line)
    assert good.problem is None
    assert bad.name == name
    assert bad.problem
    assert bad.problem.startswith(f"{path}:2: found ")
    assert "expected" in bad.problem
    assert all(word in bad.problem for word in words)


async def test_selectors_can_be_added(path: Path) -> None:
    path.write_text(LINE.replace("SND", "PND"))
    (row,) = await CsvCatalogue(path, "d", selectors=["PND"]).rows()
    assert row.problem is None


async def test_no_file_is_temporary_and_named(catalogue: CsvCatalogue, path: Path) -> None:
    for work in (catalogue.rows(), catalogue.read_status("x"), catalogue.write_status("x", "SND", "AAA", "k")):
        with pytest.raises(Temporary, match=str(path)):
            await work


async def test_writing_changes_one_status_and_no_other_byte(catalogue: CsvCatalogue, path: Path) -> None:
    before = b"\xef\xbb\xbf" + LINE.encode() + b"\xff\r\n\r\n# c\n \tSND" + OTHER[3:].encode() + b"\nlast,no,end"
    path.write_bytes(before)
    path.chmod(0o640)
    await catalogue.write_status("P2", "SND", "AAA", "k1")
    await catalogue.write_status("P22Hetdex04", "SND", "RRR", "k2")
    assert path.read_bytes() == before.replace(b"\xbfSND", b"\xbfRRR").replace(b" \tSND", b"AAA")
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(path.parent)) == ["fields.csv", "fields.csv.aglowd.json", "fields.csv.lock"]


async def test_the_key_of_our_write_is_told_while_the_file_shows_it(catalogue: CsvCatalogue, path: Path) -> None:
    path.write_text(LINE)
    assert await catalogue.read_status("P22Hetdex04") == ("SND", None)
    await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k1")
    assert await catalogue.read_status("P22Hetdex04") == ("AAA", "k1")
    await catalogue.write_status("P22Hetdex04", "AAA", "CCC", "k2")
    assert await catalogue.read_status("P22Hetdex04") == ("CCC", "k2")
    await catalogue.write_status("P22Hetdex04", "AAA", "CCC", "k2")  # The same once more.
    path.write_text(path.read_text().replace("CCC", "TTT"))
    assert await catalogue.read_status("P22Hetdex04") == ("TTT", None)


async def test_another_status_than_expected_is_permanent_and_named(catalogue: CsvCatalogue, path: Path) -> None:
    path.write_text(LINE)
    with pytest.raises(Permanent, match=r"fields.csv:1: found P22Hetdex04 in status 'SND'; expected 'AAA'"):
        await catalogue.write_status("P22Hetdex04", "AAA", "CCC", "k")
    with pytest.raises(Permanent, match="no field P1") as caught:
        await catalogue.write_status("P1", "SND", "AAA", "k")
    assert caught.value.absent
    for status in ("A,B", "A\nB", "XYZ", ""):
        with pytest.raises(Permanent, match="status"):
            await catalogue.write_status("P22Hetdex04", "SND", status, "k")
    path.write_text("junk")
    with pytest.raises(Permanent, match="no column"):
        await catalogue.write_status("line-1", "junk", "RRR", "k")
    assert path.read_text() == "junk"


@pytest.mark.parametrize("step", ["sidecar", "catalogue", "after"])
async def test_a_crash_at_any_step_leaves_a_whole_file_and_the_truth(
    catalogue: CsvCatalogue, path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(LINE)
    await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k1")

    class Crash(BaseException):
        """The process is gone."""

    real = os.replace

    def replace(source: str, target: Path) -> None:
        is_sidecar = str(target).endswith(".json")
        if (step == "sidecar" and is_sidecar) or (step == "catalogue" and not is_sidecar):
            raise Crash
        real(source, target)
        if step == "after" and not is_sidecar:
            raise Crash

    monkeypatch.setattr(catalogue_csv.os, "replace", replace)
    with pytest.raises(Crash):
        catalogue._write_status("P22Hetdex04", "AAA", "CCC", "k2", "")
    monkeypatch.undo()
    again = CsvCatalogue(path, "daemon#1")
    happened = step == "after"
    assert await again.read_status("P22Hetdex04") == (("CCC", "k2") if happened else ("AAA", "k1"))
    await again.write_status("P22Hetdex04", "AAA", "CCC", "k2")
    assert await again.read_status("P22Hetdex04") == ("CCC", "k2")


async def test_a_change_by_somebody_else_in_between_is_not_lost(
    catalogue: CsvCatalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(f"{LINE}\n{OTHER}\n")
    real = catalogue_csv.read_marks

    def meddle(where: Path) -> dict[str, object]:
        path.write_text(f"{LINE}\n{OTHER.replace('SND', 'ZZZ')}\n")
        return real(where)  # type: ignore[return-value] # marks

    monkeypatch.setattr(catalogue_csv, "read_marks", meddle)
    with pytest.raises(Temporary, match="somebody else"):
        await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k")
    assert "ZZZ" in path.read_text()
    assert "AAA" not in path.read_text()


async def test_an_unsynced_directory_after_the_replacement_is_in_doubt(
    catalogue: CsvCatalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(LINE)
    (path.parent / "fields.csv.aglowd.json").write_text("{}")
    real, calls = os.fsync, []

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 4:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(catalogue_csv.os, "fsync", fsync)
    with pytest.raises(Unknown):
        await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k")
    monkeypatch.undo()
    assert await catalogue.read_status("P22Hetdex04") == ("AAA", "k")


async def test_a_link_stays_a_link(tmp_path: Path, path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f.csv").write_text(LINE)
    path.symlink_to("real/f.csv")
    await CsvCatalogue(path, "d").write_status("P22Hetdex04", "SND", "AAA", "k")
    assert path.is_symlink()
    assert path.read_text().startswith("AAA,")
    assert sorted(os.listdir(tmp_path / "real")) == ["f.csv", "f.csv.aglowd.json", "f.csv.lock"]


async def test_a_lock_that_is_held_is_waited_for_and_not_for_ever(
    catalogue: CsvCatalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(LINE)
    monkeypatch.setattr(catalogue_csv, "LOCK_TIMEOUT_S", 0.1)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Temporary, match="is held"):
            await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k")
    await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k")


def claim(path: Path, name: str) -> bool:
    """Another daemon's claim, in a process of its own."""
    try:
        asyncio.run(CsvCatalogue(path, name).write_status("P22Hetdex04", "SND", "AAA", name))
    except Permanent:
        return False
    return True


def test_only_one_of_many_daemons_claims_a_field(path: Path) -> None:
    path.write_text(LINE)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        claims = pool.starmap(claim, [(path, f"daemon#{number}") for number in range(12)])
    assert sum(claims) == 1


async def test_a_damaged_sidecar_is_named(catalogue: CsvCatalogue, path: Path) -> None:
    path.write_text(LINE)
    (path.parent / "fields.csv.aglowd.json").write_text("{half")
    with pytest.raises(Permanent, match=r"fields.csv.aglowd.json"):
        await catalogue.read_status("P22Hetdex04")


async def test_a_directory_that_cannot_be_written_is_temporary(
    catalogue: CsvCatalogue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path.write_text(LINE)
    monkeypatch.setattr(catalogue_csv.tempfile, "mkstemp", full)
    with pytest.raises(Temporary, match="No space"):
        await catalogue.write_status("P22Hetdex04", "SND", "AAA", "k")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(at=st.integers(0, len(LINE)), put=st.binary(max_size=5), cut=st.integers(0, 20))
def test_any_bytes_are_rows_or_one_of_the_three(path: Path, at: int, put: bytes, cut: int) -> None:
    raw = LINE.encode()
    path.write_bytes(raw + b"\n" + raw[:at] + put + raw[at + cut :])
    catalogue = CsvCatalogue(path, "d")
    with suppress(Temporary, Permanent, Unknown):
        catalogue._read(path)
    with suppress(Temporary, Permanent, Unknown):
        catalogue._write_status("P22Hetdex04", "SND", "AAA", "k", "")
    for marker in path.parent.glob("*.json"):
        marker.unlink()


async def test_a_status_is_read_behind_the_lock(
    path: Path, catalogue: CsvCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_csv, "LOCK_TIMEOUT_S", 0.05)
    path.write_text(f"{LINE}\n")
    assert await catalogue.read_status("P22Hetdex04") == ("SND", None)
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Temporary, match="held"):
            await catalogue.read_status("P22Hetdex04")
