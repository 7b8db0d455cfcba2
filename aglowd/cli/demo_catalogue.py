"""The catalogues of the demo: what the daemon is told of each, and how the demo's fields come into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from aglowd.errors import AglowError
from aglowd.sim.mariadb import DATABASE, USER, MariaDbMissing, private_mariadb

SELECT = ("SND", "JND")
ASK_REAL_S = 60.0


class DemoCatalogue:
    """One catalogue with the fields of that file."""

    def __init__(self, kind: str, fields_file: Path, state: Path) -> None:
        self.kind = kind
        self.table: dict[str, Any] = {}
        """What stands in the daemon's configuration."""
        self._fields_file = fields_file
        self._state = state
        self._is_filled = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The database itself, where there is one; at the end nothing is left of it but its files."""
        async with AsyncExitStack() as stack:
            if self.kind == "csv":
                self.table = {"path": str(self._fields_file), "select": list(SELECT)}
            elif self.kind == "own":
                self.table = {"path": str(self._state / "catalogue.db"), "select": list(SELECT)}
            else:
                self.table = await self._surveys(stack)
            yield

    async def _surveys(self, stack: AsyncExitStack) -> dict[str, Any]:
        try:
            database = await stack.enter_async_context(private_mariadb(self._state / "mariadb"))
            await database.fill_from(self._fields_file)
        except MariaDbMissing as error:
            raise AglowError(f"--catalogue mysql starts a MariaDB of its own: {error}") from error
        except RuntimeError as error:
            raise AglowError(str(error)) from error
        password = self._state / "surveys.password"
        password.touch(mode=0o600)
        password.write_text(f"{database.password}\n", encoding="utf-8")
        return {
            "socket": str(database.socket),
            "database": DATABASE,
            "user": USER,
            "password_file": str(password),
            "cluster": "demo",
        }

    async def fill(self, socket: Path) -> None:
        """Give the daemon the fields, once, where it keeps them itself."""
        if self.kind != "own" or self._is_filled:
            return
        body = {"path": self._fields_file.name, "text": self._fields_file.read_text(encoding="utf-8")}
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.post(
                "http://aglowd/v1/catalogue/import",
                data=msgspec.json.encode(body),
                timeout=aiohttp.ClientTimeout(ASK_REAL_S),
            ) as reply,
        ):
            answer = await reply.json(content_type=None)
        if reply.status != 200:
            raise AglowError(str(answer["error"]["message"]))
        self._is_filled = True
