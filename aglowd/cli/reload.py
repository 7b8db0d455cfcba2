"""How a person has the configuration read anew: `aglowctl reload`."""

from __future__ import annotations

import json
from typing import Any

import click

from aglowd.cli import shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, clean

RELOAD_TIMEOUT_S = 90.0
PIPELINES = {"added": "is new", "changed": "is another one for new runs", "removed": "is gone: no run begins with it"}


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option(
    "--reason", default="", metavar="TEXT", help="Why, for the record; beside it stand your uid and the time."
)
@shared.json_option
@click.pass_obj
def reload(client: Client, dry_run: bool, reason: str, as_json: bool) -> None:
    """Have aglowd read its configuration, drop-ins and pipelines anew, and show what is another.

    Most limits, intervals and messages change at once; what needs a restart is named. If anything is wrong, all of it is
    told, the old configuration stays, and the exit code is 1.

    Example: aglowctl reload --dry-run
    """
    with shared.failing_well():
        answer = client.post("v1", "reload", timeout_s=RELOAD_TIMEOUT_S, reason=reason, dry_run=dry_run)
        shared.show(answer, as_json, _page)


def _page(answer: Answer) -> Page:
    page: Page = [
        f"{clean(one['key'])}: {_value(one['old'])} → {_value(one['new'])}{' (needs a restart)' * one['restart']}"
        for one in answer["changes"]
    ]
    for how, names in answer["pipelines"].items():
        page += [f"pipeline {clean(name)} {PIPELINES[how]}" for name in names]
    if not page:
        return ["nothing has changed"]
    return page if answer["done"] else [*page, "nothing was changed: this was a dry run"]


def _value(value: Any) -> str:
    return "not set" if value is None else clean(json.dumps(value, ensure_ascii=False))
