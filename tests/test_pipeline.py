"""Pipeline files: a graph that stands alone, and every mistake of a file told at once, with its line and a hint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd import templates
from aglowd.handlers import HANDLERS
from aglowd.pipeline import Pipeline, context_of
from aglowd.pipeline_file import load_pipeline
from aglowd.toml_file import ConfigError, Problem

SHIPPED = Path(__file__).parent.parent / "etc" / "pipelines"


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a kind of step."""

    path: str
    at_least: int = 1
    names: tuple[str, ...] = ()


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind without parameters."""


KINDS: dict[str, type[msgspec.Struct]] = {"look": Look, "rest": Nothing}
KNOWN_ROOTS = "known: config, dict, field, first, last, params, range, route, run, sites, steps"

FRAGMENT = """[fragment]
required = ["where"]
[params]
least = 2
[steps.begin]
kind = "look"
path = "{{ use.where }}"
at_least = "{{ use.least }}"
[steps.end]
kind = "look"
needs = ["begin"]
path = "{{ steps.begin.outputs.path }}"
"""


def write(tmp_path: Path, text: str, **fragments: str) -> Path:
    (tmp_path / "fragments").mkdir(exist_ok=True)
    for name, content in fragments.items():
        (tmp_path / "fragments" / f"{name}.toml").write_text(content, encoding="utf-8")
    path = tmp_path / "p.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, text: str, **fragments: str) -> Pipeline:
    return load_pipeline(write(tmp_path, text, **fragments), KINDS)


def problems_of(tmp_path: Path, text: str, **fragments: str) -> list[tuple[str, int, str, str]]:
    """(file, line, what, hint) of each problem; the file relative to the pipeline's directory."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **fragments)
    return [told(tmp_path, problem) for problem in caught.value.problems]


def told(tmp_path: Path, problem: Problem) -> tuple[str, int, str, str]:
    return str(Path(problem.file).relative_to(tmp_path)), problem.line, problem.what, problem.hint


def the_problem(tmp_path: Path, text: str, **fragments: str) -> tuple[str, int, str, str]:
    found = problems_of(tmp_path, text, **fragments)
    assert len(found) == 1, found
    return found[0]


# --- well


def test_all_keys_of_a_step(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        """[pipeline]
name = "other"
params = ["depth"]
[steps.a]
kind = "rest"
[steps.b]
kind = "look"
needs = ["a", "a"]
join = "done"
when = "run.failed"
pool = "staging-{{ field.site }}"
priority = -3
retries = 2
retry_delay = "1h"
timeout = 90
path = "{{ params.depth }}"
names = ["x"]
[outputs]
all = "{{ steps.b.outputs }}"
""",
    )
    assert (pipeline.name, pipeline.params) == ("other", ("depth",))
    assert pipeline.outputs == {"all": "{{ steps.b.outputs }}"}
    step = pipeline.steps["b"]
    assert (step.kind, step.needs, step.join, step.when) == ("look", ("a",), "done", "run.failed")
    assert (step.pool, step.priority, step.retries) == ("staging-{{ field.site }}", -3, 2)
    assert (step.retry_delay_s, step.timeout_s) == (3600.0, 90.0)
    assert step.params == {"path": "{{ params.depth }}", "names": ["x"]}
    assert (step.file, step.line) == (str(tmp_path / "p.toml"), 6)
    plain = pipeline.steps["a"]
    assert (plain.needs, plain.join, plain.when, plain.pool, plain.priority) == ((), "all", True, "", 0)
    assert (plain.retries, plain.retry_delay_s, plain.timeout_s, plain.params) == (0, 300.0, 0.0, {})


def test_the_name_of_the_file_is_the_name_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "[steps.a]\nkind = 'rest'\n").name == "p"


