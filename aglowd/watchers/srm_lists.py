"""SRM lists: which files a field has, as its operators wrote them down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from aglowd.config import Config
from aglowd.crash import seam
from aglowd.effects.base import World
from aglowd.errors import Temporary
from aglowd.grid.surl import SurlListError, read_srm_list
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.threads import Threads
from aglowd.watchers.base import Observations, Watcher

MAX_LIST_BYTES = 16 * 1024 * 1024


class SrmLists(Watcher):
    """`srm_list:<occasion>` (args: path) → obsid, site, surls, subbands; or `problems`, each with its line."""

    kind = "srm_list"

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._threads = Threads("the SRM lists")

    @staticmethod
    def poll(config: Config) -> str:
        return config.catalogue.poll

    @seam
    async def look(self, subjects: Sequence[Subject]) -> Observations:
        paths = list(dict.fromkeys(subject.args["path"] for subject in subjects))
        found = await asyncio.gather(
            *(self._threads.run(partial(read_list, path)) for path in paths), return_exceptions=True
        )
        lists: dict[str, Json] = {}
        for path, content in zip(paths, found, strict=True):
            if isinstance(content, TimeoutError):  # One list that hangs keeps nobody else's back.
                self.log.warning("list_hangs", path=path, error=str(content))
            elif isinstance(content, BaseException):
                raise content
            else:
                lists[path] = content
        if not lists:
            raise Temporary(f"no SRM list can be read: {found[0]}")
        return [(subject, lists[subject.args["path"]]) for subject in subjects if subject.args["path"] in lists]


def read_list(path: str) -> Json:
    """What the list says, or what is wrong with it. Never raises: a bad list is a fact about one field."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            return {"problems": [f"{path}:1: the list is longer than {MAX_LIST_BYTES} bytes"]}
        found = read_srm_list(data.decode("utf-8"), path)
    except SurlListError as error:
        return {"problems": list(error.problems)}
    except (OSError, UnicodeDecodeError) as error:
        return {"problems": [f"{path}:1: the list cannot be read: {error}; expected a text file with one SURL a line"]}
    return {
        "path": found.path,
        "obsid": found.obsid,
        "site": found.site,
        "surls": list(found.surls),
        "subbands": list(found.subbands),
    }
