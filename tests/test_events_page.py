"""docs/events.md explains every kind of event that the code records, and none that is gone."""

from __future__ import annotations

import ast
import asyncio
import re
from functools import cache
from pathlib import Path

import pytest
from test_docs import rows, sections

from aglowd.model import ENDED
from tests.stuck.place import CALIBRATOR, FIELD, LIST, RUN, STAGE, place
from tests.virtual.loop import VirtualLoop

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "events.md"
LISTED = {name: cells for text in sections(PAGE).values() for name, cells in rows(text).items()}

Sinks = dict[tuple[str, str], int]
"""(file, function) → which of its arguments is the kind of an event; file "" = as a function of the store, from anywhere."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    paths = [path for path in (ROOT / "aglowd").rglob("*.py") if not {"sim", "launcher"} & {*path.parts}]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


@cache
def calls() -> list[tuple[str, Function, ast.Call]]:
    """Every call, with the file and the function in which it stands."""
    return [
        (path, function, call)
        for path, module in modules().items()
        for function in ast.walk(module)
        if isinstance(function, Function)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
    ]


def called(path: str, call: ast.Call) -> tuple[str, str]:
    """What is called, as sinks are named."""
    if isinstance(call.func, ast.Attribute):
        owner = getattr(call.func.value, "attr", getattr(call.func.value, "id", ""))
        return "", call.func.attr if owner in ("journal", "store", "_store") else ""
    return path, getattr(call.func, "id", "")


def values_of(path: str, name: str) -> set[str]:
    """What that table of the file holds, or of the file from which it has it."""
    for file in (path, *modules()):
        for node in modules()[file].body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == name
                and isinstance(node.value, ast.Dict)
            ):
                return {str(ast.literal_eval(value)) for value in node.value.values}
    raise AssertionError(f"{path}: no table {name}")


def recorded() -> set[str]:
    """Every kind of event that some call records."""
    found: set[str] = set()
    sinks: Sinks = {("", "add_event"): 2, ("aglowd/store/journal.py", "add_event"): 2}

    def resolve(node: ast.expr, path: str, function: Function) -> None:
        where = f"{path}:{node.lineno}: {ast.unparse(node)}"
        match node:
            case ast.Constant(value=str(kind)):
                found.add(kind)
            case ast.IfExp(body=one, orelse=other):
                resolve(one, path, function)
                resolve(other, path, function)
            case ast.JoinedStr(values=[ast.Constant(value="Step"), _]):
                found.update(f"Step{state.capitalize()}" for state in ENDED)
            case ast.Call(func=ast.Attribute(value=ast.Dict(values=values), attr="get"), args=[_, default]):
                for value in (*values, default):
                    resolve(value, path, function)
            case ast.Subscript(value=ast.Name(id="because")):
                pass  # Whoever gives a `because` is looked at below.
            case ast.Subscript(value=ast.Name(id=table)):
                found.update(values_of(path, table))
            case ast.Name(id=name):
                names = [argument.arg for argument in function.args.args if argument.arg != "self"]
                if name in names:
                    sinks.update({(file, function.name): names.index(name) for file in ("", path)})
                    return
                given = [
                    one.value
                    for one in ast.walk(function)
                    if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == name
                ]
                assert given, where
                for value in given:
                    resolve(value, path, function)
            case _:
                raise AssertionError(f"{where}: nobody can tell which kinds of events that are")

    before = 0
    while before != len(sinks):
        before = len(sinks)
        for path, function, call in calls():
            position = sinks.get(called(path, call))
            if position is not None:
                resolve(call.args[position], path, function)
            for keyword in call.keywords:
                if keyword.arg == "because" and isinstance(keyword.value, ast.Tuple):
                    resolve(keyword.value.elts[0], path, function)
    return found


def test_every_kind_of_event_is_explained_and_none_that_is_gone() -> None:
    found = recorded()
    assert len(found) > 50
    assert sorted(LISTED) == sorted(found)


def test_each_kind_stands_once_with_its_data_and_a_meaning() -> None:
    names = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(names) == len({*names}) == len(LISTED)
    for kind, (data, meaning) in LISTED.items():
        assert meaning.endswith("."), kind
        assert re.fullmatch(r"`\w+`(, `\w+`)*|the observation", data), kind


async def speak() -> set[str]:
    """Say all that a person may say of one field; returns which kinds of events there were. What they hold, `place` looks at."""
    async with place(LIST, STAGE) as here:
        await here.until("request", "new")
        files = (here.directory / "srm" / f"srm{CALIBRATOR}.txt").read_text(encoding="utf-8")
        await here.order("pause", fields=[FIELD], reason="look")
        await here.order("resume", fields=[FIELD])
        await here.order("drain", sites=["sara"])
        await here.order("resume", sites=["sara"])
        await here.order("stage", path="list.txt", text=files)
        await here.order("tokens", token_type="x_targ1")
        await here.order("backup", path=str(here.directory / "backup.db"))
        await here.order("cancel", targets=[FIELD])
        await here.until("cancelled, run")
        await here.order("retry", targets=[FIELD])
        await here.until("request", "new")
        await here.order("skip", targets=[FIELD], steps=["stage"])
        await here.until("archived, run")
        await here.order("retry", targets=[FIELD], steps=["list"])
        await here.order("pause", kinds=["stage"])
        await here.until("paused with kind")
        await here.order("done", targets=[FIELD], steps=["stage"])
        await here.order("forget", runs=[RUN])
        await here.order("run", field=FIELD)
        return {event["kind"] for event in await here.events()}


@pytest.mark.world
def test_what_people_say_is_recorded_as_the_page_says() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(speak())
    ordered = {f"{verb}Ordered" for verb in ("Cancel", "Retry", "Skip", "Done", "Run", "Staging")}
    assert found >= {*ordered, "Ordered", "Paused", "Drained", "Resumed", "BackedUp", "RunForgotten", "StepReset"}
    assert found <= {*LISTED}
