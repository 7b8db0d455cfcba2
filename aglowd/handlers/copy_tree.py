"""Copy a directory with all below it (AGLOW's copy_to_archive), so that a second try copies only what is not there."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import Struct

from aglowd.effects.files import CopyFile, MakeDirectory
from aglowd.handlers.base import HOUR_S, failure, named
from aglowd.handlers.files import is_below, matching, next_wave, place_of, tree
from aglowd.model import Done, EffectState, Failed, Handler, Outcome, Seen, StepView, Wait


class CopyTree(Handler):
    """Copy the files below `source` that match, or `files`, to the same places below `directory`, some at a time.

    What lies there with the same bytes is not copied again; what differs fails the step and is left alone. Outputs:
    `copied` and `skipped` (URLs of the copies, new and found), `size_bytes` of both, `directory`.
    """

    kind = "copy_tree"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str
        source: str = ""
        files: tuple[str, ...] | None = None
        pattern: str = "*"

        def __post_init__(self) -> None:
            if not self.source and self.files is None:
                raise ValueError("say `source`, or `files`, or both")
            if self.source and is_below(f"{self.directory}/", self.source):
                raise ValueError(f"{self.directory} lies below {self.source}: the copies would be copied")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.files is None:
            subject = tree(params.source, step.key)
            listing = seen.of(subject)
            if listing is None:
                return Wait((subject,), f"looking what lies below {params.source}", HOUR_S)
            if listing["problem"] or listing["absent"]:
                return Failed(listing["problem"] or f"{params.source} does not exist")
            files = [file["url"] for file in matching(listing["files"], params.pattern)]
        else:
            files = sorted(set(params.files))
        places = {url: place_of(url, params.source, params.directory) for url in files}
        twice = [place for place, count in Counter(places.values()).items() if count > 1]
        if twice:
            return Failed(f"several files would be copied to {named(twice)}", final=True)
        return _carry_on(params.directory.rstrip("/"), places, seen)


def _carry_on(directory: str, places: dict[str, str], seen: Seen) -> Outcome:
    """First the directories, then the files; a wave ends before it is told what went wrong in it."""
    copies = [record for record in seen.effects if record.kind == CopyFile.kind]
    refused = [record.reason for record in copies if record.state is EffectState.REJECTED]
    if refused:
        return Failed(f"{len(refused)} of {len(places)} files cannot be copied: {named(refused)}")
    failed = failure(seen)
    if failed is not None:
        return failed
    parents = {directory, *(place.rpartition("/")[0] for place in places.values())}
    leaves = [url for url in sorted(parents) if not any(is_below(other, url) for other in parents)]
    wave = next_wave(seen, [MakeDirectory(url=url) for url in leaves], "url") or next_wave(
        seen, [CopyFile(source=url, destination=place) for url, place in places.items()], "destination"
    )
    if wave is not None:
        return wave
    results = [record.result for record in copies]
    return Done(
        {
            "copied": [result["url"] for result in results if result["copied"]],
            "skipped": [result["url"] for result in results if not result["copied"]],
            "size_bytes": sum(result["size_bytes"] for result in results),
            "directory": directory,
        }
    )
