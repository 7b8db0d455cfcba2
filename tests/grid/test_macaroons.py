"""Macaroons: which is shown for a path, what a refusal means, and that none shows itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd import log
from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid import macaroons
from aglowd.grid.gate import Site
from aglowd.grid.http import Http, Reply
from aglowd.grid.macaroons import (
    MAX_MOMENT_CHARS,
    MAX_REFUSALS,
    MAX_TOKEN_CHARS,
    NEAR_S,
    PATHS_BEFORE_DROP,
    REFUSALS,
    Macaroon,
    Macaroons,
    caveats_of,
    moment,
    path_for,
    try_each,
)

TOP = "/pnfs/grid.sara.nl/data/lofar/ops/projects"
FILE = f"{TOP}/lc2_038/229507/L229507_SB007_uv.MS_9aafa18e.tar"
NOW = 1_795_521_600.0
"""2026-11-24T12:00:00Z."""
LATER = "2026-11-25T12:00:00Z"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    log._secrets.clear()


def issue(*caveats: str, number: int = 1, secret: bytes = b"hunter2") -> str:
    """A macaroon as dCache issues it: libmacaroons' format 1, base64url without padding."""
    signature = hmac.digest(secret, b"key%d" % number, hashlib.sha256)
    fields = [("location", b"/"), ("identifier", b"key%d" % number)]
    for caveat in caveats:
        fields.append(("cid", caveat.encode()))
        signature = hmac.digest(signature, caveat.encode(), hashlib.sha256)
    fields.append(("signature", signature))
    packets = (name.encode() + b" " + value + b"\n" for name, value in fields)
    data = b"".join(b"%04x" % (len(packet) + 4) + packet for packet in packets)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def issue_2(*caveats: str) -> str:
    """The same in format 2."""

    def field(kind: int, value: bytes) -> bytes:
        length = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 0x7F | 0x80, len(value) >> 7])
        return bytes([kind]) + length + value

    data = b"\x02" + field(1, b"/") + field(2, b"path:/is the identifier") + b"\0"
    data += b"".join(field(2, caveat.encode()) + b"\0" for caveat in caveats)
    return base64.urlsafe_b64encode(data + b"\0" + field(6, b"s" * 32)).decode().rstrip("=")


def store(*tokens: str | tuple[str, str | None], site: str = "SURF") -> Macaroons:
    held = Macaroons()
    for number, entry in enumerate(tokens):
        token, until = entry if isinstance(entry, tuple) else (entry, LATER)
        assert held.add(site, 991619 + number, token, until)
    return held


def order(held: Macaroons, path: str = FILE, activity: str = "DOWNLOAD", site: str = "sara") -> list[int]:
    """The numbers of the tokens of `store`, in the order in which they would be tried."""
    found = held.candidates(site, path, activity, NOW)
    return [int(macaroon.request) - 991619 for macaroon in found]


# --- what a macaroon says


CAVEATS = (
    "id:1000;100;lofar",
    "before:2026-11-25T12:00:00.123Z",
    "path:/a/" + "b" * 300,
    "activity:LIST",
    "ip:10.0.0.0/8",
)


@pytest.mark.parametrize("make", [issue, issue_2])
def test_caveats_are_read_in_both_formats_and_alphabets(make: Callable[..., str]) -> None:
    token = make(*CAVEATS)
    assert caveats_of(token) == CAVEATS
    assert caveats_of(token + "=" * (-len(token) % 4)) == CAVEATS
    assert caveats_of(token.replace("-", "+").replace("_", "/")) == CAVEATS
    assert caveats_of(make()) == ()


@pytest.mark.parametrize("cut", [1, 7, 30, 60])
@pytest.mark.parametrize("make", [issue, issue_2])
def test_a_damaged_macaroon_has_no_caveats(make: Callable[..., str], cut: int) -> None:
    assert caveats_of(make(*CAVEATS)[:-cut]) == ()


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_any_text_is_read(text: str) -> None:
    assert all(isinstance(caveat, str) for caveat in caveats_of(text))
    Macaroon("sara", 1, text, 0.0)


@given(st.binary(max_size=40), st.integers(0, 400))
def test_any_damage_is_read(junk: bytes, at: int) -> None:
    for token in (issue(*CAVEATS), issue_2(*CAVEATS)):
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        caveats_of(base64.b64encode(data[:at] + junk + data[at + len(junk) :]).decode())


