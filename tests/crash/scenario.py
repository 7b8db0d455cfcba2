"""The small worlds in which the daemon is killed, and the daemon's configuration for them.

What must stay true: one life of a scenario takes about a second, so a world is two files, two tokens and one job, its
fates are kind where slowness would teach nothing, and world time flies; and together the scenarios pass every point.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.cli.demo import ARCHIVE, DATA, HOST
from aglowd.sim.faults import Script
from tests import gits

PIPELINES = Path(__file__).parent / "pipelines"
FIELD, TARGET, CALIBRATOR = "P22Hetdex04", "229511", "229507"
FILES = 2
"""Lines of each SRM list."""
LEDGER = "pilots.txt"
"""Where pilots of this host write down that they began."""
RATE = 40_000.0
"""World seconds in a real second: a staging of three hours takes a quarter of one."""
PROXY_HOURS = 20_000.0
STEP = "targ2"
"""PIPELINE_STEP of the tokens whose results are archived."""


class Scenario(Struct, frozen=True):
    """A world, the pipeline that runs in it, how its field ends, and the kill that comes before all others, if any.

    `seed` was searched for: the files come online within six hours, and what else the scenario needs happens.
    """

    name: str
    pipeline: str
    seed: int
    ends: str
    failure_rate: float = 1.0
    first: str = ""
    rate: float = RATE
    faults: tuple[Script, ...] = ()
    audit: str = "1d"
    restores: bool = False
    """Whether a backup from the run's beginning is put in the place of the database after the first kill."""
    staging: str = "legacy"
    """What brings the files online."""
    system: str = "glite"
    """What runs the pilots."""
    people: str = ""
    """Who is there beside the daemon: "people" settle what is in doubt and use the grid, a "steersman" steers: people.py."""
    catalogue: str = "csv"
    """Where the field stands."""
    archive_after: str = ""
    """How long after its end a run is packed; all of them are, before the life is over. "": no life is that long."""
    jobs_poll: str = "2h"


MAIN = Scenario("main", "main", 109_856, "archived")
"""Undisturbed: each token takes about two hours."""
SCRUBBED = Scenario("scrubbed", "main", 441_284, "archived", failure_rate=8.0)
"""One pilot dies, the other's token fails; both tokens are done at the second try."""
SPOILED = Scenario("spoiled", "spoiled", 441_284, "failed", failure_rate=8.0)
"""The same fates, and no second try: a token fails, and its log says why."""
STOPPED = Scenario("stopped", "stopped", 193_828, "failed")
"""Tokens take six hours and a second staging a day, which their steps have no time for; a handler has a defect."""

DOUBTFUL = Scenario(
    "doubtful",
    "doubtful",
    1,
    "failed",
    first="store.settle:before:2",
    rate=10_000.0,
    faults=(Script(system="glite", fault="kill_before", op="register"),),
    audit="40m",
    people="people",
)
"""Killed while commands run of which nobody can tell whether they did; a submission that is tried twice."""

RESTORED = msgspec.structs.replace(
    MAIN,
    name="restored",
    ends="failed",
    first="couchdb.delete_design:after:1",
    rate=15_000.0,
    restores=True,
    people="people",
)
"""All was done after the backup: it is found, but for the tokens, which are archived and gone.

Slower, because two lives must end before the files' pins do: what is offline again is rightly staged again."""

TAPES = tuple(Scenario(name, "tape", 109_856, "archived", staging=name) for name in ("stageit", "dcache"))
"""Staged by the other stagers; nothing else happens."""
ADAPTERS = {"stageit": "stageit", "dcache": "dcache_stage"}

STEERED = Scenario("steered", "steered", 109_892, "archived", rate=25_000.0, people="steersman")
"""Held, let go, cancelled while its files come, taken over, retried to its end, and followed by a run begun by hand."""

PACKED = msgspec.structs.replace(MAIN, name="packed", archive_after="1h", jobs_poll="6h")
"""All runs are packed, and old events go. Steps end before their jobs are seen to: nobody would pack their run, did nobody look again."""

OWN = Scenario("own", "tape", 109_856, "archived", staging="dcache", catalogue="own", people="people")
"""The field is imported into aglowd's own catalogue."""

HANDS = Scenario("hands", "hands", 1, "archived", audit="2h", system="local")
"""Pilots of this host. Their ledger is theirs: see judge.py."""

