"""`aglowctl` as a process of its own, in front of a real store and a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import pytest
from populated import ARCHIVED, OFFERED, WAITS, WRONG, fill, healthy
from support import Put, effect_row, one

from aglowd import __version__
from aglowd.cli import render
from aglowd.cli.control import main
from aglowd.clock import Clock
from aglowd.control import Control, Verdict
from aglowd.effects.engine import Engine
from aglowd.model import FieldView
from aglowd.store.doubts import Finding, Word
from aglowd.store.store import Store

# A shell that runs the tests in the background lets its children ignore Ctrl-C; aglowctl is started as from a terminal.
ARGV = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from aglowd.cli.control import main; main(prog_name='aglowctl')",
)
COLOUR = re.compile(r"\x1b\[[0-9;]*3\dm")


class Served:
    """A daemon's socket, and the command that asks it."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.store = store

    async def begin(
        self, *args: str, stdout: int = subprocess.PIPE, env: Mapping[str, str] = MappingProxyType({})
    ) -> asyncio.subprocess.Process:
        """The command, under way."""
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        environ = {**inherited, "AGLOWD_SOCKET": str(self.path), "COLUMNS": "200", "TERM": "xterm", **env}
        return await asyncio.create_subprocess_exec(*ARGV, *args, stdout=stdout, stderr=subprocess.PIPE, env=environ)

    async def run(self, *args: str, **env: str) -> tuple[int | None, str, str]:
        """Return code, stdout and stderr of the command."""
        process = await self.begin(*args, env=env)
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    async def run_on_terminal(self, *args: str, **env: str) -> str:
        """What the command writes to a terminal."""
        ours, theirs = os.openpty()
        process = await self.begin(*args, stdout=theirs, env=env)
        os.close(theirs)
        out = await asyncio.to_thread(_read_all, ours)
        await process.communicate()
        os.close(ours)
        assert process.returncode == 0
        return out


def _read_all(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 65_536):
            parts.append(part)
    except OSError:  # EIO is how a terminal ends.
        pass
    return b"".join(parts).decode()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    store = Store(tmp_path / "aglowd.db", Clock())
    await store.open()
    await fill(store)
    path = tmp_path / "aglowd.sock"
    nobody: Any = None  # A word of a person's asks no outside system.
    engine = Engine(store, nobody, {"create_tokens": Put}, store.clock)

    async def settle(verdict: Verdict, uid: int) -> str:
        return await engine.settle(verdict.key, verdict.action, verdict.ref, Word(uid, verdict.reason))

    async with Control(store, healthy, store.clock, "1.2.3", settle).serve(path):
        yield Served(path, store)
    await store.close()


async def test_status(served: Served) -> None:
    rc, out, err = await served.run("status")
    assert (rc, err) == (0, "")
    assert "aglowd 1.2.3, pid" in out
    assert "alive; ready" in out
    assert "1 running" in out
    assert "DOUBT" in out
    assert re.search(r"picas\s+down\s+never\s+3 in a row: connection refused", out)
    assert "11h 6m left" in out


async def test_fields(served: Served) -> None:
    rc, out, _ = await served.run("fields")
    assert rc == 0
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert rows.keys() == {WAITS, ARCHIVED, WRONG, OFFERED}
    assert "srm3.txt mixes L1 and L2" in rows[WRONG]
    rc, out, _ = await served.run("fields", "--state", "failed", "--json")
    assert [field["field"] for field in json.loads(out)["fields"]] == [WRONG]


async def test_show(served: Served) -> None:
    rc, out, _ = await served.run("show", WAITS)
    assert rc == 0
    assert f"{WAITS}: running" in out
    assert re.search(r"archive\s+copy\s+pending", out)


async def test_explain(served: Served) -> None:
    rc, out, _ = await served.run("explain", WAITS)
    assert rc == 0
    assert re.search(
        r"stage \(stage\) is waiting, attempt 1, since (?:\d+[dhms] )+\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)", out
    )
    assert "why        LTA request 12: 188 of 244 online" in out
    assert "waits for  staging:12" in out
    assert re.search(r"evidence   observed \d+s ago: online 188, total 244", out)
    assert re.search(r"until      in 5h 59m \(|until      in 6h \(", out)
    assert re.search(r"fails      unless it has ended in (6d 23h|7d) \(", out)
    assert "/create_tokens/0, doubt, tries: 1: two documents answer to the key\n" in out
    assert "next       aglowd looks for it once an hour" in out
    assert re.search(r"in run calibrator_L229587-1:\n\s+wait \(wait_tokens\) is waiting", out)
    assert "not observed yet" in out


