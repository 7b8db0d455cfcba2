"""Storage: nothing is overwritten, nothing half-made gets its name, and absence is a clear word or no word."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from zlib import adler32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import files
from aglowd.grid.files import Entry, local_path
from aglowd.grid.gate import Site
from aglowd.grid.gfal import explain
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.storage import COPY_PREFIX, UPLOAD_PREFIX, Storage, forget_copies
from aglowd.threads import MOST

from .conftest import Install

FAR = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/x"


@pytest.fixture
def storage(processes: Processes, site: Site) -> Storage:
    return Storage(processes, site)


@pytest.fixture
def here(tmp_path: Path) -> str:
    (tmp_path / "here").mkdir()
    return (tmp_path / "here").as_uri()


def path_of(url: str) -> Path:
    path = local_path(url)
    assert path
    return Path(path)


# --- file://


async def test_a_file_is_written_whole_and_never_over_another(
    storage: Storage, here: str, processes: Processes
) -> None:
    url = f"{here}/P215+50"
    await storage.upload(b"hello", url)
    (path_of(here) / "source").write_bytes(b"other")
    for again in (
        storage.upload(b"other", url),
        storage.copy(f"{here}/source", url),
        storage.rename(f"{here}/source", url),
    ):
        with pytest.raises(Permanent, match="File exists"):
            await again
    await storage.upload(path_of(here) / "source", f"{here}/second")
    assert path_of(url).read_bytes() == b"hello"
    assert await storage.checksum(url) == adler32(b"hello")
    assert sorted(os.listdir(path_of(here))) == ["P215+50", "second", "source"]
    assert processes.started == 0


async def test_listing_and_looking(storage: Storage, here: str) -> None:
    await storage.make_directory(f"{here}/a/b")
    await storage.make_directory(f"{here}/a/b")
    await storage.upload(b"hello", f"{here}/x 1%25".replace(" ", "%20"))
    (path_of(here) / ".hidden").write_text("")
    (path_of(here) / "dangling").symlink_to("nowhere")
    entries = await storage.list(here)
    assert [(entry.url, entry.size_bytes if not entry.is_dir else None) for entry in entries] == [
        (f"{here}/a", None),
        (f"{here}/x%201%25", 5),
    ]
    assert await storage.list(entries[1].url) == (entries[1],)
    assert await storage.stat(entries[1].url) == entries[1]
    assert (await storage.stat(f"{here}/a")) == entries[0]
    assert await storage.stat(f"{here}/nothing") is None
    assert await storage.stat(f"{here}/x%201%25/below") is None


async def test_moving_and_removing(storage: Storage, here: str) -> None:
    await storage.upload(b"hello", f"{here}/a")
    await storage.make_directory(f"{here}/d")
    await storage.rename(f"{here}/a", f"{here}/d/b")
    await storage.rename(f"{here}/d", f"{here}/e")
    await storage.copy(f"{here}/e/b", f"{here}/c")
    (path_of(here) / "link").symlink_to("c")
    await storage.remove(f"{here}/link")
    assert path_of(f"{here}/c").read_bytes() == b"hello"
    await storage.remove(f"{here}/c")
    assert sorted(os.listdir(path_of(here))) == ["e"]


async def test_what_is_not_there_is_absent(storage: Storage, here: str) -> None:
    gone = f"{here}/gone"
    for verb in (
        storage.list(gone), storage.checksum(gone), storage.remove(gone), storage.copy(gone, f"{here}/x"),
        storage.rename(gone, f"{here}/x"), storage.upload(b"x", f"{gone}/x"), storage.copy(gone, f"{gone}/x"),
    ):  # fmt: skip
        with pytest.raises(Permanent) as caught:
            await verb
        assert caught.value.absent
    assert os.listdir(path_of(here)) == []


async def test_a_look_does_not_wait_for_copies(storage: Storage, here: str) -> None:
    """As many copies as a place has threads read from a pipe into which nobody writes yet."""
    pipe = path_of(here) / "pipe"
    os.mkfifo(pipe)
    copies = [asyncio.create_task(storage.copy(f"{here}/pipe", f"{here}/{number}")) for number in range(MOST)]
    await asyncio.sleep(0)  # Each of them takes its place.
    async with asyncio.timeout(10):
        assert await storage.stat(f"{here}/nothing") is None
        await storage.upload(b"hello", f"{here}/a")
    fd = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    assert [copy.done() for copy in copies] == [False] * MOST
    os.close(fd)
    await asyncio.gather(*copies)


async def test_refusals_of_the_file_system_are_permanent(storage: Storage, here: str) -> None:
    await storage.upload(b"x", f"{here}/file")
    await storage.make_directory(f"{here}/dir")
    (path_of(here) / "link").symlink_to("dir/new")
    for verb in (
        storage.remove(f"{here}/dir"), storage.checksum(f"{here}/dir"), storage.make_directory(f"{here}/file"),
        storage.make_directory(f"{here}/file/x"), storage.rename(f"{here}/dir", f"{here}/file"),
        storage.upload(b"x", f"{here}/link"), storage.rename(f"{here}/file", f"{here}/link"),
        storage.rename(f"{here}/file", f"{here}/file"), storage.rename(f"{here}/file", f"{here}/dir/../file"),
        storage.list("relative"), storage.list("file://host/x"), storage.remove("--help"),
    ):  # fmt: skip
        with pytest.raises(Permanent):
            await verb
    assert path_of(f"{here}/file").read_bytes() == b"x"
    assert os.listdir(path_of(f"{here}/dir")) == []


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> object:
        yield b"half"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        files.write(blocks(), str(tmp_path / "x"))  # type: ignore[arg-type] # an iterator of bytes
    assert os.listdir(tmp_path) == []


def test_bytes_are_on_the_disk_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power may fail between any two of these; no test can pull the plug, so the order is what is looked at."""
    asked: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def sync(fd: int) -> None:
        asked.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def name(source: str, path: str, *, follow_symlinks: bool) -> None:
        asked.append(("name", path))
        link(source, path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", name)
    files.write([b"x"], str(tmp_path / "x"))
    assert asked == [("sync", f"{tmp_path}/.x.part"), ("name", f"{tmp_path}/x"), ("sync", str(tmp_path))]


def test_the_rest_of_a_crash_is_used_again_and_two_writers_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / ".x.part").write_bytes(b"a longer rest of an earlier copy")

    def blocks() -> object:
        with pytest.raises(Temporary, match="somebody else"):
            files.write([b"second"], str(tmp_path / "x"))
        yield b"first"

    files.write(blocks(), str(tmp_path / "x"))  # type: ignore[arg-type] # an iterator of bytes
    assert (tmp_path / "x").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]


