"""The crash points: whatever writes to the store or talks to the outside has one, and in production none costs anything."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from aglowd.crash import AT, TRACE, seam
from aglowd.effects.base import World
from tests.crash import plan
from tests.crash.points import ROOT, Seam, functions, is_seam, list_points, list_seams
from tests.crash.scenario import SCENARIOS
from tests.turns import rotating_third

ADAPTERS = {
    "lta": "stager",
    "stageit": "stager",
    "dcache_stage": "stager",
    "dcache": "archive",
    "picas": "token_base",
    "couchdb": "token_base",
    "glite": "batch",
    "storage": "storage",
    "proxy": "proxy",
    "catalogue_csv": "catalogue",
    "catalogue_own": "catalogue",
}
"""The files in grid/ of the outside systems, and what the product calls these."""


ALSO = {"base": "token_base", "picas": "token_base"}
"""What the product calls them where it has them at hand."""


def uses() -> Iterator[tuple[str, str]]:
    """What the product asks for: (whose, what) of every `x.whose.what`, `whose.what` and `whose(…).what` in it."""
    for path in sorted({*(ROOT / "aglowd").rglob("*.py")} - {*(ROOT / "aglowd/sim").rglob("*.py")}):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            value = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(value, ast.Attribute | ast.Name):
                owner = value.attr if isinstance(value, ast.Attribute) else value.id
                yield ALSO.get(owner, owner.lstrip("_")), node.attr


USES = frozenset(uses())
TOLD_OTHERWISE = frozenset({
    ("stageit", "staged"), ("dcache_stage", "staged"), ("dcache_stage", "status"), ("dcache", "copies"),
    ("dcache", "space"), ("glite", "output"), ("catalogue_own", "holder"),
})  # fmt: skip
"""What no scenario asks: of a stager that tells what a request is for, and shows all of them for days; of a site that
loses no file, and tells no room; what a person fetches changes nothing; the fields that are taken
over stand in a fields file.

Their requests have the points of `http.request`."""


def writes(function: ast.AsyncFunctionDef | ast.FunctionDef) -> bool:
    """Whether its body asks the store for a transaction that changes something."""
    calls = {ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return bool(calls & {"self._change", "self.db.write"})


def test_every_verb_that_writes_to_the_store_has_a_seam() -> None:
    found = [one for one in functions(ROOT / "aglowd/store/store.py") if writes(one) and one.name != "_change"]
    assert len(found) > 12
    asked = [one for one in found if ("store", one.name) in USES]
    assert len(asked) > 10
    assert [one.name for one in asked if not is_seam(one)] == []


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_every_way_to_ask_the_outside_has_a_seam(system: str) -> None:
    path = ROOT / "aglowd/grid" / f"{system}.py"
    public = [one for one in functions(path) if isinstance(one, ast.AsyncFunctionDef) and not one.name.startswith("_")]
    reaching = [one for one in public if any(isinstance(node, ast.Await) for node in ast.walk(one))]
    asked = [
        one for one in reaching if (ADAPTERS[system], one.name) in USES and (system, one.name) not in TOLD_OTHERWISE
    ]
    assert asked
    # What nobody calls cannot be reached; the day that somebody does, it needs its seam.
    assert [one.name for one in asked if not is_seam(one)] == []


def test_no_outside_system_is_forgotten() -> None:
    # What events tell is only a hint, registries are only looked at, and no secret is in the journal: they have no points but
    # those of the requests.
    ours = {
        "clock",
        "web",
        "work_dir",
        "sandboxes",
        "staging_settle_s",
        "protected",
        "deletable",
        "events",
        "registry",
        "secret",
    }
    transports = {"http": "http.request", "processes": "proc.run"}
    assert {*World.__struct_fields__} == ours | {*transports} | {"stagers", "archives", "batches", "token_bases"} | {
        *ADAPTERS.values()
    } - {
        "stager",
        "archive",
        "batch",
        "token_base",
    }
    assert {f"{name}:before" for name in (*transports.values(), "srm_lists.look", "credentials.renew")} <= {
        *list_points()
    }


def test_points_have_names_of_their_own() -> None:
    points = list_points()
    assert len(points) == len(set(points)) == 2 * len(list_seams())
    assert {"store.settle:before", "lta.stage:after", "catalogue_csv.replace:before", "couchdb.changes:after"} <= {
        *points
    }


def test_two_seams_of_one_name_are_refused(tmp_path: Path) -> None:
    for room in ("one", "two"):
        (tmp_path / "aglowd" / room).mkdir(parents=True)
        (tmp_path / "aglowd" / room / "same.py").write_text("@seam\ndef act(): ...\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"same\.act"):
        list_seams(tmp_path)


def test_scenarios_begin_with_points_that_exist() -> None:
    firsts = {one.first.rpartition(":")[0] for one in SCENARIOS if one.first}
    assert firsts
    assert firsts <= {*list_points()}
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)


def test_in_production_a_seam_is_the_function_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AT, raising=False)
    monkeypatch.delenv(TRACE, raising=False)

    async def act() -> None: ...

    assert seam(act) is act


SCRIPT = """
import asyncio
from aglowd.crash import seam

