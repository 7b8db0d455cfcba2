"""What a run would do, before there is one: every step with its parameters, and each first decision that can be made.

The templates and the handlers are the real ones; what earlier steps will put out stands as `<steps.NAME.outputs.KEY>`.
What must stay true: nothing is written, nobody is asked; each step is shown as if those before it went well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from aglowd import templates
from aglowd.errors import AglowError
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Spawn, StepState, StepView, Wait
from aglowd.pipeline import Pipeline, StepDef, context_of
from aglowd.rules import Verdict, verdict

_NAMED = re.compile(r"<[^<>]*\bsteps\.\w+\.outputs\.[^<>]*>")
"""A value of a later time within a text."""


class NotYet(templates.TemplateProblem):
    """What the template asks cannot be known before the run."""


class Later:
    """A value that an earlier step will put out. It can be named, and nothing else can be said of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"<{self._name}>"

    def __getattr__(self, name: str) -> Later:
        if name.startswith("_"):
            raise AttributeError(name)
        return Later(f"{self._name}.{name}")

    def __getitem__(self, key: object) -> Later:
        return Later(f"{self._name}[{_spelled(key)}]")

    def __add__(self, other: object) -> Later:
        return Later(f"{self._name} + {_name_of(other)}")

    def __radd__(self, other: object) -> Later:
        return Later(f"{_name_of(other)} + {self._name}")

    def __call__(self, *args: object) -> Later:
        return Later(f"{self._name}({', '.join(map(_name_of, args))})")

    def _unknown(self, *_: object) -> NoReturn:
        raise NotYet(f"{self} is not known yet")

    __bool__ = __len__ = __iter__ = __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = _unknown
    __int__ = __float__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = __mod__ = __neg__ = _unknown
    __hash__ = object.__hash__


class _Outputs(Mapping[str, Any]):
    """The outputs of a step that has not run: whatever is asked for will be there."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __getitem__(self, key: str) -> Later:
        return Later(f"steps.{self._step}.outputs.{key}")

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        raise NotYet(f"the outputs of {self._step} are not known yet")

    def __len__(self) -> int:
        raise NotYet(f"the outputs of {self._step} are not known yet")


class _Table(dict[str, Any]):
    """A table of which a key may be asked for that is not known yet: `sites[steps.list.outputs.site]`."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._name = name

    def __contains__(self, key: object) -> bool:
        return isinstance(key, Later) or super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        return Later(f"{self._name}[{_name_of(key)}]") if isinstance(key, Later) else super().__getitem__(key)


def _name_of(value: object) -> str:
    return value._name if isinstance(value, Later) else repr(value)


def _spelled(key: object) -> str:
    if not isinstance(key, slice):
        return _name_of(key)
    return ":".join("" if part is None else _name_of(part) for part in (key.start, key.stop))


