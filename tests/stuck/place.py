"""A small world in which a field gets stuck: the real daemon and the simulated grid, in virtual time, with short pipelines.

What is asked, is asked as `aglowctl` does: over the daemon's own socket, and drawn by its own pages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import aiohttp
import click
import msgspec

from aglowd.cli import control as aglowctl
from aglowd.cli import render
from aglowd.cli.demo import ARCHIVE, HOST
from aglowd.sim.faults import Script as Fault
from aglowd.sim.storage import Storage
from aglowd.wiring import shipped_pipelines
from tests.virtual.run import new_directory
from tests.virtual.script import DAY_S, FIELDS, fair_script
from tests.virtual.setup import obsids, write_inputs
from tests.virtual.world import Simulation

DOCS = Path(__file__).parent.parent.parent / "docs"
FIELD, OTHER = FIELDS[:2]
RUN = f"{FIELD}-1"
TARGET, CALIBRATOR = obsids(FIELD)
RESULTS, KEPT = f"{HOST}/results/sara", f"{ARCHIVE}/sara"
SUBBANDS = 4
EVENTS = {
    kind: {*re.findall(r"\w+", data.removeprefix("the "))}
    for kind, data in re.findall(r"^\| `(\w+)` \| (.*?) \|", (DOCS / "events.md").read_text("utf-8"), re.MULTILINE)
}
"""Kind of event → the keys of its data, as the page lists them."""
STEP_S = 600.0
"""World seconds between two looks at what is said."""

Lines = list[str]
Situation = Callable[[], Awaitable[Lines]]
SITUATIONS: dict[str, Situation] = {}
"""Heading on the page → what brings a field into that situation, and returns what is said of it."""

COMMAND = re.compile(r"aglowctl ([^;,)]+?)(?=[;,)]| and aglowctl|, or |$)")

LIST = """
[steps.list]
kind = "srm_list"
path = "{{ config.srm_dir }}/srm{{ field.target.obsid[1:] }}.txt"
obsid = "{{ field.target.obsid }}"
"""
STAGE = """
[steps.stage]
kind = "stage"
needs = ["list"]
surls = "{{ steps.list.outputs.surls }}"
"""
GRIDJOB = """
[steps.target]
use = "gridjob"
needs = ["list"]
site = "{{ steps.list.outputs.site }}"
token_type = "{{ run.id }}_targ1"
token_config = { file = "tokens/target1.json" }
surls = "{{ steps.list.outputs.surls }}"
attach = { "Pre-Facet-Target-1.parset" = "! parset" }
results = "{{ route[steps.list.outputs.site].results }}/{{ run.id }}"
"""


def situation(heading: str) -> Callable[[Situation], Situation]:
    """What follows plays the situation of that heading."""

    def keep(play: Situation) -> Situation:
        assert heading not in SITUATIONS, heading
        SITUATIONS[heading] = play
        return play

    return keep


def commands_in(lines: Lines) -> list[str]:
    """The commands that are named there and can be given as they stand: a person's word has no rehearsal."""
    told = [found[1] for line in lines if line.strip().startswith("next") for found in COMMAND.finditer(line)]
    return [command for command in told if command.split()[0] not in ("approve", "reject", "doubt")]