SCENARIOS = (
    MAIN,
    SCRUBBED,
    SPOILED,
    STOPPED,
    DOUBTFUL,
    RESTORED,
    STEERED,
    PACKED,
    # What is only asked after a crash, because an outcome is not known.
    # Slower, because the stager soon forgets a request that has ended, and then nothing can be asked about it: two lives must
    # begin before, on a slow machine too.
    msgspec.structs.replace(MAIN, name="staged-untold", first="lta.stage:after:1", rate=5_000.0),
    msgspec.structs.replace(MAIN, name="unstaged", first="lta.stage:before:1"),
    msgspec.structs.replace(MAIN, name="copied-unnamed", first="storage.copy:after:1"),
    msgspec.structs.replace(MAIN, name="submitted-untold", first="glite.submit:after:1"),
    msgspec.structs.replace(MAIN, name="status-untold", first="catalogue_csv.write_status:after:1"),
    msgspec.structs.replace(MAIN, name="released-untold", first="lta.abort:after:1"),
    HANDS,
    msgspec.structs.replace(HANDS, name="hands-untold", first="local.submit:after:1"),
    msgspec.structs.replace(HANDS, name="hands-unstarted", first="local.submit:before:1"),
    OWN,
    msgspec.structs.replace(OWN, name="own-untold", first="catalogue_own.write_status:after:1"),
    *TAPES,
    *(
        msgspec.structs.replace(one, name=f"{one.name}-{verb}-untold", first=f"{ADAPTERS[one.name]}.{verb}:after:1")
        for one in TAPES
        for verb in ("stage", "abort")
    ),
)


def write_inputs(state: Path) -> None:
    """The catalogue and the SRM lists, the first lines of real ones, and a repository of scripts."""
    srm = state / "srm"
    srm.mkdir(parents=True)
    for obsid in (TARGET, CALIBRATOR):
        lines = (DATA / "srm" / f"srm{obsid}.txt").read_text(encoding="utf-8").splitlines()[:FILES]
        (srm / f"srm{obsid}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    rows = (DATA / "fields.csv").read_text(encoding="utf-8").splitlines()
    row = next(row for row in rows if f",{FIELD}," in row)
    (state / "fields.csv").write_text(f"{row}\n", encoding="utf-8")
    gits.commit(srm / "scripts", {"master.sh*": "#!/bin/sh\n", "bin/run": "true\n"})


def write_config(state: Path, ready: Mapping[str, Any], scenario: Scenario, origin: float) -> Path:
    """The daemon's configuration for the grid that said `ready`. Polls are such that a round takes some 100 ms."""
    if scenario.system == "local":
        (state / LEDGER).touch()  # Pilots that are called off before they begin write nothing in it.
    secrets = ready["credentials"]
    kept = {f"{name}.password": secrets[f"{name}_password"] for name in ("lta", "couch")}
    kept |= {f"{name}.token": secrets[f"{name}_token"] for name in ("stageit", "dcache")}
    for name, secret in kept.items():
        path = state / name
        path.touch(mode=0o600)
        path.write_text(secret, encoding="utf-8")
    pilots = ["run_remote_sandbox.sh", "--url", ready["couch_url"], "--database", secrets["couch_database"]]
    values: dict[str, dict[str, Any]] = {
        "daemon": {
            "state_dir": str(state),
            "socket": str(state / "aglowd.sock"),
            "log_format": "json",
            "tool_path": ready["bin"],
            "audit": scenario.audit,
        },
        "clock": {"rate": scenario.rate, "origin": origin},
        "catalogue": {
            "kind": scenario.catalogue,
            "path": str(state / ("fields.csv" if scenario.catalogue == "csv" else "catalogue.db")),
            "srm_dir": str(state / "srm"),
            "select": ["SND"],
            "pipeline": scenario.pipeline,
            "poll": "4h",
        },
        "lta": {
            "url": ready["lta_url"],
            "user": secrets["lta_user"],
            "password_file": str(state / "lta.password"),
        },
        "staging": {"poll": "90m"},
        "stageit": {"url": ready["stageit_url"], "token_file": str(state / "stageit.token")},
        "dcache": {"url": ready["dcache_url"], "token_file": str(state / "dcache.token"), "poll": "90m"},
        "picas": {
            "url": ready["couch_url"],
            "database": secrets["couch_database"],
            "user": secrets["couch_user"],
            "password_file": str(state / "couch.password"),
            "gather": "30m",
            "poll": "12h",
        },
        "jobs": {"arguments": pilots, "poll": scenario.jobs_poll, "system": scenario.system},
        "storage": {"poll": "1h", "deletable": [(state / "srm").as_uri()]},
        "proxy": {"minimum": "12h", "poll": "90m"},
        "pipelines": {"directory": str(PIPELINES)},
        "sites.sara": {"results": f"{HOST}/results/sara", "archive": f"{ARCHIVE}/sara", "staging": scenario.staging},
        "pools": {"staging-sara": 1},
    }
    if scenario.archive_after:
        values["history"] = {"archive_after": scenario.archive_after, "events_keep": "12h"}
    lines = []
    for table, entries in values.items():
        lines.append(f"[{table}]")
        lines.extend(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in entries.items())
    path = state / "aglowd.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
