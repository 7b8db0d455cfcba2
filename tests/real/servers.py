"""Real servers for the tests, on loopback, each in a directory of its own; none outlives its context.

As root, those that do not like to be root run as `nobody`. A GridFTP server knows people by certificates, so there
is a certificate authority, made anew each time, for the one machine and the one person here.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.grid import bases

HERE = Path(__file__).parent
USER, PASSWORD = "alice", "not a secret"
START_S = 15.0
LEAVE = """import os, sys
def leave(rc=0):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(rc or 0)
sys.exit = leave
"""
"""One in fifty of the real tools dies when it tidies up, all said and done (free(): invalid pointer): they need not."""


class Server(NamedTuple):
    """Where its storage begins, and what a client must have in its environment."""

    url: str
    env: Mapping[str, str] = {}


@contextmanager
def apache() -> Iterator[Server]:
    """Apache's mod_dav with Basic authentication."""
    with directory() as here:
        (here / "data").mkdir()
        digest = base64.b64encode(hashlib.sha1(PASSWORD.encode(), usedforsecurity=False).digest()).decode()
        (here / "passwords").write_text(f"{USER}:{{SHA}}{digest}\n")
        port = free_port()
        argv = ["/usr/sbin/apache2", "-f", f"{HERE}/httpd.conf", "-DFOREGROUND"]
        with running(argv, here, port, {"HERE": str(here), "PORT": str(port)}):
            yield Server(f"http://127.0.0.1:{port}")


@contextmanager
def wsgidav() -> Iterator[Server]:
    """WsgiDAV, another reading of the same standard."""
    with directory() as here:
        (here / "data").mkdir()
        port = free_port()
        (here / "wsgidav.yaml").write_text(
            f"host: 127.0.0.1\nport: {port}\nserver: cheroot\nverbose: 1\nprovider_mapping:\n  '/': {here}/data\n"
            f"http_authenticator: {{accept_basic: true, accept_digest: false, default_to_digest: false}}\n"
            f"simple_dc: {{user_mapping: {{'*': {{{USER}: {{password: '{PASSWORD}'}}}}}}}}\n"
        )
        argv = [sys.executable, "-m", "wsgidav.server.server_cli", "--config", f"{here}/wsgidav.yaml"]
        with running(argv, here, port, {}, any_user=True):
            yield Server(f"http://127.0.0.1:{port}")


@contextmanager
def gridftp() -> Iterator[Server]:
    """A GridFTP server with GSI, and a proxy for the gfal tools."""
    with directory() as here:
        certify(here)
        port = free_port()
        (here / "data").mkdir()
        (here / "gridmap").write_text(f'"/O=aglowd/CN=Alice" {name_of_server()}\n')
        trust = {"X509_CERT_DIR": f"{here}/trusted"}
        env = {
            **trust,
            "X509_USER_CERT": f"{here}/host.pem",
            "X509_USER_KEY": f"{here}/host.key",
            "GRIDMAP": f"{here}/gridmap",
            "HOME": str(here),
        }
        argv = ["/usr/sbin/globus-gridftp-server", "-p", str(port), "-control-interface", "127.0.0.1"]
        argv += ["-data-interface", "127.0.0.1", "-hostname", "localhost", "-rp", f"{here}/data"]
        with running(argv, here, port, env), tempfile.TemporaryDirectory(prefix="aglowd-alice-") as own:
            for name in ("user.pem", "user.key"):
                shutil.copyfile(here / name, f"{own}/{name}")
                os.chmod(f"{own}/{name}", 0o600)
            proxy = f"{own}/proxy.pem"
            argv = ["grid-proxy-init", "-q", "-bits", "2048", "-valid", "2:00"]
            argv += ["-cert", f"{own}/user.pem", "-key", f"{own}/user.key", "-out", proxy]
            subprocess.run(argv, check=True, env={**os.environ, **trust}, timeout=START_S)
            Path(own, "sitecustomize.py").write_text(LEAVE)
            client = {"GFAL_PYTHONBIN": "/usr/bin/python3", "PYTHONPATH": own}
            client |= {**trust, "X509_USER_PROXY": proxy}
            yield Server(f"gsiftp://localhost:{port}{here}/data", client)


@contextmanager
def couch() -> Iterator[Server]:
    """CouchDB's protocol from npm, by the same names as the simulated one."""
    modules = (
        Path(os.environ.get("AGLOWD_TEST_CACHE") or Path.home() / ".cache" / "aglowd-tests") / "couch/node_modules"
    )
    with directory() as here:
        port = free_port()
        env = {
            "NODE_PATH": str(modules),
            "PORT": str(port),
            "COUCH_USER": bases.USER,
            "COUCH_MEMBER": bases.MEMBER,
            "COUCH_PASSWORD": bases.PASSWORD,
        }
        argv = [shutil.which("node") or "node", f"{HERE}/couch-stub.js"]
        with running(argv, here, port, env, any_user=True):
            yield Server(f"http://127.0.0.1:{port}")


def certify(here: Path) -> None:
    """An authority that is trusted below here, and a certificate each for this host and for Alice."""
    (here / "trusted").mkdir()
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl(here, "req", "-x509", *new, "-days", "2", "-subj", "/O=aglowd/CN=Authority", "-keyout", "authority.key",
            "-out", "authority.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    name = openssl(here, "x509", "-in", "authority.pem", "-noout", "-subject_hash")
    shutil.copyfile(here / "authority.pem", here / "trusted" / f"{name}.0")
    (here / "trusted" / f"{name}.signing_policy").write_text(
        "access_id_CA X509 '/O=aglowd/CN=Authority'\npos_rights globus CA:sign\ncond_subjects globus '\"/O=aglowd/*\"'\n"
    )
    for who, subject, extensions in (
        ("host", "localhost", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"),
        ("user", "Alice", "extendedKeyUsage=clientAuth\n"),
    ):
        (here / f"{who}.ext").write_text(
            f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n{extensions}"
        )
        openssl(here, "req", *new, "-subj", f"/O=aglowd/CN={subject}", "-keyout", f"{who}.key", "-out", f"{who}.csr")
        openssl(here, "x509", "-req", "-days", "2", "-in", f"{who}.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
                "-CAcreateserial", "-extfile", f"{who}.ext", "-out", f"{who}.pem")  # fmt: skip
        (here / f"{who}.key").chmod(0o600)


def openssl(here: Path, *argv: str) -> str:
    """What the command says, run in that directory."""
    done = subprocess.run(("openssl", *argv), cwd=here, check=True, capture_output=True, text=True, timeout=START_S)
    return done.stdout.strip()


# --- processes


def name_of_server() -> str:
    return "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory with a short path that the server may enter; gone at the end."""
    here = Path(tempfile.mkdtemp(prefix="aglowd-real-"))
    try:
        here.chmod(0o755)
        yield here
    finally:
        shutil.rmtree(here, ignore_errors=True)


@contextmanager
def running(
    argv: Sequence[str], here: Path, port: int, env: Mapping[str, str], *, any_user: bool = False
) -> Iterator[None]:
    """The server, from when it listens; what it said is in the error if it never does. `any_user`: root will do."""
    who: dict[str, Any] = {}
    if os.getuid() == 0 and not any_user:
        owner = pwd.getpwnam(name_of_server())
        who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        for path in (here, *here.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    with (here / "said").open("w+") as said:
        process = subprocess.Popen(
            argv,
            cwd=here,
            env={"PATH": os.environ["PATH"], **env},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
            **who,
        )
        try:
            await_port(process, port, here / "said")
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def await_port(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} does not listen: {said.read_text()}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
