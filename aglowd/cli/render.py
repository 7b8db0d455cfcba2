"""What aglowctl shows, made of the daemon's answers: pure functions to pages, and one function that prints a page.

A page is lines and tables. On a terminal rich draws it; piped, it is aligned text without colour or boxes. rich is
imported only then, because it takes longer to load than the daemon to answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from aglowd.durations import duration_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

STYLES = {"failed": "red", "doubt": "red", "down": "red", "archived": "green", "done": "green", "waiting": "yellow"}
"""Words that are coloured where they are a cell of their own."""

MOST_CHARS = 600
"""What was seen and is longer is counted: a line is for people, and `--json` has all of it."""

Answer = Mapping[str, Any]


class Table(NamedTuple):
    """Rows under headings."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


Page = list[str | Table]


def show(page: Page) -> None:
    """Print the page to stdout."""
    if sys.stdout.isatty():
        _show_rich(page)
        return
    for part in page:
        for line in [part] if isinstance(part, str) else _aligned(part):
            print(line.rstrip())  # noqa: T201 # Printing is what it is for.


def _show_rich(page: Page) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()  # It honours NO_COLOR by itself.
    for part in page:
        if isinstance(part, str):
            console.print(Text(part), soft_wrap=True)
        else:
            console.print(_rich_table(part))


def drawn(page: Page) -> RenderableType:
    """The page as rich draws it again and again: a line stays a line, so that nothing moves that has not changed."""
    from rich.console import Group
    from rich.text import Text

    parts = (Text(part, no_wrap=True, overflow="ellipsis") if isinstance(part, str) else part for part in page)
    return Group(*(_rich_table(part, no_wrap=True) if isinstance(part, Table) else part for part in parts))


def _rich_table(part: Table, *, no_wrap: bool = False) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for column in part.columns:
        table.add_column(column, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")
    for row in part.rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def _aligned(table: Table) -> Iterable[str]:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(table.columns))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))


# --- words


