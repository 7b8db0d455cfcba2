"""The proxy: a number is believed only when the tool succeeded and said nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy, ProxyInfo
from aglowd.grid.proxy_file import VOMS, ends_of

from .conftest import SAMPLES, Install


def replay(name: str) -> str:
    """Shell that repeats a recorded call: `$ cmd`, `--stdout`, `--stderr`, `--rc`."""
    _, _, rest = (SAMPLES / "proxy" / f"{name}.txt").read_text().partition("--stdout\n")
    stdout, _, rest = rest.partition("--stderr\n")
    stderr, _, rc = rest.rpartition("--rc ")
    return f"cat <<'E1'\n{stdout}E1\ncat >&2 <<'E2'\n{stderr}E2\nexit {rc.strip()}\n"


def tool(timeleft: str, actimeleft: str) -> str:
    return (
        f'case "$*" in *-actimeleft) {replay(actimeleft)} ;; *-timeleft) {replay(timeleft)} ;; '
        "*-subject) echo /O=dutchgrid/CN=Test ;; esac"
    )


@pytest.mark.parametrize(
    ("timeleft", "actimeleft", "expected"),
    [
        ("voms_proxy_info_timeleft", "voms_ac_info_actimeleft", (43197.0, 43199.0)),
        ("voms_acexpired_timeleft", "voms_acexpired_actimeleft", (604800.0, 0.0)),
        ("voms_proxy_info_timeleft", "voms_proxy_info_actimeleft_noac", (43197.0, None)),
        ("voms_proxy_info_timeleft", "java_info_noac_actimeleft", (43197.0, None)),
        ("voms_expired_timeleft", "voms_acexpired_actimeleft", (0.0, 0.0)),
    ],
)
async def test_both_clocks(
    processes: Processes, install: Install, timeleft: str, actimeleft: str, expected: tuple[float, float | None]
) -> None:
    install("voms-proxy-info", tool(timeleft, actimeleft))
    assert await Proxy(processes, None).info() == ProxyInfo(*expected, "/O=dutchgrid/CN=Test")


@pytest.mark.parametrize(
    "timeleft", ["voms_proxy_info_missing_timeleft", "voms_garbage", "voms_trunc", "java_info_missing"]
)
async def test_no_usable_proxy_says_where_and_what_to_do(processes: Processes, install: Install, timeleft: str) -> None:
    install("voms-proxy-info", tool(timeleft, "voms_ac_info_actimeleft"))
    with pytest.raises(Temporary, match=r"/run/x509up.*voms-proxy-init"):
        await Proxy(processes, "/run/x509up").info()


@pytest.mark.parametrize("text", ["echo 12; echo 13", "echo 12 s", "echo 12; exit 1", "echo ٣"])
async def test_anything_but_a_number_is_no_number(processes: Processes, install: Install, text: str) -> None:
    install("voms-proxy-info", text)
    with pytest.raises(Temporary):
        await Proxy(processes, None).info()


class At(Clock):
    """A clock that stands still."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def now(self) -> float:
        return self.at


def lay(tmp_path: Path, name: str, mode: int = 0o600) -> Path:
    """A proxy that the real tools made (tests/real/proxies.sh)."""
    path = tmp_path / "x509up"
    path.write_bytes((SAMPLES / "proxy" / f"{name}.pem").read_bytes())
    path.chmod(mode)
    return path


WITHOUT_TOOLS = {"PATH": "/nonexistent"}


@pytest.mark.parametrize(
    ("name", "ends", "attributes_end"),
    [
        ("attributes", 1796547704.0, 1795986104.0),
        ("attributes-over", 1796547705.0, 1795939304.0),
        ("globus", 1795986106.0, None),
    ],
)
async def test_without_the_tool_the_file_is_read(
    tmp_path: Path, name: str, ends: float, attributes_end: float | None
) -> None:
    proxy = Proxy(Processes(env=WITHOUT_TOOLS), str(lay(tmp_path, name)), At(1795950000.0))
    info = await proxy.info()
    assert info.seconds_left == ends - 1795950000.0
    assert info.ac_seconds_left == (None if attributes_end is None else max(0.0, attributes_end - 1795950000.0))
    assert info.left_s == min(info.seconds_left, info.seconds_left if attributes_end is None else info.ac_seconds_left)
    assert info.subject.endswith("CN=Test User,O=AglowTest,C=NL")


async def test_one_that_has_ended_has_nothing_left(tmp_path: Path) -> None:
    proxy = Proxy(Processes(env=WITHOUT_TOOLS), str(lay(tmp_path, "attributes")), At(1.9e9))
    assert (await proxy.info()).left_s == 0.0


def _blocks(name: str) -> list[bytes]:
    parts = (SAMPLES / "proxy" / f"{name}.pem").read_bytes().split(b"-----BEGIN ")[1:]
    return [b"-----BEGIN " + part for part in parts]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no certificate"),
        (b"hello", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2, "error parsing"),
        (_blocks("globus")[0], "there is no key"),
        (_blocks("globus")[0] + _blocks("attributes")[1] + _blocks("globus")[2], "key does not fit"),
        (b"".join(_blocks("globus"))[:-200], "it is cut"),
    ],
    ids=["empty", "text", "nonsense", "no key", "another's key", "cut"],
)
async def test_what_is_no_proxy_says_so(tmp_path: Path, data: bytes, what: str) -> None:
    path = lay(tmp_path, "globus")
    path.write_bytes(data)
    with pytest.raises(Temporary, match=f"x509up.*{what}.*voms-proxy-init"):
        await Proxy(Processes(env=WITHOUT_TOOLS), str(path)).info()


async def test_a_cut_attribute_certificate_is_no_proxy(tmp_path: Path) -> None:
    extension = next(
        one.value.value
        for one in x509.load_pem_x509_certificate(_blocks("attributes")[0]).extensions
        if one.oid == VOMS
    )
    assert len(list(ends_of(extension))) == 1
    for length in range(1, len(extension), 97):
        with pytest.raises(ValueError, match="VOMS attributes"):
            list(ends_of(extension[:length]))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
async def test_one_that_others_can_use_is_none_by_either_way(
    processes: Processes, install: Install, tmp_path: Path, mode: int
) -> None:
    path = str(lay(tmp_path, "attributes", mode))
    with pytest.raises(Temporary, match=f"others can use.*{mode:04o}.*chmod 600 {path}"):
        await Proxy(Processes(env=WITHOUT_TOOLS), path).info()
    install("voms-proxy-info", tool("voms_proxy_info_timeleft", "voms_ac_info_actimeleft"))
    with pytest.raises(Temporary, match="others can use"):
        await Proxy(processes, path).info()


async def test_no_tool_and_no_file_is_temporary() -> None:
    with pytest.raises(Temporary, match=r"/nonexistent/x509.*No such file.*voms-proxy-init"):
        await Proxy(Processes(env=WITHOUT_TOOLS), "/nonexistent/x509").info()
