"""`aglowctl`: what the operator asks the daemon. How it ends, says `exits`.

What must stay true: a command answers in a blink, and so does Tab. Only the module of the command that is asked for is imported,
and no module of a command imports at its head what takes long to load.
"""

from __future__ import annotations

import click

from aglowd.cli import shared
from aglowd.cli.client import Client
from aglowd.cli.lazy import Commands

DEFAULT_SOCKET = "/run/aglowd/aglowd.sock"
COMMANDS = {
    "status": "aglowd.cli.now:status",
    "fields": "aglowd.cli.now:fields",
    "candidates": "aglowd.cli.now:candidates",
    "show": "aglowd.cli.now:show",
    "explain": "aglowd.cli.now:explain",
    "events": "aglowd.cli.events:events",
    "doubt": "aglowd.cli.doubt:doubt",
    "backup": "aglowd.cli.upkeep:backup",
    "version": "aglowd.cli.now:version",
    "history": "aglowd.cli.past:history",
    "trace": "aglowd.cli.past:trace",
    "diff": "aglowd.cli.past:diff",
    "next": "aglowd.cli.ahead:ahead",
    "stage": "aglowd.cli.lists:stage",
    "locality": "aglowd.cli.lists:locality",
    "tokens": "aglowd.cli.jobs:tokens",
    "jobs": "aglowd.cli.jobs:jobs",
    "cancel": "aglowd.cli.steer:cancel",
    "retry": "aglowd.cli.steer:retry",
    "skip": "aglowd.cli.steer:skip",
    "done": "aglowd.cli.steer:done",
    "pause": "aglowd.cli.hold:pause",
    "drain": "aglowd.cli.hold:drain",
    "resume": "aglowd.cli.hold:resume",
    "run": "aglowd.cli.steer:run",
    "forget": "aglowd.cli.upkeep:forget",
    "verify": "aglowd.cli.upkeep:verify",
    "doctor": "aglowd.cli.upkeep:doctor",
    "report": "aglowd.cli.report:report",
    "adopt": "aglowd.cli.adoption:adopt_fields",
    "reload": "aglowd.cli.reload:reload",
    "schedules": "aglowd.cli.schedules:schedules",
    "approve": "aglowd.cli.quality:approve",
    "reject": "aglowd.cli.quality:reject",
    "provenance": "aglowd.cli.quality:provenance",
    "add": "aglowd.cli.catalogue:add",
    "import": "aglowd.cli.catalogue:import_fields",
    "export": "aglowd.cli.catalogue:export_fields",
    "release": "aglowd.cli.catalogue:release",
    "metrics": "aglowd.cli.metrics:metrics",
    "logs": "aglowd.cli.logs:logs",
    "schema": "aglowd.cli.schema:schema",
    "wait": "aglowd.cli.wait:wait",
    "watch": "aglowd.cli.watch:watch",
    "help": "aglowd.cli.topics:help_",
}
"""Where each command stands."""


@click.group(
    commands=Commands(COMMANDS), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
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


shared.set_example_apart(main)
