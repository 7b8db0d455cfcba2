"""All lists of the survey at once, and the windows through which they are staged: judged by the simulated grid's ledger.

What a stager is asked for stands in the ledger as it was asked, so nothing here rests on what the daemon believes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path

import msgspec
import pytest

from aglowd.cli.demo import DATA
from aglowd.sim.history import History, Staging
from aglowd.sim.rules import surls_staged_twice
from tests.virtual.day import ENDED
from tests.virtual.script import DAY_S, HOUR_S, Script, fair_script
from tests.virtual.setup import ORIGIN
from tests.virtual.world import Simulation
from tests.world.small import csv_row

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

LISTS = tuple(sorted(path.stem.removeprefix("srm") for path in (DATA / "srm").glob("srm*.txt")))
ROW = csv_row("P22Hetdex04").split(",")
OBSID, NAME = 1, 11
"""The columns of a row that tell its list and its name."""
FILES_PER_REQUEST, FILES_AT_ONCE = 1000, 5000
POLL_S, LOOK_S = 3 * HOUR_S, 12 * HOUR_S
"""World seconds between two rounds that ask for the requests, and between two that ask where files are."""
FASTEST, SLOWEST = 0.5, 4
"""Of these: what comes between two rounds when something moves, and when nothing does."""
QUIET_S = (4 * HOUR_S, 28 * HOUR_S)
"""Since the world began: everything was asked for, and no request has come to its end."""
LIMIT_S = 20 * DAY_S
"""World seconds after which a list that is not staged never will be."""
PIPELINE = """
[steps.list]
kind = "srm_list"
path = "{{ config.srm_dir }}/srm{{ field.target.obsid[1:] }}.txt"
obsid = "{{ field.target.obsid }}"
"""
LIST = """
[steps.list_{name}]
kind = "srm_list"
path = "{{{{ config.srm_dir }}}}/srm{name}.txt"
obsid = "L{name}"
"""
STAGE = """
[steps.stage_{name}]
kind = "stage"
needs = {needs}
surls = "{{{{ {surls} }}}}"
threshold = 1.0
linger = "0s"