def test_a_crash_between_link_and_unlink_never_ruins_the_finished_file(tmp_path: Path) -> None:
    (tmp_path / "final").write_bytes(b"finished")
    os.link(tmp_path / "final", tmp_path / ".x.part")
    with pytest.raises(Temporary, match="interrupted"):
        files.write([b"new"], str(tmp_path / "x"))
    files.write([b"new"], str(tmp_path / "x"))
    assert (tmp_path / "final").read_bytes() == b"finished"


def test_a_rename_that_was_interrupted_is_ended(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "b")
    files.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.listdir(tmp_path) == ["b"]


def test_a_part_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"dear")
    (tmp_path / ".x.part").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic"):
        files.write([b"x"], str(tmp_path / "x"))
    assert (tmp_path / "victim").read_bytes() == b"dear"


@pytest.mark.parametrize(
    ("number", "read", "write"),
    [
        (errno.ENOENT, Permanent, Permanent),
        (errno.EACCES, Permanent, Permanent),
        (errno.ENOSPC, Temporary, Temporary),
        (errno.EDQUOT, Temporary, Temporary),
        (errno.EIO, Temporary, Unknown),
        (errno.ESTALE, Temporary, Unknown),
    ],
)
def test_errors_of_the_system(number: int, read: type[OutsideError], write: type[OutsideError]) -> None:
    error = OSError(number, os.strerror(number))
    assert type(files.explain(error, "x", write=False)) is read
    assert type(files.explain(error, "x", write=True)) is write


# --- gfal


RECORDED_LS = """-rw-r--r--   1 0     0             3 2026-11-23 22:46 x\t
drwxr-xr-x   2 0     0          4096 2026-11-23 22:46 d\t
-rw-r--r--   1 45    51   1099511627776 Nov 23 22:46 a b\t
-rw-r--r--   1 45    51         7 Nov  3  2019 old
-rw-r--r--   1 0     0             3 2026-11-23 22:46:01.123456 +0000 full\t
"""
RECORDED_STAT = """  File: 'gsiftp://x/y'
  Size: 3\tregular file
Access: (0644/-rw-r--r--)\tUid: 0\tGid: 0\t
Access: 2026-11-23 22:46:59.000000
Modify: 2026-11-23 22:46:59.000000
Change: 2026-11-23 22:46:59.000000
"""


def says(text: str, rc: int = 0, stderr: str = "") -> str:
    return f"cat <<'E1'\n{text}E1\ncat >&2 <<'E2'\n{stderr}\nE2\nexit {rc}\n"


GONE = says("", 2, "gfal-stat error: 2 (No such file or directory) - gone")


