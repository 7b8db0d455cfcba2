"""The doctor, the report and the bug report's secrets, in front of the simulated grid: what is well, and what is broken on purpose."""

from __future__ import annotations

import asyncio
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.cli.demo import Demo

from .small import FIELD, aglowctl, get, until, write_world
from .test_secrets import spellings

pytestmark = pytest.mark.world


async def run(program: str, *args: str) -> tuple[int, str, str]:
    """Exit code and output of a command."""
    argv = ["-c", f"from aglowd.cli.{program} import main; main()", *args]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def states(answer: dict[str, Any]) -> dict[str, str]:
    """Check → its state and what it says."""
    return {f"{one['area']}, {one['name']}": f"{one['state']}: {one['what']}" for one in answer["checks"]}


async def test_the_doctor_finds_all_well_and_then_what_was_broken(tmp_path: Path) -> None:
    demo = Demo(write_world(tmp_path), tmp_path / "state")
    async with demo.world():
        config = str(demo.state / "aglowd.toml")
        code, out, err = await run("daemon", "doctor", "--config", config, "--json")
        before = states(json.loads(out))
        assert (code, err) == (0, ""), [check for check in before.values() if check.startswith("fail")]
        assert not (demo.state / "work").exists(), "the state directory was entered"
        try:
            await demo.start()
            answer = json.loads((await aglowctl(demo, "doctor --json"))["doctor --json"])
            told = states(answer)
            assert (answer["schema"], answer["ok"]) == (1, True)
            assert told["aglowd, database"].startswith("ok: ")
            asked = {name for name in told if name.startswith("outside, ")}
            assert asked == {name for name in before if name.startswith("outside, ")}
            assert len(asked) >= 9
            assert {name.partition(",")[0] for name in told} == {
                "aglowd", "directories", "disk", "limits", "versions", "tools", "credentials", "outside", "proxy",
            }  # fmt: skip
            assert " is good for " in told["proxy, common"]
        finally:
            await demo.stop()
        (demo.state / "couch.password").write_text("wrong")
        (demo.state / "dcache.token").chmod(0o644)
        code, out, _ = await run("control", "--socket", str(demo.socket), "doctor", "--config", config)
        assert code == 1
        assert "others can read this secret (mode 0644)" in out
        (demo.state / "dcache.token").chmod(0o600)
        code, out, _ = await run("control", "--socket", str(demo.socket), "doctor", "--config", config, "--json")
        found = states(json.loads(out))
        assert code == 1
        assert found["aglowd, process"].startswith("warn: aglowd is not running")
        failed = {name for name, what in found.items() if what.startswith("fail")}
        assert failed == {"outside, token database (juelich)", "outside, token database (sara)"}
        assert "HTTP 401" in found["outside, token database (sara)"]


SECRETS = {
    "webhook": "https://hooks.example.org/services/T0000/hook-of-nobody-else",
    "hook": "hook-of-nobody-else",
    "word of notify": "--password=word-of-the-notifier",
    "word": "word-of-the-notifier",
    "word of renew": "word-of-the-renewal",
    "secret": "Sekrit/of+a.pipeline==",
}


async def test_a_report_holds_what_helpers_ask_for_and_no_secret(tmp_path: Path) -> None:
    kept = tmp_path / "example.secret"
    kept.touch(mode=0o600)
    kept.write_text(SECRETS["secret"])
    more = {
        "notify": {"webhook": SECRETS["webhook"], "command": ["/bin/true", SECRETS["word of notify"]]},
        "proxy": {"renew": ["/bin/true", SECRETS["word of renew"]]},
        "secrets": {"example": str(kept)},
    }
    options = msgspec.structs.replace(write_world(tmp_path / "in", subbands=4), config=more)
    demo = Demo(options, tmp_path / "state")
    path = tmp_path / "report.tar.gz"
    async with demo.world() as ready:
        secrets = {**SECRETS, **{name: text for name, text in ready["credentials"].items() if _is_secret(name, text)}}
        assert len(secrets) >= 10
        try:
            await demo.start()
            await until(lambda: explained(demo))
            answer = json.loads(
                (await aglowctl(demo, f"report {FIELD} -o {path} --json"))[f"report {FIELD} -o {path} --json"]
            )
            code, _, err = await run("control", "--socket", str(demo.socket), "report", "-o", str(path))
            assert (code, "File exists" in err) == (1, True)
            code, _, err = await run("control", "--socket", str(demo.socket), "report", "P0", "-o", str(path) + "2")
            assert (code, "there is no field 'P0'" in err) == (1, True), err
            assert not Path(str(path) + "2").exists()
        finally:
            await demo.stop()
    assert answer["missing"] == {}
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        parts = {name.partition("/")[2]: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert sorted(parts) == answer["parts"]
    assert {"versions.json", "config.json", "status.json", "doctor.json", "events.jsonl", "doubt.json"} <= parts.keys()
    assert {"field/show.json", "field/explain.json", "field/history.json", "field/events.jsonl"} <= parts.keys()
    assert len(parts["log.jsonl"].splitlines()) > len(parts["field/log.jsonl"].splitlines()) > 0
    for name, content in parts.items():
        for line in content.splitlines() if name.endswith("jsonl") else [content]:
            json.loads(line)
        leaked = [secret for secret, text in secrets.items() for one in spellings(text) if one in content]
        assert leaked == [], name
    config = json.loads(parts["config.json"])["config"]
    assert config["notify"]["command"] == ["/bin/true", "***"]
    assert config["proxy"]["renew"] == ["/bin/true", "***"]
    assert (config["notify"]["webhook"], config["secrets"]) == ("***", {"example": str(kept)})
    assert config["picas"]["password_file"] == str(demo.state / "couch.password"), "where a secret lies is none"
    names = {f"{one['area']}, {one['name']}" for one in json.loads(parts["doctor.json"])["checks"]}
    assert "aglowd, database" in names


def _is_secret(name: str, text: Any) -> bool:
    return isinstance(text, str) and name.endswith(("password", "token"))


async def explained(demo: Demo) -> Any:
    """Whether the field waits for something, so that there is something to report; nobody knows it at first."""
    if FIELD.encode() not in await get(demo, "/v1/fields"):
        return False
    return b"waits_for" in await get(demo, f"/v1/fields/{FIELD}/explain")


async def test_a_report_without_a_daemon_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    args = ("--socket", str(tmp_path / "nobody"), "report", "-o", str(path), "--config", str(tmp_path / "none.toml"))
    code, out, err = await run("control", *args)
    assert (code, err) == (0, "")
    assert "not in it: status.json: aglowd is not running" in out
    with tarfile.open(path) as tar:
        (name,) = (name for name in tar.getnames() if name.endswith("doctor.json"))
        answer = json.loads(tar.extractfile(name).read())  # type: ignore[union-attr]
    assert [(one["area"], one["state"]) for one in answer["checks"]] == [("aglowd", "warn"), ("configuration", "fail")]
