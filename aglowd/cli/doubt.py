"""`aglowctl doubt`: what nobody can tell of effects, and what an operator says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from aglowd.cli import render, shared
from aglowd.cli.client import Client

F = TypeVar("F", bound=Callable[..., Any])


@click.group(invoke_without_command=True)
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
