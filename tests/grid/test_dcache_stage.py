"""dCache as a stager: what is asked of it, what its answers mean, and that a release reaches every file it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import dcache_stage
from aglowd.grid.dcache_stage import MAX_PAGES, MAX_WORD_CHARS, RELEASE_GROUP, DcacheStager
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.stager import Progress

from .conftest import Serve

SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/L229507_SB{:03d}_uv.MS_9aafa18e.tar"
NAME = "0b2c7d3e-5a49-5f0e-9d3c-1f2a3b4c5d6e"
Answer = Callable[[dict[str, Any]], Any]


def path_of(number: int) -> str:
    return SURL.format(number).partition(":8443")[2]


class Far:
    """A real server whose answers a test sets by method and path, and what it was asked."""

    def __init__(self, http: Http, site: Site, serve: Serve) -> None:
        self._http, self._site, self._serve = http, site, serve
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []

    async def stager(self, **given: Any) -> DcacheStager:
        url = await self._serve(self._handle) + "/api/v1"
        return DcacheStager(
            self._http, self._site, Credential("t", token="abc"), url, **{"lifetime_s": 86400.0} | given
        )

    def bodies(self, what: str) -> list[Any]:
        return [body for asked, body in self.asked if asked == what]

    async def _handle(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer abc"
        said = f"{request.method} {request.path.removeprefix('/api/v1')}"
        body = await request.json() if request.can_read_body else dict(request.query)
        self.asked.append((said, body))
        answer = self.answers[said]
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, web.Response):
            return answer
        return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)


@pytest.fixture
def far(http: Http, site: Site, serve: Serve) -> Far:
    return Far(http, site, serve)


def told(status: str, **states: list[int]) -> dict[str, Any]:
    """A request as dCache tells it: state → numbers of files."""
    rows = [{"target": path_of(n), "state": state} for state, numbers in states.items() for n in numbers]
    return {"nextId": -1, "uid": NAME, "status": status, "targets": rows}


# --- making a request


async def test_a_stage_request_names_absolute_paths_and_a_lifetime(far: Far) -> None:
    far.answers["POST /tape/stage"] = lambda _: web.json_response({"requestId": NAME}, status=201)
    spelt = SURL.format(1).replace(":8443", "")
    assert await (await far.stager()).stage([SURL.format(0) + "\n", SURL.format(1), spelt]) == NAME
    files = [{"path": path_of(n), "diskLifetime": "PT86400S"} for n in (0, 1)]
    assert far.asked == [("POST /tape/stage", {"files": files})]


async def test_a_bulk_request_is_named_by_a_header_of_an_empty_answer(far: Far) -> None:
    headers = {"request-url": f"https://x/api/v1/bulk-requests/{NAME}"}
    far.answers["POST /bulk-requests"] = lambda _: web.Response(status=201, headers=headers)
    assert await (await far.stager(bulk=True, lifetime_s=90.0)).stage([SURL.format(0)]) == NAME
    ((_, body),) = far.asked
    assert (body["activity"], body["target"]) == ("PIN", [path_of(0)])
    # Minutes are what dCache takes by itself, so that a lifetime is right even where the unit is not read.
    assert body["arguments"] == {"lifetime": "2", "lifetimeUnit": "MINUTES"}
    assert not body["cancelOnFailure"]


@pytest.mark.parametrize("answer", [{}, {"requestId": 7}, {"requestId": "../x"}, {"requestId": ""}, [], "x"])
async def test_an_answer_without_a_name_leaves_the_staging_in_doubt(far: Far, answer: Any) -> None:
    far.answers["POST /tape/stage"] = lambda _: web.json_response(answer, status=201)
    far.answers["POST /bulk-requests"] = 201
    for bulk in (False, True):
        with pytest.raises(Unknown):
            await (await far.stager(bulk=bulk)).stage([SURL.format(0)])


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, Permanent), (403, Permanent), (413, Permanent), (429, Temporary), (401, Temporary), (500, Unknown)],
)
async def test_a_stage_request_that_is_refused(far: Far, status: int, raised: type[OutsideError]) -> None:
    far.answers["POST /tape/stage"] = status
    with pytest.raises(OutsideError) as caught:
        await (await far.stager()).stage([SURL.format(0)])
    assert type(caught.value) is raised


@pytest.mark.parametrize(
    ("surl", "given"),
    [
        ("junk", {}),
        (SURL.format(0), {"srm_host": "lofar-srm.fz-juelich.de"}),
        ("srm://lta-head.lofar.psnc.pl:8443/lofar/ops/projects/x/L1_SB000_uv.tar", {}),
    ],
)
async def test_what_would_come_back_as_another_file_is_not_asked_for(far: Far, surl: str, given: Any) -> None:
    with pytest.raises(Permanent):
        await (await far.stager(**given)).stage([surl])
    assert far.asked == []


@pytest.mark.parametrize("bulk", [False, True])
async def test_one_surl_that_is_no_list_is_not_asked_for(far: Far, bulk: bool) -> None:
    with pytest.raises(Permanent, match="expected a list of SURLs"):
        await (await far.stager(bulk=bulk)).stage(SURL.format(0))
    assert far.asked == []


async def test_where_paths_name_no_site_the_host_is_told(far: Far) -> None:
    surl = "srm://lta-head.lofar.psnc.pl:8443/lofar/ops/projects/x/L1_SB000_uv.tar"
    path = surl.partition(":8443")[2]
    far.answers["POST /tape/stage"] = {"requestId": NAME}
    page = {"status": "STARTED", "targets": [{"target": path, "state": "RUNNING"}]}
    far.answers[f"GET /bulk-requests/{NAME}"] = page
    stager = await far.stager(srm_host="lta-head.lofar.psnc.pl")
    assert await stager.stage([surl]) == NAME
    assert await stager.requested(NAME) == (surl,)


# --- looking at requests


def row(number: int, **other: Any) -> dict[str, Any]:
    url = f"https://x/api/v1/bulk-requests/n-{number}"
    return {"id": number, "url": url, "owner": "7:9", "activity": "STAGE", "status": "STARTED", **other}


async def test_progress_is_of_our_uid_and_our_activity(far: Far) -> None:
    far.answers["GET /user"] = {"uid": 7, "gids": [8, 9]}
    rows = [
        row(1),
        row(2, status="QUEUED"),
        row(3, owner="70:9"),
        row(4, activity="PIN", status="COMPLETED"),
        row(5, url="https://x/a.b", status="COMPLETED"),
        row(6, status="CANCELLED"),
        row(7, status=None),
        "junk",
    ]
    far.answers["GET /bulk-requests"] = rows
    states = {"n-1": "in progress", "n-2": "scheduled", "n-6": "aborted", "n-7": ""}
    assert await (await far.stager()).progress() == {name: Progress(status) for name, status in states.items()}
    assert far.asked[1:] == [("GET /bulk-requests", {"owner": "7:8,7:9", "offset": "0"})]
    assert await (await far.stager(bulk=True)).progress() == {"n-4": Progress("success")}


@pytest.mark.parametrize(
    "user", [{"status": "ANONYMOUS"}, {"uid": None}, {"uid": "7"}, {"uid": True}, {"uid": 2**53 + 1}, []]
)
async def test_nobody_has_no_requests_and_that_is_not_nothing(far: Far, user: Any) -> None:
    far.answers |= {"GET /user": user, "GET /bulk-requests": []}
    with pytest.raises(Temporary, match="uid"):
        await (await far.stager()).progress()


async def test_the_list_is_read_page_by_page(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcache_stage, "PAGE_ROWS", 2)
    every = [row(3), row(8), row(9), row(12), row(20)]
    far.answers["GET /user"] = {"uid": 7, "gids": []}
    far.answers["GET /bulk-requests"] = lambda query: [one for one in every if one["id"] >= int(query["offset"])][:2]
    assert list(await (await far.stager()).progress()) == ["n-3", "n-8", "n-9", "n-12", "n-20"]
    assert [query["offset"] for query in far.bodies("GET /bulk-requests")] == ["0", "9", "13"]
    far.answers["GET /bulk-requests"] = every[:2]
    with pytest.raises(Temporary, match=f"more than {MAX_PAGES} pages"):
        await (await far.stager()).progress()


@pytest.mark.parametrize("answer", [{"errors": []}, None, "x"])
async def test_a_list_that_is_none_is_temporary(far: Far, answer: Any) -> None:
    far.answers |= {"GET /user": {"uid": 7}, "GET /bulk-requests": web.json_response(answer)}
    with pytest.raises(Temporary):
        await (await far.stager()).progress()


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("INCOMPLETE", "scheduled"),
        ("QUEUED", "scheduled"),
        ("STARTED", "in progress"),
        ("COMPLETED", "success"),
        ("CANCELLING", "cancelling"),
        ("cancelled ", "aborted"),
        ("Paused", "paused"),
        ("x" * (MAX_WORD_CHARS + 1), "x" * MAX_WORD_CHARS),
    ],
)
async def test_words_of_the_bulk_service_become_ours(far: Far, word: str, status: str) -> None:
    far.answers[f"GET /bulk-requests/{NAME}"] = told(word)
    assert await (await far.stager()).status(NAME) == status


async def test_completed_says_nothing_of_the_files(far: Far) -> None:
    far.answers[f"GET /bulk-requests/{NAME}"] = told("COMPLETED", COMPLETED=[1, 3], FAILED=[0], SKIPPED=[2])
    stager = await far.stager()
    assert await stager.requested(NAME) == tuple(SURL.format(n) for n in (1, 3, 0, 2))
    assert await stager.staged(NAME) == tuple(SURL.format(n) for n in (1, 3))


async def test_targets_come_in_pages(far: Far) -> None:
    pages = {"0": ([0, 1], 2), "2": ([2], 3), "3": ([3], -1)}

    def page(query: dict[str, Any]) -> Any:
        numbers, following = pages[query["offset"]]
        return {**told("STARTED", COMPLETED=numbers), "nextId": following}

    far.answers[f"GET /bulk-requests/{NAME}"] = page
    stager = await far.stager()
    assert await stager.staged(NAME) == tuple(SURL.format(n) for n in range(4))
    far.answers[f"GET /bulk-requests/{NAME}"] = lambda query: {**told("STARTED"), "nextId": int(query["offset"]) + 1}
    with pytest.raises(Temporary, match=f"more than {MAX_PAGES} pages"):
        await stager.staged(NAME)


async def test_what_is_no_target_is_left_out(far: Far) -> None:
    page = told("STARTED", RUNNING=[1])
    page["targets"] += ["junk", {"target": 7}, {"target": "/pnfs/grid.sara.nl/x"}, {"target": "L1_SB000_uv.tar"}]
    far.answers[f"GET /bulk-requests/{NAME}"] = page
    assert await (await far.stager()).requested(NAME) == (SURL.format(1),)


@pytest.mark.parametrize("name", [NAME, 18748, "../user", "x" * 65])
async def test_a_request_that_was_swept_away_is_not_known(far: Far, name: Any) -> None:
    far.answers[f"GET /bulk-requests/{NAME}"] = 404
    stager = await far.stager()
    assert (await stager.status(name), await stager.requested(name), await stager.staged(name)) == ("", (), ())
    with pytest.raises(Permanent) as caught:
        await stager.abort(name)
    assert caught.value.absent


@pytest.mark.parametrize("page", [[], {}, {"targets": []}, {"status": 7}])
async def test_a_request_without_a_status_is_not_one_that_is_unknown(far: Far, page: Any) -> None:
    far.answers[f"GET /bulk-requests/{NAME}"] = web.json_response(page)
    with pytest.raises(Temporary):
        await (await far.stager()).status(NAME)


async def test_another_users_request_is_not_unknown_either(far: Far) -> None:
    far.answers[f"GET /bulk-requests/{NAME}"] = 403
    with pytest.raises(Temporary):
        await (await far.stager()).status(NAME)


# --- giving back

COUNT = 2 * RELEASE_GROUP + 1
OURS = "11111111-2222-3333-4444-555555555555"
"""The release that dCache makes."""


def made(_: Any) -> web.Response:
    return web.Response(status=201, headers={"request-url": f"https://x/api/v1/bulk-requests/{OURS}"})


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other without a pause."""
    monkeypatch.setattr(dcache_stage, "PAUSES_REAL_S", (0.0,) * 4)


