"""The commands about how things are now: the daemon, fields, who is next, and which aglowd it is that answers."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from aglowd import __version__
from aglowd.cli import choose, past, render, shared
from aglowd.cli.client import Client, NotRunning


@click.command()
@click.option(
    "-w",
    "--watch",
    "every_s",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=5,
    metavar="[SECONDS]",
    help="Go on showing it, anew after so many seconds (5), until Ctrl-C.",
)
@shared.json_option
@click.pass_obj
def status(client: Client, every_s: float | None, as_json: bool) -> None:
    """Show the daemon's health, counts of all that moves, the oldest waits and the outside systems.

    Example: aglowctl status
    """
    if every_s is None:
        shared.ask(client, as_json, render.status, "v1", "status")
        return
    from aglowd.cli import watch  # Its threads and queues are nothing to whoever looks once.

    with suppress(KeyboardInterrupt), shared.failing_well():
        watch.repeat(client, render.status, every_s, as_json, "v1", "status")


@click.command()
@choose.several()
@shared.json_option
@click.pass_obj
def fields(client: Client, targets: tuple[str, ...], state: str | None, as_json: bool) -> None:
    """List fields, without a name or --state those of the catalogue: how far each is and what it waits for.

    What it lists with names, patterns and --state is what other commands do with them: shared work, too.

    Example: aglowctl fields --state failed
    """
    with shared.failing_well():
        if targets or state:
            answer = client.post("v1", "fields", **choose.wanted(targets, state))
        else:
            answer = client.get("v1", "fields")
        shared.show(answer, as_json, render.fields)


@click.command()
@shared.json_option
@click.pass_obj
def candidates(client: Client, as_json: bool) -> None:
    """List the fields without a run in the order in which they would be taken now, and why each is not.

    What starts is told by the rule that starts it: a preview of this moment.

    Example: aglowctl candidates
    """
    shared.ask(client, as_json, render.candidates, "v1", "candidates")


@click.command()
@choose.several()
@shared.json_lines_option
@click.pass_obj
def show(client: Client, targets: tuple[str, ...], state: str | None, as_json: bool) -> None:
    """Show fields with their runs and all their steps.

    Example: aglowctl show P229+62
    """
    choose.show_each(client, targets, state, as_json, render.field)


@click.command()
@choose.several()
@click.option("--at", callback=past.is_time, metavar="TIME", help=f"What it would have said then: {past.TIME_HELP}")
@shared.json_lines_option
@click.pass_obj
def explain(client: Client, targets: tuple[str, ...], state: str | None, at: str | None, as_json: bool) -> None:
    """Say why fields wait: for what, since and until when, what was seen last, and what happens next.

    Example: aglowctl explain P229+62
    """
    choose.show_each(client, targets, state, as_json, render.explain, "explain", query=past.query(at=at))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def version(client: Client, as_json: bool) -> None:
    """Show the version of aglowctl and of the daemon, if it runs.

    Example: aglowctl version
    """
    daemon: str | None = None
    with shared.failing_well(), suppress(NotRunning):
        daemon = client.get("v1", "status")["version"]
    if as_json:
        click.echo(json.dumps({"schema": 1, "aglowctl": __version__, "aglowd": daemon}))
    else:
        click.echo(f"aglowctl {__version__}, aglowd {daemon or 'not running'}")
