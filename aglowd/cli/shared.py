"""What the commands of `aglowctl` have in common: how they ask, how they show the answer, how they fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, ClassVar, TypeVar

import click

from aglowd.cli import exits, render
from aglowd.cli.client import Client, NotPermitted, NotRunning
from aglowd.errors import AglowError

FIRST = 5
"""Names in a question that is asked on the screen."""

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends the command with a message on stderr."""

    exit_code: ClassVar[int] = exits.ERROR

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"aglowctl: {self.message}", err=True)


class DaemonNotRunning(Failure):
    """There is nobody to ask."""

    exit_code: ClassVar[int] = exits.NOT_RUNNING


class Refused(Failure):
    """Who asks may not."""

    exit_code: ClassVar[int] = exits.NOT_PERMITTED


def first_of(names: Sequence[str]) -> str:
    """What is asked about: all of them, or the first and how many more."""
    told = render.clean(", ".join(names[:FIRST]))
    return f"{told} and {len(names) - FIRST} more" if len(names) > FIRST else told


def set_example_apart(command: click.Command) -> None:
    """Make of the example that ends the command's docstring its epilog, where its words are left in their lines."""
    text, mark, example = (command.help or "").rpartition("Example: ")
    if mark:
        command.help, command.epilog = text.rstrip(), f"\b\n{mark}{example.strip()}"


def set_examples_apart(command: click.Command) -> None:
    """The same of a command and of all that stand below it."""
    set_example_apart(command)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            set_examples_apart(inner)


@contextmanager
def failing_well() -> Iterator[None]:
    try:
        yield
    except NotRunning as error:
        raise DaemonNotRunning(str(error)) from error
    except NotPermitted as error:
        raise Refused(str(error)) from error
    except AglowError as error:
        raise Failure(str(error)) from error


def ask(client: Client, as_json: bool, page: Callable[[dict[str, Any]], render.Page], *parts: str) -> None:
    with failing_well():
        show(client.get(*parts), as_json, page)


def show(answer: dict[str, Any], as_json: bool, page: Callable[[dict[str, Any]], render.Page]) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    else:
        render.show(page(answer))


def order(
    client: Client,
    verb: str,
    values: Mapping[str, Any],
    page: Callable[[dict[str, Any]], render.Page],
    question: Callable[[dict[str, Any]], str],
    *,
    timeout_s: float,
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what the order would change, ask, and have that done and nothing else: it carries the version of what was shown."""
    version = ""
    with failing_well():
        if dry_run or not yes:
            plan = client.post("v1", verb, timeout_s=timeout_s, **values, dry_run=True)
            version = plan["version"]
            if dry_run or not as_json:
                show(plan, as_json, page)
            if dry_run:
                return
            click.confirm(question(plan), abort=True, err=True)
        show(client.post("v1", verb, timeout_s=timeout_s, **values, reason=reason, version=version), as_json, page)


def order_options(command: F) -> F:
    """The options of a command that changes something and shows first what."""
    for option in (
        json_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing."),
        click.option(
            "--reason", default="", metavar="TEXT", help="Why, for the record; beside it stand your uid and the time."
        ),
    ):
        command = option(command)
    return command


def json_lines_option(command: F) -> F:
    """As `json_option`, where the daemon is asked about each of several."""
    return click.option("--json", "as_json", is_flag=True, help="Print the daemon's answers: a JSON object a line.")(
        command
    )


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer: one JSON object.")(command)
