"""docs/from-aglow.md: no name of AGLOW's is missing, what replaces it exists, and what it shows does what it says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import msgspec
import pytest
from grid.test_tokens import from_file, packaged
from handlers.conftest import STEP, seen
from test_docs import blocks, sections

from aglowd.cli import control as aglowctl
from aglowd.config import AGLOWS, Config
from aglowd.effects.tokens import CreateTokens
from aglowd.handlers import HANDLERS
from aglowd.handlers.files import directory
from aglowd.model import Do, Done, Json
from aglowd.pipeline import Pipeline
from aglowd.pipeline_file import COMMON, ROOTS, load_pipeline
from aglowd.templates import condition, render
from aglowd.wiring import handler_kinds, load_pipelines, shipped_pipelines

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "from-aglow.md"

NAMES = """
archive_all_tokens archive_tokens_from_task check_folder_for_files check_folder_for_files_from_task
check_folder_for_files_from_tokens check_if_running_field copy_gsifile copy_to_archive count_files_uberftp count_from_task
count_grid_files create_gsiftp_directory delete_gsiftp_files delete_gsiftp_from_task get_cal_from_dir
get_field_location_from_srmlist get_list_from_dir get_next_field get_result_files_from_tokenlist get_results_from_subdag
get_srmfile_from_dir get_task_instance get_user_proxy set_user_proxy_var get_var_from_task_decorator
launch_processing_subdag make_srmfile_from_step_results modify_parset modify_parset_from_fields_task set_field_status
set_field_status_from_task_return set_field_status_from_taskid stage_if_needed
gliteSensor dcacheSensor LRT_Sandbox LTA_staging data_staged LRT_token TokenCreator TokenUploader ModifyTokenStatus
ModifyTokenField SrmlistFromTokenView TokenArchiver LRT_submit LRT_storage_to_srm
SKSP_calibrator SKSP_target SKSP_juelich SKSP_juelich_cal SKSP_juelich_targ1 gridjob stage check_staged
SKSP_launcher CI_prefactor dysco_and_delete
""".split()  # noqa: SIM905 # A line for each would hide that it is the whole list.
"""All that AGLOW offers to a DAG: its functions, sensors, operators, sub-DAGs and DAGs."""
AIRFLOW = (
    "retries with delay",
    "timeouts",
    "trigger rules",
    "branching",
    "pools",
    "priority weights",
    "clear",
    "mark success",
    "skip",
    "pause",
    "cancel",
    "dry run",
    "schedules",
    "outputs of tasks (XCom)",
    "sub-pipelines",
    "a field again under another pipeline",
    "notification on failure",
    "run-as-another-user's proxy",
)
WORDS = ("step key", "step", "key", "command", "pipeline", "fragment", "template", "table")


def table_rows(name: str) -> Iterator[list[str]]:
    """The rows of the section's table, without its head."""
    for line in sections(PAGE)[name].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and not cells[0].startswith("---") and cells[0] not in ("AGLOW", "Airflow"):
            yield cells


ROWS = [
    (cells[0].strip("`"), cells)
    for name in ("Functions", "Sensors and operators", "Sub-DAGs and DAGs", "What Airflow gave")
    for cells in table_rows(name)
]


def config_keys() -> set[str]:
    """Every key of the configuration, as the reference writes it."""

    def inside(kind: Any, where: str) -> Iterator[str]:
        hints = get_type_hints(kind)
        for entry in msgspec.structs.fields(kind):
            name, hint = f"{where}{entry.encode_name}", hints[entry.name]
            if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
                yield from inside(hint, f"{name}.")
            elif get_args(hint)[:1] == (str,) and get_args(hint)[1:] != (...,) and name in ("sites", "pools"):
                of = get_args(hint)[1]
                yield from inside(of, f"{name}.NAME.") if hasattr(of, "__struct_fields__") else [f"{name}.NAME"]
            else:
                yield name

    return set(inside(Config, ""))


def is_command(name: str) -> bool:
    """Whether `aglowctl NAME` exists."""
    found: click.Command | None = aglowctl.main
    for word in name.split():
        if not isinstance(found, click.Group):
            return False
        found = found.commands.get(word)
    return found is not None


