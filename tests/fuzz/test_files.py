"""Files that people write: whatever is in them, the documented error names file and line."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd import templates
from aglowd.config import load_config, read_secret
from aglowd.errors import Permanent, Temporary
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.surl import SurlListError, read_srm_list
from aglowd.grid.tokens import build_token
from aglowd.pipeline_file import load_pipeline
from aglowd.store.rows import dumps
from aglowd.toml_file import ConfigError
from aglowd.watchers.fields import view_of
from aglowd.watchers.srm_lists import read_list
from aglowd.wiring import handler_kinds, load_files, shipped_pipelines
from tests.fuzz.mutations import ODD_TEXTS, bounded, check, fuzzed, mangled, mutated, nested, outcome

ETC = Path(__file__).parent.parent.parent / "etc"
DATA = Path(__file__).parent.parent.parent / "aglowd" / "sim" / "data" / "sksp"
SRM = sorted((DATA / "srm").iterdir())[0].read_bytes().split(b"\n", 6)
CSV = (DATA / "fields.csv").read_bytes()[:2000]
KINDS = {kind: handler.Params for kind, handler in handler_kinds().items()}
PIPELINES = sorted(shipped_pipelines().glob("*.toml"))


@fuzzed
@given(data=mangled(b"\n".join(SRM[:6])))
def test_srm_lists(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "srm.txt"
    path.write_bytes(data)
    with bounded():
        said = read_list(str(path))
    msgspec.json.encode(said)
    if "problems" in said:
        assert said["problems"]
        assert all(problem.startswith(f"{path}:") for problem in said["problems"])
        assert sum(map(len, said["problems"])) < 101 * 5000
    found = check(lambda: read_srm_list(data.decode("latin-1"), "list"), SurlListError)
    if not isinstance(found, Exception):
        assert all(surl.startswith("srm://") for surl in found.surls)


@fuzzed
@given(data=mangled(CSV))
async def test_catalogues(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fields.csv"
    path.write_bytes(data)
    with bounded():
        try:
            rows = await CsvCatalogue(path, "me").rows()
        except (Temporary, Permanent):
            return
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    for row in rows:
        assert len(row.name) <= 100
        assert row.problem is None or (row.problem.startswith(f"{path}:{row.line}: ") and len(row.problem) < 5000)
        msgspec.json.encode(view_of(row))
        assert row.status.isprintable() or row.problem


@fuzzed
@given(
    marks=st.sampled_from([b'{"P1":{"status":"SSS","key":"k","daemon":"d","at":"t"}}']).flatmap(mangled),
    key=st.text(max_size=3),
)
async def test_marks_of_ours_that_somebody_changed(tmp_path: Path, marks: bytes, key: str) -> None:
    path = tmp_path / "fields.csv"
    path.write_bytes(CSV)
    (tmp_path / "fields.csv.aglowd.json").write_bytes(marks)
    catalogue = CsvCatalogue(path, "me")
    for row in (await catalogue.rows())[:1]:
        status = row.status
        await outcome(catalogue.read_status(row.name))
        await outcome(catalogue.write_status(row.name, status, "SSS", "run/x/1/write_status/0"), write=True)


# --- TOML


def toml(value: Any) -> str:
    """The value as an inline TOML value; what TOML cannot say becomes what it can."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{escaped}"'
    return repr(value) if isinstance(value, int) else str(float(value or 0))


def as_toml(value: Any) -> bytes:
    """A file whose tables stand one a line."""
    if not isinstance(value, dict):
        return toml(value).encode()
    return "\n".join(f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items()).encode()


