"""The fault plan: which call of which system is struck, by what, and when the world has healed.

A fault comes from a script (the n-th matching call within a window of world time) or by chance. Chance is fate, not a
sequence: it is drawn from the seed and from which call of its operation a call is, so that one system's faults do not
depend on what the others are asked. Every strike is a line of the ledger, written before it takes effect; counts
come from there. What a fault does is told in `faulthttp`, `faulttools` and the systems themselves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from aglowd.sim.world import DAY_S, MINUTE_S, World

SYSTEM = "faults"
"""The ledger's name for the lines written here."""

ANY = frozenset({"*"})
_HTTP = dict.fromkeys(
    ("refuse", "hang", "reset_before", "reset_after", "lost_reply", "error_before", "error_after", "busy", "too_many",
     "html", "truncated", "malformed", "slow", "huge"), ANY
)  # fmt: skip
_TOOL = dict.fromkeys(
    ("warn", "fail_after", "half_line", "kill_before", "hang_before", "hang_after", "flood", "keep_pipe"), ANY
)
_PROXY = dict.fromkeys(("proxy_before", "proxy_during", "proxy_after"), ANY)
_STAGER = ("late", "late_lost", "vanish", "false_success")
_ADD = frozenset({"add_getid"})
_STAGE = frozenset({"stage"})
_LOOK = frozenset({"request", "requests"})
_PROGRESS = frozenset({"getprogress"})
_BULK = frozenset({"bulk_docs"})
_PINS = frozenset({"stage", "bulk_stage", "bulk_pin"})
_DCACHE = dict.fromkeys((*_STAGER, "skipped", "lost", "replaced"), _PINS) | {
    "unreleased": frozenset({"release", "bulk_release", "bulk_unpin"}),
    "unavailable": frozenset({"archiveinfo", "namespace"}),
    "macaroon_ended": frozenset({"namespace"}),
}
_FEED = frozenset({"changes"})
_STREAM = frozenset({"stream"})

KINDS: dict[str, dict[str, frozenset[str]]] = {
    "lta": _HTTP
    | dict.fromkeys((*_STAGER, "fault_before", "fault_after", "text_id"), _ADD)
    | dict.fromkeys(("empty_list", "odd_types", "odd_keys"), _PROGRESS)
    | {"odd_words": _PROGRESS | {"getstatus"}, "flagged": frozenset({"abort"})},
    "stageit": _HTTP
    | dict.fromkeys(_STAGER, _STAGE)
    | dict.fromkeys(("graphql_error", "response_null", "response_empty", "response_broken", "no_text"), _LOOK)
    | {"text_id": _LOOK | _STAGE, "absent_error": frozenset({"request"})},
    "dcache": _HTTP | _DCACHE,
    "events": _HTTP
    | {"channel_lost": ANY}
    | dict.fromkeys(("event_loss", "competing", "stream_cut", "silent"), _STREAM),
    "couchdb": _HTTP
    | dict.fromkeys(("partial_bulk", "conflict"), _BULK)
    | dict.fromkeys(("rewind", "since_refused"), _FEED)
    | dict.fromkeys(("restart", "recreate"), ANY),
    "glite": _TOOL | _PROXY,
    "dirac": _TOOL | _PROXY,
    "storage": _TOOL | _PROXY | dict.fromkeys(("disk_full", "half_file"), frozenset({"copy"})),
    "proxy": _TOOL | {"proxy_before": ANY},
    "webdav": _HTTP | dict.fromkeys(("disk_full", "half_file"), frozenset({"put"})),
    "arc": _HTTP | {"half_made": frozenset({"new"}), "empty_list": frozenset({"list"})},
}
"""System → kind of fault → the operations that it can strike."""

NEVER_BY_CHANCE = frozenset({"lost", "replaced", "unavailable", "macaroon_ended"})
"""What keeps a field from ever being done, or for long: only scripts strike with it."""
FEED_KINDS = frozenset(
    {"refuse", "hang", "reset_before", "error_before", "busy", "html", "rewind", "since_refused", "restart", "recreate",
     "channel_lost", "event_loss", "competing", "stream_cut", "silent"}
)  # fmt: skip
"""What can strike a feed, whose answer has no end."""

VALUES: dict[str, tuple[float, float]] = {
    "refuse": (5 * MINUTE_S, 60 * MINUTE_S),
    "busy": (1 * MINUTE_S, 20 * MINUTE_S),
    "too_many": (1 * MINUTE_S, 20 * MINUTE_S),
    "late": (1 * MINUTE_S, 12 * MINUTE_S),
    "late_lost": (1 * MINUTE_S, 12 * MINUTE_S),
    "vanish": (10 * MINUTE_S, 600 * MINUTE_S),
    "false_success": (10 * MINUTE_S, 600 * MINUTE_S),
    "flagged": (1 * MINUTE_S, 10 * MINUTE_S),
    "skipped": (1, 20),
    "lost": (1, 1),
    "replaced": (1, 1),
    "unavailable": (10 * MINUTE_S, 600 * MINUTE_S),
    "partial_bulk": (0.1, 0.9),
    "conflict": (0.1, 0.5),
    "rewind": (10, 400),
    "competing": (1 * MINUTE_S, 60 * MINUTE_S),
    "stream_cut": (1 * MINUTE_S, 60 * MINUTE_S),
    "silent": (1 * MINUTE_S, 60 * MINUTE_S),
    "huge": (50, 51),
    "flood": (100, 101),
    "proxy_before": (10 * MINUTE_S, 180 * MINUTE_S),
    "proxy_during": (10 * MINUTE_S, 180 * MINUTE_S),
    "proxy_after": (10 * MINUTE_S, 180 * MINUTE_S),
    "disk_full": (10 * MINUTE_S, 240 * MINUTE_S),
}
"""What chance draws a fault's value from: world seconds of a state, a share of documents, feed entries, megabytes, files.

A script that names no value takes the lower one.
"""

