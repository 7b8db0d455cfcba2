"""StageIT: every habit of it that a client can meet, from a server that says what the test tells it to."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from support import HandClock

from aglowd import log
from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import stageit
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.keyring import ASK_APART_S, REFRESH_S, Issued, Keyring
from aglowd.grid.stageit import StageIt
from aglowd.grid.stageit_text import issued
from aglowd.grid.stager import Progress
from aglowd.log import redact_text

from .conftest import Serve
from .test_macaroons import issue

TOKEN = "9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b"
SURLS = ("srm://a", "srm://b", "srm://c", "srm://d")
EMPTY = web.Response(status=202)


class Service:
    """A real server that gives the test's answers one after the other, and keeps what it was asked.

    What it is asked of the requests of its pages it answers from these, unless `details` has another answer.
    """

    def __init__(self, http: Http, site: Site, clock: Clock, serve: Serve) -> None:
        self.credential = Credential("stageit", token=TOKEN, scheme="Token")
        self._serve = serve
        self._make: Callable[..., StageIt] = lambda url, **given: StageIt(
            http, site, self.credential, f"{url}/stageit/api/staging/", clock, **given
        )
        self.asked: list[tuple[str, str, Any]] = []
        self.details: Any = None
        self.absent: set[str] = set()
        self.headers: list[dict[str, str]] = []

    async def answering(self, *answers: Any, **given: Any) -> StageIt:
        left = list(answers)
        nodes: dict[str, Any] = {}

        async def handler(request: web.Request) -> web.StreamResponse:
            text = await request.text()
            path = request.path.removeprefix("/stageit/api/staging/")
            self.asked.append((request.method, path, json.loads(text) if text else None))
            self.headers.append(dict(request.headers))
            aliases = re.findall(r"\br(\d+): request\(", text)
            answer = self.details if aliases and self.details is not None else None
            if self.absent.intersection(aliases):
                answer = error("StagingRequest matching query does not exist.")
            if aliases and answer is None:
                answer = {"data": {f"r{number}": nodes.get(number) for number in aliases}}
            elif answer is None:
                answer = left.pop(0)
                for shown in nodes_of(answer):
                    nodes[str(shown.get("id"))] = shown
            if isinstance(answer, int):
                return web.json_response({"detail": f"not with {TOKEN}"}, status=answer)
            if answer is EMPTY:
                return web.Response(status=202)
            if isinstance(answer, bytes):
                return web.Response(body=answer, content_type="text/html")
            return web.json_response(answer)

        return self._make(await self._serve(handler), **given)

    @property
    def queries(self) -> list[str]:
        return [body["query"] for _, path, body in self.asked if path == "graphql/"]


@pytest.fixture
def service(http: Http, site: Site, clock: Clock, serve: Serve) -> Service:
    return Service(http, site, clock, serve)


def one(**fields: Any) -> dict[str, Any]:
    """The answer to a query for one request."""
    return {"data": {"request": {"id": 7, **fields}}}


def page(*nodes: Any, cursor: str | None = None) -> dict[str, Any]:
    """One page of the list; the last one if there is no cursor."""
    info = {"hasNextPage": cursor is not None, "endCursor": cursor}
    return {"data": {"requests": {"pageInfo": info, "edges": [{"node": node} for node in nodes]}}}


def nodes_of(answer: Any) -> list[dict[str, Any]]:
    """The requests of a page; none of what is no page."""
    try:
        return [edge["node"] for edge in answer["data"]["requests"]["edges"] if isinstance(edge["node"], dict)]
    except (TypeError, KeyError):
        return []


def node(number: Any, online: Any = (), **fields: Any) -> dict[str, Any]:
    response = json.dumps({"online": list(online), "progressing": [], "errors": {}})
    status = {"currentStatus": "In Progress", "currentStatusCode": "I"}
    return {"id": number, "response": response, "surls": [{"surl": surl} for surl in SURLS], **status, **fields}


def error(text: str) -> dict[str, Any]:
    return {"errors": [{"message": text, "path": ["request"]}], "data": None}


# --- writes


async def test_staging_sends_clean_surls_with_the_token_and_returns_the_id(service: Service) -> None:
    stager = await service.answering({"id": 991619, "current_status_code": "N"}, {"id": "991620"})
    assert await stager.stage(["srm://a\n", "srm://b"]) == 991619
    assert await stager.stage(("srm://a",)) == 991620
    body = {"surls": ["srm://a", "srm://b"], "notify": False, "request_type": "stage"}
    assert service.asked[0] == ("POST", "requests/", body)
    assert service.headers[0]["Authorization"] == f"Token {TOKEN}"
    assert service.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize("answer", [None, {}, [], {"id": None}, {"id": "soon"}, {"id": 1.5}, "7", b"", b"<html>"])
async def test_an_answer_without_an_id_leaves_the_staging_in_doubt(service: Service, answer: Any) -> None:
    with pytest.raises(Unknown):
        await (await service.answering(answer)).stage(["srm://a"])


async def test_an_abort_is_accepted_with_an_empty_body(service: Service) -> None:
    stager = await service.answering(EMPTY, b"not read")
    await stager.abort(7)
    await stager.abort("8")
    assert service.asked == [("PUT", "requests/7/abort/", {}), ("PUT", "requests/8/abort/", {})]


async def test_rescheduling_sets_the_code(service: Service) -> None:
    await (await service.answering({"id": 7})).reschedule(7)
    assert service.asked == [("PATCH", "requests/7/", {"current_status_code": "S"})]


@pytest.mark.parametrize("verb", ["abort", "reschedule"])
@pytest.mark.parametrize("request_id", [404, "x/../8", "a0e4-uuid", ""])
async def test_what_is_not_there_is_absent(service: Service, verb: str, request_id: int | str) -> None:
    stager = await service.answering(404)
    with pytest.raises(Permanent) as caught:
        await getattr(stager, verb)(request_id)
    assert caught.value.absent
    assert len(service.asked) == (request_id == 404), "what is no number is not asked for"


@pytest.mark.parametrize(
    ("status", "raised"), [(301, Permanent), (400, Permanent), (403, Permanent), (500, Unknown), (502, Unknown)]
)
async def test_a_write_that_is_refused(service: Service, status: int, raised: type[OutsideError]) -> None:
    """301 is what a path without its slash gets: it is not followed, because GET would come of it."""
    stager = await service.answering(status)
    with pytest.raises(raised) as caught:
        await stager.stage(["srm://a"])
    assert type(caught.value) is raised
    assert not getattr(caught.value, "absent", False)


async def test_every_path_ends_in_a_slash(service: Service) -> None:
    stager = await service.answering({"id": 1}, EMPTY, {}, [], page(node(1)), one(), one())
    await stager.stage(SURLS)
    await stager.abort(1)
    await stager.reschedule(1)
    await stager.webdav_urls(1)
    await stager.progress()
    await stager.status(1)
    await stager.staged(1)
    assert len(service.asked) == 8
    assert all(path.endswith("/") for _, path, _ in service.asked)


@pytest.mark.parametrize("verb", ["stage", "progress", "status"])
async def test_the_first_401_freezes_the_credential(service: Service, verb: str) -> None:
    stager = await service.answering(401)
    for _ in range(2):
        with pytest.raises(Temporary, match="frozen"):
            await getattr(stager, verb)(*{"stage": [SURLS], "status": [7]}.get(verb, []))
    assert len(service.asked) == 1


# --- all requests


async def test_progress_counts_what_the_response_says(service: Service) -> None:
    running = page(node(7, SURLS[:1]), node("8", SURLS[:2]))
    stager = await service.answering(running, page(node(7, SURLS[:1]), node("8", SURLS, currentStatus="Success")))
    assert await stager.progress() == {7: Progress("in progress", 4, 1, 25.0), 8: Progress("in progress", 4, 2, 50.0)}
    assert await stager.progress() == {7: Progress("in progress", 4, 1, 25.0), 8: Progress("success", 4, 4, 100.0)}
    assert len(service.asked) == 4


async def test_long_fields_are_read_of_few_and_as_often_as_needed(service: Service) -> None:
    """The SURLs once, the response while it runs and once at its end, and nothing of what had ended before us."""
    old = [node(number, currentStatus="Success") for number in range(1, 90)]
    running, ended = node(100, SURLS[:1]), node(100, SURLS, currentStatus="Success")
    stager = await service.answering(*(page(*old, one) for one in (running, running, ended, ended)))
    assert (await stager.progress())[1] == Progress("success")
    for _ in range(3):
        seen = await stager.progress()
    assert seen[100] == Progress("success", 4, 4, 100.0)
    light, *rest = service.queries
    assert not re.search("surl|response|macaroon", light)
    assert [text.replace("query ", "") for text in rest if "edges" not in text] == [
        "{ r100: request(id: 100) { id response surls{surl} } }",
        "{ r100: request(id: 100) { id response } }",
        "{ r100: request(id: 100) { id response } }",
    ]


async def test_calls_of_a_round_do_not_grow_with_the_requests(service: Service) -> None:
    for count in (1, stageit.DETAILS_REQUESTS):
        service.asked.clear()
        await (await service.answering(page(*(node(number) for number in range(count))))).progress()
        assert len(service.asked) == 2
    service.asked.clear()
    await (await service.answering(page(*(node(number) for number in range(stageit.DETAILS_REQUESTS + 1))))).progress()
    assert len(service.asked) == 3


async def test_what_was_made_here_is_known_to_be_that_long(service: Service) -> None:
    stager = await service.answering({"id": 7}, page(node(7, SURLS, currentStatus="Success")))
    await stager.stage([*SURLS, f"{SURLS[0]}\n"])
    assert await stager.progress() == {7: Progress("success", 4, 4, 100.0)}
    assert "surls" not in service.queries[-1]


async def test_one_that_the_list_shows_and_that_is_not_there_hides_no_other(service: Service) -> None:
    """Else none of them would ever be read, and where their files are would be asked without their macaroons."""
    service.absent = {"8"}
    stager = await service.answering(page(*(node(number, SURLS[:1]) for number in range(6, 10))))
    read = Progress("in progress", 4, 1, 25.0)
    assert await stager.progress() == {6: read, 7: read, 8: Progress("in progress"), 9: read}
    assert len(service.queries) == 6, "the page, all four, each half, and each of the half with the bad one"


@pytest.mark.parametrize(
    ("response", "done"),
    [
        (None, 0), ("", 0), (" \n", 0), ("null", None), ("{}", 0), ('{"progressing": ["srm://a"]}', 0), ({"online": ["srm://a"]}, 1),
        ('{"online": ["srm://a"', None), ("[]", None), ('{"online": {}}', None), ('{"online": null}', None), (17, None), ("\x00", None),
        ('{"online": ["srm://a", "srm://a ", 3, null]}', 1), ("[" * 100_000, None),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
async def test_a_response_is_a_document_in_a_text_or_anything_else(
    service: Service, response: Any, done: int | None
) -> None:
    stager = await service.answering(page(node(7, response=response)), one(response=response))
    percent = None if done is None else 25.0 * done
    assert await stager.progress() == {7: Progress("in progress", 4, done, percent)}
    if done is None:
        with pytest.raises(Temporary, match="response cannot be read"):
            await stager.staged(7)
    else:
        assert await stager.staged(7) == SURLS[:done]


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ("Partial Success", "P", "partial success"), (" IN_PROGRESS\n", "I", "in progress"), ("aborted", None, "aborted"),
        (None, "S", "scheduled"), ("", "c", "success"), (None, "A", "aborted"), (None, "X", "x"), (None, None, ""),
        ("New", "A", "new"), (["New"], "S", "scheduled"),
    ],
)  # fmt: skip
async def test_a_status_is_its_text_or_what_its_code_means(service: Service, text: Any, code: Any, status: str) -> None:
    fields = {"currentStatus": text, "currentStatusCode": code}
    stager = await service.answering(page(node(7, **fields)), one(**fields))
    assert (await stager.progress())[7].status == status
    assert await stager.status(7) == status


async def test_a_node_that_says_nothing_usable(service: Service) -> None:
    odd = [None, "x", {}, {"id": None}, {"id": [7]}, node(9, surls=None), node(10, surls=["srm://a", {"surl": 4}, {}])]
    service.details = {"data": {"r9": odd[5], "r10": odd[6], "other": 3, "r11": None}}
    found = await (await service.answering(page(*odd))).progress()
    assert found == {9: Progress("in progress", None, 0, None), 10: Progress("in progress", 1, 0, 0.0)}


async def test_pages_follow_each_other_by_cursors(service: Service) -> None:
    cursor = 'YXJyYXk6"}\\'
    stager = await service.answering(page(node(1), cursor=cursor), page(node(2), cursor="b"), page(node(3)))
    assert list(await stager.progress()) == [1, 2, 3]
    first, second, third = service.queries[:3]
    assert "after" not in first
    assert f"after: {json.dumps(cursor)}" in second
    assert 'after: "b"' in third
    whens = {found[1] for text in service.queries[:3] if (found := re.search(r'when_Gte: "([^"]+)"', text))}
    assert len(whens) == 1, "a page is cut from the same list as the one before"


async def test_only_requests_within_the_horizon_are_asked_for(service: Service, clock: Clock) -> None:
    stager = await service.answering(page(), page(), horizon_s=86_400.0)
    await stager.progress()
    (when,) = re.findall(r'when_Gte: "([^"]+)"', service.queries[0])
    assert datetime.fromisoformat(when).timestamp() == pytest.approx(clock.now() - 86_400, abs=10)
    assert f"first: {stageit.PAGE_REQUESTS}," in service.queries[0]


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"requests": None}}, {"data": {}}, {"data": None}, {"data": []}, {}, [], None, b"<html>", b"",
        {"data": {"requests": {"edges": []}}}, {"data": {"requests": {"pageInfo": {"hasNextPage": False}}}},
        {"data": {"requests": {"edges": [], "pageInfo": {"hasNextPage": None}}}},
        {"data": {"requests": {"edges": [], "pageInfo": {"hasNextPage": True, "endCursor": None}}}},
        {"data": {"requests": {"edges": [], "pageInfo": {"hasNextPage": True, "endCursor": 3}}}},
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
async def test_what_is_no_page_is_not_an_empty_one(service: Service, answer: Any) -> None:
    with pytest.raises(Temporary):
        await (await service.answering(answer)).progress()


async def test_a_list_without_end_is_no_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stageit, "MAX_PAGES", 3)
    pages = [page(node(number), cursor=str(number)) for number in range(2)]
    assert len(await (await service.answering(*pages, page(node(2)))).progress()) == 3
    with pytest.raises(Temporary, match="no end after 3 pages"):
        await (await service.answering(*pages, page(node(2), cursor="2"), page(node(3)))).progress()


async def test_a_list_that_turns_in_a_circle_is_no_answer(service: Service) -> None:
    stager = await service.answering(*[page(node(1), cursor="x")] * 3)
    with pytest.raises(Temporary, match="circle"):
        await stager.progress()
    assert len(service.asked) == 2


async def test_a_page_that_is_too_long_is_no_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = page(node(7, currentStatus="Success"))
    monkeypatch.setattr(stageit, "MAX_ANSWER_BYTES", len(json.dumps(answer)))
    assert len(await (await service.answering(answer)).progress()) == 1
    with pytest.raises(Temporary, match="longer than"):
        await (await service.answering(page(node(78, currentStatus="Success")))).progress()


# --- one request

ASKS: dict[str, Callable[[StageIt], Awaitable[Any]]] = {
    "status": lambda stager: stager.status(7),
    "requested": lambda stager: stager.requested(7),
    "staged": lambda stager: stager.staged(7),
}


@pytest.mark.parametrize("verb", ASKS)
@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"request": None}},
        error("StagingRequest matching query does not exist."),
        error("Request 7 not found"),
    ],
    ids=["null", "error", "not found"],
)
async def test_a_request_that_does_not_exist_is_null_or_an_error(service: Service, verb: str, answer: Any) -> None:
    found = await ASKS[verb](await service.answering(answer))
    assert found == ("" if verb == "status" else ())


async def test_a_name_that_is_no_number_is_unknown_without_asking(service: Service) -> None:
    stager = await service.answering()
    assert await stager.status("8f3e-uuid") == ""
    assert await stager.requested("") == ()
    assert service.asked == []


async def test_requested_is_the_whole_list(service: Service) -> None:
    stager = await service.answering(one(surls=[{"surl": f"{surl}\n"} for surl in SURLS]), one(surls={}), one())
    assert await stager.requested("7") == SURLS
    assert "request(id: 7)" in service.queries[0]
    for _ in range(2):
        with pytest.raises(Temporary, match="surls cannot be read"):
            await stager.requested(7)


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("Permission denied for this request", Permanent),
        ("Too many requests", Temporary),
        ("Service is in maintenance", Temporary),
        ("'NoneType' object has no attribute 'surls'", Temporary),
        ("database connection timed out", Temporary),
    ],
)
async def test_errors_come_with_http_200(service: Service, said: str, raised: type[OutsideError]) -> None:
    for verb in (StageIt.progress, ASKS["status"]):
        with pytest.raises(raised, match=re.escape(said)) as caught:
            await verb(await service.answering(error(said) | {"data": {"request": {"id": 7}, "requests": None}}))
        assert type(caught.value) is raised
        assert not getattr(caught.value, "absent", False)


@pytest.mark.parametrize("errors", ["it broke", {"message": "it broke"}, [{"message": None}], [None], [["x"]] * 10_000])
async def test_errors_of_any_form_are_errors(service: Service, errors: Any) -> None:
    with pytest.raises(Temporary) as caught:
        await (await service.answering({"errors": errors, "data": {"request": None}})).status(7)
    assert len(str(caught.value)) < 400


async def test_no_errors_are_no_errors(service: Service) -> None:
    assert await (await service.answering({"errors": [], **one(currentStatus="New")})).status(7) == "new"


# --- the ways to the files


def test_macaroons_of_each_site() -> None:
    listed = [
        {"content": " MDAx\n", "validUntil": "2026-01-02T00:00:00Z", "ltaSite": {"name": "SURF"}},
        {"content": "MDAz", "validUntil": "2026-01-02 00:00:00", "ltaSite": None},
        {"content": "MDA1", "validUntil": 1.7e9, "ltaSite": {"name": 4}},
        {"content": None, "ltaSite": {"name": "PSNC"}},
        {"content": ""},
        None,
    ]
    assert issued({"macaroons": listed}) == (
        Issued("SURF", "MDAx", "2026-01-02T00:00:00Z"), Issued("", "MDAz", "2026-01-02 00:00:00"),
        Issued("", "MDA1", None),
    )  # fmt: skip
    assert issued({"macaroons": None}) == issued({}) == ()


def test_a_macaroon_does_not_show_its_content() -> None:
    shown = [repr(Issued("SURF", "MDAxY2xv", None)), f"{Issued('SURF', 'MDAxY2xv', None)}"]
    assert shown == ["Issued(site='SURF', valid_until=None)"] * 2


# --- the keyring

DAY_S = 86_400.0
PLACE = "/pnfs/grid.sara.nl/data/x"


def macaroons(*contents: str, until: float = 0.0) -> list[dict[str, Any]]:
    when = datetime.fromtimestamp(until, UTC).isoformat() if until else None
    return [{"content": content, "validUntil": when, "ltaSite": {"name": "SURF"}} for content in contents]


class Kept:
    """A stager with a keyring, in a time that the test moves."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.clock = HandClock()
        self.keyring = Keyring(self.clock)

    async def answering(self, *answers: Any) -> StageIt:
        stager = await self.service.answering(*answers, keyring=self.keyring)
        stager._clock = self.clock
        self.keyring.source = stager.progress
        return stager

    @property
    def held(self) -> list[str | None]:
        return [one.token for one in self.keyring.candidates("sara", PLACE, "DOWNLOAD")]

    @property
    def asked(self) -> list[str]:
        """The numbers of the requests that were asked for macaroons, of each query that did so."""
        found = [
            re.findall(r"r(\d+): request\(id: \d+\) \{ id (?:response |surls\{surl\} )*macaroons", text)
            for text in self.service.queries
        ]
        return ["".join(numbers) for numbers in found if numbers]


