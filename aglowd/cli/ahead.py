"""The command about what will be: timers, limits, and who is queued behind whom."""

from __future__ import annotations

from typing import Any

import click

from aglowd.cli import shared
from aglowd.cli.client import Client
from aglowd.cli.past import query
from aglowd.cli.render import Answer, Page, Table, clean, iso, until
from aglowd.durations import duration_text
from aglowd.sizes import size_text

MAX_QUEUE = 10
"""Of a longer queue only the first are shown; --json has all."""


@click.command(name="next")
@click.option("--within", default="1h", show_default=True, metavar="DURATION", help="How far to look ahead.")
@shared.json_option
@click.pass_obj
def ahead(client: Client, within: str, as_json: bool) -> None:
    """Show what happens next by itself, what is left of every limit, and who is queued behind whom.

    Example: aglowctl next --within 6h
    """
    with shared.failing_well():
        shared.show(client.get("v1", "next", query=query(within=within)), as_json, page_of)


def page_of(answer: Answer) -> Page:
    """Timers, limits, queues."""
    now = answer["now"]
    page: Page = [f"now {iso(now)}; until {iso(answer['until'])}"]
    rows = [
        (
            until(now, timer["at"]),
            clean(timer["field"] or "-"),
            clean(timer["effect"] if timer.get("effect") else timer["step"] or timer["run"]),
            clean(timer["does"]),
            clean(timer["reason"]),
        )
        for timer in answer["timers"]
    ]
    page += (
        ["", Table(("when", "field", "step or effect", "what it does", "reason"), rows)] if rows else ["no timer fires"]
    )
    if answer["left_out"]:
        page.append(f"... and {answer['left_out']} more; --within shows less")
    limits = [
        (clean(one["what"]), clean(one["name"] or "all"), *_numbers(one), str(len(one["queue"]) or ""))
        for one in answer["limits"]
        if one["used"] or one["queue"] or one["limit"] is not None
    ]
    page += ["", Table(("limit", "of", "used", "at most", "left", "queue"), limits)]
    for one in answer["limits"]:
        if one["queue"]:
            page += [
                "",
                f"waiting for {clean(one['what'])}{' of ' if one['name'] else ''}{clean(one['name'])}, next first:",
            ]
            page += [f"  {number}. {_waiter(now, who)}" for number, who in enumerate(one["queue"][:MAX_QUEUE], 1)]
            if len(one["queue"]) > MAX_QUEUE:
                page.append(f"  ... and {len(one['queue']) - MAX_QUEUE} more")
    return page


def _numbers(one: Answer) -> tuple[str, str, str]:
    text = size_text if one["what"] == "bytes" else str
    if one["limit"] is None:
        return text(one["used"]), "no limit", ""
    return text(one["used"]), text(one["limit"]), text(max(0, one["limit"] - one["used"]))


def _waiter(now: float, who: dict[str, Any]) -> str:
    name = clean(who["field"]) if "run" not in who else clean(f"{who['run']}/{who['step']}")
    wants = f", wants {who['wants']}" if who.get("wants") else ""
    since = f", for {duration_text(max(0.0, now - who['since']))}" if who.get("since") is not None else ""
    why = clean(who.get("why", ""))
    return f"{name}{wants}{since}{': ' if why else ''}{why}"
