"""Pipelines: what a step is, what a graph of them is, and what the templates in it see.

A run keeps the definition that it started with, stored by digest, and it stands alone. How files become one of these:
pipeline_file.py. What the keys mean: docs/pipelines.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from aglowd import templates
from aglowd.schedules import Schedule


class StepDef(Struct, frozen=True, kw_only=True):
    """One step as the file gives it. Times are world seconds; `local` and `use` are set inside a fragment."""

    name: str
    kind: str
    needs: tuple[str, ...] = ()
    join: str = "all"
    when: str | bool = True
    pool: str = ""
    priority: int = 0
    retries: int = 0
    retry_delay_s: float = 300.0
    timeout_s: float = 0.0
    params: dict[str, Any] = {}
    use: dict[str, Any] | None = None
    local: dict[str, str] = {}
    file: str = ""
    line: int = 0


class Pipeline(Struct, frozen=True, kw_only=True):
    """A validated graph of steps. `aliases`: what a fragment's name stands for behind it.

    `schedule`: when it runs by itself. `adopt`: how far the catalogue says that another program has brought a field → step →
    its outputs, with templates. Two pipelines that differ in these alone have one digest: they do the same.
    """

    name: str
    steps: dict[str, StepDef]
    params: tuple[str, ...] = ()
    outputs: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    digest: str = ""
    schedule: Schedule | None = None
    adopt: dict[str, dict[str, dict[str, Any]]] = {}

    def ancestors(self, name: str) -> set[str]:
        """All steps that have ended when this one runs."""
        found: set[str] = set()
        queue = list(self.steps[name].needs)
        while queue:
            need = queue.pop()
            if need in self.steps and need not in found:
                found.add(need)
                queue.extend(self.steps[need].needs)
        return found

    def behind(self, names: Iterable[str]) -> set[str]:
        """These steps and all that hang on them."""
        found: set[str] = set()
        queue = list(names)
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue.extend(step.name for step in self.steps.values() if name in step.needs)
        return found

    def keepers(self, names: Collection[str]) -> set[str]:
        """The steps that keep something `until` one of these has ended."""
        kept = {name: step.params.get("until") for name, step in self.steps.items()}
        return {name for name, until in kept.items() if isinstance(until, list | tuple) and {*until} & {*names}}


class _Arguments(Mapping[str, Any]):
    """A fragment's arguments, each filled in when it is asked for: a step that is skipped asks for none."""

    def __init__(self, values: Mapping[str, Any], context: Mapping[str, Any]) -> None:
        self._values = values
        self._context = context

    def __getitem__(self, name: str) -> Any:
        return templates.render(self._values[name], self._context)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def context_of(
    pipeline: Pipeline, step: StepDef | None, base: Mapping[str, Any], outputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What a step's templates see: `base` (field, run, sites…), the outputs of ended steps, a fragment's arguments."""
    steps: dict[str, Any] = {name: {"outputs": values} for name, values in outputs.items()}
    for name in pipeline.steps:
        steps.setdefault(name, {"outputs": {}})
    for alias, target in pipeline.aliases.items():
        steps[alias] = steps[target]
    context = {**base, "steps": steps}
    if step is not None and step.use is not None:
        context["use"] = _Arguments(step.use, dict(context))
        context["steps"] = {**steps, **{short: steps[full] for short, full in step.local.items()}}
    return context