def holds(far: Far, status: str = "COMPLETED", **states: list[int]) -> None:
    """dCache has the request, and releases whatever it is asked to."""
    far.answers |= {
        f"GET /bulk-requests/{NAME}": told(status, **states),
        f"PATCH /bulk-requests/{NAME}": 200,
        "POST /bulk-requests": made,
        f"GET /bulk-requests/{OURS}": lambda _: told(
            "COMPLETED",
            COMPLETED=[int(path.partition("_SB")[2][:3]) for path in far.bodies("POST /bulk-requests")[-1]["target"]],
        ),
        f"DELETE /bulk-requests/{OURS}": 204,
    }


@pytest.mark.parametrize(("bulk", "activity"), [(False, "RELEASE"), (True, "UNPIN")])
async def test_files_are_released_by_a_request_that_is_looked_at_and_then_deleted(
    far: Far, bulk: bool, activity: str
) -> None:
    holds(far, COMPLETED=[1], FAILED=[0])
    await (await far.stager(bulk=bulk)).abort(NAME)
    assert [asked for asked, _ in far.asked] == [
        f"GET /bulk-requests/{NAME}",
        "POST /bulk-requests",
        f"GET /bulk-requests/{OURS}",
        f"DELETE /bulk-requests/{OURS}",
    ]
    assert far.asked[1][1] == {
        "activity": activity, "target": [path_of(1), path_of(0)], "arguments": {"id": NAME}, "expandDirectories": "NONE",
        "cancelOnFailure": False, "clearOnSuccess": False, "clearOnFailure": False,
    }  # fmt: skip


