"""How a person steers runs: `aglowctl cancel`, `retry`, `skip`, `done` and `run`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from aglowd.choice import RUN_STATES
from aglowd.cli import choose, complete, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table, clean

STEER_TIMEOUT_S = 60.0
MAX_SHOWN_CHARS = 160
"""Of a parameter or an input on the screen; --json has it whole."""
ASKED = {"cancel": "Cancel", "retry": "Retry", "skip": "Skip in", "done": "Say done in"}

RUNS = "[FIELD|RUN]..."


# --- runs


@click.command()
@choose.several(RUNS, RUN_STATES)
@shared.order_options
@click.pass_obj
def cancel(client: Client, /, targets: tuple[str, ...], state: str | None, **how: Any) -> None:
    """Cancel runs: what is under way ends, what was left outside is undone, then their steps and they are cancelled.

    A field stands for its latest run. Shared work goes on for the others that wait for it. The status in the catalogue
    stays; `aglowctl retry` goes on from there.

    Example: aglowctl cancel P229+62 --reason "wrong parset" --yes
    """
    _steer(client, "cancel", targets, state, how)


@click.command()
@choose.several(RUNS, RUN_STATES)
@click.option(
    "--from",
    "steps",
    multiple=True,
    metavar="STEP",
    help="Go back to this step; may be repeated.",
)
@shared.order_options
@click.pass_obj
def retry(client: Client, /, targets: tuple[str, ...], steps: tuple[str, ...], state: str | None, **how: Any) -> None:
    """Go on with runs that failed or were cancelled: these steps, or those of --from, and all that hangs on them.

    They get a new attempt; outputs of the others stay. Shared work that failed is done again once for all who waited for it,
    and these go on, too.

    Example: aglowctl retry 'P2*' --state failed --reason "the disk is repaired" --yes
    """
    _steer(client, "retry", targets, state, how, steps=list(steps))


@click.command()
@choose.several(RUNS, RUN_STATES, complete.fields_then_steps)
@click.argument("step")
@shared.order_options
@click.pass_obj
def skip(client: Client, /, targets: tuple[str, ...], state: str | None, step: str, **how: Any) -> None:
    """Skip a step of runs, and go on with what hangs on it. What it left outside is undone first.

    Example: aglowctl skip P229+62 status_calibrated --reason "set by hand" --yes
    """
    _steer(client, "skip", targets, state, how, steps=[step])


@click.command()
@choose.several(RUNS, RUN_STATES, complete.fields_then_steps)
@click.argument("step")
@click.option("--outputs", default="{}", metavar="JSON", help="What the steps behind it shall see of it: an object.")
@shared.order_options
@click.pass_obj
def done(client: Client, /, targets: tuple[str, ...], state: str | None, step: str, outputs: str, **how: Any) -> None:
    """Say that a step of runs is done, and go on with what hangs on it.

    Example: aglowctl done P229+62 target_check --outputs '{"site": "sara"}' --reason "looked myself" --yes
    """
    _steer(client, "done", targets, state, how, steps=[step], outputs=_object_of(outputs))


def _object_of(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--outputs: found no JSON ({error}); expected an object") from error
    if not isinstance(value, dict):
        raise click.UsageError('--outputs: expected an object, as in \'{"site": "sara"}\'')
    return value


def _steer(
    client: Client, verb: str, targets: Sequence[str], state: str | None, how: Mapping[str, Any], **more: Any
) -> None:
    place = " before the STEP" if verb in ("skip", "done") else ""
    values = {**choose.wanted(targets, state, f"a FIELD, a RUN or a pattern{place}"), **more}

    def question(plan: Answer) -> str:
        return f"{ASKED[verb]} {shared.first_of([one['run'] for one in plan['runs']])}?"

    shared.order(client, verb, values, _page, question, timeout_s=STEER_TIMEOUT_S, **how)


def _page(answer: Answer) -> Page:
    told = _steered(answer) if answer["done"] else _planned(answer)
    return [*told, *(f"{clean(run)} is left alone: {clean(why)}" for run, why in answer["left"].items())]


def _planned(answer: Answer) -> Page:
    page: Page = []
    for run in answer["runs"]:
        why = f" ({clean(run['why'])})" if run["why"] else ""
        page.append(f"{clean(run['run'])}: {run['state']}, becomes {run['becomes']}{why}")
        rows = [
            (clean(one["step"]), str(one["attempt"]), one["state"], one["becomes"], clean(one["note"]))
            for one in run["touches"]
        ]
        if rows:
            page.append(Table(("step", "attempt", "is", "becomes", ""), rows))
        for one in run["touches"]:
            page += [f"  {clean(one['step'])} undoes  {_effect(effect)}" for effect in one.get("undoes", ())]
    return page


def _steered(answer: Answer) -> Page:
    return [
        f"{clean(run['run'])}: {len(run['touches'])} steps are changed; how it goes: aglowctl explain {clean(run['field'])}"
        for run in answer["runs"]
    ]


# --- by hand


@click.command()
@click.argument("field", shell_complete=complete.fields)
@click.option("--pipeline", default="", metavar="NAME", help="Another pipeline than that of the catalogue's fields.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; JSON, or else a text.")
@shared.order_options
@click.pass_obj
def run(
    client: Client,
    field: str,
    pipeline: str,
    params: tuple[str, ...],
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Begin a run of a field by hand, also of one that is done. With --dry-run show every step of it, and begin nothing.

    The dry run fills the parameters in as far as they can be known; <steps.NAME.outputs.KEY> stands for what an earlier step
    puts out. Where a first decision can be made, it shows what would be done.

    Example: aglowctl run P229+62 --dry-run
    """
    values: dict[str, Any] = {"field": field, "pipeline": pipeline, "params": dict(map(_param, params))}
    with shared.failing_well():
        if dry_run:
            shared.show(client.post("v1", "run", **values, dry_run=True), as_json, _rehearsed_page)
            return
        version = ""
        if not yes:
            plan = client.post("v1", "run", **values, dry_run=True)
            version = plan["version"]
            click.confirm(
                f"Begin {clean(plan['run'])}, {len(plan['steps'])} steps of {clean(plan['pipeline'])}?",
                abort=True,
                err=True,
            )
        shared.show(client.post("v1", "run", **values, reason=reason, version=version), as_json, _begun_page)