def test_ancestors_are_all_that_has_ended(tmp_path: Path) -> None:
    text = "".join(
        f"[steps.{name}]\nkind = 'rest'\nneeds = {needs}\n"
        for name, needs in {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}.items()
    )
    pipeline = load(tmp_path, text)
    assert pipeline.ancestors("d") == {"a", "b", "c"}
    assert pipeline.ancestors("a") == set()


@pytest.mark.parametrize("name", ["sksp", "calibrator"])
def test_the_shipped_pipelines_are_well(name: str) -> None:
    kinds = {handler.kind: handler.Params for handler in HANDLERS}
    pipeline = load_pipeline(SHIPPED / f"{name}.toml", kinds)
    assert pipeline.name == name
    assert all(
        step.needs == tuple(need for need in step.needs if need in pipeline.steps) for step in pipeline.steps.values()
    )
    assert not [key for key in pipeline.outputs if key == ""]
    assert {"tokens", "attach", "submit", "wait", "check"} <= {
        step.removeprefix(f"{alias}_")
        for alias in pipeline.aliases
        for step in pipeline.steps
        if step.startswith(f"{alias}_")
    }


def test_the_shipped_pipeline_does_what_a_field_needs() -> None:
    kinds = {handler.kind: handler.Params for handler in HANDLERS}
    pipeline = load_pipeline(SHIPPED / "sksp.toml", kinds)
    statuses = [step.params["status"] for step in pipeline.steps.values() if step.kind == "set_status"]
    words = ("claimed", "calibrated", "target", "archived", "failed")
    assert [one.rpartition("config.statuses.")[2] for one in statuses] == [f"{word} }}}}" for word in words]
    assert {"target", "target2"} == set(pipeline.aliases)
    assert pipeline.steps["archive_tokens"].needs == ("archive",), "tokens go only when the results are archived"
    assert pipeline.steps["release"].params["until"] == ["target_check"], "files are kept while their pass goes on"
    assert {"release", "release_late", "archive_tokens"} <= set(pipeline.ancestors("status_archived"))
    assert pipeline.steps["status_failed"].join == "done"


# --- fragments


def test_a_fragment_expands_in_place(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        """[steps.first]
kind = "rest"
[steps.job]
use = "pass"
needs = ["first"]
when = "run.id"
timeout = "2h"
retries = 1
where = "{{ field.place }}"
[steps.last]
kind = "look"
needs = ["job"]
path = "{{ steps.job.outputs.path }}"
""",
        **{"pass": FRAGMENT},
    )
    assert list(pipeline.steps) == ["first", "job_begin", "job_end", "last"]
    assert pipeline.aliases == {"job": "job_end"}
    begin, end, last = (pipeline.steps[name] for name in ("job_begin", "job_end", "last"))
    assert (begin.needs, begin.when) == (("first",), "run.id"), "what stands before the fragment is its first step's"
    assert (end.needs, end.when) == (("job_begin",), True)
    assert last.needs == ("job_end",)
    assert [(step.timeout_s, step.retries) for step in (begin, end)] == [(7200.0, 1)] * 2
    assert begin.use == end.use == {"least": 2, "where": "{{ field.place }}"}
    assert begin.local == {"begin": "job_begin", "end": "job_end"}
    assert begin.file == str(tmp_path / "fragments" / "pass.toml")
    assert begin.line == 5


def test_what_the_templates_of_a_fragment_see(tmp_path: Path) -> None:
    text = '[steps.a]\nkind = "rest"\n[steps.job]\nuse = "pass"\nneeds = ["a"]\nwhere = "{{ steps.a.outputs.x }}/r"\nleast = 5\n'
    text += '[steps.last]\nkind = "rest"\nneeds = ["job"]\n'
    pipeline = load(tmp_path, text, **{"pass": FRAGMENT})
    outputs = {"a": {"x": "file:///s"}, "job_begin": {"path": "p"}, "job_end": {"path": "q"}}
    context = context_of(pipeline, pipeline.steps["job_begin"], {"field": {"name": "P1"}}, outputs)
    rendered = templates.render(pipeline.steps["job_begin"].params, context)
    assert rendered == {"path": "file:///s/r", "at_least": 5}
    assert templates.render(
        pipeline.steps["job_end"].params, context_of(pipeline, pipeline.steps["job_end"], {}, outputs)
    ) == {"path": "p"}
    outside = context_of(pipeline, pipeline.steps["last"], {"field": {"name": "P1"}}, outputs)
    assert outside["steps"]["job"] == {"outputs": {"path": "q"}}
    assert outside["field"] == {"name": "P1"}
    assert "use" not in outside
    assert "begin" not in outside["steps"]
    assert outside["steps"]["last"] == {"outputs": {}}, "a step without outputs is there, its outputs are not"


