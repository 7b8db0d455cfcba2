"""A control server whose every part is there, for the tests that ask it everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from held import Held
from populated import healthy
from support import FarSide, HandClock, Played, Put, new_reactor, opened, perform_all, settle_all
from tapes import SARA, Tape, ordering
from test_doctor import config_of

from aglowd import token_orders
from aglowd.adoption import Adoption
from aglowd.capacity import Capacity
from aglowd.control import Control, Verdict
from aglowd.credentials import Secrets
from aglowd.effects.base import World
from aglowd.effects.engine import Engine
from aglowd.field_orders import RELEASE, FieldOrders
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.handlers.await_approval import AwaitApproval
from aglowd.metrics import Metrics
from aglowd.model import Failed, Outcome, Seen, StepView, Wait
from aglowd.notify import Notifier
from aglowd.reactor import Pipelines, Reactor
from aglowd.rehearsal import Rehearsal
from aglowd.reload import Reloader
from aglowd.selection import Limits
from aglowd.steering import Steering
from aglowd.store.doubts import Word
from aglowd.store.store import Store
from aglowd.token_orders import TokenOrders
from aglowd.wiring import build_doctor, build_world, load_pipelines

from .test_adopt import LINE as LEFT
from .test_adopt import WORDS, Rows, nowhere
from .test_jobs import Far
from .test_quality import ASKING
from .test_steer import LINE, LOOK, THING, undo

NOWHERE = """
[jobs]
system = "none"
[picas]
url = "http://127.0.0.1:9"
[dcache]
url = "http://127.0.0.1:9"
[stageit]
url = "http://127.0.0.1:9"
"""
BROKEN = "P4+4"


class Daemon(Held):
    """A server whose every part is there, and the hands that move what it tells of."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.clock = HandClock()

    store: Store
    reactor: Reactor
    engine: Engine
    far: Far

    async def settle(self) -> None:
        """Let steps and effects come as far as they do."""
        while await settle_all(self.reactor) + await perform_all(self.store, self.engine):
            pass
        self.clock.advance(60.0)


def plays(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Failed("no tape", final=True) if view.field == BROKEN else Wait((THING,), "waits", 600.0)


@asynccontextmanager
async def seated(tmp_path: Path) -> AsyncIterator[Daemon]:
    """That server, with an empty store, whose files lie there."""
    made = Daemon(tmp_path / "s")
    async with AsyncExitStack() as stack:
        made.store = store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", made.clock))
        files = {SARA.format(0): "ONLINE", SARA.format(1): "NEARLINE"}
        ordered = await stack.enter_async_context(ordering(store, sara=Tape(files)))
        made.far = far = Far()
        shipped = load_pipelines("", token_orders.RESET)
        config = config_of(tmp_path, NOWHERE)
        world, _ = build_world(config, store.clock, secrets := Secrets(config, {}), "here")
        stack.push_async_callback(world.http.close)
        played = Played({"b": plays}, {"b": undo})
        made.reactor = new_reactor(store, [played, AwaitApproval()], LINE, LOOK, ASKING)
        made.engine = Engine(store, FarSide(store.clock), {"put": Put, "create_tokens": Put}, store.clock)
        pipelines = Pipelines({"line": LINE, "look": LOOK})
        played_kinds: dict[str, Any] = {"played": played}
        tokens_at = cast(World, SimpleNamespace(token_base=lambda site: far, batch=lambda site: far))
        catalogue = cast(World, SimpleNamespace(catalogue=OwnCatalogue(tmp_path / "catalogue.db", "here")))

        async def settle(verdict: Verdict, uid: int) -> str:
            return await made.engine.settle(verdict.key, verdict.action, verdict.ref, Word(uid, verdict.reason))

        async def heed(*_: object) -> None:
            pass

        reloader = Reloader(
            tmp_path / "aglowd.toml",
            store,
            Notifier(),
            heed,
            config,
            load_pipelines("", config.catalogue.pipeline),
        )
        log = tmp_path / "log"
        log.write_text(json.dumps({"at": "2026-11-29T12:00:00Z", "level": "info", "event": "ready", "more": 1}) + "\n")
        server = Control(
            store,
            healthy,
            store.clock,
            "1.2.3",
            settle,
            ordered,
            TokenOrders(store, tokens_at, shipped[token_orders.RESET], shipped[token_orders.CANCEL]),
            Steering(
                store,
                made.reactor,
                pipelines,
                Rehearsal(played_kinds, pipelines.digests, {}),
                ("played",),
                ("sara",),
                "line",
            ),
            FieldOrders(store, catalogue, load_pipelines("", RELEASE)[RELEASE], ("SND",), ("AAA", "ZZZ")),
            made.reactor.candidates,
            Adoption(store, LEFT, WORDS, {}, nowhere, Rows(), None, Limits(10)),  # type: ignore[arg-type] # It gives none.
            reload=reloader.reload,
            capacity=Capacity(store, (), {"copies": 2}, made.reactor.candidates),
            silence=lambda subject: {"since": 1.0e9, "why": "refused"} if subject.startswith("staging") else None,
            metrics=Metrics(store, healthy, store.clock, "1.2.3", {}, ()).answer,
            log_place={"to": "file", "path": str(log)},
            doctor=build_doctor(config, world, secrets, {}),
        )
        await stack.enter_async_context(server.serve(tmp_path / "s"))
        yield made