@pytest.fixture
def kept(service: Service) -> Iterator[Kept]:
    yield Kept(service)
    log._secrets.clear()


async def test_macaroons_are_asked_for_until_there_are_some(kept: Kept) -> None:
    late = kept.clock.now() + 7 * DAY_S
    nodes = [node(7), node(7, macaroons=macaroons("one", until=late)), node(7), node(7, currentStatus="Success")]
    stager = await kept.answering(*map(page, nodes))
    assert not kept.keyring.is_filled
    for held in ([], ["one"], ["one"], ["one"]):
        await stager.progress()
        assert kept.keyring.is_filled
        assert kept.held == held
    assert kept.asked == ["7", "7"]


async def test_after_a_restart_whoever_needs_one_has_all_asked_for_in_one_query(kept: Kept) -> None:
    late = kept.clock.now() + 7 * DAY_S
    ended = [node(n, currentStatus="Success", macaroons=macaroons(f"of{n}", until=late)) for n in (7, 8)]
    dead = [node(9, currentStatus="Aborted", macaroons=macaroons("of9", until=late))]
    await kept.answering(page(*ended, *dead))
    for _ in range(3):
        await kept.keyring.ready()
    assert sorted(map(str, kept.held)) == ["of7", "of8"]
    assert kept.asked == ["78"]
    assert len(kept.service.queries) == 2
    assert "response" not in kept.service.queries[1]


