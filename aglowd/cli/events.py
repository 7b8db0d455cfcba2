"""`aglowctl events`: what happened, and what happens."""

from __future__ import annotations

import json

import click

from aglowd.cli import complete, past, render, shared
from aglowd.cli.client import Client, NotRunning

EVENTS_AT_ONCE = 1000
"""As many events are asked for in one go where all are wanted."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is committed from now on, until Ctrl-C.")
@click.option(
    "--since",
    callback=past.is_time_or_number,
    metavar="TIME|ID",
    help=f"Only events after that time, or after the one with that number. {past.TIME_HELP}",
)
@click.option("--until", callback=past.is_time, metavar="TIME", help="Only events up to that time.")
@click.option("--field", metavar="FIELD", shell_complete=complete.fields, help="Only events of this field.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, such as RunEnded; may come several times.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), help="At most so many old events; without it 50, with --since all."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def events(
    client: Client,
    follow: bool,
    since: str | None,
    until: str | None,
    field: str | None,
    kinds: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what happened, the oldest first; without --since the latest.

    Example: aglowctl events --since 3d --field P229+62
    """
    page = limit or (EVENTS_AT_ONCE if since is not None else 50)
    given = {"since": since, "until": until, "field": field}
    query: list[tuple[str, str | int]] = [("limit", page), ("follow", int(follow)), *(("kind", kind) for kind in kinds)]
    query += [(name, value) for name, value in given.items() if value is not None]
    try:
        with shared.failing_well():
            while True:
                last, count = "", 0
                for line in client.stream("v1", "events", query=query):
                    click.echo(line if as_json else render.event(json.loads(line)))
                    last, count = line, count + 1
                if follow or since is None or limit is not None or count < page:
                    break
                query = [("since", json.loads(last)["id"]), *(one for one in query if one[0] != "since")]
            if follow:
                raise NotRunning("aglowd has stopped; start the command again when it is back")
    except KeyboardInterrupt:
        return  # This is how one stops following.