@pytest.mark.parametrize(("count", "sizes"), [(500, [500]), (501, [500, 1])])
async def test_a_release_is_no_larger_than_dcache_takes(far: Far, count: int, sizes: list[int]) -> None:
    holds(far, COMPLETED=list(range(count)))
    await (await far.stager()).abort(NAME)
    bodies = far.bodies("POST /bulk-requests")
    assert [len(body["target"]) for body in bodies] == sizes
    assert {path for body in bodies for path in body["target"]} == {path_of(n) for n in range(count)}


@pytest.mark.usefixtures("_at_once")
async def test_a_release_is_looked_at_until_it_is_over(far: Far) -> None:
    holds(far, COMPLETED=[1])
    lives = [404, told("QUEUED"), told("STARTED", RUNNING=[1]), told("COMPLETED", COMPLETED=[1])]
    far.answers[f"GET /bulk-requests/{OURS}"] = lambda _: lives.pop(0)
    await (await far.stager()).abort(NAME)
    assert lives == []
    assert len(far.bodies(f"DELETE /bulk-requests/{OURS}")) == 1


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(
    "answer",
    [404, told("STARTED", RUNNING=[1, 2]), told("CANCELLING", COMPLETED=[1, 2]), told("COMPLETED", COMPLETED=[1])],
)
async def test_a_release_of_which_dcache_does_not_say_the_end_is_unknown(far: Far, answer: Any) -> None:
    holds(far, COMPLETED=[1, 2])
    far.answers[f"GET /bulk-requests/{OURS}"] = answer
    with pytest.raises(Unknown, match=r"expected an end"):
        await (await far.stager()).abort(NAME)
    assert far.bodies(f"DELETE /bulk-requests/{OURS}") == [], "it may yet do what it was made for"