def _param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--param {text}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _begun_page(answer: Answer) -> Page:
    field = clean(answer["field"])
    return [f"{field}: run {clean(answer['run'])} has begun; how it goes: aglowctl explain {field}"]


def _rehearsed_page(answer: Answer) -> Page:
    page: Page = [f"{clean(answer['field'])}: {clean(answer['run'])} would be a run of {clean(answer['pipeline'])}"]
    for step in answer["steps"]:
        page += ["", *_rehearsed(step)]
    return page


def _rehearsed(step: Answer) -> Iterator[str]:
    needs = f", needs {clean(', '.join(step['needs']))}" if step["needs"] else ""
    yield f"{clean(step['step'])} ({clean(step['kind'])}){needs}"
    if "when" in step:
        yield f"  if       {clean(step['when'])}"
    if "pool" in step:
        yield f"  pool     {clean(step['pool'])}"
    yield from (f"  {clean(name)} = {_short(value)}" for name, value in step.get("params", {}).items())
    for word in ("skipped", "problem", "unknown"):
        if word in step:
            yield f"  {word:<8} {clean(step[word])}"
    decision = step.get("decision", {"does": ""})
    if decision["does"] == "effects":
        yield from (f"  does     {_effect(effect)}" for effect in decision["effects"])
    elif decision["does"] == "waits":
        yield f"  waits    {clean(decision['reason'])} ({clean(', '.join(decision['subjects'][:3]))})"
    elif decision["does"] == "runs":
        yield f"  runs     {clean(decision['run'])}, of {clean(decision['pipeline'])}"
    elif decision["does"] == "ends":
        yield f"  puts out {_short(decision['outputs'])}"


def _effect(effect: Answer) -> str:
    inputs = {name: value for name, value in effect["inputs"].items() if name not in ("kind", "ordinal")}
    return f"{clean(effect['kind'])} {_short(inputs)}"


def _short(value: Any) -> str:
    text = clean(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}… ({len(text)} characters)"
