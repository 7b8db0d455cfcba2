"""Tokens as the tests of deeds make them, and their archive."""

from __future__ import annotations

from typing import Any

from aglowd.effects.token_archive import ArchiveTokens
from aglowd.effects.tokens import AttachFiles, CreateTokens

from .outside import KEY, Outside

TOKENS: dict[str, dict[str, Any]] = {
    name: {"_id": name, "type": "t", "lock": 0, "done": 0, "status": "queued"} for name in ("t:1", "t:2", "t:3")
}
CREATE = CreateTokens(token_type="t", tokens=TOKENS)
ATTACH = AttachFiles(
    own={"t:1": {"srm.txt": "one\n"}, "t:2": {"srm.txt": "two\n"}, "t:3": {}}, shared={"a.parset": "é = 1\n"}
)


async def make_tokens(outside: Outside) -> None:
    await CREATE.do(outside.world, outside.intent())
    outside.couch.writes.clear()


async def archive(outside: Outside, name: str = "t.tar.gz", key: str = KEY) -> dict[str, Any]:
    effect = ArchiveTokens(token_type="t", url=outside.url(name))
    found: dict[str, Any] = await effect.do(outside.world, outside.intent(key=key))
    return found
