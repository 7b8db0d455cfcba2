"""Every example that a command shows in its help is run as it stands there, in front of a daemon to which it applies.

The daemon is the real one with all its parts, in which nothing moves but what is asked. Tokens, jobs and files on tape are
those of the worlds of other tests. Only the two places that examples name by a whole path lie elsewhere here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from populated import SHORT
from still import still
from support import begin, new_reactor, opened, settle_all
from tapes import SARA, Tape, ordering

from aglowd import token_orders
from aglowd.cli import control, daemon
from aglowd.clock import Clock
from aglowd.effects.general import RunCommand
from aglowd.effects.staging import StageFiles
from aglowd.grid.batch import JobStatus
from aglowd.model import Do, Done, EffectState, Failed, FieldView, Outcome, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.store.runs import Decision
from aglowd.token_orders import TokenOrders
from aglowd.wiring import handler_kinds, load_files

from .test_aglowctl import Served
from .test_jobs import TOKEN, Far

CONFIG = """[daemon]
state_dir = "{0}/state"
socket = "{0}/s"
log_file = "{0}/aglowd.log"
[catalogue]
kind = "own"
srm_dir = "{0}"
pipeline = "survey"
[pipelines]
directory = "{0}/pipelines"
[sites.sara]
results = "file://{0}/results"
archive = "file://{0}/archive"
[sites.sara.jobs]
system = "none"
[jobs]
system = "none"
"""
COMMAND = '{0}kind = "command"\nargv = ["true"]\n'
STEPS = ("target_list", "calibrator_stage", "target_stage", "target_check", "status_calibrated", "notify")
PIPELINE = (
    '[pipeline]\nname = "survey"\n[adopt.claimed]\n'
    + "".join(COMMAND.format(f"[steps.{name}]\n") for name in STEPS)
    + '[steps.inspect]\nkind = "await_approval"\nquestion = "is it well?"\n'
)
WAITS = Wait((Subject("test", "one"),), "waits", 3600.0)
OUTCOMES: dict[str, Outcome] = {
    "only": Done(),
    "target_list": Done({"site": "sara"}),
    "calibrator_stage": Do((StageFiles(surls=(SARA.format(0),), site="sara"),)),
    "target_stage": Do((StageFiles(surls=(SARA.format(1),), site="sara"),)),
    "notify": Do((RunCommand(argv=("true",)),)),
}
ROW = "{0},229511,2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,{1},\n"
FAILED = ("P165+57", "P217+40")
GOES_ON = ("aglowd start", "aglowctl watch")
"""They end with Ctrl-C."""
LAST = ("aglowctl cancel", "aglowctl drain")
"""After these other examples have nothing to do any more."""
LONG = "aglowd demo"
MAY_SAY_NO = ("aglowd doctor", "aglowctl doctor")
"""What they find is not well here: no grid is near."""
SAYS = {"aglowd replay": re.compile(rb": ([1-9]\d*) decisions: \1 same, 0 different, 0 untold\n")}
"""What is no example unless it says this."""


class Late(Clock):
    """It is two days late, until what happened two days ago has happened."""

    late_s = 2 * 86_400.0

    def now(self) -> float:
        return super().now() - self.late_s


class Tokens(Far):
    """One token that failed, and one job."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = ("P229_62-1_targ1:SB000",)

    async def list_ids(self, token_type: str, state: str = "") -> tuple[str, ...]:
        return self.ids

    async def get_docs(self, ids: Any) -> dict[str, Any]:
        return {name: {**TOKEN, "_id": name, "type": "P229_62-1_targ1"} for name in ids}

    async def status(self, jobs: Any) -> dict[str, JobStatus]:
        return {"4711": JobStatus("4711", "running", "RUNNING")}


def examples(group: click.Group, path: str) -> Iterator[str]:
    for name, command in (("", group), *group.commands.items()):
        if isinstance(command, click.Group) and name:
            yield from examples(command, f"{path} {name}")
        else:
            assert command.epilog, f"{path} {name}"
            yield command.epilog.partition("Example: ")[2]


EXAMPLES = list(dict.fromkeys((*examples(control.main, "aglowctl"), *examples(daemon.main, "aglowd"))))


async def populate(here: Any) -> None:
    """Fields in all the states of which the examples speak."""
    store, survey = here._store, here._pipelines.current["survey"]
    names = ("P229+62", "P205+55", *FAILED)
    await store.put_fields([(FieldView("P14+30", "SND"), "")])
    await store.admit(SHORT, ["SND"], 10)
    await decide(store, SHORT)
    await store.put_fields([(FieldView(name, "SND", {"site": "sara"}, site="sara"), "") for name in names])
    await store.admit(survey, ["SND"], 10)
    await decide(store, survey)
    await store.put_fields([(FieldView("P233+57", "AAA", {"site": "sara"}, site="sara"), "")])
    for live in await store.next_effects((), 100):
        await store.put_off(live, EffectState.DOUBT, "nobody knows", 60.0)


