"""How a command takes several fields, or runs: names, patterns and `--state`, for all commands in the same words.

What must stay true: what is meant says the daemon, by one rule (`aglowd.choice`), whatever is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from aglowd.choice import FIELD_STATES, Choice, check_number
from aglowd.cli import complete, render, shared
from aglowd.cli.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def several(
    metavar: str = "[FIELD]...", states: Sequence[str] = FIELD_STATES, completed: Any = complete.fields
) -> Callable[[F], F]:
    """The arguments `targets`, which have that metavar, and the option `--state` of a command."""

    def decorate(command: F) -> F:
        state = click.option(
            "--state",
            type=click.Choice(states),
            default=None,
            help="Only what is in this state; without a name, all that is.",
        )
        return click.argument("targets", nargs=-1, metavar=metavar, shell_complete=completed)(state(command))

    return decorate


def check_names(names: Sequence[str]) -> None:
    """UsageError if one is empty: a shell's variable that is not set makes such ones."""
    if "" in names:
        raise click.UsageError("an empty name is nobody's; is a variable not set?")


def wanted(targets: Sequence[str], state: str | None, what: str = "a FIELD or a pattern") -> dict[str, Any]:
    """The same for the daemon; UsageError if nothing is named, or an empty name."""
    check_names(targets)
    if not targets and not state:
        raise click.UsageError(f"name {what}, or a --state; aglowctl fields lists what there is")
    return {"targets": list(targets), "state": state or ""}


def names(client: Client, targets: Sequence[str], state: str | None) -> list[str]:
    """The names of the fields that are meant. One that is no pattern is that, and what is asked of it tells if it is nobody's."""
    values = wanted(targets, state)
    if len(targets) == 1 and Choice(tuple(targets), state or "").is_exact():
        return list(targets)
    return [field["field"] for field in client.post("v1", "fields", **values)["fields"]]


def show_each(
    client: Client,
    targets: Sequence[str],
    state: str | None,
    as_json: bool,
    page: Callable[[dict[str, Any]], render.Page],
    *parts: str,
    query: str = "",
) -> None:
    """Show what the daemon says of each field that is meant, at that path below it, as it comes; nothing, if one is nobody's."""
    with shared.failing_well():
        meant = names(client, targets, state)
        check_number(len(meant), "fields")
        for number, name in enumerate(meant):
            answer = client.get("v1", "fields", name, *parts, query=query)
            if number and not as_json:
                click.echo()
            shared.show(answer, as_json, page)
