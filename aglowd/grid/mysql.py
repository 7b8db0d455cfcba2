"""A connection to a MySQL or MariaDB server, through an SSH tunnel if need be, and what its errors mean.

What must stay true: no statement is waited for without a limit of our own; a connection on which something was cancelled,
lost or left open is never used again; a write of which the answer was lost is Unknown. Neither library is imported before
the first connection: they take longer than all the rest of the start. Error numbers: MySQL's server error reference,
MariaDB's error codes, and those of the client (2000 and up), which asyncmy uses as they are.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.words import quoted

CONNECT_REAL_S = 20.0
STATEMENT_REAL_S = 30.0
"""Real seconds for one statement; the server gives up on a lock before."""
LOCK_WAIT_S = 10
"""Seconds for which the server waits for a row or a table that somebody else holds."""
WAIT_REAL_S = 60.0
"""Real seconds for which one waits for those who asked before."""
IDLE_REAL_S = 30.0
"""After so long without a question it is tried first whether the connection still is one."""
KEEPALIVE_REAL_S = 30.0

WRONG_LOGIN = frozenset({1045, 1698})
NOT_NOW = frozenset({1020, 1040, 1129, 1158, 1161, 1203, 1205, 1213, 1226, 1290, 1412, 1615, 1836, 2002, 2003})
"""The server did nothing: changed meanwhile, too many connections, a lock or a deadlock, read only for now, not there."""
NEVER = frozenset({
    1044, 1142, 1143, 1227, 1370,  # We may not.
    1049, 1054, 1064, 1109, 1146,  # There is no such database, column or table; or it is no SQL for this server.
    1048, 1062, 1264, 1265, 1292, 1364, 1366, 1406, 1526, 3819, 4025,  # No value for that column.
})  # fmt: skip
"""The server did nothing and will do nothing."""


class Place(Struct, frozen=True):
    """Where the server listens, as seen from the host of the tunnel if there is one. With a `socket` host and port are unused."""

    host: str
    port: int
    database: str
    socket: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the database {self.database} at {self.socket or f'{self.host}:{self.port}'}"


class Tunnel(Struct, frozen=True):
    """Through which host the server is reached by SSH; what is empty is as in the user's own SSH configuration."""

    host: str
    user: str = ""
    key_file: str = ""
    known_hosts: str = ""
    port: int = 0


class Answer(Struct, frozen=True):
    """The rows of an answer, and how many rows the statement found."""

    rows: Sequence[Sequence[Any]]
    count: int


