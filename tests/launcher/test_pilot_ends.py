"""How a pilot ends, what it tells of it, and under which id it signs."""

from __future__ import annotations

import os
from typing import Any

import pytest
from aiohttp import web

from aglowd.grid.picas import DESIGN_DOC

from .conftest import PASSWORD, TYPE, Farm, eventually

SIMPLE = "echo data > results/out.h5"


@pytest.mark.parametrize(
    ("environment", "field", "job"),
    [
        ({"SLURM_JOB_ID": "20"}, "slurm_job_id", "20"),
        ({"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}, "slurm_job_id", "17_3"),
        ({"SLURM_JOB_ID": "20", "GLITE_WMS_JOBID": "https://wms:9000/x_-y"}, "wms_job_id", "https://wms:9000/x_-y"),
        ({"EDG_WL_JOBID": "https://wms:9000/z"}, "wms_job_id", "https://wms:9000/z"),
        ({"PBS_JOBID": "7.ce", "DIRACJOBID": "314"}, "dirac_job_id", "314"),
        ({"JOBID": "315", "DIRACSITE": "LCG.SURF.nl", "SLURM_JOB_ID": "2"}, "dirac_job_id", "315"),
        ({"JOBID": "somebody's", "SLURM_JOB_ID": "2"}, "slurm_job_id", "2"),
        ({"GRID_GLOBAL_JOBID": "https://arc/rest/1"}, "arc_job_id", "https://arc/rest/1"),
        ({"CREAM_JOBID": "CREAM1"}, "cream_job_id", "CREAM1"),
        ({"PBS_JOBID": "7.ce"}, "pbs_job_id", "7.ce"),
        ({"AGLOWD_JOB_ID": "a1", "SLURM_JOB_ID": "2"}, "aglowd_job_id", "a1"),
    ],
)
async def test_a_pilot_signs_as_its_submitter_knows_it(
    farm: Farm, environment: dict[str, str], field: str, job: str
) -> None:
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot(environment=environment)
    assert await pilot.ended() == 0, pilot.stderr
    done = farm.get(token)
    assert {name: value for name, value in done.items() if name.endswith("_job_id")} == {field: job}
    assert farm.mark(job)["job"] == job


async def test_without_a_batch_system_it_is_host_and_process(farm: Farm) -> None:
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot(environment={"LANG": "C"})
    assert await pilot.ended() == 0, pilot.stderr
    assert not any(name.endswith("_job_id") for name in farm.get(token))
    assert farm.mark(f"{os.uname().nodename}:{pilot.process.pid}")["why"] == "nothing left"


async def test_it_takes_as_many_tokens_as_it_may(farm: Farm) -> None:
    tokens = [farm.token(f"SB{number:03d}", SIMPLE) for number in range(3)]
    pilot = await farm.pilot("--max-tokens", "2")
    assert await pilot.ended() == 0, pilot.stderr
    assert sorted(farm.get(token)["status"] for token in tokens) == ["done", "done", "queued"]
    assert farm.mark("local-1")["why"] == "tokens done"


async def test_after_its_time_it_takes_no_other_token(farm: Farm, tmp_path: Any) -> None:
    tokens = [farm.token(f"SB{number:03d}", f"sleep 1.5; {SIMPLE}") for number in range(2)]
    pilot = await farm.pilot("--max-time", "1")
    assert await pilot.ended() == 0, pilot.stderr
    assert sorted(farm.get(token)["status"] for token in tokens) == ["done", "queued"]
    assert farm.mark("local-1")["why"] == "time over"


async def test_an_idle_pilot_takes_what_comes(farm: Farm) -> None:
    looks = 0

    async def count(request: web.Request) -> web.StreamResponse | None:
        nonlocal looks
        looks += "/_view/todo" in request.path
        return None

    farm.hooks.append(count)
    pilot = await farm.pilot("--idle", "20", "--max-tokens", "1")
    await eventually(lambda: looks >= 2)
    token = farm.token("SB000", SIMPLE)
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"


async def test_nothing_left_ends_it_at_once_and_a_second_life_has_its_own_mark(farm: Farm) -> None:
    for key in ("first", "second"):
        pilot = await farm.pilot("--key", key)
        assert await pilot.ended() == 0, pilot.stderr
        assert (farm.mark("local-1")["pilot"], farm.mark("local-1")["why"]) == (key, "nothing left")


@pytest.mark.parametrize(
    ("lock", "done", "kind"),
    [("0", 0, TYPE), (0, "0", TYPE), ("", "", TYPE), (0, 0, "other"), (5, 0, TYPE), (0, 5, TYPE)],
)
async def test_a_token_that_is_in_the_view_by_mistake_does_not_keep_it(
    farm: Farm, lock: Any, done: Any, kind: str
) -> None:
    design = farm.database.get(f"_design/{TYPE}").body()
    design["views"]["todo"]["map"] = "function(doc) { if (doc.status == 'queued') { emit(doc._id, doc._id); } }"
    farm.database.put(design["_id"], design)
    token = farm.token("odd", SIMPLE, lock=lock, done=done, type=kind)
    good = farm.token("good", SIMPLE)
    rev = farm.get(token)["_rev"]
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(good)["status"] == "done"
    assert "left to people" in pilot.stderr
    assert farm.get(token)["_rev"] == rev


async def test_without_the_view_of_the_type_tokens_are_found_in_ours(farm: Farm) -> None:
    token = farm.token("SB000", SIMPLE)
    farm.database.delete(f"_design/{TYPE}", farm.database.get(f"_design/{TYPE}").rev)
    pilot = await farm.pilot()
    assert await pilot.ended() == 1
    assert f"_design/{TYPE}/_view/todo" in pilot.stderr
    farm.database.put(DESIGN_DOC["_id"], {**DESIGN_DOC})
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"


@pytest.mark.parametrize("status", [401, 403])
async def test_one_refusal_is_final(farm: Farm, status: int) -> None:
    asked = []

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        if status == 403 and "aglowd" in request.path:
            return None
        asked.append(request.path)
        return web.json_response({"error": "no", "reason": "Name or password is incorrect."}, status=status)

    farm.hooks.append(refuse)
    farm.token("SB000", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 1
    assert len(asked) == 1
    assert f"HTTP {status} Name or password is incorrect." in pilot.stderr
    assert PASSWORD not in pilot.stderr


async def test_the_wrong_password_is_refused_by_the_real_rules(farm: Farm) -> None:
    settings = {"url": farm.url, "database": "sk/sp", "user": "aglowd", "password": "wrong"}
    pilot = await farm.pilot(settings=settings)
    assert await pilot.ended() == 1
    assert pilot.stderr.count("HTTP 401") == 1


@pytest.mark.parametrize("what", ["view", "database"])
async def test_without_view_or_database_it_says_so(farm: Farm, what: str) -> None:
    settings = {"url": farm.url, "database": "none", "user": "aglowd", "password": PASSWORD}
    if what == "view":
        farm.database.delete("_design/sksp_cal", farm.database.get("_design/sksp_cal").rev)
    pilot = await farm.pilot(settings=settings if what == "database" else None)
    assert await pilot.ended() == 1
    assert ("no view of tokens" if what == "view" else "Database does not exist.") in pilot.stderr


async def test_a_mark_that_cannot_be_written_keeps_nobody_from_work(farm: Farm) -> None:
    async def forbid(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"reason": "no type"}, status=403) if "aglowd:pilot" in request.path else None

    farm.hooks.append(forbid)
    token = farm.token("SB000", SIMPLE)
    pilot = await farm.pilot()
    assert await pilot.ended() == 0, pilot.stderr
    assert farm.get(token)["status"] == "done"
    assert "the mark aglowd:pilot:local-1 is not written" in pilot.stderr


async def test_no_answer_sends_the_password_elsewhere(farm: Farm) -> None:
    stolen = []

    async def redirect(request: web.Request) -> web.StreamResponse | None:
        if "/elsewhere" in request.path:
            stolen.append(request.headers.get("Authorization"))
        raise web.HTTPTemporaryRedirect(f"{farm.url}/elsewhere")

    farm.hooks.append(redirect)
    pilot = await farm.pilot()
    assert await pilot.ended() == 1
    assert stolen == []
    assert "HTTP 307" in pilot.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--type", 'a"b'], None, "token type"),
        (["--heartbeat", "0"], None, "heartbeat"),
        (["--scratch", "absent"], None, "no directory at"),
        ([], {"url": "http://x"}, "texts for url, database, user, password"),
        ([], [], "texts for url"),
        ([], {"url": "http://u:hunter2@h", "database": "d", "user": "u", "password": "p"}, "without a user in it"),
        ([], {"url": "ftp://h", "database": "d", "user": "u", "password": "p"}, "url of http"),
    ],
)
async def test_wrong_use_is_code_2(farm: Farm, arguments: list[str], settings: Any, message: str) -> None:
    pilot = await farm.pilot(*arguments, settings=settings)
    assert await pilot.ended() == 2
    assert message in pilot.stderr
    assert "hunter2" not in pilot.stderr