def test_one_fragment_may_be_used_twice(tmp_path: Path) -> None:
    text = "".join(
        f'[steps.{name}]\nuse = "pass"\nwhere = "{name}"\nneeds = {needs}\n'
        for name, needs in (("x", []), ("y", ["x"]))
    )
    pipeline = load(tmp_path, text, **{"pass": FRAGMENT})
    assert pipeline.steps["y_begin"].needs == ("x_end",)
    assert [pipeline.steps[f"{name}_begin"].use for name in "xy"] == [
        {"least": 2, "where": "x"},
        {"least": 2, "where": "y"},
    ]


# --- what a pipeline refers to is taken in


def test_files_are_embedded(tmp_path: Path) -> None:
    (tmp_path / "a.parset").write_text("key = 1\n")
    (tmp_path / "b.json").write_text('{"Token": {"x": [1]}}')
    text = """[steps.a]
kind = "look"
path = { file = "a.parset" }
[steps.job]
use = "pass"
where = { inner = { file = "b.json" } }
"""
    pipeline = load(tmp_path, text, **{"pass": FRAGMENT})
    assert pipeline.steps["a"].params == {"path": "key = 1\n"}
    assert pipeline.steps["job_begin"].use == {"least": 2, "where": {"inner": {"Token": {"x": [1]}}}}


def test_a_digest_is_stable_and_changes_with_everything_that_counts(tmp_path: Path) -> None:
    base = '[steps.a]\nkind = "look"\npath = { file = "a.parset" }\n[steps.job]\nuse = "pass"\nwhere = "w"\nneeds = ["a"]\n'
    (tmp_path / "a.parset").write_text("key = 1\n")

    def digest(text: str = base, fragment: str = FRAGMENT) -> str:
        return load(tmp_path, text, **{"pass": fragment}).digest

    first = digest()
    assert digest() == first
    assert len(first) == 16
    changed = {
        digest(base.replace('"w"', '"v"')),
        digest(base + "retries = 1\n"),
        digest(base + "[outputs]\nx = 1\n"),
        digest("[pipeline]\nname = 'q'\n" + base),
        digest(fragment=FRAGMENT.replace("least = 2", "least = 3")),
    }
    (tmp_path / "a.parset").write_text("key = 2\n")
    changed.add(digest())
    assert len(changed | {first}) == 7


def test_a_definition_stands_alone(tmp_path: Path) -> None:
    kinds = {handler.kind: handler.Params for handler in HANDLERS}
    copy = tmp_path / "pipelines"
    shutil.copytree(SHIPPED, copy)
    pipeline = load_pipeline(copy / "sksp.toml", kinds)
    shutil.rmtree(copy)
    stored = msgspec.json.encode(pipeline)
    assert msgspec.json.decode(stored, type=Pipeline) == pipeline
    parset = pipeline.steps["target_parset"].params["template"]
    assert "avg_freqresolution" in parset
    assert json.loads(stored)["steps"]["target_tokens"]["use"]["token_config"]["PicasApiVersion"] == 0.5


# --- every kind of mistake, with its file, line and hint

