"""Grid tools that say nonsense, end oddly, or both: their adapters over real processes, their parsers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.batch import Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.gfal import explain
from aglowd.grid.glite import Glite
from aglowd.grid.glite_text import parse_status, parse_submit, read_status
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.storage import Storage
from tests.fuzz.conftest import Say
from tests.fuzz.mutations import bounded, fuzzed, mangled, outcome

SAMPLES = Path(__file__).parent.parent / "grid" / "samples"
STATUS = [path.read_bytes() for path in sorted((SAMPLES / "glite").iterdir())]
PROXY = [path.read_bytes() for path in sorted((SAMPLES / "proxy").iterdir())]
ORDER = Order("k", 1, "/bin/true", (), {"a.txt": "x"})
JOB = "https://wms3.grid.sara.nl:9000/Vx7pK3zvZ2-fAnCy0w5rHQ"
SUBMITTED = f"""
Connecting to the service https://wms3.grid.sara.nl:7443/glite_wms_wmproxy_server

====================== glite-wms-job-submit Success ======================

The job has been successfully submitted to the WMProxy
Your job identifier is:

{JOB}

==========================================================================
""".encode()
SAID = [
    SUBMITTED,
    f"Warning - the job was registered (the JobId is: {JOB}) but its sandbox was not transferred\n".encode(),
    f"The job has been successfully started to the WMProxy\nYour job identifier is:\n{JOB}\n".encode(),
    f"Cancel - cancellation request has been successfully submitted for the following job(s)\n- {JOB}\n".encode(),
    b"Output sandbox files for the job:\nhave been successfully retrieved and stored in the directory:\n/tmp/out/me_x\n",
    b"**** Error: API_NATIVE_ERROR ****\nError while calling the \"NSClient::Multi\" native api: Unable to find any endpoint\n",
    b"printed in the following file:\n/tmp/none/glite-wms-job-status_1_2.log\n",
]  # fmt: skip
CODES = st.sampled_from([0, 0, 0, 1, 2, 13, 126, 127, 255])
GFAL = [
    b"-rw-r--r--   1 45     45     1234567 2026-07-01 10:11:12.000 L229507_SB000_uv.tar\n"
    b"drwxr-xr-x   0 0      0            0 Jul  1 10:11 results\n",
    b"  File: 'gsiftp://x/y'\n  Size: 123456\tregular file\nAccess: (0644/-rw-r--r--)\nModify: 2026-07-01 10:11:12.000000\n",
    b"gsiftp://gridftp.grid.sara.nl:2811/pnfs/x 0a1b2c3d\n",
    b"gfal-ls error: 2 (No such file or directory) - errors from the door\n",
    b"gfal-copy error: 17 (File exists) - srm-ifce err: Invalid argument\n",
    b"gfal-stat error: 70 (Communication error on send) - globus_xio: the proxy certificate has expired\n",
]
URL = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/x"


def output(samples: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(samples).flatmap(mangled)


@fuzzed
@given(out=output(STATUS))
def test_what_the_bookkeeping_says(out: bytes) -> None:
    text = out.decode("utf-8", "replace")
    with bounded():
        found, absent = read_status(text)
        assert parse_status(text).keys() == found.keys()
        parse_submit(text, text)
    assert not absent & found.keys()
    for status in found.values():
        assert len(status.words) <= 300
        assert len(status.reason) <= 300


@fuzzed
@given(out=output([*STATUS, *SAID]), err=output(SAID), rc=CODES)
@example(out=b"have been successfully retrieved and stored in the directory:\n/tmp/out/me_x\n", err=b"", rc=0)
async def test_the_glite_verbs(
    tmp_path: Path, processes: Processes, site: Site, say: Say, out: bytes, err: bytes, rc: int
) -> None:
    say(out, err, rc)
    glite = Glite(processes, site, Terms("[]"), endpoint=None, delegation=None, work_dir=tmp_path / "work")
    status = await outcome(glite.status([JOB]))
    if isinstance(status, dict):
        assert status.keys() <= {JOB}
    registered = await outcome(glite.prepare(ORDER), write=True)
    if isinstance(registered, Exception) and rc == 0:
        assert isinstance(registered, Temporary | Permanent | Unknown)
    await outcome(glite.submit(ORDER, JOB), write=True)
    await outcome(glite.cancel(JOB), write=True)
    await outcome(glite.find_by_tag("x"))
    await outcome(glite.output(JOB, tmp_path))
    assert list((tmp_path / "work").iterdir()) == []


@fuzzed
@given(out=output(GFAL), err=output(GFAL), rc=CODES)
async def test_the_storage_verbs(processes: Processes, site: Site, say: Say, out: bytes, err: bytes, rc: int) -> None:
    say(out, err, rc)
    storage = Storage(processes, site)
    await outcome(storage.list(URL))
    await outcome(storage.stat(URL))
    checksum = await outcome(storage.checksum(URL))
    assert isinstance(checksum, Exception) or 0 <= checksum < 2**32
    for write in (
        storage.make_directory(URL),
        storage.copy(URL, f"{URL}.b"),
        storage.remove(URL),
        storage.rename(URL, f"{URL}.b"),
    ):
        await outcome(write, write=True)


@fuzzed
@given(out=output(PROXY), err=output(PROXY), rc=CODES)
async def test_the_proxy(processes: Processes, say: Say, out: bytes, err: bytes, rc: int) -> None:
    say(out, err, rc)
    info = await outcome(Proxy(processes, None).info())
    if not isinstance(info, Exception):
        assert 0 <= info.seconds_left < 1e13
        assert len(info.subject) <= 300


MUCH = 1 << 18
LONG_LINES = {
    "blanks within a status": f"Status info for the Job : {JOB}\nCurrent Status: a" + " " * MUCH + "b\n",
    "blanks within a reason": f"Status info for the Job : {JOB}\nStatus Reason: a" + " \t" * MUCH + "b\n",
    "many heads": f"Status info for the Job : {JOB}\n" * 20_000,
    "many nodes": f"Status info for the Job : {JOB}\n" + "".join(
        f"  Status info for the Job : https://a:1/{number}\n  Current Status: Running\n" for number in range(20_000)
    ),
    "many losses": f"Unable to retrieve the status for: {JOB}\n" * 20_000,
    "a head without end": "Status info for the Job" + " " * MUCH,
    "empty lines": "\n" * MUCH,
    "a proxy again and again": "proxy " * (MUCH // 6),
    "one word": "x" * MUCH,
    "schemes": "a://" * (MUCH // 4),
    "sizes": "  Size: 1 " + " " * MUCH,
    "log files": "printed in the following file:/" * 30_000,
    "modes": "-rw-r--r-- 1" + " 1" * MUCH,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LONG_LINES))
async def test_much_of_one_kind_is_read_in_no_time(
    tmp_path: Path, processes: Processes, site: Site, say: Say, name: str
) -> None:
    """Patterns that look back again and again would take hours for these."""
    text = LONG_LINES[name]
    with bounded():
        read_status(text)
    for rc in (0, 1):
        with bounded():
            explain(Finished(("gfal-ls",), rc, text, text), "x", write=True)
        say(text.encode(), text.encode(), rc)
        storage = Storage(processes, site)
        await outcome(storage.list(URL))
        await outcome(storage.stat(URL))
        await outcome(storage.checksum(URL))
        glite = Glite(processes, site, Terms("[]"), endpoint=None, delegation=None, work_dir=tmp_path / "work")
        await outcome(glite.cancel(JOB), write=True)
        await outcome(glite.output(JOB, tmp_path))
        await outcome(Proxy(processes, None).info())


async def test_a_local_file_with_a_name_that_is_no_text(tmp_path: Path, processes: Processes, site: Site) -> None:
    """Its URL names it, byte by byte."""
    place = tmp_path / "results"
    place.mkdir()
    (place / b"\xff\xfe 100%".decode("utf-8", "surrogateescape")).write_bytes(b"abc")
    storage = Storage(processes, site)
    (entry,) = await outcome(storage.list(place.as_uri()))
    assert entry.url == f"{place.as_uri()}/%FF%FE%20100%25"
    assert (await outcome(storage.stat(entry.url))).size_bytes == 3