async def test_until_the_issuer_answered_once_nobody_goes_on(kept: Kept) -> None:
    await kept.answering(500, page())
    with pytest.raises(Temporary):
        await kept.keyring.ready()
    assert not kept.keyring.is_filled
    await kept.keyring.ready()
    assert kept.keyring.is_filled


async def test_what_is_about_to_end_is_asked_for_anew_in_the_rounds_of_whoever_needs_it(kept: Kept) -> None:
    ends = kept.clock.now() + DAY_S
    first = node(7, currentStatus="Success", macaroons=macaroons("first", until=ends))
    second = node(7, currentStatus="Success", macaroons=macaroons("second", until=ends + DAY_S))
    await kept.answering(page(first), 500, page(first), page(second))
    await kept.keyring.ready()
    kept.clock.advance(DAY_S - REFRESH_S - 1)
    await kept.keyring.ready()
    assert kept.asked == ["7"]
    kept.clock.advance(2)
    await kept.keyring.ready()  # The issuer does not answer: what is held is good still.
    assert kept.held == ["first"]
    await kept.keyring.ready()
    assert len(kept.service.asked) == 3, "not at each need"
    for held in (["first"], ["first", "second"]):
        kept.clock.advance(ASK_APART_S)
        await kept.keyring.ready()
        assert set(kept.held) == set(held)
    kept.clock.advance(REFRESH_S)
    assert kept.held == ["second"]


