"""Lines in the journal's own protocol, as a socket in its place receives them; and where else a log may go."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from aglowd import journald, log
from aglowd.errors import AglowError
from aglowd.journald import Journal


class FakeJournal:
    """A datagram socket that reads what systemd-journald would."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.sealed = False

    def read(self) -> dict[str, str]:
        """The fields of the next line."""
        data, fds, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
        for fd in fds:
            assert data == b""
            self.sealed = bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
            with open(fd, "rb") as file:
                file.seek(0)
                data = file.read()
        return decoded(data)

    def drain(self) -> int:
        count = 0
        while True:
            try:
                self._socket.recv(1 << 20)
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._socket.close()


def decoded(data: bytes) -> dict[str, str]:
    """As https://systemd.io/JOURNAL_NATIVE_PROTOCOL says."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    made = FakeJournal(tmp_path / "j")
    yield made
    made.close()


@pytest.fixture
def own_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    log._secrets.clear()


@pytest.fixture
def stream(tmp_path: Path, own_log: None) -> Iterator[TextIO]:
    with (tmp_path / "stdout").open("w+", encoding="utf-8") as file:
        yield file


def tie(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd does it to stdout."""
    found = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")


def test_a_line_has_fields_of_its_own(journal: FakeJournal, stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    tie(stream, monkeypatch)
    log.configure("auto", "info", stream, journal=journal.path)
    log.register_secret("hunter2hunter2")
    bound = structlog.get_logger("effects").bind(
        field="P229+62", run="P229+62-1", step="stage", effect="P229+62-1/s/1/x/0"
    )
    bound.warning("effect_odd", reason="no answer with hunter2hunter2", tries=3)
    fields = journal.read()
    data = json.loads(fields.pop("AGLOW_DATA"))
    assert fields == {
        "MESSAGE": "effect_odd field=P229+62 run=P229+62-1 step=stage effect=P229+62-1/s/1/x/0 "
        'reason="no answer with ***" tries=3',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "aglowd",
        "AGLOW_FIELD": "P229+62",
        "AGLOW_RUN": "P229+62-1",
        "AGLOW_STEP": "stage",
        "AGLOW_EVENT": "effect_odd",
        "AGLOW_EFFECT": "P229+62-1/s/1/x/0",
    }
    assert (data["event"], data["reason"], data["level"]) == ("effect_odd", "no answer with ***", "warning")
    assert stream.tell() == 0, "nothing is written twice"
    assert log.place()["to"] == "journal"


def test_a_traceback_is_several_lines_of_one_message(
    journal: FakeJournal, stream: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    tie(stream, monkeypatch)
    log.configure("auto", "info", stream, journal=journal.path)
    try:
        raise ValueError("a row of three")
    except ValueError:
        structlog.get_logger("reactor").exception("decision_failed", field="P1")
    fields = journal.read()
    first, *frames, last = fields["MESSAGE"].splitlines()
    assert (first, last, fields["PRIORITY"]) == ("decision_failed field=P1", "  ValueError: a row of three", "3")
    assert "test_journald.py" in frames[-1]


def test_what_is_too_long_for_a_datagram_is_sent_in_a_sealed_file(journal: FakeJournal) -> None:
    told = Journal(journal.path)
    long = "x" * 900_000
    told.tell(json.dumps({"event": "long", "level": "info", "what": long}))
    fields = journal.read()
    assert fields["MESSAGE"] == f"long what={long}"
    assert journal.sealed
    told.close()


def test_a_journal_that_hangs_costs_its_wait_once_and_hears_how_many_were_lost(
    journal: FakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journald, "WAIT_REAL_S", 0.02)
    told = Journal(journal.path)
    waits: list[float | None] = []
    line = json.dumps({"event": "x", "level": "info"})
    while told._lost < 5:
        told.tell(line)
        waits.append(told._socket.gettimeout())
    assert waits[-5:] == [0.0] * 5
    assert set(waits[:-5]) == {0.02}
    journal.drain()
    told.tell(line)
    fields = journal.read()
    assert fields["AGLOW_LOST"] == "5"
    assert fields["MESSAGE"] == "x (the journal did not take 5 lines before this one)"
    told.tell(line)
    assert "AGLOW_LOST" not in journal.read()
    assert told._socket.gettimeout() == 0.02
    told.close()


def test_a_journal_that_is_away_is_no_reason_to_fail(tmp_path: Path) -> None:
    told = Journal(str(tmp_path / "none"))
    told.tell(json.dumps({"event": "x", "level": "info"}))
    made = FakeJournal(tmp_path / "none")
    told.tell(json.dumps({"event": "y", "level": "info"}))
    assert made.read()["AGLOW_LOST"] == "1"
    told.close()
    made.close()


@pytest.mark.parametrize("named", ["", "1:2", "nonsense"])
def test_a_stream_that_was_only_inherited_is_not_the_journal(
    named: str, stream: TextIO, monkeypatch: pytest.MonkeyPatch, journal: FakeJournal
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", named)
    log.configure("auto", "info", stream, journal=journal.path)
    structlog.get_logger("x").info("ready")
    stream.seek(0)
    assert json.loads(stream.read())["event"] == "ready"
    assert log.place() == {"to": "file", "path": stream.name}


def test_who_wants_json_below_systemd_gets_it(
    stream: TextIO, monkeypatch: pytest.MonkeyPatch, journal: FakeJournal
) -> None:
    tie(stream, monkeypatch)
    log.configure("json", "info", stream, journal=journal.path)
    structlog.get_logger("x").info("ready")
    assert stream.tell() > 0
    assert journal.drain() == 0
    assert (log.place()["to"], log.place()["native"]) == ("journal", "")


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, own_log: None) -> None:
    path = tmp_path / "aglowd.log"
    log.configure("auto", "info", path=str(path))
    logger = structlog.get_logger("x")
    logger.info("ready")
    path.rename(tmp_path / "aglowd.log.1")
    logger.info("stopping")
    said: list[Any] = [json.loads(one.read_text())["event"] for one in (tmp_path / "aglowd.log.1", path)]
    assert said == ["ready", "stopping"]
    assert log.place() == {"to": "file", "path": str(path)}


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path, own_log: None) -> None:
    with pytest.raises(AglowError, match=r"daemon\.log_file: .*/none/aglowd\.log cannot be opened: No such file"):
        log.configure("auto", "info", path=str(tmp_path / "none" / "aglowd.log"))
