"""Data lie at one site and are processed at another: the shipped pipelines take each route with a few lines of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aglowd import templates
from aglowd.config import load_config
from aglowd.pipeline import context_of
from aglowd.wiring import load_pipelines, shown_to_templates

CONFIG = """
[catalogue]
path = "fields.csv"
srm_dir = "srm"
[sites.sara]
results = "file:///sara/r"
archive = "file:///sara/a"
[sites.juelich]
results = "file:///juelich/r"
archive = "file:///juelich/a"
[sites.juelich.picas]
database = "sksp2juelich"
[sites.juelich.jobs]
system = "none"
[sites.poznan]
process = "sara"
"""
OUTPUTS: dict[str, dict[str, Any]] = {
    "target_online": {"surls": ["srm://x"]},
    "target_parset": {"parset": "x"},
    "target2_parset": {"parset": "x"},
    "target_tokens": {"token_type": "P1-1_targ1", "tokens": ["P1-1_targ1:SB000"], "srm": {}, "count": 1},
    "target2_tokens": {"token_type": "P1-1_targ2", "tokens": ["P1-1_targ2:SB000"], "srm": {}, "count": 1},
    "target_submit": {"jobs": []},
    "target2_submit": {"jobs": []},
    "target_check": {"files": ["file:///f"]},
    "target2_check": {"files": ["file:///f"]},
    "calibrator": {"solutions": ["file:///s"]},
    "stage": {"surls": ["srm://x"]},
    "parset": {"parset": "x"},
    "solve_tokens": {"token_type": "P1-1_cal", "tokens": ["P1-1_cal:SB000"], "srm": {}, "count": 1},
    "solve_submit": {"jobs": []},
}
FIELD = {
    "name": "P1",
    "status": "SND",
    "target": {"obsid": "L1", "freq_resolution": 8, "time_resolution": 2.0},
    "calibrator": {"obsid": "L2", "freq_resolution": 8, "time_resolution": 2.0},
    "baseline_filter": "",
}


def rendered(tmp_path: Path, name: str, at: str, params: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The parameters of each step on tokens, jobs and archives, of a field whose data lie there."""
    path = tmp_path / "aglowd.toml"
    path.write_text(CONFIG, encoding="utf-8")
    pipeline = load_pipelines("", "sksp")[name]
    lists = {of: {"site": at, "surls": ["srm://x"]} for of in ("target_list", "calibrator_list")}
    run = {"id": "P1-1", "key": "P1", "field": "P1", "failed": []}
    base = {**shown_to_templates(load_config(path)), "field": FIELD, "run": run, "params": params or {}}
    return {
        step.name: templates.render(step.params, context_of(pipeline, step, base, {**OUTPUTS, **lists}))
        for step in pipeline.steps.values()
        if step.kind in ("create_tokens", "attach", "submit", "wait_tokens", "collect", "archive_tokens", "copy_files", "run", "provenance")
    }  # fmt: skip


@pytest.mark.parametrize(("at", "processed"), [("sara", "sara"), ("juelich", "juelich"), ("poznan", "sara")])
def test_a_target_is_processed_where_its_route_leads(tmp_path: Path, at: str, processed: str) -> None:
    steps = rendered(tmp_path, "sksp", at)
    inner = ("tokens", "attach", "submit", "wait", "check")
    for name in (*(f"target{part}_{one}" for part in ("", "2") for one in inner), "archive_tokens"):
        assert steps[name]["site"] == processed, name
    assert steps["target_tokens"]["keys"]["RESULTS_DIR"] == f"file:///{processed}/r/P1-1/targ1"
    for name in ("archive", "archive_tokens", "provenance"):
        assert steps[name]["directory"] == f"file:///{processed}/a/P1-1"
    most = steps["target_wait"]["pilots"]["max_pilots"]
    assert (most == 0) == (processed == "juelich"), "there somebody else starts them"
    calibrator = steps["calibrator"]["params"]
    assert (calibrator["site"], calibrator["results"]) == (at, f"file:///{processed}/r/calibrators")

    solve = rendered(tmp_path, "calibrator", at, {**calibrator, "token_config": {}, "parset": ""})
    for name in (*(f"solve_{one}" for one in inner), "archive_tokens"):
        assert solve[name]["site"] == processed, name
    assert solve["archive_tokens"]["directory"] == f"file:///{processed}/a/calibrators/P1-1"


@pytest.mark.parametrize(("name", "params", "outputs"), [
    ("ndppp", {"list": "/l", "obsid": "L1", "group": 1, "values": {}, "results": "file:///r"}, {"stage": {"surls": ["srm://x"]}}),
    ("reference", {"target": "L1", "calibrator": "L2", "commit": "c", "image": "i"}, {}),
    ("dysco", {"directory": "file:///d", "pattern": "*", "results": "file:///r", "copies": "", "site": "poznan"}, {}),
])  # fmt: skip
def test_tokens_are_archived_where_they_were_made(
    tmp_path: Path, name: str, params: dict[str, Any], outputs: dict[str, dict[str, Any]]
) -> None:
    """Also of data that lie at a site that processes nothing."""
    path = tmp_path / "aglowd.toml"
    path.write_text(CONFIG, encoding="utf-8")
    pipeline = load_pipelines("", "sksp")[name]
    at = {of: {"site": "poznan"} for of in ("list", "target_list", "calibrator_list")}
    base = {**shown_to_templates(load_config(path)), "run": {"id": "R-1"}, "params": params, "last": {"outputs": {}}}
    steps = {step.name: step for step in pipeline.steps.values() if step.kind in ("create_tokens", "archive_tokens")}
    archived = steps.pop("archive_tokens")
    context = context_of(pipeline, archived, base, at)
    assert templates.render(archived.params["directory"], context).startswith("file:///sara/a/")
    assert templates.render(archived.params["site"], context) == "sara"
    assert steps
    for step in steps.values():
        assert templates.render(step.params["site"], context_of(pipeline, step, base, at)) == "sara"


def test_all_that_is_archived_lies_below_the_id_of_its_run(tmp_path: Path) -> None:
    """A field that is run again has another id: nothing of it is written over."""
    steps = rendered(tmp_path, "sksp", "sara")
    calibrator = rendered(tmp_path, "calibrator", "sara", {**steps["calibrator"]["params"], "parset": ""})
    for step in (steps["archive"], steps["archive_tokens"], calibrator["archive_tokens"]):
        assert step["directory"].endswith("/P1-1")
    for name in ("target_tokens", "target2_tokens"):
        assert "/P1-1/" in steps[name]["keys"]["RESULTS_DIR"]
        assert steps[name]["token_type"] == OUTPUTS[name]["token_type"]