P = "p.toml"
A = "[steps.a]\nkind = 'rest'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "\n[stps.a]\n" + A,
            (P, 2, "unknown table 'stps'", "known: [pipeline], [steps.NAME], [outputs], [schedule], [adopt.STATUS]"),
            id="table",
        ),
        pytest.param(
            A + "[adopt.half]\n",
            (P, 3, "adopt: unknown status 'half'", "one of claimed, staged, calibrated, target, archived, failed"),
            id="adopt: status",
        ),
        pytest.param(
            A + "[adopt]\ntarget = 3\n",
            (P, 4, "adopt.target is not a table", "write [adopt.target]"),
            id="adopt: no table",
        ),
        pytest.param(
            A + "[adopt.target]\nb = {}\n", (P, 4, "adopt: there is no step 'b'", "one of a"), id="adopt: no step"
        ),
        pytest.param(
            A + "[adopt.target]\na = 'ZZZ'\n",
            (P, 4, "adopt: a is not a table", 'write the step\'s outputs: { status = "CCC" }, or {}'),
            id="adopt: no outputs",
        ),
        pytest.param(
            A + "[adopt.target]\na = { x = '{{ params.x }}' }\n",
            (P, 4, "undefined name 'params'", "known: config, dict, field, first, given, range, route, sites"),
            id="adopt: name",
        ),
        pytest.param("[pipeline]\ntitle = 'x'\n" + A, (P, 2, "unknown key 'title'", "known: name, params"), id="head"),
        pytest.param(
            "[pipeline]\nname = 'x'\n",
            (P, 1, "the pipeline has no steps", "add a table such as [steps.claim]"),
            id="empty",
        ),
        pytest.param(A + "[steps]\n\nb = 3\n", (P, 5, "step 'b' is not a table", "write [steps.b]"), id="no table"),
        pytest.param("[steps.a]\npriority = 1\n", (P, 1, "step 'a' has no kind", "one of look, rest"), id="no kind"),
        pytest.param(
            "[steps.a]\n\nkind = 'loook'\n", (P, 3, "step 'a': unknown kind 'loook'", "one of look, rest"), id="kind"
        ),
        pytest.param(
            "[steps.a]\nkind = 3\n", (P, 1, "step 'a' has no kind", "one of look, rest"), id="kind is a number"
        ),
        pytest.param(
            A + "needs = ['b', 'c']\n[steps.c]\nkind = 'rest'\n",
            (P, 3, "step 'a' needs 'b', which is no step", "known: c"),
            id="unknown need",
        ),
        pytest.param(
            A + "needs = ['c']\n[steps.b]\nkind = 'rest'\nneeds = ['a']\n[steps.c]\nkind = 'rest'\nneeds = ['b']\n",
            (P, 3, "steps need each other in a circle: a → c → b → a", "remove one need"),
            id="cycle",
        ),
        pytest.param(
            A + "needs = ['a']\n",
            (P, 3, "steps need each other in a circle: a → a", "remove one need"),
            id="cycle of one",
        ),
        pytest.param(
            A + "needs = 'b'\n", (P, 3, "step 'a', needs: Expected `array`, got `str`", ""), id="needs is a text"
        ),
        pytest.param(
            A + "join = 'some'\n", (P, 3, "step 'a': unknown join 'some'", "one of all, any, done"), id="join"
        ),
        pytest.param(A + "retries = 1.5\n", (P, 3, "step 'a', retries: Expected `int`, got `float`", ""), id="type"),
        pytest.param(A + "retries = -1\n", (P, 3, "step 'a': retries cannot be negative", ""), id="negative"),
        pytest.param(
            A + "priority = 'x'\n", (P, 3, "step 'a', priority: Expected `int`, got `str`", ""), id="priority"
        ),
        pytest.param(A + "pool = 1\n", (P, 3, "step 'a', pool: Expected `str`, got `int`", ""), id="pool"),
        pytest.param(A + "when = 1\n", (P, 3, "step 'a', when: Expected `bool | str`, got `int`", ""), id="when"),
        pytest.param(
            A + "timeout = '7 days'\n",
            (
                P,
                3,
                'step \'a\', timeout: \'7 days\' is no duration; expected a number and a unit, such as "90s", "5m", "2h" or "7d"',
                "",
            ),
            id="duration",
        ),
        pytest.param(
            A + "retry_delay = -5\n",
            (P, 3, "step 'a', retry_delay: a duration cannot be negative: -5.0", ""),
            id="delay",
        ),
        pytest.param(
            A + "path = 'x'\n",
            (P, 3, "step 'a': kind 'rest' takes no 'path'", "it takes no parameters"),
            id="unknown parameter",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = 'x'\npaht = 'x'\n",
            (P, 4, "step 'a': kind 'look' takes no 'paht'", "it takes at_least, names, path"),
            id="misspelt parameter",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\n", (P, 1, "step 'a': kind 'look' needs 'path'", ""), id="missing parameter"
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = 'x'\nat_least = 'two'\n",
            (P, 4, "step 'a', at_least: Expected `int`, got `str`", ""),
            id="parameter type",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = 'x'\nnames = [1]\n",
            (P, 4, "step 'a', names: Expected `str`, got `int` - at `$[0]`", ""),
            id="element type",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = '{{ fild.x }}'\n", (P, 3, "undefined name 'fild'", KNOWN_ROOTS), id="root"
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = '{{ use.x }}'\n",
            (P, 3, "undefined name 'use'", KNOWN_ROOTS),
            id="use outside",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = '{{ params.x }}'\n",
            (P, 3, "undefined name params.x", "[pipeline] params = []"),
            id="params",
        ),
        pytest.param(
            A + "[steps.b]\nkind = 'look'\npath = '{{ steps.c.outputs.x }}'\n",
            (P, 5, "undefined name steps.c", "known: a, b"),
            id="no such step",
        ),
        pytest.param(
            A + "[steps.b]\nkind = 'look'\npath = '{{ steps.a.outputs.x }}'\n",
            (P, 5, "steps.a may not have ended when 'b' runs", "add 'a' to the needs of 'b'"),
            id="no need",
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = '{{ steps.a.outputs.x }}'\n",
            (P, 3, "steps.a may not have ended when 'a' runs", "add 'a' to the needs of 'a'"),
            id="itself",
        ),
        pytest.param(A + "when = 'fild.x'\n", (P, 3, "undefined name 'fild'", KNOWN_ROOTS), id="when name"),
        pytest.param(
            A + "when = '{{ params.y }}'\n",
            (P, 3, "undefined name params.y", "[pipeline] params = []"),
            id="when braces",
        ),
        pytest.param(A + "pool = 'p-{{ sits.x }}'\n", (P, 3, "undefined name 'sits'", KNOWN_ROOTS), id="pool name"),
        pytest.param(
            A + "[outputs]\nx = '{{ nothing }}'\n", (P, 3, "undefined name 'nothing'", KNOWN_ROOTS), id="outputs"
        ),
        pytest.param(
            A + "[outputs]\nx = '{{ steps.b.x }}'\n", (P, 3, "undefined name steps.b", "known: a"), id="outputs step"
        ),
        pytest.param(
            "[steps.a]\nkind = 'look'\npath = '{{ field. }}'\n",
            (P, 3, "the template cannot be read: expected name or number (line 1 of the template)", ""),
            id="syntax",
        ),
        pytest.param(A + "when = 'a =='\n", (P, 3, "the template cannot be read: ", ""), id="when syntax"),
        pytest.param(A + "when = false\n", (P, 1, "step 'a' can never run: its when is false", "remove it"), id="dead"),
        pytest.param(A + "[steps.b]\nuse = 'pas'\n", (P, 4, "unknown fragment 'pas'", "one of other"), id="fragment"),
    ],
)
def test_a_mistake(tmp_path: Path, text: str, expected: tuple[str, int, str, str]) -> None:
    file, line, what, hint = the_problem(tmp_path, text, other=FRAGMENT)
    assert (file, line, hint) == (expected[0], expected[1], expected[3])
    assert what.startswith(expected[2]) if expected[2].endswith(" ") else what == expected[2]


