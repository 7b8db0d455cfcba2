"""`aglowctl adopt`: take fields over that AGLOW, or an aglowd that is gone for good, has begun."""

from __future__ import annotations

from typing import Any

import click

from aglowd.cli import choose, complete, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, clean

ADOPT_TIMEOUT_S = 600.0


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{option} {text}: expected NAME=VALUE")
        found[name] = value
    return found


@click.command("adopt")
@click.argument("targets", nargs=-1, metavar="[FIELD]...", shell_complete=complete.fields)
@click.option("--status", default="", metavar="WORD", help="Only fields in this status; without a name, all that are.")
@click.option(
    "--given", multiple=True, metavar="NAME=VALUE", help="What the pipeline cannot know; {{ field.NAME }} is filled in."
)
@click.option(
    "--tokens", multiple=True, metavar="STEP=TYPE", help="Go on with the tokens of that type; {{ field.NAME }} too."
)
@click.option(
    "--site", default="", metavar="SITE", help="Where these tokens are worked on, if the catalogue does not say."
)
@click.option("--of", default="", metavar="DAEMON", help="Those that this aglowd holds, which is gone for good.")
@shared.order_options
@click.pass_obj
def adopt_fields(
    client: Client,
    /,
    targets: tuple[str, ...],
    status: str,
    given: tuple[str, ...],
    tokens: tuple[str, ...],
    site: str,
    of: str,
    **how: Any,
) -> None:
    """Take fields over that AGLOW has begun, where it left off: stop AGLOW's own work on them first.

    How far it has come is what the catalogue says; what is done by then, the pipeline's [adopt] tables say. Staging requests of
    AGLOW's for just these files are taken over, too. Names may be patterns. The way back: aglowctl cancel.

    Example: aglowctl adopt 'P2*' --status AAA --reason "AGLOW is stopped" --yes
    """
    choose.check_names(targets)
    if not targets and not status:
        raise click.UsageError("name a FIELD or a pattern, or a --status; aglowctl fields lists what there is")
    values: dict[str, Any] = {
        "targets": list(targets),
        "status": status,
        "given": _pairs("--given", given),
        "tokens": _pairs("--tokens", tokens),
        "site": site,
        "of": of,
    }

    def question(plan: Answer) -> str:
        return f"Take over {shared.first_of([one['field'] for one in plan['fields']])}?"

    shared.order(client, "adopt", values, _page, question, timeout_s=ADOPT_TIMEOUT_S, **how)


def _page(answer: Answer) -> Page:
    page: Page = []
    for one in answer["fields"]:
        verb = "is taken over" if answer["done"] else "would be taken over"
        page.append(f"{clean(one['field'])} at {clean(one['status'])} {verb} by {clean(one['run'])}")
        for step, tokens in one["tokens"].items():
            page.append(f"  {clean(step)} goes on with {tokens['count']} tokens of {clean(tokens['token_type'])}")
        page.append(f"  done already: {clean(', '.join(one['steps'])) or 'nothing'}")
    return [*page, *(f"{clean(field)} is left alone: {clean(why)}" for field, why in answer["left"].items())]
