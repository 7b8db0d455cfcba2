"""What the doctor says of this host: directories, disk, limits, tools, secrets, proxies and the clock."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.config import Config, load_config
from aglowd.credentials import Secrets
from aglowd.doctor import FAIL, OK, WARN, Check, Doctor, host, is_well, outside, shown_config
from aglowd.errors import Permanent, Temporary
from aglowd.grid.proxy import ProxyInfo
from aglowd.wiring import build_doctor, build_world

HOUR_S = 3600.0


def config_of(tmp_path: Path, more: str = "") -> Config:
    for name in ("state", "srm"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "state").chmod(0o755)
    (tmp_path / "fields.csv").touch()
    path = tmp_path / "aglowd.toml"
    path.write_text(
        f"""[daemon]
state_dir = "{tmp_path}/state"
socket = "{tmp_path}/state/s"
[catalogue]
path = "{tmp_path}/fields.csv"
srm_dir = "{tmp_path}/srm"
[sites.sara]
results = "file://{tmp_path}"
archive = "file://{tmp_path}"
{more}"""
    )
    return load_config(path)


def states(checks: Iterable[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


# --- directories, disk, limits


def test_directories_that_are_well_and_that_are_not(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert set(states(host.check_directories(config)).values()) == {OK}
    (tmp_path / "state").chmod(0o777)
    (tmp_path / "srm").rmdir()
    (tmp_path / "fields.csv").unlink()
    found = {check.name: check for check in host.check_directories(config)}
    assert (found["state directory"].state, found["state directory"].next) == (WARN, f"chmod go-w {tmp_path}/state")
    assert found["SRM lists"].state == FAIL
    assert "mkdir -p" in found["SRM lists"].next
    assert found["fields file"].state == FAIL
    (tmp_path / "srm").touch()
    assert {check.what for check in host.check_directories(config)} >= {f"{tmp_path}/srm is no directory"}
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [], "nothing is written, not even for a try"


@pytest.mark.parametrize(("free", "state"), [(100 << 20, FAIL), (1 << 30, WARN), (50 << 30, OK)])
def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    room = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=10**6, f_favail=10**5)
    monkeypatch.setattr("os.statvfs", lambda path: room)
    (check,) = host.check_disk(config_of(tmp_path))
    assert (check.name, check.state, bool(check.next)) == ("room", state, state != OK)
    room.f_favail = 5
    assert states(host.check_disk(config_of(tmp_path)))["files"] == FAIL


def test_a_network_file_system_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "file_system", lambda path: "nfs4")
    found = {check.name: check for check in host.check_disk(config_of(tmp_path))}
    assert (found["file system"].state, "nfs4" in found["file system"].what) == (FAIL, True)


@pytest.mark.parametrize(("files", "state"), [(100, FAIL), (800, WARN), (65536, OK), (resource.RLIM_INFINITY, OK)])
def test_limits(monkeypatch: pytest.MonkeyPatch, files: int, state: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (files, files))
    (open_files, tasks) = host.check_limits()
    assert (open_files.state, bool(open_files.next)) == (state, state != OK)
    assert tasks.state == (WARN if files == 100 else OK)


def test_versions_name_all_libraries() -> None:
    found = {check.name: check for check in host.check_versions()}
    assert {check.state for check in found.values()} == {OK}
    assert "SQLite" in found["aglowd"].what
    assert "aiohttp" in found["libraries"].what or "not installed" in found["libraries"].what


@pytest.mark.parametrize(
    ("more", "tools"),
    [
        ("", {"glite"}),
        ('[jobs]\nsystem = "slurm"\n', {"slurm"}),
        ('[jobs]\nsystem = "dirac"\nsetup = "/etc/diracosrc"\n', set()),
        ('[jobs]\nsystem = "none"\n[dcache]\nask = "xattr"\n', {"xattr"}),
    ],
)
def test_only_tools_that_are_used_are_missed(tmp_path: Path, more: str, tools: set[str]) -> None:
    config = config_of(tmp_path, more)
    assert states(host.check_tools(config, lambda tool: None, git=False)) == dict.fromkeys(tools, FAIL)
    assert states(host.check_tools(config, lambda tool: f"/usr/bin/{tool}", git=True)) == dict.fromkeys(
        {*tools, "git"}, OK
    )


def test_commands_that_are_not_there(tmp_path: Path) -> None:
    more = '[jobs]\nsystem = "none"\n[notify]\ncommand = ["/no/tell"]\n[proxy]\nrenew = ["/no/renew", "now"]\n'
    found = {check.name: check for check in host.check_tools(config_of(tmp_path, more), lambda tool: None, git=False)}
    assert (found["notify.command"].state, found["proxy.renew"].state) == (FAIL, FAIL)
    assert "/no/renew is not there" in found["proxy.renew"].what


# --- secrets


def token(claims: dict[str, Any]) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (token({"exp": 1.9e9}), 1.9e9),
        (token({"sub": "me"}), None),
        (token({"exp": "soon"}), None),
        ("a.b.c", None),
        ("plain-password", None),
        ("", None),
    ],
)
def test_until_when_a_token_is_good(text: str, ends: float | None) -> None:
    assert host.ends_at(text) == ends


@pytest.mark.parametrize(("hours", "state"), [(-1, FAIL), (24, WARN), (1000, OK)])
def test_credentials_with_their_modes_and_lifetimes(tmp_path: Path, hours: float, state: str) -> None:
    clock = Clock()
    path = tmp_path / "dcache.token"
    path.touch(mode=0o600)
    path.write_text(token({"exp": clock.now() + hours * HOUR_S + 5}))
    config = config_of(tmp_path, f'[dcache]\ntoken_file = "{path}"\n')
    secrets = Secrets(config, {"AGLOWD_PICAS_USER": "me", "AGLOWD_PICAS_PASSWORD": "pass-of-me"})
    found = {check.name: check for check in host.check_credentials(config, secrets, clock.now())}
    assert found["dcache"].state == state
    assert f"found in {path}:1 (mode 0600)" in found["dcache"].what
    assert found["picas"].what == "found in $AGLOWD_PICAS_PASSWORD, user me"
    assert found["stageit"].state == WARN, "sites are staged by it, and there is no token"
    assert "lta" not in found, "nothing is staged by it"
    secrets.credentials["picas"].freeze("refused")
    found = {check.name: check for check in host.check_credentials(config, secrets, clock.now())}
    assert (found["picas"].state, found["picas"].next) == (FAIL, "put a new one into $AGLOWD_PICAS_PASSWORD")
    assert "pass-of-me" not in str(found)


# --- the proxy and the clock


class Lying:
    place = "/p"

    def __init__(self, seconds: float | None, attributes: float | None = None) -> None:
        self.seconds, self.attributes = seconds, attributes

    async def info(self) -> ProxyInfo:
        if self.seconds is None:
            raise Temporary("no usable grid proxy at /p; renew it")
        return ProxyInfo(self.seconds, self.attributes, "/CN=me")


@pytest.mark.parametrize(
    ("hours", "attribute_hours", "state"),
    [(168, 48, OK), (168, 20, WARN), (168, 11, FAIL), (20, 48, WARN), (168, None, WARN), (None, None, FAIL)],
)
async def test_the_proxy(tmp_path: Path, hours: int | None, attribute_hours: int | None, state: str) -> None:
    proxy: Any = Lying(*(None if one is None else one * HOUR_S for one in (hours, attribute_hours)))
    check = await outside._proxy(config_of(tmp_path), "", proxy)
    assert (check.area, check.name, check.state) == ("proxy", "common", state)


@pytest.mark.parametrize(
    ("skews", "found"),
    [
        ({"a": 1.0, "b": -2.0}, {"skew": OK}),
        ({"a": 61.0, "b": 60.0, "c": 0.0}, {"skew": WARN}),
        ({"a": -4000.0, "b": -4001.0}, {"skew": FAIL}),
        ({"a": 0.0, "b": 1.0, "c": 4000.0}, {"skew": OK, "c": WARN}),
        ({}, {"skew": WARN}),
    ],
)
def test_whose_clock_is_wrong(skews: dict[str, float], found: dict[str, str]) -> None:
    world: Any = SimpleNamespace(http=SimpleNamespace(skews=skews))
    assert states(outside.check_clocks(world, is_real=True)) == found
    assert outside.check_clocks(world, is_real=False) == [], "a demo's clock is nobody's"


def test_which_way_our_clock_is_wrong() -> None:
    world: Any = SimpleNamespace(http=SimpleNamespace(skews={"a": 600.0}))
    (check,) = outside.check_clocks(world, is_real=True)
    assert check.what == "our clock is behind 1 servers by 10m"


# --- what is asked


@pytest.mark.parametrize(
    ("error", "what", "step"),
    [
        (Temporary("credential picas is frozen: refused"), "frozen", "put a good password"),
        (Temporary("squeue cannot be started: No such file"), "squeue", "install the tool"),
        (Temporary("no connection"), "no connection", "is it up"),
        (Permanent("HTTP 403"), "HTTP 403", "it answers and refuses"),
    ],
)
async def test_what_was_not_answered_says_what_to_do(error: Exception, what: str, step: str) -> None:
    async def ask() -> str:
        raise error

    check = await outside._answer("x", ask)
    assert check.state == FAIL
    assert what in check.what
    assert check.next.startswith(step)


async def test_a_defect_of_one_question_is_told_beside_the_other_answers() -> None:
    async def ask() -> str:
        raise ValueError("nobody thought of it")

    check = await outside._answer("x", ask)
    assert (check.state, check.what) == (FAIL, "ValueError: nobody thought of it")


async def test_who_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "ASK_REAL_S", 0.05)

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    check = await outside._answer("x", hang)
    assert (check.state, check.what) == (FAIL, "no answer within 0.05 s")


async def test_who_asks_meanwhile_gets_the_same_answers(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        '[jobs]\nsystem = "none"\n[picas]\nurl = "http://127.0.0.1:9"\n[dcache]\nurl = "http://127.0.0.1:9"\n[stageit]\nurl = "http://127.0.0.1:9"\n',
    )
    world, _ = build_world(config, Clock(), secrets := Secrets(config, {}), "here")
    asked = 0

    async def more() -> list[Check]:
        nonlocal asked
        asked += 1
        return []

    doctor: Doctor = build_doctor(config, world, secrets, {}, more)
    first, second = await asyncio.gather(doctor.examine(), doctor.examine())
    assert first == second
    assert asked == 1
    assert not is_well(first)
    assert {check.name for check in first if check.area == "outside" and check.state == OK} == {
        "catalogue",
        "results of sara",
        "archive of sara",
    }
    await doctor.examine()
    assert asked == 2, "the next one looks anew"
    await doctor.close()
    await world.http.close()


def test_the_configuration_is_shown_without_what_may_be_secret(tmp_path: Path) -> None:
    more = """[notify]
