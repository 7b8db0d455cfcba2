"""`aglowctl schema`: what the answers hold, as JSON Schemas, for whoever writes a program that reads them."""

from __future__ import annotations

import json

import click

from aglowd.cli import shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table
from aglowd.errors import AglowError


@click.command()
@click.argument("command", nargs=-1, metavar="[COMMAND]...")
@shared.json_option
@click.pass_obj
def schema(client: Client, command: tuple[str, ...], as_json: bool) -> None:
    """Print the JSON Schema of what `aglowctl COMMAND --json` prints; without COMMAND list all schemas by their names.

    COMMAND may also be the name of a schema, such as that of an answer that no command prints.

    Example: aglowctl schema tokens list
    """
    with shared.failing_well():
        answer = client.get("v1", "schema")
        if not command:
            shared.show(answer, as_json, _page)
            return
        text = "".join(client.stream("v1", "schema", _name_of(" ".join(command), answer)))
    click.echo(text if as_json else json.dumps(json.loads(text), indent=2, ensure_ascii=False))


def _name_of(asked: str, answer: Answer) -> str:
    """The name of the schema that is meant: a command goes before a name."""
    listed = answer["schemas"]
    found = [one["name"] for one in listed if asked in one["commands"]]
    found += [one["name"] for one in listed if asked == one["name"]]
    if not found:
        raise AglowError(f"{asked[:80]!r} prints no JSON, and no schema is called so; aglowctl schema lists all")
    return str(found[0])


def _page(answer: Answer) -> Page:
    rows = [(one["name"], ", ".join(one["commands"]), ", ".join(one["routes"])) for one in answer["schemas"]]
    return [Table(("schema", "aglowctl … --json", "routes"), rows)]