def failure_of(error: BaseException, what: str, *, is_write: bool) -> OutsideError:
    """Which of the three an error of the client is, for a statement that may have changed something or not."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    said = str(error.args[1]) if number and len(error.args) > 1 else str(error) or type(error).__name__
    text = f"{what}: {quoted(said)}{f' (error {number})' if number else ''}"
    if number in NEVER:
        return Permanent(text)
    if number in NOT_NOW or number in WRONG_LOGIN:
        return Temporary(text)
    return Unknown(text) if is_write else Temporary(text)


class Session:
    """The only user of a connection. `is_at_rest`: nothing is under way or left open on it."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._name = name
        self.is_at_rest = True

    async def run(self, sql: str, *values: object, is_write: bool = False) -> Answer:
        """The answer to one statement; a failure, a cancellation or a lost answer ends the connection with the session."""
        self.is_at_rest = False
        try:
            async with asyncio.timeout(STATEMENT_REAL_S):
                async with self._connection.cursor() as cursor:
                    count = await cursor.execute(sql, values or None)
                    rows = await cursor.fetchall() if cursor.description else ()
        except TimeoutError as error:
            text = f"{self._name}: no answer within {STATEMENT_REAL_S:g} s"
            raise Unknown(text) if is_write else Temporary(text) from error
        except Exception as error:  # Whatever the client makes of an answer that it does not understand, too.
            raise failure_of(error, self._name, is_write=is_write) from error
        self.is_at_rest = True
        return Answer(rows, int(count or 0))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing. What raises Permanent in it has changed nothing; a commit that got no answer is Unknown."""
        await self.run("START TRANSACTION")
        try:
            yield
        except Permanent:
            if self.is_at_rest:
                await self.run("ROLLBACK")
            raise
        except BaseException:
            self.is_at_rest = False
            raise
        await self.run("COMMIT", is_write=True)


class MySql:
    """One connection to that server, made when it is wanted. Everything raises the three of aglowd.errors."""

    def __init__(self, site: Site, credential: Credential, place: Place, tunnel: Tunnel | None = None) -> None:
        self.place = place
        self._site = site
        self._credential = credential
        self._tunnel = _Forwarding(tunnel, place) if tunnel is not None else None
        self._lock = asyncio.Lock()
        self._connection: Any = None
        self._used_at = 0.0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The connection for oneself; it is made anew when the last user did not leave it at rest."""
        async with self._site.slot():
            try:
                async with asyncio.timeout(WAIT_REAL_S):
                    await self._lock.acquire()
            except TimeoutError as error:
                raise Temporary(f"{self.place.name}: who asked before has no answer yet") from error
            try:
                session = Session(await self._connected(), self.place.name)
                try:
                    yield session
                finally:
                    self._used_at = time.monotonic()
                    if not session.is_at_rest:
                        self._drop()
            finally:
                self._lock.release()

    async def close(self) -> None:
        """Say goodbye to the server and close the tunnel."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(Exception):
                    async with asyncio.timeout(1.0):
                        await connection.ensure_closed()
                connection.close()
            if self._tunnel is not None:
                await self._tunnel.close()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connected(self) -> Any:
        if self._connection is not None and time.monotonic() - self._used_at > IDLE_REAL_S:
            try:
                async with asyncio.timeout(CONNECT_REAL_S):
                    await self._connection.ping(reconnect=False)
            except Exception:
                self._drop()
        if self._connection is None:
            self._credential.check()
            try:
                async with asyncio.timeout(CONNECT_REAL_S):
                    self._connection = await self._connect()
            except TimeoutError as error:
                raise Temporary(f"{self.place.name}: no connection within {CONNECT_REAL_S:g} s") from error
        return self._connection

    async def _connect(self) -> Any:
        place, credential = self.place, self._credential
        host, port = place.host, place.port
        if self._tunnel is not None:
            host, port = "127.0.0.1", await self._tunnel.port()
        asyncmy = await asyncio.to_thread(importlib.import_module, "asyncmy")
        client = await asyncio.to_thread(importlib.import_module, "asyncmy.constants.CLIENT")
        try:
            return await asyncmy.connect(
                user=credential.user or "",
                password=(credential.password or "").encode(),  # As text it may hold the letters of Latin 1 only.
                host=host,
                port=port,
                unix_socket=place.socket or None,
                database=place.database,
                client_flag=client.FOUND_ROWS,  # A row that has the value already counts as found.
                init_command=f"SET SESSION lock_wait_timeout = {LOCK_WAIT_S}, innodb_lock_wait_timeout = {LOCK_WAIT_S}",
                autocommit=True,
                program_name="aglowd",
                connect_timeout=CONNECT_REAL_S,
            )
        except Exception as error:
            failed = failure_of(error, place.name, is_write=False)
            if error.args and error.args[0] in WRONG_LOGIN:
                reason = f"refused by {place.name} (error {error.args[0]})"
                credential.freeze(reason)
                raise Temporary(f"credential {credential.name} was {reason}; renew it") from error
            raise type(failed)(credential.redact(str(failed))) from error


class _Forwarding:
    """A port of this host, picked by the system, behind which the server is."""

    def __init__(self, tunnel: Tunnel, place: Place) -> None:
        self._tunnel = tunnel
        self._place = place
        self._connection: Any = None
        self._listener: Any = None

    async def port(self) -> int:
        """The port; the tunnel is dug anew when it has fallen in."""
        if self._connection is not None and self._connection.is_closed():
            await self.close()
        if self._connection is None:
            await self._open()
        return int(self._listener.get_port())

    async def _open(self) -> None:
        tunnel = self._tunnel
        asyncssh = await asyncio.to_thread(importlib.import_module, "asyncssh")
        options: dict[str, Any] = {"keepalive_interval": KEEPALIVE_REAL_S, "connect_timeout": CONNECT_REAL_S}
        given = {"username": tunnel.user, "port": tunnel.port, "known_hosts": tunnel.known_hosts}
        options |= {name: value for name, value in given.items() if value}
        if tunnel.key_file:
            options["client_keys"] = [tunnel.key_file]
        connection = None
        try:
            connection = await asyncssh.connect(tunnel.host, **options)
            self._listener = await connection.forward_local_port("127.0.0.1", 0, self._place.host, self._place.port)
        except (asyncssh.Error, OSError, ValueError) as error:
            if connection is not None:
                connection.abort()
            reason = quoted(str(error)) or type(error).__name__
            raise Temporary(f"{self._place.name}: no SSH tunnel through {tunnel.host}: {reason}") from error
        except BaseException:
            if connection is not None:
                connection.abort()
            raise
        self._connection = connection

    async def close(self) -> None:
        """Fill it in."""
        connection, self._connection, self._listener = self._connection, None, None
        if connection is not None:
            connection.close()
            with suppress(Exception):
                async with asyncio.timeout(1.0):
                    await connection.wait_closed()
            connection.abort()
