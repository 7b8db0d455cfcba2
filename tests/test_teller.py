"""People are told by themselves of what went wrong: once, together, in few words, and whatever happens to a channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import Played, begin, decide, graph, new_reactor, opened, rows, settle_all, step

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.channels import Channel, Message
from aglowd.grid.gate import Credential, Site
from aglowd.log import HIDDEN, forget_secret, register_secret
from aglowd.model import Failed, Outcome, Seen, StepView
from aglowd.notices import MAX_LINES, MAX_TEXT_CHARS, TOLD, message_of, text_of
from aglowd.store.store import Store
from aglowd.teller import BACKOFF_MOST_S, MAX_TOLD, Teller, troubles_of

PATIENCE_S = 20.0
WELL, ILL = graph("well", step("look")), graph("ill", step("break"))


class Heard:
    """A channel of the test's own. `refuse`: how many of the next messages it does not take."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.tries = 0
        self.messages: list[Message] = []
        self.hang = asyncio.Event()
        self.hang.set()

    async def send(self, message: Message) -> None:
        self.tries += 1
        if self.refuse:
            self.refuse -= 1
            raise Temporary("nobody listens")
        self.messages.append(message)
        await self.hang.wait()

    @property
    def lines(self) -> list[str]:
        return [notice["text"] for message in self.messages for notice in message.data["notices"]]


@pytest.fixture
def clock() -> Clock:
    return Clock(rate=1000.0)


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", clock) as store:
        yield store


def breaks(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Failed(f"{view.field} broke", final=True)


async def fail(store: Store, *fields: str) -> None:
    """Runs of these fields fail, and others end well beside them."""
    for field in fields:
        await begin(store, ILL, field)
        await begin(store, WELL, f"well {field}")
    await settle_all(new_reactor(store, [Played({"break": breaks})], ILL, WELL))


@asynccontextmanager
async def telling(
    store: Store, *, gather_s: float = 200.0, apart_s: float = 200.0, troubles: Any = dict, **channels: Channel
) -> AsyncIterator[Teller]:
    teller = Teller(store, channels, store.clock, troubles, gather_s=gather_s, apart_s=apart_s)
    task = asyncio.create_task(teller.run())
    try:
        yield teller
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], Any | Awaitable[Any]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


async def begun(store: Store, *channels: str) -> None:
    """Until each channel knows from where on it tells."""

    async def known() -> bool:
        return None not in [await store.cursor(f"told by {name}") for name in channels]

    await until(known)


# --- when and how often


async def test_what_happens_within_a_moment_is_one_message_and_what_was_before_is_none(store: Store) -> None:
    await fail(store, "before")
    heard = Heard()
    async with telling(store, heard=heard):
        await begun(store, "heard")
        for field in ("P1", "P2", "P3"):
            await fail(store, field)
        await until(lambda: heard.messages)
        await fail(store, "P4")
        await until(lambda: len(heard.messages) == 2)
    assert heard.lines == [f"{field}: run {field}-1 failed: break: {field} broke" for field in ("P1", "P2", "P3", "P4")]
    assert [len(message.data["notices"]) for message in heard.messages] == [3, 1]


async def test_two_messages_keep_apart(store: Store, clock: Clock) -> None:
    heard = Heard()
    async with telling(store, apart_s=1000.0, heard=heard):
        await begun(store, "heard")
        await fail(store, "P1")
        await until(lambda: heard.messages)
        at = clock.now()
        await fail(store, "P2")
        await until(lambda: len(heard.messages) == 2)
        assert clock.now() - at >= 1000.0