[steps.release_{name}]
kind = "release"
needs = ["stage_{name}"]
requests = "{{{{ steps.stage_{name}.outputs.requests }}}}"
site = "{{{{ steps.stage_{name}.outputs.site }}}}"
"""


def surls_of(name: str) -> list[str]:
    return (DATA / "srm" / f"srm{name}.txt").read_text(encoding="utf-8").splitlines()


def site_of(surl: str) -> str:
    return "sara" if "sara" in surl else "juelich"


SITES = {name: site_of(surls_of(name)[0]) for name in LISTS}


def stage(name: str, lists: Sequence[str]) -> str:
    """A step that stages all files of these steps together, and one that gives them back."""
    surls = " + ".join(f"steps.{one}.outputs.surls" for one in lists)
    return STAGE.format(name=name, needs=list(lists), surls=surls)


def write_fields(pipeline: str, names: Sequence[str], script: Script, directory: Path) -> None:
    """Rows of the catalogue with these OBSIDs, all of which go through that pipeline."""
    (directory / "srm").symlink_to(DATA / "srm")
    (directory / "pipelines").mkdir()
    (directory / "pipelines" / "lists.toml").write_text(f'[pipeline]\nname = "lists"\n{pipeline}', encoding="utf-8")
    rows = []
    for name in names:
        cells = [*ROW]
        cells[OBSID], cells[NAME] = name, f"list-{name}"
        rows.append(",".join(cells))
    (directory / "fields.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


async def stage_all(pipeline: str, names: Sequence[str], way: str, failure_rate: float, directory: Path) -> History:
    """Let these fields go through the pipeline until each has ended well; returns what the world saw."""
    script = msgspec.structs.replace(
        fair_script(seed=5),
        rate=2000.0,
        failure_rate=failure_rate,
        polls={
            "staging": f"{POLL_S:.0f}s",
            "dcache": f"{LOOK_S:.0f}s",
            "gather": "5m",
            "jobs": "1d",
            "storage": "1d",
            "catalogue": "6h",
        },
        config={
            "daemon": {"audit": "30d"},
            "catalogue": {"pipeline": "lists", "max_fields": 100},
            "pipelines": {"directory": str(directory / "pipelines")},
            "staging": {
                "files_per_request": FILES_PER_REQUEST,
                "bytes_per_request": "20TB",
                "files_at_once": FILES_AT_ONCE,
            },
            "sites.sara": {"staging": way},
            "sites.juelich": {"staging": way},
        },
    )
    simulation = Simulation(script, directory)
    async with simulation.grid(partial(write_fields, pipeline, names)):
        await simulation.start()
        states: dict[str, str] = {}
        while len(states) < len(names) or any(state not in ENDED for state in states.values()):
            assert simulation.now() < LIMIT_S, states
            await simulation.sleep(HOUR_S)
            states = {name: state for name, (state, _) in (await simulation.fields()).items()}
        assert set(states.values()) == {"archived"}, await simulation.fields()
        await simulation.stop()
    return History.read(simulation.ledger)


def running(stagings: Sequence[Staging], t: float) -> list[Staging]:
    return [one for one in stagings if one.made <= t < min(one.finished, one.aborted)]


def judge_windows(history: History) -> None:
    """No limit was exceeded, no file asked for twice, and no site had to wait for another."""
    stagings = history.stagings
    assert max(len(one.surls) for one in stagings) <= FILES_PER_REQUEST
    at_once = [sum(len(one.surls) for one in running(stagings, made.made)) for made in stagings]
    assert max(at_once) == FILES_AT_ONCE, "what may be asked for at once is, and no more"
    assert list(surls_staged_twice(history)) == []
    assert len({surl for one in stagings for surl in one.surls}) == sum(len(surls_of(name)) for name in LISTS)
    for site in ("sara", "juelich"):
        mine = [one for one in stagings if site_of(one.surls[0]) == site]
        assert running(mine, ORIGIN + HOUR_S), f"{site} began late"
        for made in (one.made for one in mine if one.made > ORIGIN + HOUR_S):
            assert any(one.made < made and one.finished > made - 2 * POLL_S for one in mine), f"{site} stood still"


@pytest.mark.parametrize(
    ("way", "failure_rate"),
    [
        ("stageit", 1.0),
        pytest.param("legacy", 0.0, marks=pytest.mark.long),
        pytest.param("dcache", 0.0, marks=pytest.mark.long),
    ],
)
async def test_all_lists_at_once_keep_to_the_windows(tmp_path: Path, way: str, failure_rate: float) -> None:
    history = await stage_all(PIPELINE + stage("files", ["list"]), LISTS, way, failure_rate, tmp_path)
    judge_windows(history)
    if not failure_rate:
        assert {*Counter(surl for one in history.stagings for surl in one.surls).values()} == {1}
    # A dCache is asked who we are first, and each site for itself.
    # StageIT is asked for the long fields of what runs by a question of their own.
    judge_rounds(history, LISTS, calls={"dcache": 2 * 2, "stageit": 2}.get(way, 1))


async def test_a_list_that_is_larger_than_a_request_keeps_to_the_windows(tmp_path: Path) -> None:
    """One field with all files of a site in one step."""
    pipeline = "".join(LIST.format(name=name) for name in LISTS)
    for site in ("sara", "juelich"):
        pipeline += stage(site, [f"list_{name}" for name in LISTS if site_of(surls_of(name)[0]) == site])
    history = await stage_all(pipeline, LISTS[:1], "legacy", 0.0, tmp_path)
    judge_windows(history)
    assert {*Counter(surl for one in history.stagings for surl in one.surls).values()} == {1}
    assert len(history.stagings) < len(LISTS) / 2
    judge_rounds(history, LISTS)


async def test_a_round_asks_no_more_for_all_lists_than_for_three(tmp_path: Path) -> None:
    few = (*LISTS[:2], LISTS[-1])
    history = await stage_all(PIPELINE + stage("files", ["list"]), few, "legacy", 0.0, tmp_path)
    judge_rounds(history, few)


def judge_rounds(history: History, lists: Sequence[str], calls: int = 1) -> None:
    """While all wait for the tape the outside is asked once a round (`calls`), however many fields wait."""
    begin, end = (ORIGIN + at for at in QUIET_S)
    seconds = end - begin
    asked = Counter(
        (line["system"], line["op"]) for line in history.lines if line["by"] == "client" and begin <= line["t"] < end
    )
    looks = asked.pop(("dcache", "archiveinfo"))
    # The proxy is looked at by itself, however many fields there are.
    of_proxy = asked.pop(("proxy", "info"), 0)
    asked["tools", "process"] -= of_proxy
    files = Counter(site_of(surl) for name in lists for surl in surls_of(name))
    assert 1 <= looks / sum(ceil(count / 1000) for count in files.values()) <= 1 + seconds / (FASTEST * LOOK_S)
    rounds = asked.total() / calls
    # While somebody waits for a turn the windows ask too, in rounds that do not adapt.
    assert seconds / (SLOWEST * POLL_S) - 1 <= rounds <= 2 + seconds / (FASTEST * POLL_S) + seconds / POLL_S, asked
