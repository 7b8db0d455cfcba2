"""A MariaDB of one's own with the surveys database as the LoTSS team keeps it, for the demo, the tests and the measurements.

It runs as whoever starts it, hears only its socket (and 127.0.0.1 where that is asked for), and needs nothing that is
configured on this host. What must stay true: when its context ends, the server has ended. Tables: LiLF `surveys_db.py`,
AGLOW `AGLOW_MySQL_utils.py`, as far as they are known.
"""

from __future__ import annotations

import asyncio
import csv
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "mariadbd": "mariadb-server-core",
    "mariadb-install-db": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
"""Program → the package of Debian that holds it."""
DATABASE, USER = "surveys", "survey_user"
START_REAL_S = 60.0
STOP_REAL_S = 15.0
LOOK_REAL_S = 0.05
LOCATIONS = {"SND": "Sara", "JND": "Juelich"}
"""Status in AGLOW's fields file → where the surveys database says that the data are."""

SCHEMA = """
CREATE TABLE fields (
  id VARCHAR(32) PRIMARY KEY, status VARCHAR(32), ra FLOAT, decl FLOAT, priority INT, gal_b FLOAT, lotss_field INT,
  required_integration DOUBLE, deepfield VARCHAR(32), field_type VARCHAR(32), clustername VARCHAR(64), location VARCHAR(255),
  username VARCHAR(64), nodename VARCHAR(64), archive_version INT, start_date DATETIME, end_date DATETIME, weave_priority INT
) ENGINE = InnoDB;
CREATE TABLE observations (
  id INT PRIMARY KEY, field VARCHAR(32), status VARCHAR(32), integration DOUBLE, nsb INT, nchan INT, dt DOUBLE, priority INT,
  location VARCHAR(64), project_code VARCHAR(64), date DATETIME, calibrator_id INT, calibrator_nchan INT, calibrator_dt DOUBLE,
  calibrator_nsb INT, bad_baselines VARCHAR(255), demix_sources VARCHAR(255), KEY (field)
) ENGINE = InnoDB;
"""
_INSERT = """
INSERT IGNORE INTO fields (id, status, priority) VALUES ({name}, 'Not started', 1);
INSERT INTO observations (id, field, status, nchan, dt, nsb, priority, location, calibrator_id, calibrator_nchan,
  calibrator_dt, calibrator_nsb, bad_baselines)
VALUES ({target}, {name}, 'Observed', {nchan}, {dt}, {nsb}, 1, {location}, {calibrator}, {cal_nchan}, {cal_dt}, {cal_nsb},
  {baselines});
"""


class MariaDbMissing(Exception):
    """A program of MariaDB is not installed; the text names its package."""


