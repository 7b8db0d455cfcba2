"""The keeper of the grid proxies: people hear in time, and what renews them is run as rarely as it may be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import HandClock, opened

from aglowd.errors import Temporary
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import ProxyInfo
from aglowd.keeper import APART_S, BACKOFF_MOST_S, BACKOFF_S, COMMON, REST_MOST_S, Keeper, troubles_of_proxy
from aglowd.store.store import Store

HOUR_S = 3600.0


class Lying:
    """A proxy that is good until `ends`, or not there."""

    def __init__(self, clock: HandClock, hours: float | None) -> None:
        self._clock = clock
        self.last(hours)
        self.looks = 0

    def last(self, hours: float | None) -> None:
        self.ends = None if hours is None else self._clock.now() + hours * HOUR_S

    async def info(self) -> ProxyInfo:
        self.looks += 1
        if self.ends is None:
            raise Temporary("no usable grid proxy at /p")
        return ProxyInfo(9e9, max(0.0, self.ends - self._clock.now()), "/CN=me")


@pytest.fixture
def tools(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A renewal command of that shell text; it leaves a line in `ran` each time."""

    def write(text: str) -> tuple[str, ...]:
        path = tmp_path / "renew-proxy"
        path.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ran\n{text}\n")
        path.chmod(0o755)
        return (str(path), "lofar")

    return write


def ran(tmp_path: Path) -> int:
    path = tmp_path / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


def keeper_of(store: Store, clock: HandClock, renew: tuple[str, ...] = (), **proxies: Any) -> Keeper:
    named = {COMMON if name == "common" else f"/p/{name}": proxy for name, proxy in proxies.items()}
    return Keeper(
        store,
        named,
        Processes(env={"PATH": "/usr/bin:/bin"}),
        clock,
        poll_s=900.0,
        minimum_s=12 * HOUR_S,
        warn_s=24 * HOUR_S,
        renew=renew,
    )


async def test_each_stage_is_told_once_and_both_end_when_it_is_renewed(store: Store, clock: HandClock) -> None:
    proxy = Lying(clock, 30)
    keeper = keeper_of(store, clock, common=proxy)
    for _ in range(40):
        await keeper.look()
        await store.note_troubles(keeper.troubles())
        clock.advance(HOUR_S)
    proxy.last(168)
    await keeper.look()
    await store.note_troubles(keeper.troubles())
    events = await store.events()
    assert [(event["kind"], event["data"]["name"]) for event in events] == [
        ("TroubleBegan", "end of the grid proxy"),
        ("TroubleBegan", "grid proxy"),
        ("TroubleEnded", "end of the grid proxy"),
        ("TroubleEnded", "grid proxy"),
    ]
    assert events[0]["data"]["why"] == "it is good for 23h; pilots need 12h: renew it"
    assert events[1]["data"]["why"] == "it is good for 11h; pilots need 12h: renew it"


def test_one_that_is_too_short_already_is_told_once() -> None:
    def told(hours: float) -> dict[str, str]:
        return troubles_of_proxy("grid proxy", hours * HOUR_S, minimum_s=12 * HOUR_S, warn_s=24 * HOUR_S)

    assert list(told(11)) == ["grid proxy"]
    assert "end of the grid proxy" not in told(-1)
    assert told(12) == {"grid proxy": "", "end of the grid proxy": "it is good for 12h; pilots need 12h: renew it"}
    assert not any(told(24).values())


async def test_a_sites_own_proxy_is_told_by_its_path(store: Store, clock: HandClock) -> None:
    keeper = keeper_of(store, clock, common=Lying(clock, 100), surveys=Lying(clock, 2))
    await keeper.look()
    ill = {name: why for name, why in keeper.troubles().items() if why}
    assert ill == {"grid proxy /p/surveys": "it is good for 2h; pilots need 12h: renew it"}
    assert keeper.left_s == 100 * HOUR_S


async def test_one_that_is_away_is_told_at_the_second_look(store: Store, clock: HandClock) -> None:
    proxy = Lying(clock, 100)
    keeper = keeper_of(store, clock, common=proxy)
    await keeper.look()
    proxy.last(None)
    await keeper.look()
    assert not any(keeper.troubles().values()), "a tool may hang once"
    await keeper.look()
    assert keeper.troubles()["grid proxy"] == "no usable grid proxy at /p"


