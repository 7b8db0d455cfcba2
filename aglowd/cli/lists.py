"""`aglowctl stage` and `aglowctl locality`: staging without a pipeline of one's own, and where the files of a list are.

The list is read here, with the rights of whoever types the command, and sent to the daemon, which may not see the file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from aglowd.cli import exits, shared
from aglowd.cli.client import SCHEMA, Client
from aglowd.cli.render import Answer, Page, Table, clean, iso, since
from aglowd.errors import AglowError

MAX_LIST_BYTES = 4_000_000
"""Of a list; the daemon takes a little more, as JSON needs."""
ORDER_TIMEOUT_S = 120.0
"""Real seconds; the daemon gives each site one minute to say where its files are."""
LOOK_REAL_S = 1.0
PATIENCE_REAL_S = 60.0
"""Real seconds for which a command that waits is patient with a daemon that does not answer: it may be restarted."""
PREFIX = "stage/"
Entry = dict[str, Any]


@click.command()
@click.argument("srmlist", required=False)
@click.option("--site", default="", metavar="SITE", help="Only the list's files at this site.")
@click.option("--wait", is_flag=True, help="Wait until all files are online, or it is known that they will not be.")
@click.option("--status", "is_status", is_flag=True, help="Show how the staging SRMLIST goes; without a name, all.")
@shared.json_option
@click.pass_obj
def stage(client: Client, srmlist: str | None, site: str, wait: bool, is_status: bool, as_json: bool) -> None:
    """Bring the files of a list online, whatever they are for: one SURL a line, of any observations.

    The staging is called as the list's file without its extension. A list that is being staged already is not asked for
    again. With --wait, exit codes: 0 all files are online, 1 some are not.

    Example: aglowctl stage srm229511.txt
    """
    if is_status and (site or wait):
        raise click.UsageError("--status goes with neither --site nor --wait")
    if is_status:
        with shared.failing_well():
            if srmlist is None:
                shared.show(client.get("v1", "stage"), as_json, _all_page)
            else:
                shared.show(client.get("v1", "stage", srmlist.removeprefix(PREFIX)), as_json, _one_page)
        return
    if srmlist is None:
        raise click.UsageError("Missing argument 'SRMLIST'.")
    with shared.failing_well():
        try:
            ordered = _order(client, "stage", srmlist, site)
            if not wait:
                shared.show(ordered, as_json, _ordered_page)
                return
            ended = _wait(client, [one["name"] for one in ordered["stagings"]])
        except KeyboardInterrupt:
            raise AglowError(
                "nobody waits any more; a staging that has begun goes on: aglowctl stage --status"
            ) from None
        shared.show(ended, as_json, _ended_page)
    if not all(entry["state"] == "done" and entry["online"] == entry["files"] for entry in ended["stagings"]):
        sys.exit(exits.ERROR)


@click.command()
@click.argument("srmlist")
@click.option("--site", default="", metavar="SITE", help="Only the list's files at this site.")
@shared.json_option
@click.pass_obj
def locality(client: Client, srmlist: str, site: str, as_json: bool) -> None:
    """Show where each file of a list is (ONLINE, NEARLINE = on tape, LOST, …), and how many are online.

    Nothing is staged. Exit codes: 0 every file was asked for, 1 not.

    Example: aglowctl locality srm229511.txt
    """
    with shared.failing_well():
        answer = _order(client, "locality", srmlist, site)
        shared.show(answer, as_json, _locality_page)
        if answer["unanswered"]:
            reasons = "; ".join(f"{clean(name)}: {clean(why)}" for name, why in answer["unanswered"].items())
            rest = answer["asked"] - len(answer["files"])
            raise AglowError(f"of {rest} of {answer['asked']} files nothing is known: {reasons}")


def _order(client: Client, what: str, path: str, site: str) -> dict[str, Any]:
    return client.post("v1", what, timeout_s=ORDER_TIMEOUT_S, path=path, text=_read(path), site=site)


def _read(path: str) -> str:
    """The list's text; AglowError if it is none."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise AglowError(f"{path}: the list is longer than {MAX_LIST_BYTES} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AglowError(
            f"{path}: the list cannot be read: {why}; expected a text file with one SURL a line"
        ) from error


