"""Directories that go when nothing lies in them any more.

What must stay true: nothing but an empty directory ever goes, not even while somebody writes into it. Tools and servers
remove what is in a directory along with it, so it has a name that nobody else knows when it is looked into.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.effects.files import aside_of, name_back
from aglowd.errors import Conflict, Permanent, Temporary
from aglowd.model import Json


class RemoveDirectory(Deed, frozen=True, kw_only=True):
    """Remove a directory if nothing lies in it; result `{"url", "removed"}`. Absent already is removed.

    It is given another name first, so that nobody puts a file into it while it goes.
    """

    kind: ClassVar[str] = "remove_directory"
    url: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_remove(self.url)
        aside = aside_of(self.url, intent.key)
        if await world.storage.stat(aside) is None:  # Else an earlier try came so far.
            entry = await world.storage.stat(self.url)
            if entry is None:
                return {"url": self.url, "removed": True}
            if not entry.is_dir:
                raise Conflict(f"{self.url} is a file, where a directory was expected")
            if await world.storage.list(self.url):
                return {"url": self.url, "removed": False}
            await world.storage.rename(self.url, aside)
        try:
            await world.storage.remove_directory(aside)
        except Permanent as error:  # Something lies in it after all.
            await name_back(world, aside, self.url, error)
            return {"url": self.url, "removed": False}
        except Temporary as error:
            await name_back(world, aside, self.url, error)
            raise
        return {"url": self.url, "removed": True}

    async def find(self, world: World, intent: Intent) -> Json | None:
        for url in (self.url, aside_of(self.url, intent.key)):
            if await world.storage.stat(url) is not None:
                return None
        return {"url": self.url, "removed": True}


DEEDS: tuple[type[Any], ...] = (RemoveDirectory,)