async def test_a_broken_node_fails_one_token_and_no_other(farm: Farm) -> None:
    tokens = [farm.token(f"SB{number:03d}", SIMPLE) for number in range(3)]
    for token in tokens:
        farm.change(token, **{"config.json": {"command": "x", "container": {"singularity": {"SIMG": "shub://a/b"}}}})
    pilot = await farm.pilot()
    assert await pilot.ended() == 3
    failed = [farm.get(token) for token in tokens if farm.get(token)["status"] == "error"]
    assert len(failed) == 1
    assert "neither singularity nor apptainer is on PATH" in failed[0]["launcher_status"]
    assert farm.mark("local-1")["why"].startswith("error: OSError")
    assert sorted(farm.get(token)["lock"] > 0 for token in tokens) == [False, False, True]


async def test_a_refusal_in_the_middle_stops_the_beats_and_loses_no_result(farm: Farm, tmp_path: Any) -> None:
    refused: list[float] = []

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        if (tmp_path / "refuse").exists() and "SB000" in request.path:
            refused.append(0)
            return web.json_response({"reason": "no"}, status=401)
        return None

    farm.hooks.append(refuse)
    token = farm.token("SB000", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; {SIMPLE}")
    pilot = await farm.pilot("--heartbeat", "0.1")
    await eventually(lambda: farm.get(token)["status"] == "running")
    (tmp_path / "refuse").touch()
    await eventually(lambda: refused)
    farm.token("SB001", SIMPLE)
    other = await farm.pilot(job="other")  # Its whole life is many beats.
    assert await other.ended() == 0, other.stderr
    (tmp_path / "refuse").unlink()
    (tmp_path / "go").touch()
    assert await pilot.ended() == 0, pilot.stderr
    assert len(refused) == 1
    assert "no more beats" in pilot.stderr
    assert farm.get(token)["status"] == "done"
