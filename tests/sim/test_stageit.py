"""The simulated StageIT: what it says on the wire, and each of its quirks as the adapter meets it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from aglowd.errors import Permanent, Temporary
from aglowd.grid.gate import Site
from aglowd.grid.macaroons import caveats_of
from aglowd.grid.stageit import StageIt
from aglowd.sim.graphql import Field, GraphQLError, parse
from aglowd.sim.stageit import MACAROON_S
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S

from .ways import FILES, RECALLED_S, WAYS, There, standing_grid

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAY = WAYS["stageit"]
ELSEWHERE = [
    "srm://lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops/projects/lc2_038/1/L1_SB001_uv.MS_0a000001.tar",
    "srm://lta-head.lofar.psnc.pl:8443/lofar/ops/projects/lc2_038/1/L1_SB002_uv.MS_0a000002.tar",
]


class Raw:
    """Plain requests to the server, with its token."""

    def __init__(self, there: There, session: aiohttp.ClientSession) -> None:
        self.there = there
        self._session = session
        self._since = datetime.fromtimestamp(there.clock.now(), UTC).isoformat()
        self.token = f"Token {there.ready['credentials']['stageit_token']}"

    async def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any, Any]:
        """Status, body (JSON if it is) and headers; no redirect is followed."""
        headers = {"Authorization": self.token if token is None else token}
        url = f"{self.there.ready['stageit_url']}/{path}"
        async with self._session.request(method, url, json=body, headers=headers, allow_redirects=False) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, json.loads(text) if is_json else text, response.headers

    async def query(self, text: str) -> Any:
        """The answer to a GraphQL query, which comes with 200 whatever it is."""
        status, answer, _ = await self.ask("POST", "graphql/", {"query": text})
        assert status == 200
        return answer

    async def error(self, text: str) -> str:
        answer = await self.query(text)
        assert answer["data"] is None
        (error,) = answer["errors"]
        found: str = error["message"]
        return found

    async def list(self, arguments: str = "") -> list[int]:
        """The ids, in one page; without arguments, those of this test."""
        arguments = arguments or f'(when_Gte: "{self._since}")'
        answer = await self.query(f"{{ requests{arguments} {{ edges {{ node {{ id }} }} }} }}")
        return [edge["node"]["id"] for edge in answer["data"]["requests"]["edges"]]

    async def one(self, request: int, fields: str) -> Any:
        return (await self.query(f"query {{ request(id: {request}) {{ {fields} }} }}"))["data"]["request"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[There]:
    async with standing_grid(tmp_path_factory.mktemp("stageit")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def raw(there: There) -> AsyncIterator[Raw]:
    async with aiohttp.ClientSession() as session:
        yield Raw(there, session)


@pytest.fixture
def stager(there: There) -> StageIt:
    login = WAY.credential(there.ready["credentials"])
    there.forget()
    return StageIt(there.http, Site("there", there.clock), login, there.ready["stageit_url"], there.clock)


# --- REST


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        ("", "Authentication credentials were not provided."),
        ("Bearer {}", "Authentication credentials were not provided."),
        ("Token wrong", "Invalid token."),
    ],
)
async def test_it_wants_its_token_under_that_name(raw: Raw, token: str, detail: str) -> None:
    given = token.format(raw.token.removeprefix("Token "))
    for method, path in (("POST", "graphql/"), ("POST", "requests/"), ("PUT", "requests/1/abort/")):
        status, body, headers = await raw.ask(method, path, {}, token=given)
        assert (status, body, headers["WWW-Authenticate"]) == (401, {"detail": detail}, "Token")


async def test_without_its_slash_a_path_has_moved_and_nothing_was_done(raw: Raw, there: There) -> None:
    before = await raw.list()
    body = {"surls": there.files(), "notify": False, "request_type": "stage"}
    status, _, headers = await raw.ask("POST", "requests", body)
    assert status == 301
    assert headers["Location"].endswith("/stageit/api/staging/requests/")
    assert await raw.list() == before
    status, _, _ = await raw.ask("GET", "requests/")
    assert status == 405, "what a client that follows ends up with"


async def test_staging_names_the_request_and_an_abort_answers_with_nothing(raw: Raw, there: There) -> None:
    body = {"surls": there.files(), "notify": False, "request_type": "stage"}
    status, made, _ = await raw.ask("POST", "requests/", body)
    assert status == 201
    status, text, headers = await raw.ask("PUT", f"requests/{made['id']}/abort/", {})
    assert (status, text, headers.get("Content-Length", "0")) == (202, "", "0")
    status, again, _ = await raw.ask("PATCH", f"requests/{made['id']}/", {"current_status_code": "S"})
    assert (status, again["id"]) == (200, made["id"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "abort/"), ("PATCH", ""), ("GET", "convert2webdav/"), ("GET", "convert2gridftp/")],
)
async def test_what_never_was_is_not_found(raw: Raw, method: str, path: str) -> None:
    status, body, _ = await raw.ask(method, f"requests/4/{path}", {"current_status_code": "S"})
    assert (status, body) == (404, {"detail": "Not found."})


@pytest.mark.parametrize("body", [{}, [], {"surls": []}, {"surls": ["srm://a"]}, {"surls": "srm://a"}])
async def test_what_is_no_request_is_refused(raw: Raw, body: Any) -> None:
    before = await raw.list()
    status, said, _ = await raw.ask("POST", "requests/", body)
    assert (status, type(said)) == (400, dict)
    assert await raw.list() == before


async def test_links_for_each_site(raw: Raw, stager: StageIt, there: There) -> None:
    (surl, *_) = there.files()
    request = await stager.stage([surl, *ELSEWHERE])
    name = surl.rpartition("/")[2]
    assert await stager.webdav_urls(request) == (
        f"https://webdav.grid.surfsara.nl:2882/lc2_038/229509/{name}",
        "https://dcache-lofar.fz-juelich.de:2880/pnfs/fz-juelich.de/data/lofar/ops/projects/lc2_038/1/L1_SB001_uv.MS_0a000001.tar",
        "https://webdav.lofar.psnc.pl:2880/lofar/ops/projects/lc2_038/1/L1_SB002_uv.MS_0a000002.tar",
    )
    _, links, _ = await raw.ask("GET", f"requests/{request}/convert2gridftp/")
    assert (
        links[0]
        == f"gsiftp://gridftp.grid.sara.nl:2811/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/229509/{name}"
    )
    assert links[1].startswith("gsiftp://lofar-gridftp.fz-juelich.de:2811/pnfs/")


async def test_macaroons_come_with_the_files_one_for_each_site(there: There, raw: Raw, stager: StageIt) -> None:
    fields = "macaroons { content validUntil ltaSite { name } }"
    request = await stager.stage([*there.files(), *ELSEWHERE])
    assert await raw.one(request, fields) == {"macaroons": []}
    there.pass_s(4 * HOUR_S)
    found = (await raw.one(request, fields))["macaroons"]
    assert [one["ltaSite"]["name"] for one in found] == ["Juelich", "Poznan", "SURF"]
    for one in found:
        left = datetime.fromisoformat(one["validUntil"]).timestamp() - there.clock.now()
        assert MACAROON_S / 2 < left <= MACAROON_S
    top = "/pnfs/grid.sara.nl/data/lofar/ops/projects"
    assert caveats_of(found[2]["content"])[1:4] == (f"root:{top}", "path:/lc2_038/229509", "activity:DOWNLOAD,LIST")
    there.pass_s(MACAROON_S / 2)
    newer = (await raw.one(request, fields))["macaroons"]
    assert not {one["content"] for one in newer} & {one["content"] for one in found}, "in time before they end"
    await stager.abort(request)
    assert await raw.one(request, fields) == {"macaroons": []}


# --- GraphQL


async def test_only_what_is_selected_is_answered_under_its_alias(raw: Raw, stager: StageIt, there: There) -> None:
    wanted = there.files()
    request = await stager.stage(wanted)
    answer = await raw.query(
        f'query Mine {{ mine: request(id: "{request}") {{ number: id requestType surls {{ surl }} }} # a remark\n }}'
    )
    surls = [{"surl": surl} for surl in wanted]
    assert answer == {"data": {"mine": {"number": request, "requestType": "stage", "surls": surls}}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Syntax Error"),
        ("query {", "Syntax Error"),
        ("{ request(id: 1) { id } } x", "Syntax Error"),
        ("{ request(id: 1) { id } ? }", "Syntax Error"),
        ("{" * 40, "Syntax Error"),
        ("{ request(id: soon) { id } }", "invalid value"),
        ("{ requests { edges { node { name } } } }", "Cannot query field 'name'"),
        ("{ requests { edges { node { id { x } } } } }", "no subfields"),
        ("{ requests { edges { node { surls } } } }", "selection of subfields"),
        ("{ requests }", "selection of subfields"),
        ("{ requests(first: 101) { edges { node { id } } } }", "limit of 100"),
        ("{ requests(last: 3) { edges { node { id } } } }", "Unknown argument 'last'"),
        ('{ requests(when_Gte: "yesterday") { edges { node { id } } } }', "DateTime"),
        ("{ stagers { id } }", "Cannot query field 'stagers'"),
    ],
)
async def test_errors_come_with_http_200(raw: Raw, stager: StageIt, there: There, text: str, said: str) -> None:
    await stager.stage(there.files())
    assert said in await raw.error(text)


async def test_queries_are_taken_apart() -> None:
    (found,) = parse('query A { a: b(x: 1, y: "t\\"", z: S w: true) { c, d { e } } }')
    assert found == Field(
        "b", "a", {"x": 1, "y": 't"', "z": "S", "w": True},
        (Field("c", "c", {}, ()), Field("d", "d", {}, (Field("e", "e", {}, ()),))),
    )  # fmt: skip
    with pytest.raises(GraphQLError):
        parse("mutation { x }")


async def test_the_list_is_cut_by_date_and_by_code(raw: Raw, stager: StageIt, there: There) -> None:
    there.pass_s(DAY_S)
    old = await stager.stage(there.files())
    there.pass_s(DAY_S)
    new = await stager.stage(there.files())
    aborted = await stager.stage(there.files())
    await stager.abort(aborted)
    when = datetime.fromisoformat((await raw.one(new, "when"))["when"])
    assert when.tzinfo is UTC
    since = f'when_Gte: "{when.isoformat()}"'
    assert old in await raw.list()
    assert await raw.list(f"({since})") == [new, aborted]
    assert await raw.list(f"({since}, currentStatusCode: A)") == [aborted]
    assert await raw.list(f'({since}, currentStatusCode_Ne: "A")') == [new]


async def test_pages_have_cursors_that_say_nothing(raw: Raw, stager: StageIt, there: There) -> None:
    there.pass_s(DAY_S)
    made = [await stager.stage(there.files()) for _ in range(5)]
    since = f'when_Gte: "{(await raw.one(made[0], "when"))["when"]}"'
    found, cursor, pages = [], "", 0
    while True:
        answer = await raw.query(
            f"{{ requests({since}, first: 2{cursor}) {{ pageInfo {{ hasNextPage endCursor }} edges {{ node {{ id }} }} }} }}"
        )
        page = answer["data"]["requests"]
        found += [edge["node"]["id"] for edge in page["edges"]]
        pages += 1
        if not page["pageInfo"]["hasNextPage"]:
            break
        cursor = f', after: "{page["pageInfo"]["endCursor"]}"'
    assert (found, pages) == (made, 3)


async def test_a_response_is_null_then_empty_then_a_document(raw: Raw, stager: StageIt, there: There) -> None:
    wanted = there.files()
    request = await stager.stage([*wanted, f"{wanted[0]}.gone"])
    fields = "currentStatus currentStatusCode response"
    assert await raw.one(request, fields) == {"currentStatus": "New", "currentStatusCode": "N", "response": None}
    there.pass_s(5.5 * MINUTE_S)
    seen = await raw.one(request, fields)
    if seen["currentStatus"] == "Scheduled":
        assert seen["response"] == ""
    there.pass_s(3 * HOUR_S)
    seen = await raw.one(request, fields)
    assert seen["currentStatus"] == "In Progress"
    document = json.loads(seen["response"])
    assert document.keys() == {"online", "progressing", "errors"}
    assert sorted(document["online"] + document["progressing"]) == sorted([*wanted, f"{wanted[0]}.gone"])
    assert document["errors"] == {}
    there.pass_s(RECALLED_S)
    seen = await raw.one(request, fields)
    assert (seen["currentStatus"], seen["currentStatusCode"]) == ("Partial Success", "P")
    document = json.loads(seen["response"])
    assert (sorted(document["online"]), document["progressing"]) == (wanted, [])
    assert document["errors"].keys() == {f"{wanted[0]}.gone"}


async def test_what_has_ended_stays_in_the_history(there: There, stager: StageIt) -> None:
    """And so does what it says is online, long after the pins have ended: it is a hint."""
    wanted = there.files()
    request = await stager.stage(wanted)
    there.pass_s(10 * DAY_S)
    seen = (await stager.progress())[request]
    assert (seen.state, seen.file_count, seen.files_done, seen.percent) == ("success", FILES, FILES, 100.0)
    assert set(await stager.staged(request)) == set(wanted)
    assert await there.localities(wanted) == {"NEARLINE"}


async def test_what_was_lost_is_not_found_by_anybody(there: There, raw: Raw, stager: StageIt) -> None:
    there.strike("stageit", "vanish", "stage", value=60)
    request = await stager.stage(there.files())
    there.pass_s(61)
    assert request not in await raw.list()
    with pytest.raises(Permanent) as caught:
        await stager.abort(request)
    assert caught.value.absent


async def test_nobody_is_told_that_a_request_is_on_hold(there: There, raw: Raw, stager: StageIt) -> None:
    lta = WAYS["legacy"]
    legacy = lta.make(there, Site("legacy", there.clock), lta.credential(there.ready["credentials"]))
    for _ in range(60):
        request = await stager.stage(there.files())
        there.pass_s(25 * MINUTE_S)
        if await legacy.status(request) == "on hold":
            break
    else:
        raise AssertionError("chance holds one request in seven")
    assert await stager.status(request) == "scheduled"
    seen = await raw.one(request, "currentStatus currentStatusCode")
    assert seen == {"currentStatus": "Scheduled", "currentStatusCode": "S"}


async def test_a_request_of_which_no_file_exists_fails(there: There, stager: StageIt) -> None:
    request = await stager.stage([f"{there.files()[0]}.gone"])
    there.pass_s(3 * HOUR_S)
    assert await stager.status(request) == "failed"
    assert (await stager.progress())[request].is_dead


# --- what a fault makes of an answer


async def test_an_error_instead_of_data(there: There, stager: StageIt) -> None:
    request = await stager.stage(there.files())
    for op, look in (("requests", stager.progress), ("request", lambda: stager.status(request))):
        there.strike("stageit", "graphql_error", op)
        with pytest.raises(Temporary, match="NoneType"):
            await look()


async def test_what_does_not_exist_is_an_error_instead_of_null(there: There, raw: Raw, stager: StageIt) -> None:
    assert await raw.query("{ request(id: 4) { id } }") == {"data": {"request": None}}
    there.strike("stageit", "absent_error", "request")
    assert "does not exist" in await raw.error("{ request(id: 4) { id } }")
    there.strike("stageit", "absent_error", "request")
    assert await stager.status(4) == ""


async def running(there: There, stager: StageIt) -> int:
    """A request with at least one file online, and not all."""
    request = await stager.stage(there.files())
    for _ in range(40):
        there.pass_s(HOUR_S)
        if 0 < len(await stager.staged(request)) < FILES:
            return request
    raise AssertionError("its files come one after the other")


@pytest.mark.parametrize(("fault", "done"), [("response_null", 0), ("response_empty", 0), ("response_broken", None)])
async def test_a_response_without_a_document(there: There, stager: StageIt, fault: str, done: int | None) -> None:
    request = await running(there, stager)
    there.strike("stageit", fault, "request")
    seen = (await stager.progress())[request]
    assert (seen.state, seen.file_count, seen.files_done) == ("in progress", FILES, done)
    there.strike("stageit", fault, "request")
    if done is None:
        with pytest.raises(Temporary):
            await stager.staged(request)
    else:
        assert await stager.staged(request) == ()
    assert len(await stager.staged(request)) > 0


async def test_a_success_that_is_none_tells_of_no_error(there: There, raw: Raw, stager: StageIt) -> None:
    there.strike("stageit", "false_success", "stage", value=60)
    wanted = there.files()
    request = await stager.stage(wanted)
    there.pass_s(61)
    document = json.loads((await raw.one(request, "response"))["response"])
    assert (sorted(document["online"]), document["progressing"], document["errors"]) == (wanted, [], {})


async def test_a_status_is_only_a_code(there: There, stager: StageIt) -> None:
    request = await stager.stage(there.files())
    await stager.abort(request)
    for op, look in (("requests", stager.progress), ("request", lambda: stager.status(request))):
        there.strike("stageit", "no_text", op)
        found = await look()
        assert (found if isinstance(found, str) else found[request].status) == "aborted"


async def test_ids_are_texts(there: There, raw: Raw, stager: StageIt) -> None:
    there.strike("stageit", "text_id", "stage")
    request = await stager.stage(there.files())
    assert isinstance(request, int)
    there.strike("stageit", "text_id", "requests")
    assert str(request) in await raw.list()
    there.strike("stageit", "text_id", "requests")
    assert request in await stager.progress()