def odd_toml(sample: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(mangled(sample), mutated(tomllib.loads(sample.decode())).map(as_toml))


def problems_of(path: Path, error: Any) -> Iterator[str]:
    for problem in error.problems:
        assert problem.file
        assert problem.line >= 1
        yield str(problem)


CONFIG = (ETC / "aglowd.toml").read_bytes()


@fuzzed
@given(data=odd_toml(CONFIG))
def test_configurations(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "aglowd.toml"
    path.write_bytes(data)
    found = check(lambda: load_config(path), ConfigError)
    if isinstance(found, Exception):
        assert list(problems_of(path, found))
    check(lambda: load_files(path), ConfigError)


@fuzzed
@given(data=st.sampled_from([path.read_bytes() for path in PIPELINES]).flatmap(odd_toml))
def test_pipelines(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "one.toml"
    for name in ("fragments", "parsets", "tokens"):
        if not (tmp_path / name).exists():
            shutil.copytree(shipped_pipelines() / name, tmp_path / name)
    path.write_bytes(data)
    found = check(lambda: load_pipeline(path, KINDS), ConfigError)
    if isinstance(found, Exception):
        assert list(problems_of(path, found))
    else:
        dumps(found)
        assert all(abs(step.priority) < 2**31 for step in found.steps.values())


@fuzzed
@given(data=odd_toml((shipped_pipelines() / "fragments" / "gridjob.toml").read_bytes()))
def test_fragments(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "fragments").mkdir(exist_ok=True)
    (tmp_path / "fragments" / "gridjob.toml").write_bytes(data)
    path = tmp_path / "one.toml"
    path.write_text('[steps.job]\nuse = "gridjob"\ntoken_type = "t"\nsurls = ["a"]\n')
    check(lambda: load_pipeline(path, KINDS), ConfigError)


CASES = {
    "deep arrays": "a = " + "[" * 50_000,
    "deep tables": "a = " + "{a=" * 50_000,
    "deep but closed": "[steps.a]\nkind = 'check_files'\ndirectory = " + "[" * 300 + "]" * 300,
    "a long number": "a = " + "1" * 100_000,
    "a table of blanks": "[" + " " * 500_000 + "x",
    "a key of blanks": "a" + " " * 500_000 + "b = 1",
    "a key of dots": "a." * 200_000,
    "a file with NUL in its name": '[steps.a]\nkind = "parset"\ntemplate = { file = "a\\u0000b" }',
    "a file without end": '[steps.a]\nkind = "parset"\ntemplate = { file = "/dev/zero" }',
    "a directory": '[steps.a]\nkind = "parset"\ntemplate = { file = "." }',
    "a fragment with a long name": f'[steps.a]\nuse = "{"x" * 5000}"',
    "a fragment elsewhere": '[steps.a]\nuse = "../../x"',
    "a chain": "".join(f'[steps.s{n}]\nkind = "release"\nrequests = []\nneeds = ["s{n - 1}"]\n' for n in range(5000)),
    "a priority": '[steps.a]\nkind = "release"\nrequests = []\npriority = 99999999999999999999',
    "an endless power": '[steps.a]\nkind = "check_files"\ndirectory = "{{ 9 ** (9 ** (9 ** 9)) }}"',
    "an endless text": '[steps.a]\nkind = "check_files"\ndirectory = "{{ \'x\' * 999999999999 }}"',
    "a deep template": '[steps.a]\nkind = "check_files"\ndirectory = "{{ ' + "(" * 20_000 + '1"',
    "a deep closed template": '[steps.a]\nkind = "check_files"\ndirectory = "{{ '
    + "(" * 150
    + "1"
    + ")" * 150
    + ' }}"',
    "a template with a long number": '[steps.a]\nkind = "check_files"\ndirectory = "{{ ' + "9" * 6000 + ' }}"',
    "a name with a slash": '[steps."a/b"]\nkind = "release"\nrequests = []',
    "infinite time": '[steps.a]\nkind = "release"\nrequests = []\ntimeout = inf',
    "no time": '[steps.a]\nkind = "release"\nrequests = []\nretry_delay = nan',
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_file_that_is_odd_on_purpose(tmp_path: Path, name: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(CASES[name], encoding="utf-8")
    fine = {"an endless power", "an endless text", "a deep closed template"}  # These are found when they are filled in.
    found = check(lambda: load_pipeline(path, KINDS), ConfigError)
    assert isinstance(found, ConfigError) or name in fine
    assert isinstance(check(lambda: load_config(path), ConfigError), ConfigError)
    assert list(problems_of(path, found)) if isinstance(found, ConfigError) else True


EXPRESSIONS = [
    "steps.a.outputs.x",
    "field.target.obsid ~ '-' ~ 1",
    "first(a, b)",
    "x | join(',')",
    "[1, 2][0] * 3",
    "x ** 2",
    "'%s' % x",
]


@fuzzed
@given(
    source=st.sampled_from([f"{{{{ {text} }}}}".encode() for text in EXPRESSIONS]).flatmap(mangled),
    x=st.sampled_from([*ODD_TEXTS, 0, 10**30, [], {}, nested(200)]),
)
def test_templates(source: bytes, x: Any) -> None:
    text = source.decode("utf-8", "replace")
    context = {"x": x, "a": 1, "b": [1], "field": {"target": {"obsid": "L1"}}, "steps": {"a": {"outputs": {"x": x}}}}
    check(lambda: templates.render(text, context), templates.TemplateProblem)
    check(lambda: list(templates.names(text)), templates.TemplateProblem)
    check(lambda: templates.condition(text, context), templates.TemplateProblem)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 9 ** (9 ** 9) }}",
        "{{ 9 ** 999999 }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ 10 ** 9 * [1] }}",
        "{{ (1, 2) * 10 ** 9 }}",
        "{% for a in range(10 ** 9) %}x{% endfor %}",
    ],
)
def test_a_template_that_would_take_all_memory_is_a_problem(text: str) -> None:
    assert isinstance(check(lambda: templates.render(text, {}), templates.TemplateProblem), templates.TemplateProblem)


# --- GRID_LRT's token configurations

TOKENS = [path.read_bytes() for path in sorted((shipped_pipelines() / "tokens").glob("*.json"))]


@fuzzed
@given(
    config=st.sampled_from([msgspec.json.decode(text) for text in TOKENS]).flatmap(mutated),
    keys=st.dictionaries(st.sampled_from(ODD_TEXTS), st.integers()),
)
def test_token_configurations(config: Any, keys: Any) -> None:
    if not isinstance(config, dict):
        return  # The step's parameters say that it is an object.
    found = check(lambda: build_token(config, "t:SB000", "t", keys), Permanent)
    if not isinstance(found, Exception):
        assert (found["_id"], found["type"], found["lock"], found["done"]) == ("t:SB000", "t", 0, 0)


@fuzzed
@given(data=st.sampled_from(TOKENS).flatmap(mangled))
def test_token_files(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.json").write_bytes(data)
    path = tmp_path / "one.toml"
    path.write_text(
        '[steps.a]\nkind = "create_tokens"\ntoken_type = "t"\nsurls = ["x"]\nconfig = { file = "c.json" }\n'
    )
    check(lambda: load_pipeline(path, KINDS), ConfigError)


@fuzzed
@given(data=mangled(b"the-password\n"))
def test_secrets(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_bytes(data)
    found = check(lambda: read_secret(str(path)), ConfigError)
    if isinstance(found, Exception):
        assert "password" not in str(found)
