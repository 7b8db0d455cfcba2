"""The surveys database on a real MariaDB: the contract of catalogues, and what only such a server can do to us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from msgspec import structs

from aglowd.adoption import Adoption, AdoptOrder
from aglowd.clock import Clock
from aglowd.config import load_config
from aglowd.credentials import Secrets
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid import mysql
from aglowd.grid.catalogue_mysql import MySqlCatalogue, Whoami
from aglowd.grid.gate import Credential, Site
from aglowd.grid.mysql import MySql, Place, Tunnel
from aglowd.selection import Limits
from aglowd.sim.mariadb import DATABASE, USER, MariaDb
from aglowd.store.store import Store
from aglowd.watchers.fields import Fields
from aglowd.wiring import build_world, load_pipelines
from tests.grid.test_catalogue_contract import *  # noqa: F403 # Every test of it, with the houses of conftest.py.

from . import surveys

NAME = "P1+10_L229509"


def over_tcp(database: MariaDb, tmp_path: Path, port: int, tunnel: Tunnel | None = None) -> MySqlCatalogue:
    credential = Credential("catalogue", user=USER, password=database.password)
    place = Place("127.0.0.1", port, DATABASE)
    return MySqlCatalogue(
        MySql(Site("catalogue", Clock()), credential, place, tunnel),
        Whoami("daemon#1", "Spider", "somebody", "ui1"),
        tmp_path / "marks.json",
        offered=("Observed",),
        starts=("DI_started",),
        ends=("Archived",),
    )


async def test_a_wrong_password_freezes_the_credential(mariadb: MariaDb, tmp_path: Path) -> None:
    credential = Credential("catalogue", user=USER, password="guessed-wrongly")
    place = Place("", 1, DATABASE, str(mariadb.socket))
    catalogue = MySqlCatalogue(MySql(Site("c", Clock()), credential, place), Whoami("d", "c"), tmp_path / "m")
    with pytest.raises(Temporary, match=r"was refused by .* renew it"):
        await catalogue.rows()
    with pytest.raises(Temporary, match="credential catalogue is frozen"):
        await catalogue.write_status(NAME, "Observed", "DI_started", "k")
    assert credential.frozen
    credential.password = mariadb.password
    credential.thaw()
    assert await catalogue.stamp()
    await catalogue.close()


async def test_what_we_may_not_do_is_permanent_and_named(mariadb: MariaDb, tmp_path: Path) -> None:
    house = await surveys.house(mariadb, tmp_path, "no table")
    await mariadb.sql(f"REVOKE UPDATE ON observations FROM '{surveys.PLAIN}'@'localhost';")
    catalogue = house.catalogue()
    with pytest.raises(Permanent, match="denied"):
        await catalogue.write_status(NAME, "Observed", "DI_started", "k")
    assert await catalogue.read_status(NAME) == ("Observed", None)
    await mariadb.sql("DROP TABLE fields;")
    other = house.catalogue()
    with pytest.raises(Permanent, match=r"no fields\.id that we may read"):
        await other.rows()
    await catalogue.close()
    await other.close()


async def test_a_server_that_is_not_there_is_temporary(mariadb: MariaDb, tmp_path: Path) -> None:
    catalogue = over_tcp(mariadb, tmp_path, 1)
    for work in (catalogue.rows(), catalogue.write_status(NAME, "Observed", "DI_started", "k")):
        with pytest.raises(Temporary):
            await work
    await catalogue.close()


async def test_a_connection_that_the_server_ended_is_made_anew(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await surveys.house(mariadb, tmp_path, "table")
    catalogue = house.catalogue()
    first = await catalogue.stamp()
    monkeypatch.setattr(mysql, "IDLE_REAL_S", 0.0)
    await mariadb.sql(f"KILL USER {USER};")
    assert await catalogue.stamp() == first
    await catalogue.close()


async def test_a_table_that_somebody_locks_is_waited_for_and_not_for_ever(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team's own programs hold LOCK TABLES for as long as they run."""
    house = await surveys.house(mariadb, tmp_path, "table")
    monkeypatch.setattr(mysql, "LOCK_WAIT_S", 1)
    catalogue = house.catalogue()
    await catalogue.stamp()
    client = ("mariadb", "--no-defaults", "-S", str(mariadb.socket), "-u", "root", "-n", "-N", DATABASE)
    other = await asyncio.create_subprocess_exec(
        *client, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=mariadb.environment
    )
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(b"LOCK TABLES observations WRITE, fields WRITE; SELECT 'locked';\n")
    assert await other.stdout.readline() == b"locked\n"
    for work in (catalogue.stamp(), catalogue.write_status(NAME, "Observed", "DI_started", "k")):
        with pytest.raises(Temporary, match=r"(?i)lock wait timeout"):
            await work
    other.stdin.close()
    await other.wait()
    assert await catalogue.read_status(NAME) == ("Observed", None)
    await catalogue.write_status(NAME, "Observed", "DI_started", "k")
    await catalogue.close()


