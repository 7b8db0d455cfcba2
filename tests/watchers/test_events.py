"""Storage events: looks are brought forward and nothing rests on it; whatever may have been missed is looked at again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.dcache import Dcache
from aglowd.grid.dcache_events import DcacheEvents, Hint, NotFollowed, Tick
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.storage import Entry
from aglowd.model import Json, Subject
from aglowd.sim import dcache, dcacheevents
from aglowd.sim.dcachechannels import Events as Frontend
from aglowd.sim.faulthttp import Door, HttpFaults
from aglowd.sim.faults import Faults, Script
from aglowd.sim.ledger import Ledger
from aglowd.sim.stager import Stager
from aglowd.sim.storage import Storage
from aglowd.sim.tape import Pin, Tape
from aglowd.sim.world import World, WorldClock
from aglowd.store.store import Store
from aglowd.watchers import events as module
from aglowd.watchers.arrivals import Arrivals
from aglowd.watchers.base import HINTS_APART_S, Watcher
from aglowd.watchers.directories import Directories
from aglowd.watchers.events import FAILURES_BEFORE_ANEW, MAX_FOLLOWED, RETRY_MOST_S, RETRY_S, Events
from aglowd.watchers.localities import Localities

from .conftest import NEVER_S, PATIENCE_S, end, running, until_observed, wait_for, world_of

RATE = 1000.0
TAPE = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/{}/L1_SB{:03d}_uv.MS_00000000.tar"
ONE, TWO = TAPE.format("one", 0), TAPE.format("two", 1)
RESULTS = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/grid.sara.nl/results"
ONLINE = {"missing": [], "away": {}, "copies": {}, "counts": {"ONLINE": 1}}
MISSING = {"missing": [ONE], "away": {}, "copies": {}, "counts": {"NEARLINE": 1}}


def locality(name: str, *surls: str) -> Subject:
    return Subject("locality", name, {"surls": list(surls)})


class There:
    """The simulated frontend, and the daemon's adapters to it."""

    def __init__(self, directory: Path) -> None:
        origin = time.time()
        self.clock = Clock(RATE, origin)
        self.world = World(1, WorldClock(RATE, origin), Ledger(directory / "ledger.jsonl"), 0.0)
        self.tape = Tape(self.world, [ONE, TWO, *(TAPE.format("many", number) for number in range(40))])
        self.storage = Storage(directory / "storage")
        self.frontend = Frontend(self.world, self.tape, self.storage)
        self.plan = Faults(self.world)
        self.http = Http(self.clock, timeout_s=10.0)
        self.asked: list[str] = []
        self.lists = 0
        self.url = ""

    def count(self, op: str) -> int:
        return self.asked.count(op)

    def strike(self, fault: str, op: str = "*", **more: Any) -> None:
        self.plan.add(Script(system="events", fault=fault, op=op, **more))

    def bring_online(self, surl: str) -> None:
        """The file comes online now; the world tells of it."""
        now = self.world.now()
        file = self.tape.find_file(surl)
        assert file is not None
        file.pins[0] = Pin(now, now + 1e9)
        self.frontend.expect(surl.removeprefix("srm://srm.grid.sara.nl:8443"), now, now)

    async def list(self, url: str) -> tuple[Entry, ...]:
        """What the daemon's storage does."""
        self.lists += 1
        path = self.storage.find_path(url)
        assert path is not None
        return tuple(Entry(f"{url}/{one.name}", one.stat().st_size, False, None) for one in sorted(path.iterdir()))

    async def happens(self, condition: Callable[[], Any]) -> None:
        """Return when it holds; nothing rings when a server has been asked."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - as above.
                await asyncio.sleep(0.005)


@pytest.fixture
async def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[There]:
    monkeypatch.setattr(module, "TICK_LEAST_REAL_S", 0.05)
    found = There(tmp_path)
    faults = HttpFaults(
        found.plan, "events", dcacheevents.verb_of,
        {"channel_lost": found.frontend.restart} | dict.fromkeys(dcacheevents.STREAM_FAULTS),
    )  # fmt: skip

    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        verb = dcacheevents.verb_of if request.path.startswith(dcacheevents.PREFIX) else dcache.verb_of
        found.asked.append(await verb(request))
        response: web.StreamResponse = await handler(request)
        return response

    app = dcache.dcache_app(
        found.world, dcache.DCache(found.world, found.tape, Stager(found.world, found.tape)), [count]
    )
    app.add_subapp(dcacheevents.PREFIX, dcacheevents.events_app(found.frontend, [faults.middleware()]))
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    door = faults.door = Door(runner)
    await door.open()
    found.url = f"http://127.0.0.1:{door.port}"
    tasks = [asyncio.create_task(found.frontend.run()), asyncio.create_task(found.plan.run())]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await found.http.close()
    await runner.cleanup()
    door.close()
    found.world.ledger.close()


@asynccontextmanager
async def watching(store: Store, there: There, *, on: bool = True, poll_s: float = NEVER_S) -> AsyncIterator[Events]:
    """Everything that follows dCache, as the daemon runs it; yields the watcher of the events."""
    site = Site("dcache", there.clock)
    world = world_of(
        there.clock,
        archive={"": Dcache(there.http, site, None, there.url)}.__getitem__,
        storage=there,
        events=DcacheEvents(there.http, site, None, there.url, "aglowd:here") if on else None,
    )
    events = Events(world, store, poll_s)
    kinds: Sequence[type[Watcher]] = (Localities, Directories, Arrivals)
    watchers: Sequence[Watcher] = (*(kind(world, store, poll_s) for kind in kinds), events)
    async with AsyncExitStack() as stack:
        for watcher in watchers:
            await stack.enter_async_context(running(watcher))
        yield events


async def followed(there: There, events: Events, count: int = 1) -> None:
    """So many directories are subscribed, and what was asked for when they were has been looked at."""
    await there.happens(lambda: events.note.startswith(f"events: {count} directories followed"))
    hints = [events.store.bells.hints(kind) for kind in module.FOLLOWED]
    await there.happens(lambda: not any(hints))


async def test_a_file_that_comes_online_is_seen_although_the_next_round_is_far(store: Store, there: There) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    async with watching(store, there) as events:
        await until_observed(store, subject, MISSING)
        await followed(there, events)
        there.bring_online(ONE)
        await until_observed(store, subject, ONLINE)
        assert (there.count("channels"), there.count("stream")) == (2, 1), "listed, made, read: one for all"


@pytest.mark.parametrize(
    ("kind", "args", "more"),
    [("directory", {}, {}), ("arrivals", {"pattern": "*", "quiet_s": NEVER_S}, {"quiet": False})],
)
async def test_a_result_that_is_written_is_seen(
    store: Store, there: There, kind: str, args: dict[str, Json], more: dict[str, Json]
) -> None:
    there.storage.write(f"{RESULTS}/first", b"1")
    subject = Subject(kind, "d", {"url": RESULTS, **args})
    files = [{"url": f"{RESULTS}/{name}", "size_bytes": size, **more} for name, size in (("first", 1), ("second", 3))]
    await wait_for(store, "P1", subject)
    async with watching(store, there) as events:
        await until_observed(store, subject, {"absent": False, "files": files[:1]})
        await followed(there, events)
        there.storage.write(f"{RESULTS}/second", b"123")
        await until_observed(store, subject, {"absent": False, "files": files})


async def test_without_events_the_rounds_go_on(store: Store, there: There) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    async with watching(store, there, on=False, poll_s=200.0) as events:
        await until_observed(store, subject, MISSING)
        there.bring_online(ONE)
        await until_observed(store, subject, ONLINE)
        before = events.progress_at
        await there.happens(lambda: events.progress_at > before)
    assert (events.note, set(there.asked)) == ("", {"archiveinfo"})


@pytest.mark.parametrize(
    ("fault", "said"),
    [("error_before", "HTTP 404"), ("error_before", "HTTP 403"), ("too_many", "HTTP 429"), ("reset_before", "broken off")],
)  # fmt: skip
async def test_events_that_fail_are_off_and_nothing_is_lost(
    store: Store, there: There, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    there.strike(fault, count=3, value=float(said[-3:]) if fault == "error_before" else 1.0)
    monkeypatch.setattr(module, "RETRY_S", 150.0)
    async with watching(store, there, poll_s=100.0) as events:
        await there.happens(lambda: events.note)
        assert events.note.startswith("events: off because ")
        assert said in events.note
        there.bring_online(ONE)
        await until_observed(store, subject, ONLINE)
        await there.happens(lambda: events.note.startswith("events: 1 directories followed"))
        await there.happens(lambda: events.failures == 0)


async def test_tries_are_ever_further_apart(there: There, store: Store) -> None:
    """Without a server: only the distances count."""
    slept: list[float] = []

    class Counting(Clock):
        async def sleep(self, world_s: float) -> None:
            slept.append(world_s)

        def jitter(self, spread: float = 0.1) -> float:
            return 1.0

    events = Events(world_of(Counting(), events=None), store, 600.0)
    for failures in (1, 2, 3, 40):
        events.failures = failures
        await events._rest()
    assert slept[:3] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert slept[3:] == [600.0] * int(RETRY_MOST_S / 600.0), "in pieces: a long rest must not look like hanging"


async def struck_once(store: Store, there: There, events: Events, subject: Subject) -> None:
    """What was struck is over, and what came online meanwhile was seen."""
    streams = there.count("stream")
    there.bring_online(ONE)
    await until_observed(store, subject, ONLINE)
    assert there.count("stream") <= streams + 3


@pytest.mark.parametrize("fault", ["stream_cut", "competing", "silent", "channel_lost"])
async def test_a_stream_that_ends_is_begun_again_and_nothing_is_missed(store: Store, there: There, fault: str) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    there.strike(fault, "stream", value=300.0, nth=2 if fault == "channel_lost" else 1)
    async with watching(store, there) as events:
        await until_observed(store, subject, MISSING)
        await followed(there, events)
        if fault == "channel_lost":
            there.frontend.restart()
        await there.happens(lambda: there.count("stream") == 2)
        await struck_once(store, there, events, subject)
        made = [one for one in there.asked if one == "subscribe"]
        assert len(made) >= (4 if fault in ("competing", "channel_lost") else 2), "a metronome and the directory each"


async def test_what_happens_while_no_channel_is_there_is_found_when_there_is_one(store: Store, there: There) -> None:
    """The frontend starts anew; meanwhile the file comes online, and nobody will ever tell."""
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    async with watching(store, there) as events:
        await until_observed(store, subject, MISSING)
        await followed(there, events)
        there.frontend.restart()
        now = there.world.now()
        file = there.tape.find_file(ONE)
        assert file is not None
        file.pins[0] = Pin(now, now + 1e9)
        await until_observed(store, subject, ONLINE)


async def test_lost_events_are_made_up_for(store: Store, there: There) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    async with watching(store, there) as events:
        await until_observed(store, subject, MISSING)
        await followed(there, events)
        now = there.world.now()
        file = there.tape.find_file(ONE)
        assert file is not None
        file.pins[0] = Pin(now, now + 1e9)
        (channel,) = there.frontend.listed()
        channel.say("EVENT_LOSS")
        await until_observed(store, subject, ONLINE)


async def test_who_is_overtaken_makes_a_channel_of_another_name(store: Store, there: There) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    there.strike("competing", "stream", value=100.0, count=2)
    async with watching(store, there) as events:
        await there.happens(lambda: there.count("stream") == 3)
        await followed(there, events)
        names = [channel.client_id for channel in there.frontend.listed()]
        assert names == ["aglowd:here", "aglowd:here#1", "aglowd:here#2"], "what was taken over is left alone"


async def test_a_channel_that_stays_silent_is_given_up(store: Store, there: There) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    there.strike("silent", "stream", value=0.0, count=FAILURES_BEFORE_ANEW)
    async with watching(store, there) as events:
        await followed(there, events)
        await there.happens(lambda: there.count("stream") == FAILURES_BEFORE_ANEW + 1)
        await there.happens(lambda: events.failures == 0)
        assert there.count("channels") == 4, "listed and made, twice"
        assert len(there.frontend.listed()) == 1, "and closed: it was ours"


async def test_what_an_earlier_life_left_is_closed(store: Store, there: There) -> None:
    for _ in range(3):
        await wait_for(store, f"P{_}", locality("a", ONE))
        async with watching(store, there) as events:
            await followed(there, events)
    assert [channel.client_id for channel in there.frontend.listed()] == ["aglowd:here"]
    await there.happens(lambda: all(channel.reader is None for channel in there.frontend.listed()))


async def test_directories_are_followed_while_somebody_waits(store: Store, there: There) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    async with watching(store, there) as events:
        await followed(there, events)
        await wait_for(store, "P2", locality("b", TWO))
        await followed(there, events, 2)
        await until_observed(store, locality("a", ONE), MISSING)
        await end(store, "P1")
        await there.happens(lambda: there.count("unsubscribe") == 1)
        (channel,) = there.frontend.listed()
        paths = [one.path for one in channel.subscriptions.values() if one.path]
        assert paths == ["/pnfs/grid.sara.nl/data/two"]


async def test_a_directory_that_cannot_be_followed_holds_up_no_other(
    store: Store, there: There, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFUSED_S", 300.0)
    later = TAPE.format("later", 3)
    await wait_for(store, "P1", locality("a", ONE), locality("b", later))
    async with watching(store, there) as events:
        await there.happens(lambda: events.note == "events: 1 directories followed, 1 polled")
        asked = there.count("subscribe")
        there.storage.write("gsiftp://x/pnfs/grid.sara.nl/data/later/f", b"")
        await followed(there, events, 2)
        assert there.count("subscribe") - asked <= 3, "it is tried again now and then, not at every tick"


async def test_so_many_directories_are_followed(store: Store, there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FOLLOWED >= 1000
    monkeypatch.setattr(module, "MAX_FOLLOWED", 1)
    await wait_for(store, "P1", locality("a", ONE), locality("b", TWO))
    async with watching(store, there) as events:
        await there.happens(lambda: events.note == "events: 1 directories followed, 1 polled")
        await wait_for(store, "P2", locality("c", ONE))
        await until_observed(store, locality("c", ONE), MISSING)
        assert there.count("subscribe") == 2, "the metronome and one directory"


async def test_requests_do_not_grow_with_the_subjects_of_a_directory(store: Store, there: There) -> None:
    surls = [TAPE.format("many", number) for number in range(40)]
    subjects = [locality(str(number), surl) for number, surl in enumerate(surls)]
    await wait_for(store, "P1", *subjects)
    async with watching(store, there) as events:
        await followed(there, events)
        looks = there.count("archiveinfo")
        began = there.clock.now()
        for surl in surls:
            there.bring_online(surl)
        for subject in subjects:
            await until_observed(store, subject, ONLINE)
        assert there.count("subscribe") == 2, "the metronome and one directory"
        most = 2 + (there.clock.now() - began) / HINTS_APART_S
        assert 1 <= there.count("archiveinfo") - looks <= most


async def test_a_flood_of_events_is_a_look_now_and_then(store: Store, there: There) -> None:
    subject = locality("a", ONE)
    await wait_for(store, "P1", subject)
    async with watching(store, there) as events:
        await until_observed(store, subject, MISSING)
        await followed(there, events)
        looks, began = there.count("archiveinfo"), there.clock.now()
        for _ in range(300):
            there.frontend.happen("/pnfs/grid.sara.nl/data/one/other", "IN_ATTRIB")
            await asyncio.sleep(0.002)
        passed_s = there.clock.now() - began
        found = there.count("archiveinfo") - looks
        assert 1 <= found <= 1 + passed_s / HINTS_APART_S


async def test_a_stop_leaves_no_stream(store: Store, there: There) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    async with watching(store, there) as events:
        await followed(there, events)
    before = asyncio.all_tasks()
    await there.happens(lambda: all(channel.reader is None for channel in there.frontend.listed()))
    assert not [task for task in before if "watch" in task.get_name()]


# --- with a stream in our hand


class Hand:
    """Events that a test says, one by one; what is said has been dealt with when the next is asked for."""

    client_id = "us"
    elsewhere = ("juelich", "door.uni.example")

    def __init__(self) -> None:
        self.subscribed: list[str] = []
        self.refused: set[str] = set()
        self.said: asyncio.Queue[Hint | Tick | Temporary] = asyncio.Queue()
        self.since: list[str] = []

    async def open(self, client_id: str, *, tick_s: int) -> str:
        return "channel"

    async def subscribe(self, channel: str, directory: str) -> str:
        self.subscribed.append(directory)
        if directory in self.refused:
            raise NotFollowed("no such directory")
        return directory

    async def unsubscribe(self, channel: str, subscription: str) -> None: ...

    async def stream(self, channel: str, followed: Any, last_id: str, *, silent_s: float) -> AsyncIterator[Hint | Tick]:
        self.since.append(last_id)
        yield Tick(last_id)
        while True:
            one = await self.said.get()
            try:
                if isinstance(one, Temporary):
                    raise one
                yield one
            finally:
                self.said.task_done()

    async def say(self, *told: Hint | Tick | Temporary) -> None:
        for one in told:
            self.said.put_nowait(one)
        async with asyncio.timeout(PATIENCE_S):
            await self.said.join()


@asynccontextmanager
async def by_hand(store: Store, clock: Clock, hand: Hand) -> AsyncIterator[set[str]]:
    """The hints at localities, which nobody takes out."""
    async with running(Events(world_of(clock, events=hand), store, NEVER_S)):
        async with asyncio.timeout(PATIENCE_S):
            while not hand.since:  # noqa: ASYNC110 - nothing rings.
                await asyncio.sleep(0.001)
        await hand.say(Tick(""))
        hints = store.bells.hints("locality")
        hints.clear()
        yield hints


PLACE, OTHER = "/pnfs/grid.sara.nl/data/one", "/pnfs/grid.sara.nl/data/two"


async def test_a_stream_that_cannot_say_where_it_was_left_has_everything_looked_at(store: Store, clock: Clock) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    hand = Hand()
    async with by_hand(store, clock, hand) as hints:
        await hand.say(Temporary("cut"), Tick(""))
        assert (hand.since, hints) == (["", ""], {"locality:a"})
    assert hand.subscribed == [PLACE]


async def test_a_stream_that_can_goes_on_where_it_was_left(store: Store, clock: Clock) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    hand = Hand()
    async with by_hand(store, clock, hand) as hints:
        await hand.say(Tick("7"), Temporary("cut"), Tick("8"))
        assert (hand.since, hints) == (["", "7"], set()), "the server tells what was missed"
    assert hand.subscribed == [PLACE]


async def test_a_directory_that_is_new_is_looked_at_behind_its_subscription(store: Store, clock: Clock) -> None:
    await wait_for(store, "P1", locality("a", ONE))
    hand = Hand()
    async with by_hand(store, clock, hand) as hints:
        await wait_for(store, "P2", locality("b", TWO))
        await hand.say(Tick("7"))
        assert (hand.subscribed, hints) == ([PLACE, OTHER], {"locality:b"})
        hints.clear()
        await hand.say(Hint(PLACE, "8"))
        assert hints == {"locality:a"}
        await hand.say(Hint(None, "9"))
        assert hints == {"locality:a", "locality:b"}


async def test_what_is_not_followed_any_more_is_subscribed_again(store: Store, clock: Clock) -> None:
    await wait_for(store, "P1", locality("a", ONE), locality("b", TWO))
    hand = Hand()
    hand.refused = {OTHER}
    async with by_hand(store, clock, hand) as hints:
        await hand.say(Tick("7"), Tick("8"), Tick("9"))
        assert hand.subscribed == [PLACE, OTHER], "what was refused is tried again much later"
        await hand.say(Hint(PLACE, "10", ended=True))
        assert hints == {"locality:a"}
        await hand.say(Tick("11"))
        assert hand.subscribed == [PLACE, OTHER, PLACE]


async def test_what_another_dcache_has_is_not_subscribed_here(store: Store, clock: Clock) -> None:
    """Directories of the same names as ours are no reason to look there."""
    there = Subject("locality", "b", {"site": "juelich", "surls": [TWO]})
    urls = ("https://dcache-lofar.fz-juelich.de:2880/pnfs/a", "gsiftp://door.uni.example:2811/pnfs/b", RESULTS)
    listings = [Subject("directory", url, {"url": url}) for url in urls]
    coming = Subject("arrivals", "c", {"url": urls[1], "pattern": "*", "quiet_s": 1.0})
    await wait_for(store, "P1", locality("a", ONE), there, *listings, coming)
    hand = Hand()
    async with by_hand(store, clock, hand) as hints:
        assert hand.subscribed == [PLACE, "/pnfs/grid.sara.nl/results"]
        await hand.say(Hint(None, "8"))
        assert hints == {"locality:a"}