def clean(value: object) -> str:
    """One line that cannot steer a terminal: texts come from outside systems."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def iso(world: float) -> str:
    """As clock.iso; that module would load asyncio, which costs a command half of its time."""
    return datetime.fromtimestamp(world, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since(now: float, at: float | None) -> str:
    """`since 2h 5m (2026-11-23T10:00:00Z)`."""
    return "-" if at is None else f"since {duration_text(max(0.0, now - at))} ({iso(at)})"


def ago(now: float, at: float | None) -> str:
    """`4m 10s ago`, or `never`."""
    return "never" if at is None else f"{duration_text(max(0.0, now - at))} ago"


def until(now: float, at: float) -> str:
    """`in 5h 50m (2026-11-23T18:00:00Z)`; what is past is due now."""
    return f"{f'in {duration_text(at - now)}' if at > now else 'now'} ({iso(at)})"


def counts(states: Mapping[str, int]) -> str:
    """`3 running, 1 failed`, or `none`."""
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none"


def evidence(value: Any) -> str:
    """What was seen, on one line."""
    if isinstance(value, Mapping):
        told = {key: inner for key, inner in value.items() if inner not in ("", {})}
        text = ", ".join(f"{key} {_brief(inner)}" for key, inner in told.items()) or "nothing there"
        # One after the other, as the tokens of a type; where there are only few words, each of them counts.
        are_alike = all(isinstance(inner, Mapping) for inner in told.values())
        return f"{len(told)} entries" if are_alike and len(text) > MOST_CHARS else text
    return _brief(value)


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        told = "{" + ", ".join(f"{key} {_brief(inner)}" for key, inner in value.items()) + "}"
    elif isinstance(value, list):
        told = "[" + ", ".join(map(_brief, value)) + "]"
    else:
        return clean(value)
    return told if len(told) <= MOST_CHARS else f"{len(value)} entries"


# --- pages


def status(answer: Answer) -> Page:
    """The daemon on one screen."""
    now, health = answer["now"], answer["health"]
    stuck = [
        f"{name} ({duration_text(loop['age_s'])}, allowed {duration_text(loop['grace_s'])})"
        for name, loop in health["loops"].items()
        if not loop["ok"]
    ]
    alive = "alive" if health["alive"] else f"STUCK: {', '.join(stuck)}"
    ready = "ready" if health["ready"] else f"not ready, missing: {', '.join(health['missing'])}"
    left = health["proxy_seconds_left"]
    page: Page = [
        f"aglowd {answer['version']}, pid {health['pid']}, running {since(now, health['started'])}",
        f"health   {alive}; {ready}",
        f"fields   {counts(answer['fields'])}",
        f"steps    {counts(answer['steps'])}",
        f"effects  {counts(answer['effects'])}",
        f"proxy    {'not known yet' if left is None else f'{duration_text(max(0.0, left))} left'}",
    ]
    if health["database"]:
        page.append(f"DATABASE {clean(health['database'])}; until then nothing new is accepted or done")
    if answer["effects"].get("doubt"):
        page.append("DOUBT    the outcome of an effect cannot be told: aglowctl doubt shows the evidence")
    page += [
        f"{'PAUSED ' if one['mode'] == 'pause' else 'DRAINED'}  {clean(one['scope'])} {clean(one['name'])}"
        f"{' ' if one['name'] else ''}{since(now, one['since'])} by uid {one['uid']}"
        f"{': ' if one['reason'] else ''}{clean(one['reason'])}"
        for one in answer["paused"]
    ]
    if answer["findings"]:
        page.append(
            f"AUDIT    {answer['findings']} things in the world that the journal does not explain: aglowctl doubt"
        )
    if health.get("restart"):
        page.append(f"RESTART  changed in the configuration, and waiting for it: {clean(', '.join(health['restart']))}")
    page += [f"FROZEN   credential {name}: {clean(why)}" for name, why in health["credentials"].items() if why]
    page += [
        f"DEFECT   {name}: {clean(loop['defect'])}" for name, loop in health["loops"].items() if loop.get("defect")
    ]
    page += [f"NOTE     {clean(loop['note'])}" for loop in health["loops"].values() if loop.get("note")]
    rows: list[tuple[str, ...]]
    if answer["waiting"]:
        rows = [(clean(wait["kind"]), str(wait["n"]), since(now, wait["since"])) for wait in answer["waiting"]]
        page += ["", Table(("waiting step", "n", "oldest"), rows)]
    if health["pools"]:
        rows = [(clean(name), f"{used} of {limit}") for name, (used, limit) in health["pools"].items()]
        page += ["", Table(("pool", "used"), rows)]
    if health["systems"]:
        rows = [_system_row(now, name, system) for name, system in health["systems"].items()]
        page += ["", Table(("system", "state", "last answer", "last error"), rows)]
    return page


def _system_row(now: float, name: str, system: Answer) -> tuple[str, ...]:
    error = f"{system['failures']} in a row: {clean(system['last_error'])}" if system["failures"] else ""
    if system["backing_off_until"] is not None:
        error = f"{error}; asked again {until(now, system['backing_off_until'])}".lstrip("; ")
    return clean(name), "up" if system["ok"] else "down", ago(now, system["last_ok"]), error


def fields(answer: Answer) -> Page:
    """A row a field."""
    now = answer["now"]
    if not answer["fields"]:
        return ["no fields"]
    rows = [
        (
            clean(field["field"]),
            field["state"],
            clean(field["catalogue_status"]),
            f"{field['done_steps']}/{field['steps_total']}",
            clean(field.get("step", "")),
            since(now, field["since"]),
            clean(field["reason"]),
        )
        for field in answer["fields"]
    ]
    return [Table(("field", "state", "status", "steps", "step", "", "reason"), rows)]


def candidates(answer: Answer) -> Page:
    """Who is next, and a row for each of the others with its reason."""
    at_sites = ", ".join(
        f"{count} at {clean(site) or 'a site not known yet'}" for site, count in answer["running"].items()
    )
    running = sum(answer["running"].values())
    page: Page = [f"{running} of {answer['max_fields']} fields under way{f': {at_sites}' if at_sites else ''}"]
    rows = [
        (
            str(number),
            clean(one["field"]),
            clean(one["status"]),
            clean(one["site"]) or "-",
            "/".join(map(str, one["priority"])),
            "starts now" if one["starts"] else clean(one["reason"]),
        )
        for number, one in enumerate(answer["candidates"], 1)
    ]
    return [*page, "", Table(("", "field", "status", "site", "priority", ""), rows)] if rows else page


def field(answer: Answer) -> Page:
    """A field with the steps of its runs."""
    now = answer["now"]
    page: Page = [_headline(answer)]
    if answer["catalogue_status"] is not None:
        page.append(f"catalogue status {clean(answer['catalogue_status'])}")
    for run in answer["runs"]:
        ended = "" if run["ended"] is None else f", ended {ago(now, run['ended'])} ({iso(run['ended'])})"
        page += ["", f"run {clean(run['id'])}: {run['state']}, begun {ago(now, run['created'])}{ended}"]
        if run["reason"]:
            page.append(f"  {clean(run['reason'])}")
        rows = [
            (
                clean(step["step"]),
                clean(step["kind"]),
                step["state"],
                str(step["attempt"]),
                since(now, step["since"]),
                clean(step["reason"]),
            )
            for step in run["steps"]
        ]
        page.append(Table(("step", "kind", "state", "attempt", "", "reason"), rows))
        page += [
            f"plots of {clean(step['step'])}: {clean(url)}" for step in run["steps"] for url in step.get("plots", ())
        ]
    return page


def _headline(answer: Answer) -> str:
    head = f"{clean(answer['field'])}: {answer['state']}"
    if answer["run"] is not None:
        head += f", run {clean(answer['run'])}, {answer['done_steps']} of {answer['steps_total']} steps ended"
    return f"{head}; now {iso(answer['now'])}"


def explain(answer: Answer) -> Page:
    """Why the field waits, or did at the time `at`, step by step."""
    if "at" in answer:
        answer = {**answer, "now": answer["at"]}
    page: Page = [_headline(answer)]
    if answer.get("whole_since") is not None and answer["at"] < answer["whole_since"]:
        page.append(f"  before {iso(answer['whole_since'])} the log keeps only what was done: reasons may be missing")
    if answer.get("database"):
        page += [
            f"  DATABASE   {since(answer['now'], answer['database_since'])}: {clean(answer['database'])}",
            "  next       until then nothing new is accepted or done; then it goes on by itself: aglowctl status",
        ]
    if not answer["steps"]:
        why, next_ = _why_nothing_moves(answer)
        at = answer.get("ended") or answer.get("since")
        page += [
            f"  why        {why}",
            *([f"  since      {since(answer['now'], at)}"] if at else []),
            f"  next       {next_}",
        ]
    for step in answer["steps"]:
        page += ["", *_explain_step(answer["now"], step, "")]
    return page


def _why_nothing_moves(answer: Answer) -> tuple[str, str]:
    """Why, and what comes next."""
    reason, name = clean(answer["reason"]), clean(answer["field"])
    if answer["state"] == "offered":
        why = clean(answer["held"]) or reason or "it is taken at the next look at the catalogue"
        by_itself = "it begins by itself as soon as that is no more so"
        if answer["held"]:
            by_itself += f": {clean(answer.get('resume', 'aglowctl resume'))}"
        return (
            f"it has not begun: {why}",
            f"{by_itself}; who comes next: aglowctl candidates; in spite of it: aglowctl run {name}",
        )
    if answer["state"] == "failed" and answer["run"] is None:
        return reason, f"correct the catalogue's row or its lists, and it begins by itself: aglowctl show {name}"
    if answer["state"] == "cancelled":
        return reason, f"nothing by itself; to go on from there: aglowctl retry {name}"
    return f"nothing is left to do{f': {reason}' if reason else ''}", f"nothing; anew: aglowctl run {name}"


def _explain_step(now: float, step: Answer, indent: str) -> list[str]:
    name = f"{clean(step['step'])} ({clean(step['kind'])})"
    lines = [
        f"{name} is {step['state']}, attempt {step['attempt']}, {since(now, step['since'])}",
        f"  why        {clean(step['reason'])}",
    ]
    lines += [f"  look at    {clean(url)}" for url in step.get("plots", ())]
    for wait in step["waits_for"]:
        lines.append(f"  waits for  {clean(wait['subject'])}")
        seen = wait["evidence"] is not None
        observed = f"observed {ago(now, wait['observed_at'])}: {evidence(wait['evidence'])}"
        lines.append(f"  evidence   {observed if seen else 'not observed yet'}")
        if silence := wait.get("silence"):
            why = f"{since(now, silence['since'])}: {clean(silence['why'])}"
            lines.append(f"  no answer  {why}; it is asked again by itself: aglowctl status")
    for seen in step.get("saw", ()):
        lines.append(
            f"  had seen   {clean(seen['subject'])}, {ago(now, seen['observed_at'])}: {evidence(seen['evidence'])}"
        )
    for effect in step["effects"]:
        tries = f", tries: {effect['tries']}" if effect["tries"] else ""
        reason = f": {clean(effect['reason'])}" if effect["reason"] else ""
        # What is in doubt is not taken up again by itself: its date says nothing.
        is_timed = effect["next_at"] is not None and effect["state"] != "doubt"
        again = f"; taken up {until(now, effect['next_at'])}" if is_timed else ""
        lines.append(f"  under way  {clean(effect['key'])}, {effect['state']}{tries}{reason}{again}")
    if step["due"] is not None:
        lines.append(f"  until      {until(now, step['due'])}")
    if step["deadline"] is not None:
        lines.append(f"  fails      unless it has ended {until(now, step['deadline'])}")
    lines.append(f"  next       {clean(step['next'])}")
    for run, steps in groupby(step.get("inner", ()), key=itemgetter("run")):
        lines.append(f"  in run {clean(run)}:")
        for inner in steps:
            lines += _explain_step(now, inner, "    ")
    return [f"{indent}{line}" for line in lines]


TOLD_WHOLE = ("Reloaded", "ReloadRefused", "AccessRefused")
"""Events of which the reason is not all that an operator wants to know."""


def event(entry: Answer) -> str:
    """An event on one line; a stream cannot know how wide its columns will be."""
    what = clean(entry["effect"] or entry["subject"])
    data = entry["data"]
    if isinstance(data, Mapping):
        told = data["reason"] if data.get("reason") and entry["kind"] not in TOLD_WHOLE else evidence(data)
    else:
        told = _brief(data)
    where = f"{clean(entry['field']) or '-':<14} {clean(entry['step']) or '-':<20}"
    return f"{entry['id']:>7} {iso(entry['at'])} {where} {clean(entry['kind']):<15} {f'{what}: ' if what else ''}{clean(told)}"


def backup(answer: Answer) -> Page:
    """A backup that was made."""
    return [f"{clean(answer['path'])}: {answer['size_bytes']} bytes, whole and checked"]


def doubts(answer: Answer) -> Page:
    """Effects whose outcome is not known, and what the audit found."""
    now = answer["now"]
    page: Page = []
    for effect in answer["doubts"]:
        again = f", looked for again {until(now, effect['next_at'])}" if effect["next_at"] is not None else ""
        page += [
            f"{clean(effect['key'])} ({clean(effect['field'])})",
            f"  {effect['state']}   {clean(effect['reason'])}",
            f"  done      {since(now, effect['since'])}; {effect['tries']} tries, {effect['looks']} looks{again}",
            f"  before    {evidence(effect['evidence']) if effect['evidence'] is not None else 'nothing was looked at'}",
        ]
        if effect["notes"]:
            page.append(f"  noted     {evidence(effect['notes'])}")
    if not page:
        page.append("nothing is in doubt")
    if answer["findings"]:
        page += ["", "found by the audit:"]
    for finding in answer["findings"]:
        page.append(f"{clean(finding['key'])} ({finding['kind']}), {since(now, finding['found'])}")
        page.append(f"  {clean(finding['what'])}")
        if finding["effect"]:
            page.append(f"  beside    {clean(finding['effect'])}")
        if finding["handled"]:
            page.append(f"  done      {clean(finding['handled'])}")
    return page
