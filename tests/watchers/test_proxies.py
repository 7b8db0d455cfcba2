"""For how long the proxy is known to be good: what was seen of it long ago says nothing of the one that is there now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from support import HandClock

from aglowd.grid.proxy import ProxyInfo
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers.proxies import KNOWN_POLLS, Proxies


class Proxy:
    async def info(self) -> ProxyInfo:
        return ProxyInfo(seconds_left=50_000, ac_seconds_left=40_000, subject="/CN=me")


async def test_what_is_left_grows_less_and_is_forgotten_when_nobody_looks(store: Store) -> None:
    clock = HandClock()
    world: Any = SimpleNamespace(clock=clock, proxy=Proxy())
    watcher = Proxies(world, store, 900.0)
    assert watcher.known_left_s is None
    await watcher.look([Subject("proxy", "default")])
    assert watcher.known_left_s == 40_000
    clock.advance(KNOWN_POLLS * 900.0)
    assert watcher.known_left_s == 40_000 - KNOWN_POLLS * 900.0
    clock.advance(1.0)
    assert watcher.known_left_s is None
    assert watcher.seconds_left == 40_000, "as the status shows it"
