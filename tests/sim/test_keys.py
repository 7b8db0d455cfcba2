"""Files are looked at and read with nothing but what StageIT issues: its macaroons, at a dCache and a door that demand them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from aglowd import log
from aglowd.errors import OutsideError, Temporary
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.keyring import ASK_APART_S, Keyring
from aglowd.grid.stageit import StageIt
from aglowd.grid.surl import Door, parse_surl, webdav_of
from aglowd.grid.webdav import WebDav
from aglowd.sim.dcachegate import DcacheSettings
from aglowd.sim.stageit import MACAROON_S, SURF_PROJECTS
from aglowd.sim.world import HOUR_S, MINUTE_S

from .ways import RECALLED_S, There, standing_grid

ELSEWHERE = [
    f"srm://srm.grid.sara.nl:8443{SURF_PROJECTS}/lc2_038/1/L1_SB{number:03d}_uv.MS_0a000001.tar" for number in range(3)
]
"""In a directory that no request has files of."""


class Keys:
    """The adapters as the daemon wires them for SURF, without any token of the operator's."""

    def __init__(self, there: There) -> None:
        self.there = there
        self.start()

    def start(self, token: str | None = None) -> None:
        """As after a restart: nothing is held."""
        ready, clock, http = self.there.ready, self.there.clock, self.there.http
        login = Credential("stageit", token=ready["credentials"]["stageit_token"], scheme="Token")
        self.keyring = Keyring(clock)
        self.stageit = StageIt(http, Site("stageit", clock), login, ready["stageit_url"], clock, keyring=self.keyring)
        self.keyring.source = self.stageit.progress
        self.token = Credential("dcache", token=token)
        self.dcache = Dcache(
            http, Site("dcache", clock), self.token, ready["dcache_url"], ask="namespace", keyring=self.keyring,
            keys_of="sara",
        )  # fmt: skip
        self.doors = {"sara": Door(ready["webdav_url"], SURF_PROJECTS)}
        self.webdav = WebDav(http, Site("webdav", clock), {}, keyring=self.keyring, doors=self.doors)

    async def staged(self) -> tuple[int, list[str]]:
        """A request whose files are online."""
        files = self.there.files()
        request = await self.stageit.stage(files)
        self.there.pass_s(RECALLED_S)
        await self.stageit.progress()
        return request, files

    def url(self, surl: str) -> str:
        return webdav_of(parse_surl(surl), self.doors)

    def ledger(self) -> str:
        return Path(self.there.ready["ledger"]).read_text(encoding="utf-8")

    def tokens(self, surl: str) -> list[str]:
        found = self.keyring.candidates("sara", parse_surl(surl).path, "DOWNLOAD")
        return [str(macaroon.token) for macaroon in found]


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    async with standing_grid(tmp_path, DcacheSettings(token="of-the-operator", macaroons=True)) as there:
        yield Keys(there)
    log._secrets.clear()


# --- where files are


async def test_the_namespace_is_asked_with_the_macaroons_of_a_request(keys: Keys) -> None:
    request, files = await keys.staged()
    expected = dict.fromkeys(files, "ONLINE") | dict.fromkeys(ELSEWHERE, "NEARLINE")
    assert await keys.dcache.localities([*files, *ELSEWHERE]) == expected
    asked = keys.there.http.asked
    await keys.dcache.localities([*files, *ELSEWHERE])
    assert keys.there.http.asked - asked == len(files), "what no request of ours is for is not asked about"
    keys.start()
    assert await keys.dcache.localities(files) == dict.fromkeys(files, "ONLINE"), "after a restart they are had again"
    await keys.stageit.abort(request)
    assert await keys.dcache.localities(files) == dict.fromkeys(files, "NEARLINE")
    assert keys.tokens(files[0]) == []


async def test_while_the_issuer_is_silent_nothing_is_said_of_a_file(keys: Keys) -> None:
    _, files = await keys.staged()
    keys.start()
    keys.there.strike("stageit", "error_before", "requests")
    with pytest.raises(Temporary):
        await keys.dcache.localities(files)
    assert await keys.dcache.localities(files) == dict.fromkeys(files, "ONLINE")


async def test_a_macaroon_that_ends_early_is_replaced(keys: Keys) -> None:
    """Until then nothing is said of its files: they are not taken to be on tape."""
    _, files = await keys.staged()
    online = dict.fromkeys(files, "ONLINE")
    keys.there.strike("dcache", "macaroon_ended", "namespace")
    assert await keys.dcache.localities(files) == {}
    assert await keys.dcache.localities(files) == online, "it was asked for anew"
    keys.there.strike("dcache", "macaroon_ended", "namespace")
    for _ in range(2):
        assert await keys.dcache.localities(files) == {}, "not so soon again"
    keys.there.pass_s(ASK_APART_S)
    assert await keys.dcache.localities(files) == online