def is_table(name: str) -> bool:
    """Whether some pipeline that comes with aglowd has such a table."""
    return any(
        re.search(rf"^\[{re.escape(name)}\]", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in shipped_pipelines().glob("*.toml")
    )


def exists(word: str, name: str) -> bool:
    match word:
        case "step":
            return name in {handler.kind for handler in HANDLERS}
        case "step key":
            return name in COMMON
        case "key":
            return name in config_keys()
        case "command":
            return is_command(name)
        case "pipeline":
            return (shipped_pipelines() / f"{name}.toml").is_file()
        case "fragment":
            return (shipped_pipelines() / "fragments" / f"{name}.toml").is_file()
        case "template":
            return name.partition(".")[0] in ROOTS
        case _:
            return is_table(name)


def has_test(reference: str) -> bool:
    """Whether `file::name` is a test."""
    file, _, name = reference.partition("::")
    path = ROOT / file
    if not re.fullmatch(r"tests/[\w/]+\.py", file) or not path.is_file():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name for node in tree.body)


def test_every_name_is_there_once() -> None:
    assert sorted(name for name, _ in ROWS) == sorted((*NAMES, *AIRFLOW))


@pytest.mark.parametrize(("name", "cells"), ROWS, ids=[name for name, _ in ROWS])
def test_what_replaces_it_exists_and_is_shown(name: str, cells: list[str]) -> None:
    _, here, different, shown = cells
    named = re.findall(rf"({'|'.join(WORDS)}) `([^`]+)`", here)
    assert named, f"{name}: nothing replaces it"
    assert here == ", ".join(f"{word} `{what}`" for word, what in named)
    assert [f"{word} {what}" for word, what in named if not exists(word, what)] == []
    assert len(different) > 5, f"{name}: nothing is said about it"
    references = re.findall(r"`([^`]+)`", shown)
    assert references, f"{name}: no test shows it"
    assert [reference for reference in references if not has_test(reference)] == []


FLIGHT = [cells for cells in table_rows("Fields in flight") if cells[0] != "the row says"]


def test_each_status_from_which_a_field_is_taken_over_is_told_and_shown() -> None:
    assert [word for cells in FLIGHT for word in re.findall(r"`(\w+)`", cells[0])] == ["AAA", "SSS", "CCC", "TTT"]
    tables = load_pipelines("", "sksp")["sksp"].adopt
    words = msgspec.structs.asdict(AGLOWS)
    assert {words[name] for name in tables} == {"AAA", "SSS", "CCC", "TTT"}
    for status, _, given, shown in FLIGHT:
        references = re.findall(r"`([^`]+::[^`]+)`", shown)
        assert references, f"{status}: no test shows it"
        assert [reference for reference in references if not has_test(reference)] == []
        for name in re.findall(r"`(\w+)`:", given):
            assert f"given.{name}" in (shipped_pipelines() / "sksp.toml").read_text(encoding="utf-8")


