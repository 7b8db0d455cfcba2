"""When a schedule is due: pure functions from a rule and a moment to the next moment.

What must stay true: the next time lies after the moment that was given and depends on nothing else but the rule, so that
whoever asks twice, before and after a crash, is told the same. Cron expressions are read in UTC, whatever the host's zone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from croniter import CroniterError, croniter
from msgspec import Struct

from aglowd.durations import duration_s

LEAST_S = 60.0
"""World seconds between two runs of one schedule: pipelines take hours."""
NAMED = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_FIELD = re.compile(r"[\d*/,A-Za-z?#-]+")
_HINT = 'five fields, minute hour day month weekday, in UTC, such as "0 3 * * *"'


class Schedule(Struct, frozen=True, kw_only=True):
    """By itself a pipeline runs at the multiples of `every_s` since 1970, or at the times of `cron`, with these `params`."""

    every: str = ""
    cron: str = ""
    params: dict[str, Any] = {}
    enabled: bool = True

    @property
    def rule(self) -> str:
        """What its times are made from, as people read it."""
        return f"every {self.every}" if self.every else f"{self.cron} UTC"


def next_time(schedule: Schedule, after: float) -> float:
    """The first time of the schedule after that moment, both in seconds since 1970."""
    if schedule.every:
        every_s = duration_s(schedule.every)
        at = (after // every_s + 1) * every_s
        return at if at > after else at + every_s  # A quotient is rounded.
    found: datetime = croniter(schedule.cron, datetime.fromtimestamp(after, UTC)).get_next(datetime)
    return found.timestamp()


def read_schedule(
    table: Mapping[str, Any], params: Collection[str]
) -> tuple[Schedule | None, list[tuple[tuple[str, ...], str, str]]]:
    """The schedule in that table of a pipeline with these parameters, or None with all problems: (keys, what, hint)."""
    problems = list(_problems(table, params))
    return (None, problems) if problems else (Schedule(**table), [])


def _problems(table: Mapping[str, Any], params: Collection[str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for key in sorted(table.keys() - {"every", "cron", "params", "enabled"}):
        yield (key,), f"unknown key {key!r}", "known: every, cron, params, enabled"
    if ("every" in table) == ("cron" in table):
        yield (), "a schedule has either `every` or `cron`", 'such as every = "4h"'
    if "every" in table:
        try:
            if duration_s(table["every"]) < LEAST_S or not isinstance(table["every"], str):
                yield ("every",), f"every = {table['every']!r} is too short", 'at least one minute, such as "4h"'
        except ValueError as error:
            yield ("every",), str(error), ""
    if "cron" in table:
        yield from _cron_problems(table["cron"])
    if not isinstance(table.get("enabled", True), bool):
        yield ("enabled",), "enabled is either true or false", ""
    given = table.get("params", {})
    if not isinstance(given, dict):
        yield ("params",), "params is not a table", "write [schedule.params]"
        return
    for key in sorted(given.keys() - set(params)):
        yield ("params", key), f"the pipeline has no parameter {key!r}", f"[pipeline] params = {list(params)}"
    for key in sorted(set(params) - given.keys()):
        yield ("params",), f"the schedule does not give the parameter {key!r}", "each has to be given"


def _cron_problems(cron: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    fields = cron.split() if isinstance(cron, str) else []
    if cron not in NAMED and not (len(fields) == 5 and all(map(_FIELD.fullmatch, fields))):
        yield ("cron",), f"{cron!r} is no cron expression", _HINT
        return
    try:
        next_time(Schedule(cron=cron), 0.0)
    except (CroniterError, ValueError) as error:
        yield ("cron",), f"{cron!r} is no time that ever comes: {error}", _HINT