class Rehearsal:
    """Plays a pipeline without a store. `shown`: what templates see of the configuration; `digests`: of all pipelines."""

    def __init__(self, handlers: Mapping[str, Handler], digests: Mapping[str, str], shown: Mapping[str, Json]) -> None:
        self._handlers = handlers
        self._digests = digests
        self._shown = shown

    def play(
        self, pipeline: Pipeline, run: str, key: str, context: Mapping[str, Json], params: Mapping[str, Json]
    ) -> list[dict[str, Json]]:
        """Each step in an order in which they can run; what a step says is in `decision`, or why there is none in `unknown`."""
        field = str(context["name"])
        shown = {
            name: _Table(name, value) if isinstance(value, Mapping) else value for name, value in self._shown.items()
        }
        base = {
            **shown,
            "field": context,
            "run": {"id": run, "key": key, "field": field, "failed": []},
            "params": params,
        }
        outputs: dict[str, Mapping[str, Any]] = {}
        states: dict[str, StepState] = {}
        told = []
        while waiting := [step for name, step in pipeline.steps.items() if name not in states]:
            step = next(one for one in waiting if all(need in states for need in one.needs))
            entry: dict[str, Json] = {"step": step.name, "kind": step.kind, "needs": list(step.needs)}
            told.append(entry)
            if verdict(step.join, [states[need] for need in step.needs]) is not Verdict.RUN:
                states[step.name], outputs[step.name] = StepState.SKIPPED, {}
                entry["skipped"] = "every step that it needs is skipped"
                continue
            seen = context_of(pipeline, step, base, outputs)
            view = StepView(run, step.name, field, 1, self._digests, step.priority)
            outcome = self._step(step, seen, view, entry)
            states[step.name] = StepState.SKIPPED if "skipped" in entry else StepState.DONE
            outputs[step.name] = _Outputs(step.name)
            if "skipped" in entry:
                outputs[step.name] = {}
            elif isinstance(outcome, Done):
                outputs[step.name] = outcome.outputs
        return told

    def _step(
        self, step: StepDef, context: Mapping[str, Any], view: StepView, entry: dict[str, Json]
    ) -> Outcome | None:
        """The step's first decision, if it can be made; whatever is to be told of it goes into the entry."""
        try:
            if not templates.condition(step.when, context):
                entry["skipped"] = f"its condition does not hold: {step.when}"
                return None
        except NotYet:
            entry["when"] = str(step.when)
        except AglowError as error:
            entry["problem"] = f"when: {error}"
            return None
        filled = _Filled(context)
        if step.pool:
            entry["pool"] = filled.value(step.pool)
        filled.is_known = True  # The pool's name changes no decision.
        entry["params"] = filled.value(step.params)
        if filled.problems:
            entry["problem"] = "; ".join(filled.problems)
            return None
        if not filled.is_known:
            entry["unknown"] = "its parameters rest on what earlier steps put out"
            return None
        handler = self._handlers[step.kind]
        try:
            params = msgspec.convert(entry["params"], handler.Params)
            outcome = handler.start(view, params)
        except msgspec.ValidationError as error:
            entry["problem"] = str(error)
            return None
        except Exception as error:  # A defect of a handler is what a rehearsal is for.
            entry["problem"] = f"its handler raised {type(error).__name__}: {error}"
            return None
        if isinstance(outcome, Failed):
            entry["problem"] = outcome.reason
            return None
        entry["decision"] = _told(outcome, view)
        return outcome


class _Filled:
    """Fills templates in as far as they can be."""

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context
        self.is_known = True
        self.problems: list[str] = []

    def value(self, value: Any) -> Any:
        """The value; what is not known yet is named, and a template that asks more of it stands as it is."""
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        if not isinstance(value, str):
            return value
        try:
            return self._plain(templates.render(value, self._context))
        except NotYet:
            self.is_known = False
        except AglowError as error:
            self.problems.append(str(error))
        return value

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Later):
            self.is_known = False
            return str(value)
        if isinstance(value, Mapping):
            return {key: self._plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(inner) for inner in value]
        if isinstance(value, str) and _NAMED.search(value):
            self.is_known = False
        return value


def told_effects(outcome: Outcome | None) -> list[dict[str, Json]]:
    """The effects of a decision, each with its inputs."""
    if not isinstance(outcome, Do):
        return []
    return [{"kind": effect.kind, "inputs": msgspec.to_builtins(effect)} for effect in outcome.effects]


def _told(outcome: Outcome, view: StepView) -> dict[str, Json]:
    if isinstance(outcome, Do):
        keys = [f"{view.key}/{effect.kind}/{effect.ordinal}" for effect in outcome.effects]
        effects = [{"key": key, **told} for key, told in zip(keys, told_effects(outcome), strict=True)]
        return {"does": "effects", "effects": effects}
    if isinstance(outcome, Wait):
        return {"does": "waits", "subjects": [subject.key for subject in outcome.subjects], "reason": outcome.reason}
    if isinstance(outcome, Spawn):
        return {
            "does": "runs",
            "run": outcome.key,
            "pipeline": outcome.pipeline,
            "shared": outcome.shared,
            "params": outcome.params,
        }
    assert isinstance(outcome, Done), outcome
    return {"does": "ends", "outputs": outcome.outputs}