async def test_a_kill_repeats_one_message_at_most_and_loses_none(store: Store) -> None:
    """Killed while a message is on its way, which has arrived; and once more before anything was told of the next."""
    heard = Heard()
    heard.hang.clear()
    async with telling(store, heard=heard):
        await begun(store, "heard")
        await fail(store, "P1")
        await until(lambda: heard.messages)
    heard.hang.set()
    await fail(store, "P2")
    async with telling(store, heard=heard):
        await until(lambda: len(heard.messages) == 3)
        last = heard.messages[-1].data["notices"][-1]["id"]

        async def remembered() -> bool:
            return int(await store.cursor("told by heard") or 0) >= last

        await until(remembered)
    await fail(store, "P3")
    async with telling(store, heard=heard):
        await until(lambda: len(heard.messages) == 4)
    told = [line.partition(":")[0] for line in heard.lines]
    assert told == ["P1", "P1", "P2", "P3"]
    ids = [message.id for message in heard.messages]
    assert ids[0] == ids[1], "whoever knows the first throws the second away"
    assert len({*ids}) == 3


async def test_a_message_that_may_have_arrived_comes_again_as_it_was(store: Store) -> None:
    """Whoever knows its id throws it away, so nothing else may be in it."""

    class Deaf(Heard):
        async def send(self, message: Message) -> None:
            self.messages.append(message)
            if len(self.messages) == 1:
                await fail(store, "P2")
                raise Temporary("no answer in time")

    heard = Deaf()
    async with telling(store, heard=heard):
        await begun(store, "heard")
        await fail(store, "P1")
        await until(lambda: len(heard.messages) == 3)
    first, again, other = heard.messages
    assert first == again
    assert [line.partition(":")[0] for line in heard.lines] == ["P1", "P1", "P2"]
    assert other.id != first.id


async def test_another_daemons_message_has_another_id(tmp_path: Path, clock: Clock) -> None:
    ids = set()
    for number in range(2):
        heard = Heard()
        async with opened(tmp_path / f"{number}.db", clock) as store, telling(store, heard=heard):
            await begun(store, "heard")
            await fail(store, "P1")
            await until(lambda heard=heard: heard.messages)
        ids.add(heard.messages[0].id)
    assert len(ids) == 2


async def test_a_channel_that_is_down_keeps_no_other_waiting_and_tells_all_when_it_is_back(store: Store) -> None:
    down, well = Heard(refuse=3), Heard()
    async with telling(store, down=down, well=well) as teller:
        await begun(store, "down", "well")
        await fail(store, "P1")
        await until(lambda: well.messages and down.tries)
        assert teller.defects == {"down": "down: nobody listens"}
        await fail(store, "P2")
        await until(lambda: len(down.lines) == 2)
        await until(lambda: not teller.defects)
        await until(lambda: len(well.lines) == 2)
    assert down.tries == 5
    assert [line.partition(":")[0] for line in down.lines] == ["P1", "P2"]


async def test_a_defect_of_a_channel_stops_nothing(store: Store) -> None:
    class Broken:
        async def send(self, message: Message) -> None:
            raise ZeroDivisionError("nobody thought of this")

    heard = Heard()
    async with telling(store, broken=Broken(), heard=heard) as teller:
        await begun(store, "broken", "heard")
        await fail(store, "P1")
        await until(lambda: heard.messages and teller.defects)
        assert teller.defects["broken"] == "broken: ZeroDivisionError: nobody thought of this"
        before = teller.progress_at
        await until(lambda: teller.progress_at > before)


async def test_the_rest_between_tries_has_an_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def rest(self: Teller, world_s: float) -> None:
        rests.append(world_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Teller, "_rest", rest)
    down = Heard(refuse=10**9)
    async with telling(store, down=down):
        await begun(store, "down")
        await fail(store, "P1")
        await until(lambda: down.tries > 10)
    longer = [seconds for seconds in rests if seconds > 200.0]
    assert longer[:4] == [400.0, 800.0, 1600.0, 3200.0]
    assert set(longer[4:]) == {BACKOFF_MOST_S}