def test_the_tests_that_the_text_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py::\w+)`", sections(PAGE)["Beside a running AGLOW"])
    assert len(named) >= 2
    assert [reference for reference in named if not has_test(reference)] == []


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("step", "no_such_step"),
        ("step key", "kind_of"),
        ("key", "daemon.no_such"),
        ("key", "sites.results"),
        ("command", "tokens nothing"),
        ("command", "status fields"),
        ("pipeline", "nothing"),
        ("fragment", "sksp"),
        ("template", "xcom.pull"),
        ("table", "nothing"),
    ],
)
def test_what_does_not_exist_is_told(word: str, name: str) -> None:
    assert not exists(word, name)


def test_what_exists_is_known() -> None:
    known = {("key", "sites.NAME.results"), ("key", "pools.NAME"), ("command", "tokens reset"), ("table", "outputs")}
    assert all(exists(word, name) for word, name in known)
    assert not has_test("tests/test_from_aglow.py::has_test_not")
    assert not has_test("tests/nothing.py::test_x")
    assert not has_test("../etc/passwd::x")


# --- what the page shows


def snippet(tmp_path: Path, name: str) -> Pipeline:
    """The pipeline of that name on the page, as `aglowd check` takes it."""
    (text,) = [text for text in blocks(PAGE, "toml") if f'name = "{name}"' in text.partition("[steps")[0]]
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return load_pipeline(path, {kind: handler.Params for kind, handler in handler_kinds().items()})


FIELD: Json = {
    "name": "P1",
    "target": {"obsid": "L22", "freq_resolution": 16, "time_resolution": 2.0},
    "calibrator": {"obsid": "L11", "freq_resolution": 64, "time_resolution": 1.0},
    "baseline_filter": "CS* RS*",
}
CONTEXT: dict[str, Json] = {
    "field": FIELD,
    "sites": {"sara": {"results": "file:///r"}},
    "run": {"id": "P1-1"},
}


SURL = "srm://srm.grid.sara.nl:8443/d/L1_SB000_uv.tar"


def with_outputs(step: str, outputs: Json) -> dict[str, Json]:
    return {**CONTEXT, "steps": {step: {"outputs": outputs}}}


def ask(pipeline: Pipeline, step: str, context: dict[str, Json], observed: Json = None) -> Any:
    """What that step decides, with the parameters that the page gives to it."""
    defined = pipeline.steps[step]
    handler = handler_kinds()[defined.kind]
    given = msgspec.convert(render(defined.params, context), handler.Params)
    return handler.react(STEP, given, seen(observed or {}))


def test_every_snippet_is_a_pipeline(tmp_path: Path) -> None:
    names = [text.split('"')[1] for text in blocks(PAGE, "toml")]
    assert len(names) == 4
    assert [snippet(tmp_path, name).name for name in names] == names


@pytest.mark.parametrize("files", [[], ["file:///r/calibrators/L11/a.tar"]])
def test_a_branch_goes_one_way(tmp_path: Path, files: list[str]) -> None:
    pipeline = snippet(tmp_path, "branch")
    there = directory("file:///r/calibrators/L11", f"{STEP.key}/0")
    listing = {"absent": not files, "files": [{"url": url, "size_bytes": 7} for url in files]}
    looked = ask(pipeline, "look", CONTEXT, {there.key: listing})
    assert isinstance(looked, Done)
    context = with_outputs("look", looked.outputs)
    taken = [name for name in ("make", "use") if condition(pipeline.steps[name].when, context)]
    assert taken == (["use"] if files else ["make"])
    (effect,) = ask(pipeline, taken[0], context).effects
    assert effect.argv == (("use-solutions", *files) if files else ("make-solutions", "L11"))
    assert pipeline.steps["go_on"].join == "all", "and the steps behind run whichever of the two did"


def test_the_solutions_of_a_calibrator_are_found(tmp_path: Path) -> None:
    pipeline = snippet(tmp_path, "solutions")
    there = directory("file:///r/calibrators/L11", f"{STEP.key}/0")
    names = ["CI_pref3_L11.tar", "CI_pref3_L11_2.tar", "CI_pref3_L12.tar", "L11.h5"]
    listing = {"absent": False, "files": [{"url": f"{there.args['url']}/{name}", "size_bytes": 7} for name in names]}
    found = ask(pipeline, "find", CONTEXT, {there.key: listing})
    outputs = render(pipeline.outputs, with_outputs("find", found.outputs))
    assert outputs == {"CAL2_SOLUTIONS": "file:///r/calibrators/L11/CI_pref3_L11_2.tar"}


def test_averaging_is_aglows(tmp_path: Path) -> None:
    """`freq_resolution / 2`, `8 / floor(time_resolution)`, and the baselines with commas between them."""
    made = ask(snippet(tmp_path, "averaging"), "parset", CONTEXT)
    assert made.outputs["parset"].split("\n")[:-1] == [
        "! avg_timestep = 4",
        "! avg_freqstep = 8",
        "! flag_baselines = CS*, RS*",
        "! target_input_pattern = L22*.MS",
    ]


OWN = '[pipeline]\nname = "own"\n[steps.tokens]\nkind = "create_tokens"\ntoken_type = "t"\nconfig = {{ file = "{}" }}\nsurls = ["{}"]\n'


def test_tokens_of_grid_lrts_own_files_are_those_of_aglow(tmp_path: Path) -> None:
    """From the file to the document that is written: all that TokenCreator puts there, and what we add has our names."""
    for path in packaged():
        file = tmp_path / "own.toml"
        file.write_text(OWN.format(path, SURL), encoding="utf-8")
        pipeline = load_pipeline(file, {kind: handler.Params for kind, handler in handler_kinds().items()})
        (effect,) = ask(pipeline, "tokens", CONTEXT).effects
        (built,) = effect.tokens.values()
        theirs = {**from_file(path, "", "t"), "_id": "t:SB000", "STARTSB": "000"}
        assert {name: built[name] for name in theirs} == theirs, path
        assert built.keys() - theirs.keys() == {"RESULT_NAME"}


def test_a_sandbox_of_the_tokens_own_configuration(tmp_path: Path) -> None:
    pipeline = snippet(tmp_path, "sandbox")
    config = msgspec.json.decode((ROOT / "tests/grid/samples/tokens/cal_pref3.json").read_bytes())
    surls = [SURL]
    context = {
        **with_outputs("sandbox", {"SBX_location": "file:///s.tar.gz"}),
        "params": {"token_config": config, "surls": surls},
    }
    built = ask(pipeline, "sandbox", context)
    assert isinstance(built, Do)
    assert [one["name"] for one in msgspec.to_builtins(built.effects[0])["repositories"]] == ["git", "prefactor"]
    (effect,) = ask(pipeline, "tokens", context).effects
    assert isinstance(effect, CreateTokens)
    assert effect.tokens["P1-1_cal:SB000"]["SBXloc"] == "file:///s.tar.gz"
