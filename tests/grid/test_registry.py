"""Container images at a registry that speaks the distribution protocol, with and without tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary
from aglowd.grid.gate import Sites
from aglowd.grid.http import Http
from aglowd.grid.registry import ACCEPT, HUB, MAX_MANIFEST_BYTES, Image, Registry, parse_image

from .conftest import Serve

Ask = Callable[..., Awaitable[str]]
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class Server:
    """A registry with one image, `lofar/pipeline:v1`. `token`: what it wants to see; "" = nothing."""

    def __init__(self, token: str = "", *, tells_digest: bool = True) -> None:
        self.token = token
        self.tells_digest = tells_digest
        self.asked: list[tuple[str, str]] = []
        self.realm = ""
        self.gives = token
        self.body = MANIFEST

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs))
        if request.path == "/token":
            assert "Authorization" not in request.headers
            return web.json_response({"token": self.gives})
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.realm}",service="here",scope="repository:lofar/pipeline:pull"'
            return web.json_response({"errors": []}, status=401, headers={"WWW-Authenticate": challenge})
        if request.path != "/v2/lofar/pipeline/manifests/v1":
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        assert request.headers["Accept"] == ACCEPT
        headers = {"Docker-Content-Digest": DIGEST} if self.tells_digest else {}
        return web.Response(body=b"" if request.method == "HEAD" else self.body, headers=headers)


@pytest.fixture
def ask(http: Http, clock: Clock, serve: Serve) -> Ask:
    async def digest(server: Server, name: str = "lofar/pipeline:v1") -> str:
        url = await serve(server.answer)
        server.realm = server.realm or f"{url}/token"
        host = urlsplit(url).netloc
        return await Registry(http, Sites("registry", clock, {})).digest(parse_image(f"docker://{host}/{name}"))

    return digest


async def test_the_digest_is_read_without_the_manifest(ask: Ask) -> None:
    server = Server()
    assert await ask(server) == DIGEST
    assert server.asked == [("HEAD", "/v2/lofar/pipeline/manifests/v1")]


async def test_a_registry_that_tells_no_digest_shows_the_manifest(ask: Ask) -> None:
    server = Server(tells_digest=False)
    assert await ask(server) == DIGEST
    assert [method for method, _ in server.asked] == ["HEAD", "GET"]


async def test_an_anonymous_token_is_fetched_where_the_registry_says(ask: Ask) -> None:
    server = Server("t0ken")
    assert await ask(server) == DIGEST
    assert server.asked[1] == ("GET", "/token?scope=repository%3Alofar%2Fpipeline%3Apull&service=here")
    assert [method for method, _ in server.asked] == ["HEAD", "GET", "HEAD"]


async def test_who_gives_no_anonymous_token_has_no_image_for_us(ask: Ask) -> None:
    server = Server("t0ken")
    server.gives = "another"
    with pytest.raises(Permanent, match="nobody who does not log in") as caught:
        await ask(server)
    assert caught.value.absent


@pytest.mark.parametrize("realm", ["http://elsewhere.example/token", "file:///etc/passwd", "none"])
async def test_no_token_is_fetched_from_a_place_that_others_can_read(ask: Ask, realm: str) -> None:
    server = Server("t0ken")
    server.realm = realm
    with pytest.raises(Permanent, match="wants a login"):
        await ask(server)
    assert len(server.asked) == 1


async def test_an_image_that_is_not_there_is_absent(ask: Ask) -> None:
    with pytest.raises(Permanent) as caught:
        await ask(Server(), "lofar/pipeline:v2")
    assert caught.value.absent


async def test_a_manifest_that_is_too_long_is_none(http: Http, clock: Clock, serve: Serve) -> None:
    server = Server(tells_digest=False)
    server.body = b"x" * (MAX_MANIFEST_BYTES + 1)
    host = urlsplit(await serve(server.answer)).netloc
    longer = Http(clock)
    try:
        with pytest.raises(Temporary, match=f"longer than {MAX_MANIFEST_BYTES} bytes"):
            await Registry(longer, Sites("registry", clock, {})).digest(parse_image(f"{host}/lofar/pipeline:v1"))
    finally:
        await longer.close()


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("docker://quay.example/a/b:v1", Image("quay.example", "a/b", "v1")),
        ("docker://localhost:5000/a", Image("localhost:5000", "a", "latest")),
        ("localhost/a", Image("localhost", "a", "latest")),
        ("ubuntu", Image(HUB, "library/ubuntu", "latest")),
        ("astronrd/linc:4.1", Image(HUB, "astronrd/linc", "4.1")),
        ("docker.io/astronrd/linc", Image(HUB, "astronrd/linc", "latest")),
        (f"quay.example/a@sha256:{'0' * 64}", Image("quay.example", "a", f"sha256:{'0' * 64}")),
    ],
)
def test_an_image_is_named_as_docker_does(text: str, image: Image) -> None:
    assert parse_image(text) == image


def test_others_than_this_host_are_asked_by_https() -> None:
    assert parse_image("quay.example/a:v1").manifest == "https://quay.example/v2/a/manifests/v1"
    assert parse_image("localhost:5000/a:v1").manifest == "http://localhost:5000/v2/a/manifests/v1"


@pytest.mark.parametrize(
    "text", ["", "docker://", "a b", "quay.example/A:v1", "x:..", "quay.example/a/../b", "a@md5:1"]
)
def test_what_is_no_image_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="names no image"):
        parse_image(text)
