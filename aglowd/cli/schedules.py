"""`aglowctl schedules`: what runs by itself, when next, and how it went last."""

from __future__ import annotations

import click

from aglowd.cli import shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table, clean, since, until


@click.command()
@shared.json_option
@click.pass_obj
def schedules(client: Client, as_json: bool) -> None:
    """List the pipelines that run by themselves: when next, and how the last run went.

    Example: aglowctl schedules
    """
    shared.ask(client, as_json, _page, "v1", "schedules")


def _page(answer: Answer) -> Page:
    if not answer["schedules"]:
        return ["no schedules: no pipeline file has an enabled [schedule]"]
    return [
        Table(
            ("pipeline", "rule", "next", "last run", "state", ""),
            [_row(answer["now"], one) for one in answer["schedules"]],
        )
    ]


def _row(now: float, one: Answer) -> tuple[str, ...]:
    when = until(now, one["next"]) if one["next"] > now or one["state"] != "running" else "when the last run has ended"
    told = clean(one["reason"] or "") or since(now, one["ended"] or one["begun"])
    return clean(one["pipeline"]), clean(one["rule"]), when, clean(one["run"]) or "-", one["state"] or "-", told
