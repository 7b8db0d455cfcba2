"""`aglowctl tokens` and `aglowctl jobs`: the work list and the hands, and how a person steps in."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from aglowd.cli import complete, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table, clean, iso, since

STATES = ("todo", "locked", "done", "error", "other")
RESETTABLE = ("error", "other", "done")
ASK_TIMEOUT_S = 90.0
"""Real seconds; the daemon gives the outside one minute."""
OUTPUT_TIMEOUT_S = 630.0

_site = click.option(
    "--site", default="", metavar="SITE", help="Where the job runs; without it the common batch system."
)
_base = click.option(
    "--site", default="", metavar="SITE", help="Whose token database is asked; without it the common one."
)
_reason = click.option(
    "--reason", default="", metavar="TEXT", help="Why, for the record; beside it stand your uid and the time."
)


# --- tokens

MAX_EPOCH_S = 253_402_300_800
"""The year 10000, which no calendar here knows."""


@click.group(invoke_without_command=True)
@shared.json_option
@click.pass_context
def tokens(context: click.Context, as_json: bool) -> None:
    """Count the tokens that steps wait for, by type and state; with a command, list, show, reset or read the logs of some.

    Example: aglowctl tokens
    """
    if context.invoked_subcommand is None:
        shared.ask(context.obj, as_json, _types_page, "v1", "tokens")


@tokens.command(name="list")
@click.argument("token_type", metavar="TYPE")
@click.option("--state", type=click.Choice(STATES), help="Only tokens in this state.")
@_base
@shared.json_option
@click.pass_obj
def list_tokens(client: Client, token_type: str, state: str | None, site: str, as_json: bool) -> None:
    """List the tokens of a type as they are now.

    Example: aglowctl tokens list P229_62-1_targ1 --state error
    """
    query = _query(state=state or "", site=site)
    with shared.failing_well():
        answer = client.get("v1", "tokens", token_type, query=query, timeout_s=ASK_TIMEOUT_S)
        shared.show(answer, as_json, _tokens_page)


@tokens.command(name="show")
@click.argument("token")
@_base
@shared.json_option
@click.pass_obj
def show_token(client: Client, token: str, site: str, as_json: bool) -> None:
    """Show a token's document as it is now, with its history.

    Example: aglowctl tokens show P229_62-1_targ1:SB000
    """
    with shared.failing_well():
        answer = client.get("v1", "token", token, query=_query(site=site), timeout_s=ASK_TIMEOUT_S)
        shared.show(answer, as_json, _token_page)


@tokens.command()
@click.argument("token")
@click.option("--name", default="", metavar="NAME", help="This attachment; without it the log that came last.")
@_base
@shared.json_option
@click.pass_obj
def logs(client: Client, token: str, name: str, site: str, as_json: bool) -> None:
    """Print a log that a pilot attached to a token.

    Example: aglowctl tokens logs P229_62-1_targ1:SB000
    """
    query = _query(name=name, site=site)
    with shared.failing_well():
        answer = client.get("v1", "token", token, "log", query=query, timeout_s=ASK_TIMEOUT_S)
        shared.show(answer, as_json, _log_page)


@tokens.command()
@click.argument("token_type", metavar="TYPE")
@click.argument("named", nargs=-1, metavar="[TOKEN]...")
@click.option(
    "--state", type=click.Choice(RESETTABLE), default="error", show_default=True, help="Only tokens in this state."
)
@_base
@_reason
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared.json_option
@click.pass_obj
def reset(
    client: Client,
    token_type: str,
    named: tuple[str, ...],
    state: str,
    site: str,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Give tokens back to the pilots: those of a type that failed, or of these only the named ones.

    Each keeps its attachments and its history. Tokens that somebody works on, or that change meanwhile, are left alone. A token
    that is done would be done again; its result would be another file.

    Example: aglowctl tokens reset P229_62-1_targ1 --reason "the disk is repaired" --yes
    """
    what = ", ".join(named) if named else f"all tokens of {token_type} in state {state}"
    if not yes:
        click.confirm(f"Give back {what}?", abort=True)
    with shared.failing_well():
        answer = client.post(
            "v1", "tokens", token_type=token_type, state=state, tokens=list(named), site=site, reason=reason
        )
        shared.show(answer, as_json, _ordered_page)


def _query(**values: str) -> str:
    """The query of a request: what was given of it."""
    given = {name: value for name, value in values.items() if value}
    return f"?{urlencode(given)}" if given else ""


# --- jobs


@click.group(invoke_without_command=True)
@shared.json_option
@click.pass_context
def jobs(context: click.Context, as_json: bool) -> None:
    """List the jobs that steps wait for; with a command, show, cancel or fetch the output of one.

    Example: aglowctl jobs
    """
    if context.invoked_subcommand is None:
        shared.ask(context.obj, as_json, _jobs_page, "v1", "jobs")


@jobs.command(name="list")
@click.argument("field", required=False, shell_complete=complete.fields)
@shared.json_option
@click.pass_obj
def list_jobs(client: Client, field: str | None, as_json: bool) -> None:
    """List the jobs that steps wait for, of all fields or of one.

    Example: aglowctl jobs list P229+62
    """
    with shared.failing_well():
        answer = client.get("v1", "jobs")
        if field is not None:
            answer["jobs"] = [one for one in answer["jobs"] if one["field"] == field]
        shared.show(answer, as_json, _jobs_page)


