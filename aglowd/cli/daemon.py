"""`aglowd`: start the daemon, check its files, run the demo."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

import click
import msgspec

from aglowd import __version__
from aglowd.cli import exits, shared
from aglowd.cli.replay import replay
from aglowd.cli.upkeep import DEFAULT_CONFIG
from aglowd.errors import AglowError
from aglowd.toml_file import ConfigError

GARBAGE_OBJECTS = 10_000
"""So many more objects are there before garbage is looked for: what the daemon makes and drops is seldom a cycle."""
CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aglowd")
def main() -> None:
    """Carry LOFAR survey fields from the Long Term Archive to archived results.

    Example: aglowd check --config /etc/aglowd/aglowd.toml
    """


@main.command()
@CONFIG
@click.option(
    "--once", is_flag=True, help="One pass: look at everything, do what is due, wait until that has ended, and stop."
)
def start(config_path: Path, once: bool) -> None:
    """Run the daemon in the foreground until SIGTERM, or for one pass.

    Exit codes: 0 stopped, 75 another daemon has the state directory (or it cannot be used), 78 the configuration is wrong;
    with --once also 5: it stopped, and something is in doubt (`aglowctl doubt`).

    Example: aglowd start --config /etc/aglowd/aglowd.toml
    """
    from aglowd.daemon import serve

    try:
        gc.freeze()  # What was imported stays: nobody need look through it for garbage, again and again.
        gc.set_threshold(GARBAGE_OBJECTS)
        is_certain = asyncio.run(serve(config_path, once=once))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(exits.CONFIG)
    except AglowError as error:
        click.echo(f"aglowd cannot start: {error}", err=True)
        sys.exit(exits.TEMPFAIL)
    if once and not is_certain:
        sys.exit(exits.DOUBT)


@main.command()
@CONFIG
@click.option(
    "--print", "is_shown", is_flag=True, help="Show every value that counts, and where it comes from; no secret."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(config_path: Path, is_shown: bool, as_json: bool) -> None:
    """Check the configuration and all pipelines; tell every problem at once with file, line and hint.

    Exit codes: 0 all well, 1 problems.

    Example: aglowd check --config /etc/aglowd/aglowd.toml --print
    """
    from aglowd.credentials import list_origins
    from aglowd.settings import list_settings, toml_of
    from aglowd.wiring import load_files

    try:
        loaded = load_files(config_path)
    except ConfigError as error:
        _tell_problems(error, as_json=as_json)
        sys.exit(exits.ERROR)
    steps = {name: len(pipeline.steps) for name, pipeline in sorted(loaded.pipelines.items())}
    settings = list_settings(loaded.config, loaded.files) if is_shown else []
    origins = list_origins(loaded.config) if is_shown else {}
    if as_json:
        shown = {"settings": msgspec.to_builtins(settings), "credentials": origins} if is_shown else {}
        click.echo(json.dumps({"schema": 1, "problems": [], "pipelines": steps, **shown}))
        return
    if is_shown:
        click.echo(toml_of(settings), nl=False)
        for name, origin in origins.items():
            click.echo(f"# credential {name}: {origin or 'nowhere'}")
        return
    names = ", ".join(f"{name} ({count} steps)" for name, count in steps.items())
    click.echo(f"{config_path} is well; pipelines: {names}")


def _tell_problems(error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": 1, "problems": msgspec.to_builtins(error.problems)}))
        return
    click.echo(str(error), err=True)
    count = len(error.problems)
    click.echo(f"{count} problem{'s' if count > 1 else ''} found", err=True)


@main.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, config_path: Path, as_json: bool) -> None:
    """Look whether all works that aglowd needs, before it runs: `aglowctl doctor`, from the configuration alone.

    Do it as the daemon's user: another one may read other files. Each outside system is asked one harmless question.

    Exit codes: 0 nothing fails, 1 something does; a warning is no failure.

    Example: aglowd doctor --config /etc/aglowd/aglowd.toml
    """
    from aglowd.cli import upkeep

    upkeep.show_checks(context, upkeep.examine_alone(config_path), as_json)


main.add_command(replay)


@main.command()
@CONFIG
@click.argument("file", type=click.Path(path_type=Path))
def restore(config_path: Path, file: Path) -> None:
    """Put the backup FILE in the place of the database; stop aglowd first.

    The replaced database is kept beside it. What was done outside since the backup is looked for at the next start
    before it is done again.

    Exit codes: 0 restored, 75 aglowd runs or FILE cannot be restored, 78 the configuration is wrong.

    Example: aglowd restore /backup/aglowd.db --config /etc/aglowd/aglowd.toml
    """
    from aglowd.clock import Clock, iso
    from aglowd.config import load_config
    from aglowd.store.restore import restore as put_back

    try:
        config = load_config(config_path)
        now = Clock(config.clock.rate, config.clock.origin).now()
        done = put_back(Path(config.daemon.state_dir) / "aglowd.db", file, now)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(exits.CONFIG)
    except AglowError as error:
        click.echo(f"nothing was restored: {error}", err=True)
        sys.exit(exits.TEMPFAIL)
    if done.kept is not None:
        click.echo(f"the replaced database is kept as {done.kept}")
    click.echo(f"restored as of {iso(done.since)}; {done.effects} effects under way then are looked for at the start")


@main.command()
@CONFIG
def compact(config_path: Path) -> None:
    """Rewrite the database without the room that it no longer uses; stop aglowd first.

    Once is enough for a database that an older release made: aglowd gives room back by itself from then on. A crash on the
    way leaves it as it was. It needs as much room again as the database has.

    Exit codes: 0 done, 75 aglowd runs or the database cannot be used, 78 the configuration is wrong.

    Example: aglowd compact --config /etc/aglowd/aglowd.toml
    """
    from aglowd.config import load_config
    from aglowd.store.vacuum import compact as rewrite

    try:
        path = Path(load_config(config_path).daemon.state_dir) / "aglowd.db"
        done = rewrite(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(exits.CONFIG)
    except AglowError as error:
        click.echo(str(error), err=True)
        sys.exit(exits.TEMPFAIL)
    click.echo(f"{path}: {done.before} bytes before, {done.after} now")


@main.command()
@click.option(
    "--fields",
    type=click.Path(path_type=Path, exists=True),
    help="An AGLOW fields file; default: four at SARA, or one with real pilots.",
)
@click.option("--all", "is_whole", is_flag=True, help="All fifteen bundled fields, of SARA and of Jülich.")
@click.option("--srm-dir", type=click.Path(path_type=Path, exists=True), help="SRM lists of these fields.")
@click.option("--pipeline", type=click.Path(path_type=Path, exists=True), help="A pipeline file instead of sksp.")
@click.option(
    "--speed", type=float, help="Simulated seconds per second; default: 5000, or 2000 with real pilots or all fields."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated grid's fates.")
@click.option(
    "--staging",
    type=click.Choice(("legacy", "stageit", "dcache")),
    default="legacy",
    show_default=True,
    help="What brings files online.",
)
@click.option(
    "--storage",
    type=click.Choice(("gfal", "webdav")),
    default="gfal",
    show_default=True,
    help="How storage is reached: GridFTP by the gfal tools, or WebDAV.",
)
@click.option(
    "--jobs",
    type=click.Choice(("glite", "slurm", "local", "dirac", "arc")),
    default="glite",
    show_default=True,
    help="Where pilots run. With slurm and local they are real ones, on this host.",
)
@click.option(
    "--catalogue",
    type=click.Choice(("csv", "mysql", "own")),
    default="csv",
    show_default=True,
    help="Where the fields stand: AGLOW's fields file, a surveys database in a MariaDB of the demo's own, or aglowd's own.",
)
@click.option(
    "--chaos",
    type=int,
    metavar="SEED",
    help="Faults everywhere and kills of the daemon and of real pilots, by this seed.",
)
@click.option("--faults", type=click.Path(path_type=Path, exists=True), help="A JSON file with scripts of faults.")
@click.option("--state", type=click.Path(path_type=Path), help="Keep the state here instead of a temporary directory.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def demo(
    fields: Path | None,
    is_whole: bool,
    srm_dir: Path | None,
    pipeline: Path | None,
    speed: float | None,
    seed: int,
    staging: str,
    storage: str,
    jobs: str,
    catalogue: str,
    chaos: int | None,
    faults: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Carry real survey fields through the whole pipeline against a simulated grid.

    Exit codes: 0 every field is archived and the grid's ledger shows nothing amiss; 1 not.

    Example: aglowd demo --seed 2 --json
    """
    from aglowd.cli import chaos as storm
    from aglowd.cli import demo as calm

    options = calm.Options(
        fields=fields,
        is_whole=is_whole,
        srm_dir=srm_dir,
        pipeline=pipeline,
        speed=speed or calm.speed_of(jobs, is_whole=is_whole),
        seed=seed,
        state=state,
        faults=faults,
        staging=staging,
        storage=storage,
        jobs=jobs,
        catalogue=catalogue,
    )
    carry_out = calm.carry_out
    if chaos is not None:
        options, carry_out = msgspec.structs.replace(options, seed=chaos), storm.carry_out
    sys.exit(asyncio.run(calm.run_demo(options, carry_out, as_json=as_json)))


shared.set_examples_apart(main)