async def test_more_than_one_message_holds_are_several(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_TOLD > MAX_LINES
    monkeypatch.setattr("aglowd.teller.MAX_TOLD", 2)
    heard = Heard()
    async with telling(store, heard=heard):
        await begun(store, "heard")
        await fail(store, "P1", "P2", "P3")
        await until(lambda: len(heard.messages) == 2)
    assert [len(message.data["notices"]) for message in heard.messages] == [2, 1]


# --- what goes wrong for a while


async def events(store: Store) -> list[tuple[str, str]]:
    found = await rows(store, "SELECT kind, json_extract(data, '$.name') AS name FROM events ORDER BY id")
    return [(row["kind"], row["name"]) for row in found if row["kind"].startswith("Trouble")]


async def test_a_trouble_is_an_event_at_its_beginning_and_at_its_end_also_across_a_restart(
    tmp_path: Path, clock: Clock
) -> None:
    async with opened(tmp_path / "aglowd.db", clock) as store:
        await store.note_troubles({"system lta": "", "grid proxy": "low"})
        await store.note_troubles({"system lta": "down", "grid proxy": "lower"})
    async with opened(tmp_path / "aglowd.db", clock) as store:
        await store.note_troubles({})  # Nothing is known yet.
        await store.note_troubles({"system lta": "down still"})
        await store.note_troubles({"system lta": "", "grid proxy": ""})
        await store.note_troubles({"system lta": "", "grid proxy": ""})
        assert await events(store) == [
            ("TroubleBegan", "grid proxy"),
            ("TroubleBegan", "system lta"),
            ("TroubleEnded", "grid proxy"),
            ("TroubleEnded", "system lta"),
        ]


async def test_the_teller_notes_troubles_and_tells_of_them(store: Store) -> None:
    current: dict[str, str] = {}
    heard = Heard()
    async with telling(store, troubles=lambda: current, heard=heard):
        await begun(store, "heard")
        current["system picas"] = "no good answer for 30m"
        await until(lambda: len(heard.lines) == 1)
        current["system picas"] = ""
        await until(lambda: len(heard.lines) == 2)
    assert heard.lines == ["system picas: no good answer for 30m", "system picas: well again"]


async def test_what_cannot_be_noted_stops_nothing(store: Store) -> None:
    def broken() -> dict[str, str]:
        raise KeyError("a defect")

    heard = Heard()
    async with telling(store, troubles=broken, heard=heard) as teller:
        await begun(store, "heard")
        await fail(store, "P1")
        await until(lambda: heard.messages)
        assert "a defect" in teller.defects["troubles"]


async def test_what_is_well_and_what_is_not() -> None:
    """A system that fails and has not for long is neither, so that one bad answer neither begins nor ends anything."""
    clock = Clock()
    started = clock.now()
    sites = {name: Site(name, clock) for name in ("never asked", "well", "fails", "down")}

    async def ask(name: str, *, well: bool) -> None:
        try:
            async with sites[name].slot():
                if not well:
                    raise Temporary("no connection")
        except Temporary:
            pass

    for name in ("well", "fails"):
        await ask(name, well=True)
    for name in ("fails", "down"):
        await ask(name, well=False)
    credentials = {"lta": Credential("lta"), "picas": Credential("picas")}
    credentials["picas"].freeze("refused (401)")

    def told(after_s: float) -> dict[str, str]:
        return dict(troubles_of(sites, credentials, down_after_s=1800.0, started=started, now=started + after_s))

    early = told(60.0)
    assert early == {
        "system well": "",
        "credential lta": "",
        "credential picas": "it is frozen: refused (401); renew it",
    }
    late = told(2000.0)
    assert late["system down"].startswith("no good answer for 33m")
    assert "no connection" in late["system down"]
    assert late["system fails"]
    assert late["system well"] == ""
    assert "system never asked" not in late


# --- the words


def event(kind: str, **data: Any) -> dict[str, Any]:
    names = {"field": "P1", "run": "P1-1", "step": "stage", "effect": "P1-1/stage/1/stage_files/0"}
    return {"id": 7, "at": 1.8e9, "kind": kind, **names, "data": data}


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("RunEnded", {"state": "failed", "reason": "stage: gone"}, "P1: run P1-1 failed: stage: gone"),
        ("RunEnded", {"cut": "the reason was long"}, "P1: run P1-1 failed: the reason was long"),
        ("RunEnded", {}, "P1: run P1-1 failed: no reason is known"),
        (
            "EffectDoubtful",
            {"reason": "lost"},
            "P1: in doubt: P1-1/stage/1/stage_files/0: lost (aglowctl doubt)",
        ),
        ("StrangerFound", {"what": "a job"}, "the audit found: a job (aglowctl doubt)"),
        ("DuplicateFound", {"what": "a job"}, "the audit found: a job (aglowctl doubt)"),
        ("TroubleBegan", {"name": "system lta", "why": "down"}, "system lta: down"),
        ("TroubleEnded", {"name": "system lta", "why": "down"}, "system lta: well again"),
        ("RunEnded", {"reason": "two\nlines\r\nof it"}, "P1: run P1-1 failed: two lines of it"),
    ],
)
def test_each_kind_has_its_words(kind: str, data: dict[str, Any], text: str) -> None:
    assert kind in TOLD
    assert text_of(event(kind, **data)) == text


