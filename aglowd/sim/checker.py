"""The judge: counts what a run did to the world, and lists what it must not have done, from the ledger and the bytes.

`python -m aglowd.sim.checker LEDGER --storage DIR [--expect FILE]` prints the report as JSON; exit 1 when it finds
duplicates that the client did not report, losses or violations.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec

from aglowd.sim import pilotrules, rules
from aglowd.sim.history import History, Line
from aglowd.sim.rules import Expectation, Finding
from aglowd.sim.storage import Storage

SCHEMA = 1


class WorldCounts(msgspec.Struct, frozen=True):
    """What was done to the world."""

    staging_requests: int
    surls_requested: int
    tokens_created: int
    jobs_submitted: int
    pilots_submitted: int
    files_archived: int
    duplicates: int
    duplicates_reported: int
    lost: int


class Requests(msgspec.Struct, frozen=True):
    """How often the client asked each system, and how many processes it started for that.

    What it asks of this host and of a real Slurm nobody sees.
    """

    lta: int
    stageit: int
    couchdb: int
    glite: int
    dirac: int
    arc: int
    storage: int
    processes_started: int


class Operation(msgspec.Struct, frozen=True):
    """How often one operation was asked for, when (world time), and its median interval in real seconds."""

    count: int
    first_t: float
    last_t: float
    median_interval_s: float | None


class Report(msgspec.Struct, frozen=True):
    """All that the checker has to say."""

    world: WorldCounts
    requests: Requests
    operations: dict[str, Operation]
    duplicates: tuple[Finding, ...]
    lost: tuple[Finding, ...]
    violations: tuple[Finding, ...]
    schema: int = SCHEMA

    @property
    def is_clean(self) -> bool:
        return not (self.world.duplicates or self.lost or self.violations)


def check(ledger: Path, storage: Path, expect: Expectation | None = None) -> Report:
    """Judge a run by its ledger and by the storage tree of its world."""
    return judge(History.read(ledger), Storage(storage), expect or Expectation())


def judge(history: History, storage: Storage, expect: Expectation) -> Report:
    roots, step = expect.archive_roots, expect.archived_step
    duplicates = [
        *rules.surls_staged_twice(history),
        *rules.tokens_created_twice(history),
        *rules.jobs_live_twice(history),
        *pilotrules.marks_made_twice(history),
    ]
    violations = [
        *rules.submitted_twice(history),
        *rules.subbands_skipped(history, expect),
        *rules.results_skipped(history, expect),
        *rules.inputs_not_there(history),
        *pilotrules.results_not_accepted(history, storage),
        *rules.stagings_unanswered(history, expect),
        *rules.token_sets_unanswered(history, expect),
    ]
    lost: list[Finding] = []
    if roots:
        duplicates += rules.files_archived_twice(history, roots)
        violations += rules.archived_corrupt(history, storage, roots)
        violations += pilotrules.archived_unaccepted(history, storage, roots)
        violations += rules.deleted_unarchived(history, storage, roots)
        if step is not None:
            lost += rules.lost_results(history, storage, roots, step)
    reported = [one for one in duplicates if one.subject in expect.reported]
    started = list(history.of_jobs("job_started"))
    world = WorldCounts(
        staging_requests=len(history.stagings),
        surls_requested=sum(len(staging.surls) for staging in history.stagings),
        tokens_created=sum(len(token.created) for token in history.tokens.values()),
        jobs_submitted=len(started) + len({pilotrules.submission(mark.job) for mark in history.marks}),
        pilots_submitted=sum(line["nodes"] for line in started) + len(history.marks),
        files_archived=len(rules.list_archive(storage, roots)),
        duplicates=len(duplicates) - len(reported),
        duplicates_reported=len(reported),
        lost=len(lost),
    )
    return Report(
        world, _requests(history), _operations(history), tuple(duplicates), tuple(lost),
        tuple(sorted(violations, key=lambda one: one.t)),
    )  # fmt: skip


def _requests(history: History) -> Requests:
    tools = [line["tool"] for line in history.of("tools", "process", by="client")]
    return Requests(
        lta=sum(1 for _ in history.of("lta", by="client")),
        stageit=sum(1 for _ in history.of("stageit", by="client")),
        couchdb=sum(1 for _ in history.of("couchdb", by="client")),
        glite=sum(tool.startswith("glite-") for tool in tools),
        dirac=sum(tool.startswith("dirac-") for tool in tools),
        arc=sum(1 for _ in history.of("arc", by="client")),
        storage=sum(tool.startswith("gfal-") for tool in tools) + sum(1 for _ in history.of("dcache", by="client")),
        processes_started=len(tools),
    )


def _operations(history: History) -> dict[str, Operation]:
    """Every operation of the client, named `system.op`."""
    lines: dict[str, list[Line]] = defaultdict(list)
    for line in history.lines:
        if line["by"] == "client" and line["system"] != "tools":
            lines[f"{line['system']}.{line['op']}"].append(line)
    return {name: _operation(found) for name, found in sorted(lines.items())}


def _operation(lines: list[Line]) -> Operation:
    times = [line["real"] for line in lines]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    median = round(statistics.median(gaps), 4) if gaps else None
    return Operation(len(lines), lines[0]["t"], lines[-1]["t"], median)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m aglowd.sim.checker", description=__doc__)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--storage", type=Path, help="the world's storage tree; default: beside the ledger")
    parser.add_argument(
        "--expect", type=Path, help="JSON file: archive_roots, archived_step, fields, reported, finished"
    )
    given = parser.parse_args(argv)
    expect = msgspec.json.decode(given.expect.read_bytes(), type=Expectation) if given.expect else None
    report = check(given.ledger, given.storage or given.ledger.parent / "storage", expect)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