@asynccontextmanager
async def cutting(port: int, *, at: bytes, passes_on: bool) -> AsyncIterator[int]:
    """A port of that server that cuts the line when the client says `at` after an UPDATE: before the server has heard it, or after."""

    begun, cut, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()
    serving: list[Any] = []

    async def answer(far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await far.read(65536):
            if cut.is_set() and not heard.is_set():
                heard.set()
                return
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        task = asyncio.create_task(answer(far_reader, writer))
        while data := await reader.read(65536):
            if b"UPDATE observations" in data:
                begun.set()
            if at in data and begun.is_set() and not cut.is_set():
                cut.set()
                if passes_on:
                    far_writer.write(data)
                    await heard.wait()
                break
            far_writer.write(data)
        heard.set()
        task.cancel()
        await asyncio.wait([task])
        for end in (far_writer, writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serving)


@pytest.mark.parametrize("happened", [False, True])
async def test_a_commit_that_got_no_answer_is_unknown_and_found(
    mariadb: MariaDb, tmp_path: Path, happened: bool
) -> None:
    await surveys.house(mariadb, tmp_path, "table")
    async with cutting(mariadb.port, at=b"COMMIT", passes_on=happened) as port:
        catalogue = over_tcp(mariadb, tmp_path, port)
        with pytest.raises(Unknown):
            await catalogue.write_status(NAME, "Observed", "DI_started", "run/claim")
        found = await catalogue.read_status(NAME)
        assert found == (("DI_started", "run/claim") if happened else ("Observed", None))
        await catalogue.write_status(NAME, "Observed", "DI_started", "run/claim")
        assert await catalogue.read_status(NAME) == ("DI_started", "run/claim")
        await catalogue.close()


async def test_without_a_place_for_keys_a_lost_answer_leaves_a_doubt(mariadb: MariaDb, tmp_path: Path) -> None:
    await surveys.house(mariadb, tmp_path, "no transactions")
    async with cutting(mariadb.port, at=b"COMMIT", passes_on=True) as port:
        catalogue = over_tcp(mariadb, tmp_path, port)
        with pytest.raises(Unknown):
            await catalogue.write_status(NAME, "Observed", "DI_started", "run/claim")
        with pytest.raises(Unknown, match="nobody can tell who wrote it"):
            await catalogue.read_status(NAME)
        await catalogue.write_status(NAME, "DI_started", "DI_cal_done", "run/next")
        assert await catalogue.read_status(NAME) == ("DI_cal_done", "run/next"), "a person said that it was ours"
        await catalogue.close()


async def test_who_and_when_is_written_where_the_table_has_columns_for_it(mariadb: MariaDb, tmp_path: Path) -> None:
    house = await surveys.house(mariadb, tmp_path, "column")
    await mariadb.sql(
        "ALTER TABLE observations ADD username VARCHAR(64), ADD clustername VARCHAR(64), ADD nodename VARCHAR(64), "
        "ADD start_date DATETIME, ADD end_date DATETIME;"
    )
    asked = (
        "SELECT username, clustername, nodename, start_date > NOW() - INTERVAL 1 MINUTE, end_date IS NULL, aglowd_key "
        "FROM observations WHERE id = 229509;"
    )
    catalogue = house.catalogue()
    await catalogue.write_status(NAME, "Observed", "DI_started", "k/1")
    assert (await mariadb.sql(asked)).split("\t") == [
        "somebody",
        "Spider",
        "ui1",
        "1",
        "1",
        "k/1@daemon#1 DI_started\n",
    ]
    await catalogue.write_status(NAME, "DI_started", "Archived", "k/2")
    assert (await mariadb.sql(asked)).split("\t") == ["somebody", "Spider", "ui1", "1", "0", "k/2@daemon#1 Archived\n"]
    assert (await mariadb.sql("SELECT status, username FROM fields WHERE id = 'P1+10';")) == "Not started\tNULL\n"
    await catalogue.close()


async def test_a_word_that_the_table_would_cut_is_not_left_there(mariadb: MariaDb, tmp_path: Path) -> None:
    house = await surveys.house(mariadb, tmp_path, "table")
    await mariadb.sql("ALTER TABLE observations MODIFY status VARCHAR(12); SET GLOBAL sql_mode = '';")
    catalogue = house.catalogue()
    try:
        with pytest.raises(Permanent, match="after writing 'DI_started_long'"):
            await catalogue.write_status(NAME, "Observed", "DI_started_long", "k/1")
        assert await catalogue.read_status(NAME) == ("Observed", None)
    finally:
        await mariadb.sql("SET GLOBAL sql_mode = DEFAULT;")
        await catalogue.close()


async def test_case_matters(mariadb: MariaDb, tmp_path: Path) -> None:
    """DI_Processed and DI_processed are one word for the server, and two for us."""
    house = await surveys.house(mariadb, tmp_path, "table")
    await house.by_hand(NAME, "DI_processed")
    catalogue = house.catalogue()
    with pytest.raises(Permanent, match=r"found .*DI_processed"):
        await catalogue.write_status(NAME, "DI_Processed", "Archived", "k/1")
    await catalogue.close()


async def test_a_broken_row_that_is_taken_over_says_what_is_wrong_with_it(mariadb: MariaDb, tmp_path: Path) -> None:
    house = await surveys.house(mariadb, tmp_path, "table")
    await mariadb.sql("UPDATE observations SET status = 'DI_cal_done', calibrator_id = NULL WHERE id = 229509;")
    await mariadb.sql("UPDATE observations SET status = 'Archived', calibrator_id = NULL WHERE id = 229511;")
    (tmp_path / "password").write_text(mariadb.password)
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "aglowd.toml").write_text(
        f'[catalogue]\nkind = "mysql"\nsrm_dir = "srm"\nsocket = "{mariadb.socket}"\nuser = "{USER}"\n'
        f'password_file = "{tmp_path}/password"\n[daemon]\nstate_dir = "{tmp_path}/state"\n'
        '[sites.sara]\nresults = "file:///r"\narchive = "file:///a"\n'
    )
    config = load_config(tmp_path / "aglowd.toml")
    words = structs.asdict(config.catalogue.statuses)
    sksp = load_pipelines("", "sksp")["sksp"]
    store = Store(tmp_path / "state" / "aglowd.db", Clock())
    await store.open()
    world, _ = build_world(config, store.clock, Secrets(config), "here", [words[word] for word in sksp.adopt])
    try:
        await Fields(world, store, 300.0)._read()
        outside = (world.token_base, world.catalogue, world.storage)
        adoption = Adoption(store, sksp, words, {}, *outside, Limits(10))
        with pytest.raises(
            AglowError, match=r"observation 229509: found calibrator_id ''; .*correct the catalogue first"
        ):
            await adoption.adopt(AdoptOrder((NAME,)), 1000)
        assert {row.name: row.problem for row in await world.catalogue.rows()}[house.names[1]] is None
    finally:
        await world.http.close()
        await world.catalogue.close()
        await store.close()