async def decide(store: Any, graph: Pipeline) -> None:
    """Decide every dirty step, until nothing is dirty: one field comes far, some fail, the others wait."""
    while works := await store.next_dirty():
        for work in works:
            outcome = OUTCOMES.get(work.step.name, WAITS)
            if work.run.field in FAILED:
                outcome = Failed("the disk is broken", final=True)
            elif work.step.name == "inspect":
                told = Subject("verdict", f"{work.run.id}/inspect", {"question": "is it well?", "show": []})
                outcome = Wait((told,), "an operator is asked: is it well?", 3600.0)
            elif work.run.field != "P229+62" and isinstance(outcome, Do):
                outcome = WAITS
            await store.finish(Decision(work, outcome, graph))


def write_files(place: Path) -> Path:
    """What the commands read, and the daemon's configuration."""
    for name in ("state", "backup", "pipelines"):
        (place / name).mkdir(parents=True)
    (place / "pipelines" / "survey.toml").write_text(PIPELINE, encoding="utf-8")
    (place / "srm229511.txt").write_text(f"{SARA.format(0)}\n{SARA.format(1)}\n", encoding="utf-8")
    (place / "fields.csv").write_text(ROW.format("SND", "P250+60"), encoding="utf-8")
    line = {"at": datetime.now(UTC).isoformat(), "event": "step_done", "field": "P229+62", "level": "info"}
    (place / "aglowd.log").write_text(json.dumps(line) + "\n", encoding="utf-8")
    config = place / "aglowd.toml"
    config.write_text(CONFIG.format(place), encoding="utf-8")
    return config


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Path]:
    """A directory with all the files, and a daemon that answers there."""
    config = write_files(tmp_path)
    async with AsyncExitStack() as stack:
        clock = Late()
        here = await stack.enter_async_context(still(config, clock))
        rows = "".join(ROW.format(*one) for one in (("RRR", "P165+57"), ("AAA", "P233+57")))
        (tmp_path / "mine.csv").write_text(rows, encoding="utf-8")
        served = Served(tmp_path / "s", here._store)
        assert (await served.run("import", str(tmp_path / "mine.csv")))[0] == 0
        await populate(here)
        clock.late_s = 0.0
        tape = Tape({SARA.format(0): "ONLINE", SARA.format(1): "NEARLINE"})
        staged = await stack.enter_async_context(ordering(here._store, sara=tape))
        far = Tokens()
        world: Any = SimpleNamespace(token_base=lambda site: far, batch=lambda site: far)
        shipped = here._shipped
        tokens = TokenOrders(here._store, world, shipped[token_orders.RESET], shipped[token_orders.CANCEL])
        here._control._desk._orders, here._control._desk._token_orders = staged, tokens
        here._control._desk.log_place = {"to": "file", "path": str(tmp_path / "aglowd.log")}
        yield tmp_path


async def ran(place: Path, example: str, most_s: float = 90.0) -> str:
    """What is wrong with it, or nothing."""
    program, *words = shlex.split(example.replace("/etc/aglowd", str(place)).replace("/backup", str(place / "backup")))
    module = {"aglowctl": "control", "aglowd": "daemon"}[program]
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from aglowd.cli.{module} import main; main(prog_name='{program}')"
    )
    environ = {**os.environ, "AGLOWD_SOCKET": str(place / "s"), "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *words),
        cwd=place,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said = b""
    if example.startswith(GOES_ON):
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), 60)
        process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), most_s)
    good = (0, 1) if example.startswith(MAY_SAY_NO) else (0,)
    told = all(words.search(out) for begun, words in SAYS.items() if example.startswith(begun))
    if process.returncode in good and said + out and told and b"Traceback" not in err:
        return ""
    return f"{example}\n  {process.returncode}: {(said + out)[-300:].decode()}{err[-600:].decode()}"


@pytest.mark.timeout(600)
async def test_every_example_of_aglowctl_runs(place: Path) -> None:
    asked = [example for example in EXAMPLES if example.startswith("aglowctl")]
    asked.sort(key=lambda example: example.startswith(LAST))
    wrong = [said for example in asked if (said := await ran(place, example))]
    assert wrong == [], "\n".join(wrong)
    assert len(asked) > 50


@pytest.mark.timeout(600)
async def test_every_example_of_aglowd_runs(tmp_path: Path) -> None:
    config = write_files(tmp_path)
    config.write_text(
        config.read_text().replace("log_file", "# log_file"), encoding="utf-8"
    )  # Its first line says that it runs.
    async with opened(tmp_path / "backup" / "aglowd.db", Clock()) as store:
        survey = load_files(config).pipelines["survey"]
        await begin(store, survey)
        await settle_all(new_reactor(store, handler_kinds().values(), survey))
    (tmp_path / "backup" / "aglowd.db.lock").unlink()  # A backup has none.
    asked = [example for example in EXAMPLES if example.startswith("aglowd") and not example.startswith(LONG)]
    wrong = [said for example in asked if (said := await ran(tmp_path, example))]
    assert wrong == [], "\n".join(wrong)
    assert len(asked) >= 4


@pytest.mark.world
@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_example_of_the_demo_runs(tmp_path: Path) -> None:
    (asked,) = (example for example in EXAMPLES if example.startswith(LONG))
    # A busy machine needs more of its own time for an hour of the grid's.
    assert await ran(tmp_path, f"{asked} --speed 1500", 800) == ""
