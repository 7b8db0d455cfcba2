"""The proxy: a number is believed only when the tool succeeded and said nothing else."""

from __future__ import annotations

import pytest

from aglowd.errors import Temporary
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy, ProxyInfo

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


async def test_no_tool_is_temporary(processes: Processes) -> None:
    processes = Processes(env={"PATH": "/nonexistent"})
    with pytest.raises(Temporary, match="cannot be started"):
        await Proxy(processes, None).info()
