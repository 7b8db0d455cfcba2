"""Remove files of which another copy is verified, each at the moment when it goes (DESIGN's G5)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.files import RemoveFile
from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import matching, next_wave, place_of, tree
from aglowd.model import Done, EffectState, Failed, Handler, Outcome, Seen, StepView, Wait


class DeleteFiles(Handler):
    """Remove the files below `directory` that match, or `files`, if each lies below `copies` too, as it does here.

    A file without a copy is kept and fails the step, unless `required` is false. Directories stay. Outputs: `deleted`
    (URLs; absent already is deleted), `kept`: each with `url` and `why`.
    """

    kind = "delete_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str = ""
        files: tuple[str, ...] | None = None
        pattern: str = "*"
        copies: str = ""
        unsafe_without_copy: bool = False
        required: bool = True

        def __post_init__(self) -> None:
            if not self.directory and self.files is None:
                raise ValueError("say `directory`, or `files`, or both")
            if bool(self.copies) == self.unsafe_without_copy:
                raise ValueError("say where the `copies` are; or, if there need be none, `unsafe_without_copy = true`")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.files is None:
            subject = tree(params.directory, step.key)
            listing = seen.of(subject)
            if listing is None:
                return Wait((subject,), f"looking what lies below {params.directory}", HOUR_S)
            if listing["problem"]:
                return Failed(listing["problem"])
            files = [file["url"] for file in matching(listing["files"], params.pattern)]
        else:
            files = sorted(set(params.files))
        effects = [
            RemoveFile(
                url=url,
                copy=place_of(url, params.directory, params.copies) if params.copies else "",
                unsafe_without_copy=params.unsafe_without_copy,
            )
            for url in files
        ]
        wave = next_wave(seen, effects, "url")
        if wave is not None:
            return wave
        kept = [
            {"url": record.inputs["url"], "why": record.reason}
            for record in seen.effects
            if record.state is EffectState.REJECTED
        ]
        if kept and params.required:
            return Failed(f"{len(kept)} of {len(files)} files are kept: {named([one['why'] for one in kept])}")
        gone = [record.inputs["url"] for record in seen.effects if record.state is EffectState.DONE]
        return Done({"deleted": gone, "kept": kept})
