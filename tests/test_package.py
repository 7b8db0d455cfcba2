"""The package as others get it: one version, a licence, a wheel that holds everything, and the ways in through make."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from aglowd import __version__

ROOT = Path(__file__).parent.parent
ROOMS = ("store", "effects", "pipeline", "reactor")
SKIPPED = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    ".hypothesis",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
}
SKIPPED |= {".import_linter_cache", ".testmondata"}


def list_files() -> list[Path]:
    """Every file that belongs to the project, and nothing that tools have left: in a worktree `.git` is a file."""
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in SKIPPED and not name.endswith(".egg-info")]
        found += [
            Path(directory, name)
            for name in files
            if name not in SKIPPED and not name.startswith(".coverage") and name != "results.json"
        ]
    return sorted(found)


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == "attr: aglowd.__version__"
    code = [
        path for path in list_files() if path.suffix in (".py", ".cfg", ".toml", ".service") or path.name == "Makefile"
    ]
    holders = [
        path for path in code if re.search(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])", path.read_text("utf-8"))
    ]
    assert [str(path.relative_to(ROOT)) for path in holders if "tests" not in path.parts] == ["aglowd/__init__.py"]


def test_the_licence_is_the_gpl_3() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"GNU GENERAL PUBLIC LICENSE\s+Version 3, 29 June 2007", text)
    assert "END OF TERMS AND CONDITIONS" in text
    assert "license = GPL-3.0-or-later" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


def test_no_file_mentions_a_path_of_a_developers_machine() -> None:
    wrong = re.compile(r"(?<![\w.}/-])/(?:work|root|Users|home/(?!pilot|user)\w+)/|/tmp/(?:v|helper\w*)/")
    found = []
    for path in list_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        if path != Path(__file__) and "samples" not in path.parts and (match := wrong.search(text)):
            found.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert found == []


def test_both_commands_are_installed() -> None:
    scripts = {entry.name: entry.load() for entry in entry_points(group="console_scripts") if "aglow" in entry.name}
    assert set(scripts) == {"aglowd", "aglowctl"}
    assert all(callable(script) for script in scripts.values())


def copy_of_the_tree(to: Path) -> Path:
    """The project as a clean clone has it."""
    for path in list_files():
        target = to / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return to


@pytest.mark.world
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "tree")
    argv = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path / "wheels")]
    done = subprocess.run(argv, cwd=tree, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith(f"aglowd-{__version__}-py3")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {str(path.relative_to(ROOT)) for path in list_files() if path.is_relative_to(ROOT / "aglowd")}
    assert package <= names, package - names
    data = f"aglowd-{__version__}.data/data/share/aglowd/"
    shipped = {path.relative_to(ROOT / "etc") for path in list_files() if path.is_relative_to(ROOT / "etc")}
    assert {f"{data}{path}" for path in shipped} <= names
    units = {path.relative_to(ROOT) for path in list_files() if path.is_relative_to(ROOT / "systemd")}
    assert len(units) == 5
    assert {f"{data}{path}" for path in units} <= names
    assert any(name.endswith("LICENSE") for name in names)
    assert not {name for name in names if name.startswith(("tests/", "bench/"))}


@pytest.mark.parametrize("maker", ["install.sh", "uninstall.sh", "aglowd.spec"])
def test_no_unit_is_forgotten(maker: str) -> None:
    """The packages themselves are tried by `make test-packages`, which takes minutes."""
    text = (ROOT / "packaging" / maker).read_text(encoding="utf-8")
    for path in (path.relative_to(ROOT) for path in list_files() if path.is_relative_to(ROOT / "systemd")):
        installed = f"{path.parent.name}/{path.name}".replace("systemd/", "system/")
        assert str(path) in text or installed in text, path


@pytest.mark.parametrize("path", sorted((ROOT / "packaging").rglob("*")), ids=lambda path: path.name)
def test_the_scripts_of_the_packages_are_scripts(path: Path) -> None:
    if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh\n"):
        assert os.access(path, os.X_OK)
        done = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def bench(*parts: str) -> tuple[dict[str, Any], str]:
    """What the quick bench of these parts finds, and its table."""
    out = ROOT / "bench" / "results.json"
    before = out.read_bytes() if out.exists() else None
    # A session of its own, so that a bench that hangs leaves no child behind.
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *parts, "--quick", "--out", "/dev/stderr"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},  # The long figures of a busy machine break no words then.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            table, figures_json = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, figures_json
    assert (out.read_bytes() if out.exists() else None) == before
    found: dict[str, Any] = json.loads(figures_json[figures_json.index("{") :])
    return found, table


def test_the_bench_measures() -> None:
    found, table = bench("speed", "waiting")
    assert found["schema"] == 1
    assert found["version"] == __version__
    assert found["commits"]["raw_per_s"] > 0
    alone, ten, hundred = (found["commits"]["writers"][number] for number in ("1", "10", "100"))
    assert alone["in_one_commit"] == 1
    assert 1 < ten["in_one_commit"] <= 10 < hundred["in_one_commit"] <= 100
    assert all(rate > 0 for rate in found["events"].values())
    assert all(0 < figures["median_ms"] <= figures["p99_ms"] for figures in found["latency"].values())
    waiting = found["waiting"]
    assert waiting["steps"] == 300
    assert waiting["memory"]["end_mb"] >= waiting["memory"]["base_mb"] > 10
    assert waiting["reopen"]["open_s"] > 0
    assert waiting["idle"]["decisions"] == 0
    assert waiting["idle"]["idle_percent"] > 0
    for what in ("commits/s", "events/s", "p99", "kB", "% of a core", "opening the store"):
        assert what in table


def test_the_bench_asks_as_an_operator_does() -> None:
    found, table = bench("asking")
    asked = found["asking"]
    assert (asked["fields"], found["targets"].keys()) == (300, {"answers"})
    assert asked["events_a_minute"] > 0
    assert all(0 < figures["median_ms"] <= figures["p99_ms"] for figures in asked["answers"].values())
    python_ms = asked["commands"].pop("python")["median_ms"]
    assert all(figures["median_ms"] > python_ms for figures in asked["commands"].values())
    assert "aglowctl explain" in table


def test_the_bench_measures_the_catalogue() -> None:
    found, table = bench("catalogue")
    assert found["targets"].keys() == {"catalogue"}
    assert (found["catalogue"]["fields"], found["catalogue"]["at_work"]) == (200, 20)
    assert list(found["catalogue"]["kinds"]) == ["csv", "own", "mysql"]
    for kind in ("csv", "own"):
        figures = found["catalogue"]["kinds"][kind]
        assert 0 < figures["between_percent"] < figures["percent"]
        assert figures["unchanged_ms"] / 1e3 < figures["changed_s"], "what has not changed is not read"
    assert "between changes" in table


def test_the_bench_lives_a_year() -> None:
    found, table = bench("year")
    lived = found["year"]
    assert found["targets"].keys() == {"year_memory", "year_database"}
    assert (lived["fields"], lived["tokens"]) == (12, 12 * 244)
    assert [one["part"] for one in lived["samples"]] == [0.1, 0.25, 0.5, 0.75, 1.0]
    last = lived["samples"][-1]
    assert 0 < last["packed_runs"] < 15, "the last ones have just ended"
    assert last["database_mb"] >= last["hot_mb"] > last["packed_mb"] > 0
    assert "100% of 12 fields" in table


def test_the_bench_compares_with_the_limit() -> None:
    found, table = bench("limits")
    assert found["targets"].keys() == {"durable", "feed", "live"}
    limits = found["limits"]
    for producers, figures in limits["durable"].items():
        assert figures["in_one_commit"] == figures["recorded_in_one_commit"] == int(producers)
        # Of one transaction: get, observe, who waits, the event, the mark, and its own savepoint.
        assert figures["statements"] == pytest.approx(7 + 2 / int(producers))
        assert figures["same_ratio"] > 0
    assert all(figures["cpu_us"] > 0 for figures in (limits["feed"]["lines"], limits["feed"]["pages"]))
    assert limits["socket"]["/live"]["bytes"] > 1000
    for what in ("100 producers", "× CPU", "GET /live", "the query of"):
        assert what in table


def test_the_bench_follows_tokens() -> None:
    found, table = bench("tokens")
    assert "commits" not in found
    assert "waiting" not in found
    assert found["targets"].keys() == {"catch_up", "catch_up_memory", "changes", "queries"}
    assert found["tokens"]["tokens"] == 20 * 244
    assert list(found["tokens"]["watched"]) == ["20", "4"]
    for what in ("4880 changes behind", "changes/s", "at most"):
        assert what in table
    for size in found["tokens"]["watched"].values():
        assert size["catch_up"]["peak_mb"] >= size["catch_up"]["base_mb"] > 10
        assert size["most_in_a_round"] in (1, 2)
        assert size["rounds"] <= size["queries"] <= 2 * size["rounds"]
        assert size["feed_requests"] == 2, "a page, and the feed that never ends"
        assert 0 < size["steady"]["lag_median_s"] <= size["steady"]["lag_p99_s"]
        assert size["steady"]["failures"] == 0


# --- make and CI


def script(path: Path, text: str) -> Path:
    """An executable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_ci_runs_make_test_in_its_own_root_without_input_and_hands_on_the_end(tmp_path: Path) -> None:
    tree = tmp_path / "a clone"
    (tree / ".ci").mkdir(parents=True)
    shutil.copy2(ROOT / ".ci" / "run", tree / ".ci" / "run")
    script(tmp_path / "bin" / "make", 'echo "make $* in $PWD"; cat; exit 7')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [tree / ".ci" / "run"], cwd="/", env={"PATH": path}, input="typed", capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert done.stdout.splitlines() == [f"make test in {tree}"]
    assert "\nset -euo pipefail\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def make(tree: Path, *words: str) -> str:
    """What make printed; it must have ended well."""
    # The make that runs these tests tells its children that they are its own.
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", *words], cwd=tree, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def toy_tree(tmp_path: Path) -> Path:
    """The Makefile with a Python that only notes how it is called."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy2(ROOT / name, tree / name)
    inner = f'echo "venv python $*" >> {tree}/calls'
    script(
        tree / "toy-python", f'echo "python $*" >> {tree}/calls\nmkdir -p .venv/bin\ncp {tree}/inner .venv/bin/python'
    )
    script(tree / "inner", inner)
    return tree


def test_make_venv_installs_once_and_again_when_the_dependencies_may_have_changed(toy_tree: Path) -> None:
    python = f"PYTHON={toy_tree}/toy-python"
    make(toy_tree, "venv", python)
    calls = (toy_tree / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[0] == "python -m venv .venv"
    assert [call for call in calls if "pip install" in call and call.endswith("-e .[dev]")] == calls[1:]
    make(toy_tree, "venv", python)
    assert (toy_tree / "calls").read_text(encoding="utf-8").splitlines() == calls
    os.utime(toy_tree / "setup.cfg", (4e9, 4e9))
    make(toy_tree, "venv", python)
    assert len((toy_tree / "calls").read_text(encoding="utf-8").splitlines()) == 2 * len(calls)


@pytest.mark.parametrize("target", ["demo", "test", "check", "fmt", "bench"])
def test_every_target_makes_the_venv_first(toy_tree: Path, target: str) -> None:
    planned = make(toy_tree, "-n", target, "PYTHON=some-python").splitlines()
    assert planned[0] == "some-python -m venv .venv"
    assert planned.index("touch .venv/installed") < len(planned) - 1


def test_make_test_holds_everything_that_it_promises(toy_tree: Path) -> None:
    *before, large, last = make(toy_tree, "-n", "test", "CI=").replace("\\\n", "").splitlines()
    for tool in ("ruff check", "ruff format --check", "mypy --strict", "lint-imports"):
        assert any(tool in line for line in before), tool
    for word in ("pytest", "-n 4", "--cov-branch", "--cov-fail-under=95", *(f"--cov=aglowd.{room}" for room in ROOMS)):
        assert word in last, word
    ignored = re.findall(r"--ignore=(\S+)", large)
    assert ignored
    assert last.split("worksteal")[1].split("--cov")[0].split() == ignored, "what one leaves out the other one runs"
    assert large.split("worksteal")[1].split() == ["-m", '"not', 'long"', *(f"--ignore={one}" for one in ignored)]
    assert "--reruns" not in large + last
    assert make(toy_tree, "-n", "test", "CI=true").count("--reruns 1 -rR") == 2, "only CI tries again, and names it"
    assert "-m long tests" in make(toy_tree, "-n", "test-long", "DAY="), "by hand all of them"
    assert "-m long tests --third 2026-03-01" in make(toy_tree, "-n", "test-long", "DAY=2026-03-01")
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["tool:pytest"]["filterwarnings"].strip().splitlines()[0] == "error"
    assert "pytest-randomly" in setup["options.extras_require"]["dev"]