def test_what_is_not_toml(tmp_path: Path) -> None:
    file, line, what, _ = the_problem(tmp_path, "[steps.a]\nkind = \n")
    assert (file, line) == (P, 2)
    assert what.startswith("this is not TOML")
    with pytest.raises(ConfigError, match=r"none\.toml:1: cannot be read"):
        load_pipeline(tmp_path / "none.toml", KINDS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"{", "truncated"), (b'{"a": "\xff"}', "decode byte")],
    ids=["absent", "json", "utf-8"],
)
def test_an_embedded_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    found = problems_of(tmp_path, "[steps.a]\nkind = 'look'\n\npath = { file = 'x.json' }\n")
    ((file, line, what, _),) = [problem for problem in found if problem[2].startswith("the file")]
    assert (file, line) == (P, 4)
    assert what.startswith("the file 'x.json' cannot be read: ")
    assert reason in what
    assert all((other, number) == (P, 4) for other, number, _, _ in found)


def test_an_embedded_file_deep_inside_is_told_at_its_own_key(tmp_path: Path) -> None:
    text = "[steps.a]\nkind = 'look'\npath = 'x'\n[steps.a.names]\none = 1\ntwo = { file = 'none' }\n"
    lines = [line for _, line, what, _ in problems_of(tmp_path, text) if "'none'" in what]
    assert lines == [6]


