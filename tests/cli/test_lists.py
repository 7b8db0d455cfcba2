"""`aglowctl stage` and `aglowctl locality` as processes of their own, in front of a real store and a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from populated import healthy
from support import opened
from tapes import JUELICH, LIFETIME_S, SARA, Tape, ordering

from aglowd import orders
from aglowd.cli import lists
from aglowd.clock import Clock
from aglowd.control import MAX_LIST_BODY_BYTES, Control
from aglowd.model import Done, Failed, Outcome, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.store.runs import Decision
from aglowd.store.store import Store
from aglowd.wiring import load_pipelines

from .test_aglowctl import ARGV, Served, _read_all

LINES = [SARA.format(number) for number in range(4)]


class Site:
    """A daemon's socket and one site, and the decisions that its reactor would take."""

    def __init__(self, served: Served, tape: Tape, directory: Path, stage: Pipeline) -> None:
        self.served = served
        self.store: Store = served.store
        self.tape = tape
        self.directory = directory
        self._stage = stage

    def write(self, name: str, *lines: str) -> str:
        path = self.directory / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    async def run(self, *args: str) -> tuple[int | None, str, str]:
        return await self.served.run(*args)

    async def decide(self, outcome: Outcome) -> None:
        (work,) = await self.store.next_dirty()
        await self.store.finish(Decision(work, outcome, self._stage))

    async def look(self, run: str, **counts: int) -> None:
        """The staging's files were looked for."""
        look = Subject("locality", f"{run}/stage/1/0.0")
        await self.decide(Wait((look,), "some are online", 3600.0))
        await self.store.ingest("test", None, [(look, {"counts": counts})])


def staged(online: int, since: float) -> Done:
    return Done({"online": online, "missing": [], "replaced": {}, "requests": [12], "since": since})


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    tape = Tape(dict(zip(LINES, ("ONLINE", "NEARLINE", "LOST", "NEARLINE"), strict=True)))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", Clock()))
        ordered = await stack.enter_async_context(ordering(store, sara=tape, juelich=Tape()))
        server = Control(store, healthy, store.clock, "1", None, ordered)
        await stack.enter_async_context(server.serve(tmp_path / "s"))
        stage = load_pipelines("", orders.PIPELINE)[orders.PIPELINE]
        yield Site(Served(tmp_path / "s", store), tape, tmp_path, stage)


# --- locality


async def test_where_the_files_of_a_list_are(site: Site) -> None:
    path = site.write("x.txt", "# mine", *LINES)
    code, out, err = await site.run("locality", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[1:5] == [
        f"ONLINE    {LINES[0]}",
        f"NEARLINE  {LINES[1]}",
        f"LOST      {LINES[2]}",
        f"NEARLINE  {LINES[3]}",
    ]
    assert out.splitlines()[5:] == ["online: 1 of 4 (25.0 %); 1 LOST, 2 NEARLINE"]
    code, out, _ = await site.run("locality", path, "--json")
    assert (code, json.loads(out)["files"][LINES[2]]) == (0, "LOST")
    assert await site.store.stagings() == [], "nothing is staged"


async def test_what_could_not_be_asked_is_an_error(site: Site) -> None:
    site.tape.failing = "/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/229511/L229511_SB000_uv.tar"
    code, out, err = await site.run("locality", site.write("x.txt", *LINES, JUELICH.format(0)))
    assert code == 1
    assert f"UNKNOWN   {JUELICH.format(0)}" in out
    assert "online: 0 of 5 (0.0 %); 1 UNKNOWN" in out
    assert err.startswith("aglowctl: of 4 of 5 files nothing is known: sara: ")


async def test_a_list_of_ten_thousand_files_passes(site: Site) -> None:
    name = "/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/L{0}/L{0}_SB{1:03d}_uv.dppp.MS_36d4e4ac.tar"
    host = "srm://srm.grid.sara.nl:8443"
    lines = [f"{host}{name.format(number // 400, number % 400)} file:///L1.tar" for number in range(orders.MAX_FILES)]
    path = site.write("many.txt", *lines)
    assert os.stat(path).st_size > 1_000_000
    code, out, err = await site.run("locality", path, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["files"]) == orders.MAX_FILES
    assert site.tape.asked == [orders.CHUNK_FILES] * 10
    code, out, err = await site.run("stage", path)
    assert (code, err) == (0, "")
    assert f"stage/many: {orders.MAX_FILES} files at sara, run stage_many-1 has begun" in out
    code, _, err = await site.run("stage", site.write("more.txt", *lines, SARA.format(0)))
    assert code == 1
    assert f"more.txt:{orders.MAX_FILES + 1}: found more files; expected at most {orders.MAX_FILES}" in err


# --- staging


async def test_a_list_is_staged_and_its_way_is_shown(site: Site) -> None:
    path = site.write("x.txt", *LINES)
    code, out, err = await site.run("stage", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "stage/x: 4 files at sara, run stage_x-1 has begun"
    code, out, _ = await site.run("stage", path, "--json")
    (again,) = json.loads(out)["stagings"]
    assert (code, again["run"], again["joined"], again["uid"]) == (0, "stage_x-1", True, os.getuid())
    await site.look("stage_x-1", ONLINE=1, NEARLINE=3)
    code, out, _ = await site.run("stage", "--status", "x")
    assert (code, "  online   1 of 4 (25.0 %) at sara; 3 NEARLINE\n" in out) == (0, True)
    assert "  why      some are online\n" in out
    await site.decide(staged(4, since=1.0e9))
    _, out, _ = await site.run("stage", "--status", "stage/x")
    assert "  pinned   at least until 2001-09-16T01:46:40Z; nobody renews the pins\n" in out
    assert LIFETIME_S == 7 * 86_400
    _, out, _ = await site.run("stage", "--status")
    assert out.splitlines()[1].split()[:3] == ["stage/x", "sara", "done"]
    _, out, _ = await site.run("show", "stage/x")
    assert "stage/x: done, run stage_x-1" in out
    assert "catalogue" not in out


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (staged(4, since=1.0e9), 0, "pinned"),
        (Failed("one file is lost", final=True), 1, "why      stage: one file is lost"),
    ],
)
async def test_waiting_ends_with_the_staging(site: Site, outcome: Outcome, code: int, words: str) -> None:
    waiting = await site.served.begin("stage", site.write("x.txt", *LINES), "--wait")
    await until_begun(site.store)
    await site.look("stage_x-1", ONLINE=4 if code == 0 else 3)
    await site.decide(outcome)
    out, err = await waiting.communicate()
    assert (waiting.returncode, err) == (code, b"")
    assert words in out.decode()