@seam
async def ask(text):
    return text

@seam
async def feed():
    for number in range(3):
        yield number

@seam
def _write(text):
    return text

async def main():
    assert await ask("a") == "a"
    assert [value async for value in feed()] == [0, 1, 2]
    assert await asyncio.to_thread(_write, "b") == "b"
    assert await ask("c") == "c"
    print("alive")

asyncio.run(main())
"""
PASSED = [
    "here.ask:before", "here.ask:after", "here.feed:before", *["here.feed:after"] * 3, "here.write:before",
    "here.write:after", "here.ask:before", "here.ask:after",
]  # fmt: skip


def run_script(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "here.py").write_text(SCRIPT, encoding="utf-8")
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    argv = (sys.executable, "-c", "import here")
    return subprocess.run(argv, cwd=tmp_path, env=given, capture_output=True, text=True, check=False, timeout=60)


def test_a_trace_tells_every_pass_in_order(tmp_path: Path) -> None:
    done = run_script(tmp_path, AGLOWD_CRASH_TRACE=str(tmp_path / "trace"))
    assert done.stdout == "alive\n", done.stderr
    assert (tmp_path / "trace").read_text(encoding="utf-8").split() == PASSED


@pytest.mark.parametrize(
    ("at", "passed"),
    [
        ("here.ask:before:1", 1),
        ("here.ask:after:2", 10),
        ("here.feed:after:2", 5),
        ("here.write:after:1", 8),
    ],
)
def test_the_process_dies_at_the_pass_that_was_named(tmp_path: Path, at: str, passed: int) -> None:
    done = run_script(tmp_path, AGLOWD_CRASH_AT=at, AGLOWD_CRASH_TRACE=str(tmp_path / "trace"))
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == ""
    assert (tmp_path / "trace").read_text(encoding="utf-8").split() == PASSED[:passed]


def test_a_pass_that_does_not_come_kills_nobody(tmp_path: Path) -> None:
    done = run_script(tmp_path, AGLOWD_CRASH_AT="here.ask:before:3")
    assert (done.returncode, done.stdout) == (0, "alive\n")


# --- which kills are tried


TRACES = {one.name: ["a.x:before", "a.x:after", "b.y:before", "a.x:before", "b.y:after"] for one in SCENARIOS} | {
    "unstaged": ["a.x:before", "c.z:before", "c.z:after"]
}


def test_three_days_in_a_row_test_every_point() -> None:
    points = list_points()
    day = date(2026, 3, 1)
    thirds = [rotating_third(points, day + timedelta(days=number)) for number in range(3)]
    assert {number for number, _ in thirds} == {0, 1, 2}
    assert sorted(point for _, third in thirds for point in third) == sorted(points)


def test_a_seed_draws_the_same_kills_and_all_of_them_exist() -> None:
    for seed in range(20):
        drawn = list(plan.singles(TRACES, "a.x:before", seed))
        assert drawn == list(plan.singles(TRACES, "a.x:before", seed))
        assert {case.kills[0] for case in drawn} <= {"a.x:before:1", "a.x:before:2"}
        assert drawn[-1].kills == ("a.x:before:1",)
        assert drawn[0].scenario.first == ""
    firsts = {next(plan.singles(TRACES, "a.x:before", seed)).kills for seed in range(20)}
    assert firsts == {("a.x:before:1",), ("a.x:before:2",)}


def test_a_point_of_a_recovery_is_killed_in_one() -> None:
    assert {case.scenario.name for case in plan.singles(TRACES, "c.z:after", 1)} == {"unstaged"}


def test_the_first_of_two_kills_comes_before_the_second() -> None:
    for seed in range(20):
        for case in plan.seconds(TRACES, "b.y:after", seed):
            first, second = case.kills
            assert second == "b.y:after:1"
            assert first in {"a.x:before:1", "a.x:after:1", "b.y:before:1", "a.x:before:2"}


def test_all_pairs_are_all_pairs() -> None:
    points = ["a.x:before", "b.y:after", "c.z:after"]
    found = [tuple(kill.rpartition(":")[0] for kill in case.kills) for case in plan.pairs(TRACES, points, 1)]
    assert sorted(found) == sorted((first, second) for first in points for second in points)


def test_changed_modules_are_told_by_git(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@b", *words), cwd=tmp_path, check=True)

    seams = [Seam("one.act", "aglowd/one.py", 1), Seam("two.act", "aglowd/two.py", 1)]
    assert plan.in_changed_modules(seams, tmp_path) == []
    git("init", "-q", "-b", "main")
    (tmp_path / "aglowd").mkdir()
    for name in ("one", "two", "one"):
        with (tmp_path / f"aglowd/{name}.py").open("a", encoding="utf-8") as file:
            file.write("pass\n")
        git("add", ".")
        git("commit", "-q", "-m", name)
    assert plan.in_changed_modules(seams, tmp_path) == ["one.act:before", "one.act:after"]