# --- mistakes in and around fragments


def in_fragment(body: str) -> str:
    return f"[fragment]\nrequired = []\n[params]\nx = 1\n{body}"


USE = "[steps.job]\n\nuse = 'part'\n"


@pytest.mark.parametrize(
    ("text", "fragment", "expected"),
    [
        pytest.param(
            USE + "where = 'x'\nmost = 1\n",
            FRAGMENT,
            (P, 5, "step 'job': fragment 'part' takes no 'most'", "it takes least, where"),
            id="unknown argument",
        ),
        pytest.param(
            USE + "where = '{{ fild.x }}'\n",
            FRAGMENT,
            (P, 4, "undefined name 'fild'", KNOWN_ROOTS),
            id="argument's name",
        ),
        pytest.param(
            A + USE + "where = '{{ steps.a.outputs.x }}'\n",
            FRAGMENT,
            (P, 6, "steps.a may not have ended when 'job_end' runs", "add 'a' to the needs of 'job_end'"),
            id="argument's need",
        ),
        pytest.param(
            USE,
            in_fragment("[steps.a]\nkind = 'look'\npath = '{{ use.y }}'\n"),
            ("fragments/part.toml", 7, "undefined name use.y", "known: x"),
            id="use.y",
        ),
        pytest.param(
            USE,
            in_fragment("[steps.a]\nkind = 'lok'\n"),
            ("fragments/part.toml", 6, "step 'job_a': unknown kind 'lok'", "one of look, rest"),
            id="kind",
        ),
        pytest.param(
            USE,
            in_fragment("[steps.a]\nkind = 'rest'\ntimeout = 'x'\n"),
            ("fragments/part.toml", 7, "step 'job_a', timeout: 'x' is no duration; ", ""),
            id="duration",
        ),
        pytest.param(
            USE,
            in_fragment(
                "[steps.a]\nkind = 'rest'\n[steps.b]\nkind = 'look'\npath = '{{ steps.a.outputs.x }}'\nneeds = ['c']\n[steps.c]\nkind = 'rest'\nneeds = ['a']\n[steps.d]\nkind = 'rest'\nneeds = ['b', 'e']\n"
            ),
            ("fragments/part.toml", 16, "step 'job_d' needs 'e', which is no step", "known: job, job_a, job_b, job_c"),
            id="need",
        ),
        pytest.param(
            USE,
            in_fragment("\n[steps.a]\nkind = 'rest'\n[steps.b]\nkind = 'rest'\n"),
            ("fragments/part.toml", 6, "fragment 'part' must end in one step, not in ['a', 'b']", ""),
            id="two ends",
        ),
        pytest.param(USE, "[steps\n", ("fragments/part.toml", 1, "this is not TOML: ", ""), id="not TOML"),
    ],
)
def test_a_mistake_with_a_fragment(
    tmp_path: Path, text: str, fragment: str, expected: tuple[str, int, str, str]
) -> None:
    file, line, what, hint = the_problem(tmp_path, text, part=fragment)
    assert (file, line, hint) == (expected[0], expected[1], expected[3])
    assert what.startswith(expected[2]) if expected[2].endswith(" ") else what == expected[2]


