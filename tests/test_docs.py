"""The documents are held to the code: what they list exists, what exists is listed, and their examples run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec
import pytest
from msgspec import Struct

from aglowd.cli import control as aglowctl
from aglowd.cli import daemon as aglowd
from aglowd.cli import exits
from aglowd.clock import Clock
from aglowd.config import Config, SiteConfig, load_config
from aglowd.effects import DEEDS
from aglowd.handlers import HANDLERS
from aglowd.handlers.general import page
from aglowd.model import EffectRecord, EffectState, Handler, Observation, RunState
from aglowd.pipeline_file import COMMON, JOINS, load_pipeline
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.sim.faults import KINDS, own_kinds
from aglowd.store.store import Store
from aglowd.watchers import WATCHERS
from aglowd.wiring import handler_kinds, load_pipelines, shipped_pipelines

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted((*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"))
PROGRAMS: Mapping[str, click.Group] = {"aglowd": aglowd.main, "aglowctl": aglowctl.main}
DEFAULTS = Config(catalogue=msgspec.UNSET, sites=msgspec.UNSET)  # type: ignore[arg-type] # only the other sections are read


def sections(path: Path) -> dict[str, str]:
    """The text below each heading, up to the next heading of the same or a higher level."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    open_: list[tuple[int, str]] = []
    in_code = False
    for line in lines:
        in_code ^= line.startswith("```")
        heading = re.match(r"(#+) (.*)", line)
        if heading and not in_code:
            open_ = [entry for entry in open_ if entry[0] < len(heading[1])]
            open_.append((len(heading[1]), heading[2]))
            found[heading[2]] = []
        else:
            for _, name in open_:
                found[name].append(line)
    return {name: "\n".join(body) for name, body in found.items()}


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables in the text, by the code in their first cell; the other cells follow."""
    found = {}
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`") and not below.startswith("|---"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                found[name] = cells[1:]
    return found


def blocks(path: Path, language: str = "") -> list[str]:
    """The code blocks of the page in that language; "" for those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def shown_default(entry: Any) -> str:
    """A default as the tables write it."""
    if entry.required:
        return "required"
    value = entry.default if entry.default is not msgspec.NODEFAULT else entry.default_factory()
    if isinstance(value, Struct):
        return "`{}`"  # A table of which every key has its own default.
    return "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"


REFERENCE = sections(DOCS / "reference.md")


# --- the reference


def test_every_step_kind_is_in_the_reference_and_none_that_is_gone() -> None:
    listed = re.findall(r"^### `(\w+)`$", _headings("Step kinds"), flags=re.MULTILINE)
    assert listed == [handler.kind for handler in HANDLERS]


def _headings(of: str) -> str:
    """The headings below a heading, as they stand in the reference."""
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    start = text.index(f"\n## {of}\n")
    end = text.find("\n## ", start + 1)
    return text[start : end if end > 0 else None]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.kind)
def test_every_parameter_stands_with_its_default(handler: type[Handler]) -> None:
    listed = rows(REFERENCE[f"`{handler.kind}`"])
    expected = {entry.encode_name: shown_default(entry) for entry in msgspec.structs.fields(handler.Params)}
    assert {name: cells[0] for name, cells in listed.items()} == expected
    assert all(cells[1] for cells in listed.values())
    assert "Outputs: " in REFERENCE[f"`{handler.kind}`"]


def test_every_watcher_is_in_the_reference() -> None:
    listed = rows(REFERENCE["Watchers"])
    assert list(listed) == [watcher.kind for watcher in WATCHERS]
    for kind, cells in listed.items():
        assert len(cells) == 4, kind
        assert kind in ("field", "events") or cells[0].startswith(f"`{kind}:"), kind


def test_the_polls_of_watchers_are_configuration_keys() -> None:
    named = re.findall(r"`(\w+)\.(\w+)`", "".join(cells[3] for cells in rows(REFERENCE["Watchers"]).values()))
    assert len(named) >= 10
    for section, key in named:
        assert hasattr(getattr(DEFAULTS, section), key) or section == "catalogue"


