"""What people hold: `aglowctl pause`, `drain` and `resume`, of fields, of a kind of step, of a site, or of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from aglowd.cli import choose, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, clean

TIMEOUT_S = 60.0
PAST = {"pause": "paused", "drain": "drained", "resume": "resumed"}

F = TypeVar("F", bound=Callable[..., Any])


def _held(command: F) -> F:
    """What can be held: arguments and options of pause, drain and resume."""
    for option in (
        click.option("--everything", is_flag=True, help="All of it; without a name nothing is meant."),
        click.option("--site", "sites", multiple=True, metavar="SITE", help="Fields whose data lie at this site."),
        click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Steps of this kind."),
        choose.several(),
    ):
        command = option(command)
    return command


@click.command()
@_held
@shared.order_options
@click.pass_obj
def pause(client: Client, /, **values: Any) -> None:
    """Let nothing new be decided or begun: of fields, of a kind of step, of a site, or at all. What is under way ends.

    Example: aglowctl pause --site sara --reason "maintenance" --yes
    """
    _hold(client, "pause", **values)


@click.command()
@_held
@shared.order_options
@click.pass_obj
def drain(client: Client, /, **values: Any) -> None:
    """Take no new fields, and finish what runs; with --kind, begin no more steps of that kind.

    Example: aglowctl drain --everything --reason "the disk is replaced on Monday" --yes
    """
    _hold(client, "drain", **values)


@click.command()
@_held
@shared.order_options
@click.pass_obj
def resume(client: Client, /, **values: Any) -> None:
    """Go on with what was paused or drained. `aglowctl status` shows what is.

    Example: aglowctl resume --site sara --yes
    """
    _hold(client, "resume", **values)


def _hold(
    client: Client,
    verb: str,
    targets: tuple[str, ...],
    state: str | None,
    kinds: tuple[str, ...],
    sites: tuple[str, ...],
    everything: bool,
    **how: Any,
) -> None:
    choose.check_names((*targets, *kinds, *sites))
    is_named = bool(targets or state or kinds or sites)
    if everything and is_named:
        raise click.UsageError("--everything goes with no name")
    if not everything and not is_named:
        raise click.UsageError("name a FIELD or a pattern, a --state, a --kind or a --site; --everything is all of it")
    values: dict[str, Any] = {
        "fields": list(targets),
        "state": state or "",
        "kinds": list(kinds),
        "sites": list(sites),
        "everything": everything,
    }

    def question(plan: Answer) -> str:
        return f"{verb.capitalize()} {shared.first_of([_name(one) for one in plan['holds']])}?"

    shared.order(client, verb, values, _page, question, timeout_s=TIMEOUT_S, **how)


def _name(hold: Answer) -> str:
    return clean(f"{hold['scope']} {hold['name']}".strip())


def _page(answer: Answer) -> Page:
    verb = PAST[answer["verb"]]
    word = f"is {verb}" if answer["done"] else f"would be {verb}"
    return [f"{_name(one)} {_became(word, answer['verb'], one['mode'])}" for one in answer["holds"]]


def _became(word: str, verb: str, was: str) -> str:
    if verb == "resume" and not was:
        return "is left alone: it was not held"
    return f"{word}; it was {PAST[was]}" if was else word