async def test_a_listing_is_one_call(storage: Storage, install: Install, processes: Processes) -> None:
    install("gfal-ls", says(RECORDED_LS))
    entries = {entry.url.removeprefix(FAR): entry for entry in await storage.list(f"{FAR}/")}
    assert list(entries) == ["/a%20b", "/d", "/full", "/old", "/x"]
    assert entries["/d"].is_dir
    assert entries["/a%20b"] == Entry(f"{FAR}/a%20b", 1 << 40, False, None)
    assert all(entries[name].mtime for name in ("/d", "/full", "/old", "/x"))
    assert processes.started == 1


async def test_listing_a_file_gives_the_file(storage: Storage, install: Install) -> None:
    install("gfal-ls", 'echo "-rw-r--r--   1 0     0             3 2026-11-23 22:46 $3"')
    assert [entry.url for entry in await storage.list(f"{FAR}/x")] == [f"{FAR}/x"]


async def test_stat_and_checksum(storage: Storage, install: Install) -> None:
    install("gfal-stat", says(RECORDED_STAT))
    entry = await storage.stat(f"{FAR}/x")
    assert entry
    assert (entry.url, entry.size_bytes, entry.is_dir, bool(entry.mtime)) == (f"{FAR}/x", 3, False, True)
    install("gfal-stat", says(RECORDED_STAT.replace("regular file", "directory")))
    assert (await storage.stat(FAR) or entry).is_dir
    install("gfal-stat", says("", 2, "gfal-stat error: 2 (No such file or directory) - gone"))
    assert await storage.stat(FAR) is None
    for word, value in (("021700dc", 0x021700DC), ("21700DC", 0x021700DC)):
        install("gfal-sum", says(f"{FAR}/x {word}\n"))
        assert await storage.checksum(f"{FAR}/x") == value


async def test_a_success_that_cannot_be_read_is_temporary(storage: Storage, install: Install) -> None:
    for name in ("gfal-ls", "gfal-stat", "gfal-sum"):
        install(name, "echo 'what is this'")
    for verb in (storage.list(FAR), storage.stat(FAR), storage.checksum(FAR)):
        with pytest.raises(Temporary, match="expected"):
            await verb


async def test_uploading_goes_through_a_file_that_does_not_stay(
    storage: Storage, install: Install, tmp_path: Path
) -> None:
    install(
        "gfal-copy",
        f'for i; do last="$prev"; prev="$i"; done; cp "${{last#file://}}" {tmp_path}/got; echo $last > {tmp_path}/name',
    )
    install("gfal-stat", GONE)
    await storage.upload(b"hello", f"{FAR}/x")
    assert (tmp_path / "got").read_bytes() == b"hello"
    assert not Path((tmp_path / "name").read_text().strip().removeprefix("file://")).exists()
    source = tmp_path / "P215+50 x"
    source.write_bytes(b"again")
    await storage.upload(source, f"{FAR}/x")
    assert (tmp_path / "got").read_bytes() == b"again"


async def test_a_rename_looks_first(storage: Storage, install: Install, tmp_path: Path) -> None:
    install("gfal-stat", says(RECORDED_STAT))
    install("gfal-rename", "exit 0")
    with pytest.raises(Permanent, match="b exists"):
        await storage.rename(f"{FAR}/a", f"{FAR}/b")
    install("gfal-stat", GONE)
    with pytest.raises(Permanent) as caught:
        await storage.rename(f"{FAR}/a", f"{FAR}/b")
    assert caught.value.absent
    install("gfal-stat", f"case $1 in */a) {says(RECORDED_STAT)};; esac\n{GONE}")
    await storage.rename(f"{FAR}/a", f"{FAR}/b")
    assert (tmp_path / "gfal-rename.argv").read_text() == f"{FAR}/a {FAR}/b\n"