def config_sections() -> Iterator[tuple[str, dict[str, str]]]:
    """Each section of the configuration with the defaults of its keys, as the tables write them."""
    hints = get_type_hints(Config)
    for section in msgspec.structs.fields(Config):
        kind = hints[section.name]
        if section.name == "sites":
            yield (
                "sites.NAME",
                {entry.encode_name: shown_default(entry) for entry in msgspec.structs.fields(SiteConfig)},
            )
        elif section.name == "pools":
            yield "pools", {"NAME": "no limit"}
        elif section.name == "secrets":
            yield "secrets", {"NAME": "required"}
        else:
            assert issubclass(kind, Struct)
            yield section.name, {entry.encode_name: shown_default(entry) for entry in msgspec.structs.fields(kind)}


def test_every_configuration_section_is_in_the_reference() -> None:
    listed = re.findall(r"^### `\[([\w.]+)\]`$", _headings("Configuration keys"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in config_sections())


@pytest.mark.parametrize(("name", "keys"), list(config_sections()))
def test_every_configuration_key_stands_with_its_default(name: str, keys: dict[str, str]) -> None:
    listed = rows(REFERENCE[f"`[{name}]`"])
    shown = {key: cells[0] for key, cells in listed.items()}
    if name == "clock":
        assert shown.pop("origin").startswith("not set")
        keys.pop("origin")
    assert shown == keys
    assert all(cells[1] for cells in listed.values())


def all_commands(name: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command of a program, those of its groups behind the group's own."""
    for part, command in group.commands.items():
        yield f"{name} {part}", command
        if isinstance(command, click.Group):
            yield from all_commands(f"{name} {part}", command)


COMMANDS = {name: command for program, group in PROGRAMS.items() for name, command in all_commands(program, group)}


def test_every_command_is_in_the_reference() -> None:
    listed = re.findall(r"^### `([a-z ]*[a-z])", _headings("Commands"), flags=re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_the_reference(name: str) -> None:
    command = COMMANDS[name]
    arguments = [option.human_readable_name for option in command.params if isinstance(option, click.Argument)]
    listed = rows(REFERENCE[f"`{' '.join((name, *arguments))}`"])
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert sorted(listed) == sorted(text for option in options for text in option.opts)
    for option in options:
        assert all(listed[text][1] == option.help for text in option.opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_that_of_its_help(name: str) -> None:
    command = COMMANDS[name]
    arguments = [option.human_readable_name for option in command.params if isinstance(option, click.Argument)]
    shown = re.findall(r"^Example: `(.*)`$", REFERENCE[f"`{' '.join((name, *arguments))}`"], flags=re.MULTILINE)
    assert command.epilog == f"\b\nExample: {shown[0]}"


# --- the other pages


def test_pipelines_explains_every_common_key_join_and_kind() -> None:
    page = sections(DOCS / "pipelines.md")
    assert set(rows(page["Keys of every step"])) == {*COMMON, "kind", "use"}
    assert set(rows(page["Joins"])) == set(JOINS)
    assert list(rows(page["Step kinds"])) == [handler.kind for handler in HANDLERS]


def test_pipelines_explains_every_argument_of_gridjob() -> None:
    fragment = tomllib.loads((shipped_pipelines() / "fragments" / "gridjob.toml").read_text(encoding="utf-8"))
    listed = rows(sections(DOCS / "pipelines.md")["Fragments"])
    assert set(listed) == {*fragment["fragment"]["required"], *fragment["params"]}
    for key in ("group", "threshold", "scrubs"):
        assert listed[key][0] == f"`{fragment['params'][key]}`"


def test_the_example_pipeline_is_well(tmp_path: Path) -> None:
    example, _ = blocks(DOCS / "pipelines.md", "toml")
    path = tmp_path / "look.toml"
    path.write_text(example, encoding="utf-8")
    pipeline = load_pipeline(path, {kind: handler.Params for kind, handler in handler_kinds().items()})
    assert list(pipeline.steps) == ["list", "stage", "tell"]


def test_the_least_configuration_is_enough(tmp_path: Path) -> None:
    least, _, pools, routes = blocks(DOCS / "configure.md", "toml")
    path = tmp_path / "aglowd.toml"
    path.write_text(least + pools + routes, encoding="utf-8")
    config = load_config(path)
    assert config.catalogue.pipeline in load_pipelines(config.pipelines.directory, config.catalogue.pipeline)
    assert config.pools == {"copies": 2}
    assert (config.sites["poznan"].process, config.sites["juelich"].picas.database) == ("sara", "sksp2juelich")


def test_configure_speaks_of_every_section() -> None:
    spoken = re.findall(r"^\*\*`\[([\w.]+)\]`\*\*", (DOCS / "configure.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(spoken) == sorted(name for name, _ in config_sections())


def commands_in(path: Path) -> Iterator[list[str]]:
    """Every aglowd and aglowctl command that the page shows; in running text, a name alone is only a name."""
    text = path.read_text(encoding="utf-8")
    shown = [(line.removeprefix("$ "), False) for block in blocks(path) for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    shown += [(" ".join(span.split()), True) for span in re.findall(r"`([^`]+)`", prose)]
    for line, is_prose in shown:
        found = re.fullmatch(r"(?:\S*/)?(aglowd|aglowctl) (?:--socket \S+ )?([a-z]+)( .*)?", line)
        if found and not line.startswith("aglowd cannot"):
            words = takewhile(lambda word: word not in ("|", "&&", "||"), shlex.split(found[3] or ""))
            yield [found[1], found[2], *(words if found[3] else ["?"] if is_prose else [])]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_shows_can_be_typed(path: Path) -> None:
    for program, name, *words in commands_in(path):
        assert name in PROGRAMS[program].commands, f"{path.name}: {program} {name}"
        if words != ["?"]:
            PROGRAMS[program].commands[name].make_context(name, words)


def test_commands_are_found_in_pages() -> None:
    found = [words for path in PAGES for words in commands_in(path)]
    assert len(found) > 30
    assert {name for _, name, *_ in found} >= {
        "start",
        "check",
        "demo",
        "status",
        "fields",
        "show",
        "explain",
        "events",
    }


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", name.lower()).strip().replace(" ", "-") for name in sections(path)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name) if name else path
        assert page.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(page), f"{path.name}: {target}"


def test_every_make_target_that_a_page_shows_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {name for path in PAGES for name in re.findall(r"(?:^|`)make (\w+)", path.read_text("utf-8"), re.MULTILINE)}
    assert shown <= targets
    assert shown >= {"demo", "test", "check", "fmt", "bench"}


def test_exit_codes_are_those_of_the_commands() -> None:
    listed = {
        row[0]: row[1:]
        for row in re.findall(r"^\| (\d+) \|([^|]*)\|([^|]*)\|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    }
    told = {code: (exits.RUNNING.get(code, ""), exits.ASKING.get(code, "")) for code in (*exits.ASKING, *exits.RUNNING)}
    assert {code: tuple(cell.strip().replace("`", "") for cell in cells) for code, cells in listed.items()} == {
        str(code): words for code, words in told.items()
    }
    assert {code: cells[0] for code, cells in rows(REFERENCE["Exit codes"]).items()} == {
        str(code): words for code, words in exits.ASKING.items()
    }


# --- the example of a step


def example() -> tuple[type[Handler], dict[str, Any], str]:
    """The handler of docs/add-a-step.md, the names of its module and test, and its pipeline."""
    page = DOCS / "add-a-step.md"
    module, _, test = blocks(page, "python")
    (pipeline,) = blocks(page, "toml")
    names: dict[str, Any] = {"__name__": "announce", "EffectRecord": EffectRecord, "EffectState": EffectState}
    names["Observation"] = Observation
    exec(compile(module, "docs/add-a-step.md", "exec", dont_inherit=True), names)
    exec(compile(test, "docs/add-a-step.md", "exec", dont_inherit=True), names)
    return names["Announce"], names, pipeline


def test_the_example_step_passes_its_own_test() -> None:
    _, names, _ = example()
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test()


async def test_the_example_step_runs_in_a_pipeline(tmp_path: Path) -> None:
    announce, _, text = example()
    path = tmp_path / "toy.toml"
    path.write_text(text, encoding="utf-8")
    pipeline = load_pipeline(path, {announce.kind: announce.Params})
    clock = Clock()
    store = Store(tmp_path / "aglowd.db", clock, outputs_of)
    await store.open()
    try:
        reactor = Reactor(
            store,
            {announce.kind: announce()},
            Pipelines({"toy": pipeline}),
            clock,
            pools={},
            shown={},
            select=("SND",),
            field_pipeline="toy",
            max_fields=1,
        )
        run = await store.start_run(pipeline, key="P1", field="P1", params={}, context={"name": "P1"})
        assert await reactor.decide_once() == 1
        (live,) = await store.next_effects((), 10)
        inputs = msgspec.convert(live.record.inputs, DEEDS[live.record.kind])
        assert inputs.body == {"field": "P1", "message": "P1 is archived"}
        await store.settle(live, EffectState.DONE, {"status": 200, "body": ""})
        assert await reactor.decide_once() == 1
        (watched,) = await store.watched("http")
        assert watched == (page("https://example.org/fields/P1", 300.0, "P1-1/announce/1"), 0)
        await store.ingest("http", None, [(watched[0], {"status": 200, "body": {"confirmed_by": "us"}})])
        assert await reactor.decide_once() == 1
        field = await store.db.read(lambda db: db.execute("SELECT state FROM runs WHERE id = ?", (run,)).fetchone())
        assert field["state"] == RunState.DONE
    finally:
        await store.close()


# --- the promises


def test_every_promise_names_tests_that_exist() -> None:
    promises = {name: text for name, text in sections(DOCS / "promises.md").items() if re.match(r"G\d+ ", name)}
    assert [name.split()[0] for name in promises] == [f"G{number}" for number in range(1, 12)]
    for promise, text in promises.items():
        named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text)
        assert named, f"{promise} names no test"
        for path, test in named:
            assert (ROOT / path).exists(), f"{promise}: {path}"
            if test:
                source = (ROOT / path).read_text(encoding="utf-8")
                assert re.search(rf"^(async )?def {test}\(", source, flags=re.MULTILINE), f"{promise}: {path}::{test}"


# --- the quirks


def quirks(heading: str) -> list[tuple[list[str], list[str]]]:
    """Of each quirk below the heading its switches and its tests."""
    lines = re.findall(r"^\|(?!-)(.*)\|$", sections(DOCS / "quirks.md")[heading], flags=re.MULTILINE)
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert all(len(row) == 3 for row in cells), heading
    found = []
    for _, switch, tests in (row for row in cells if row[0].strip() != "quirk"):
        named = re.findall(r"`(\w+\.\w+)`", switch)
        assert named or switch.strip() in ("always", "none"), switch
        found.append((named, re.findall(r"`([^`]+)`", tests)))
    return found


def test_every_quirk_names_switches_and_tests_that_exist() -> None:
    for heading in ("The legacy stager", "StageIT", "dCache"):
        for switches, tests in quirks(heading):
            for system, fault in (switch.split(".") for switch in switches):
                assert fault in KINDS[system], f"{system}.{fault}"
            assert tests
            for path, test in (name.split("::") for name in tests):
                source = (ROOT / path).read_text(encoding="utf-8")
                assert re.search(rf"^(async )?def {test}\(", source, flags=re.MULTILINE), f"{path}::{test}"


@pytest.mark.parametrize(
    ("system", "heading"),
    [
        ("lta", "The legacy stager"),
        ("stageit", "StageIT"),
        ("dcache", "dCache"),
        ("events", "dCache"),
        ("webdav", "dCache"),
    ],
)
def test_every_switch_of_its_own_is_named_by_a_quirk(system: str, heading: str) -> None:
    named = {switch for switches, _ in quirks(heading) for switch in switches}
    assert {f"{system}.{kind}" for kind in own_kinds(system)} <= named