async def test_what_has_ended_and_is_not_renewed_is_let_go(kept: Kept) -> None:
    one = node(7, currentStatus="Success", macaroons=macaroons("first", until=kept.clock.now() + 60))
    stager = await kept.answering(page(one), page(one), page(one), page(one))
    await stager.progress()
    assert kept.held == ["first"]
    kept.clock.advance(61)
    for _ in range(3):
        await stager.progress()
    assert kept.asked == ["7", "7"]
    assert kept.keyring.due() == frozenset()


async def test_a_request_without_macaroons_is_asked_so_often(kept: Kept) -> None:
    rounds = stageit.CLOSED_ROUNDS
    stager = await kept.answering(*[page(node(7, currentStatus="Success"))] * (rounds + 3))
    for _ in range(rounds + 3):
        await stager.progress()
    assert kept.asked == ["7"] * rounds


@pytest.mark.parametrize("status", [202, 404])
async def test_with_its_release_a_request_loses_its_macaroons_for_good(kept: Kept, status: int) -> None:
    token = "opens-all-files-of-7"
    one = node(7, currentStatus="Success", macaroons=macaroons(token, until=kept.clock.now() + DAY_S))
    stager = await kept.answering(page(one), EMPTY if status == 202 else 404, page(one), {}, page(one))
    await stager.progress()
    assert redact_text(f"it said {token}") == "it said ***"
    with suppress(Permanent):
        await stager.abort("7")
    assert kept.held == []
    assert redact_text(f"it said {token}") == f"it said {token}", "the log forgets it too"
    await stager.progress()
    assert (kept.held, kept.asked) == ([], ["7"])
    await stager.reschedule(7)
    await stager.progress()
    assert kept.held == [token]


