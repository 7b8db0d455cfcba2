"""References to secrets: where they may stand, what takes their place, and that only the reference is kept.

A whole run with such parameters is tests/world/test_secret_parameters.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support import begin, graph, new_reactor, opened, rows, settle_all, step

from aglowd import log
from aglowd.cli.daemon import main
from aglowd.clock import Clock
from aglowd.effects.general import CallHttp, RunCommand
from aglowd.errors import Permanent
from aglowd.handlers.general import Command, Http
from aglowd.handlers.run import Run
from aglowd.model import Failed
from aglowd.pipeline_file import load_pipeline
from aglowd.references import fill, list_references, misplaced
from aglowd.toml_file import ConfigError
from aglowd.wiring import handler_kinds, load_pipelines
from tests.effects.outside import Outside

SECRET = "hunter2/and+more"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    log.register_secret(SECRET)
    yield
    log._secrets.clear()


def get(name: str) -> str:
    if name != "api":
        raise Permanent(f"secret:{name} is not configured")
    return SECRET


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    made = Outside(tmp_path)
    made.world.secret = get
    return made


# --- what is one


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("secret:api", ("api",)),
        ("Bearer secret:api", ("api",)),
        ({"a": ["x", {"b": "secret:b_1 and secret:a-2"}]}, ("a-2", "b_1")),
        ({"secret:key": 1}, ("key",)),
        (("secret:api;", "secret:api."), ("api",)),
        ("topsecret:api", ()),
        ("https://secret:pw@host/", ()),
        ("secret: api", ()),
        ("secret:7", ()),
        (f"secret:{'x' * 65}", ()),
        (7, ()),
        (None, ()),
    ],
)
def test_what_a_reference_is(value: Any, names: tuple[str, ...]) -> None:
    assert list_references(value) == names


def test_a_secret_takes_the_place_of_its_reference_alone() -> None:
    value = {"a": ["Bearer secret:api", 7, None], "secret:api": "x"}
    assert fill(value, get) == {"a": [f"Bearer {SECRET}", 7, None], "secret:api": "x"}
    assert value["a"] == ["Bearer secret:api", 7, None]
    with pytest.raises(Permanent, match="secret:other is not configured"):
        fill("secret:other", get)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_has_no_reference_stays_as_it_is(value: Any) -> None:
    if not list_references(value):
        assert fill(value, get) == value


def test_a_reference_is_refused_where_others_would_see_the_secret() -> None:
    assert misplaced({"argv": ["x", "secret:api"]}, {"stdin", "environment"}) == (
        "secret:api stands in argv, where others would see it; expected only in environment, stdin"
    )
    assert "steps of this kind take none" in misplaced({"keys": {"A": "secret:api"}}, ())
    assert "stands in environment as a key" in misplaced({"environment": {"secret:api": "x"}}, {"environment"})
    assert misplaced({"environment": {"A": "secret:api"}, "argv": ["x"]}, {"environment"}) == ""


# --- in pipeline files


@pytest.mark.parametrize(
    "line",
    [
        'kind = "command"\nargv = ["curl", "-H", "Bearer secret:api"]',
        'kind = "http"\nurl = "https://x/?key=secret:api"',
        'kind = "make_directory"\ndirectory = "file:///r/secret:api"',
        'kind = "create_tokens"\ntoken_type = "t"\nconfig = { Token = { x = "secret:api" } }',
        'kind = "await_approval"\nquestion = "secret:api"',
    ],
)
def test_a_file_with_a_reference_in_a_wrong_place_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(f"[steps.a]\n{line}\n")
    with pytest.raises(ConfigError, match=r"secret:api stands in .*, where others would see it"):
        load_pipeline(path, {kind: handler.Params for kind, handler in handler_kinds().items()})


WELL = """
[steps.a]
kind = "command"
argv = ["mail"]
stdin = "secret:api"
environment = { TOKEN = "secret:api" }
[steps.b]
kind = "http"
url = "https://x/"
headers = { Authorization = "Bearer secret:api" }
body = { key = "secret:api" }
[steps.c]
kind = "run"
pipeline = "one"
params = { token = "secret:api" }
"""


def test_a_secret_that_is_not_configured_is_told_with_its_step(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(WELL)
    assert set(load_pipelines(str(tmp_path), "one", {"api"})["one"].steps) == {"a", "b", "c"}
    with pytest.raises(ConfigError) as caught:
        load_pipelines(str(tmp_path), "one", {"other"})
    assert [problem.line for problem in caught.value.problems] == [2, 7, 12]
    assert "step 'a' refers to secret:api, which is not configured" in str(caught.value)


def test_the_command_checks_references_too(tmp_path: Path) -> None:
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    (pipelines / "one.toml").write_text(WELL)
    config = tmp_path / "aglowd.toml"
    text = f"""
