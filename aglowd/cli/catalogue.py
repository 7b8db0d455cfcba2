"""`aglowctl add`, `import`, `export` and `release`: the catalogue of fields, by hand.

A file is read here, with the rights of whoever types the command; the catalogue itself is touched by the daemon alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from aglowd.cli import complete, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, clean
from aglowd.errors import AglowError

MAX_FILE_BYTES = 4_000_000
"""Of a fields file; the daemon takes a little more, as JSON needs."""
ASK_TIMEOUT_S = 90.0
"""Real seconds; the daemon gives the catalogue one minute."""


@click.command()
@click.argument("field")
@click.option("--target", default="", metavar="OBSID", help="The target observation, such as L229511; required.")
@click.option("--calibrator", default="", metavar="OBSID", help="Its calibrator's observation; required.")
@click.option("--status", default="", metavar="STATUS", help="Its status; without it the first that offers a field.")
@click.option("--site", default="", metavar="SITE", help="Where the data lie, if you know.")
@click.option("--priority", type=int, default=0, show_default=True, help="The larger, the sooner; below 0: not at all.")
@click.option("--field-priority", type=int, default=0, show_default=True, help="The same, among equals.")
@click.option("--target-freq-resolution", type=int, metavar="N", help="Channels per subband of the target.")
@click.option("--target-time-resolution", type=float, metavar="SECONDS", help="Time resolution of the target.")
@click.option("--target-subbands", type=int, metavar="N", help="Subbands of the target.")
@click.option("--calibrator-freq-resolution", type=int, metavar="N", help="Channels per subband of the calibrator.")
@click.option("--calibrator-time-resolution", type=float, metavar="SECONDS", help="Time resolution of the calibrator.")
@click.option("--calibrator-subbands", type=int, metavar="N", help="Subbands of the calibrator.")
@click.option("--baseline-filter", default="", metavar="TEXT", help="Baselines to leave out, as NDPPP writes them.")
@click.option("--demix-sources", default="", metavar="TEXT", help="Sources to demix.")
@shared.json_option
@click.pass_obj
def add(client: Client, /, field: str, as_json: bool, **values: str | float | None) -> None:
    """Add a field to aglowd's own catalogue (kind = "own"); it is offered at once.

    Example: aglowctl add P240+50 --target L229511 --calibrator L229507 --target-time-resolution 2.01
    """
    for needed in ("target", "calibrator"):
        if not values[needed]:
            raise click.UsageError(f"Missing option '--{needed}'.")
    given = {name: value for name, value in values.items() if value is not None}
    with shared.failing_well():
        answer = client.post("v1", "catalogue", timeout_s=ASK_TIMEOUT_S, name=field, **given)
        shared.show(answer, as_json, _added_page)


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@shared.json_option
@click.pass_obj
def import_fields(client: Client, file: Path, as_json: bool) -> None:
    """Add all fields of AGLOW's fields file to aglowd's own catalogue (kind = "own"), with their statuses, or none.

    Every line that is wrong is named.

    Example: aglowctl import fields.csv
    """
    with shared.failing_well():
        text = _read(file)
        answer = client.post("v1", "catalogue", "import", timeout_s=ASK_TIMEOUT_S, path=str(file), text=text)
        shared.show(answer, as_json, _added_page)


@click.command(name="export")
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer: one JSON object, with all it knows.")
@click.pass_obj
def export_fields(client: Client, as_json: bool) -> None:
    """Print the catalogue, whichever it is, as a fields file that AGLOW and `aglowctl import` read.

    Example: aglowctl export
    """
    with shared.failing_well():
        answer = client.get("v1", "catalogue", timeout_s=ASK_TIMEOUT_S)
    if as_json:
        click.echo(json.dumps({key: value for key, value in answer.items() if key != "csv"}))
    else:
        click.echo(answer["csv"], nl=False)


@click.command()
@click.argument("field", shell_complete=complete.fields)
@click.option("--to", default="", metavar="STATUS", help="Its new status; without it the one that it was offered as.")
@click.option(
    "--from", "status", default="", metavar="STATUS", help="Its status now, where that is not aglowd's own word."
)
@click.option(
    "--reason", default="", metavar="TEXT", help="Why, for the record; beside it stand your uid and the time."
)
@shared.json_option
@click.pass_obj
def release(client: Client, field: str, to: str, status: str, reason: str, as_json: bool) -> None:
    """Give a field back, so that it is on offer again: for aglowd, and for whoever else reads the catalogue.

    Its run must have ended. A status that somebody else has set is overwritten only if you name it.

    Example: aglowctl release P165+57 --from RRR --reason "the disk at SARA is repaired"
    """
    with shared.failing_well():
        answer = client.post(
            "v1", "fields", field, "release", timeout_s=ASK_TIMEOUT_S, to=to, status=status, reason=reason
        )
        shared.show(answer, as_json, _released_page)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise AglowError(f"{path}: the file is longer than {MAX_FILE_BYTES} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AglowError(f"{path}: the fields file cannot be read: {why}; expected AGLOW's CSV") from error


def _added_page(answer: Answer) -> Page:
    names = answer["added"]
    return [f"{clean(names[0])} was added"] if len(names) == 1 else [f"{len(names)} fields were added"]


def _released_page(answer: Answer) -> Page:
    field, run = clean(answer["field"]), answer["run"]
    return [
        f"{field}: from {clean(answer['from'])} to {clean(answer['to'])}, run {run} has begun; "
        f"how it goes: aglowctl explain release/{field}"
    ]
