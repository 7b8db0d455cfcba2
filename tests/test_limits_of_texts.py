"""The limits of what is said: in a reason, on a screen, to systemd, and by other systems' words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support import Played, begin, graph, new_reactor, settle_all, step, step_row

from aglowd import clock, notify, reactor
from aglowd.clock import Clock
from aglowd.effects import tokens
from aglowd.errors import Temporary
from aglowd.grid import archive, dcache, http, lta, proc
from aglowd.grid.http import Reply
from aglowd.handlers import base as handlers
from aglowd.model import Json, Subject
from aglowd.store import views
from aglowd.store.store import Store
from aglowd.watchers import base as watchers
from aglowd.watchers import pages, results
from aglowd.watchers.base import Observations, Watcher


@pytest.mark.parametrize(("failures", "rest_s"), [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (10_000, 60.0)])
def test_what_raises_again_and_again_rests_up_to_a_minute(failures: int, rest_s: float) -> None:
    assert clock.RESTART_MOST_REAL_S == 60.0
    assert clock.restart_after_s(failures) == rest_s


# --- our own words


@pytest.mark.parametrize("more", [0, 1])
def test_a_status_for_systemd_is_so_long(more: int) -> None:
    text = "x" * (notify.MAX_STATUS_CHARS + more)
    assert notify._line(text) == "x" * notify.MAX_STATUS_CHARS


def test_a_reason_names_so_many() -> None:
    names = [f"n{number}" for number in range(handlers.MAX_NAMED + 1)]
    assert handlers.named(names[:-1]) == ", ".join(names[:-1])
    assert handlers.named(names) == ", ".join(names[:-1]) + " and 1 more"


def test_evidence_on_a_screen_is_so_long() -> None:
    fits: list[Json] = ["x" * (views.MAX_EVIDENCE - len('[""]'))]
    assert views.short({"requests": fits}) == {"requests": fits}
    assert views.short({"requests": [fits[0] + "x"]}) == {"requests": "1 entries"}  # type: ignore[operator]


async def test_what_a_handler_raised_is_cut_in_its_reason(store: Store) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("x" * reactor.MAX_FAULT_CHARS)

    pipeline = graph("poison", step("a"))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played({"a": fail})], pipeline))
    reason = (await step_row(store, run, "a"))["reason"]
    assert (
        reason == "its handler raised: " + ("ValueError: " + "x" * reactor.MAX_FAULT_CHARS)[: reactor.MAX_FAULT_CHARS]
    )


class Broken(Watcher):
    """Raises whatever it looks at."""

    kind = "broken"

    async def look(self, subjects: Any) -> Observations:
        raise ValueError("x" * watchers.MAX_DEFECT_CHARS)


async def test_a_watchers_defect_is_cut(store: Store) -> None:
    world: Any = SimpleNamespace(clock=Clock())
    watcher = Broken(world, store, 1.0)
    await watcher._look([Subject("broken", "n1")])
    assert watcher.defect.startswith("broken:n1: ValueError: xxx")
    assert len(watcher.defect) == watchers.MAX_DEFECT_CHARS


# --- others' words


@pytest.mark.parametrize(("count", "is_one"), [(tokens.MAX_SCRUBS - 1, True), (tokens.MAX_SCRUBS, False), (-1, False)])
def test_a_token_was_given_back_so_often(count: int, is_one: bool) -> None:
    assert tokens._number(count) == (count if is_one else 0)


def test_a_status_of_the_stager_is_so_long() -> None:
    assert lta.word("X" * lta.MAX_WORD_CHARS) == "x" * lta.MAX_WORD_CHARS
    assert lta.word("X" * (lta.MAX_WORD_CHARS + 1)) == "x" * lta.MAX_WORD_CHARS


def test_a_locality_is_so_long() -> None:
    for more in (0, 1):
        row = {"locality": "x" * (archive.MAX_WORD_CHARS + more)}
        assert dcache._locality(row) == "X" * archive.MAX_WORD_CHARS


@pytest.mark.parametrize("more", [0, 1])
async def test_what_a_pilot_wrote_is_so_long(store: Store, more: int) -> None:
    url, status = "u" * (results.MAX_URL_CHARS + more), "s" * (results.MAX_STATUS_CHARS + more)
    documents = {
        "t1": {"type": "t", "status": "done", "Results_location": url},
        "t2": {"type": "t", "status": status},
    }

    class Picas:
        async def list_ids(self, token_type: str) -> tuple[str, ...]:
            return tuple(documents)

        async def get_docs(self, ids: Any) -> dict[str, Any]:
            return {name: documents[name] for name in ids}

    base = Picas()
    world: Any = SimpleNamespace(clock=Clock(), token_base=lambda site: base)
    ((_, seen),) = await results.Results(world, store, 1.0).look([Subject("results", "a", {"token_type": "t"})])
    assert seen["done"] == {"t1": "u" * results.MAX_URL_CHARS}
    assert seen["other"] == {"t2": "s" * results.MAX_STATUS_CHARS}


@pytest.mark.parametrize("more", [0, 1])
async def test_a_page_is_so_long(store: Store, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 20)
    body = b'"' + b"x" * (18 + more) + b'"'

    class Web:
        async def request(self, *_: Any, **__: Any) -> Reply:
            return Reply(200, {}, body)

    subject = Subject("http", "a", {"url": "http://x/"})
    world: Any = SimpleNamespace(clock=Clock(), http=Web(), web=None)
    answer = await pages.Pages(world, store, 1.0)._answer(subject)
    assert answer.data == {"status": 200, "body": '"' + "x" * 19 if more else "x" * 18}


@pytest.mark.parametrize("asked_s", [http.MAX_BACK_OFF_S, http.MAX_BACK_OFF_S + 1])
def test_nobody_is_left_alone_for_longer_than_a_quarter_of_a_day(asked_s: float) -> None:
    client = http.Http(Clock())
    reply = Reply(503, {"retry-after": str(int(asked_s))}, b"")
    assert client._retry_after_s(reply) == http.MAX_BACK_OFF_S


async def test_an_answer_of_the_stager_is_so_long() -> None:
    asked: dict[str, Any] = {}

    class Client:
        async def request(self, *_: Any, **options: Any) -> Reply:
            asked.update(options)
            return Reply(200, {}, b"<methodResponse/>")

    client: Any = Client()
    with pytest.raises(Temporary, match="LTA getprogress: the answer is not XML-RPC"):
        await lta.LtaStager(client, None, None, "http://x").progress()  # type: ignore[arg-type] # nobody logs in
    assert asked["max_body_bytes"] == lta.MAX_ANSWER_BYTES


async def test_a_program_that_is_given_no_limit_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = proc.Processes(env={"PATH": "/usr/bin:/bin"})
    said = await processes.run(["head", "-c", str(proc.MAX_OUTPUT_BYTES), "/dev/zero"], write=False)
    assert len(said.stdout) == proc.MAX_OUTPUT_BYTES
    with pytest.raises(Temporary, match=f"more than {proc.MAX_OUTPUT_BYTES} bytes of output"):
        await processes.run(["head", "-c", str(proc.MAX_OUTPUT_BYTES + 1), "/dev/zero"], write=False)
