"""Remove files of which another copy is verified, each at the moment when it goes (DESIGN's G5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from aglowd.effects.directories import RemoveDirectory
from aglowd.effects.files import RemoveFile
from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import is_below, matching, next_wave, place_of, tree
from aglowd.model import Do, Done, EffectState, Failed, Handler, Outcome, Seen, StepView, Wait


class DeleteFiles(Handler):
    """Remove the files below `directory` that match, or `files`, if each lies below `copies` too, as it does here.

    A file without a copy is kept and fails the step, unless `required` is false. Directories stay, unless
    `empty_directories`: then those in which files were go with them, up to `directory` itself, if nothing else lies there.
    Outputs: `deleted` (URLs; absent already is deleted), `kept`: each with `url` and `why`.
    """

    kind = "delete_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str = ""
        files: tuple[str, ...] | None = None
        pattern: str = "*"
        copies: str = ""
        unsafe_without_copy: bool = False
        required: bool = True
        empty_directories: bool = False

        def __post_init__(self) -> None:
            if not self.directory and self.files is None:
                raise ValueError("say `directory`, or `files`, or both")
            if bool(self.copies) == self.unsafe_without_copy:
                raise ValueError("say where the `copies` are; or, if there need be none, `unsafe_without_copy = true`")
            if self.empty_directories and not self.directory:
                raise ValueError("say the `directory` below which `empty_directories` go")

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
        if params.empty_directories:
            go = _next_directories(seen, params.directory.rstrip("/"), files)
            if go is not None:
                return go
        removals = [record for record in seen.effects if record.kind == RemoveFile.kind]
        kept = [
            {"url": record.inputs["url"], "why": record.reason}
            for record in removals
            if record.state is EffectState.REJECTED
        ]
        if kept and params.required:
            return Failed(f"{len(kept)} of {len(files)} files are kept: {named([one['why'] for one in kept])}")
        gone = [record.inputs["url"] for record in removals if record.state is EffectState.DONE]
        return Done({"deleted": gone, "kept": kept})


def _next_directories(seen: Seen, root: str, files: Iterable[str]) -> Do | None:
    """The next of the directories to remove: the deepest first, for they lie in the others; None when all were asked for."""
    found = {root}
    for url in files:
        while is_below(url := url.rpartition("/")[0], root):
            found.add(url)
    for depth in sorted({url.count("/") for url in found}, reverse=True):
        level = [RemoveDirectory(url=url) for url in sorted(found) if url.count("/") == depth]
        if (wave := next_wave(seen, level, "url")) is not None:
            return wave
    return None
