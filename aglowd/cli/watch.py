"""`aglowctl watch` and `aglowctl status -w`: a screen that stays up to date while somebody looks.

What must stay true: the screen of fields is fed by the events, and asks only for fields that one of them names; a daemon that
goes is told of and waited for; a pipe gets whole lines, each when it is news, and no colour.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import click

from aglowd.choice import RUN_STATES, matching
from aglowd.cli import choose, render, shared
from aglowd.cli.client import SCHEMA, Client, NotRunning, Silent
from aglowd.cli.follow import PATIENCE_S, RETRY_S, Event, follow
from aglowd.cli.render import Page, Table, clean, iso
from aglowd.durations import duration_text
from aglowd.errors import AglowError

MANY = 20
"""If the events name more fields than that at once, all are asked for in one call."""
MAX_ENDED = 10
"""Fields that have ended since the beginning stay on the screen, the latest of them."""
COLUMNS = ("field", "state", "steps", "step", "since", "why")

Field = dict[str, Any]
Screen = Callable[[Page, Sequence[Field], str], None]
"""Where it is shown: (the page, the fields of which something is new, that the daemon was lost just now, or is back)."""


@click.command()
@choose.several(states=RUN_STATES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: each field when something is new of it.")
@click.pass_obj
def watch(client: Client, targets: tuple[str, ...], state: str | None, as_json: bool) -> None:
    """Show the fields at work, and go on with it until Ctrl-C: their step, since when, and why it waits.

    On a terminal the table stays up to date, with the fields that have ended since; piped, it is a line for each that is new.
    Names may be patterns; without any, all. With --state it is the fields in that state, and no others. A daemon that stops is
    waited for, for five minutes.

    Example: aglowctl watch
    """
    choose.check_names(targets)
    try:
        with shared.failing_well(), _screen(as_json) as screen:
            shown = Shown(client, targets, screen, state)
            follow(client, shown.see, shown.away)
    except KeyboardInterrupt:
        return  # This is how one stops watching.


class Shown:
    """The fields that somebody looks at, as far as is known. `state`: None = those at work, and those that have ended since."""

    def __init__(self, client: Client, names: Sequence[str], screen: Screen, state: str | None = None) -> None:
        self.client = client
        self.screen = screen
        self._names = names
        self._state = state
        self._known: frozenset[str] = frozenset()
        """The fields that there were at the last look at all: what is one of them is no pattern."""
        self._fields: dict[str, Field] = {}
        self._ended: dict[str, Field] = {}
        self._now = self._at = 0.0
        self._lost = ""

    def see(self, news: Sequence[Event] | None) -> bool:
        """Show what the news changed; it is never enough."""
        named = {event["field"] for event in news or () if event["field"] and self._is_meant(event["field"])}
        before = {**self._fields, **self._ended}
        told = "aglowd is back" if news is None and self._lost else ""
        if news is None or len(named) > MANY:
            self._lost = ""
            self._look_at_all()
        for name in named if len(named) <= MANY else ():
            self._look_at(name)
        after = {**self._fields, **self._ended}
        new = [field for name, field in after.items() if _news(before.get(name)) != _news(field)]
        self.screen(self.page(), new, told)
        return False

    def away(self, error: AglowError) -> None:
        """The daemon was lost."""
        self._lost = f"{error}; it is waited for"
        self.screen(self.page(), [], self._lost)

    def page(self) -> Page:
        """What stands on the screen."""
        now = self._now + time.monotonic() - self._at
        rows = [_row(now, field) for field in (*self._fields.values(), *list(self._ended.values())[-MAX_ENDED:])]
        page: Page = [f"{len(self._fields)} fields {self._state or 'at work'}; now {iso(now)}"]
        page += [f"LOST     {clean(self._lost)}"] if self._lost else []
        return [*page, Table(COLUMNS, rows)] if rows else page

    def _is_meant(self, name: str) -> bool:
        return not self._names or any(
            name == one or (one not in self._known and matching([name], one)) for one in self._names
        )

    def _look_at_all(self) -> None:
        answer = self.client.get("v1", "fields")
        self._tick(answer)
        self._known = frozenset(field["field"] for field in answer["fields"])
        found = {field["field"]: field for field in answer["fields"] if self._is_meant(field["field"])}
        for name in self._fields.keys() - found.keys():
            del self._fields[name]
        for field in found.values():
            self._take(field)

    def _look_at(self, name: str) -> None:
        try:
            answer = self.client.get("v1", "fields", name)
        except (NotRunning, Silent):
            raise
        except AglowError:
            return  # The event speaks of something that is no field, or no more.
        self._tick(answer)
        if answer["catalogue_status"] is not None:
            self._take({key: value for key, value in answer.items() if key not in ("schema", "now", "data", "runs")})

    def _take(self, field: Field) -> None:
        name = field["field"]
        if field["state"] == (self._state or "running"):
            self._ended.pop(name, None)
            self._fields[name] = field
        elif (self._fields.pop(name, None) is not None or name in self._ended) and self._state is None:
            self._ended[name] = field

    def _tick(self, answer: dict[str, Any]) -> None:
        self._now, self._at = answer["now"], time.monotonic()


def _news(field: Field | None) -> tuple[Any, ...]:
    """What is shown of it: nothing is news unless this is another."""
    return () if field is None else tuple(field.get(key) for key in ("state", "done_steps", "step", "reason"))


def _row(now: float, field: Field) -> tuple[str, ...]:
    since = _since(field)
    return (
        clean(field["field"]),
        field["state"],
        f"{field['done_steps']}/{field['steps_total']}",
        clean(field.get("step", "-")),
        "-" if since is None else duration_text(max(0.0, now - since)),
        clean(field["reason"]),
    )


def _since(field: Field) -> float | None:
    """When it came to that; None = nobody knows, as of a row that is wrong."""
    at: float | None = field["since"] if field["ended"] is None else field["ended"]
    return at


# --- screens


@contextmanager
def _screen(as_json: bool) -> Iterator[Screen]:
    """The page on a terminal, and what is new of it in a pipe."""
    if not as_json and sys.stdout.isatty():
        with live() as show:
            yield lambda page, news, told: show(page)
        return

    def tell(page: Page, news: Sequence[Field], told: str) -> None:
        for field in news:
            click.echo(json.dumps({"schema": SCHEMA, **field}) if as_json else _line(field))
        if told:
            click.echo(f"aglowctl: {told}", err=True)

    yield tell


def _line(field: Field) -> str:
    at = _since(field)
    name, state, steps, step, _, why = _row(0.0, field)
    return f"{'-' if at is None else iso(at):<20} {name:<14} {state:<9} {steps:>5} {step:<20} {why}".rstrip()


@contextmanager
def live() -> Iterator[Callable[[Page], None]]:
    """A page on the terminal that the next one takes the place of; what does not fit below is cut."""
    from rich.live import Live

    with Live(auto_refresh=False, vertical_overflow="ellipsis") as screen:
        yield lambda page: screen.update(render.drawn(page), refresh=True)


def repeat(
    client: Client, page_of: Callable[[dict[str, Any]], Page], every_s: float, as_json: bool, *parts: str
) -> None:
    """Ask for the same each `every_s` real seconds and show it, until Ctrl-C; a daemon that goes is waited for."""
    is_live = sys.stdout.isatty() and not as_json
    answered: float | None = None
    is_away = False
    with live() if is_live else nullcontext(render.show) as show:
        while True:
            wait_s = every_s
            try:
                answer = client.get(*parts)
                if as_json:
                    click.echo(json.dumps(answer))
                else:
                    show(page_of(answer) if is_live or answered is None else ["", *page_of(answer)])
                if is_away and not is_live:
                    click.echo("aglowctl: aglowd is back", err=True)
                answered, is_away = time.monotonic(), False
            except (NotRunning, Silent) as error:
                if answered is None or time.monotonic() > answered + PATIENCE_S:
                    raise
                lost, wait_s = f"{error}; it is waited for", RETRY_S
                if is_live:
                    show([f"LOST     {clean(lost)}"])
                elif not is_away:
                    click.echo(f"aglowctl: {lost}", err=True)
                is_away = True
            sys.stdout.flush()
            time.sleep(wait_s)
