"""The effect on the catalogue: a field's status, by compare-and-set, so that nobody's word is overwritten unseen."""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError
from aglowd.model import Json


class WriteStatus(Deed, frozen=True, kw_only=True):
    """Set the field's status, if it still is `expect`; result `{"status"}`. Permanent says what it is instead.

    `of`: the daemon that is gone for good, whose word it may be.
    """

    kind: ClassVar[str] = "write_status"
    field: str
    expect: str
    status: str
    of: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        expect = self.expect
        if intent.is_restored:
            shown, key = await world.catalogue.read_status(self.field)
            if key is not None and key.split("/")[0] == intent.key.split("/")[0]:
                expect = shown  # This run's own word, of the time that the journal lost.
        await world.catalogue.write_status(self.field, expect, self.status, intent.key, self.of)
        return {"status": self.status}

    async def find(self, world: World, intent: Intent) -> Json | None:
        status, key = await world.catalogue.read_status(self.field)
        return {"status": status} if status == self.status and key == intent.key else None

    def adopted(self, ref: str) -> Json:
        if ref != self.status:
            raise AglowError(f"the status that was to be written is {self.status!r}, not {ref!r}; name it as it is")
        return {"status": self.status}


class ReleaseField(WriteStatus, frozen=True, kw_only=True):
    """Give the field back: a status that is news to us as to everybody, so that the field is on offer again."""

    kind: ClassVar[str] = "release_field"


DEEDS: tuple[type[Any], ...] = (WriteStatus, ReleaseField)