@pytest.mark.parametrize(
    ("rc", "stderr", "read", "write", "absent"),
    [
        (2, "gfal-x error: 2 (No such file or directory) - errno reported by …", Permanent, Permanent, True),
        (
            17,
            "gfal-x error: 17 (File exists) - Destination exists and overwrite is not set",
            Permanent,
            Permanent,
            False,
        ),
        (21, "gfal-x error: 21 (Is a directory) - Can not remove x, is a directory", Permanent, Permanent, False),
        (93, "gfal-x error: 93 (Protocol not supported) - Protocol not supported", Permanent, Permanent, False),
        (13, "gfal-x error: 13 (Permission denied) - 550 denied", Temporary, Permanent, False),
        (1, "gfal-x error: 1 (Operation not permitted) - 550 denied", Temporary, Permanent, False),
        (111, "gfal-x error: 111 (Connection refused) - globus_xio: connect", Temporary, Temporary, False),
        (113, "gfal-x error: 113 (No route to host) - x", Temporary, Temporary, False),
        (70, "gfal-x error: 70 (Communication error on send) - Name or service not known", Temporary, Temporary, False),
        (52, "gfal-x error: 52 (Invalid exchange) - Could not open the user certificate", Temporary, Temporary, False),
        (28, "gfal-x error: 28 (No space left on device) - x", Temporary, Temporary, False),
        (110, "gfal-x error: 110 (Connection timed out) - x", Temporary, Unknown, False),
        (5, "gfal-x error: 5 (Input/output error) - SOURCE CHECKSUM MISMATCH", Temporary, Unknown, False),
        (1, "Traceback (most recent call last): …", Temporary, Unknown, False),
        (127, "/usr/bin/env: 'python': No such file or directory", Temporary, Unknown, False),
        (2, "usage: gfal-x [-h]", Temporary, Unknown, False),
        (255, "", Temporary, Unknown, False),
    ],
)
async def test_the_tools_failures(
    storage: Storage,
    install: Install,
    rc: int,
    stderr: str,
    read: type[OutsideError],
    write: type[OutsideError],
    absent: bool,
) -> None:
    for name in ("gfal-ls", "gfal-mkdir"):
        install(name, says("", rc, stderr))
    install("gfal-stat", GONE)
    for verb, expected in ((storage.list(FAR), read), (storage.make_directory(FAR), write)):
        with pytest.raises(OutsideError) as caught:
            await verb
        assert type(caught.value) is expected
        assert getattr(caught.value, "absent", False) is absent


async def test_removing_what_is_missing(storage: Storage, install: Install) -> None:
    install("gfal-rm", says(f"{FAR}/proxy\tMISSING\n", 2))
    with pytest.raises(Permanent) as caught:
        await storage.remove(f"{FAR}/proxy")
    assert caught.value.absent


async def test_no_tools_is_temporary_for_all(site: Site) -> None:
    storage = Storage(Processes(env={"PATH": "/nonexistent"}), site)
    for verb in (storage.list(FAR), storage.remove(FAR), storage.upload(b"x", FAR), storage.rename(FAR, f"{FAR}/b")):
        with pytest.raises(Temporary, match="cannot be started"):
            await verb


@given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 255), st.booleans())
def test_any_failure_is_one_of_the_three(stdout: str, stderr: str, rc: int, write: bool) -> None:
    error = explain(Finished(("gfal-x",), rc, stdout, f"gfal-x error: {rc} ({stderr}"), "x", write=write)
    assert isinstance(error, Temporary | Permanent | Unknown)


@pytest.mark.skipif(shutil.which("gfal-ls") is None, reason="the real tools are not installed here")
async def test_the_real_tools_speak_so(site: Site, tmp_path: Path) -> None:
    """The verbs' gfal side on the real executables, which take `file://` as well as any scheme."""
    env = {"PATH": os.environ["PATH"], "GFAL_PYTHONBIN": "/usr/bin/python3"}
    processes = Processes(env=env)
    (tmp_path / "x").write_bytes(b"hi\n")
    url = f"file://{tmp_path}"
    calls = [["gfal-ls", "-l", "--full-time", url], ["gfal-rm", f"{url}/nope"], ["gfal-copy", f"{url}/x", f"{url}/x"]]
    listed, missing, there = await asyncio.gather(*(processes.run(argv, write=False) for argv in calls))
    if "import" in listed.stderr:
        pytest.skip("gfal2 cannot be imported here")
    assert " x\t" in listed.stdout
    for said, absent in ((missing, True), (there, False)):
        error = explain(said, "x", write=True)
        assert isinstance(error, Permanent)
        assert error.absent is absent


# --- what is on its way


async def test_bytes_on_their_way_lie_in_the_work_directory_and_leave_it(
    processes: Processes, site: Site, install: Install, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    install("gfal-stat", "echo 'gfal-stat error: 2 (No such file or directory) - x' >&2; exit 2")
    install("gfal-copy", f"ls {work} > {tmp_path}/seen")
    await Storage(processes, site, work_dir=work).upload(b"hello", f"{FAR}/a")
    (name,) = (tmp_path / "seen").read_text().split()
    assert name.startswith(UPLOAD_PREFIX)
    assert os.listdir(work) == []


def test_what_a_killed_daemon_left_on_the_way_goes_at_the_next_start(tmp_path: Path) -> None:
    for name in (f"{UPLOAD_PREFIX}x", "read-0a", "kept"):
        (tmp_path / name).write_text("x")
    (tmp_path / f"{COPY_PREFIX}x").mkdir()
    (tmp_path / f"{COPY_PREFIX}x" / "file").write_text("x")
    forget_copies(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]
    forget_copies(tmp_path / "none")
