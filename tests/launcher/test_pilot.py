"""The launcher does each token once, loses no result, and leaves no token behind."""

from __future__ import annotations

import ast
import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import signal
import tarfile
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aglowd.grid.tokens import build_token
from aglowd.launcher import source
from aglowd.launcher.pilot import Base, Fenced, Halt, Token

from .conftest import PASSWORD, TYPE, Farm, eventually

SIMPLE = "echo hello; echo trouble >&2; echo data > results/out.h5"


def waiting_for(path: Path, then: str = "echo data > results/out.h5") -> str:
    """A command that says `began` and waits for a file."""
    return f"touch began; while [ ! -e {path} ]; do sleep 0.05; done; {then}"


def is_alive(pid: str) -> bool:
    """Whether that process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def holds(farm: Farm, token: str) -> bool:
    return farm.get(token)["status"] == "running"


def test_it_is_python_3_6_and_stands_alone() -> None:
    tree = ast.parse(source(), feature_version=(3, 6))
    imported = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "__future__" not in imported  # 3.6 knows no annotations there.
    assert imported <= {
        "argparse", "base64", "gzip", "hashlib", "http", "json", "os", "random", "re", "shutil", "signal", "socket", "ssl",
        "subprocess", "sys", "tarfile", "tempfile", "threading", "time", "traceback", "typing", "urllib", "uuid", "zlib",
    }  # fmt: skip


async def test_a_token_is_done(farm: Farm) -> None:
    token = farm.token("SB000", SIMPLE, RESULT_NAME="L1_SB000", wms_job_id="of an earlier lock", launcher_status="old")
    began = int(time.time())
    pilot = await farm.pilot("--key", "run/submit/1/submit_jobs/0")
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(token)
    assert (done["status"], done["output"], done["exit_code"], done["progress"]) == ("done", 0, 0, 1)
    assert began <= done["lock"] <= done["done"] <= time.time()
    assert (done["hostname"], done["aglowd_job_id"]) == (os.uname().nodename, "local-1")
    assert not {"wms_job_id", "launcher_status"} & set(done)
    assert list(done["times"]) == [
        "pulling_container", "building_sandbox", "launched", "downloading", "running", "uploading", "done",
    ]  # fmt: skip
    assert sorted(done["times"].values()) == list(done["times"].values())
    mark = done["aglowd"]
    assert mark["key"] == "run/create/1/create_tokens/SB000"
    assert done["Results_location"] == f"file://{farm.results}/L1_SB000-{mark['lock_id'][:12]}.h5"
    assert farm.files() == [farm.accepted(token)]
    data = farm.accepted(token).read_bytes()
    assert data == b"data\n"
    assert mark["result"] == {"url": done["Results_location"], "size_bytes": 5, "adler32": zlib.adler32(data)}
    assert (farm.log(token, "stdout"), farm.log(token, "stderr")) == ("hello\n", "trouble\n")
    assert all(
        re.fullmatch(r"\d\d/\d\d/\d{4}_\d\d\.\d\d\.\d\d_std(out|err)\.txt", name) for name in done["_attachments"]
    )
    assert farm.mark("local-1") == {
        "pilot": "run/submit/1/submit_jobs/0",
        "type": TYPE,
        "job": "local-1",
        "hostname": os.uname().nodename,
        "started": farm.mark("local-1")["started"],
        "ended": farm.mark("local-1")["ended"],
        "why": "nothing left",
    }
    assert began <= farm.mark("local-1")["started"] <= farm.mark("local-1")["ended"] <= time.time()
    assert (pilot.directory / "picas.json").stat().st_mode & 0o777 == 0o600
    assert "Exception ignored" not in pilot.stderr
    assert {path.name for path in pilot.directory.iterdir()} == {"pilot.py", "picas.json", "pilot.out", "pilot.err"}


async def test_a_token_of_the_builder_with_attachments_variables_and_several_results(farm: Farm) -> None:
    config = {
        "Token": {
            "config.json": {"command": 'cat "$PARSET" $SRMFILE > results/a; mkdir results/b; env > results/b/env'},
            "variables": {
                "_token_keys": {"$OBSID": "OBSID", "$INPUT_FILES": "INPUT_FILES", "$N": "NCPU", "$NONE": "ABSENT"},
                "_attachments": {"$PARSET": "Pre Facet.parset", "$SRMFILE": "srm.txt"},
            },
        },
        "Job": {"variables": {"NCPU": 8}},
        "sandbox": {"scripts": []},
        "container": {"singularity": {}},
    }
    keys = {"OBSID": "L1", "INPUT_FILES": ["a", "b c"], "RESULTS_DIR": f"file://{farm.results}/deep/er%20dir/"}
    document = build_token(config, f"{TYPE}:AB000", TYPE, keys)
    farm.database.put(document["_id"], document)
    for name, data in (("srm.txt", b"srm://x\n"), ("Pre Facet.parset", b"\xff\x00parset\n")):
        rev = farm.get(document["_id"])["_rev"]
        farm.database.put_attachment(document["_id"], name, "text/plain", data, rev)
    pilot = await farm.pilot(
        environment={"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "20", "NONE": "x"}
    )
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(document["_id"])
    assert done["status"] == "done", done
    assert done["slurm_job_id"] == farm.mark("17_3")["job"] == "17_3"
    assert farm.accepted(document["_id"]).name == f"{TYPE}_AB000-{done['aglowd']['lock_id'][:12]}.tar"
    with tarfile.open(farm.results / "deep" / "er dir" / farm.accepted(document["_id"]).name) as tar:
        assert sorted(tar.getnames()) == ["a", "b", "b/env"]
        assert tar.extractfile("a").read() == b"\xff\x00parset\nsrm://x\n"  # type: ignore[union-attr]
        lines = tar.extractfile("b/env").read().decode().splitlines()  # type: ignore[union-attr]
    assert {"OBSID=L1", "INPUT_FILES=a b c", "N=8", "PARSET=Pre Facet.parset", "SRMFILE=srm.txt"} <= set(lines)
    assert not any(line.startswith("NONE=") for line in lines)
    assert {"srm.txt", "Pre Facet.parset"} < set(done["_attachments"])


async def test_what_others_write_meanwhile_is_kept(farm: Farm, tmp_path: Path) -> None:
    token = farm.token("SB000", waiting_for(tmp_path / "go"))
    pilot = await farm.pilot("--heartbeat", "0.1")
    await eventually(lambda: holds(farm, token))
    farm.change(token, note="look at this one", aglowd={**farm.get(token)["aglowd"], "seen": "by the watcher"})
    beat = farm.get(token)["aglowd"]["beat"]
    await eventually(lambda: farm.get(token)["aglowd"]["beat"] > beat)
    assert farm.get(token)["note"] == "look at this one"
    farm.change(token, note="and again", _attachments={"hint.txt": {"data": "aGludA==", "content_type": "text/plain"}})
    (tmp_path / "go").touch()
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(token)
    assert (done["status"], done["note"], done["aglowd"]["seen"]) == ("done", "and again", "by the watcher")
    assert len(done["_attachments"]) == 3
    assert farm.files() == [farm.accepted(token)]


@pytest.mark.parametrize("when", ["working", "before the outcome is written"])
async def test_of_a_frozen_pilot_whose_token_was_given_away_nothing_is_accepted(
    farm: Farm, tmp_path: Path, when: str
) -> None:
    held = asyncio.Event()
    may_go = asyncio.Event()

    async def hold_the_outcome(request: web.Request) -> web.StreamResponse | None:
        if (
            when != "working"
            and request.method == "PUT"
            and b'"status": "done"' in await request.read()
            and not held.is_set()
        ):
            held.set()
            await may_go.wait()
            return web.Response(status=503)
        return None

    farm.hooks.append(hold_the_outcome)
    token = farm.token("SB000", waiting_for(tmp_path / "go"))
    frozen = await farm.pilot("--heartbeat", "0.2", job="frozen")
    await eventually(lambda: holds(farm, token))
    if when != "working":
        (tmp_path / "go").touch()
        await held.wait()
        assert len(farm.files()) == 1
    frozen.kill(signal.SIGSTOP)
    may_go.set()
    farm.change(token, lock=0, done=0, hostname="", output="", status="reset", scrub_count=1)
    (tmp_path / "go").touch()
    second = await farm.pilot(job="second")
    assert await second.ended() == 0, second.stderr
    outcome = farm.get(token)
    assert (outcome["status"], outcome["aglowd_job_id"]) == ("done", "second")
    frozen.kill(signal.SIGCONT)
    assert await frozen.ended() == 0, frozen.stderr
    assert "not ours any more" in frozen.stderr
    assert farm.get(token) == outcome
    assert farm.files() == [farm.accepted(token)]


async def test_what_was_fenced_once_stays_fenced(farm: Farm) -> None:
    name = farm.token("SB000", SIMPLE)
    settings = {"url": farm.url, "database": "sk/sp", "user": "aglowd", "password": PASSWORD}
    token = Token(Base(settings, Halt()), farm.database.get(name).body())
    token.note("pulling_container", lock=token.lock, aglowd={"lock_id": token.lock_id})
    await asyncio.to_thread(token.write)
    farm.change(name, lock=token.lock, aglowd={"lock_id": "theirs"})
    theirs = farm.get(name)
    # Heartbeat and work share the token: what the one read must not be what the other's write rests on.
    for _ in range(2):
        token.note("uploading")
        with pytest.raises(Fenced):
            await asyncio.to_thread(token.write)
    assert farm.get(name) == theirs


@pytest.mark.parametrize(
    "theirs",
    [
        {"lock": 0, "done": 0, "status": "reset", "hostname": ""},
        {"lock": 99, "done": 99, "status": "error"},
        {"done": 1, "status": "error"},
        {"lock": 1, "hostname": "other"},
        {"aglowd": {"lock_id": "theirs"}},
        {"aglowd": None},
        {"_deleted": True},
    ],
)
async def test_a_pilot_that_lost_its_token_stops_its_command_and_writes_nothing(
    farm: Farm, tmp_path: Path, theirs: dict[str, Any]
) -> None:
    token = farm.token("SB000", f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    pilot = await farm.pilot("--heartbeat", "0.1", "--max-tokens", "1")
    pid = await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    farm.change(token, **theirs)
    left = farm.database.docs[token]
    assert await pilot.ended() == 0, pilot.stderr
    assert not Path(f"/proc/{pid}").exists()
    assert farm.database.docs[token] == left
    assert farm.files() == []
    assert farm.mark("local-1")["why"] == "tokens done"


async def test_a_killed_pilot_leaves_its_lock_and_its_last_beat(farm: Farm) -> None:
    token = farm.token("SB000", "sleep 1000")
    pilot = await farm.pilot("--heartbeat", "0.1")
    await eventually(lambda: holds(farm, token))
    first = farm.get(token)["aglowd"]["beat"]
    await eventually(lambda: farm.get(token)["aglowd"]["beat"] > first)
    pilot.kill(signal.SIGKILL)
    await pilot.ended()
    left = farm.get(token)
    assert left["lock"] > 0
    assert left["done"] == 0
    assert abs(left["aglowd"]["beat"] - time.time()) < 5
    assert len(left["aglowd"]["lock_id"]) == 32
    assert farm.mark("local-1")["ended"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_gives_the_token_back(farm: Farm, tmp_path: Path, number: signal.Signals) -> None:
    past = [{"at": n, "why": "SIGTERM", "job": f"j{n}", "hostname": "h"} for n in range(20)]
    token = farm.token(
        "SB000", f"trap 'echo said > {tmp_path}/said; exit 3' TERM; touch {tmp_path}/began; while :; do sleep 0.05; done",
        scrub_count=4, aglowd={"key": "k", "history": past},
    )  # fmt: skip
    pilot = await farm.pilot()
    await eventually((tmp_path / "began").exists)
    pilot.kill(number)
    assert await pilot.ended() == 0, pilot.stderr
    back = farm.get(token)
    assert {name: back[name] for name in ("lock", "done", "scrub_count", "hostname", "status", "output")} == {
        "lock": 0, "done": 0, "scrub_count": 5, "hostname": "", "status": "reset", "output": "",
    }  # fmt: skip
    history = back["aglowd"]["history"]
    assert history[:-1] == past[1:]
    entry = {"at": history[-1]["at"], "why": number.name, "job": "local-1", "hostname": os.uname().nodename}
    assert history[-1] == entry
    assert (tmp_path / "said").exists()
    assert farm.mark("local-1")["why"] == number.name
    assert back["aglowd"]["key"] == "k"
    assert farm.files() == []


async def test_a_signal_to_all_processes_of_the_job_is_no_failure(farm: Farm, tmp_path: Path) -> None:
    token = farm.token("SB000", f"echo $$ > {tmp_path}/pid; sleep 1000")
    pilot = await farm.pilot()
    pid = await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    os.killpg(int(pid), signal.SIGTERM)
    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    pilot.kill(signal.SIGTERM)
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "reset"


@pytest.mark.parametrize(
    ("command", "fields", "code", "message"),
    [
        ("echo out; echo err >&2; echo x > results/x; exit 7", {}, 7, "ended with exit code 7"),
        ("echo out; echo err >&2; kill -SEGV $$", {}, 139, "exit code 139"),
        ("echo out; echo err >&2", {}, 1, "left nothing in results/"),
        ("echo out; echo err >&2; echo x > results/x", {"RESULTS_DIR": ""}, 1, "no RESULTS_DIR"),
    ],
)
async def test_a_command_that_fails_is_an_error_with_its_logs(
    farm: Farm, command: str, fields: dict[str, Any], code: int, message: str
) -> None:
    token = farm.token("SB000", command, **fields)
    next_ = farm.token("SB001", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    failed = farm.get(token)
    assert (failed["status"], failed["output"], failed["exit_code"]) == ("error", code, code)
    assert failed["done"] >= failed["lock"] > 0
    assert message in failed["launcher_status"]
    assert (farm.log(token, "stdout"), farm.log(token, "stderr").splitlines()[:1]) == ("out\n", ["err"])
    assert "error" in failed["times"]
    assert farm.get(next_)["status"] == "done"
    assert farm.files() == [farm.accepted(next_)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, 'config.json → "command"'),
        ({"command": []}, "found [] as"),
        ({"command": "  "}, "a shell line or a list of words"),
        ({"command": ["no-such-program"]}, "cannot be started"),
        ({"command": SIMPLE, "container": {"docker": {}}}, "found the container docker"),
        ({"command": SIMPLE, "container": []}, "found list at container"),
        ({"command": SIMPLE, "variables": {"_attachments": {"$A": "absent"}}}, "attachment 'absent'"),
        ({"command": SIMPLE, "variables": {"_attachments": {"$A": "../picas.json"}}}, "picas.json'"),
        ({"command": SIMPLE, "variables": {"_attachments": 3}}, "found int at variables"),
    ],
)
async def test_a_token_that_cannot_be_worked_on_says_why(farm: Farm, changes: dict[str, Any], message: str) -> None:
    token = farm.token("SB000", **{"config.json": changes})
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    failed = farm.get(token)
    assert failed["status"] == "error"
    assert message in failed["launcher_status"]
    assert failed["output"] in (1, 127)


async def test_an_attachment_that_arrives_damaged_is_not_worked_with(farm: Farm) -> None:
    async def damage(request: web.Request) -> web.StreamResponse | None:
        return web.Response(body=b"something else") if request.path.endswith("/srm.txt") else None

    farm.hooks.append(damage)
    token = farm.token("SB000", SIMPLE)
    farm.database.put_attachment(token, "srm.txt", "text/plain", b"srm://x", farm.get(token)["_rev"])
    config = {**farm.get(token)["config.json"], "variables": {"_attachments": {"$SRMFILE": "srm.txt"}}}
    farm.change(token, **{"config.json": config})
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert "srm.txt is damaged: found digest md5-" in farm.get(token)["launcher_status"]
    assert farm.files() == []


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_text_that_couchdb_keeps_compressed_is_checked_as_it_is_kept(farm: Farm, is_whole: bool) -> None:
    stored = gzip.compress(b"srm://x\n" * 99)
    digest = "md5-" + base64.b64encode(hashlib.md5(stored).digest()).decode()
    token = farm.token("SB000", "cp $SRMFILE results/")
    config = {**farm.get(token)["config.json"], "variables": {"_attachments": {"$SRMFILE": "srm.txt"}}}
    farm.change(token, **{"config.json": config})
    farm.database.put_attachment(token, "srm.txt", "text/plain", b"", farm.get(token)["_rev"])
    doc = farm.database.get(token)
    doc.attachments["srm.txt"] = replace(doc.attachments["srm.txt"], digest=digest)

    async def compress(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/srm.txt"):
            return None
        assert "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=stored if is_whole else stored[:-9], headers={"Content-Encoding": "gzip"})

    farm.hooks.append(compress)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    if is_whole:
        assert farm.accepted(token).read_bytes() == b"srm://x\n" * 99
    else:
        assert "srm.txt is damaged: found" in farm.get(token)["launcher_status"]


@pytest.mark.parametrize(
    "way", ["refuses connections", "answers 503", "answers a page", "answers a list", "writes and does not say so"]
)
async def test_no_result_is_lost_while_the_database_is_away(farm: Farm, tmp_path: Path, way: str) -> None:
    asked = 0

    async def be_away(request: web.Request) -> web.StreamResponse | None:
        nonlocal asked
        if request.method != "PUT" or b'"status": "done"' not in await request.read() or (asked := asked + 1) > 2:
            return None
        if way == "answers 503":
            return web.Response(status=503)
        if way == "answers a page":
            return web.Response(text="<html>Maintenance</html>", content_type="text/html")
        if way == "answers a list":
            return web.json_response([])
        if way == "writes and does not say so":
            farm.database.put(token, await request.json())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    farm.hooks.append(be_away)
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert asked >= 2
    assert farm.get(token)["status"] == "done"
    assert farm.files() == [farm.accepted(token)]
    assert farm.log(token, "stdout") == "hello\n"


async def test_a_result_that_may_have_been_accepted_is_never_withdrawn(farm: Farm) -> None:
    async def accept_archive_and_delete(request: web.Request) -> web.StreamResponse | None:
        if request.method != "PUT" or b'"status": "done"' not in await request.read():
            return None
        rev = farm.database.put(token, await request.json()).rev if farm.database.find_live(token) else ""
        if rev:
            accepted.append(farm.accepted(token))
            farm.database.delete(token, rev)
            return web.Response(status=504)
        return None

    accepted: list[Path] = []
    farm.hooks.append(accept_archive_and_delete)
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert "it was deleted" in pilot.stderr
    assert len(accepted) == 1
    assert farm.files() == accepted


async def test_a_claim_whose_answer_was_lost_is_still_ours(farm: Farm) -> None:
    lost = 0

    async def lose_the_answer(request: web.Request) -> web.StreamResponse | None:
        nonlocal lost
        if lost or request.method != "PUT" or b"pulling_container" not in await request.read():
            return None
        lost += 1
        farm.database.put(token, await request.json())
        return web.Response(status=502)

    farm.hooks.append(lose_the_answer)
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert (lost, farm.get(token)["status"]) == (1, "done")


async def test_a_database_that_stays_away_ends_the_pilot_and_leaves_the_result(farm: Farm) -> None:
    async def be_away(request: web.Request) -> web.StreamResponse | None:
        is_outcome = request.method == "PUT" and b'"status": "done"' in await request.read()
        return web.Response(status=503) if is_outcome else None

    farm.hooks.append(be_away)
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot("--patience", "1")
    assert await pilot.ended() == 1
    (result,) = farm.files()
    assert f"file://{result}" in pilot.stderr
    assert farm.get(token)["lock"] > 0
    assert farm.mark("local-1")["why"].startswith("error: ")


async def test_logs_that_the_database_will_not_have_are_left_out(farm: Farm) -> None:
    async def limit(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"reason": "too large"}, status=413) if len(await request.read()) > 200_000 else None

    farm.hooks.append(limit)
    token = farm.token("SB000", f"{SIMPLE}; seq 100000")
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"
    assert "_attachments" not in farm.get(token)


@pytest.mark.parametrize("count", [120_000, 1_000_000])
async def test_of_much_output_the_first_and_the_last_part_are_kept(farm: Farm, count: int) -> None:
    token = farm.token("SB000", f"seq {count}; stat -c %s ../stdout.txt > results/size")
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    text = farm.log(token, "stdout")
    assert len(text) < 300_000
    assert text.startswith("1\n2\n3\n")
    assert text.endswith(f"\n{count - 1}\n{count}\n")
    (left_out,) = re.findall(r"\[\.\.\. (\d+) bytes left out \.\.\.\]", text)
    whole = sum(len(str(number)) + 1 for number in range(1, count + 1))
    assert len(re.sub(r"\n\[\.\.\. .*\]\n", "", text)) + int(left_out) == whole
    assert int(farm.accepted(token).read_text()) < 1_000_000  # It never fills the disk, either.


async def test_what_a_command_leaves_running_ends_with_it(farm: Farm, tmp_path: Path) -> None:
    token = farm.token("SB000", f"sleep 1000 & echo $! > {tmp_path}/pid; {SIMPLE}")
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"
    pid = (tmp_path / "pid").read_text().strip()
    await eventually(lambda: not is_alive(pid))


async def test_twenty_pilots_do_thirty_tokens_once_each(farm: Farm, tmp_path: Path) -> None:
    tokens = [farm.token(f"SB{number:03d}", f"echo x >> {tmp_path}/ran-{number}; {SIMPLE}") for number in range(30)]
    other = {"type": "other", "lock": 0, "done": 0, "config.json": {"command": "touch ran"}}
    rev = farm.database.put("other:1", other).rev
    pilots = [await farm.pilot(job=f"job-{number}") for number in range(20)]
    assert [await pilot.ended(100) for pilot in pilots] == [0] * 20
    assert {farm.get(token)["status"] for token in tokens} == {"done"}
    assert [(tmp_path / f"ran-{number}").read_text() for number in range(30)] == ["x\n"] * 30
    assert farm.files() == sorted(farm.accepted(token) for token in tokens)
    assert farm.database.get("other:1").rev == rev
    assert [farm.mark(f"job-{number}")["why"] for number in range(20)] == ["nothing left"] * 20
    assert not any(pilot.stdout for pilot in pilots)


async def test_the_password_is_nowhere(farm: Farm, tmp_path: Path) -> None:
    command = "cat /proc/self/environ /proc/$PPID/cmdline; env; echo data > results/out"
    token = farm.token("SB000", command)
    pilot = await farm.pilot(environment={"AGLOWD_JOB_ID": "j", "PICAS_USR_PWD": PASSWORD, "KEPT": "yes"})
    assert await pilot.ended() == 0, pilot.stderr
    assert "KEPT=yes" in farm.log(token, "stdout")
    everything = json.dumps(farm.get(token), ensure_ascii=False) + farm.log(token, "stdout") + farm.log(token, "stderr")
    basic = base64.b64encode(f"aglowd:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, basic):
        assert secret not in everything + pilot.stderr + pilot.stdout
    assert PASSWORD not in (tmp_path / "ledger.jsonl").read_text()
