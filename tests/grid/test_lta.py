"""The legacy stager: lenient with what it answers, and never taking silence for success."""

from __future__ import annotations

import xmlrpc.client
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.lta import LtaStager, decode
from aglowd.grid.stager import Progress

from .conftest import Serve

RECORDED = {
    "18748": {
        "Status": "scheduled",
        "File count": "51",
        "User id": "2331",
        "Location": "sara",
        "Files done": "0",
        "Flagged abort": "false",
        "Percent done": "0",
    }
}
"""The answer in GRID_LRT's LRT_demo notebook."""
ANSWER = xmlrpc.client.dumps((RECORDED,), methodresponse=True).encode()


class Stager:
    """A real XML-RPC server that answers what the test says, and keeps what it was asked."""

    def __init__(self, http: Http, site: Site, credential: Credential, serve: Serve) -> None:
        self._serve = serve
        self._make = lambda url: LtaStager(http, site, credential, url)
        self.asked: list[tuple[str | None, tuple[Any, ...]]] = []

    async def answering(self, *answers: Any) -> LtaStager:
        left = list(answers)

        async def handler(request: web.Request) -> web.Response:
            params, method = xmlrpc.client.loads(await request.read())
            self.asked.append((method, params))
            answer = left.pop(0)
            if isinstance(answer, bytes):
                return web.Response(body=answer, content_type="text/html")
            value = answer if isinstance(answer, xmlrpc.client.Fault) else (answer,)
            body = xmlrpc.client.dumps(value, methodresponse=True, allow_none=True)
            return web.Response(text=body, content_type="text/xml")

        return self._make(await self._serve(handler))


@pytest.fixture
def stager(http: Http, site: Site, credential: Credential, serve: Serve) -> Stager:
    return Stager(http, site, credential, serve)


def fault(text: str) -> xmlrpc.client.Fault:
    return xmlrpc.client.Fault(1, text)


async def test_staging_sends_clean_surls_and_returns_the_id(stager: Stager) -> None:
    lta = await stager.answering(18748, "18749")
    assert await lta.stage(["srm://a\n", "srm://b"]) == 18748
    assert await lta.stage(("srm://a",)) == 18749
    assert stager.asked[0] == ("LtaStager.add_getid", (["srm://a", "srm://b"],))


@pytest.mark.parametrize("answer", [None, True, "", [], "soon", 1.5, {}])
async def test_an_answer_that_is_no_id_leaves_the_staging_in_doubt(stager: Stager, answer: Any) -> None:
    with pytest.raises(Unknown):
        await (await stager.answering(answer)).stage(["srm://a"])


async def test_progress_as_recorded(stager: Stager) -> None:
    lta = await stager.answering(RECORDED)
    assert await lta.progress() == {18748: Progress("scheduled", 51, 0, 0.0, "sara", False)}
    assert stager.asked == [("LtaStager.getprogress", ())]


@pytest.mark.parametrize("answer", [None, [], "", 0, {}, {"x": RECORDED["18748"]}])
async def test_progress_of_nothing(stager: Stager, answer: Any) -> None:
    assert await (await stager.answering(answer)).progress() == {}


async def test_progress_takes_any_types_and_keys(stager: Stager) -> None:
    entry = {
        "Status ": " In Progress\n",
        "File count": 244,
        "Files done": 12.0,
        "Percent done": "4.9%",
        "flagged abort": True,
        "New": [1],
    }
    lta = await stager.answering({"1": entry, "2": "gone", "3": {"File count": "many", "Percent done": "nan"}})
    empty = Progress("", None, None, None, "", False)
    assert await lta.progress() == {1: Progress("in progress", 244, 12, 4.9, "", True), 2: empty, 3: empty}


@pytest.mark.parametrize(
    ("answer", "status"),
    [(" On Hold ", "on hold"), (None, ""), ("", ""), (0, ""), (fault("No staging request with id 7"), "")],
)
async def test_status_is_empty_when_the_stager_does_not_know(stager: Stager, answer: Any, status: str) -> None:
    assert await (await stager.answering(answer)).status(7) == status
    assert stager.asked == [("LtaStager.getstatus", (7,))]


@pytest.mark.parametrize("answer", [None, "", fault("Unknown request 7")])
async def test_nothing_is_staged_when_the_stager_does_not_know(stager: Stager, answer: Any) -> None:
    assert await (await stager.answering(answer)).staged(7) == ()


async def test_staged_abort_and_reschedule(stager: Stager) -> None:
    lta = await stager.answering(["srm://a\n", "srm://b"], 1, None)
    assert await lta.staged(7) == ("srm://a", "srm://b")
    await lta.abort(7)
    await lta.reschedule(7)
    assert stager.asked[1:] == [("LtaStager.abort", (7,)), ("LtaStager.reschedule", (7,))]


@pytest.mark.parametrize(
    ("text", "read", "write"),
    [
        ("surls must be a list", Permanent, Permanent),
        ("No staging request with id 7", Permanent, Permanent),
        ("The stager is overloaded", Temporary, Temporary),
        ("Too many requests", Temporary, Temporary),
        ("database timed out", Temporary, Unknown),
    ],
)
async def test_faults(stager: Stager, text: str, read: type[OutsideError], write: type[OutsideError]) -> None:
    lta = await stager.answering(fault(text), fault(text))
    with pytest.raises(OutsideError) as reading:
        await lta.progress()
    with pytest.raises(OutsideError) as writing:
        await lta.abort(7)
    assert (type(reading.value), type(writing.value)) == (read, write)
    assert getattr(writing.value, "absent", False) == text.startswith("No ")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>The portal is down</html>",
        ANSWER[: len(ANSWER) // 2],
        b"",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><methodResponse><params><param><value>&b;</value>'
        b"</param></params></methodResponse>",
    ],
    ids=["html", "half", "empty", "entities"],
)
async def test_what_is_no_xml_rpc_leaves_a_write_in_doubt(stager: Stager, body: bytes) -> None:
    lta = await stager.answering(body, body)
    with pytest.raises(Temporary):
        await lta.progress()
    with pytest.raises(Unknown):
        await lta.stage(["srm://a"])


async def test_what_cannot_be_sent_is_permanent(stager: Stager) -> None:
    lta = await stager.answering()
    with pytest.raises(Permanent):
        await lta.abort(2**40)


async def test_the_password_is_in_no_url_and_no_error(
    http: Http, site: Site, credential: Credential, serve: Serve
) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert "s3cret" not in str(request.url)
        return web.Response(status=500, text="s3cret was wrong")

    with pytest.raises(Unknown) as caught:
        await LtaStager(http, site, credential, await serve(handler)).stage(["srm://a"])
    assert "s3cret" not in str(caught.value)


@given(st.integers(0, len(ANSWER) - 1), st.binary(max_size=4), st.integers(0, 40), st.booleans())
def test_a_mutated_answer_is_an_answer_or_one_of_the_three(at: int, put: bytes, cut: int, write: bool) -> None:
    body = ANSWER[:at] + put + ANSWER[at + cut :]
    with suppress(Unknown if write else Temporary, Permanent):
        decode(body, "it", write=write)