async def test_what_was_seen_long_ago_is_not_known(store: Store, clock: HandClock) -> None:
    keeper = keeper_of(store, clock, common=Lying(clock, 1000))
    assert keeper.left_s is None
    await keeper.look()
    clock.advance(2 * REST_MOST_S)
    assert keeper.left_s == 1000 * HOUR_S - 2 * REST_MOST_S
    clock.advance(3 * REST_MOST_S)
    assert keeper.left_s is None


# --- renewal


async def test_it_is_renewed_before_anybody_is_told(store: Store, clock: HandClock, tmp_path: Path, tools: Any) -> None:
    proxy = Lying(clock, 25)
    keeper = keeper_of(store, clock, tools("exit 0"), common=proxy)
    await keeper.look()
    assert ran(tmp_path) == 0
    clock.advance(2 * HOUR_S)
    seen = proxy.info

    async def renewed() -> ProxyInfo:
        if ran(tmp_path):
            proxy.last(168)
        return await seen()

    proxy.info = renewed  # type: ignore[method-assign]
    await keeper.look()
    assert ran(tmp_path) == 1
    assert keeper.left_s == 168 * HOUR_S
    assert not any(keeper.troubles().values())
    assert "proxy:default" in store.bells.hints("proxy"), "steps that wait for it go on at once"
    (event,) = await store.events()
    assert (event["kind"], event["data"]["left_s"]) == ("ProxyRenewed", 168 * 3600)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no password >&2; exit 3", "renew-proxy ended with exit code 3: no password"),
        ("exit 0", "renew-proxy ended well, but the proxy is good for 2h, no longer than before"),
        ("kill -9 $$", "was ended by signal 9"),
    ],
)
async def test_a_failure_is_a_notice_and_is_tried_again_ever_later(
    store: Store, clock: HandClock, tmp_path: Path, tools: Any, script: str, why: str
) -> None:
    proxy = Lying(clock, 2)
    keeper = keeper_of(store, clock, tools(script), common=proxy)
    begun, tries = clock.now(), []
    for _ in range(400):
        before = ran(tmp_path)
        proxy.last(2)
        await keeper.look()
        if ran(tmp_path) > before:
            tries.append(clock.now() - begun)
        clock.advance(300.0)
    apart = [later - sooner for sooner, later in pairwise(tries)]
    assert apart[:5] == [BACKOFF_S * 2**number for number in range(5)]
    assert apart[5:] == [BACKOFF_MOST_S] * len(apart[5:])
    assert why in keeper.troubles()["renewal of the grid proxy"]
    proxy.last(100)
    await keeper.look()
    assert keeper.troubles()["renewal of the grid proxy"] == "", "somebody renewed it by hand"


async def test_a_daemon_that_died_over_it_does_not_begin_it_anew_at_once(
    clock: HandClock, tmp_path: Path, tools: Any
) -> None:
    async with opened(tmp_path / "one.db", clock) as store:
        keeper = keeper_of(store, clock, ("/nonexistent/renew",), common=Lying(clock, 2))
        await keeper.look()
        assert "cannot be started" in keeper.troubles()["renewal of the grid proxy"]
    renew = tools("exit 0")
    async with opened(tmp_path / "one.db", clock) as store:
        keeper = keeper_of(store, clock, renew, common=Lying(clock, 2))
        await keeper.look()
        assert ran(tmp_path) == 0
        clock.advance(BACKOFF_S)
        await keeper.look()
        assert ran(tmp_path) == 1


async def test_a_proxy_that_never_lives_long_is_renewed_once_an_hour(
    store: Store, clock: HandClock, tmp_path: Path, tools: Any
) -> None:
    """Its life is shorter than `warn`: each renewal goes well, and none is enough."""
    proxy, seen = Lying(clock, 1), []
    keeper = keeper_of(store, clock, tools("exit 0"), common=proxy)
    look = proxy.info

    async def info() -> ProxyInfo:
        if ran(tmp_path) > len(seen):
            seen.append(clock.now())
            proxy.last(6)
        return await look()

    proxy.info = info  # type: ignore[method-assign]
    for _ in range(20):
        await keeper.look()
        clock.advance(APART_S / 4)
    assert [later - sooner for sooner, later in pairwise(seen)] == [APART_S] * 4
    assert not keeper.troubles()["renewal of the grid proxy"]
