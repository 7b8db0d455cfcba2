"""What came of a demo, and how people and programs are shown it: progress, summary, JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.durations import duration_text
from aglowd.sim.checker import Report


class Outcome(Struct, frozen=True):
    """What came of it."""

    fields: dict[str, dict[str, str]]
    report: Report
    wall_s: float
    simulated_s: float
    calibrator_runs: int
    more: Mapping[str, Any] = {}

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "schema": 1,
            "fields": self.fields,
            "wall_s": round(self.wall_s, 2),
            "simulated_s": round(self.simulated_s),
            "world": msgspec.to_builtins(self.report.world),
            "shared": {"calibrator_runs": self.calibrator_runs},
            "requests": msgspec.to_builtins(self.report.requests),
            "rounds": {name: msgspec.to_builtins(entry) for name, entry in self.report.operations.items()},
            "findings": [
                msgspec.to_builtins(one)
                for one in (*self.report.duplicates, *self.report.lost, *self.report.violations)
            ],
            **self.more,
        }

    @property
    def is_well(self) -> bool:
        """Every field is archived, and the ledger shows nothing amiss."""
        archived = all(field["state"] == "archived" for field in self.fields.values())
        return bool(self.fields) and archived and self.report.is_clean


@contextlib.contextmanager
def progress(speed: float) -> Any:
    """A row a field on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda fields: None
        return
    began = time.monotonic()
    with Live(console=console, refresh_per_second=4) as live:

        def show(fields: list[dict[str, Any]]) -> None:
            passed = duration_text((time.monotonic() - began) * speed)
            table = Table(title=f"aglowd demo: {passed} in the simulated grid")
            for column in ("field", "state", "steps", "now"):
                table.add_column(column, overflow="ellipsis", no_wrap=True)
            for field in fields:
                steps = f"{field['done_steps']}/{field['steps_total']}"
                now = f"{field['step']}: {field['reason']}" if field.get("step") else field["reason"]
                table.add_row(field["field"], field["state"], steps, now)
            live.update(table)

        yield show


def print_summary(outcome: Outcome) -> None:
    world = outcome.report.world
    asked: dict[str, int] = msgspec.to_builtins(outcome.report.requests)
    del asked["processes_started"]
    lines = [
        f"{name}: {field['state']}{': ' + field['reason'] if field['reason'] else ''}"
        for name, field in outcome.fields.items()
    ]
    lines += [
        f"{duration_text(outcome.simulated_s)} of the grid in {outcome.wall_s:.1f} s",
        f"staging requests {world.staging_requests} ({world.surls_requested} SURLs), tokens {world.tokens_created}, "
        f"jobs {world.jobs_submitted} ({world.pilots_submitted} pilots), files archived {world.files_archived}, calibrators run {outcome.calibrator_runs}",
        f"duplicates {world.duplicates}, lost {world.lost}, violations {len(outcome.report.violations)}",
        f"requests: {', '.join(f'{name} {count}' for name, count in asked.items() if count)}",
    ]
    lines += [
        f"route {site}: {one['archived']} of {one['fields']} fields archived, {one['tokens']} tokens in {one['database']}"
        for site, one in outcome.more.get("routes", {}).items()
    ]
    if "chaos" in outcome.more:
        chaos = outcome.more["chaos"]
        pilots = f", and {chaos['pilots_killed']} pilots" if chaos["pilots_killed"] else ""
        lines.append(
            f"killed {chaos['kills']} times{pilots}; faults {sum(chaos['faults'].values())} of {len(chaos['faults'])} kinds"
        )
        lines += [f"given up after {outcome.wall_s:.0f} s"] if chaos["given_up"] else []
        lines += [f"doubtful: {one['key']}: {one['reason']}" for one in outcome.more["doubtful"]]
    lines += [
        f"{one.rule}: {one.what}"
        for one in (*outcome.report.duplicates, *outcome.report.lost, *outcome.report.violations)
    ][:20]
    print("\n".join(lines))  # noqa: T201 - this is a command