webhook = "https://hooks.example.org/T/secret-hook"
command = ["/usr/bin/tell", "--token", "abcdef"]
[proxy]
renew = ["renew", "--password=abc"]
"""
    shown = shown_config(config_of(tmp_path, more))
    text = json.dumps(shown)
    assert "secret-hook" not in text
    assert "abc" not in text
    assert shown["notify"]["command"] == ["/usr/bin/tell", "***", "***"]
    assert shown["daemon"]["state_dir"] == f"{tmp_path}/state"


async def test_a_webhook_is_connected_to_and_nothing_is_sent(tmp_path: Path) -> None:
    heard: list[bytes] = []
    over = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()
        over.set()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / "hook").write_text(f"http://127.0.0.1:{port}/services/T0/s3cret\n")
        (tmp_path / "hook").chmod(0o600)
        config = config_of(tmp_path, f'[notify]\nwebhook_file = "{tmp_path}/hook"\n')
        world, _ = build_world(config, Clock(), Secrets(config, {}), "aglowd")
        question = outside.list_questions(config, world)["webhook"]
        check = await outside._answer("webhook", question)
        await over.wait()
    assert (check.state, heard) == (OK, [b""])
    assert f"127.0.0.1:{port} takes connections" in check.what
    check = await outside._answer("webhook", question)
    assert (check.state, "s3cret" in check.what) == (FAIL, False)
    for text in ("s3cret", "http://h:99999/s3cret", "http://[h/s3cret", "http://h:0/s3cret", "ftp://h/s3cret"):
        (tmp_path / "hook").write_text(f"{text}\n")
        check = await outside._answer("webhook", question)
        assert (check.state, "no http:// or https:// URL" in check.what, "s3cret" in check.what) == (FAIL, True, False)
    await world.http.close()