@pytest.mark.parametrize(
    ("caveats", "root", "scope"),
    [
        ((), "", ""),
        (("root:/",), "", ""),
        (("path:/",), "", ""),
        (("path:/a//b/",), "", "/a/b"),
        (("path:/a", "path:/b"), "", "/a/b"),
        (("root:/a", "path:/b"), "/a", "/a/b"),
        (("root:/a", "root:/b", "path:c"), "/a/b", "/a/b/c"),
        (("path:/a/b/c", "root:/a/b"), "/a/b", "/a/b/c"),
        (("path:/a", "root:/a/b"), "/a/b", "/a/b"),
        (("root:/a", "path:/b/c", "root:/b", "path:/d"), "/a/b", "/a/b/c/d"),
        (("home:/x", "id:1", "max-upload:5", "odd"), "", ""),
    ],
)
def test_root_and_path_are_inside_one_another(caveats: Sequence[str], root: str, scope: str) -> None:
    macaroon = Macaroon("sara", 1, issue(*caveats), None)
    assert (macaroon.root, macaroon.scope) == (root, scope)


def test_what_it_covers_allows_and_when_it_ends() -> None:
    macaroon = Macaroon("sara", 1, issue("path:/a/b", "activity:LIST, download", "activity:DOWNLOAD,STAGE"), None)
    assert [macaroon.covers(path) for path in ("/a/b", "/a//b/c", "/a/bc", "/a", "/")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    allowed = {word for word in ("DOWNLOAD", "LIST", "STAGE", "READ_METADATA", "DELETE") if macaroon.allows(word)}
    assert allowed == {"DOWNLOAD", "READ_METADATA"}
    assert Macaroon("sara", 1, issue(), None).allows("DELETE")
    assert macaroon.ends == math.inf
    assert not macaroon.ends_by(math.nextafter(math.inf, 0))
    for caveats, until, ends in (
        ((), NOW + 5, NOW + 5),
        (("before:2026-11-24T12:00:09Z",), None, NOW + 9),
        (("before:2026-11-24T12:00:09Z",), NOW + 5, NOW + 5),
        (("before:2026-11-24T12:00:09Z", "before:2026-11-24T12:00:07Z"), NOW + 8, NOW + 7),
        (("before:tomorrow", "before:1970-01-01T00:00:00Z"), NOW, 0.0),
    ):
        assert Macaroon("sara", 1, issue(*caveats), until).ends == ends
    assert Macaroon("sara", 1, "", NOW).ends_by(NOW)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T12:00:00Z",
        "2026-11-24t12:00:00z",
        " 2026-11-24 12:00:00\n",
        "2026-11-24T12:00:00",
        "2026-11-24 12:00:00 UTC",
        "2026-11-24 12:00 GMT",
        "2026-11-24T12:00:00.000000000Z",
        "2026-11-24T13:00:00+01:00",
        "2026-11-24 07:30:00 -0430",
        "20261124T120000Z",
    ],
)
def test_dates_of_every_kind(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for zone in ("Europe/Amsterdam", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert moment(text) == NOW


@pytest.mark.parametrize("text", [None, "", "soon", "24.11.2026", "2026-13-01", "2026-11-24T12:00:00 Mars", 5, "Z"])
def test_what_is_no_date(text: str | None) -> None:
    assert moment(text) is None


def test_a_date_is_so_long() -> None:
    assert moment("2026-11-24T12:00:00Z".rjust(MAX_MOMENT_CHARS)) == NOW
    assert moment("2026-11-24T12:00:00Z".rjust(MAX_MOMENT_CHARS + 1)) is None


@given(st.text(max_size=MAX_MOMENT_CHARS) | st.datetimes().map(str))
def test_any_text_is_a_date_or_none(text: str) -> None:
    assert moment(text) is None or isinstance(moment(text), float)


# --- which one


def test_the_longest_path_comes_first_and_not_the_latest_end() -> None:
    held = store(
        (issue("path:/elsewhere"), "2027-01-01"),
        (issue(), "2027-01-01"),
        issue(f"path:{TOP}/lc2_038/229507"),
        (issue(f"path:{TOP}/lc2_038"), "2027-01-01"),
        issue(f"root:{TOP}", "path:/lc2_038/229507/L229507_SB007_uv.MS_9aafa18e.tar"),
        issue(f"root:{TOP}"),
        (issue(f"path:{TOP}/lc2"), "2027-01-02"),
    )
    assert order(held) == [4, 2, 3, 5, 1, 6, 0]


def test_of_equal_scope_the_free_one_and_that_which_lives_longest() -> None:
    held = store(
        (issue("ip:10.0.0.1"), "2027-01-01"),
        (issue(number=2), "2026-12-01"),
        (issue(number=3), None),
        (issue(number=4), "2026-12-02"),
    )
    assert order(held) == [2, 3, 1, 0]


def test_what_has_ended_is_left_out_and_what_is_about_to_end_comes_last() -> None:
    ends = [NOW - 1, NOW, NOW + 1, NOW + NEAR_S, NOW + NEAR_S + 1]
    dates = [datetime.fromtimestamp(end, UTC).isoformat() for end in ends]
    by_caveat = store(*((issue(f"path:{TOP}", f"before:{date}"), None) for date in dates), (issue(), None))
    by_date = store(*((issue(f"path:{TOP}", number=number), date) for number, date in enumerate(dates)), issue())
    assert order(by_caveat) == order(by_date) == [4, 5, 3, 2]


def test_what_does_not_allow_it_or_cannot_name_the_path_is_left_out() -> None:
    held = store(issue("activity:LIST"), issue("activity:DOWNLOAD,LIST"), issue("root:/other"), issue(number=9))
    assert set(order(held)) == {1, 3}
    assert set(order(held, activity="LIST")) == {0, 1, 3}
    assert order(held, activity="STAGE") == [3]


def test_a_site_sees_its_own_only_by_whatever_name() -> None:
    held = Macaroons()
    for number, name in enumerate(("SURF", "sara", "Juelich", "JUELICH", "PSNC", "poznan", "Moon")):
        held.add(name, number, issue(number=number), LATER)
    for names, expected in (("SARA surf", {0, 1}), ("juelich FZJ", {2, 3}), ("Poznan psnc", {4, 5}), ("moon", {6})):
        for name in names.split():
            assert {macaroon.request for macaroon in held.candidates(name, FILE, "DOWNLOAD", NOW)} == expected
    assert held.candidates("elsewhere", FILE, "DOWNLOAD", NOW) == ()


def test_poznan_with_and_without_data() -> None:
    held = store(
        issue("path:/data/lofar/ops/projects/lc4"), issue(), issue("root:/data/lofar/ops/projects"), site="PSNC"
    )
    for path in ("/lofar/ops/projects/lc4/L1_x.tar", "/data/lofar/ops/projects/lc4/L1_x.tar"):
        assert order(held, path, site="poznan") == [0, 2, 1]
        rooted = held.candidates("poznan", path, "LIST", NOW)[1]
        assert path_for(rooted, path) == "/lc4/L1_x.tar"


def test_the_path_as_the_door_knows_it() -> None:
    assert path_for(Macaroon("sara", 1, issue(f"root:{TOP}"), None), FILE) == FILE.removeprefix(TOP)
    assert path_for(Macaroon("sara", 1, issue(f"path:{TOP}"), None), FILE) == FILE
    with pytest.raises(ValueError, match="expected one below /other"):
        path_for(Macaroon("sara", 1, issue("root:/other"), None), FILE)


# --- what is held


def test_what_is_held_already_keeps_what_is_known_of_it() -> None:
    held = Macaroons()
    assert held.add("SURF", 1, issue(), LATER)
    (macaroon,) = held.candidates("sara", FILE, "LIST", NOW)
    assert held.add("sara", 1, f" {issue()}\n", LATER)
    assert held.candidates("sara", FILE, "LIST", NOW) == (macaroon,)
    held.forget(2)
    assert len(held.candidates("sara", FILE, "LIST", NOW)) == 1
    held.forget(1)
    assert held.candidates("sara", FILE, "LIST", NOW) == ()


def test_what_needs_a_new_one() -> None:
    held = Macaroons()
    held.add("SURF", 1, issue("path:/a"), "2026-11-24T13:00:00Z")
    held.add("SURF", 1, issue("path:/b"), LATER)
    held.add("PSNC", "b7", issue(), None)
    assert held.due(NOW, 3599) == ()
    assert held.due(NOW, 3600) == held.due(NOW + 86_399, 0) == (("sara", 1),)
    held.add("SURF", 1, issue("path:/a", number=2), LATER)
    held.add("SURF", 1, issue("path:/a", number=3), "2026-11-24T12:30:00Z")
    assert held.due(NOW, 3600) == ()
    assert held.due(NOW, 86_400) == (("sara", 1),)
    (macaroon,) = held.candidates("poznan", "/lofar", "LIST", NOW)
    macaroon.freeze("refused")
    assert held.due(NOW, 0) == (("poznan", "b7"),)


def test_so_many_of_such_a_length_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macaroons, "MAX_MACAROONS", 3)
    held = Macaroons()
    for number, until in enumerate(("2026-12-03", "2026-12-01", "2026-12-02", None, "2026-12-04")):
        held.add("SURF", number, issue(number=number), until)
    assert [macaroon.request for macaroon in held.candidates("SURF", FILE, "LIST", NOW)] == [3, 4, 0]
    assert Macaroons().add("SURF", 1, "x" * MAX_TOKEN_CHARS, None)
    assert not Macaroons().add("SURF", 1, "x" * (MAX_TOKEN_CHARS + 1), None)


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nX-Evil: 1", "é", "\0"])
def test_what_is_no_token_is_not_held(token: str) -> None:
    held = Macaroons()
    assert not held.add("SURF", 1, token, LATER)
    assert held.candidates("SURF", FILE, "LIST", NOW) == ()


def test_no_macaroon_shows_itself() -> None:
    token = issue(f"path:{TOP}", "id:1000;100;lofar")
    held = store(token)
    (macaroon,) = held.candidates("SURF", FILE, "LIST", NOW)
    assert macaroon.token == token
    macaroon.freeze("refused")
    for text in (repr(held), repr(macaroon), str(macaroon), macaroon.name, f"{[macaroon]}", macaroon.redact(token)):
        assert token not in text
        assert "1000;100" not in text
    with pytest.raises(Temporary, match="macaroon of sara for request 991619 is frozen") as caught:
        macaroon.check()
    assert token not in str(caught.value)


# --- trying


class Door:
    """A WebDAV door: which token it takes where, and whom it saw."""

    def __init__(self) -> None:
        self.refusals: dict[str, int] = {}
        self.seen: list[tuple[str, str]] = []
        self.targets: list[str] = []
        self.url = ""
        self.online = True
        self.asked = 0

    async def get(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append((token, request.path))
        self.targets.append(request.raw_path)
        return web.Response(status=self.refusals.get(token, 200))

    async def is_online(self) -> bool:
        self.asked += 1
        return self.online


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    app = web.Application()
    app.router.add_get("/{path:.*}", door.get)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    door.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield door
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    http = Http(Clock())
    yield http
    await http.close()


async def fetch(http: Http, door: Door, held: Macaroons, path: str = FILE) -> Reply:
    site = Site("sara", Clock())

    async def call(macaroon: Macaroon) -> Reply:
        url = door.url + path_for(macaroon, path)
        return await http.request("GET", url, site=site, credential=macaroon, write=False, ok=REFUSALS)

    return await try_each(held.candidates("SURF", path, "DOWNLOAD", NOW), path, call, door.is_online)


async def test_the_next_is_tried_and_the_refused_one_comes_last_for_that_path(http: Http, door: Door) -> None:
    best, next_one = issue(f"root:{TOP}"), issue()
    held = store(best, next_one)
    door.refusals = {best: 403}
    assert (await fetch(http, door, held)).status == 200
    assert door.seen == [(best, FILE.removeprefix(TOP)), (next_one, FILE)]
    assert not [target for target in door.targets if best in target or next_one in target]
    assert order(held) == [1, 0]
    assert order(held, f"{TOP}/other.tar") == [0, 1]
    door.seen.clear()
    assert (await fetch(http, door, held)).status == 200
    assert door.seen == [(next_one, FILE)]
    assert door.asked == 1


async def test_a_refusal_that_is_over_is_forgotten_where_it_was_accepted(http: Http, door: Door) -> None:
    best, other = issue(f"path:{TOP}"), issue()
    held = store(best, other)
    door.refusals = {best: 401, other: 401}
    with pytest.raises(Temporary, match="2 were refused"):
        await fetch(http, door, held)
    door.refusals = {best: 401}
    await fetch(http, door, held)
    assert order(held) == [1, 0]
    assert door.asked == 0, "a 401 is about the token, wherever the file is"


async def test_a_403_for_a_file_on_tape_says_nothing_of_the_macaroon(http: Http, door: Door) -> None:
    tokens = [issue(number=number) for number in range(3)]
    held = store(*tokens)
    door.refusals, door.online = dict.fromkeys(tokens, 403), False
    before = order(held)
    for _ in range(5):
        with pytest.raises(Temporary, match="is not online"):
            await fetch(http, door, held)
    assert order(held) == before
    assert len(door.seen) == door.asked == 5
    assert held.due(NOW, 0) == ()


async def test_a_locality_that_cannot_be_told_marks_nobody(http: Http, door: Door) -> None:
    held = store(issue(), issue(number=2))
    door.refusals = {issue(): 403, issue(number=2): 403}
    before = order(held)

    async def call(macaroon: Macaroon) -> Reply:
        return Reply(403, {}, b"")

    async def is_online() -> bool:
        raise Temporary("dCache is away")

    with pytest.raises(Temporary, match="dCache is away"):
        await try_each(held.candidates("SURF", FILE, "LIST", NOW), FILE, call, is_online)
    assert order(held) == before


async def test_no_more_are_tried_than_the_door_bears(http: Http, door: Door) -> None:
    tokens = [issue(number=number) for number in range(MAX_REFUSALS + 2)]
    held = store(*tokens)
    door.refusals = dict.fromkeys(tokens, 403)
    with pytest.raises(Temporary, match=f"{MAX_REFUSALS} were refused") as caught:
        await fetch(http, door, held)
    assert len(door.seen) == MAX_REFUSALS
    with pytest.raises(Temporary):
        await fetch(http, door, held)
    assert len({token for token, _ in door.seen}) == 2 * MAX_REFUSALS, "the others come first the next time"
    assert not [token for token in tokens if token in str(caught.value)]


async def test_a_401_everywhere_drops_it(http: Http, door: Door) -> None:
    bad = issue(f"path:{TOP}")
    held = store(bad)
    door.refusals = {bad: 401}
    for number in range(PATHS_BEFORE_DROP):
        assert order(held) == [0]
        for _ in range(3):  # The same path says no more the third time than the first.
            if order(held) == [0]:
                with pytest.raises(Temporary):
                    await fetch(http, door, held, f"{TOP}/{number}.tar")
    assert order(held) == []
    assert held.due(NOW, 0) == (("sara", 991619),)
    with pytest.raises(Temporary, match="0 were refused"):
        await fetch(http, door, held)


async def test_a_401_now_and_then_does_not(http: Http, door: Door) -> None:
    held = store(issue())
    for number in range(3 * PATHS_BEFORE_DROP):
        door.refusals = {} if number % PATHS_BEFORE_DROP == 0 else {issue(): 401}
        try:
            await fetch(http, door, held, f"{TOP}/{number}.tar")
        except Temporary:
            assert door.refusals
    assert order(held) == [0]


async def test_403s_never_drop_it(http: Http, door: Door) -> None:
    held = store(issue())
    door.refusals = {issue(): 403}
    for number in range(3 * PATHS_BEFORE_DROP):
        with pytest.raises(Temporary):
            await fetch(http, door, held, f"{TOP}/{number}.tar")
    assert order(held) == [0]


async def test_one_that_was_dropped_meanwhile_is_passed_over() -> None:
    held = store(issue(f"path:{TOP}"), issue())
    found = held.candidates("SURF", FILE, "LIST", NOW)
    found[0].freeze("refused")
    called: list[Macaroon] = []

    async def call(macaroon: Macaroon) -> Reply:
        called.append(macaroon)
        return Reply(200, {}, b"")

    async def is_online() -> bool:
        return True

    await try_each(found, FILE, call, is_online)
    assert called == [found[1]]


def test_so_many_refused_paths_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macaroons, "MAX_REFUSED_PATHS", 2)
    held = store(issue(f"path:{TOP}"), issue())
    (macaroon, _) = held.candidates("SURF", FILE, "LIST", NOW)
    paths = [f"{TOP}/{number}" for number in range(3)]
    for path in paths:
        macaroon.refuse(path, 403)
    assert [order(held, path) for path in paths] == [[0, 1], [1, 0], [1, 0]]
