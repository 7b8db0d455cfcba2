"""Wait until files have arrived (AGLOW's dcacheSensor): enough of them, and none that is still being written."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.durations import duration_s
from aglowd.handlers.base import HOUR_S, is_enough, named
from aglowd.handlers.files import name_of
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

DAY_S = 86_400.0


def arrivals(url: str, pattern: str, quiet_s: float, occasion: str) -> Subject:
    """The files in a directory, and of each whether its size has stood still for so long (world seconds)."""
    return Subject("arrivals", occasion, {"url": url, "pattern": pattern, "quiet_s": quiet_s})


class WaitFiles(Handler):
    """Wait for `count` files, or a fraction of `expected` (names, or how many), whose sizes stand still for `quiet`.

    Fails with what is missing when nothing has changed for `stall`. Outputs: `files` (URLs), `count`, `missing`:
    names of `expected` that have not come.
    """

    kind = "wait_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str
        pattern: str = "*"
        count: int = 0
        expected: int | tuple[str, ...] = 0
        threshold: float = 1.0
        quiet: str = "10m"
        stall: str = "1d"

        def __post_init__(self) -> None:
            duration_s(self.quiet)
            if duration_s(self.stall) <= 0:
                raise ValueError("stall must be longer than nothing")
            if (self.count > 0) == (self.expected != 0):
                raise ValueError("say either `count` or `expected`")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = arrivals(params.directory, params.pattern, duration_s(params.quiet), step.key)
        found = seen.observations.get(subject.key)
        if found is None:
            return Wait((subject,), f"looking into {params.directory}", HOUR_S)
        names = None if isinstance(params.expected, int) else set(params.expected)
        here = [file for file in found.data["files"] if names is None or name_of(file["url"]) in names]
        files = [file["url"] for file in here if file["quiet"] and file["size_bytes"]]
        missing = sorted((names or set()) - {name_of(url) for url in files})
        total = params.count or (params.expected if names is None else len(names))
        if is_enough(len(files), total, 1.0 if params.count else params.threshold):
            return Done({"files": files, "count": len(files), "missing": missing})
        written = f", {len(here) - len(files)} more are empty or being written" if len(here) > len(files) else ""
        reason = f"{len(files)} of {total} files in {params.directory}{written}"
        left_s = found.at + duration_s(params.stall) - seen.now
        if left_s > 0:
            return Wait((subject,), reason, min(left_s, DAY_S))
        # We may have been away for as long ourselves: the directory is looked at once more before it is given up.
        still = arrivals(
            params.directory, params.pattern, duration_s(params.quiet), f"{step.key}/still {found.version}"
        )
        told = seen.of(still)
        if told is None:
            return Wait(
                (subject, still), f"{reason}; nothing has changed for {params.stall}: looking once more", HOUR_S
            )
        if told["files"] != found.data["files"]:
            return Wait((subject,), reason, DAY_S)
        absent = f"; missing: {named(missing)}" if missing else ""
        return Failed(f"{reason}; nothing has changed for {params.stall}{absent}")