@dataclass(frozen=True)
class MariaDb:
    """A server that answers. `password` is that of USER, who may do everything in DATABASE."""

    socket: Path
    password: str
    port: int
    environment: dict[str, str]

    async def sql(self, text: str) -> str:
        """What the server says to that, as its administrator."""
        client = ("mariadb", "--no-defaults", "-S", str(self.socket), "-u", "root", "-N", "-B", DATABASE)
        process = await asyncio.create_subprocess_exec(
            *client,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        said, _ = await process.communicate(text.encode())
        if process.returncode:
            raise RuntimeError(f"mariadb: {said.decode(errors='replace')[-2000:]}")
        return said.decode()

    async def clear(self) -> None:
        """Begin anew with empty tables."""
        await self.sql(
            f"DROP DATABASE {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET latin1; USE {DATABASE}; {SCHEMA}"
        )

    async def fill(self, rows: Iterable[list[str]]) -> None:
        """Put the rows of a fields file of AGLOW there, as Observed."""
        lines = []
        for row in rows:
            target, nchan, dt, nsb, calibrator, cal_nchan, cal_dt, cal_nsb = (
                row[at] for at in (1, 3, 4, 5, 6, 8, 9, 10)
            )
            name, baselines = _quoted(row[11]), _quoted(row[12])
            location = _quoted(LOCATIONS.get(row[0], ""))
            lines.append(_INSERT.format(
                name=name, target=target, nchan=nchan, dt=dt, nsb=nsb, location=location, calibrator=calibrator,
                cal_nchan=cal_nchan, cal_dt=cal_dt, cal_nsb=cal_nsb, baselines=baselines,
            ))  # fmt: skip
        await self.sql("\n".join(("START TRANSACTION;", *lines, "COMMIT;")))

    async def fill_from(self, path: Path) -> None:
        """Put the fields of that file of AGLOW's there."""
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        await self.fill(row for row in csv.reader(text.splitlines()) if row and not row[0].startswith("#"))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@asynccontextmanager
async def private_mariadb(directory: Path, *, over_tcp: bool = False) -> AsyncIterator[MariaDb]:
    """The server, with its files in `directory` and an empty surveys database, from when it answers.

    `over_tcp`: on a port of 127.0.0.1, too. MariaDbMissing if it is not installed, RuntimeError with the server's last words if
    it does not start.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for program, package in PACKAGES.items():
        if shutil.which(program, path=path) is None:
            raise MariaDbMissing(
                f"{program} is not installed; Debian has it in {package} (packages mariadb-server-core and mariadb-client-core)"
            )
    environment = {"PATH": path, "HOME": str(directory), "LC_ALL": "C.UTF-8"}
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    # A Unix socket's path may have 107 bytes, and the directory of a test is often longer.
    sockets = Path(tempfile.mkdtemp(prefix="aglowd-db-"))
    port = _free_port() if over_tcp else 0
    try:
        with (directory / "install.log").open("wb") as log:
            words = (
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--datadir={directory}/data",
            )
            installed = await asyncio.create_subprocess_exec(
                "mariadb-install-db", *words, *_user(), stdout=log, stderr=log, env=environment
            )
            if await installed.wait():
                raise RuntimeError(f"mariadb-install-db: {(directory / 'install.log').read_text()[-2000:]}")
        found = MariaDb(sockets / "s", secrets.token_urlsafe(12), port, environment)
        async with _running(directory, found):
            yield found
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _user() -> tuple[str, ...]:
    """The server refuses to be root unless it is told to."""
    return ("--user=root",) if os.geteuid() == 0 else ()


@asynccontextmanager
async def _running(directory: Path, found: MariaDb) -> AsyncIterator[None]:
    network = ("--bind-address=127.0.0.1", f"--port={found.port}") if found.port else ("--skip-networking",)
    with (directory / "server.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            "mariadbd",
            "--no-defaults",
            f"--datadir={directory}/data",
            f"--socket={found.socket}",
            f"--pid-file={directory}/pid",
            *network,
            *_user(),
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            "--innodb-flush-log-at-trx-commit=0",  # It outlives no host that dies.
            "--skip-name-resolve",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=found.environment,
            start_new_session=True,
        )
        try:
            await _prepare(directory, found, server)
            yield
        finally:
            with suppress(ProcessLookupError):
                server.terminate()
            try:
                await asyncio.wait_for(server.wait(), STOP_REAL_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    server.kill()
                await server.wait()


async def _prepare(directory: Path, found: MariaDb, server: asyncio.subprocess.Process) -> None:
    """The database with its tables and its user, as soon as the server answers."""
    client = ("mariadb", "--no-defaults", "-S", str(found.socket), "-u", "root")
    hosts = ("localhost", "127.0.0.1")
    users = "".join(
        f"CREATE USER '{USER}'@'{host}' IDENTIFIED BY '{found.password}'; "
        f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'{host}'; "
        for host in hosts
    )
    text = f"CREATE DATABASE {DATABASE} CHARACTER SET latin1; {users} USE {DATABASE}; {SCHEMA}"
    loop = asyncio.get_running_loop()
    give_up = loop.time() + START_REAL_S
    while True:
        asked = await asyncio.create_subprocess_exec(
            *client,
            "-e",
            "SELECT 1",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=found.environment,
        )
        if not await asked.wait():
            break
        if server.returncode is not None or loop.time() > give_up:
            raise RuntimeError(
                f"MariaDB does not start: {(directory / 'server.log').read_text(errors='replace')[-2000:]}"
            )
        await asyncio.sleep(LOOK_REAL_S)
    made = await asyncio.create_subprocess_exec(
        *client, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=found.environment,
    )  # fmt: skip
    said, _ = await made.communicate(text.encode())
    if made.returncode:
        raise RuntimeError(f"the surveys database cannot be made: {said.decode(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
