"""Effects for general use: run a program, call a web service.

Neither carries our key by itself. What may be repeated says so; otherwise an unknown outcome ends in doubt.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Permanent, Unknown
from aglowd.grid.words import MAX_SAID_CHARS
from aglowd.log import hide_secrets
from aglowd.model import Json

MAX_KEPT_CHARS = 8_000
"""Of what a program prints, this much from the end is kept as its result."""


class RunCommand(Deed, frozen=True, kw_only=True):
    """Run a program (argv, no shell); result `{"rc", "stdout"}`. A return code that is not in `ok` is Permanent.

    `environment` and `stdin` may refer to secrets (`secret:NAME`); what the program says of them is hidden.
    `creates`: a storage URL that exists when and only when it succeeded. `repeatable`: running it twice does no harm.
    """

    kind: ClassVar[str] = "run_command"
    argv: tuple[str, ...]
    timeout_s: float = 600.0
    ok: tuple[int, ...] = (0,)
    creates: str = ""
    repeatable: bool = False
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    stdin: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        ended = await world.processes.run(
            self.argv,
            write=True,
            timeout_s=self.timeout_s,
            env=world.filled(self.environment),
            stdin=world.filled(self.stdin).encode() if self.stdin else None,
        )
        if ended.rc not in self.ok:
            tail = hide_secrets(ended.stderr or ended.stdout)[-500:].strip()
            raise Permanent(f"{self.argv[0]} ended with {ended.rc}, expected {list(self.ok)}: {tail}")
        return {"rc": ended.rc, "stdout": hide_secrets(ended.stdout)[-MAX_KEPT_CHARS:]}

    async def find(self, world: World, intent: Intent) -> Json | None:
        if self.creates:
            there = await world.storage.stat(self.creates)
            return None if there is None else {"rc": 0, "stdout": ""}
        if self.repeatable:
            return None
        raise Unknown(f"nobody can tell whether {self.argv[0]} has run: give it `creates` or `repeatable`")

    def adopted(self, ref: str) -> Json:
        """`ref` is the return code with which it ended, one of `ok`."""
        if ref not in map(str, self.ok):
            raise AglowError(f"say the return code with which it ended well, one of {list(self.ok)}, not {ref[:40]!r}")
        return {"rc": int(ref), "stdout": ""}


class CallHttp(Deed, frozen=True, kw_only=True):
    """Call a web service with the effect's key as `Idempotency-Key`; result `{"status", "body"}`.

    `headers` and `body` may refer to secrets (`secret:NAME`); where the answer repeats them they are hidden.
    """

    kind: ClassVar[str] = "call_http"
    method: str
    url: str
    body: Json = None
    repeatable: bool = False
    headers: dict[str, str] = msgspec.field(default_factory=dict)

    async def do(self, world: World, intent: Intent) -> Json:
        reply = await world.http.request(
            self.method,
            self.url,
            site=world.web,
            write=True,
            json=world.filled(self.body),
            headers={**world.filled(self.headers), "Idempotency-Key": intent.key},
            is_kept=self.repeatable,
        )
        said = hide_secrets(reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace"))
        return {"status": reply.status, "body": said[:MAX_KEPT_CHARS]}

    async def find(self, world: World, intent: Intent) -> Json | None:
        if self.repeatable or self.method in ("GET", "PUT", "DELETE", "HEAD"):
            return None
        raise Unknown(
            f"nobody can tell whether {self.method} {self.url} arrived: say `repeatable` if twice does no harm"
        )

    def adopted(self, ref: str) -> Json:
        """`ref` is the status that it was answered with, 2xx."""
        if not (len(ref) == 3 and ref.isascii() and ref.isdecimal() and ref[0] == "2"):
            raise AglowError(f"say the HTTP status of the answer, 200 to 299, not {ref[:40]!r}")
        return {"status": int(ref), "body": ""}


DEEDS: tuple[type[Any], ...] = (RunCommand, CallHttp)
