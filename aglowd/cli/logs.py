"""`aglowctl logs`: the daemon's log of one field, wherever it is kept; the daemon says where, if it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from aglowd.cli import complete, render, shared
from aglowd.cli.client import Client, NotRunning
from aglowd.durations import duration_s
from aglowd.errors import AglowError
from aglowd.journald import text_of


def _since(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A duration before now, or a time, as seconds since 1970."""
    if value is None:
        return None
    try:
        return time.time() - duration_s(value)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        what = f'{value!r} is neither a duration, such as "2h", nor a time, such as "2026-11-26T08:00"'
        raise click.BadParameter(what, ctx, param) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.argument("field", default="", shell_complete=complete.fields)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
@click.option(
    "--since", callback=_since, metavar="WHEN", help='Only what is not older: a duration ("2h") or a time in UTC.'
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=200,
    show_default=True,
    help="At most so many old lines.",
)
@click.option("--file", "path", metavar="PATH", help="Look into this file, such as one that was rotated away.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def logs(client: Client, field: str, follow: bool, since: float | None, limit: int, path: str, as_json: bool) -> None:
    """Show the daemon's log lines of FIELD, or all; from the journal, or from the file that the daemon writes.

    Example: aglowctl logs P229+62 --since 2h
    """
    try:
        with shared.failing_well():
            place = {"to": "file", "path": path} if path else place_of(client)
            for line in lines_of(place, field, since, limit, follow=follow):
                click.echo(line if as_json else _shown(line))
    except KeyboardInterrupt:
        return  # This is how one stops following.


def place_of(client: Client) -> Mapping[str, str]:
    """Where the daemon says that its log goes; if it does not run, where systemd would have put it."""
    try:
        place: Mapping[str, str] = client.get("v1", "log")["log"]
    except NotRunning as error:
        # What it said before it stopped is what one wants to know; the journal finds that by its fields alone.
        if shutil.which("journalctl") is None:
            raise NotRunning(f"{error}; to look into a file say --file PATH") from error
        return {"to": "journal", "unit": "", "native": "yes"}
    return place


def lines_of(
    place: Mapping[str, str], field: str = "", since: float | None = None, limit: int = 200, *, follow: bool = False
) -> Iterator[str]:
    """The latest lines of the log that is kept there, of one field if it is named; AglowError if they cannot be had."""
    if place["to"] == "journal":
        return _of_journal(place, field, since, limit, follow=follow)
    if place["to"] == "file":
        return _of_file(place["path"], field, since, limit, follow=follow)
    raise AglowError(
        "aglowd writes its log to where it was started, and nobody keeps it; run it as a service of systemd, "
        'or set log_file = "/var/log/aglowd/aglowd.log" below [daemon]'
    )


def _of_journal(
    place: Mapping[str, str], field: str, since: float | None, limit: int, *, follow: bool
) -> Iterator[str]:
    """The lines that journald keeps. Without fields of their own they are JSON in its message."""
    is_native = bool(place["native"])
    argv = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json"]
    argv += ["--follow"] if follow else []
    # What is picked here, by us, journald cannot count.
    argv += [f"--lines={limit}"] if is_native else ["--no-tail"] if follow else []
    argv += [f"--since=@{since:.0f}"] if since is not None else []
    argv += [f"_SYSTEMD_UNIT={place['unit']}"] if place["unit"] else ["SYSLOG_IDENTIFIER=aglowd"]
    argv += [f"AGLOW_FIELD={field}"] if is_native and field else []
    said = (entry.get("AGLOW_DATA" if is_native else "MESSAGE") for entry in map(json.loads, _output(argv)))
    lines = (line for line in said if isinstance(line, str))
    if is_native:
        yield from lines
    else:
        chosen = (line for line in lines if _is_wanted(line, field, None))
        yield from chosen if follow else deque(chosen, maxlen=limit)


def _of_file(path: str, field: str, since: float | None, limit: int, *, follow: bool) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            lines = (line.rstrip("\n") for line in iter(file.readline, ""))
            yield from deque((line for line in lines if _is_wanted(line, field, since)), maxlen=limit)
            end = file.tell()
    except OSError as error:
        raise AglowError(f"the log {path} cannot be read: {error.strerror}") from error
    if follow:
        # By its name, so that it goes on when the file is rotated away.
        more = _output(["tail", f"--bytes=+{end + 1}", "--follow=name", "--retry", "--quiet", path])
        yield from (line for line in more if _is_wanted(line, field, since))


def _output(argv: list[str]) -> Iterator[str]:
    """The lines of a program, as they come."""
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        raise AglowError(f"{argv[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            assert process.stdout is not None
            yield from (line.rstrip("\n") for line in process.stdout)
        finally:
            process.terminate()
    if process.returncode > 0:
        raise AglowError(f"{argv[0]} ended with {process.returncode}")


def _said(line: str) -> dict[str, Any]:
    """What the line says; nothing if it is none of the daemon's."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _is_wanted(line: str, field: str, since: float | None) -> bool:
    said = _said(line)
    if field and said.get("field") != field:
        return False
    if since is None:
        return True
    try:
        return datetime.fromisoformat(str(said.get("at"))).timestamp() >= since
    except ValueError:
        return False


def _shown(line: str) -> str:
    said = _said(line)
    if not said:
        return render.clean(line)
    head = f"{str(said.get('at', ''))[:19]}Z {said.get('level', ''):<8}"
    return "\n".join(map(render.clean, _lines(head, text_of(said).split("\n"))))


def _lines(head: str, text: Iterable[str]) -> Iterator[str]:
    first, *more = text
    yield f"{head} {first}"
    yield from more