@pytest.mark.parametrize(
    ("field", "text"),
    [(OFFERED, "it has not begun"), (WRONG, "correct the catalogue's row"), (ARCHIVED, "nothing is left to do")],
)
async def test_explain_a_field_that_does_not_move(served: Served, field: str, text: str) -> None:
    rc, out, _ = await served.run("explain", field)
    assert rc == 0
    assert text in out


async def test_events(served: Served) -> None:
    rc, out, _ = await served.run("events", "--since", "0", "--field", WAITS)
    assert rc == 0
    assert all(WAITS in line for line in out.splitlines())
    rc, out, _ = await served.run("events", "--json", "-n", "3")
    assert rc == 0
    assert len([json.loads(line)["id"] for line in out.splitlines()]) == 3


async def test_following_ends_with_ctrl_c(served: Served) -> None:
    process = await served.begin("events", "-f", "-n", "1", "--json")
    assert process.stdout is not None
    await process.stdout.readline()
    await served.store.put_fields([(FieldView("LATE", "NEW"), "")])
    assert json.loads(await process.stdout.readline())["field"] == "LATE"
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_following_ends_with_the_daemon(tmp_path: Path) -> None:
    store = Store(tmp_path / "aglowd.db", Clock())
    await store.open()
    await fill(store)
    served = Served(tmp_path / "aglowd.sock", store)
    async with Control(store, healthy, store.clock, "1").serve(served.path):
        process = await served.begin("events", "-f", "-n", "1")
        assert process.stdout is not None
        await process.stdout.readline()
    _, err = await process.communicate()
    await store.close()
    assert process.returncode == 3
    assert b"aglowd has stopped" in err


async def test_every_read_command_has_json(served: Served) -> None:
    for args in (("status",), ("fields",), ("show", WAITS), ("explain", WAITS), ("version",)):
        rc, out, _ = await served.run(*args, "--json")
        assert rc == 0
        assert json.loads(out)["schema"] == 1


async def test_version(served: Served) -> None:
    rc, out, _ = await served.run("version")
    assert (rc, out) == (0, f"aglowctl {__version__}, aglowd 1.2.3\n")
    rc, out, _ = await served.run("--socket", "/nowhere.sock", "version")
    assert (rc, out) == (0, f"aglowctl {__version__}, aglowd not running\n")


# --- exit codes


async def test_an_unknown_field_is_1(served: Served) -> None:
    rc, out, err = await served.run("explain", "P0")
    assert (rc, out) == (1, "")
    assert err == "aglowctl: there is no field 'P0'; see aglowctl fields\n"


@pytest.mark.parametrize(
    "args", [("explain",), ("nothing",), ("fields", "--state", "happy"), ("events", "--since", "x")]
)
async def test_wrong_usage_is_2(served: Served, args: tuple[str, ...]) -> None:
    rc, _, err = await served.run(*args)
    assert rc == 2
    assert "Usage: aglowctl" in err


async def test_no_daemon_is_3(served: Served, tmp_path: Path) -> None:
    rc, out, err = await served.run("--socket", "/nowhere.sock", "status")
    assert (rc, out) == (3, "")
    assert "aglowd is not running" in err
    assert "systemctl status aglowd" in err
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    assert (await served.run("--socket", str(tmp_path / "dead.sock"), "fields"))[0] == 3


async def test_what_is_no_aglowd_is_1(served: Served, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "mail.sock"):
        rc, _, err = await served.run("--socket", str(tmp_path / "mail.sock"), "status")
    assert rc == 1
    assert "does not answer as aglowd does" in err
    assert "Traceback" not in err


# --- terminals


async def test_a_terminal_gets_colour_and_a_pipe_does_not(served: Served) -> None:
    assert COLOUR.search(await served.run_on_terminal("fields"))
    _, out, _ = await served.run("fields")
    assert out.isascii()


async def test_no_color_is_honoured(served: Served) -> None:
    out = await served.run_on_terminal("fields", NO_COLOR="1")
    assert WAITS in out
    assert not COLOUR.search(out)


