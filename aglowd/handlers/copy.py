"""Copy results to the archive, each file verified by size and checksum (AGLOW's copy_to_archive)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import Struct

from aglowd.effects.files import CopyFile, MakeDirectory
from aglowd.handlers.base import failure, named
from aglowd.model import Do, Done, Failed, Handler, Outcome, Seen, StepView


class CopyFiles(Handler):
    """Copy files into one directory, which is made first. Output: `files`: url, size and adler32 of each copy."""

    kind = "copy_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        files: tuple[str, ...]
        directory: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        names = [url.rpartition("/")[2] for url in params.files]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            return Failed(f"several files would have one name in {params.directory}: {named(twice)}", final=True)
        if not seen.effects:
            return Do.all(MakeDirectory(url=params.directory))
        if params.files and not seen.count(CopyFile):
            return Do(
                tuple(
                    CopyFile(source=url, destination=f"{params.directory}/{name}", ordinal=number)
                    for number, (url, name) in enumerate(zip(params.files, names, strict=True))
                )
            )
        return Done({"files": [seen.result(CopyFile, number) for number in range(len(params.files))]})
