"""What a shell offers after Tab: names of fields, and of a field's steps, as the daemon knows them at this moment.

What must stay true: a shell that waits is worse than one that offers nothing, so the daemon has a second, and whatever goes
wrong is no word on the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import click

from aglowd.cli.client import Client
from aglowd.errors import AglowError

TIMEOUT_S = 1.0

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def fields(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Fields, and what else runs under a name, that begin so and were not named yet."""
    names: list[str] = _asked(context, "v1", "names", query=f"?{urlencode({'begin': begun})}").get("names", [])
    named = context.params.get(param.name or "") or ()
    return [name for name in names if name not in named]


def steps_of(argument: str) -> Complete:
    """Steps of the latest run of the field that this argument names. Of options click does not tell what stood before."""

    def steps(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
        return _steps(context, context.params.get(argument) or "", begun)

    return steps


def fields_then_steps(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Where a step is named behind fields: fields, and as soon as there is one, the steps of the last of them, too."""
    # Until all is there, click takes the last word for the step.
    named = (*(context.params.get(param.name or "") or ()), *filter(None, (context.params.get("step"),)))
    steps = _steps(context, named[-1], begun) if named else []
    return [*steps, *(name for name in fields(context, param, begun) if name not in named)]


def _steps(context: click.Context, field: str, begun: str) -> list[str]:
    shown = _asked(context, "v1", "fields", field) if field else {}
    run: dict[str, Any] = next((run for run in shown.get("runs", ()) if run["id"] == shown["run"]), {})
    return [step["step"] for step in run.get("steps", ()) if step["step"].startswith(begun)]


def _asked(context: click.Context, *parts: str, query: str = "") -> dict[str, Any]:
    try:
        return Client(context.find_root().params["path"]).get(*parts, query=query, timeout_s=TIMEOUT_S)
    except (AglowError, KeyError):
        return {}