async def until_begun(store: Store) -> None:
    bell = store.bells.events
    async with asyncio.timeout(20):
        while not await store.stagings():
            bell.clear()
            await bell.wait()


async def test_who_waits_no_more_is_told_that_it_goes_on(site: Site) -> None:
    waiting = await site.served.begin("stage", site.write("x.txt", *LINES), "--wait")
    await until_begun(site.store)
    waiting.send_signal(signal.SIGINT)
    out, err = await waiting.communicate()
    assert (waiting.returncode, out) == (1, b"")
    assert b"a staging that has begun goes on" in err


async def test_a_terminal_shows_a_bar(site: Site) -> None:
    ours, theirs = os.openpty()
    environ: dict[str, Any] = {**os.environ, "AGLOWD_SOCKET": str(site.served.path), "COLUMNS": "120", "TERM": "xterm"}
    waiting = await asyncio.create_subprocess_exec(
        *(*ARGV, "stage", site.write("x.txt", *LINES), "--wait"),
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
        env=environ,
    )
    os.close(theirs)
    await until_begun(site.store)
    await site.look("stage_x-1", ONLINE=4)
    await site.decide(staged(4, since=1.0e9))
    shown, _ = await asyncio.gather(asyncio.to_thread(_read_all, ours), waiting.communicate())
    os.close(ours)
    assert waiting.returncode == 0
    assert "stage/x" in shown
    assert "4/4" in shown


# --- what is refused


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((LINES[0], "", "nonsense"), "x.txt:3: found 'nonsense'; expected srm://"),
        (("# nothing",), "x.txt:1: found no SURL"),
        (("srm://lta-head.lofar.psnc.pl:8443/lofar/L1_SB000_uv.tar",), "files lie at poznan; expected one of"),
    ],
)
@pytest.mark.parametrize("command", ["stage", "locality"])
async def test_a_list_that_cannot_be_used_is_1(site: Site, command: str, lines: tuple[str, ...], words: str) -> None:
    code, out, err = await site.run(command, site.write("x.txt", *lines))
    assert (code, out) == (1, "")
    assert words in err
    assert await site.store.stagings() == []


async def test_a_list_that_cannot_be_read_is_1(site: Site) -> None:
    path = site.directory / "x.txt"
    code, _, err = await site.run("stage", str(path))
    assert (code, err) == (
        1,
        f"aglowctl: {path}: the list cannot be read: No such file or directory; expected a text file with one SURL a line\n",
    )
    path.write_bytes(b"\xff\xfe")
    assert "it is no text" in (await site.run("stage", str(path)))[2]
    path.write_bytes(b"#" * (lists.MAX_LIST_BYTES + 1))
    assert f"the list is longer than {lists.MAX_LIST_BYTES} bytes" in (await site.run("stage", str(path)))[2]
    path.write_bytes(b"#" * lists.MAX_LIST_BYTES)
    assert "found no SURL" in (await site.run("stage", str(path)))[2], "the daemon takes what aglowctl sends"
    assert lists.MAX_LIST_BYTES < MAX_LIST_BODY_BYTES


@pytest.mark.parametrize(
    "args", [("stage",), ("stage", "x", "--status", "--wait"), ("stage", "--status", "--site", "sara"), ("locality",)]
)
async def test_wrong_usage_is_2(site: Site, args: tuple[str, ...]) -> None:
    assert (await site.run(*args))[0] == 2


async def test_a_staging_that_nobody_asked_for_is_1(site: Site) -> None:
    assert await site.run("stage", "--status") == (0, "no stagings\n", "")
    code, out, err = await site.run("stage", "--status", "x")
    assert (code, out, err) == (1, "", "aglowctl: there is no staging 'x'; see aglowctl stage --status\n")


async def test_no_daemon_is_3(site: Site) -> None:
    path = site.write("x.txt", *LINES)
    for args in (("stage", path), ("stage", path, "--wait"), ("stage", "--status"), ("locality", path)):
        assert (await site.run("--socket", "/nowhere.sock", *args))[0] == 3


def test_no_list_is_whole_as_long_as_one_file_is_missing() -> None:
    assert lists.share(9_999, 10_000) == "9999 of 10000 (99.9 %)"
    assert lists.share(10_000, 10_000) == "10000 of 10000 (100.0 %)"
