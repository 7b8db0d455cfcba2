"""Pipeline files: from TOML to a validated graph, with all problems of a file told at once.

Whatever a file refers to (fragments, parset templates) is taken in here, so that a definition stands alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from aglowd import references, templates
from aglowd.config import StatusesConfig, holds_password
from aglowd.durations import duration_s
from aglowd.pipeline import Pipeline, StepDef
from aglowd.schedules import Schedule, read_schedule
from aglowd.toml_file import ConfigError, Problem, TomlFile, read_text

JOINS = ("all", "any", "done")
COMMON_TYPES: dict[str, Any] = {
    "needs": tuple[str, ...],
    "join": str,
    "when": str | bool,
    "pool": str,
    "priority": int,
    "retries": int,
    "retry_delay": str | float,
    "timeout": str | float,
}
COMMON = COMMON_TYPES.keys()
MAX_STEPS = 500
"""Of one pipeline, fragments unfolded. The largest that comes with aglowd has some forty."""
MAX_RETRIES = 100
MAX_PRIORITY = 1000
MAX_NAME_CHARS = 64
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_CHARS}}}")
"""A step's name is part of its effects' keys, whose parts are told apart by slashes."""
TABLES = {
    "pipeline": "[pipeline]",
    "steps": "[steps.NAME]",
    "outputs": "[outputs]",
    "schedule": "[schedule]",
    "adopt": "[adopt.STATUS]",
}
ADOPT_ROOTS = {"field", "given", "sites", "route", "config"} | templates.GLOBALS
ROOTS = {"field", "run", "sites", "route", "config", "params", "steps", "last"} | templates.GLOBALS


def load_pipeline(path: Path, kinds: Mapping[str, type[Struct]]) -> Pipeline:
    """The pipeline in that file, checked against the step kinds' parameters; ConfigError with all its problems."""
    try:
        return _Loader(path, kinds).load()
    except RecursionError as error:
        raise ConfigError([Problem(str(path), 1, "it is nested too deep")]) from error


