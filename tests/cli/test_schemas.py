"""Every answer is held to the schema that the same server serves: what commands print with `--json`, and what routes answer."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import structlog
from held import Held
from populated import ARCHIVED, CALIBRATOR, OFFERED, WAITS, WRONG, fill
from support import begin, graph, step
from tapes import SARA
from test_doctor import config_of

from aglowd import orders
from aglowd.cli.control import main
from aglowd.control.routes import PRINTED, ROUTES
from aglowd.grid import catalogue_csv
from aglowd.model import Failed, FieldView
from aglowd.schedules import Schedule
from aglowd.store.doubts import Finding, Word
from aglowd.store.runs import Decision
from aglowd.store.schedules import Planned
from aglowd.store.store import Store
from aglowd.wiring import load_pipelines
from tests.stuck.place import FIELD, GRIDJOB, LIST, STAGE, place
from tests.virtual.loop import VirtualLoop
from tests.virtual.script import HOUR_S

from .seated import BROKEN, NOWHERE, Daemon, seated
from .test_aglowctl import Served
from .test_jobs import waits
from .test_quality import ASKING
from .test_steer import LINE
from .test_wait import ended, line_of


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with seated(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What a command prints is read from this process's stdout."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


# --- nothing is left out


def test_every_route_says_what_it_answers() -> None:
    assert [route.path for route in ROUTES if route.answers is None] == ["/metrics"], "text for Prometheus"


def with_json(group: click.Group, name: str = "") -> Iterator[str]:
    """Every command of aglowctl that takes `--json`."""
    for part, command in group.commands.items():
        if any("--json" in option.opts for option in command.params):
            yield f"{name}{part}"
        if isinstance(command, click.Group):
            yield from with_json(command, f"{name}{part} ")


COMMANDS = sorted(with_json(main))
ALWAYS = (
    *("status", "fields", "candidates", "events", "doubt", "version", "next", "tokens", "jobs", "jobs list", "export"),
    *("schedules", "metrics", "logs", "schema"),
)
"""Commands that answer whatever there is."""


def test_every_command_with_json_has_a_schema_and_is_tried() -> None:
    # What `aglowd` itself prints is held to its schema where it is tried: tests/virtual/test_replay.py.
    asked = {command for command in PRINTED if not command.startswith("aglowd ")}
    assert sorted({command.partition(" --")[0] for command in asked} - {"schema COMMAND"}) == COMMANDS
    assert {command for command, _, _ in (*READS, *ORDERS)} | {*ALWAYS, "stage --wait", "watch"} == asked


async def test_the_schema_of_a_command_is_printed(daemon: Daemon) -> None:
    code, out, _ = await daemon.say("schema", "tokens", "list")
    assert (code, json.loads(out)["title"]) == (0, "tokens")
    assert out.startswith("{\n  "), "for people, a key a line"
    for said in (("tokens",), ("token-types",)):
        _, out, _ = await daemon.say("schema", *said)
        assert json.loads(out)["title"] == "token-types", "a command goes before a name"
    code, out, _ = await daemon.say("schema")
    assert (code, out.splitlines()[0].split()[:2]) == (0, ["schema", "aglowctl"])
    code, out, err = await daemon.say("schema", "approve")
    assert (code, out) == (1, "")
    assert err == "aglowctl: 'approve' prints no JSON, and no schema is called so; aglowctl schema lists all\n"


# --- the states


async def ask_always(daemon: Daemon) -> None:
    for command in ALWAYS:
        await daemon.run(command, *command.split())
    for path in ("/live", "/ready", "/v1/log", "/v1/config"):
        await daemon.ask("GET", path)


async def test_an_empty_store(daemon: Daemon) -> None:
    await ask_always(daemon)
    await daemon.run("stage --status", "stage", "--status")
    await daemon.run("diff", "diff", "--from", "1m")
    await daemon.run("doctor", "doctor", code=1)
    for path in ("/v1/fields/P0", "/v1/nothing", "/v1/schema/none"):
        await daemon.ask("GET", path, code=404)


READS: tuple[tuple[str, str, int], ...] = (
    *(("show", f"show {name}", 0) for name in (WAITS, ARCHIVED, WRONG, OFFERED, CALIBRATOR)),
    *(("explain", f"explain {name}", 0) for name in (WAITS, ARCHIVED, WRONG, OFFERED, CALIBRATOR)),
    ("explain", f"explain {WAITS} --at 30s", 0),
    ("history", f"history {WAITS}", 0),
    ("history", f"history {ARCHIVED}", 0),
    ("trace", f"trace {WAITS}", 0),
    ("trace", f"trace {WAITS}/stage", 0),
    ("trace", "trace {effect}", 0),
    ("trace", "trace 3", 0),
    ("wait", f"wait {ARCHIVED}", 0),
    ("wait", f"wait {WRONG}", 1),
    ("wait", f"wait {WAITS} {OFFERED} --timeout 1s", 8),
    ("diff", f"diff {WAITS} --from 30s", 0),
    ("next", "next --within 30d", 0),
    ("events", f"events --field {WAITS} --since 0", 0),
    ("provenance", f"provenance {ARCHIVED}", 0),
    ("backup", "backup {tmp}/b.db", 0),
    ("verify", "verify {tmp}/b.db", 0),
    ("report", f"report {ARCHIVED} --output {{tmp}}/r.tar.gz --config {{tmp}}/aglowd.toml", 0),
    ("schema COMMAND", "schema tokens list", 0),
)


async def test_a_store_that_is_populated(daemon: Daemon, tmp_path: Path) -> None:
    await fill(daemon.store)
    daemon.clock.advance(60.0)
    word = Word(1000, "as the web page says")
    await daemon.store.record_findings(
        "staging:", [Finding("staging:9", "duplicate", "asked for twice", "", {"request": 9})]
    )
    (doubt,) = (await daemon.run("doubt", "doubt"))["doubts"]
    await ask_always(daemon)
    for command, words, code in READS:
        await daemon.run(command, *words.format(effect=doubt["key"], tmp=tmp_path).split(), code=code)
    await daemon.store.dismiss("staging:9", word)
    settled = {"key": doubt["key"], "action": "forget", "reason": "seen there"}
    await daemon.ask("POST", "/v1/doubt", settled)
    await daemon.ask("POST", "/v1/doubt", settled, code=409)
    await daemon.run("history", "history", WAITS)
    await daemon.run("doubt", "doubt")


async def test_what_is_watched(daemon: Daemon, tmp_path: Path) -> None:
    """It goes on until it is ended, as no other command does."""
    await fill(daemon.store)
    process = await Served(tmp_path / "s", daemon.store).begin("watch", "--json")
    line = await line_of(process)
    process.send_signal(signal.SIGINT)
    await ended(process)
    (shown,) = await daemon.hold("watch", line)
    assert shown["field"] in (WAITS, CALIBRATOR)


ORDERS: tuple[tuple[str, str, int], ...] = (
    ("run", "run P5+5 --dry-run", 0),
    ("run", "run P5+5 --yes", 0),
    ("run", "run P5+5 --pipeline look --param depth=3 --dry-run", 0),
    ("pause", "pause P1+1 --dry-run", 0),
    ("pause", "pause P1+1 --reason slow --yes", 0),
    ("explain", "explain P1+1", 0),
    ("explain", "explain P1+1 --at 30s", 0),
    ("status", "status", 0),
    ("drain", "drain --site sara --yes", 0),
    ("resume", "resume P1+1 --yes", 0),
    ("resume", "resume --site sara --yes", 0),
    ("skip", "skip P2+2 b --dry-run", 0),
    ("skip", "skip P2+2 b --yes", 0),
    ("cancel", "cancel P1+1 --dry-run", 0),
    ("cancel", "cancel P1+1 --yes", 0),
    ("done", "done P3+3 b --yes", 0),
    ("diff", "diff P3+3 --from 30s", 0),
    ("forget", f"forget {BROKEN.replace('+', '_')}-1 --dry-run", 0),
    ("retry", f"retry {BROKEN} --dry-run", 0),
    ("retry", f"retry {BROKEN} --yes", 0),
    ("forget", "forget P3_3-1 --yes", 0),
    ("history", "history P1+1", 0),
    ("adopt", "adopt L2 --given solutions=srm://x --dry-run", 0),
    ("adopt", "adopt L* --given solutions=srm://x --yes", 0),
    ("add", "add N1 --target L1 --calibrator L2 --target-time-resolution 2.5", 0),
    ("import", "import {tmp}/more.csv", 0),
    ("export", "export", 0),
    ("release", "release N2 --from ZZZ --to SND", 0),
    ("reload", "reload --dry-run", 0),
    ("reload", "reload --reason grown", 0),
    ("doctor", "doctor --config {tmp}/aglowd.toml", 1),
    ("locality", "locality {tmp}/list.txt", 0),
    ("stage", "stage {tmp}/list.txt", 0),
    ("stage", "stage {tmp}/list.txt", 0),
    ("stage --status", "stage --status", 0),
    ("stage --status SRMLIST", "stage --status list", 0),
    ("tokens", "tokens", 0),
    ("tokens list", "tokens list t", 0),
    ("tokens list", "tokens list t --state error", 0),
    ("tokens show", "tokens show t:SB000", 0),
    ("tokens logs", "tokens logs t:SB000", 0),
    ("tokens reset", "tokens reset t --yes", 0),
    ("jobs", "jobs", 0),
    ("jobs list", "jobs list P1+1", 0),
    ("jobs show", "jobs show 17:2 --site sara", 0),
    ("jobs cancel", "jobs cancel 17:2 --site sara --yes", 0),
    ("jobs output", "jobs output 17:2 {tmp} --site sara", 0),
    ("schedules", "schedules", 0),
    ("next", "next --within 30d", 0),
    ("events", "events --since 0", 0),
    ("show", "show P1+1", 0),
)
"""In this order: what an order has done is asked for later."""


async def test_orders_and_what_they_have_done(daemon: Daemon, tmp_path: Path) -> None:
    store = daemon.store
    fields = [FieldView("P5+5", "SND", {"site": "sara"}), FieldView("L1", "AAA"), FieldView("L2", "CCC")]
    await store.put_fields([(field, "") for field in fields])
    for name in ("P1+1", "P2+2", "P3+3", BROKEN):
        await begin(store, LINE, name)
    await begin(store, ASKING, "Q1+1")
    await daemon.settle()
    daily = Planned(graph("daily", step("a")), Schedule(every="1h"))
    await store.begin_due((daily,))
    await daemon.ask(
        "POST",
        "/v1/fields/Q1+1/verdict",
        {"approved": True, "verdict": "good", "reason": "well"},
        route="/v1/fields/{name}/verdict",
    )
    (tmp_path / "list.txt").write_text(f"{SARA.format(0)}\n{SARA.format(1)}\n")
    (tmp_path / "more.csv").write_text("ZZZ,229511,2456805.625,8,2.0,242,229507,2456805.6,8,2.0,244,N2,\n")
    for command, words, code in ORDERS:
        if command == "tokens":
            await waits(store, "W1+1")
        if command == "reload" and "--dry-run" not in words:
            config_of(tmp_path, f"{NOWHERE}[pools]\ncopies = 3\n")
        await daemon.run(command, *shlex.split(words.format(tmp=tmp_path)), code=code)
        if command in ("cancel", "skip", "done", "retry", "run"):
            await daemon.settle()
    waiting = asyncio.create_task(daemon.run("stage --wait", "stage", str(tmp_path / "list.txt"), "--wait", code=1))
    while not (await asyncio.wait({waiting}, timeout=0.1))[0]:
        await end_staging(store)
    await waiting


async def end_staging(store: Store) -> None:
    """The files cannot be had."""
    stage = load_pipelines("", orders.PIPELINE)[orders.PIPELINE]
    while works := [work for work in await store.next_dirty() if work.run.field.startswith("stage/")]:
        for work in works:
            await store.finish(Decision(work, Failed("no tape", final=True), stage))


# --- fields that are stuck, in front of the simulated grid


async def read_all(held: Held) -> None:
    """Every question that the real daemon can be asked about the field."""
    name = quote(FIELD, safe="")
    for path in (
        *("/live", "/ready", "/v1/status", "/v1/log", "/v1/doctor", "/v1/config", "/v1/schema", "/v1/fields"),
        *("/v1/candidates", "/v1/events", "/v1/diff?from=1h", f"/v1/diff?from=1h&field={name}", "/v1/next?within=30d"),
        *("/v1/schedules", "/v1/doubt", "/v1/stage", "/v1/tokens", "/v1/jobs", "/v1/catalogue"),
    ):
        await held.ask("GET", path)
    for path in ("", "/explain", "/explain?at=30m", "/history"):
        route = "/v1/fields/{name}" + path.partition("?")[0]
        await held.ask("GET", f"/v1/fields/{name}{path}", route=route)
    await held.ask("GET", f"/v1/provenance/{name}", route="/v1/provenance/{name}")
    await held.ask("GET", f"/v1/trace/{name}", route="/v1/trace/{what}")
    for one in (await held.ask("GET", "/v1/tokens"))["types"]:
        listed = await held.ask("GET", f"/v1/tokens/{one['type']}", route="/v1/tokens/{type}")
        for token in listed["tokens"][:1]:
            await held.ask("GET", f"/v1/token/{token['token']}", route="/v1/token/{name}")
            await held.ask("GET", f"/v1/token/{token['token']}/log", route="/v1/token/{name}/log")
    for job in (await held.ask("GET", "/v1/jobs"))["jobs"]:
        await held.ask("GET", f"/v1/job?job={quote(job['job'], safe='')}")


STUCK: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "its pilots are queued": ((LIST, GRIDJOB), {"slots": 0}, "4 to do, 4 pilots alive"),
    "its tokens have failed": ((LIST, GRIDJOB), {}, "is failed"),
    "its turn to stage does not come": ((LIST, STAGE), {"sites_sara": {"files_at_once": 1}}, "files"),
}


@pytest.mark.world
@pytest.mark.parametrize("state", STUCK)
def test_a_field_that_is_stuck(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, more, said = STUCK[state]
    monkeypatch.setattr(catalogue_csv, "_YOUNG_S", 0.0)  # As in test_stuck.py: files are dated by the host's own clock.

    async def play() -> None:
        async with place(*steps, **more) as here:
            await here.until(said, most_s=200 * HOUR_S)
            await here.sleep(2 * HOUR_S)
            await read_all(Held(here.directory / "s"))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play())
