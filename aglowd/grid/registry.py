"""Container registries: which manifest a tag stands for now, asked without a login. Nothing is downloaded.

A registry of this host (localhost, 127.0.0.1) is asked by plain HTTP, as Docker does; all others by HTTPS. Who wants a
token first names where it is to be had; it is anonymous, goes to that registry alone and is forgotten.
Source: the OCI distribution specification 1.1, and Docker's "Token Authentication Specification".
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from aglowd.errors import Permanent, Temporary
from aglowd.grid.gate import Sites
from aglowd.grid.http import Http, Reply, json_of

HUB = "registry-1.docker.io"
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""The lists of all architectures first: their digest changes with any of them."""
MAX_MANIFEST_BYTES = 4 << 20
"""As much as registries take themselves."""
_DIGEST = re.compile(r"[a-z0-9+._-]{1,32}:[0-9a-f]{32,128}")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_REFERENCE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}|{_DIGEST.pattern}")
_PAIR = re.compile(r'(\w+)="([^"]*)"')


class Image(Struct, frozen=True):
    """A container image: its registry, its name there, and a tag or a digest."""

    host: str
    name: str
    reference: str

    @property
    def manifest(self) -> str:
        """Where its manifest lies."""
        scheme = "http" if _is_local(self.host) else "https"
        return f"{scheme}://{self.host}/v2/{self.name}/manifests/{self.reference}"


def parse_image(text: str) -> Image:
    """The image of `docker://HOST/NAME:TAG`, or as Docker takes it: without a host one of Docker Hub, without a tag `latest`.

    ValueError says what was found and what was expected.
    """
    rest = text.removeprefix("docker://")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host = HUB if first in ("docker.io", "index.docker.io") else first
    else:
        host, path = HUB, rest
    name, at, reference = path.partition("@")
    if not at:
        name, _, reference = path.partition(":")
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    if not _NAME.fullmatch(name) or not _REFERENCE.fullmatch(reference or "latest"):
        raise ValueError(f"{text!r} names no image; expected one such as docker://registry.example/group/name:tag")
    return Image(host, name, reference or "latest")


class Registry:
    """All registries, each host with its own gate."""

    def __init__(self, http: Http, sites: Sites) -> None:
        self._http = http
        self._sites = sites

    async def digest(self, image: Image) -> str:
        """The digest of the image's manifest, as `sha256:…`; absent when the registry has no such image to show."""
        headers = {"Accept": ACCEPT}
        reply = await self._ask("HEAD", image, headers)
        if reply.status == 401:
            headers["Authorization"] = f"Bearer {await self._token(image, reply)}"
            reply = await self._ask("HEAD", image, headers)
        if reply.status != 401 and "docker-content-digest" not in reply.headers:
            reply = await self._ask("GET", image, headers)
        if reply.status == 401:
            raise Permanent(f"{image.host} shows {image.name} to nobody who does not log in, or has none", absent=True)
        found = reply.headers.get("docker-content-digest") or f"sha256:{hashlib.sha256(reply.body).hexdigest()}"
        if not _DIGEST.fullmatch(found):
            raise Temporary(f"{image.manifest}: the digest {found[:80]!r} is none")
        return found

    async def _ask(self, method: str, image: Image, headers: dict[str, str]) -> Reply:
        return await self._http.request(
            method,
            image.manifest,
            site=self._sites.at(image.host),
            write=False,
            headers=headers,
            max_body_bytes=MAX_MANIFEST_BYTES,
            ok=frozenset({401}),
        )

    async def _token(self, image: Image, refusal: Reply) -> str:
        """An anonymous token from where the refusal says that there are some."""
        challenge = refusal.headers.get("www-authenticate", "")
        told = dict(_PAIR.findall(challenge))
        realm = urlsplit(told.get("realm", ""))
        is_safe = realm.scheme == "https" or (
            realm.scheme == "http" and _is_local(realm.netloc) and _is_local(image.host)
        )
        if not challenge.lower().startswith("bearer ") or not is_safe:
            raise Permanent(f"{image.host} wants a login for {image.name}, and gives no anonymous token")
        query = urlencode(
            {"scope": f"repository:{image.name}:pull"} | {k: told[k] for k in ("service", "scope") if k in told}
        )
        url = f"{told['realm']}{'&' if realm.query else '?'}{query}"
        reply = await self._http.request("GET", url, site=self._sites.at(realm.netloc), write=False)
        body = json_of(reply, f"the tokens of {image.host}", write=False)
        token = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Temporary(f"{image.host}: the answer holds no token")
        return token


def _is_local(host: str) -> bool:
    return host.partition(":")[0] in ("localhost", "127.0.0.1")
