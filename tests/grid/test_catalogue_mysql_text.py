"""The surveys database as text: rows as fields, statements from what columns there are, and what errors mean."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid import catalogue, catalogue_mysql_text, mysql
from aglowd.grid.catalogue import Shown
from aglowd.grid.catalogue_mysql import MySqlCatalogue, Whoami
from aglowd.grid.catalogue_mysql_text import (
    MAX_WORD_CHARS,
    Columns,
    columns_of,
    id_of,
    joined_key,
    look_statement,
    row_of,
    rows_of,
    rows_statement,
    shown_by,
    stamp_statement,
    write_statement,
)
from aglowd.grid.mysql import Place, Tunnel, _Forwarding, failure_of

WHOLE = Columns(frozenset({"id", "field", "status", *catalogue_mysql_text.OBSERVATION}), frozenset({"id", "priority"}))
LEAST = Columns(frozenset({"id", "field", "status"}), frozenset({"id"}))


def record(**values: Any) -> tuple[Any, ...]:
    """A row as the server would send it."""
    known = {
        "id": 229511,
        "field": "P22Hetdex04",
        "status": "Observed",
        "field_priority": 3,
        "nchan": 8,
        "dt": 2.0132,
        "nsb": 242,
        "calibrator_id": 229507,
        "calibrator_nchan": 16,
        "calibrator_dt": 1,
        "calibrator_nsb": 244,
        "bad_baselines": "[CR]S",
        "demix_sources": "CasA",
        "priority": 2,
        "location": "Juelich",
    }
    return tuple({**known, **values}.values())


def row(**values: Any) -> catalogue.Row:
    return row_of(record(**values), "the database", ("Observed",))


def test_an_observation_is_a_field() -> None:
    found = row()
    assert (found.name, found.field_name, found.status) == ("P22Hetdex04_L229511", "P22Hetdex04", "Observed")
    assert (found.target_obsid, found.calibrator_obsid) == ("L229511", "L229507")
    assert (found.target_freq_resolution, found.target_time_resolution, found.target_subbands) == (8, 2.0132, 242)
    assert (found.calibrator_freq_resolution, found.calibrator_time_resolution) == (16, 1.0)
    assert (found.baseline_filter, found.demix_sources) == ("[CR]S", "CasA")
    assert (found.priority, found.site, found.problem) == ((2, 3), "juelich", None)


@pytest.mark.parametrize(
    ("location", "site"), [("Sara", "sara"), ("Juelich", "juelich"), ("Poznan", "poznan"), (None, "")]
)
def test_sites_are_called_as_everywhere(location: str | None, site: str) -> None:
    assert row(location=location).site == site


def test_what_nobody_knows_is_none() -> None:
    found = row(nchan=None, dt=0, nsb=-1, priority=None, field_priority=None, bad_baselines=None, demix_sources=None)
    assert (found.target_freq_resolution, found.target_time_resolution, found.target_subbands) == (None, None, None)
    assert (found.priority, found.baseline_filter, found.demix_sources, found.problem) == ((0, 0), "", "", None)
    assert row(priority=-1).priority == (-1, 3)
    assert row(status=None).status == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"field": None}, "found no field"),
        ({"field": "two words"}, "found field 'two words'"),
        ({"field": "a/b"}, "found field 'a/b'"),
        ({"field": "P" * catalogue.MAX_NAME_CHARS}, "at most 64"),
        ({"calibrator_id": None}, "found calibrator_id ''"),
        ({"nsb": "many"}, "found nsb 'many'"),
        ({"dt": float("nan")}, "found dt 'nan'"),
        ({"priority": "high"}, "found priority 'high'"),
    ],
)
def test_a_bad_row_that_may_be_taken_is_named_and_one_of_the_past_is_nobodys_concern(
    values: dict[str, Any], words: str
) -> None:
    problem = row(**values).problem
    assert problem
    assert problem.startswith("the database, observation 229511: ")
    assert words in problem
    assert row(**values, status="Archived").problem is None


def test_a_database_has_so_many_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_mysql_text, "MAX_FIELDS", 2)
    assert len(rows_of([record()] * 2, "x", ())) == 2
    with pytest.raises(Permanent, match="at most 2 observations"):
        rows_of([record()] * 3, "x", ())
    assert catalogue.MAX_FIELDS == 100_000


@pytest.mark.parametrize(("name", "found"), [("P1_L229511", "229511"), ("P1_L1_L22", "22"), ("P+1@x_L3", "3")])
def test_a_name_tells_its_observation(name: str, found: str) -> None:
    assert id_of(name) == found


@pytest.mark.parametrize("name", ["P1", "_L22", "P1_L", "P1_L22x", "P1_L22\n", "P1_L" + "9" * 13])
def test_a_name_that_tells_none_is_absent(name: str) -> None:
    with pytest.raises(Permanent) as caught:
        id_of(name)
    assert caught.value.absent


def test_what_a_database_lacks_is_asked_as_null() -> None:
    assert rows_statement(LEAST).startswith(f"SELECT o.id, o.field, o.status{', NULL' * 12} FROM observations")
    assert "f.priority, o.nchan" in rows_statement(WHOLE)
    assert "NULL" not in stamp_statement(LEAST)
    assert stamp_statement(WHOLE).count("COALESCE") == 15


def test_columns_for_us_are_written_where_they_are() -> None:
    plain, ours = write_statement(LEAST, "start_date")
    assert plain.startswith("UPDATE observations SET status = %s WHERE id = %s AND COALESCE(CAST(status AS BINARY)")
    assert ours == ()
    named = Columns(frozenset({*LEAST.observations, "username", "nodename", "aglowd_key", "end_date"}), LEAST.fields)
    for date, set_ in (("start_date", ""), ("end_date", ", end_date = NOW()"), ("", "")):
        statement, ours = write_statement(named, date)
        assert f"SET status = %s, username = %s, nodename = %s, aglowd_key = %s{set_} WHERE" in statement
        assert ours == ("user", "node", "key")
        assert statement.endswith("AND COALESCE(aglowd_key, '') = %s"), "the key is compared, too"
    assert "o.aglowd_key" in look_statement(named, hold=False)
    assert look_statement(LEAST, hold=True).endswith("FOR UPDATE")


def test_missing_tables_and_columns_are_named() -> None:
    rows = [("observations", "ID"), ("observations", "field"), ("fields", "id")]
    with pytest.raises(Permanent, match=r"x has no observations\.status that we may read"):
        columns_of(rows, "InnoDB", "x")
    found = columns_of([*rows, ("observations", "status"), ("aglowd_writes", "status")], "MyISAM", "x")
    assert (found.has_writes, found.is_transactional, found.keeps_keys) == (True, False, False)
    assert columns_of([*rows, ("observations", "status"), ("aglowd_writes", "at")], "InnoDB", "x").keeps_keys


def test_a_key_stands_for_one_status() -> None:
    written = joined_key("k/1", "ui1:/a@b", "Not started")
    assert shown_by(written, "Not started") == Shown("Not started", "k/1", "ui1:/a@b")
    assert shown_by(written, "Observed") == Shown("Observed")
    assert shown_by("", "Observed") == Shown("Observed")
    of_an_older_release = shown_by("k/1 DI_started", "DI_started")
    assert (of_an_older_release.our_key("me"), of_an_older_release.holder("me")) == ("k/1", "")


@pytest.mark.parametrize(
    ("number", "read", "write"),
    [
        (1045, Temporary, Temporary),
        (1142, Permanent, Permanent),
        (1049, Permanent, Permanent),
        (1406, Permanent, Permanent),
        (1205, Temporary, Temporary),
        (1213, Temporary, Temporary),
        (2003, Temporary, Temporary),
        (2006, Temporary, Unknown),
        (2013, Temporary, Unknown),
        (1053, Temporary, Unknown),
        (1317, Temporary, Unknown),
    ],
)
def test_what_an_error_means(number: int, read: type[Exception], write: type[Exception]) -> None:
    error = RuntimeError(number, "said\n the server")
    for is_write, kind in ((False, read), (True, write)):
        found = failure_of(error, "the database x", is_write=is_write)
        assert type(found) is kind
        assert str(found) == f"the database x: said the server (error {number})"


def test_what_is_no_error_of_the_server_is_unknown_for_a_write() -> None:
    assert type(failure_of(IndexError("half a packet"), "x", is_write=True)) is Unknown
    assert str(failure_of(TimeoutError(), "x", is_write=False)) == "x: TimeoutError"


@pytest.mark.parametrize("word", ["", " x", "a\nb", "x" * (MAX_WORD_CHARS + 1)])
async def test_a_word_that_is_none_is_not_written(word: str, tmp_path: Path) -> None:
    unasked: Any = type("Unasked", (), {"place": Place("h", 1, "surveys")})
    with pytest.raises(Permanent, match="expected a word or two"):
        await MySqlCatalogue(unasked, Whoami("d", "c"), tmp_path / "m").write_status("P1_L1", "a", word, "k")


async def test_neither_library_is_imported_before_it_is_used() -> None:
    code = "import aglowd.wiring, sys; print(*{'asyncmy', 'asyncssh'} & set(sys.modules))"
    asked = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await asked.communicate())[0] == b"\n"
    assert asked.returncode == 0


class Anybody(asyncssh.SSHServer):
    """Lets everybody in and digs tunnels to anywhere."""

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def test_a_tunnel_is_dug_to_a_free_port_and_anew_when_it_has_fallen_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "CONNECT_REAL_S", 10)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    far = await asyncio.start_server(echo, "127.0.0.1", 0)
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(Anybody, "127.0.0.1", 0, server_host_keys=[key])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.get_port()} {key.export_public_key().decode()}")
    tunnel = Tunnel("127.0.0.1", "somebody", "", str(tmp_path / "known"), server.get_port())
    forwarding = _Forwarding(tunnel, Place("127.0.0.1", far.sockets[0].getsockname()[1], "surveys"))

    async def said(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    try:
        port = await forwarding.port()
        assert await said(port) == b"hello\n"
        assert await forwarding.port() == port
        forwarding._connection.abort()
        await forwarding._connection.wait_closed()
        assert await said(await forwarding.port()) == b"hello\n"
        (tmp_path / "known").write_text("")
        with pytest.raises(Temporary, match=r"no SSH tunnel through 127\.0\.0\.1"):
            await _Forwarding(tunnel, Place("127.0.0.1", 1, "surveys")).port()
    finally:
        await forwarding.close()
        server.close()
        await server.wait_closed()
        far.close()
        await far.wait_closed()