def test_an_argument_that_is_missing(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "\n" + USE, part=FRAGMENT)
    assert (P, 2, "step 'job': fragment 'part' needs 'where'", "") in found
    assert all("where" in what for _, _, what, _ in found)


@pytest.mark.parametrize(
    "line",
    [
        "timeout = 'x'",
        "needs = ['nothing']",
        "when = 'fild.x'",
        "pool = '{{ fild.x }}'",
        "join = 'some'",
        "retries = -1",
    ],
)
def test_a_mistake_beside_use_is_told_once_and_where_it_stands(tmp_path: Path, line: str) -> None:
    found = problems_of(tmp_path, f"{USE}where = 'x'\n{line}\n", part=FRAGMENT)
    assert [(file, number) for file, number, _, _ in found] == [(P, 5)]


@pytest.mark.parametrize(
    "text",
    [
        "pipeline = 3\n" + A,
        "[pipeline]\nparams = 3\n" + A,
        "[pipeline]\nparams = 'depth'\n" + A,
        "[pipeline]\nparams = [3]\n" + A,
        "steps = 3\n",
        "outputs = 3\n" + A,
        "[pipeline]\nname = 3\n" + A,
    ],
)
def test_a_table_of_the_wrong_type_is_a_problem_like_any_other(tmp_path: Path, text: str) -> None:
    found = problems_of(tmp_path, text)
    assert found
    assert all(file == P for file, _, _, _ in found)


@pytest.mark.parametrize(
    "fragment",
    [
        "fragment = 3\n",
        "[fragment]\nrequired = 3\n",
        "params = 3\n",
        "steps = 3\n",
        "[steps]\na = 3\n",
        "[steps.a]\nneeds = 3\nkind = 'rest'\n",
    ],
)
def test_a_table_of_the_wrong_type_in_a_fragment_is_a_problem_like_any_other(tmp_path: Path, fragment: str) -> None:
    whole = fragment if "steps" in fragment else fragment + "[steps.a]\nkind = 'rest'\n"
    assert problems_of(tmp_path, USE, part=whole)


# --- dead steps


@pytest.mark.parametrize(("join", "dead"), [("all", ["b", "c", "d"]), ("any", ["b", "c", "d"]), ("done", ["b"])])
def test_a_step_behind_dead_ones_alone_is_dead(tmp_path: Path, join: str, dead: list[str]) -> None:
    text = A + "[steps.b]\nkind = 'rest'\nwhen = false\n"
    text += f"[steps.c]\nkind = 'rest'\nneeds = ['b']\njoin = '{join}'\n"
    text += "[steps.d]\nkind = 'rest'\nneeds = ['c']\n[steps.e]\nkind = 'rest'\nneeds = ['a', 'd']\n"
    found = problems_of(tmp_path, text)
    assert [what.split("'")[1] for _, _, what, _ in found] == dead
    assert [hint for *_, hint in found] == ["remove it"] * len(dead)
    if len(dead) > 1:
        assert found[1][2] == "step 'c' can never run: none of its needs can ever run"