async def test_macaroons_are_renewed_before_they_end(keys: Keys) -> None:
    _, files = await keys.staged()
    before = keys.tokens(files[0])
    for _ in range(20):
        keys.there.pass_s(MACAROON_S / 10)
        await keys.dcache.localities(files)  # The pins end; the macaroons do not.
    after = keys.tokens(files[0])
    assert after
    assert not set(before) & set(after)
    assert (await keys.dcache.localities(files)).keys() == set(files)
    assert log.redact_text(f"with {before[0][-60:]}") == f"with {before[0][-60:]}"


async def test_a_token_of_the_operators_comes_first_and_the_macaroons_when_it_is_refused(keys: Keys) -> None:
    keys.start("of-the-operator")
    _, files = await keys.staged()
    expected = dict.fromkeys(files, "ONLINE") | dict.fromkeys(ELSEWHERE, "NONE")
    assert await keys.dcache.localities([*files, *ELSEWHERE]) == expected, "it sees what no request is for"
    keys.token.freeze("an operator must renew it")
    assert await keys.dcache.localities(files) == dict.fromkeys(files, "ONLINE")
    with pytest.raises(Temporary, match="frozen"):
        await keys.dcache.localities(ELSEWHERE)


# --- what is in them


async def test_the_door_is_read_with_macaroons_below_their_root(keys: Keys, tmp_path: Path) -> None:
    _, (surl, *_) = await keys.staged()
    url = keys.url(surl)
    assert unquote(url).startswith(f"{keys.there.ready['webdav_url']}/lc2_038/229509/L229509")
    for start in (False, True):
        if start:
            keys.start()
        entry = await keys.webdav.stat(url)
        assert entry.url == url
        copy = tmp_path / f"copy{start}"
        await keys.webdav.download(url, str(copy))
        assert copy.stat().st_size == entry.size_bytes > 0
        assert copy.read_text() == f"{parse_surl(surl).path}\n"
    whole = f"{keys.there.ready['webdav_url']}{parse_surl(surl).path}"
    assert (await keys.webdav.stat(whole)).size_bytes == entry.size_bytes, "by its whole path too"
    assert await keys.webdav.checksum(url) > 0


async def test_a_file_on_tape_is_no_fault_of_its_macaroon(keys: Keys, tmp_path: Path) -> None:
    surls = keys.there.files()
    await keys.stageit.stage(surls)
    for _ in range(40):  # They begin to come, and have a macaroon then.
        keys.there.pass_s(10 * MINUTE_S)
        await keys.stageit.progress()
        if keys.tokens(surls[0]):
            break
    tokens = keys.tokens(surls[0])
    waiting = [surl for surl, place in (await keys.dcache.localities(surls)).items() if place == "NEARLINE"]
    assert waiting
    for _ in range(4):
        with pytest.raises(Temporary, match="not online"):
            await keys.webdav.download(keys.url(waiting[0]), str(tmp_path / "copy"))
    assert keys.tokens(surls[0]) == tokens
    assert list(tmp_path.glob("copy*")) == []


async def test_nothing_is_written_with_a_macaroon(keys: Keys) -> None:
    _, (surl, *_) = await keys.staged()
    before = keys.there.http.asked
    with pytest.raises(Temporary, match="no credential is configured"):
        await keys.webdav.make_directory(keys.url(surl).rpartition("/")[0] + "/new")
    assert keys.there.http.asked == before + 1, "it was refused, and not tried with anything else"


# --- what must never be


async def test_no_macaroon_is_in_a_url_an_error_or_a_log(
    keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that can fail with one fails, by turns."""
    _, files = await keys.staged()
    tokens = keys.tokens(files[0])
    assert tokens
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for system, fault in (
            ("dcache", "macaroon_ended"), ("dcache", "error_before"), ("dcache", "html"), ("dcache", "too_many"),
            ("stageit", "malformed"), ("stageit", "truncated"), ("stageit", "graphql_error"),
            ("webdav", "error_before"), ("webdav", "html"), ("webdav", "malformed"), ("webdav", "too_many"),
        ):  # fmt: skip
            keys.there.strike(system, fault, "namespace" if fault == "macaroon_ended" else "*", value=20.0)
            for act in (
                lambda: keys.dcache.localities(files),
                lambda: keys.webdav.download(keys.url(files[0]), str(tmp_path / "x")),
                keys.stageit.progress,
            ):
                try:
                    said.append(repr(await act()))
                except OutsideError as error:
                    said.append(f"{error!r} {error}")
            (tmp_path / "x").unlink(missing_ok=True)
            keys.there.pass_s(HOUR_S)
    said += [keys.ledger(), caplog.text, repr(keys.keyring), repr(keys.stageit.__dict__)]
    assert any("HTTP 429" in text for text in said)
    assert "/namespace/" in "".join(said)
    for token in tokens:
        for part in (token, token[:80], token[-80:]):
            assert not [text[:200] for text in said if part in text]
