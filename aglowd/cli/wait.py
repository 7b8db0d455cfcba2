"""`aglowctl wait`: stand until fields have come so far, for scripts and for people who go home.

What must stay true: it ends as soon as its outcome is certain and not before; how it ends tells which outcome that was, and
what it says names the reason. It asks for a field only when an event names that field, or a run that it waits for, and for none
when the time is over.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from aglowd.cli import choose, exits, shared
from aglowd.cli.client import SCHEMA, Client
from aglowd.cli.follow import Event, follow
from aglowd.cli.render import Answer, clean
from aglowd.durations import duration_s, duration_text
from aglowd.errors import AglowError

END = "done"
REACHED, NEVER, DOUBT, PENDING = "reached", "never", "doubt", "pending"
CODES = {REACHED: exits.OK, NEVER: exits.ERROR, DOUBT: exits.DOUBT, PENDING: exits.PENDING}
"""How the command ends with a field of that outcome."""


class Standing(NamedTuple):
    """How far a field is from what is waited for: one of the outcomes, why, and the runs on which that hangs beside its own."""

    outcome: str
    why: str
    run: str | None
    inner: frozenset[str] = frozenset()


def _duration(context: click.Context, option: click.Parameter, value: str | None) -> float:
    try:
        return math.inf if value is None else duration_s(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


@click.command()
@choose.several()
@click.option(
    "--until",
    "goal",
    default=END,
    show_default=True,
    metavar="done|STEP",
    help="What is waited for: that the run has ended well, or that this step of it is done.",
)
@click.option(
    "--timeout", "timeout_s", callback=_duration, metavar="DURATION", help="Wait so long at most; without it, for ever."
)
@click.option(
    "--fail-on-doubt", is_flag=True, help="End with 5 as soon as a field waits for a person; else it is only told."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_obj
def wait(
    client: Client,
    targets: tuple[str, ...],
    state: str | None,
    goal: str,
    timeout_s: float,
    fail_on_doubt: bool,
    as_json: bool,
) -> None:
    """Wait until each field is done, or has done a step, and tell by the exit code how that went.

    Which fields a pattern or --state means is told at the beginning. A field that has not begun is waited for, too. A daemon
    that stops is waited for, for five minutes.

    Exit codes: 0 all have come so far; 1 one never will: its run, or the step, has failed, was skipped or cancelled; 5 with
    --fail-on-doubt, one waits for a person: an effect is in doubt, or a verdict is asked for; 8 the time is over.

    Example: aglowctl wait P229+62 --until target_list --timeout 6h
    """
    until = time.monotonic() + timeout_s
    waiting = Waiting(client, goal, fail_on_doubt=fail_on_doubt, is_quiet=as_json, until=until)
    try:
        with shared.failing_well():
            waiting.begin(choose.names(client, targets, state))
            follow(client, waiting.see, waiting.away, until)
    except KeyboardInterrupt:
        raise shared.Failure("nobody waits any more; the fields go on") from None
    if as_json:
        click.echo(json.dumps(waiting.told()))
    for name, standing in waiting.worst():
        click.echo(f"aglowctl: {clean(name)}: {clean(standing.why)}", err=True)
    click.get_current_context().exit(waiting.code())


class Waiting:
    """The fields that are waited for, and how each stands as far as is known by `until` on the monotonic clock."""

    def __init__(
        self, client: Client, goal: str, *, fail_on_doubt: bool, is_quiet: bool, until: float = math.inf
    ) -> None:
        self.client = client
        self.goal = goal
        self.standings: dict[str, Standing] = {}
        self._ends = (NEVER, DOUBT) if fail_on_doubt else (NEVER,)
        self._is_quiet = is_quiet
        self._until = until
        self._warned: set[tuple[str, str]] = set()
        self._is_away = False

    def begin(self, names: Sequence[str]) -> None:
        """Take these fields."""
        self.standings = dict.fromkeys(names, Standing(PENDING, "there was no time to look at it", None))

    def see(self, news: Sequence[Event] | None) -> bool:
        """Look at the fields that the news name, while there is time; whether the outcome is certain."""
        if news is None and self._is_away:
            self._is_away = False
            click.echo("aglowctl: aglowd is back", err=True)
        named = None if news is None else {name for event in news for name in (event["field"], event["run"]) if name}
        for name, standing in self.standings.items():
            if standing.outcome != REACHED and (named is None or named & {name, *standing.inner}):
                self._look(name)
                if time.monotonic() >= self._until:
                    break
        outcomes = [standing.outcome for standing in self.standings.values()]
        return all(one == REACHED for one in outcomes) or any(one in self._ends for one in outcomes)

    def away(self, error: AglowError) -> None:
        """The daemon was lost."""
        self._is_away = True
        click.echo(f"aglowctl: {error}; it is waited for", err=True)

    def _look(self, name: str) -> None:
        explained = self.client.get("v1", "fields", name, "explain")
        if self.goal == END:
            standing = of_run(explained)
        else:
            standing = of_step(explained, self.client.get("v1", "fields", name), self.goal)
        self.standings[name] = standing
        if standing.outcome == REACHED and not self._is_quiet:
            click.echo(f"{clean(name)}: {clean(standing.why)}")
        if standing.outcome == DOUBT and DOUBT not in self._ends and (name, standing.why) not in self._warned:
            self._warned.add((name, standing.why))
            click.echo(f"aglowctl: {clean(name)} goes on only when you do something: {clean(standing.why)}", err=True)

    # --- how it ended

    def _outcome(self) -> str:
        outcomes = {standing.outcome for standing in self.standings.values()}
        certain = next((one for one in self._ends if one in outcomes), None)
        return certain or (REACHED if outcomes == {REACHED} else PENDING)

    def code(self) -> int:
        """The exit code."""
        return CODES[self._outcome()]

    def worst(self) -> Iterator[tuple[str, Standing]]:
        """The fields for which it did not end well; when the time is over, all that are not there."""
        outcome = self._outcome()
        for name, standing in self.standings.items():
            if standing.outcome == outcome != REACHED or (outcome == PENDING and standing.outcome == DOUBT):
                yield name, standing

    def told(self) -> Mapping[str, Any]:
        """The same for programs."""
        return {
            "schema": SCHEMA,
            "until": self.goal,
            "outcome": self._outcome(),
            "fields": [
                {"field": name, "outcome": standing.outcome, "run": standing.run, "reason": standing.why}
                for name, standing in self.standings.items()
            ],
        }


# --- how a field stands: pure


def of_run(explained: Answer) -> Standing:
    """Whether its run has ended well."""
    if explained["state"] in ("archived", "done"):
        return Standing(REACHED, f"{explained['state']}{_by(explained)}", explained["run"])
    return _never(explained) or _pending(explained)


def of_step(explained: Answer, shown: Answer, goal: str) -> Standing:
    """Whether that step of its latest run is done."""
    run = next((run for run in shown["runs"] if run["id"] == shown["run"]), None)
    if run is None:
        return _never(explained) or _pending(explained)
    step = next((step for step in run["steps"] if step["step"] == goal), None)
    if step is None:
        names = ", ".join(step["step"] for step in run["steps"])
        return Standing(NEVER, f"{run['id']} has no step {goal!r}; it has {names}", run["id"])
    if step["state"] == "done":
        return Standing(REACHED, f"{goal} is done{_by(shown)}", run["id"])
    if step["state"] in ("failed", "skipped", "cancelled"):
        why = f": {step['reason']}" if step["reason"] not in ("", step["state"]) else ""
        return Standing(NEVER, f"{goal} of {run['id']} is {step['state']}{why}", run["id"])
    return _pending(explained)


def _by(answer: Answer) -> str:
    return f", run {answer['run']}" if answer["run"] else ""


def _never(explained: Answer) -> Standing | None:
    if explained["state"] in ("failed", "cancelled"):
        why = f": {explained['reason']}" if explained["reason"] else ""
        return Standing(NEVER, f"{explained['state']}{_by(explained)}{why}", explained["run"])
    return None


def _pending(explained: Answer) -> Standing:
    """It may still come: what it waits for, and whether that is a person."""
    steps = list(_steps(explained["steps"]))
    inner = frozenset(step["run"] for step in steps if step["run"] != explained["run"])
    for step in steps:
        for effect in step["effects"]:
            if effect["state"] == "doubt":
                why = f"{effect['key']} is in doubt: {effect['reason']} (aglowctl doubt)"
                return Standing(DOUBT, why, explained["run"], inner)
        if any(wait["subject"].startswith("verdict:") for wait in step["waits_for"]):
            why = f"{step['run']}/{step['step']}: {step['reason']}"
            return Standing(DOUBT, why, explained["run"], inner)
    if not steps:
        why = explained["held"] or explained["reason"]
        return Standing(PENDING, f"it has not begun{f': {why}' if why else ''}", explained["run"])
    now = explained["now"]
    told = "; ".join(
        f"{step['step']} is {step['state']} since {duration_text(max(0.0, now - step['since']))}: {step['reason']}"
        for step in steps
        if step["run"] == explained["run"]
    )
    return Standing(PENDING, told, explained["run"], inner)


def _steps(steps: Sequence[Answer]) -> Iterator[Answer]:
    """These, and those of the runs that they wait for."""
    for step in steps:
        yield step
        yield from _steps(step.get("inner", ()))