async def test_texts_cannot_steer_the_terminal(served: Served) -> None:
    await served.store.put_fields([(FieldView("EVIL", "SND"), "\x1b[2J[bold]gone\nnext")])
    for out in ((await served.run("fields"))[1], await served.run_on_terminal("fields", NO_COLOR="1")):
        assert "[2J[bold]gone next" in out
        assert "\x1b[2J" not in out


def test_words() -> None:
    assert render.since(7500.0, 0.0) == "since 2h 5m (1970-01-01T00:00:00Z)"
    assert render.until(0.0, 3600.0) == "in 1h (1970-01-01T01:00:00Z)"
    assert render.until(3600.0, 0.0) == "now (1970-01-01T00:00:00Z)"
    assert render.ago(10.0, None) == "never"


def test_every_command_explains_itself_with_an_example() -> None:
    for command in (main, *main.commands.values()):
        assert command.help
        assert command.epilog is not None
        assert "Example: aglowctl" in command.epilog
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help


async def test_doubt_lists_and_settles(served: Served) -> None:
    rc, out, err = await served.run("doubt")
    assert (rc, err) == (0, "")
    (key,) = re.findall(r"^(\S+/create_tokens/0) \(P229\+62\)$", out, flags=re.MULTILINE)
    assert "doubt   two documents answer to the key" in out
    rc, out, err = await served.run("doubt", "retry", key, "--reason", "one was removed by hand")
    assert (rc, err) == (0, "")
    assert out == f"{key}: done again, under the same key\n"
    assert (await effect_row(served.store, key))["state"] == "planned"
    event = await one(served.store, "SELECT * FROM events WHERE kind = 'DoubtRetried'")
    assert json.loads(event["data"])["uid"] == os.getuid()
    assert json.loads(event["data"])["reason"] == "one was removed by hand"
    rc, out, err = await served.run("doubt", "forget", key)
    assert (rc, out) == (1, "")
    assert err == f"aglowctl: {key} is planned: there is nothing to settle\n"
    rc, out, _ = await served.run("doubt", "--json")
    assert (rc, json.loads(out)["doubts"]) == (0, [])


def test_what_was_seen_is_counted_where_it_is_long() -> None:
    assert render.evidence({"done": 3, "nodes": {"a": "running"}}) == "done 3, nodes {a running}"
    nodes = {f"https://wms/{number}": "running" for number in range(100)}
    assert render.evidence({"final": False, "nodes": nodes}) == "final False, nodes 100 entries"
    held = {f"t:{number}": {"host": "wn", "state": "locked"} for number in range(100)}
    assert render.evidence(held) == "100 entries"
    assert render.evidence(dict(list(held.items())[:1])) == "t:0 {host wn, state locked}"
    assert render.evidence(list(range(300))) == "300 entries"


def test_a_run_is_named_once_above_its_steps() -> None:
    step = {"kind": "k", "state": "waiting", "attempt": 1, "since": 0.0, "reason": "r", "waits_for": [], "effects": []}
    step |= {"due": None, "deadline": None, "next": "n"}
    inner = [{**step, "step": name, "run": run} for name, run in (("a", "x-1"), ("b", "x-1"), ("c", "y-1"))]
    answer = {"field": "P1", "state": "running", "run": None, "now": 0.0}
    page = render.explain({**answer, "steps": [{**step, "step": "s", "run": "P1-1", "inner": inner}]})
    assert [line for line in page if "in run" in str(line)] == ["  in run x-1:", "  in run y-1:"]


async def test_doubt_shows_what_the_audit_found(served: Served) -> None:
    await served.store.record_findings("staging:", [Finding("staging:9", "stranger", "LTA request 9 is not\x1b ours")])
    _, out, _ = await served.run("doubt")
    assert re.search(r"found by the audit:\nstaging:9 \(stranger\), since (?:\d+[dhms] )+\(", out)
    assert "\n  LTA request 9 is not  ours\n" in out
    assert "AUDIT    1 things" in (await served.run("status"))[1]
    rc, out, _ = await served.run("doubt", "forget", "staging:9", "--reason", "a colleague's")
    assert (rc, out) == (0, "staging:9: dismissed; the event log keeps it\n")
    assert "AUDIT" not in (await served.run("status"))[1]