class _Loader:
    def __init__(self, path: Path, kinds: Mapping[str, type[Struct]]) -> None:
        self.path = path
        self.kinds = kinds
        self.file = TomlFile.read(path)
        self.problems: list[Problem] = []
        self.steps: dict[str, StepDef] = {}
        self.files: dict[str, tuple[TomlFile, tuple[str, ...]]] = {}
        self.places: dict[tuple[str, str], tuple[TomlFile, tuple[str, ...]]] = {}
        self.exits: dict[str, str] = {}

    def load(self) -> Pipeline:
        data = self.file.data
        for key in sorted(data.keys() - TABLES.keys()):
            self._problem((key,), f"unknown table {key!r}", f"known: {', '.join(TABLES.values())}")
        head = self._table(data, "pipeline", self.file)
        for key in sorted(head.keys() - {"name", "params"}):
            self._problem(("pipeline", key), f"unknown key {key!r}", "known: name, params")
        for name, table in self._table(data, "steps", self.file).items():
            self._step(name, table)
        if len(self.steps) > MAX_STEPS:
            self._problem(("steps",), f"there are {len(self.steps)} steps", f"at most {MAX_STEPS}; split the pipeline")
            raise ConfigError(list(dict.fromkeys(self.problems)))
        if not self.steps and not self.problems:
            self._problem(("steps",), "the pipeline has no steps", "add a table such as [steps.claim]")
        self._resolve_needs()
        params: tuple[str, ...] = self._typed(head, "params", tuple[str, ...], ())
        pipeline = Pipeline(
            name=self._typed(head, "name", str, self.path.stem),
            steps=self.steps,
            params=params,
            outputs=self._table(data, "outputs", self.file),
            aliases=self.exits,
            schedule=self._schedule(params),
            adopt=self._table(data, "adopt", self.file),
        )
        self._check_adopt(pipeline)
        self._find_cycles()
        for step in self.steps.values():
            self._check(pipeline, step)
        self._check_names(pipeline, ("outputs",), self.file, pipeline.outputs, set(self.steps), None)
        self._find_dead(pipeline)
        if self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        # Where a step stands in which file is for messages; it makes no other pipeline.
        bare = {name: msgspec.structs.replace(step, file="", line=0) for name, step in self.steps.items()}
        same = msgspec.structs.replace(pipeline, steps=bare, schedule=None, adopt={})
        digest = hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=8).hexdigest()
        return msgspec.structs.replace(pipeline, digest=digest)

    def _problem(self, keys: tuple[str, ...], what: str, hint: str = "", file: TomlFile | None = None) -> None:
        self.problems.append((file or self.file).problem(keys, what, hint))

    def _table(self, data: dict[str, Any], key: str, file: TomlFile) -> dict[str, Any]:
        """The table of that name, empty if there is none or if it is something else, which is a problem."""
        value = data.get(key, {})
        if isinstance(value, dict):
            return value
        self._problem((key,), f"{key} is not a table", f"write [{key}]", file)
        return {}

    def _typed(self, head: dict[str, Any], key: str, kind: Any, default: Any) -> Any:
        try:
            return msgspec.convert(head.get(key, default), kind)
        except msgspec.ValidationError as error:
            self._problem(("pipeline", key), f"pipeline.{key}: {error}")
            return default

    def _schedule(self, params: tuple[str, ...]) -> Schedule | None:
        if "schedule" not in self.file.data:
            return None
        schedule, problems = read_schedule(self._table(self.file.data, "schedule", self.file), params)
        for keys, what, hint in problems:
            self._problem(("schedule", *keys), f"schedule: {what}", hint)
        if schedule is not None and templates.is_template(schedule.params):
            self._problem(
                ("schedule", "params"), "schedule: a template in params", "there is nothing yet to fill it in"
            )
        return schedule

    def _step(self, name: str, table: Any) -> None:
        where = ("steps", name)
        if not isinstance(table, dict):
            self._problem(where, f"step {name!r} is not a table", f"write [steps.{name}]")
        elif "use" in table:
            self._fragment(name, table)
        else:
            self._add(name, table, self._common(name, table, self.file, where), self.file, where)

    def _common(self, name: str, table: dict[str, Any], file: TomlFile, where: tuple[str, ...]) -> dict[str, Any]:
        """The common keys of that table as fields of a StepDef; what is wrong with one is told at its line."""
        common: dict[str, Any] = {}
        for key in COMMON & table.keys():
            try:
                value: Any = msgspec.convert(table[key], COMMON_TYPES[key])
                if key in ("retry_delay", "timeout"):
                    common[f"{key}_s"] = duration_s(value)
                else:
                    common[key] = value
            except (msgspec.ValidationError, ValueError) as error:
                self._problem((*where, key), f"step {name!r}, {key}: {error}", file=file)
        if common.get("join", "all") not in JOINS:
            what = f"step {name!r}: unknown join {common.pop('join')!r}"
            self._problem((*where, "join"), what, f"one of {', '.join(JOINS)}", file)
        retries = common.get("retries", 0)
        if not 0 <= retries <= MAX_RETRIES:
            what = "cannot be negative" if retries < 0 else f"are at most {MAX_RETRIES}"
            self._problem((*where, "retries"), f"step {name!r}: retries {what}", file=file)
        if abs(common.get("priority", 0)) > MAX_PRIORITY:
            what = f"step {name!r}: a priority is from {-MAX_PRIORITY} to {MAX_PRIORITY}"
            self._problem((*where, "priority"), what, file=file)
        return common

    def _add(
        self,
        name: str,
        table: dict[str, Any],
        common: dict[str, Any],
        file: TomlFile,
        where: tuple[str, ...],
        use: dict[str, Any] | None = None,
        local: dict[str, str] | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            what = f"{name[:80]!r} is no name of a step"
            self._problem(where, what, f"at most {MAX_NAME_CHARS} letters, digits, _ and -", file)
        if holds_password([*table.values(), use]):
            hint = "it would be shown wherever the step is; configure a credential"
            self._problem(where, f"step {name!r}: a URL must not carry a password", hint, file)
        if name in self.steps:
            self._problem(
                where, f"there are two steps {name!r}", "rename one; a fragment's steps are called NAME_STEP", file
            )
        kind = table.get("kind")
        if not isinstance(kind, str):
            self._problem(where, f"step {name!r} has no kind", f"one of {', '.join(sorted(self.kinds))}", file)
            kind = ""
        own = table.keys() - COMMON - {"kind"}
        params = {key: self._embedded(table[key], file, (*where, key)) for key in table if key in own}
        self.files[name] = (file, where)
        self.steps[name] = StepDef(
            name=name,
            kind=kind,
            params=params,
            use=use,
            local=local or {},
            file=file.path,
            line=file.line(*where),
            **common,
        )

    def _embedded(self, value: Any, file: TomlFile, where: tuple[str, ...]) -> Any:
        """`{ file = "x.parset" }` becomes that file's text (a .json its value), so that the definition stands alone."""
        if isinstance(value, dict) and value.keys() == {"file"}:
            name = str(value["file"])
            try:
                text = read_text(Path(file.path).parent / name)
                return msgspec.json.decode(text) if name.endswith(".json") else text
            except (OSError, ValueError, RecursionError) as error:
                self._problem(where, f"the file {name!r} cannot be read: {error}", file=file)
        elif isinstance(value, dict):
            return {key: self._embedded(inner, file, (*where, key)) for key, inner in value.items()}
        return value

    def _fragment(self, name: str, table: dict[str, Any]) -> None:
        where = ("steps", name)
        path = self.path.parent / "fragments" / f"{table['use']}.toml"
        if not _NAME.fullmatch(str(table["use"])) or not path.exists():
            fragments = sorted(found.stem for found in path.parent.glob("*.toml"))
            self._problem(
                (*where, "use"), f"unknown fragment {table['use']!r}", f"one of {', '.join(fragments) or 'none'}"
            )
            return
        try:
            fragment = TomlFile.read(path)
        except ConfigError as error:
            self.problems.extend(error.problems)
            return
        defaults = self._table(fragment.data, "params", fragment)
        required = self._required(fragment)
        args = {key: value for key, value in table.items() if key not in COMMON and key != "use"}
        known = ", ".join(sorted({*defaults, *required}))
        for key in sorted(args.keys() - defaults.keys() - required):
            what = f"step {name!r}: fragment {table['use']!r} takes no {key!r}"
            self._problem((*where, key), what, f"it takes {known}")
        for key in sorted(required - args.keys()):
            self._problem(where, f"step {name!r}: fragment {table['use']!r} needs {key!r}")
        use = {key: self._embedded(value, self.file, (*where, key)) for key, value in {**defaults, **args}.items()}
        outer = self._common(name, table, self.file, where)
        inner: dict[str, dict[str, Any]] = {}
        for step, body in self._table(fragment.data, "steps", fragment).items():
            if isinstance(body, dict):
                inner[step] = body
            else:
                self._problem(("steps", step), f"step {step!r} is not a table", f"write [steps.{step}]", fragment)
        local = {step: f"{name}_{step}" for step in inner}
        commons = {step: self._common(local[step], body, fragment, ("steps", step)) for step, body in inner.items()}
        needed = {need for common in commons.values() for need in common.get("needs", ())}
        exits = [step for step in inner if step not in needed]
        if len(exits) != 1:
            self._problem(("steps",), f"fragment {table['use']!r} must end in one step, not in {exits}", file=fragment)
            return
        self.exits[name] = local[exits[0]]
        for step, body in inner.items():
            common = commons[step]
            begins = not common.get("needs")
            taken = {key: value for key, value in outer.items() if begins or key not in ("needs", "join", "when")}
            if not begins:
                common["needs"] = tuple(local.get(need, need) for need in common["needs"])
            for key in COMMON & table.keys():
                if begins or key not in ("needs", "join", "when"):
                    self.places[local[step], key] = (self.file, (*where, key))
            self._add(local[step], body, {**common, **taken}, fragment, ("steps", step), use, local)

    def _required(self, fragment: TomlFile) -> set[str]:
        value = self._table(fragment.data, "fragment", fragment).get("required", [])
        if isinstance(value, list) and all(isinstance(key, str) for key in value):
            return set(value)
        self._problem(("fragment", "required"), "fragment.required is not a list of names", file=fragment)
        return set()

    def _place(self, step: str, key: str) -> tuple[TomlFile, tuple[str, ...]]:
        """Where a common key of the step was written: a fragment's steps take some from the step that uses it."""
        file, where = self.files[step]
        return self.places.get((step, key), (file, (*where, key)))

    def _resolve_needs(self) -> None:
        for name, step in self.steps.items():
            needs = tuple(dict.fromkeys(self.exits.get(need, need) for need in step.needs))
            self.steps[name] = msgspec.structs.replace(step, needs=needs)
            file, where = self._place(name, "needs")
            for need in needs:
                if need not in self.steps:
                    known = ", ".join(sorted({*self.steps, *self.exits} - {name}))
                    self._problem(where, f"step {name!r} needs {need!r}, which is no step", f"known: {known}", file)

    def _find_cycles(self) -> None:
        open_, closed = set[str](), set[str]()
        found: list[list[str]] = []

        def visit(name: str, trail: list[str]) -> None:
            if name in open_:
                found.append([*trail[trail.index(name) :], name])
            elif name not in closed:
                open_.add(name)
                for need in self.steps[name].needs:
                    if need in self.steps:
                        visit(need, [*trail, name])
                open_.discard(name)
                closed.add(name)

        for name in self.steps:
            visit(name, [])
        for cycle in found:
            file, where = self.files[cycle[0]]
            self._problem(
                (*where, "needs"), f"steps need each other in a circle: {' → '.join(cycle)}", "remove one need", file
            )

    def _check(self, pipeline: Pipeline, step: StepDef) -> None:
        file, where = self.files[step.name]
        if step.kind and step.kind not in self.kinds:
            hint = f"one of {', '.join(sorted(self.kinds))}"
            self._problem((*where, "kind"), f"step {step.name!r}: unknown kind {step.kind!r}", hint, file)
        elif step.kind:
            self._check_params(step, file, where)
        known = pipeline.ancestors(step.name)
        for key, value in step.params.items():
            self._check_names(pipeline, (*where, key), file, value, known, step)
        when_file, when = self._place(step.name, "when")
        self._check_names(pipeline, when, when_file, step.when, known, step, is_condition=True)
        pool_file, pool = self._place(step.name, "pool")
        self._check_names(pipeline, pool, pool_file, step.pool, known, step)
        if step.use is not None and step.name in self.exits.values():
            outer = msgspec.structs.replace(step, use=None, local={})
            alias = next(alias for alias, exit_ in self.exits.items() if exit_ == step.name)
            before = known - set(step.local.values())
            for key, value in step.use.items():
                self._check_names(pipeline, ("steps", alias, key), self.file, value, before, outer)

    def _check_params(self, step: StepDef, file: TomlFile, where: tuple[str, ...]) -> None:
        params = self.kinds[step.kind]
        fields = {entry.encode_name: entry for entry in msgspec.structs.fields(params)}
        hints = get_type_hints(params)
        for key in step.params.keys() - fields.keys():
            hint = f"it takes {', '.join(sorted(fields)) or 'no parameters'}"
            self._problem((*where, key), f"step {step.name!r}: kind {step.kind!r} takes no {key!r}", hint, file)
        wrong = references.misplaced(step.params, getattr(params, "takes_secrets", ()))
        if wrong:
            self._problem(where, f"step {step.name!r}: {wrong}", file=file)
        for key, entry in fields.items():
            if key not in step.params:
                if entry.required:
                    self._problem(where, f"step {step.name!r}: kind {step.kind!r} needs {key!r}", file=file)
            elif not templates.is_template(step.params[key]):
                try:
                    msgspec.convert(step.params[key], hints[entry.name])
                except msgspec.ValidationError as error:
                    self._problem((*where, key), f"step {step.name!r}, {key}: {error}", file=file)
                    return
        if not templates.is_template(step.params) and not step.params.keys() - fields.keys():
            # What only makes sense as a whole, or is more than a type, the struct itself says.
            try:
                msgspec.convert(step.params, params)
            except msgspec.ValidationError as error:
                if "missing required field" not in str(error):
                    self._problem(where, f"step {step.name!r}: {error}", file=file)

    def _check_names(
        self,
        pipeline: Pipeline,
        where: tuple[str, ...],
        file: TomlFile,
        value: Any,
        known: set[str],
        step: StepDef | None,
        *,
        is_condition: bool = False,
    ) -> None:
        try:
            used = set(templates.condition_names(value) if is_condition else templates.names(value))
        except templates.TemplateProblem as error:
            self._problem(where, f"the template cannot be read: {error}", file=file)
            return
        local = step.local if step is not None else {}
        use = step.use if step is not None else None
        for name in sorted(used):
            root, rest = name[0], name[1:]
            if root not in ROOTS and not (root == "use" and use is not None):
                self._problem(where, f"undefined name {root!r}", f"known: {', '.join(sorted(ROOTS))}", file)
            elif root == "params" and rest and rest[0] not in pipeline.params:
                self._problem(
                    where, f"undefined name params.{rest[0]}", f"[pipeline] params = {list(pipeline.params)}", file
                )
            elif root == "use" and rest and use is not None and rest[0] not in use:
                self._problem(where, f"undefined name use.{rest[0]}", f"known: {', '.join(sorted(use))}", file)
            elif root == "steps" and rest:
                target = self.exits.get(rest[0], local.get(rest[0], rest[0]))
                if target not in pipeline.steps:
                    self._problem(
                        where, f"undefined name steps.{rest[0]}", f"known: {', '.join(sorted(pipeline.steps))}", file
                    )
                elif target not in known:
                    owner = step.name if step is not None else "outputs"
                    hint = f"add {rest[0]!r} to the needs of {owner!r}"
                    self._problem(where, f"steps.{rest[0]} may not have ended when {owner!r} runs", hint, file)

    def _check_adopt(self, pipeline: Pipeline) -> None:
        """What is done of a field that is taken over: words of the catalogue that pipelines say, steps, and their outputs."""
        words = StatusesConfig.__struct_fields__
        tables: dict[str, Any] = pipeline.adopt
        for word, steps in tables.items():
            if word not in words:
                self._problem(("adopt", word), f"adopt: unknown status {word!r}", f"one of {', '.join(words)}")
            elif not isinstance(steps, dict):
                self._problem(("adopt", word), f"adopt.{word} is not a table", f"write [adopt.{word}]")
            else:
                for name, outputs in steps.items():
                    self._check_adopted(pipeline, ("adopt", word, name), name, outputs)

    def _check_adopted(self, pipeline: Pipeline, where: tuple[str, ...], name: str, outputs: Any) -> None:
        if name not in pipeline.steps:
            self._problem(where, f"adopt: there is no step {name!r}", f"one of {', '.join(sorted(pipeline.steps))}")
        elif not isinstance(outputs, dict):
            self._problem(
                where, f"adopt: {name} is not a table", 'write the step\'s outputs: { status = "CCC" }, or {}'
            )
        else:
            try:
                roots = {used[0] for used in templates.names(outputs)}
            except templates.TemplateProblem as error:
                self._problem(where, f"the template cannot be read: {error}")
                return
            for root in sorted(roots - ADOPT_ROOTS):
                self._problem(where, f"undefined name {root!r}", f"known: {', '.join(sorted(ADOPT_ROOTS))}")

    def _find_dead(self, pipeline: Pipeline) -> None:
        """A step that no run can ever reach is a mistake in the file."""
        dead: set[str] = set()
        before = -1
        while len(dead) != before:
            before = len(dead)
            for name, step in pipeline.steps.items():
                if step.when is False or (step.needs and step.join != "done" and dead.issuperset(step.needs)):
                    dead.add(name)
        for name in sorted(dead):
            file, where = self.files[name]
            reason = "its when is false" if pipeline.steps[name].when is False else "none of its needs can ever run"
            self._problem(where, f"step {name!r} can never run: {reason}", "remove it", file)