class Anybody(asyncssh.SSHServer):
    """Lets one user in and digs tunnels to anywhere."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def test_through_a_tunnel(mariadb: MariaDb, tmp_path: Path) -> None:
    await surveys.house(mariadb, tmp_path, "table")
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(str(tmp_path / "key"))
    (tmp_path / "key").chmod(0o600)
    user_key.write_public_key(str(tmp_path / "authorized"))
    server = await asyncssh.create_server(
        Anybody, "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(tmp_path / "authorized")
    )
    port = server.get_port()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    tunnel = Tunnel("127.0.0.1", "somebody", str(tmp_path / "key"), str(known), port)
    catalogue = over_tcp(mariadb, tmp_path, mariadb.port, tunnel)
    other = over_tcp(mariadb, tmp_path, mariadb.port, tunnel)
    try:
        assert await catalogue.stamp()
        await catalogue.write_status(NAME, "Observed", "DI_started", "k/1")
        assert await other.read_status(NAME) == ("DI_started", "k/1"), "two tunnels do not collide"
        known.write_text(f"[127.0.0.1]:{port} {user_key.export_public_key().decode()}")
        stranger = over_tcp(mariadb, tmp_path, mariadb.port, tunnel)
        with pytest.raises(Temporary, match=r"no SSH tunnel through 127\.0\.0\.1"):
            await stranger.rows()
    finally:
        await catalogue.close()
        await other.close()
        server.close()
        await server.wait_closed()


async def test_a_word_set_between_the_look_and_the_write_stays(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a row cannot be held, the status in the WHERE of the UPDATE is all that protects it."""
    house = await surveys.house(mariadb, tmp_path, "no transactions")
    catalogue = house.catalogue()
    look = catalogue._look  # type: ignore[attr-defined] # the surveys database

    async def look_and_meddle(*values: Any, hold: bool = False) -> Any:
        found = await look(*values, hold=hold)
        if hold:
            await house.by_hand(NAME, "Preprocessed")
        return found

    monkeypatch.setattr(catalogue, "_look", look_and_meddle)
    with pytest.raises(Permanent, match="changed by somebody else at the same moment"):
        await catalogue.write_status(NAME, "Observed", "DI_started", "k/1")
    monkeypatch.undo()
    assert await catalogue.read_status(NAME) == ("Preprocessed", None)
    await catalogue.close()


async def test_a_key_set_between_the_look_and_the_write_stays(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the status stays the same and a row cannot be held, the key in the WHERE of the UPDATE is all that protects it."""
    house = await surveys.house(mariadb, tmp_path, "no transactions")
    await mariadb.sql("ALTER TABLE observations ADD aglowd_key VARCHAR(600);")
    catalogue = house.catalogue()
    look = catalogue._look  # type: ignore[attr-defined] # the surveys database

    async def look_and_meddle(*values: Any, hold: bool = False) -> Any:
        found = await look(*values, hold=hold)
        if hold:
            await mariadb.sql("UPDATE observations SET aglowd_key = 'k/1@theirs#2 Observed' WHERE id = 229509;")
        return found

    monkeypatch.setattr(catalogue, "_look", look_and_meddle)
    with pytest.raises(Permanent, match="changed by somebody else at the same moment"):
        await catalogue.write_status(NAME, "Observed", "Observed", "k/1")
    monkeypatch.undo()
    assert await catalogue.holder(NAME) == "theirs#2 by k/1"
    await catalogue.close()
