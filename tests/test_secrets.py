"""Passwords, tokens and macaroons stay where they belong: what keeps them there, one thing at a time.

A whole run with planted secrets is tests/world/test_secrets.py.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from aglowd import log
from aglowd.cli.daemon import main
from aglowd.clock import Clock
from aglowd.config import CatalogueConfig, Config, LtaConfig, PicasConfig, holds_password, load_config
from aglowd.credentials import Secrets
from aglowd.errors import Permanent, Temporary
from aglowd.grid.batch import Order, Terms
from aglowd.grid.couchdb import _bulk_row
from aglowd.grid.couchdb_feed import _change_in
from aglowd.grid.gate import Credential, Site
from aglowd.grid.gfal import explain
from aglowd.grid.glite import Glite
from aglowd.grid.glite_text import read_status
from aglowd.grid.http import Http, Reply
from aglowd.grid.lta import decode
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.sandbox import SANDBOX_PREFIX, forget_sandboxes
from aglowd.grid.words import MAX_SAID_CHARS, quoted, shown
from aglowd.pipeline_file import load_pipeline
from aglowd.toml_file import ConfigError
from aglowd.wiring import PASSED_ON, handler_kinds, shown_to_templates

SECRET = "hunter2/hunter+2"
LOGIN = base64.b64encode(f"me:{SECRET}".encode()).decode()


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """As the daemon registers what it reads from a password file."""
    log.register_secret(SECRET)
    log.register_secret(LOGIN)
    yield
    log._secrets.clear()


ECHOES = (
    f"password {SECRET} refused",
    f"Authorization: Basic {LOGIN}",
    f"http://me:{SECRET}@there/x",
    f'{{"p":"{SECRET}"}}',
)


def is_clean(text: object) -> bool:
    return not any(secret in str(text) for secret in (SECRET, LOGIN, "hunter2", LOGIN.rstrip("=")))


@pytest.mark.parametrize("echo", ECHOES)
def test_no_error_repeats_what_the_far_side_repeats(echo: str) -> None:
    errors: list[object] = [quoted(echo), shown({"x": echo}), shown(echo)]
    fault = f"<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int></value></member><member><name>faultString</name><value>{echo}</value></member></struct></value></fault></methodResponse>"
    for write in (False, True):
        errors.append(explain(Finished(("gfal-ls",), 1, echo, echo), "x", write=write))
        try:
            decode(fault.encode(), "LTA", write=write)
        except Exception as error:
            errors.append(error)
    row = _bulk_row({"id": "a", "error": echo, "reason": echo})
    errors += [row.error, row.reason]
    try:
        _change_in(json.dumps({"error": echo, "reason": echo}).encode())
    except Temporary as error:
        errors.append(error)
    statuses, _ = read_status(
        f"Status info for the Job : https://a:1/b\nCurrent Status: {echo}\nStatus Reason: {echo}\nUnable to retrieve the status for: https://a:1/c\n{echo}\n"
    )
    errors += list(statuses.values())
    assert len(errors) == 12
    for error in errors:
        assert is_clean(error), error
        assert "***" in str(error)


def test_a_secret_is_not_cut_into_what_no_longer_looks_like_one() -> None:
    for length in range(280, 310):
        assert is_clean(quoted("x" * length + f" {SECRET}"))
    assert is_clean(quoted(" " * (MAX_SAID_CHARS - 400) + "y" * 380 + SECRET)[:300])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("echo", ECHOES)
def test_no_http_error_repeats_the_login(echo: str, status: int) -> None:
    site, credential = Site("x", Clock()), Credential("x", user="me", password=SECRET)
    reply = Reply(status, {"retry-after": "5", "location": f"http://me:{SECRET}@x/"}, echo.encode())
    log._secrets.clear()  # The credential knows its own secret, registered or not.
    for write in (False, True):
        error = Http(Clock())._error("GET x", reply, site, credential, write=write)
        assert is_clean(error) or "@there" in echo
        assert is_clean(site.health)
        assert is_clean(credential.frozen)


def test_a_credential_does_not_show_itself() -> None:
    credential = Credential("lta", user="me", password=SECRET, token=SECRET)
    assert is_clean(repr(credential))
    assert is_clean(f"{credential}")
    assert "me" in repr(credential)


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_traceback_shows_no_locals(fmt: str) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers[:] = []
    log._secrets.clear()
    stream = io.StringIO()
    try:
        log.configure(fmt, "debug", stream)

        def stumble(password: str) -> None:
            kept = {"password": password}
            raise ValueError(len(kept))

        try:
            stumble(SECRET)
        except ValueError:
            structlog.get_logger("x").exception("failed")
            logging.getLogger("lib").exception("failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    assert "stumble" in stream.getvalue()
    assert is_clean(stream.getvalue())
    assert is_clean(traceback.format_exc())


def test_secrets_are_read_registered_and_shown_to_no_template(tmp_path: Path) -> None:
    log._secrets.clear()
    path = tmp_path / "lta.password"
    path.touch(mode=0o600)
    path.write_text(f"{SECRET}\n")
    config = Config(
        catalogue=CatalogueConfig(str(tmp_path)),
        sites={},
        lta=LtaConfig(user="me", password_file=str(path)),
        picas=PicasConfig(user="me", password_file=str(path)),
    )
    secrets = Secrets(config)
    assert secrets.credentials["lta"].password == secrets.credentials["picas"].password == SECRET
    assert is_clean(log.redact_text(f"{SECRET} and {LOGIN}"))
    assert is_clean(secrets.credentials)
    assert is_clean(config)
    assert is_clean(shown_to_templates(config))
    assert not {name for name in PASSED_ON if "PASS" in name or "TOKEN" in name or "SECRET" in name}


# --- files that people write


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (f"https://me:{SECRET}@x/y", True),
        ("see https://me:pw@x", True),
        ({"a": ["https://me:@x"]}, True),
        ("https://me@x/y", False),
        ("https://x:8443/a@b:c", False),
        ("srm://x:8443/y:z@1", False),
        (7, False),
    ],
)
def test_a_url_with_a_password_is_seen(text: Any, holds: bool) -> None:
    assert holds_password(text) is holds


CONFIG = '[catalogue]\npath = "x"\nsrm_dir = "y"\n[sites.sara]\nresults = "a"\narchive = "b"\n'


@pytest.mark.parametrize(
    "line",
    [
        '[picas]\nurl = "https://me:hunter2@couch:6984"',
        '[lta]\nurl = "https://me:hunter2@lta/x"',
        '[jobs]\narguments = ["a.sh", "https://me:hunter2@couch"]',
        '[sites.juelich]\nresults = "https://me:hunter2@x"\narchive = "b"',
    ],
)
def test_a_password_in_a_url_of_the_configuration_is_refused_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "aglowd.toml"
    path.write_text(f"{CONFIG}{line}\n")
    with pytest.raises(ConfigError, match="must not carry a password") as caught:
        load_config(path)
    assert is_clean(caught.value)
    said = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert said.exit_code == 1
    assert is_clean(said.output)


def test_a_password_in_a_url_of_a_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[steps.a]\nkind = "http"\nurl = "https://me:hunter2@x/{{ field.name }}"\n')
    with pytest.raises(ConfigError, match="must not carry a password") as caught:
        load_pipeline(path, {kind: handler.Params for kind, handler in handler_kinds().items()})
    assert is_clean(caught.value)


async def test_a_url_with_a_password_is_not_asked() -> None:
    client = Http(Clock())
    with pytest.raises(Permanent) as caught:
        await client.request("GET", f"http://me:{SECRET}@127.0.0.1:1/", site=Site("x", Clock()), write=False)
    assert is_clean(caught.value)
    await client.close()


# --- the pilots' sandbox

JDL = (Path(__file__).parent.parent / "etc" / "jobs" / "glite.jdl").read_text(encoding="utf-8")
SUBMIT = """#!/bin/sh
stat -c '%a %n' . * > {0}/modes
cp job.jdl {0}/jdl
echo "$*" > {0}/argv
env > {0}/environment
cat picas.json >&2
exit {1}
"""


@pytest.mark.parametrize("code", [0, 1])
async def test_the_password_travels_in_a_file_that_is_nobody_elses_and_goes(tmp_path: Path, code: int) -> None:
    tools, work = tmp_path / "bin", tmp_path / "work"
    tools.mkdir()
    tool = tools / "glite-wms-job-submit"
    tool.write_text(SUBMIT.format(tmp_path, code))
    tool.chmod(0o755)
    before = os.umask(0)
    try:
        processes = Processes(path=str(tools), env={"PATH": os.environ["PATH"]})
        adapter = Glite(processes, Site("x", Clock()), Terms(JDL), endpoint=None, delegation=None, work_dir=work)
        sandbox = {"picas.json": json.dumps({"password": SECRET})}
        with pytest.raises(Exception, match="registering a job") as caught:
            await adapter.prepare(Order("run/step", 1, "/bin/sh", ("a.sh",), sandbox))
    finally:
        os.umask(before)
    assert is_clean(caught.value)
    modes = dict(reversed(line.split()) for line in (tmp_path / "modes").read_text().splitlines())
    assert modes == {".": "700", "picas.json": "600", "job.jdl": "600"}
    for name in ("jdl", "argv", "environment"):
        assert is_clean((tmp_path / name).read_text())
    assert list(work.iterdir()) == []


def test_what_a_killed_daemon_left_goes_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / f"{SANDBOX_PREFIX}x1"
    left.mkdir()
    (left / "picas.json").write_text(SECRET)
    (tmp_path / "kept.txt").write_text("kept")
    forget_sandboxes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    forget_sandboxes(tmp_path / "none")


async def test_a_sandbox_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    adapter = Glite(
        Processes(env={}), Site("x", Clock()), Terms(JDL), endpoint=None, delegation=None, work_dir=tmp_path
    )
    with pytest.raises(Temporary, match="cannot be written"):
        await adapter.prepare(Order("k", 1, "/bin/sh", (), {"picas.json": SECRET, "x" * 300: "too long a name"}))
    assert list(tmp_path.iterdir()) == []
