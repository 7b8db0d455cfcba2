"""`aglowctl approve`, `reject` and `provenance`: what an operator says of results, and what they were made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import click

from aglowd.cli import complete, render, shared
from aglowd.cli.client import Client

VERDICTS = ("good", "moderate", "poor")

F = TypeVar("F", bound=Callable[..., Any])


def _verdict_options(default: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        command = click.option(
            "--reason",
            default="",
            metavar="TEXT",
            help="Why, for the record; beside it stand your uid and the time.",
        )(command)
        command = click.option(
            "--verdict", type=click.Choice(VERDICTS), default=default, show_default=True, help="How good it is."
        )(command)
        command = click.argument("step", default="", shell_complete=complete.steps_of("field"))(command)
        return click.argument("field", shell_complete=complete.fields)(command)

    return decorate


def _judge(client: Client, field: str, step: str, verdict: str, reason: str, *, approved: bool) -> None:
    if not reason.strip():
        raise click.UsageError("say why, for the record: --reason TEXT")
    with shared.failing_well():
        answer = client.post(
            "v1", "fields", field, "verdict", approved=approved, verdict=verdict, reason=reason, step=step
        )
    said = "approved" if approved else "rejected"
    click.echo(f"{render.clean(answer['step'])} of {render.clean(answer['run'])}: {said} as {answer['verdict']}")


@click.command()
@_verdict_options("good")
@click.pass_obj
def approve(client: Client, field: str, step: str, verdict: str, reason: str) -> None:
    """Let a field, or a run, go on that waits for your verdict; STEP is needed if several of its steps do.

    Example: aglowctl approve P229+62 --verdict moderate --reason "ionosphere active, still usable"
    """
    _judge(client, field, step, verdict, reason, approved=True)


@click.command()
@_verdict_options("poor")
@click.pass_obj
def reject(client: Client, field: str, step: str, verdict: str, reason: str) -> None:
    """Say that a field, or a run, must not go on: the step that waits for your verdict fails for good.

    Example: aglowctl reject P205+55 inspect --reason "half of the stations are missing"
    """
    _judge(client, field, step, verdict, reason, approved=False)


@click.command()
@click.argument("field", shell_complete=complete.fields)
@shared.json_option
@click.pass_obj
def provenance(client: Client, field: str, as_json: bool) -> None:
    """Show what the results of a field, or of a run, were made of, how, by whom and when, as far as it has come.

    Example: aglowctl provenance P229+62 --json
    """
    shared.ask(client, as_json, _page, "v1", "provenance", field)


def _page(answer: dict[str, Any]) -> render.Page:
    """The record on a screen: what is long is counted."""
    record, clean = answer["provenance"], render.clean
    versions = record["versions"]
    page: render.Page = [
        f"{clean(record['field'])}: {record['state']}, run {clean(record['run'])}; as it stands {record['made']}",
        f"aglowd {versions['aglowd']}, GRID_LRT {versions['grid_lrt']}",
        "",
    ]
    rows: list[tuple[str, ...]] = [
        (clean(run["id"]), f"{clean(run['pipeline'])} {run['pipeline_digest']}", run["state"], run["begun"], run["ended"] or "-",
         clean(run["used_by"]))
        for run in record["runs"]
    ]  # fmt: skip
    page.append(render.Table(("run", "pipeline", "state", "begun", "ended", "used by"), rows))
    known = sum(None not in (one["size_bytes"], one["adler32"]) for one in record["inputs"])
    page += [
        "",
        f"inputs    {_counted(record['inputs'])}; of {known} size and checksum are known",
        f"tokens    {_counted(record['tokens'])}; {sum(one['scrubs'] or 0 for one in record['tokens'])} times given back",
        f"jobs      {_counted(record['jobs'])}",
    ]
    for one in record["software"]:
        page.append(f"software  {clean(one['token_type'])}: {clean(one['container'])}, sandbox {clean(one['sandbox'])}")
    page += [
        f"parset    {clean(one['step'])} of {clean(one['run'])}: sha256 {one['sha256']}" for one in record["parsets"]
    ]
    missing = record["missing"]
    for one in missing["subbands"]:
        page.append(f"missing   {len(one['subbands'])} subbands of {clean(one['obsid'])} are in no list")
    for key, what in (("not_staged", "were not online"), ("excluded", "were excluded"), ("failed_tokens", "failed")):
        page += [f"missing   {clean(name)} ({what})" for name in missing[key]]
    if missing["flagged_baselines"]:
        page.append(f"missing   baselines {clean(missing['flagged_baselines'])} (were flagged)")
    for one in record["approvals"]:
        said = "approved" if one["approved"] else "rejected"
        page.append(
            f"verdict   {clean(one['step'])} {said} as {one['verdict']} by uid {one['uid']} at {one['at']}: {clean(one['reason'])}"
        )
    files = [*record["archived"], *record["token_archives"]]
    if files:
        rows = [(clean(one["url"]), str(one["size_bytes"]), one["adler32"]) for one in files]
        page += ["", render.Table(("archived", "bytes", "adler32"), rows)]
    return page


def _counted(entries: list[dict[str, Any]]) -> str:
    """How many there are in each state."""
    return render.counts(Counter(render.clean(one["state"] or "not seen") for one in entries))