class Place:
    """The world, with a hand in it."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.directory = simulation.directory
        self.catalogue = simulation.directory / "fields.csv"
        self.storage = Storage(simulation.directory / "grid" / "storage")
        self.sleep = simulation.sleep
        self.said: Lines = []

    async def ask(self, method: str, path: str, /, **body: Any) -> dict[str, Any]:
        """The daemon's answer, as aglowctl gets it."""
        connector = aiohttp.UnixConnector(str(self.directory / "s"))
        async with (
            aiohttp.ClientSession("http://aglowd", connector=connector) as session,
            session.request(method, f"/v1/{path}", json=body or None) as reply,
        ):
            answer: dict[str, Any] = await reply.json()
            assert reply.status == 200, answer
            return answer

    async def give(self, command: str) -> None:
        """Do what the command does; where it would change something, only as far as `--dry-run` goes."""
        verb, *words = shlex.split(command)
        known: click.Command = aglowctl.main.commands[verb]
        if isinstance(known, click.Group) and words:
            known = known.commands[words.pop(0)]
        given = known.make_context(verb, words).params
        if verb in ("retry", "cancel"):
            await self.order(verb, targets=given["targets"], dry_run=True)
        elif verb == "skip":
            await self.order(verb, targets=given["targets"], steps=[given["step"]], dry_run=True)
        elif verb == "resume":
            held = {name: given[name] for name in ("kinds", "sites", "everything")}
            await self.order(verb, fields=given["targets"], **held, dry_run=True)
        elif verb == "run":
            await self.order(verb, field=given["field"], dry_run=True)
        elif verb in ("explain", "show"):
            for name in given["targets"]:
                await self.ask("GET", f"fields/{quote(name, safe='')}{'/explain' if verb == 'explain' else ''}")
        elif verb == "tokens":
            await self.ask("GET", f"tokens/{given['token_type']}?site={given['site'] or ''}")
        else:
            await self.ask("GET", verb)

    async def order(self, path: str, /, **body: Any) -> dict[str, Any]:
        return await self.ask("POST", path, **body)

    async def explained(self, name: str = FIELD) -> Lines:
        """What `aglowctl explain` prints."""
        page = render.explain(await self.ask("GET", f"fields/{quote(name, safe='')}/explain"))
        assert all(isinstance(part, str) for part in page)
        self.said = [str(part) for part in page]
        return self.said

    async def until(self, *words: str, name: str = FIELD, most_s: float = 2 * DAY_S, step_s: float = STEP_S) -> Lines:
        """Let time pass until all of the words are said of the field; returns all that is said then."""
        until = self.simulation.now() + most_s
        while True:
            lines = await self.explained(name)
            if all(word in "\n".join(lines) for word in words):
                return lines
            assert self.simulation.now() < until, "\n".join(lines)
            await self.sleep(step_s)

    async def events(self) -> list[dict[str, Any]]:
        """All that was recorded; each says what docs/events.md lists, and nothing else."""
        connector = aiohttp.UnixConnector(str(self.directory / "s"))
        async with (
            aiohttp.ClientSession("http://aglowd", connector=connector) as session,
            session.get("/v1/events?since=0&limit=1000") as reply,
        ):
            events = [msgspec.json.decode(line) for line in (await reply.read()).splitlines()]
        assert events
        for event in events:
            listed = EVENTS[event["kind"]]
            assert listed == {"observation"} or event["data"].keys() <= listed | {"cut"}, event
        return events

    def strike(self, **fault: Any) -> None:
        """Let the outside world fail like that from now on."""
        now = self.simulation.now()
        self.simulation.plan[0].add(Fault(**{"count": 10_000, "from_s": now, **fault}))


@asynccontextmanager
async def place(
    *pipeline: str,
    others: dict[str, str] | None = None,
    faults: tuple[Fault, ...] = (),
    fields: tuple[str, ...] = (FIELD,),
    write: Callable[[Path], None] = lambda _: None,
    slots: int = 2000,
    rate: float = 60.0,
    seed: int = 7,
    failure_rate: float = 0.0,
    **config: dict[str, Any],
) -> AsyncIterator[Place]:
    """A world whose fields go through a pipeline of these steps. `others`: pipelines beside it. `write`: changes the
    inputs before anybody reads them. Tables of the configuration may be given; `sites_sara` is `sites.sara`.
    """
    texts = {"p": "\n".join(pipeline), **(others or {})}
    tables = {"daemon": {"audit": "30d"}, "catalogue": {"pipeline": "p", "max_fields": 10}, "pipelines": {}}
    for name, changed in config.items():
        name = name.replace("_", ".")
        tables[name] = {**tables.get(name, {}), **changed}

    def written(script: Any, directory: Path) -> None:
        write_inputs(script, directory)
        (directory / "pipelines").mkdir()
        for name, text in texts.items():
            (directory / "pipelines" / f"{name}.toml").write_text(f'[pipeline]\nname = "{name}"\n{text}', "utf-8")
        for name in ("fragments", "tokens"):
            (directory / "pipelines" / name).symlink_to(shipped_pipelines() / name)
        write(directory)

    with TemporaryDirectory(dir=new_directory()) as name:
        tables["pipelines"] = {"directory": f"{name}/pipelines"}
        script = msgspec.structs.replace(
            fair_script(seed),
            rate=rate,
            fields=fields,
            subbands=SUBBANDS,
            slots=slots,
            failure_rate=failure_rate,
            faults=faults,
            config=tables,
        )
        simulation = Simulation(script, Path(name))
        async with simulation.grid(written):
            await simulation.start()
            here = Place(simulation)
            yield here
            for command in commands_in(here.said):
                await here.give(command)
            await here.events()
            simulation.check_alive()
            await simulation.crash()  # Nobody waits for the end of what is stuck.
