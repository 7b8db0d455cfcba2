"""The commands that keep aglowd in order: is it well, is this backup, what goes into a bug report, what may be forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aglowd.choice import RUN_STATES
from aglowd.cli import choose, exits, render, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table, clean, counts, iso

BACKUP_TIMEOUT_S = 3600.0
TIMEOUT_S = 60.0
DOCTOR_TIMEOUT_S = 120.0
DEFAULT_CONFIG = Path("/etc/aglowd/aglowd.toml")


@click.command()
@choose.several("[RUN]...", RUN_STATES, None)
@shared.order_options
@click.pass_obj
def forget(client: Client, /, targets: tuple[str, ...], state: str | None, **how: Any) -> None:
    """Forget runs that have ended: their steps, what was seen for them, their outputs. There is no way back but a backup.

    RUN is a run's id, as `aglowctl show` lists them, or a pattern of ids. A run stays that still holds files, jobs or an effect without
    an end, or that another one at work uses. Ids are not given again, and events stay.

    Example: aglowctl forget 'P14_30-*' --reason "archived long ago" --dry-run
    """
    chosen = choose.wanted(targets, state, "a RUN or a pattern")
    values: dict[str, Any] = {"runs": chosen["targets"], "state": chosen["state"]}

    def question(plan: Answer) -> str:
        return f"Forget {shared.first_of([one['run'] for one in plan['runs']])} for good?"

    shared.order(client, "forget", values, _forget_page, question, timeout_s=TIMEOUT_S, **how)


def _forget_page(answer: Answer) -> Page:
    rows = [
        (
            clean(one["run"]),
            clean(one["field"]),
            one["state"],
            iso(one["ended"]),
            str(one["steps"]),
            str(one["effects"]),
        )
        for one in answer["runs"]
    ]
    verb = "forgotten" if answer["done"] else "would be forgotten"
    page: Page = [Table(("run", "field", "was", "ended", "steps", "effects"), rows), f"{len(rows)} {verb}"]
    return [*page, *(f"{clean(run)} stays: {clean(why)}" for run, why in answer["left"].items())]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an older backup of that name.")
@shared.json_option
@click.pass_obj
def backup(client: Client, file: Path, force: bool, as_json: bool) -> None:
    """Copy the database to FILE while aglowd works, and check the copy; the daemon's user writes it.

    Example: aglowctl backup /backup/aglowd.db
    """
    target = str(Path.cwd() / file)
    with shared.failing_well():
        shared.show(
            client.post("v1", "backup", timeout_s=BACKUP_TIMEOUT_S, path=target, replace=force), as_json, render.backup
        )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(context: click.Context, file: Path, as_json: bool) -> None:
    """Look whether FILE is a good backup: whole, of a schema that is known, with a journal that hangs together.

    aglowd is not asked, and neither its database nor FILE is changed. Exit codes: 0 it is one, 1 it is not.

    Example: aglowctl verify /backup/aglowd.db
    """
    from aglowd.store.verify import verify as look

    with shared.failing_well():
        found = look(file)
    answer: dict[str, Any] = {"schema": 1, "ok": not found.problems}
    answer |= {name: getattr(found, name) for name in found.__struct_fields__}
    shared.show(answer, as_json, _verify_page)
    context.exit(exits.OK if answer["ok"] else exits.ERROR)


def _verify_page(answer: Answer) -> Page:
    last = "nothing has happened in it" if answer["last_event"] is None else f"last event {iso(answer['last_event'])}"
    page: Page = [
        f"{clean(answer['file'])}: schema {answer['schema_version']}, {answer['size_bytes']} bytes, {last}",
        f"fields {answer['fields']}; runs {answer['runs']}, {answer['running']} of them running; effects {counts(answer['effects'])}",
    ]
    page += [f"WRONG  {clean(problem)}" for problem in answer["problems"]]
    return [*page, "it is whole, and its journal hangs together" if answer["ok"] else "it is no good backup"]


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration from which is told what can be, if aglowd does not run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, config_path: Path, as_json: bool) -> None:
    """Look whether all works that aglowd needs: outside systems, credentials, proxy, clock, disk, directories, tools, limits.

    Each outside system is asked one harmless question. Where aglowd does not run, they are asked from the configuration
    alone, as whoever you are. Exit codes: 0 nothing fails, 1 something does; a warning is no failure.

    Example: aglowctl doctor
    """
    client: Client = context.obj
    try:
        with shared.failing_well():
            answer = client.get("v1", "doctor", timeout_s=DOCTOR_TIMEOUT_S)
    except shared.DaemonNotRunning as error:
        answer = examine_alone(config_path, told=str(error.message))
    show_checks(context, answer, as_json)


def examine_alone(config_path: Path, told: str = "") -> dict[str, Any]:
    """The doctor's answer from the configuration alone; `told`: why the daemon does not give it."""
    import asyncio

    from aglowd.cli.alone import examine

    return asyncio.run(examine(config_path, told))


def show_checks(context: click.Context, answer: dict[str, Any], as_json: bool) -> None:
    """Print the checks, and end with what they say."""
    shared.show(answer, as_json, _doctor_page)
    context.exit(exits.OK if answer["ok"] else exits.ERROR)


def _doctor_page(answer: Answer) -> Page:
    page: Page = []
    for one in answer["checks"]:
        page.append(f"{one['state']:<4}  {clean(one['area'])}, {clean(one['name'])}: {clean(one['what'])}")
        if one["next"]:
            page.append(f"      -> {clean(one['next'])}")
    states = [one["state"] for one in answer["checks"]]
    return [*page, ", ".join(f"{states.count(state)} {state}" for state in ("ok", "warn", "fail"))]