def _wait(client: Client, names: Sequence[str]) -> dict[str, Any]:
    """How the stagings have ended, as one answer."""
    answered = time.monotonic()
    with _bars() as show:
        while True:
            try:
                answers = [client.get("v1", "stage", name) for name in names]
            except AglowError:
                if time.monotonic() - answered > PATIENCE_REAL_S:
                    raise
            else:
                answered = time.monotonic()
                entries: list[Entry] = [answer["staging"] for answer in answers]
                show(entries)
                if all(entry["state"] != "running" for entry in entries):
                    return {"schema": SCHEMA, "now": answers[-1]["now"], "stagings": entries}
            time.sleep(LOOK_REAL_S)


@contextmanager
def _bars() -> Iterator[Callable[[list[Entry]], None]]:
    """A bar for each staging on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda entries: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def show(entries: list[Entry]) -> None:
            for entry in entries:
                if entry["run"] not in tasks:
                    tasks[entry["run"]] = progress.add_task("", total=entry["files"], name=clean(entry["field"]))
                what = clean(entry["reason"]) if entry["reason"] else entry["state"]
                progress.update(tasks[entry["run"]], completed=entry["online"], description=what)

        yield show


# --- pages


def share(part: int, whole: int) -> str:
    """`188 of 244 (77.0 %)`; never 100.0 as long as one is missing."""
    percent = 100.0 if part == whole else min(99.9, 100.0 * part / whole)
    return f"{part} of {whole} ({percent:.1f} %)"


def _places(counts: Mapping[str, int]) -> str:
    others = [f"{count} {clean(place)}" for place, count in sorted(counts.items()) if place != "ONLINE" and count]
    return f"; {', '.join(others)}" if others else ""


def _ordered_page(answer: Answer) -> Page:
    page: Page = []
    for one in answer["stagings"]:
        begun = "is under way already" if one["joined"] else "has begun"
        page.append(f"{clean(one['field'])}: {one['files']} files at {clean(one['site'])}, run {one['run']} {begun}")
    return [*page, "how it goes: aglowctl stage --status; why it waits: aglowctl explain stage/NAME"]


def _ended_page(answer: Answer) -> Page:
    return [line for entry in answer["stagings"] for line in _entry(answer["now"], entry)]


def _one_page(answer: Answer) -> Page:
    return list(_entry(answer["now"], answer["staging"]))


def _entry(now: float, entry: Answer) -> Iterator[str]:
    yield f"{clean(entry['field'])}: {entry['state']}, run {entry['run']}, {since(now, entry['since'])}"
    yield f"  online   {share(entry['online'], entry['files'])} at {clean(entry['site'])}{_places(entry['counts'])}"
    if entry["reason"]:
        yield f"  why      {clean(entry['reason'])}"
    if entry["pinned_until"] is not None:
        yield f"  pinned   at least until {iso(entry['pinned_until'])}; nobody renews the pins"
    elif entry["state"] == "done":
        yield "  pinned   by nobody of us: all files were online before"
    yield from (f"  missing  {clean(surl)}" for surl in entry["missing"])


def _all_page(answer: Answer) -> Page:
    if not answer["stagings"]:
        return ["no stagings"]
    rows = [
        (
            clean(entry["field"]),
            clean(entry["site"]),
            entry["state"],
            share(entry["online"], entry["files"]),
            since(answer["now"], entry["since"]),
            f"pinned until {iso(entry['pinned_until'])}" if entry["pinned_until"] else clean(entry["reason"]),
        )
        for entry in answer["stagings"]
    ]
    return [Table(("staging", "site", "state", "online", "", ""), rows)]


def _locality_page(answer: Answer) -> Page:
    files: Mapping[str, str] = answer["files"]
    counts: dict[str, int] = {}
    for place in files.values():
        counts[place] = counts.get(place, 0) + 1
    online = f"online: {share(counts.get('ONLINE', 0), answer['asked'])}{_places(counts)}"
    rows = [(clean(place), clean(surl)) for surl, place in files.items()]
    return [Table(("locality", "file"), rows), online] if rows else [online]