@jobs.command(name="show")
@click.argument("job")
@_site
@shared.json_option
@click.pass_obj
def show_job(client: Client, job: str, site: str, as_json: bool) -> None:
    """Ask the batch system how a job is now, with its nodes.

    Example: aglowctl jobs show 4711 --site sara
    """
    with shared.failing_well():
        query = f"?{urlencode({'job': job, 'site': site})}"
        shared.show(client.get("v1", "job", query=query, timeout_s=ASK_TIMEOUT_S), as_json, _job_page)


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="JOB...")
@_site
@_reason
@click.option("--yes", is_flag=True, help="Do not ask.")
@shared.json_option
@click.pass_obj
def cancel(client: Client, names: tuple[str, ...], site: str, reason: str, yes: bool, as_json: bool) -> None:
    """Cancel jobs, and see them end. Pilots give their tokens back, and the steps that wait for these start other pilots.

    Example: aglowctl jobs cancel 4711 --site sara --reason "wrong queue" --yes
    """
    if not yes:
        click.confirm(f"Cancel {', '.join(names)}?", abort=True)
    with shared.failing_well():
        answer = client.post("v1", "jobs", jobs=list(names), site=site, reason=reason)
        shared.show(answer, as_json, _ordered_page)


@jobs.command()
@click.argument("job")
@click.argument("directory", type=click.Path(path_type=Path))
@_site
@shared.json_option
@click.pass_obj
def output(client: Client, job: str, directory: Path, site: str, as_json: bool) -> None:
    """Fetch what a job printed into a new directory below DIRECTORY; the daemon's user writes it.

    Example: aglowctl jobs output 4711 . --site sara
    """
    target = str(Path.cwd() / directory)
    with shared.failing_well():
        answer = client.post("v1", "output", timeout_s=OUTPUT_TIMEOUT_S, job=job, site=site, directory=target)
        shared.show(answer, as_json, lambda answer: [clean(answer["path"])])


# --- pages


def _types_page(answer: Answer) -> Page:
    if not answer["types"]:
        return ["no step waits for tokens"]
    rows = [
        (
            clean(one["type"]),
            clean(one["site"]),
            *(str(one["counts"].get(state, 0)) for state in STATES),
            clean(one["field"]),
            since(answer["now"], one["at"]) if one["at"] else "not counted yet",
        )
        for one in answer["types"]
    ]
    return [Table(("type", "site", *STATES, "field", ""), rows)]


def _tokens_page(answer: Answer) -> Page:
    if not answer["tokens"]:
        return [f"no such tokens of {clean(answer['type'])}"]
    rows = [
        (
            clean(one["token"]),
            clean(one["status"] or ""),
            clean(one["job"]),
            clean(one["hostname"] or ""),
            clean(one["scrub_count"] or 0),
            clean(one["Results_location"] or one["output"] or ""),
        )
        for one in answer["tokens"]
    ]
    return [Table(("token", "status", "job", "host", "scrubs", "result"), rows)]


def _token_page(answer: Answer) -> Page:
    document: dict[str, Any] = answer["token"]
    mark = document.get("aglowd")
    history = mark.get("history") if isinstance(mark, dict) else None
    page: Page = [clean(document["_id"])]
    page.append(
        Table(
            ("field", "value"),
            [(clean(name), clean(value)) for name, value in document.items() if name not in ("_id", "aglowd")],
        )
    )
    if isinstance(history, list) and history:
        rows = [
            (_day(entry.get("at")), clean(entry.get("why", "")), clean(entry.get("hostname", "")))
            for entry in history
            if isinstance(entry, dict)
        ]
        page.append(Table(("given back", "why", "from"), rows))
    return page


def _log_page(answer: Answer) -> Page:
    if not answer["name"]:
        return [
            f"no log is attached to {clean(answer['token'])}; it has {clean(', '.join(answer['attachments']) or 'none')}"
        ]
    return [f"{clean(answer['token'])}: {clean(answer['name'])}", *map(clean, answer["text"].splitlines())]


def _jobs_page(answer: Answer) -> Page:
    if not answer["jobs"]:
        return ["no step waits for jobs"]
    rows = [
        (
            clean(one["job"]),
            clean(one["site"]),
            clean(one["state"]),
            _nodes(one.get("nodes") or {}),
            clean(one["field"]),
            clean(one.get("reason") or one.get("words") or ""),
        )
        for one in answer["jobs"]
    ]
    return [Table(("job", "site", "state", "pilots", "field", ""), rows)]


def _nodes(nodes: dict[str, str]) -> str:
    counts: dict[str, int] = {}
    for state in nodes.values():
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{count} {clean(state)}" for state, count in sorted(counts.items()))


def _job_page(answer: Answer) -> Page:
    job = answer["job"]
    code = "" if job["exit_code"] is None else f", exit code {job['exit_code']}"
    head = f"{clean(job['id'])} at {clean(job['system'])}: {clean(job['state'])} ({clean(job['words'])}{code})"
    page: Page = [head, *([f"  why      {clean(job['reason'])}"] if job["reason"] else [])]
    rows = [
        (clean(node["id"]), node["state"], clean(node["words"]), clean(node["exit_code"] or ""), clean(node["reason"]))
        for node in job["nodes"]
    ]
    return [*page, Table(("node", "state", "", "exit", ""), rows)] if rows else page


def _ordered_page(answer: Answer) -> Page:
    field = clean(answer["field"])
    return [f"{field}: run {answer['run']} has begun; how it goes: aglowctl explain {field}"]


def _day(at: Any) -> str:
    """When it was, if somebody wrote a time there."""
    return iso(float(at)) if isinstance(at, int | float) and 0 <= at < MAX_EPOCH_S else ""
