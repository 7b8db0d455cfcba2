"""Run another pipeline as a run of its own, and wait for its end (AGLOW's sub-DAGs)."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import directories_of, look_into, urls_in
from aglowd.model import Done, Failed, Handler, Json, Outcome, Seen, Spawn, StepView, Subject, Wait


class Run(Handler):
    """Start a pipeline, or with `share` join the run that has the same key, definition and parameters.

    Outputs: those of the run. Shared work is done once for all that wait for it, and one retry serves all. What was done
    before this step began is joined if the files that `must_exist` names are there still; if not it is done anew.
    """

    kind = "run"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        pipeline: str
        share: str = ""
        params: dict[str, Json] = {}
        must_exist: tuple[str, ...] = ()

        takes_secrets: ClassVar[frozenset[str]] = frozenset({"params"})

        def __post_init__(self) -> None:
            if self.must_exist and not self.share:
                raise ValueError("`must_exist` goes with `share`: nobody else joins a run of its own")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.pipeline not in step.pipelines:
            return Failed(
                f"there is no pipeline {params.pipeline!r}; known: {', '.join(sorted(step.pipelines))}", final=True
            )
        key = self._key(step, params)
        subject = Subject("run", key)
        ended = seen.of(subject)
        # It was cancelled because nobody waited for it; who joined it on its way out still needs it.
        if ended is None or ended.get("abandoned"):
            return self._spawn(key, params, f"waiting for the run {key}")
        if ended["state"] != "done":
            return Failed(f"the run {ended['run']} {ended['state']}: {ended['reason']}")
        # Who waited for it takes its word: it has just looked itself.
        if params.must_exist and seen.observations[subject.key].at < step.begun:
            try:
                looked = self._look(step, params, seen, subject, ended)
            except AglowError as error:
                return Failed(str(error), final=True)
            if looked is not None:
                return looked
        return Done({**ended["outputs"], "run": ended["run"]})

    def _look(self, step: StepView, params: Any, seen: Seen, subject: Subject, ended: Json) -> Outcome | None:
        """What to do about the files that must exist; None if all are there. AglowError if nobody can tell which they are."""
        what = ", ".join(params.must_exist)
        urls = urls_in(ended["outputs"], params.must_exist)
        where = directories_of(urls)
        subjects, entries = look_into(where, f"{step.key}/{ended['run']}", seen)
        if entries is None:
            # Another one may begin it anew meanwhile: then there is no need to look.
            reason = f"looking whether the {what} of {ended['run']} still exist at {named(where)}"
            return Wait((subject, *subjects), reason, HOUR_S)
        sizes = {file["url"]: file["size_bytes"] for file in entries}
        gone = [url for url in urls if not sizes.get(url)]
        if not gone:
            return None
        reason = f"the {what} at {named(gone)} are gone; {subject.id} runs again"
        return self._spawn(subject.id, params, reason, instead_of=ended["run"])

    def _spawn(self, key: str, params: Any, reason: str, instead_of: str = "") -> Spawn:
        shared = bool(params.share)
        return Spawn(key, params.pipeline, params.params, reason, 24 * HOUR_S, shared=shared, instead_of=instead_of)

    def _key(self, step: StepView, params: Any) -> str:
        if not params.share:
            return f"{step.run}.{step.name}.{step.attempt}"
        same = msgspec.json.encode([step.pipelines[params.pipeline], params.params], order="deterministic")
        return f"{params.share}-{hashlib.blake2b(same, digest_size=4).hexdigest()}"
