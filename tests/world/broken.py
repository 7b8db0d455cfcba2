"""A daemon that does wrong on purpose, in the ways that its first argument names: the judge must convict it of each."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from aglowd.effects import files, jobs, token_archive
from aglowd.handlers import stage
from aglowd.handlers import tokens as token_steps
from aglowd.model import Done
from aglowd.store import db


def submit_twice() -> None:
    """Every submission is carried out two times."""
    once = jobs.SubmitJobs.do

    async def do(self: Any, world: Any, intent: Any) -> Any:
        result = await once(self, world, intent)
        intent.notes.clear()
        await once(self, world, intent)
        return result

    jobs.SubmitJobs.do = do  # type: ignore[method-assign] # this daemon is broken on purpose


def skip_a_subband() -> None:
    """No token is made for the last group of files."""
    all_groups = token_steps.CreateTokensStep._groups

    def groups(self: Any, params: Any) -> Any:
        found = list(all_groups(self, params))
        return iter(found[:-1] if len(found) > 3 else found)

    token_steps.CreateTokensStep._groups = groups  # type: ignore[method-assign] # broken on purpose


def skip_results() -> None:
    """The second pass is given one result of the first, and the others are forgotten."""
    all_groups = token_steps.CreateTokensStep._groups

    def groups(self: Any, params: Any) -> Any:
        return all_groups(self, msgspec.structs.replace(params, files=params.files[:1]))

    token_steps.CreateTokensStep._groups = groups  # type: ignore[method-assign] # broken on purpose


def archive_corrupt() -> None:
    """Copies hold other bytes than their sources, and nobody looks."""

    async def do(self: Any, world: Any, intent: Any) -> Any:
        await world.storage.upload(b"these are not the bytes", self.destination)
        return {"url": self.destination, "size_bytes": 23, "adler32": 0}

    files.CopyFile.do = do  # type: ignore[method-assign] # broken on purpose


def ignore_tape() -> None:
    """Staging is taken for done before it has begun."""

    def react(self: Any, step: Any, params: Any, seen: Any) -> Any:
        return Done({"requests": [], "surls": list(params.surls), "online": len(params.surls), "missing": []})

    stage.Stage.react = react  # type: ignore[method-assign] # broken on purpose


def delete_unarchived() -> None:
    """All tokens are deleted though their archive holds none of them."""

    async def do(self: Any, world: Any, intent: Any) -> Any:
        found = await world.token_base(self.site).get_docs(await world.token_base(self.site).list_ids(self.token_type))
        revisions = {name: document["_rev"] for name, document in found.items() if document is not None}
        written = await files.put_bytes(world, intent, token_archive.pack([]), self.url)
        return {**written, "revisions": revisions}

    token_archive.ArchiveTokens.do = do  # type: ignore[method-assign] # broken on purpose


def drop_wake_up() -> None:
    """What changes at the stager, and where files are, wakes nobody, and no due date saves it."""
    found = db.queries()
    found["waiting_runs"] += " AND :subject NOT LIKE 'staging:%' AND :subject NOT LIKE 'locality:%'"
    found["mark_due"] += (
        " AND NOT EXISTS (SELECT 1 FROM waits AS w WHERE w.run = steps.run AND w.step = steps.name"
        " AND w.active = 1 AND w.subject LIKE 'staging:%')"
    )


WAYS = {
    "submit-twice": submit_twice,
    "skip-a-subband": skip_a_subband,
    "skip-results": skip_results,
    "archive-corrupt": archive_corrupt,
    "ignore-tape": ignore_tape,
    "delete-unarchived": delete_unarchived,
    "drop-wake-up": drop_wake_up,
}

if __name__ == "__main__":
    from aglowd.cli.daemon import main

    for way in sys.argv.pop(1).split(","):
        WAYS[way]()
    main()