async def test_a_release_that_cannot_be_looked_at_is_unknown(far: Far) -> None:
    holds(far, COMPLETED=[1])
    far.answers[f"GET /bulk-requests/{OURS}"] = 429
    with pytest.raises(Unknown):
        await (await far.stager()).abort(NAME)


async def test_files_that_were_not_released_are_named_with_why(far: Far) -> None:
    holds(far, COMPLETED=list(range(6)))
    page = told("COMPLETED", COMPLETED=[0], FAILED=[1, 2, 3, 4], CANCELLED=[5])
    error = {"errorType": "diskCacheV111.util.TimeoutCacheException", "errorMessage": "abc: no reply"}
    page["targets"][1] |= {"errorType": "diskCacheV111.util.FileNotFoundCacheException", "errorMessage": "none"}
    for row in page["targets"][2:5]:
        row |= error
    far.answers[f"GET /bulk-requests/{OURS}"] = page
    with pytest.raises(Permanent, match=r"4 of 6 files are not released: .*SB002.*FAILED .*no reply.*SB003") as caught:
        await (await far.stager()).abort(NAME)
    assert not {"abc", "SB001", "SB005"} & {said for said in ("abc", "SB001", "SB005") if said in str(caught.value)}, (
        "no token, no file that is there no more, and no more names than can be read"
    )
    assert not caught.value.absent
    assert len(far.bodies(f"DELETE /bulk-requests/{OURS}")) == 1


async def test_a_release_that_cannot_be_deleted_was_made_all_the_same(far: Far) -> None:
    holds(far, COMPLETED=[1])
    far.answers[f"DELETE /bulk-requests/{OURS}"] = 500
    await (await far.stager()).abort(NAME)


async def test_a_release_without_a_name_is_unknown(far: Far) -> None:
    holds(far, COMPLETED=[1])
    far.answers["POST /bulk-requests"] = 201
    with pytest.raises(Unknown):
        await (await far.stager()).abort(NAME)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("status", ["STARTED", "CANCELLING"])
async def test_a_running_request_is_released_when_nothing_of_it_runs_any_more(far: Far, status: str) -> None:
    """File 1 comes online while the request is being cancelled: it is pinned, too."""
    holds(far)
    lives = [told(status, COMPLETED=[0], RUNNING=[1, 2]), told("CANCELLING", COMPLETED=[0, 1], RUNNING=[2])]
    last = told("CANCELLED", COMPLETED=[0, 1], CANCELLED=[2])
    far.answers[f"GET /bulk-requests/{NAME}"] = lambda _: lives.pop(0) if lives else last
    await (await far.stager()).abort(NAME)
    asked = [asked for asked, _ in far.asked]
    assert far.bodies(f"PATCH /bulk-requests/{NAME}") == ([{"action": "cancel"}] if status == "STARTED" else [])
    assert lives == []
    assert asked.index("POST /bulk-requests") > 2
    assert far.bodies("POST /bulk-requests")[0]["target"] == [path_of(n) for n in range(3)]