[catalogue]
path = "x"
srm_dir = "y"
pipeline = "one"
[pipelines]
directory = "{pipelines}"
[sites.sara]
results = "file:///r"
archive = "file:///a"
"""
    config.write_text(text)
    said = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert said.exit_code == 1
    assert "refers to secret:api, which is not configured" in said.output
    config.write_text(f'{text}[secrets]\napi = "/etc/api"\n')
    assert CliRunner().invoke(main, ["check", "--config", str(config)]).exit_code == 0
    config.write_text(f'{text}[secrets]\n"a pi" = "/etc/api"\n')
    assert "'a pi' is no name of a secret" in CliRunner().invoke(main, ["check", "--config", str(config)]).output


# --- at the decision


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "command", "params": {"argv": ["curl", "{{ params.token }}"]}},
        {"kind": "http", "params": {"url": "https://x/{{ params.token }}"}},
    ],
)
async def test_what_a_template_brings_to_a_wrong_place_fails_the_step_and_stays_a_reference(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    pipeline = graph("one", step("a", **params), params=("token",))
    async with opened(tmp_path / "x.db", Clock()) as store:
        run = await begin(store, pipeline, token="secret:api")
        await settle_all(new_reactor(store, [Command(), Http()], pipeline))
        (row,) = await rows(store, "SELECT * FROM steps WHERE run = ?", run)
        assert row["state"] == "failed"
        assert "step a (toy.toml:7): secret:api stands in" in row["reason"]
        assert await rows(store, "SELECT * FROM effects") == []


async def test_what_is_recorded_is_the_reference(tmp_path: Path) -> None:
    params = {"argv": ["mail"], "stdin": "{{ params.token }}", "environment": {"A": "x {{ params.token }}"}}
    pipeline = graph("one", step("a", kind="command", params=params), params=("token",))
    async with opened(tmp_path / "x.db", Clock()) as store:
        await begin(store, pipeline, token="secret:api")
        await settle_all(new_reactor(store, [Command(), Run()], pipeline))
        (row,) = await rows(store, "SELECT * FROM effects")
    inputs = json.loads(row["inputs"])
    assert (inputs["stdin"], inputs["environment"]) == ("secret:api", {"A": "x secret:api"})
    assert not isinstance(row, Failed)


# --- at the moment of use


async def test_a_program_gets_the_secret_and_what_it_says_of_it_is_hidden(outside: Outside) -> None:
    script = 'cat > $0; printf %s "$TOKEN" >> $0; echo got $TOKEN; tr a-z a-z < $0'
    effect = RunCommand(
        argv=("sh", "-c", script, str(outside.file("got"))),
        stdin="in secret:api ",
        environment={"TOKEN": "secret:api"},
    )
    result = await effect.do(outside.world, outside.intent())
    assert outside.file("got").read_text() == f"in {SECRET} {SECRET}"
    assert result == {"rc": 0, "stdout": "got ***\nin *** ***"}


async def test_the_words_of_a_program_that_fails_do_not_hold_it(outside: Outside) -> None:
    padding = "x" * 490  # What is cut is cut after it was hidden.
    script = f'echo "refused ${{TOKEN}}{padding}" >&2; exit 3'
    effect = RunCommand(argv=("sh", "-c", script), environment={"TOKEN": "secret:api"})
    with pytest.raises(Permanent) as caught:
        await effect.do(outside.world, outside.intent())
    assert "hunter2" not in str(caught.value)
    assert "and+more" not in str(caught.value)
    assert "sh ended with 3" in str(caught.value)


async def test_a_service_gets_the_secret_and_what_it_says_of_it_is_hidden(outside: Outside) -> None:
    outside.web.body = json.dumps({"you are": f"Bearer {SECRET}"}).encode()
    effect = CallHttp(
        method="PUT", url="http://h/x", body={"a": ["secret:api"]}, headers={"Authorization": "Bearer secret:api"}
    )
    result = await effect.do(outside.world, outside.intent())
    (asked,) = outside.web.asked
    assert asked[3] == {"a": [SECRET]}
    assert asked[4]["Authorization"] == f"Bearer {SECRET}"
    assert result == {"status": 200, "body": '{"you are": "Bearer ***"}'}


@pytest.mark.parametrize(
    "effect",
    [
        RunCommand(argv=("true",), stdin="secret:other"),
        RunCommand(argv=("true",), environment={"A": "secret:other"}),
        CallHttp(method="GET", url="http://h/", headers={"A": "secret:other"}),
    ],
)
async def test_a_secret_that_is_nowhere_ends_the_effect(outside: Outside, effect: Any) -> None:
    with pytest.raises(Permanent, match="secret:other is not configured"):
        await effect.do(outside.world, outside.intent())
    assert outside.web.asked == []