async def test_what_is_issued_after_the_release_is_not_held(kept: Kept) -> None:
    late = kept.clock.now() + DAY_S
    one = node(7, currentStatus="Success", macaroons=macaroons("late", until=late))
    stager = await kept.answering(page(node(7, currentStatus="Success")), EMPTY, page(one))
    await stager.progress()
    await stager.abort(7)
    await stager.progress()
    assert (kept.held, kept.asked) == ([], ["7"])


async def test_a_macaroon_is_in_no_error_about_the_answer_that_holds_it(kept: Kept) -> None:
    token = issue(f"path:{PLACE}")
    for odd in ([{"content": token}], {"data": [{"macaroons": [token]}]}, error(f"{token} is odd"), {"data": token}):
        kept.service.details = odd
        with pytest.raises(OutsideError) as caught:
            await (await kept.answering(page(node(7)))).progress()
        assert token[:60] not in str(caught.value)


async def test_webdav_urls(service: Service) -> None:
    stager = await service.answering(["https://x/a\n", None, "https://x/b"], {"detail": "no"}, 404)
    assert await stager.webdav_urls(7) == ("https://x/a", "https://x/b")
    assert service.asked == [("GET", "requests/7/convert2webdav/", None)]
    with pytest.raises(Temporary):
        await stager.webdav_urls(7)
    with pytest.raises(Permanent) as caught:
        await stager.webdav_urls(7)
    assert caught.value.absent


# --- what must never be


@pytest.mark.parametrize(
    "answer",
    [400, 401, 403, 500, error(f"Token {TOKEN} is odd"), {"id": f"for {TOKEN}"}, [TOKEN], {"data": TOKEN}],
    ids=lambda value: str(value)[:20],
)
async def test_the_token_is_in_no_url_and_no_error(service: Service, answer: Any) -> None:
    for verb in (StageIt.progress, lambda stager: stager.stage(SURLS), lambda stager: stager.webdav_urls(7)):
        service.credential.thaw()
        with suppress(OutsideError):
            await verb(await service.answering(answer))
        with pytest.raises(OutsideError) as caught:
            await verb(await service.answering({} if answer == [TOKEN] else answer))
        assert TOKEN not in str(caught.value)
    assert not any(TOKEN in path for _, path, _ in service.asked)
    assert TOKEN not in repr(service.credential)
