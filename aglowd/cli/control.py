"""`aglowctl`: what the operator asks the daemon. How it ends, says `exits`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from aglowd import __version__
from aglowd.cli import (
    adoption,
    ahead,
    catalogue,
    choose,
    complete,
    hold,
    jobs,
    lists,
    logs,
    metrics,
    past,
    quality,
    reload,
    render,
    report,
    schedules,
    schema,
    shared,
    steer,
    topics,
    upkeep,
    wait,
    watch,
)
from aglowd.cli.client import Client, NotRunning

DEFAULT_SOCKET = "/run/aglowd/aglowd.sock"
BACKUP_TIMEOUT_S = 3600.0
EVENTS_AT_ONCE = 1000
"""As many events are asked for in one go where all are wanted."""

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--socket",
    "path",
    metavar="PATH",
    envvar="AGLOWD_SOCKET",
    show_envvar=True,
    default=DEFAULT_SOCKET,
    show_default=True,
    help="The control socket.",
)
@click.pass_context
def main(context: click.Context, path: str) -> None:
    """Ask aglowd how the fields are and why they wait.

    Exit codes: 0 ok, 1 error, 2 wrong usage, 3 aglowd is not running, 4 you may not; of waiting also 5 and 8 (aglowctl help
    exit-codes).

    Example: aglowctl explain P229+62
    """
    context.obj = Client(path)


@main.command()
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
    with suppress(KeyboardInterrupt), shared.failing_well():
        watch.repeat(client, render.status, every_s, as_json, "v1", "status")


@main.command()
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


@main.command()
@shared.json_option
@click.pass_obj
def candidates(client: Client, as_json: bool) -> None:
    """List the fields without a run in the order in which they would be taken now, and why each is not.

    What starts is told by the rule that starts it: a preview of this moment.

    Example: aglowctl candidates
    """
    shared.ask(client, as_json, render.candidates, "v1", "candidates")


@main.command()
@choose.several()
@shared.json_lines_option
@click.pass_obj
def show(client: Client, targets: tuple[str, ...], state: str | None, as_json: bool) -> None:
    """Show fields with their runs and all their steps.

    Example: aglowctl show P229+62
    """
    choose.show_each(client, targets, state, as_json, render.field)


@main.command()
@choose.several()
@click.option("--at", callback=past.is_time, metavar="TIME", help=f"What it would have said then: {past.TIME_HELP}")
@shared.json_lines_option
@click.pass_obj
def explain(client: Client, targets: tuple[str, ...], state: str | None, at: str | None, as_json: bool) -> None:
    """Say why fields wait: for what, since and until when, what was seen last, and what happens next.

    Example: aglowctl explain P229+62
    """
    choose.show_each(client, targets, state, as_json, render.explain, "explain", query=past.query(at=at))


@main.command()
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


@main.group(invoke_without_command=True)
@shared.json_option
@click.pass_context
def doubt(context: click.Context, as_json: bool) -> None:
    """List effects whose outcome cannot be told, and what the audit found; with a verdict, settle one.

    Example: aglowctl doubt
    """
    if context.invoked_subcommand is None:
        shared.ask(context.obj, as_json, render.doubts, "v1", "doubt")


def _reason_option(command: F) -> F:
    return click.option(
        "--reason", default="", metavar="TEXT", help="Why, for the record; beside it stand your uid and the time."
    )(command)


def _settle(client: Client, action: str, key: str, reason: str, ref: str = "") -> None:
    with shared.failing_well():
        answer = client.post("v1", "doubt", key=key, action=action, ref=ref, reason=reason or "no reason given")
    click.echo(f"{answer['key']}: {answer['said']}")


@doubt.command()
@click.argument("key")
@click.argument("ref")
@_reason_option
@click.pass_obj
def adopt(client: Client, key: str, ref: str, reason: str) -> None:
    """Say that it happened, and what it is called there: a staging request's number, a job's id.

    Example: aglowctl doubt adopt P229_62-1/calibrator_stage/1/stage_files/0 18755 --reason "seen on the LTA's web page"
    """
    _settle(client, "adopt", key, reason, ref)


@doubt.command()
@click.argument("key")
@_reason_option
@click.pass_obj
def retry(client: Client, key: str, reason: str) -> None:
    """Say that it did not happen: it is done again, under the same key and without another look.

    Example: aglowctl doubt retry P229_62-1/target_stage/1/stage_files/0 --reason "ASTRON says it never arrived"
    """
    _settle(client, "retry", key, reason)


@doubt.command()
@click.argument("key")
@_reason_option
@click.pass_obj
def forget(client: Client, key: str, reason: str) -> None:
    """Give an effect up, as if it had been refused; or mark a finding of the audit as seen to.

    Example: aglowctl doubt forget P229_62-1/notify/1/run_command/0 --reason "the mail is no longer wanted"
    """
    _settle(client, "forget", key, reason)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an older backup of that name.")
@shared.json_option
@click.pass_obj
def backup(client: Client, file: Path, force: bool, as_json: bool) -> None:
    """Copy the database to FILE while aglowd works, and check the copy; the daemon's user writes it.

    Example: aglowctl backup /backup/aglowd.db
    """
    target = str(Path.cwd() / file)
    with shared.failing_well():
        shared.show(
            client.post("v1", "backup", timeout_s=BACKUP_TIMEOUT_S, path=target, replace=force), as_json, render.backup
        )


@main.command()
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


for command in (*past.COMMANDS, ahead.ahead):
    main.add_command(command)
main.add_command(lists.stage)
main.add_command(lists.locality)
main.add_command(jobs.tokens)
main.add_command(jobs.jobs)
for command in (*steer.COMMANDS, hold.pause, hold.drain, hold.resume, *upkeep.COMMANDS):
    main.add_command(command)
main.add_command(report.report)
main.add_command(adoption.adopt_fields)
main.add_command(reload.reload)
main.add_command(schedules.schedules)
main.add_command(quality.approve)
main.add_command(quality.reject)
main.add_command(quality.provenance)
main.add_command(catalogue.add)
main.add_command(catalogue.import_fields)
main.add_command(catalogue.export_fields)
main.add_command(catalogue.release)
main.add_command(metrics.metrics)
main.add_command(logs.logs)
main.add_command(schema.schema)
main.add_command(wait.wait)
main.add_command(watch.watch)
main.add_command(topics.help_)
shared.set_examples_apart(main)
