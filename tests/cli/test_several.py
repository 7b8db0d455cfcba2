"""Commands that act on several fields, or show them: the same names, patterns and states, in front of a real daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from populated import ARCHIVED, CALIBRATOR, OFFERED, WAITS, WRONG
from support import rows

from aglowd.cli import choose, shared
from aglowd.cli.client import Client
from aglowd.cli.control import main
from aglowd.cli.render import Answer, Page
from aglowd.errors import AglowError
from aglowd.model import FieldView
from aglowd.store import pauses

from .test_aglowctl import Served, served  # noqa: F401 # A fixture.
from .test_steer import LINE, Daemon, daemon  # noqa: F401 # A fixture.

LOOKS = ("fields", "show", "explain", "wait")
HOLDS = ("pause", "drain", "resume")
RUNS = ("cancel", "retry", "skip", "done", "forget")


def behind(command: str) -> tuple[str, ...]:
    """What else the command must be told."""
    return ("b",) if command in ("skip", "done") else ()


# --- said in the same way


@pytest.mark.parametrize("name", [*LOOKS, *HOLDS, *RUNS])
def test_each_takes_any_number_of_names_and_a_state(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    params = {param.name: param for param in command.params}
    targets, state = params["targets"], params["state"]
    assert (targets.nargs, targets.required) == (-1, False)
    assert isinstance(state, click.Option)
    assert state.help == "Only what is in this state; without a name, all that is."
    assert isinstance(state.type, click.Choice)
    assert ("offered" in state.type.choices) == (name not in RUNS), "what is offered has no run"


@pytest.mark.parametrize("name", [*LOOKS[1:], *RUNS])
async def test_nothing_named_is_wrong_usage(daemon: Daemon, name: str) -> None:  # noqa: F811
    err = await daemon.refused(name, *behind(name), code=2)
    assert "or a pattern" in err
    assert "or a --state; aglowctl fields lists what there is" in err


@pytest.mark.parametrize("name", HOLDS)
async def test_nothing_named_is_not_everything(daemon: Daemon, name: str) -> None:  # noqa: F811
    assert "--everything is all of it" in await daemon.refused(name, "--yes", code=2)
    assert "--everything is all of it" in await daemon.refused(name, "--reason", "maintenance", "--dry-run", code=2)
    with pytest.raises(AglowError, match="everything, or some of it: name one of the two"):
        await asyncio.to_thread(Client(str(daemon.served.path)).post, "v1", name)
    assert await daemon.store.db.read(pauses.list_pauses) == []


@pytest.mark.parametrize("name", [*LOOKS, *HOLDS, *RUNS])
async def test_an_empty_name_is_wrong_usage(daemon: Daemon, name: str) -> None:  # noqa: F811
    for words in (("",), ("P1", ""), ("", "--state", "failed")):
        assert "an empty name is nobody's" in await daemon.refused(name, *words, *behind(name), code=2)


@pytest.mark.parametrize("option", ["--kind", "--site"])
async def test_an_empty_kind_and_an_empty_site_are_wrong_usage(daemon: Daemon, option: str) -> None:  # noqa: F811
    assert "an empty name is nobody's" in await daemon.refused("pause", option, "", "--yes", code=2)


# --- what is shown


async def shown(served: Served, *args: str) -> list[str]:  # noqa: F811
    """The fields of the JSON lines, or of the one answer, that the command prints."""
    code, out, err = await served.run(*args, "--json")
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    return [one["field"] for answer in answers for one in answer.get("fields", [answer])]


@pytest.mark.parametrize("command", LOOKS[:3])
@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((WRONG, WAITS), [WRONG, WAITS]),
        (("P[12]*", OFFERED), [ARCHIVED, WAITS, OFFERED]),
        (("--state", "running"), [WAITS, CALIBRATOR]),
        (("P*", "--state", "offered"), [OFFERED]),
        ((CALIBRATOR, "P3*"), [CALIBRATOR, WRONG]),
    ],
)
async def test_what_is_chosen_is_shown(served: Served, command: str, words: Sequence[str], names: list[str]) -> None:  # noqa: F811
    assert await shown(served, command, *words) == names


async def test_fields_alone_lists_the_catalogue(served: Served) -> None:  # noqa: F811
    assert CALIBRATOR not in await shown(served, "fields")
    assert CALIBRATOR in await shown(served, "fields", "*")


async def test_pages_of_several_stand_apart(served: Served) -> None:  # noqa: F811
    _, out, _ = await served.run("explain", OFFERED, ARCHIVED)
    assert [page.partition(":")[0] for page in out.split("\n\n")] == [OFFERED, ARCHIVED]


class Logged(Client):
    """A client that says what it asks for."""

    asked: list[str]

    def get(self, *parts: str, **how: Any) -> dict[str, Any]:
        self.asked.append(parts[2])
        return super().get(*parts, **how)


async def test_each_is_shown_before_the_next_is_asked_for(
    served: Served,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Logged(str(served.path))
    client.asked = []

    def page(answer: Answer) -> Page:
        client.asked.append(f"page of {answer['field']}")
        return []

    def show(*names: str) -> None:
        choose.show_each(client, names, None, False, page)

    await asyncio.to_thread(show, OFFERED, "P14*")
    assert client.asked == [OFFERED, f"page of {OFFERED}", ARCHIVED, f"page of {ARCHIVED}"]
    monkeypatch.setattr("aglowd.choice.MAX_TARGETS", 2)
    with pytest.raises(shared.Failure, match="fields are meant; expected at most 2: name a narrower pattern"):
        await asyncio.to_thread(show, "*")


@pytest.mark.parametrize("command", LOOKS)
async def test_of_what_is_shown_one_that_is_nobodys_is_refused(served: Served, command: str) -> None:  # noqa: F811
    for name in ("P0", "R*"):
        code, out, err = await served.run(command, ARCHIVED, name, "P*")
        assert (code, out, err) == (1, "", f"aglowctl: there is no field '{name}'; see aglowctl fields\n")
    code, out, err = await served.run(command, "--state", "cancelled")
    assert (code, out) == (1, "")
    assert err == "aglowctl: none of them is cancelled; there are: 2 running, 1 archived, 1 failed, 1 offered\n"


async def test_those_in_a_state_are_waited_for(served: Served) -> None:  # noqa: F811
    code, out, err = await served.run("wait", "P*", "--state", "archived")
    assert (code, out, err) == (0, f"{ARCHIVED}: archived, run P14_30-1\n", "")


@pytest.mark.parametrize("command", [*LOOKS[1:], "history"])
async def test_a_name_that_is_nobodys_is_told_of_in_the_same_words_when_it_stands_alone(
    served: Served,  # noqa: F811
    command: str,
) -> None:
    assert await served.run(command, "P0") == (1, "", "aglowctl: there is no field 'P0'; see aglowctl fields\n")


# --- what is changed


async def test_a_step_of_several_runs_is_skipped(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1", "P2", "Q1")
    out = await daemon.ok("skip", "P*", "c", "--dry-run")
    assert "P1-1: running" in out
    assert "P2-1: running" in out
    await daemon.ok("skip", "P1", "P2", "c", "--yes")
    assert [(await daemon.states(name))["c"] for name in ("P1", "P2", "Q1")] == ["skipped", "skipped", "pending"]
    await daemon.ok("done", "b", "--state", "running", "--outputs", '{"say": "x"}', "--yes")
    assert [(await daemon.states(name))["b"] for name in ("P1", "P2", "Q1")] == ["done"] * 3


async def test_a_field_whose_name_looks_like_a_pattern_is_meant_by_it_alone(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("Q1", "Q[1]", "P1")
    for command in ("show", "explain"):
        assert [(await daemon.asked(command, "Q[1]"))["field"]] == ["Q[1]"]
    await daemon.ok("pause", "Q[1]", "--yes")
    assert [one["name"] for one in await daemon.store.db.read(pauses.list_pauses)] == ["Q[1]"]
    await daemon.ok("cancel", "Q[1]", "--yes")
    assert (await daemon.states("Q[1]"))["c"] == "cancelled"
    assert (await daemon.states("Q1"))["c"] == "pending"
    assert "is being cancelled already" in await daemon.refused("cancel", "Q[1]", "P1", "--yes"), (
        "it was named, and it makes no sense"
    )
    assert (await daemon.states("P1"))["c"] == "pending"


@pytest.mark.parametrize("command", [*RUNS[:4], "pause", "drain"])
async def test_an_order_that_names_one_that_is_nobodys_changes_nothing(daemon: Daemon, command: str) -> None:  # noqa: F811
    daemon.broken = {"P2"}
    await daemon.begin("P1", "P2")
    before = await rows(daemon.store, "SELECT id FROM events")
    for name in ("P9", "R*"):
        for words in (("P1", name), (name, "P*")):
            assert repr(name) in await daemon.refused(command, *words, *behind(command), "--yes")
    assert "none of them is archived; there are: 1 running, 1 failed" in await daemon.refused(
        command, "--state", "archived", *behind(command), "--yes"
    )
    assert await rows(daemon.store, "SELECT id FROM events") == before


async def test_fields_in_a_state_are_held(daemon: Daemon) -> None:  # noqa: F811
    daemon.broken = {"P1"}
    await daemon.begin("P1", "P2")
    await daemon.store.put_fields([(FieldView("P7", "SND"), "")])
    assert await daemon.ok("pause", "--state", "failed", "--yes") == "field P1 is paused\n"
    assert await daemon.ok("drain", "P*", "--state", "offered", "--yes") == "field P7 is drained\n"
    assert await daemon.ok("resume", "P*", "--state", "failed", "--yes") == "field P1 is resumed; it was paused\n"
    assert "--everything goes with no name" in await daemon.refused(
        "pause", "--everything", "--state", "failed", code=2
    )


async def test_what_was_not_held_is_not_said_to_be_resumed(daemon: Daemon) -> None:  # noqa: F811
    await daemon.begin("P1", "Q1")
    await daemon.ok("pause", "Q1", "--yes")
    left = "field P1 is left alone: it was not held\n"
    assert await daemon.ok("resume", "Q1", "P1", "--dry-run") == f"field Q1 would be resumed; it was paused\n{left}"
    assert await daemon.ok("resume", "Q1", "P1", "--yes") == f"field Q1 is resumed; it was paused\n{left}"


async def test_what_is_held_goes_on_though_nobody_knows_it_any_more(daemon: Daemon) -> None:  # noqa: F811
    await daemon.store.put_fields([(FieldView("P7", "SND"), "")])
    await daemon.ok("pause", "P7", "--yes")
    await daemon.store.db.write(lambda db: db.execute("DELETE FROM fields"))
    assert "there is no field 'P7'" in await daemon.refused("drain", "P7", "--yes")
    assert await daemon.ok("resume", "P*", "--yes") == "field P7 is resumed; it was paused\n"


async def test_runs_in_a_state_are_forgotten(daemon: Daemon) -> None:  # noqa: F811
    daemon.broken = {"P1", "Q1"}
    await daemon.begin("P1", "P2", "Q1")
    out = await daemon.ok("forget", "P*", "--state", "failed", "--yes")
    assert out.splitlines()[-1] == "1 forgotten"
    answer = await daemon.asked("forget", "--state", "failed", "--dry-run")
    assert [one["run"] for one in answer["runs"]] == ["Q1-1"]
    assert "none of them is failed; there are: 1 running" in await daemon.refused(
        "forget", "P*", "--state", "failed", "--yes"
    )


# --- what was shown is what is done


@pytest.mark.parametrize(
    ("verb", "values", "changed"),
    [
        ("pause", {"fields": ["P*"]}, "P2 RunStarted"),
        ("pause", {"state": "running"}, "P2 RunStarted"),
        ("cancel", {"targets": ["P*"]}, "P2-1 RunStarted"),
        ("cancel", {"state": "running"}, "P2-1 RunStarted"),
    ],
)
async def test_an_order_on_others_than_were_shown_is_refused(
    daemon: Daemon,  # noqa: F811
    tmp_path: Path,
    verb: str,
    values: dict[str, object],
    changed: str,
) -> None:
    await daemon.begin("P1")

    def post(**more: object) -> dict[str, object]:
        return Client(str(tmp_path / "aglowd.sock")).post("v1", verb, **values, **more)

    version = (await asyncio.to_thread(post, dry_run=True))["version"]
    await daemon.begin("P2")
    with pytest.raises(AglowError, match=f"it has changed since you looked: .*{changed}.*; look again"):
        await asyncio.to_thread(post, version=version)
    version = (await asyncio.to_thread(post, dry_run=True))["version"]
    assert (await asyncio.to_thread(post, version=version))["done"] is True


async def test_a_hold_on_what_somebody_else_has_held_is_refused(daemon: Daemon, tmp_path: Path) -> None:  # noqa: F811
    await daemon.begin("P1", "P2")

    def post(verb: str, **more: object) -> dict[str, object]:
        return Client(str(tmp_path / "aglowd.sock")).post("v1", verb, fields=["P1", "P2"], **more)

    version = (await asyncio.to_thread(post, "drain", dry_run=True))["version"]
    await daemon.ok("pause", "P1", "--kind", "played", "--yes")
    with pytest.raises(AglowError, match="since you looked: P1 Paused, kind played Paused; look again"):
        await asyncio.to_thread(post, "drain", version=version)
    await daemon.ok("drain", "P1", "P2", "--yes")
    with pytest.raises(AglowError, match=r"since you looked: .*P2 Drained; look again"):
        await asyncio.to_thread(post, "drain", version=version)


@pytest.mark.parametrize(
    ("chosen", "others"), [({"runs": ["*"]}, "P2"), ({"runs": ["P1-1"]}, ""), ({"state": "failed"}, "")]
)
async def test_forgetting_what_somebody_else_has_forgotten_is_refused(
    daemon: Daemon,  # noqa: F811
    tmp_path: Path,
    chosen: dict[str, object],
    others: str,
) -> None:
    daemon.broken = {"P1"}
    await daemon.begin("P1", *others.split())

    def post(**more: object) -> dict[str, Any]:
        return Client(str(tmp_path / "aglowd.sock")).post("v1", "forget", **chosen, **more)

    plan = await asyncio.to_thread(post, dry_run=True)
    assert [one["run"] for one in plan["runs"]] == ["P1-1"]
    await daemon.ok("forget", "P1-1", "--yes")
    with pytest.raises(AglowError, match=r"it has changed since you looked: .*P1-1 RunForgotten.*; look again"):
        await asyncio.to_thread(post, version=plan["version"])


async def test_more_fields_than_one_command_may_hold_are_refused_with_their_number(
    daemon: Daemon,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await daemon.store.put_fields([(FieldView(f"N{number}", "SND"), "") for number in range(3)])
    monkeypatch.setattr("aglowd.choice.MAX_TARGETS", 2)
    for verb in HOLDS[:2]:
        err = await daemon.refused(verb, "N*", "--dry-run")
        assert err == "aglowctl: 3 fields are meant; expected at most 2: name a narrower pattern\n"
