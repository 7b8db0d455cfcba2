"""Look which files are there, or how many."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import directories_of, directory, look_into, matching
from aglowd.handlers.missing import Missing, not_enough
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Wait

MAX_LISTED = 100
"""URLs in the outputs of `count_files`."""


class CheckFiles(Handler):
    """Which files lie in a directory, or which of `files` are there; empty ones do not count.

    Fails if fewer than `at_least` are, or more subbands are missing than `missing` allows, unless `required` is false. Outputs: `files` (URLs), `count`, `complete`,
    `missing`: those of `files` that are absent or empty; of a directory, the empty ones that match.
    """

    kind = "check_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str = ""
        files: tuple[str, ...] | None = None
        pattern: str = "*"
        at_least: int | None = None
        required: bool = True
        missing: Missing | None = None

        def __post_init__(self) -> None:
            if bool(self.directory) == (self.files is not None):
                raise ValueError("say either `directory` or `files`")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        named_files = None if params.files is None else sorted(set(params.files))
        try:
            where = [params.directory] if named_files is None else directories_of(named_files)
        except AglowError as error:
            return Failed(str(error), final=True)
        subjects, entries = look_into(where, step.key, seen)
        if entries is None:
            return Wait(subjects, f"looking into {named(where)}", HOUR_S)
        sizes = {file["url"]: file["size_bytes"] for file in entries}
        wanted = [file["url"] for file in matching(entries, params.pattern)] if named_files is None else named_files
        files = [url for url in wanted if sizes.get(url)]
        missing = [url for url in wanted if not sizes.get(url)]
        at_least = params.at_least
        if at_least is None and params.missing is not None:
            at_least = 0  # Which are missing decides.
        elif at_least is None:
            at_least = 1 if named_files is None else len(named_files)
        lacking = not_enough(files, params.missing, wanted)
        complete = len(files) >= at_least and not lacking
        if params.required and len(files) >= at_least and lacking:
            return Failed(f"{named(where)}: {lacking}")
        if params.required and not complete:
            found = f"{len(files)} files" if named_files is not None else f"{len(files)} files like {params.pattern}"
            absent = f"; absent or empty: {named(missing)}" if missing else ""
            return Failed(f"{named(where)} holds {found}; expected at least {at_least}{absent}")
        return Done({"files": files, "count": len(files), "complete": complete, "missing": missing})


class CountFiles(Handler):
    """How many files a directory holds, empty ones among them. Fails if fewer than `minimum` match.

    Outputs: `count`, `size_bytes`, `files`: the first MAX_LISTED of their URLs.
    """

    kind = "count_files"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str
        pattern: str = "*"
        minimum: int = 0

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = directory(params.directory, step.key)
        listing = seen.of(subject)
        if listing is None:
            return Wait((subject,), f"counting the files in {params.directory}", HOUR_S)
        files = matching(listing["files"], params.pattern)
        if len(files) < params.minimum:
            found = "does not exist" if listing["absent"] else f"holds {len(files)} files like {params.pattern}"
            return Failed(f"{params.directory} {found}; expected at least {params.minimum}")
        urls = [file["url"] for file in files[:MAX_LISTED]]
        return Done({"count": len(files), "size_bytes": sum(file["size_bytes"] for file in files), "files": urls})
