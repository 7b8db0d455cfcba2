"""The commands about what was: the timeline of a field, what followed from what, what differs between two times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import click

from aglowd.cli import complete, render, shared
from aglowd.cli.client import Client
from aglowd.cli.render import Answer, Page, Table, clean, iso
from aglowd.durations import duration_text, instant_s

TIME_HELP = "UTC as 2026-11-26T01:25:51Z or 2026-11-26, or how long ago: 90s, 5m, 2h, 7d."


def is_time(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The text as it is, if it is a time: which one, says the daemon, who knows what time it is."""
    if value is not None:
        try:
            instant_s(value, 0.0)
        except ValueError as error:
            raise click.BadParameter(str(error), context, option) from error
    return value


def is_time_or_number(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """As `is_time`; the number of an event will do, too."""
    return value if value is not None and value.isascii() and value.isdecimal() else is_time(context, option, value)


FORK = "  "
MAX_TEXT = 160
"""Letters of what an event tells, in a tree."""


def query(**values: str | int | None) -> str:
    """The parameters that are given, as the end of a path."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


@click.command()
@click.argument("field", shell_complete=complete.fields)
@click.option("--since", callback=is_time, metavar="TIME", help=f"Only what happened after that time: {TIME_HELP}")
@click.option("--until", callback=is_time, metavar="TIME", help="Only what happened up to that time.")
@click.option("--run", metavar="ID", help="Only this run.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=1000, show_default=True, help="At most so many, the latest."
)
@shared.json_option
@click.pass_obj
def history(
    client: Client, field: str, since: str | None, until: str | None, run: str | None, limit: int, as_json: bool
) -> None:
    """Show the timeline of a field: what its steps became, what was done and how long that took, and what people said.

    Example: aglowctl history P229+62 --since 2d
    """
    with shared.failing_well():
        asked = query(since=since, until=until, run=run, limit=limit)
        shared.show(client.get("v1", "fields", field, "history", query=asked), as_json, history_page)


@click.command()
@click.argument("what", shell_complete=complete.fields)
@click.option(
    "-n", "--limit", type=click.IntRange(1, 2000), default=500, show_default=True, help="At most so many events."
)
@shared.json_option
@click.pass_obj
def trace(client: Client, what: str, limit: int, as_json: bool) -> None:
    """Show what followed from what, as a tree of events: of a field, a run, RUN/STEP, an effect's key, or around an event's number.

    Example: aglowctl trace P229+62/target_stage
    """
    with shared.failing_well():
        shared.show(client.get("v1", "trace", what, query=query(limit=limit)), as_json, trace_page)


@click.command()
@click.argument("field", required=False, shell_complete=complete.fields)
@click.option(
    "--from",
    "since",
    callback=is_time,
    default="1d",
    show_default=True,
    metavar="TIME",
    help=f"The first time: {TIME_HELP}",
)
@click.option("--to", "until", callback=is_time, metavar="TIME", help="The second time; now, if it is not given.")
@shared.json_option
@click.pass_obj
def diff(client: Client, field: str | None, since: str, until: str | None, as_json: bool) -> None:
    """Show what differs between two times: of a field its steps, tokens and outputs, without one the survey's counts.

    Example: aglowctl diff P229+62 --from 12h
    """
    with shared.failing_well():
        asked = f"?{urlencode({'field': field or '', 'from': since, **({'to': until} if until else {})})}"
        shared.show(client.get("v1", "diff", query=asked), as_json, diff_page)


# --- pages


def history_page(answer: Answer) -> Page:
    """A line an entry, the oldest first."""
    page: Page = [f"{clean(answer['field'])}; now {iso(answer['now'])}"]
    page += [_run_line(answer["now"], run) for run in answer["runs"]]
    page += forgotten(answer, answer["since"])
    if answer["left_out"]:
        page.append(f"{answer['left_out']} older entries are left out; --until or --run shows them")
    rows = [
        (
            iso(entry["at"]),
            clean(entry["step"] or entry["run"] or "-"),
            _what(entry),
            _took(entry),
            _text(entry),
        )
        for entry in answer["entries"]
    ]
    return [*page, "", Table(("UTC", "step or run", "", "took", ""), rows)] if rows else [*page, "nothing happened"]


def _run_line(now: float, run: Answer) -> str:
    end = (
        ""
        if run["ended"] is None
        else f", ended {iso(run['ended'])} after {duration_text(run['ended'] - run['created'])}"
    )
    reason = f": {clean(run['reason'])}" if run["reason"] else ""
    return f"run {clean(run['id'])}: {run['state']}, begun {iso(run['created'])}{end}{reason}"


def _what(entry: Answer) -> str:
    if entry["what"] == "effect":
        return f"{clean(entry['kind'])} {entry['state']}"
    if entry["what"] == "person":
        return f"uid {entry['uid']}: {clean(entry['kind'])}"
    if entry["what"] == "step" and "state" in entry:
        again = f", attempt {entry['attempt']}" if entry["attempt"] > 1 else ""
        return f"{'attempt failed' if entry['kind'] == 'AttemptFailed' else entry['state']}{again}"
    if entry["kind"] == "FieldChanged":
        return f"status {clean(entry['status'])}"
    return clean(entry["kind"]) + (f": {entry['state']}" if entry.get("state") else "")


def _took(entry: Answer) -> str:
    if entry["what"] == "effect":
        tries = f", {entry['tries'] + 1} tries" if entry["tries"] else ""
        return ("not ended" if entry["duration_s"] is None else duration_text(entry["duration_s"])) + tries
    if entry.get("changes", 1) > 1:
        return f"{duration_text(entry['last'] - entry['at'])}, {entry['changes']} changes"
    return ""


def _text(entry: Answer) -> str:
    steps = f"{', '.join(map(clean, entry['steps']))}" if entry.get("steps") else ""
    key = clean(entry["effect"]) if entry.get("effect") else ""
    return ": ".join(part for part in (key, steps, clean(entry["text"])) if part)


def forgotten(answer: Answer, at: float) -> Page:
    """Says that the log is not whole so far back, if it is not."""
    whole = answer.get("whole_since")
    if whole is None or at >= whole:
        return []
    return [f"before {iso(whole)} the log keeps only what was done: reasons and observations have been forgotten"]


def trace_page(answer: Answer) -> Page:
    """The tree: what followed stands below; only where several things followed from one it is indented."""
    events: Mapping[int, Answer] = {event["id"]: event for event in answer["events"]}
    causes = {event["id"]: event for event in answer["causes"]}
    below: dict[int, list[Answer]] = {}
    for event in answer["events"]:
        below.setdefault(event["cause"] if event["cause"] in events else 0, []).append(event)
    page: Page = [f"{answer['what']} {clean(answer['name'])}; now {iso(answer['now'])}"]
    if answer["left_out"]:
        page.append("not all events are shown; -n shows more, and an event's number what is around it")
    # Not by recursion: a step that waits for weeks is a long chain.
    queue = [(event, 0) for event in reversed(below.get(0, []))]
    while queue:
        event, depth = queue.pop()
        cause = causes.get(event["cause"])
        if cause is not None:
            who = clean(cause["field"] or "-")
            page.append(f"{FORK * depth}(from {cause['id']} {iso(cause['at'])} {clean(cause['kind'])} of {who})")
        after = below.get(event["id"], [])
        # A look at the world from which nothing followed says nothing here, unless it is the last word.
        idle = [one for one in after if one["kind"] == "SubjectChanged" and one["id"] not in below]
        shown = [one for one in after if one not in idle] if len(after) > 1 else after
        page.append(f"{FORK * depth}{_line(event, answer['effects'])}")
        if len(after) > len(shown):
            page.append(f"{FORK * (depth + 1)}... {len(after) - len(shown)} looks from which nothing followed")
        # The one that leads on farthest stays in line; what ends soon is indented above it.
        main = max(shown, key=lambda one: (one["id"] in below, one["id"]), default=None)
        if main is not None:
            queue.append((main, depth))
        queue += [(one, depth + 1) for one in reversed(shown) if one is not main]
    if len(page) == 1:
        page.append("no events")
    return page


def _line(event: Answer, effects: Mapping[str, Any]) -> str:
    where = clean(f"{event['run']}/{event['step']}" if event["step"] else event["run"] or event["field"] or "-")
    what = clean(event["effect"].removeprefix(f"{event['run']}/{event['step']}/") or event["subject"])
    told = clean(_told(event["data"]))
    told = f"{told[:MAX_TEXT]}..." if len(told) > MAX_TEXT else told
    took = ""
    effect = effects.get(event["effect"])
    if effect is not None and event["kind"] in ("EffectDone", "EffectRejected") and effect["settled"] is not None:
        took = f" after {duration_text(effect['settled'] - effect['planned'])}"
    line = f"{event['id']} {iso(event['at'])} {where} {clean(event['kind'])}{took}"
    return f"{line}{f' {what}' if what else ''}{f': {told}' if told else ''}"


def _told(data: Any) -> str:
    if isinstance(data, Mapping) and "uid" in data:
        return f"by uid {data['uid']}{': ' if data.get('reason') else ''}{data.get('reason') or ''}"
    if isinstance(data, Mapping) and ("reason" in data or "said" in data):
        return str(
            data.get("said") or data["reason"] or (render.evidence(data["result"]) if data.get("result") else "")
        )
    return str(data["cut"]) if isinstance(data, Mapping) and "cut" in data else render.evidence(data)


def diff_page(answer: Answer) -> Page:
    """What was and what is."""
    span = f"from {iso(answer['from'])} to {iso(answer['to'])} ({duration_text(answer['to'] - answer['from'])})"
    if "field" in answer:
        return [f"{clean(answer['field'])} {span}", *_field_diff(answer)]
    page: Page = [f"the survey {span}"]
    rows = [(state, str(old), str(new), f"{new - old:+d}") for state, (old, new) in answer["fields"].items()]
    if rows:
        page += ["", Table(("fields", "then", "now", ""), rows)]
    if answer["moved"]:
        page.append("")
        page += [
            f"{clean(one['field'])}: {_was(one['state'][0])} -> {_was(one['state'][1])}" for one in answer["moved"]
        ]
    if answer["between"]:
        page += ["", Table(("in between", "n"), [(clean(kind), str(n)) for kind, n in answer["between"].items()])]
    return page if len(page) > 1 else [*page, "nothing differs"]


def _was(value: Any) -> str:
    return "-" if value in (None, "") else clean(value)


def _field_diff(answer: Answer) -> Page:
    page: Page = [
        f"  {name.replace('_', ' ')}: {_was(old)} -> {_was(new)}" for name, (old, new) in answer["changed"].items()
    ]
    for step in answer["steps"]:
        page += ["", f"{clean(step['run'])}/{clean(step['step'])} ({clean(step['kind'])})"]
        page += [
            f"  {name:<8} {_was(step[name][0])} -> {_was(step[name][1])}"
            for name in ("state", "attempt", "reason")
            if name in step
        ]
        if "tokens" in step:
            old, new = ("-" if one is None else render.evidence(one) for one in step["tokens"])
            page.append(f"  tokens   {old} -> {new}")
        if step.get("outputs"):
            page.append(f"  outputs  {render.evidence(step['outputs'])}")
        elif "outputs" in step and step["outputs"] is None:
            page.append("  outputs  not kept: it was done again since")
    return page or ["nothing differs"]
