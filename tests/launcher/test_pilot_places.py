"""Results go where the token says, by the programs that a worker node has; containers are run by theirs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from .conftest import Farm, Running, eventually

SIMPLE = "echo data > results/out.h5"
GSIFTP = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/results"
BASICS = ("sh", "cat", "sleep", "touch", "env", "cp", "rm", "mkdir", "basename", "stat")


class Node:
    """A worker node: a PATH of its own. A URL `…/NAME` lies as `far/NAME`; each program notes its arguments."""

    def __init__(self, path: Path) -> None:
        self.bin, self.far = path / "bin", path / "far"
        self.bin.mkdir()
        self.far.mkdir()
        for name in BASICS:
            os.symlink(str(shutil.which(name)), self.bin / name)

    def install(self, name: str, text: str) -> None:
        head = f'#!/bin/sh\necho "$*" >> {self.bin}/{name}.argv\nfor last; do :; done\nfar={self.far}/$(basename "$last")\n'
        (self.bin / name).write_text(head + text)
        (self.bin / name).chmod(0o755)

    def argv(self, name: str) -> list[str]:
        path = self.bin / f"{name}.argv"
        return path.read_text().splitlines() if path.exists() else []

    async def pilot(self, farm: Farm, *arguments: str, **environment: str) -> Running:
        return await farm.pilot(
            *arguments, environment={"PATH": str(self.bin), "AGLOWD_JOB_ID": "local-1", **environment}
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


COPY = 'for one; do case $one in file://*) cp "${one#file://}" "$far";; esac; done'
STAT = 'echo "  File: \'$last\'"; echo "  Size: $(stat -c %s $far)\tregular file"'
SUM = f"""shift $(($# - 2)); {sys.executable} -c "import sys, zlib
print(sys.argv[1], '%08x' % zlib.adler32(open(sys.argv[2], 'rb').read()))" $1 {{far}}/$(basename $1)"""


async def test_gfal_copies_and_is_looked_after(farm: Farm, node: Node) -> None:
    node.install("gfal-copy", COPY)
    node.install("gfal-stat", STAT)
    node.install("gfal-sum", SUM.replace("{far}", str(node.far)))
    token = farm.token("SB000", SIMPLE, RESULTS_DIR=GSIFTP)
    pilot = await node.pilot(farm)
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(token)
    assert done["status"] == "done", done
    assert done["Results_location"].startswith(f"{GSIFTP}/sksp_cal_SB000-")
    (file,) = node.far.iterdir()
    assert (file.name, file.read_bytes()) == (done["Results_location"].rpartition("/")[2], b"data\n")
    (copy,) = node.argv("gfal-copy")
    assert copy.startswith("-f -p -t 3600 -T 3600 file:///")
    assert Path(copy.split()[-2]).parts[-3:] == ("work", "results", "out.h5")
    assert copy.split()[-1] == done["Results_location"]
    assert node.argv("gfal-sum") == [f"{done['Results_location']} ADLER32"]


async def test_what_arrived_otherwise_than_it_left_is_copied_again(farm: Farm, node: Node) -> None:
    short = f"if [ ! -e {node.far}.once ]; then touch {node.far}.once $far; exit 0; fi\n"
    node.install("gfal-copy", short + COPY)
    node.install("gfal-stat", STAT)
    token = farm.token("SB000", SIMPLE, RESULTS_DIR=GSIFTP)
    pilot = await node.pilot(farm)
    assert await pilot.ended() == 0, pilot.stderr
    assert "found size 0 there; expected 5" in pilot.stderr
    assert farm.get(token)["status"] == "done"
    assert [file.read_bytes() for file in node.far.iterdir()] == [b"data\n"]
    assert len(node.argv("gfal-copy")) == 2


async def test_without_gfal_it_is_globus_url_copy_and_says_what_is_not_checked(farm: Farm, node: Node) -> None:
    node.install("globus-url-copy", COPY)
    node.install("curl", "exit 9")
    token = farm.token("SB000", SIMPLE, RESULTS_DIR=GSIFTP)
    pilot = await node.pilot(farm)
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"
    assert node.argv("globus-url-copy")[0].startswith("-cd file:///")
    assert node.argv("curl") == []
    assert "its size is not checked" in pilot.stderr


async def test_curl_puts_davs_with_the_proxy_and_the_grids_cas(farm: Farm, node: Node, tmp_path: Path) -> None:
    node.install("curl", f'echo "$HOME"; cp "$(echo "$*" | {sys.executable} -c "{CURL_SOURCE}")" "$far"')
    proxy = tmp_path / "proxy"
    proxy.write_text("cert and key")
    token = farm.token("SB000", SIMPLE, RESULTS_DIR="davs://webdav.grid.surfsara.nl:2880/results")
    pilot = await node.pilot(farm, X509_USER_PROXY=str(proxy), X509_CERT_DIR=str(tmp_path))
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(token)
    assert done["status"] == "done", done
    (argv,) = node.argv("curl")
    assert (
        f"--fail --silent --show-error --location --cert {proxy} --key {proxy} --capath {tmp_path} --upload-file /"
        in argv
    )
    assert argv.endswith(f" https://{done['Results_location'].partition('://')[2]}")
    assert done["Results_location"].startswith("davs://webdav")
    assert [file.read_bytes() for file in node.far.iterdir()] == [b"data\n"]


CURL_SOURCE = "words = input().split(); print(words[words.index('--upload-file') + 1])"


@pytest.mark.parametrize(
    ("directory", "code", "message"),
    [
        ("ftp://h/x", 0, "expected file://"),
        ("/plain/path", 0, "expected file://"),
        ("file://host/path", 0, "expected file:///"),
        ("https://h/x", 3, "no program on PATH can write to https://"),
    ],
)
async def test_where_nothing_can_be_written_nothing_is_computed(
    farm: Farm, node: Node, tmp_path: Path, directory: str, code: int, message: str
) -> None:
    node.install("globus-url-copy", COPY)
    token = farm.token("SB000", f"touch {tmp_path}/computed; {SIMPLE}", RESULTS_DIR=directory)
    pilot = await node.pilot(farm)
    assert await pilot.ended() == code, pilot.stderr
    assert message in farm.get(token)["launcher_status"]
    assert not (tmp_path / "computed").exists()


async def test_a_signal_during_the_upload_withdraws_it_and_gives_the_token_back(farm: Farm, node: Node) -> None:
    node.install("gfal-copy", f"{COPY}\nexec sleep 1000")
    node.install("gfal-rm", 'rm "$far"')
    token = farm.token("SB000", SIMPLE, RESULTS_DIR=GSIFTP)
    pilot = await node.pilot(farm)
    await eventually(lambda: any(file.read_bytes() for file in node.far.iterdir()))
    assert farm.get(token)["status"] == "uploading"
    pilot.kill(signal.SIGTERM)
    assert await pilot.ended() == 0, pilot.stderr
    assert (farm.get(token)["status"], farm.get(token)["lock"]) == ("reset", 0)
    assert list(node.far.iterdir()) == []


@pytest.mark.parametrize("program", ["singularity", "apptainer"])
async def test_the_command_runs_in_its_container(farm: Farm, node: Node, tmp_path: Path, program: str) -> None:
    node.install(program, 'shift 5; shift; exec "$@"')
    token = farm.token("SB000")
    pictures = {"img": "docker://lofar/sksp:1", "SIMG": "other"}
    farm.change(token, **{"config.json": {"command": SIMPLE, "container": {"singularity": pictures}}})
    pilot = await node.pilot(farm)
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done", farm.get(token)
    (argv,) = node.argv(program)
    words = argv.split(" ", 7)
    inside = words[2]
    assert words == ["exec", "--bind", inside, "--pwd", inside, "docker://lofar/sksp:1", "/bin/sh", f"-c {SIMPLE}"]
    assert Path(inside).name == "work"
    assert not Path(inside).exists()


async def test_an_image_beside_the_pilot_is_named_in_full(farm: Farm, node: Node, tmp_path: Path) -> None:
    node.install("singularity", 'shift 5; shift; exec "$@"')
    token = farm.token("SB000")
    config = {"command": ["sh", "-c", SIMPLE], "container": {"singularity": {"img": "../here.simg"}}}
    farm.change(token, **{"config.json": config})
    (tmp_path / "here.simg").touch()
    pilot = await node.pilot(farm, "--scratch", str(node.far))
    assert await pilot.ended() == 0, pilot.stderr
    assert f" {tmp_path}/here.simg sh -c " in node.argv("singularity")[0]
    assert node.argv("singularity")[0].split()[2].startswith(f"{node.far}/aglowd-")
    assert list(node.far.iterdir()) == []
