"""`aglowd replay`: what this release would decide otherwise than was decided on that day. The daemon's own database is not opened."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aglowd.choice import Choice
from aglowd.cli import exits, shared
from aglowd.cli.client import Client, NotPermitted, NotRunning
from aglowd.cli.render import Answer, Page, clean, iso
from aglowd.cli.upkeep import DEFAULT_CONFIG
from aglowd.durations import instant_s
from aglowd.errors import AglowError

if TYPE_CHECKING:
    from aglowd.config import Config

DAY_S = 86_400.0
BACKUP_TIMEOUT_S = 3600.0
QUIET_REAL_S = 2.0
"""Real seconds after which it is told how far it is."""
TOLD_REAL_S = 0.5
FILE = click.Path(path_type=Path, readable=False)
"""Whether it can be read finds out who reads it, with an exit code of its own."""


def day_of(text: str, now: float) -> float:
    """The beginning of the day in UTC that is meant; ValueError if none is."""
    said = {"today": "now", "yesterday": "1d"}.get(text.strip(), text)
    try:
        day = instant_s(said, now) // DAY_S * DAY_S
    except ValueError as error:
        raise ValueError(f"{error}, or today or yesterday") from None
    try:
        iso(day)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text[:60]!r} is no day that has a date; expected one of the years 1 to 9999") from None
    return day


@click.command()
@click.argument("day")
@click.argument("fields", nargs=-1, metavar="[FIELD]...")
@click.option(
    "--config",
    "config_path",
    type=FILE,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration by which is decided now.",
)
@click.option(
    "--journal",
    type=FILE,
    help="A backup of the database; without it aglowd is asked for one, which is gone afterwards.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Show the handlers all that has no order of its own in an order that this number draws.",
)
@click.option(
    "--most", type=click.IntRange(min=1), help="Decide at most so many again, which the seed draws; needs --seed."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def replay(
    context: click.Context,
    day: str,
    fields: tuple[str, ...],
    config_path: Path,
    journal: Path | None,
    seed: int | None,
    most: int | None,
    as_json: bool,
) -> None:
    """Decide again what was decided on DAY (UTC), and show what this release would decide otherwise with this configuration.

    DAY is a date, today, yesterday, a time, or how long ago: 2d. FIELD is a field or a pattern; without one all count.
    Nothing is done, nobody outside is asked, and the database is read from a copy.

    Exit codes: 0 nothing would be different, or nothing was decided then; 1 something would; 2 wrong usage, or there is no such
    field; 3 aglowd is not running; 4 you may not; 75 the copy cannot be had or read; 78 the configuration is wrong.

    Example: aglowd replay today --journal /backup/aglowd.db --config /etc/aglowd/aglowd.toml
    """
    from aglowd.log import redact_all
    from aglowd.toml_file import ConfigError

    if most is not None and seed is None:
        raise click.UsageError("--most draws by a seed: name one with --seed N")
    try:
        answer = _replayed(day, fields, config_path, journal, seed, most)
    except ConfigError as error:
        _fail(str(error), exits.CONFIG)
    except NotRunning as error:
        told = str(error).partition(";")[0]
        _fail(f"{told}; start it, or name a backup with --journal FILE", exits.NOT_RUNNING)
    except NotPermitted as error:
        _fail(str(error), exits.NOT_PERMITTED)
    except AglowError as error:
        _fail(str(error), exits.TEMPFAIL)
    shared.show(redact_all(answer), as_json, _page)
    context.exit(exits.ERROR if answer["different"] else exits.OK)


def _fail(text: str, code: int) -> None:
    click.echo(text, err=True)
    sys.exit(code)


def _replayed(
    day: str, fields: tuple[str, ...], config_path: Path, journal: Path | None, seed: int | None, most: int | None
) -> dict[str, Any]:
    import msgspec

    from aglowd.clock import Clock
    from aglowd.deciding import Means
    from aglowd.replay import Replay
    from aglowd.store.decided import journal_of, list_fields
    from aglowd.wiring import handler_kinds, load_files, shown_to_templates

    loaded = load_files(config_path)
    clock = loaded.config.clock
    try:
        since = day_of(day, Clock(clock.rate, clock.origin).now())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="DAY") from error
    digests = {name: pipeline.digest for name, pipeline in loaded.pipelines.items()}
    means = Means(handler_kinds(), digests, shown_to_templates(loaded.config))
    until = since + DAY_S
    with _copy(loaded.config, journal) as file, journal_of(file, since, until) as db, _progress() as progress:
        meant = _meant(fields, list_fields(db, since, until)) if fields else ()
        found = Replay(db, means, clock.rate, seed).play(since, until, meant, most, progress)
    told = {"day": iso(since)[:10], "journal": None if journal is None else str(journal), "seed": seed}
    return {"schema": 1, **told, **msgspec.to_builtins(found)}


def _meant(fields: tuple[str, ...], known: Collection[str]) -> Collection[str]:
    """The fields that are named; BadParameter if a name or a pattern stands for none."""
    try:
        return Choice(fields).of(known, {name: name for name in known}.get, str)
    except AglowError as error:
        raise click.BadParameter(str(error), param_hint="FIELD") from error


@contextmanager
def _copy(config: Config, journal: Path | None) -> Iterator[Path]:
    """The copy that is asked: what the operator names, or one that the daemon makes for the time being."""
    database = Path(config.daemon.state_dir) / "aglowd.db"
    if journal is not None:
        with suppress(OSError):  # One of them cannot be seen: whoever reads the copy says what is wrong with that.
            if journal.samefile(database):
                raise AglowError(
                    f"{journal} is the database of aglowd itself; leave out --journal and aglowd is asked for a copy, or name "
                    "a backup that aglowctl backup made"
                )
        yield journal
        return
    with tempfile.TemporaryDirectory(prefix="aglowd-replay-") as directory:
        if os.geteuid() == 0 and database.exists():
            owner = database.stat()
            os.chown(directory, owner.st_uid, owner.st_gid)  # The daemon writes the copy.
        copy = Path(directory, "journal.db")
        client = Client(config.daemon.socket)
        client.post("v1", "backup", timeout_s=BACKUP_TIMEOUT_S, path=str(copy), replace=False)
        yield copy


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Tells somebody who looks on how far it is, if it takes long; the line is empty again before anything else is said."""
    shown, next_at = "", time.monotonic() + QUIET_REAL_S

    def tell(done: int, of: int) -> None:
        nonlocal shown, next_at
        if not sys.stderr.isatty() or time.monotonic() < next_at:
            return
        next_at = time.monotonic() + TOLD_REAL_S
        shown = f"{done} of {of} decisions"
        click.echo(f"\r{shown}", nl=False, err=True)

    try:
        yield tell
    finally:
        if shown:
            click.echo(f"\r{' ' * len(shown)}\r", nl=False, err=True)


def _page(answer: Answer) -> Page:
    page: Page = [
        f"{iso(one['at'])} {clean(one['field'])} {clean(one['run'])}/{clean(one['step'])}: was {clean(one['was'])} | "
        f"would be {clean(one['would'])}"
        for one in answer["differences"]
    ]
    left_out = answer["different"] - len(answer["differences"])
    if left_out:
        page.append(f"{left_out} more differences are not shown; name a FIELD to see those of one")
    whole = answer["whole_since"]
    if whole is not None and (not answer["found"] or any("holds whole" in why for why in answer["untold"])):
        page.append(f"the log is whole since {iso(whole)}")
    if not answer["found"]:
        return [*page, f"{answer['day']}: nothing was decided, so nothing is different"]
    drawn = f" of {answer['found']}" if answer["decisions"] < answer["found"] else ""
    seed = "" if answer["seed"] is None else f", seed {answer['seed']}"
    untold = sum(answer["untold"].values())
    page.append(
        f"{answer['day']}: {answer['decisions']}{drawn} decisions{seed}: {answer['same']} same, {answer['different']} different, "
        f"{untold} untold"
    )
    return [*page, *(f"  {count} untold: {clean(why)}" for why, count in answer["untold"].items())]