@pytest.mark.usefixtures("_at_once")
async def test_what_is_cancelled_for_ever_is_released_and_in_doubt(far: Far) -> None:
    holds(far, "CANCELLING", COMPLETED=[0], RUNNING=[1])
    with pytest.raises(Unknown, match="is CANCELLING and may pin more files"):
        await (await far.stager()).abort(NAME)
    assert len(far.bodies("POST /bulk-requests")) == 1


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED"])
async def test_what_has_ended_is_only_released(far: Far, status: str) -> None:
    holds(far, status, COMPLETED=[1])
    await (await far.stager()).abort(NAME)
    assert far.bodies(f"PATCH /bulk-requests/{NAME}") == []
    assert len(far.asked) == 4


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("refusal", [400, 403, 404, 405, 413])
async def test_where_no_bulk_request_may_release_files_go_in_small_groups(far: Far, bulk: bool, refusal: int) -> None:
    holds(far, FAILED=[99], COMPLETED=list(range(COUNT)))
    far.answers |= {"POST /bulk-requests": refusal, f"POST /tape/release/{NAME}": 200}
    await (await far.stager(bulk=bulk)).abort(NAME)
    assert len(far.bodies("POST /bulk-requests")) == 1
    groups = [body["paths"] for body in far.bodies(f"POST /tape/release/{NAME}")]
    assert [len(group) for group in groups] == [RELEASE_GROUP, RELEASE_GROUP, 1, 1]
    assert [path for group in groups for path in group] == [path_of(n) for n in (*range(COUNT), 99)], (
        "what failed goes apart from the others"
    )


async def test_who_was_refused_a_bulk_release_does_not_ask_for_another(far: Far) -> None:
    holds(far, COMPLETED=list(range(501)))
    far.answers |= {"POST /bulk-requests": 403, f"POST /tape/release/{NAME}": 200}
    await (await far.stager()).abort(NAME)
    assert len(far.bodies("POST /bulk-requests")) == 1
    paths = [path for body in far.bodies(f"POST /tape/release/{NAME}") for path in body["paths"]]
    assert sorted(paths) == [path_of(n) for n in range(501)]


async def test_after_a_refused_group_the_others_and_its_own_good_files_are_released(far: Far) -> None:
    bad = path_of(RELEASE_GROUP)
    released: list[str] = []

    def release(body: dict[str, Any]) -> Any:
        if bad in body["paths"]:
            return web.Response(status=400, text="abc: a bad path")
        released.extend(body["paths"])
        return 200

    holds(far, COMPLETED=list(range(COUNT)))
    far.answers |= {"POST /bulk-requests": 404, f"POST /tape/release/{NAME}": release}
    with pytest.raises(Permanent, match=r"1 of \d+ files are not released: .*SB020.*: a bad path") as caught:
        await (await far.stager()).abort(NAME)
    assert "abc" not in str(caught.value)
    assert not caught.value.absent
    assert sorted(released) == [path_of(n) for n in range(COUNT) if n != RELEASE_GROUP]


async def test_who_may_not_release_does_not_try_one_by_one(far: Far) -> None:
    holds(far, COMPLETED=list(range(COUNT)))
    far.answers |= {"POST /bulk-requests": 403, f"POST /tape/release/{NAME}": 403}
    with pytest.raises(Permanent):
        await (await far.stager()).abort(NAME)
    assert len(far.asked) == 3, "dCache blocks us at the third refusal"


async def test_a_release_that_stops_half_way_is_unknown(far: Far) -> None:
    answers = [200, 429]
    holds(far, COMPLETED=list(range(COUNT)))
    far.answers |= {"POST /bulk-requests": 404, f"POST /tape/release/{NAME}": lambda _: answers.pop(0)}
    with pytest.raises(Unknown):
        await (await far.stager()).abort(NAME)


async def test_a_release_that_never_began_is_temporary(far: Far) -> None:
    holds(far, COMPLETED=[1])
    far.answers["POST /bulk-requests"] = 429
    with pytest.raises(Temporary):
        await (await far.stager()).abort(NAME)


async def test_nothing_is_taken_up_again(far: Far) -> None:
    with pytest.raises(Permanent):
        await (await far.stager()).reschedule(NAME)
