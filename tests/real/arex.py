"""A real ARC computing element: A-REX with its REST interface, whose jobs are processes of this host. Needs root.

Its own start scripts start it, one of them as a copy that listens on loopback only, for which there is no setting. All it
knows lies in a directory of its own; the authority that signs its certificate and Alice's is made anew each time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .servers import certify, directory, free_port, openssl

START_S = 60.0
SCRIPTS = Path("/usr/share/arc")
CONFIG = """[common]
hostname = localhost
x509_host_key = {here}/host.key
x509_host_cert = {here}/host.pem
x509_cert_dir = {here}/trusted
[authgroup: alice]
subject = /O=aglowd/CN=Alice
[mapping]
map_to_user = alice nobody:nogroup
[lrms]
lrms = fork
[arex]
logfile = {here}/log/arex.log
pidfile = {here}/run/arex.pid
joblog = {here}/log/jobs.log
controldir = {here}/control
sessiondir = {here}/session
wakeupperiod = 1
infoproviders_timelimit = 5
[arex/ws]
logfile = {here}/log/ws.log
pidfile = {here}/run/ws.pid
wsurl = https://localhost:{port}/arex
[arex/ws/jobs]
allowaccess = alice
[infosys]
logfile = {here}/log/infosys.log
[infosys/glue2]
[infosys/cluster]
[queue: fork]
"""
"""A-REX looks at its jobs each second, where three minutes are usual."""


class Arex(NamedTuple):
    """Its address, the directory of whom it trusts, Alice's proxy, and one of hers that expired yesterday."""

    url: str
    trusted: Path
    proxy: Path
    expired: Path


@contextmanager
def arex() -> Iterator[Arex]:
    """A computing element on loopback, from when it listens."""
    with directory() as here:
        certify(here)
        for name in ("control", "session", "log", "run", "tmp"):
            (here / name).mkdir(mode=0o755)
        port = free_port()
        (here / "arc.conf").write_text(CONFIG.format(here=here, port=port))
        # It would make a large one for minutes, beside all else.
        openssl(here, "dhparam", "-dsaparam", "-out", "control/dhparam.pem", "2048")
        text = (SCRIPTS / "arc-arex-ws-start").read_text()
        where, listen = "<tcp:Listen>", "<tcp:Listen><tcp:Interface>127.0.0.1</tcp:Interface>"
        assert where in text
        (here / "ws-start").write_text(text.replace(where, listen))
        (here / "ws-start").chmod(0o755)
        proxies = _proxies(here)
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ARC_CONFIG": f"{here}/arc.conf", "TMPDIR": f"{here}/tmp"}
        try:
            with (here / "said").open("w+") as said:
                starts = [
                    subprocess.Popen([script], env=env, cwd=here, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
                    for script in (SCRIPTS / "arc-arex-start", here / "ws-start")
                ]
                for start in starts:
                    if start.wait(START_S) != 0:
                        raise RuntimeError(f"{start.args} failed: {(here / 'said').read_text()}")
            _await(port, here / "log" / "ws.log")
            yield Arex(f"https://localhost:{port}/arex", here / "trusted", *proxies)
        finally:
            _stop(here)


def _proxies(here: Path) -> tuple[Path, Path]:
    """A proxy of Alice's for some hours, and one whose time is over: signed by her own certificate, as any proxy is."""
    env = {**os.environ, "X509_CERT_DIR": f"{here}/trusted"}
    argv = ["grid-proxy-init", "-q", "-bits", "2048", "-valid", "2:00", "-cert", "user.pem", "-key", "user.key"]
    subprocess.run([*argv, "-out", "proxy.pem"], cwd=here, env=env, check=True, timeout=START_S)
    (here / "expired.ext").write_text("keyUsage=digitalSignature\nproxyCertInfo=critical,language:id-ppl-inheritAll\n")
    openssl(here, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=aglowd/CN=Alice/CN=1", "-keyout", "expired.key",
            "-out", "expired.csr")  # fmt: skip
    openssl(here, "x509", "-req", "-days", "-1", "-in", "expired.csr", "-CA", "user.pem", "-CAkey", "user.key",
            "-set_serial", "1", "-extfile", "expired.ext", "-out", "expired.crt")  # fmt: skip
    parts = (here / name for name in ("expired.crt", "expired.key", "user.pem"))
    expired = here / "expired.pem"
    expired.write_text("".join(part.read_text() for part in parts))
    expired.chmod(0o600)
    return here / "proxy.pem", expired


def _await(port: int, said: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"A-REX does not listen: {said.read_text()}")
        time.sleep(0.05)


def _stop(here: Path) -> None:
    """End both services and what their jobs left behind; each is known by the directory that it was started for."""
    for name in ("ws.pid", "arex.pid"):
        with suppress(OSError, ValueError):
            os.kill(int((here / "run" / name).read_text()), signal.SIGTERM)
    deadline = time.monotonic() + 10.0
    while left := _ours(here):
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        for pid in left:
            with suppress(OSError):
                os.kill(pid, number)
        time.sleep(0.1)


def _ours(here: Path) -> list[int]:
    """The processes whose environment names the directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(place.name) != os.getpid() and os.fsencode(here) in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found
