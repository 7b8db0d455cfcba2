"""`aglowctl report`: what helpers ask for first, in one file, made of the daemon's own answers.

What must stay true: a part that cannot be had is named and keeps no other one back; nothing in it is a secret, because the
daemon hides them in all its answers and this hides once more what looks like one; only its owner can read the file.
"""

from __future__ import annotations

import io
import json
import os
import platform
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

from aglowd import __version__
from aglowd.cli import complete, logs, shared
from aglowd.cli.client import Client, NotRunning
from aglowd.cli.upkeep import DEFAULT_CONFIG, DOCTOR_TIMEOUT_S, examine_alone
from aglowd.errors import AglowError

EVENTS = LINES = 1000
"""The latest events and lines of the log, and as many of the field."""


@click.command()
@click.argument("field", required=False, shell_complete=complete.fields)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file; without it one in this directory, named by host and time.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration for the doctor, if aglowd does not run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def report(client: Client, field: str | None, output: Path | None, config_path: Path, as_json: bool) -> None:
    """Put what helpers ask for into one file: versions, configuration, status, doctor, events, log; of FIELD also its runs and why it waits.

    Secrets are left out, as are words of commands that may hold some. Look at it all the same before you send it.

    Example: aglowctl report P229+62
    """
    name = f"aglowd-report-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    path = output or Path(f"{name}.tar.gz")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise shared.Failure(f"{path} cannot be written: {error.strerror}; name another file: -o FILE") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            parts, missing = _collect(client, field, config_path)
            _write(file, name, parts)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise shared.Failure(f"{path} cannot be written: {error.strerror}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if as_json:
        click.echo(json.dumps({"schema": 1, "path": str(path), "parts": sorted(parts), "missing": missing}))
        return
    click.echo(f"{path}: {len(parts)} parts; look at it before you send it: tar xzOf {path}")
    for part, why in missing.items():
        click.echo(f"not in it: {part}: {why}")


PARTS = ("status", "config", "fields", "doubt", "schedules", "jobs", "candidates")
FIELD_PARTS = ("show", "explain", "history", "provenance")


def _collect(client: Client, field: str | None, config_path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """Each part, and why each other one cannot be had; Failure if there is nothing of the field."""
    parts: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for part, make in _parts(client, field, config_path):
        try:
            parts[part] = make()
        except AglowError as error:
            missing[part] = str(error)
    if field is not None and f"field/{FIELD_PARTS[0]}.json" in missing and len(missing) < len(parts):
        raise shared.Failure(missing[f"field/{FIELD_PARTS[0]}.json"])
    return {**parts, "missing.json": _json(missing)}, missing


def _parts(client: Client, field: str | None, config_path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The name of each part, and how it is had."""
    yield "versions.json", lambda: _json(_versions(client))
    for name in PARTS:
        yield f"{name}.json", lambda name=name: _json(client.get("v1", name))  # type: ignore[misc]
    yield "doctor.json", lambda: _json(_doctor(client, config_path))
    yield "events.jsonl", lambda: _events(client)
    yield "log.jsonl", lambda: _log(client)
    if field is not None:
        of_it = ("fields", field)
        paths = (of_it, (*of_it, "explain"), (*of_it, "history"), ("provenance", field))
        for name, path in zip(FIELD_PARTS, paths, strict=True):
            yield f"field/{name}.json", lambda path=path: _json(client.get("v1", *path))  # type: ignore[misc]
        yield "field/events.jsonl", lambda: _events(client, field=field)
        yield "field/log.jsonl", lambda: _log(client, field)


def _doctor(client: Client, config_path: Path) -> Any:
    try:
        return client.get("v1", "doctor", timeout_s=DOCTOR_TIMEOUT_S)
    except NotRunning as error:
        return examine_alone(config_path, str(error))


def _versions(client: Client) -> dict[str, Any]:
    daemon = None
    with suppress(AglowError):
        daemon = client.get("v1", "status")["version"]
    return {
        "schema": 1,
        "aglowctl": __version__,
        "aglowd": daemon,
        "python": sys.version,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "uid": os.getuid(),
        "socket": client.path,
    }


def _events(client: Client, **query: str) -> bytes:
    lines = client.stream("v1", "events", query=[("limit", EVENTS), *query.items()])
    return b"".join(_json(json.loads(line), indent=None) for line in lines)


def _log(client: Client, field: str = "") -> bytes:
    return b"".join(map(_line, logs.lines_of(logs.place_of(client), field, limit=LINES)))


def _line(line: str) -> bytes:
    """One of the log, which systemd or a traceback may have written."""
    try:
        return _json(json.loads(line), indent=None)
    except ValueError:
        return _json(line, indent=None)


def _json(value: Any, indent: int | None = 1) -> bytes:
    from aglowd.log import redact_all

    return f"{json.dumps(redact_all(value), indent=indent, ensure_ascii=False)}\n".encode()


def _write(file: IO[bytes], name: str, parts: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for part, content in sorted(parts.items()):
            entry = tarfile.TarInfo(f"{name}/{part}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