def test_a_line_and_a_message_have_an_end_and_say_how_much_more_there_is() -> None:
    assert len(text_of(event("RunEnded", reason="x" * 10_000))) == MAX_TEXT_CHARS
    subject, text, data = message_of([event("RunEnded", reason="x")] * (MAX_LINES + 2), "here")
    assert subject == f"aglowd at here: {MAX_LINES + 2} messages"
    assert text.count("\n") == MAX_LINES + 2
    assert text.endswith("and 2 more: aglowctl events\n")
    assert (len(data["notices"]), data["more"]) == (MAX_LINES, 2)
    subject, text, _ = message_of([event("RunEnded", reason="x")], "here")
    assert subject == "aglowd at here: P1: run P1-1 failed: x"
    assert text == "aglowd at here:\n2027-01-15T08:00:00Z P1: run P1-1 failed: x\n"


def test_no_secret_is_told() -> None:
    register_secret("s3cret-word")
    try:
        text = text_of(event("RunEnded", reason="the answer was s3cret-word for https://me:pw@h/"))
    finally:
        forget_secret("s3cret-word")
    assert "s3cret-word" not in text
    assert "pw@" not in text
    assert HIDDEN in text


async def test_a_run_that_failed_with_many_words_is_told_all_the_same(store: Store) -> None:
    """An event of that length is cut, and its state with it."""

    def long(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Failed("x" * 3000, final=True)

    await begin(store, ILL, "P1")
    await decide(store, ILL, long(None, None, None))  # type: ignore[arg-type] # It looks at none of them.
    found, last = await store.notices(0, 10)
    assert [one["kind"] for one in found] == ["RunEnded"]
    assert "state" not in found[0]["data"]
    assert last >= found[0]["id"]


async def test_other_channels_may_take_over_while_it_tells(store: Store) -> None:
    """Whoever is new hears what happens from then on; who is gone is no defect any more."""
    gone, new = Heard(refuse=10**6), Heard()
    async with telling(store, gone=gone) as teller:
        await until(lambda: store.cursor("told by gone"))
        await store.note_troubles({"system lta": "down"})
        await until(lambda: "gone" in teller.defects)
        teller.heed({"new": new}, gather_s=100.0, apart_s=100.0)
        assert "gone" not in teller.defects
        await until(lambda: store.cursor("told by new"))
        await store.note_troubles({"system lta": ""})
        await until(lambda: new.messages)
        tries = gone.tries
    assert new.lines == ["system lta: well again"]
    assert gone.tries == tries