# --- several at once


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = """[pipeline]
nam = "x"
[extra]
[steps.a]
kind = "lok"
join = "some"
timeout = "soon"
[steps.b]
kind = "look"
at_least = "x"
colour = "{{ nothing }}"
needs = ["z"]
[steps.c]
use = "none"
[steps.d]
kind = "rest"
when = false
[steps.e]
kind = "look"
path = { file = "none" }
[outputs]
o = "{{ params.p }}"
"""
    found = problems_of(tmp_path, text)
    assert sorted({line for _, line, _, _ in found}) == [2, 3, 5, 6, 7, 8, 10, 11, 12, 14, 15, 20, 21]
    assert [what for _, line, what, _ in found if line == 11] == [
        "step 'b': kind 'look' takes no 'colour'",
        "undefined name 'nothing'",
    ]


def test_a_cycle_hides_no_other_mistake(tmp_path: Path) -> None:
    text = (
        A
        + "needs = ['b']\n[steps.b]\nkind = 'rest'\nneeds = ['a']\n[steps.c]\nkind = 'lok'\n[steps.d]\nkind = 'look'\n"
    )
    found = problems_of(tmp_path, text)
    assert [line for _, line, _, _ in found] == [3, 8, 9]


def test_two_cycles_are_two_problems(tmp_path: Path) -> None:
    text = A + "needs = ['a']\n[steps.b]\nkind = 'rest'\nneeds = ['c']\n[steps.c]\nkind = 'rest'\nneeds = ['b']\n"
    assert [line for _, line, _, _ in problems_of(tmp_path, text)] == [3, 6]


def test_a_name_that_two_steps_would_have_is_told(tmp_path: Path) -> None:
    text = USE + "where = 'x'\n[steps.job_begin]\nkind = 'rest'\n"
    found = problems_of(tmp_path, text, part=FRAGMENT)
    assert any("job_begin" in what for _, _, what, _ in found)


def test_context_of_nothing_but_the_outputs() -> None:
    pipeline = Pipeline(name="p", steps={})
    context: dict[str, Any] = context_of(pipeline, None, {"params": {"a": 1}}, {"x": {"y": 2}})
    assert context == {"params": {"a": 1}, "steps": {"x": {"outputs": {"y": 2}}}}


# --- schedules

SCHEDULED = '[pipeline]\nparams = ["a"]\n[schedule]\n{}\n[steps.look]\nkind = "look"\npath = "/x"\n'


def test_a_schedule_is_part_of_the_pipeline_and_not_of_what_it_does(tmp_path: Path) -> None:
    """A run that is shared, or that a person compares, is the same at whatever time it begins."""
    loaded = [
        load_pipeline(write(tmp_path, SCHEDULED.format(text)), KINDS)
        for text in ('every = "4h"\nparams = { a = 1 }', 'cron = "0 3 * * *"\nparams = { a = 2 }')
    ]
    assert [one.schedule and one.schedule.rule for one in loaded] == ["every 4h", "0 3 * * * UTC"]
    assert loaded[0].schedule is not None
    assert loaded[0].schedule.params == {"a": 1}
    assert loaded[0].digest == loaded[1].digest


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('every = "4h"\nparams = { a = 1 }\nenabld = true', 6, "schedule: unknown key 'enabld'"),
        ('cron = "often"\nparams = { a = 1 }', 4, "schedule: 'often' is no cron expression"),
        ('every = "4h"', 3, "schedule: the schedule does not give the parameter 'a'"),
        ('every = "4h"\nparams = { a = "{{ field.name }}" }', 5, "schedule: a template in params"),
    ],
)
def test_a_mistake_in_a_schedule_is_told_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(write(tmp_path, SCHEDULED.format(text)), KINDS)
    assert [(problem.line, problem.what) for problem in caught.value.problems] == [(line, what)]


def test_templates_see_what_the_last_run_left(tmp_path: Path) -> None:
    text = '[steps.look]\nkind = "look"\npath = "{{ last.outputs.path | default(\'/x\') }}"\n'
    assert load_pipeline(write(tmp_path, text), KINDS).steps["look"].params["path"].startswith("{{ last")