ODDS = {
    "lta": 0.10, "stageit": 0.10, "dcache": 0.15, "events": 0.15, "couchdb": 0.06, "glite": 0.08, "dirac": 0.08, "arc": 0.06,
    "storage": 0.04, "proxy": 0.10, "webdav": 0.04,
}  # fmt: skip
ODDS_OF = {
    "add_getid": 0.6,
    "stage": 0.6,
    "bulk_docs": 0.3,
    "changes": 0.3,
    "register": 0.25,
    "start": 0.25,
    "submit": 0.25,
    "new": 0.25,
}
"""How likely chance strikes a call: by its system, for rare and important operations by these."""
ODDS_OWN = 0.5
"""How likely a call that is struck is struck by a fault that only its operation has, if there is one."""
CHAOS_DAYS = 12.0
"""World days after which chance strikes no more."""


def own_kinds(system: str) -> list[str]:
    """The kinds that only some of the system's operations know: it commits them itself."""
    return [kind for kind, ops in KINDS[system].items() if ops != ANY]


class Script(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Strike `count` calls of an operation from the `nth` on (counted from 1, within the window of world time).

    `from_s` and `until_s` count world seconds from the world's beginning. `value` is what `VALUES` says; for the
    errors it is the HTTP status.
    """

    system: str
    fault: str
    op: str = "*"
    nth: int = 1
    count: int = 1
    from_s: float = 0.0
    until_s: float = float("inf")
    value: float | None = None

    def __post_init__(self) -> None:
        kinds = KINDS.get(self.system, {})
        ops = kinds.get(self.fault)
        if ops is None:
            raise ValueError(f"{self.system!r} has no fault {self.fault!r}; known: {', '.join(sorted(kinds))}")
        if ops != ANY and self.op not in ops | ANY:
            raise ValueError(f"{self.fault} strikes {', '.join(sorted(ops))}, not {self.op!r}")


class Strike(Struct, frozen=True):
    """A call that is struck: by which fault, and how hard."""

    fault: str
    value: float


def read_scripts(path: Path) -> tuple[Script, ...]:
    """The scripts in a JSON file; msgspec.ValidationError says what is wrong with it."""
    return msgspec.json.decode(path.read_bytes(), type=tuple[Script, ...])


class Faults:
    """The plan of one world. `chaos` lets chance strike too, until the world is `chaos_days` old."""

    def __init__(
        self, world: World, scripts: Iterable[Script] = (), *, chaos: bool = False, chaos_days: float = CHAOS_DAYS
    ) -> None:
        self._world = world
        self._scripts: list[tuple[Script, int]] = [(script, 0) for script in scripts]
        self._chaos_s = chaos_days * DAY_S if chaos else 0.0
        self._calls: Counter[tuple[str, str]] = Counter()
        self._group: asyncio.TaskGroup | None = None

    def add(self, script: Script) -> None:
        """Take in one more script; its calls are counted from now on."""
        self._scripts.append((script, 0))

    def strike(self, system: str, op: str, *, endless: bool = False) -> Strike | None:
        """What strikes this call, if anything does; `endless` = its answer is a feed. Asked once for each call."""
        self._calls[system, op] += 1
        age_s = self._world.now() - self._world.clock.origin
        struck = self._by_script(system, op, age_s)
        if struck is None and age_s < self._chaos_s:
            struck = self._by_chance(system, op, endless=endless)
        if struck is not None:
            self._world.note(
                SYSTEM, struck.fault, "world", target=system, called=op, number=self._calls[system, op],
                value=round(struck.value, 3),
            )  # fmt: skip
        return struck

    def _by_script(self, system: str, op: str, age_s: float) -> Strike | None:
        found: Strike | None = None
        for at, (script, calls) in enumerate(self._scripts):
            if script.system != system or not script.from_s <= age_s < script.until_s:
                continue
            if script.op not in ("*", op) or KINDS[system][script.fault].isdisjoint({op, "*"}):
                continue
            self._scripts[at] = (script, calls + 1)
            if found is None and script.nth <= calls + 1 < script.nth + script.count:
                least, _ = VALUES.get(script.fault, (0.0, 0.0))
                found = Strike(script.fault, least if script.value is None else script.value)
        return found

    def _by_chance(self, system: str, op: str, *, endless: bool) -> Strike | None:
        draw, number = self._world.draw, self._calls[system, op]
        if draw("fault", system, op, number) >= ODDS_OF.get(op, ODDS[system]):
            return None
        kinds = [
            kind
            for kind, ops in KINDS[system].items()
            if not ops.isdisjoint({op, "*"}) and (not endless or kind in FEED_KINDS) and kind not in NEVER_BY_CHANCE
        ]
        own = [kind for kind in kinds if KINDS[system][kind] != ANY]
        if own and draw("a fault of its own", system, op, number) < ODDS_OWN:
            kinds = own
        kind = kinds[int(len(kinds) * draw("kind of fault", system, op, number))]
        return Strike(kind, self._world.between(*VALUES.get(kind, (0.0, 0.0)), "how hard", system, op, number))

    # --- what happens later

    async def run(self) -> None:
        """Let the world heal what `later` is told of, until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    def later(self, world_s: float, heal: Callable[[], Awaitable[None]]) -> None:
        """Call `heal` when so many world seconds have passed."""
        assert self._group is not None, "the plan must run"
        self._group.create_task(self._after(world_s, heal), name="faults: healing")

    async def _after(self, world_s: float, heal: Callable[[], Awaitable[None]]) -> None:
        await self._world.clock.sleep(world_s)
        await heal()
