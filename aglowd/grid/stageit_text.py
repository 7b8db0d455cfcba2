"""What StageIT's answers mean: pages and requests of GraphQL, as `stageit.py` asks for them, and nothing taken for granted.

Sources: `stager_proxy.py` and `stager_access.py` of lotaas_pipeline (lofar_stager_api 2.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from aglowd.errors import Permanent, Temporary
from aglowd.grid.keyring import Issued
from aglowd.grid.lta import integer, word
from aglowd.grid.stager import Request
from aglowd.grid.words import shown

CODES: Mapping[str, str] = {"s": "scheduled", "c": "success", "a": "aborted"}
"""The codes that were ever seen; others are told as they come."""


def number_of(request: Request) -> int:
    """The id as it stands in a path or a query; a name that is no number is none of StageIT's requests."""
    number = integer(request)
    if number is None:
        raise Permanent(f"StageIT: found {shown(request)}; expected a request's number", absent=True)
    return number


def literal(text: str) -> str:
    """The text inside a query; GraphQL escapes as JSON does."""
    return msgspec.json.encode(text).decode()


def messages(errors: Any) -> list[str]:
    """What the errors of an answer say, whatever their form."""
    listed = errors if isinstance(errors, list) else [errors]
    found = (one.get("message") if isinstance(one, Mapping) else one for one in listed[:10])
    return [one if isinstance(one, str) else shown(one) for one in found]


def page(data: Mapping[str, Any]) -> tuple[dict[int, str], str | None]:
    """The status of each request of one page, and the cursor of the next one if there is one."""
    listed = data.get("requests")
    edges, info = (listed.get("edges"), listed.get("pageInfo")) if isinstance(listed, Mapping) else (None, None)
    goes_on = info.get("hasNextPage") if isinstance(info, Mapping) else None
    cursor = info.get("endCursor") if isinstance(info, Mapping) and goes_on else None
    if not isinstance(edges, list) or not isinstance(goes_on, bool) or (goes_on and not isinstance(cursor, str)):
        raise Temporary("StageIT requests: the answer is no page of requests")
    nodes = (edge.get("node") for edge in edges if isinstance(edge, Mapping))
    return {number: status_of(node) for number, node in numbered(nodes)}, cursor


def numbered(nodes: Iterable[Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The nodes that are requests, each with its number."""
    found = ((integer(node.get("id")), node) for node in nodes if isinstance(node, Mapping))
    return ((number, node) for number, node in found if number is not None)


def status_of(node: Mapping[str, Any]) -> str:
    """The text, or what its code means where there is none."""
    code = word(node.get("currentStatusCode"))
    return " ".join(word(node.get("currentStatus")).replace("_", " ").split()) or CODES.get(code, code)


def surls_of(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The files that it is for; None where that cannot be read."""
    listed = node.get("surls")
    if not isinstance(listed, list):
        return None
    return texts([one.get("surl") if isinstance(one, Mapping) else one for one in listed])


def online_of(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What its `response` says is online: a JSON document in a text, empty early in life; None where it is broken."""
    response = node.get("response")
    if response is None or (isinstance(response, str) and not response.strip()):
        return ()
    try:
        document = msgspec.json.decode(response) if isinstance(response, str) else response
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    listed = document.get("online", []) if isinstance(document, Mapping) else None
    return texts(listed) if isinstance(listed, list) else None


def told(found: tuple[str, ...] | None, field: str) -> tuple[str, ...]:
    """What was found; a field that cannot be read is no answer, because none at all would be one."""
    if found is None:
        raise Temporary(f"StageIT request: its {field} cannot be read")
    return found


def issued(node: Mapping[str, Any]) -> tuple[Issued, ...]:
    """What opens its files, one for each site; none where that cannot be read."""
    listed = node.get("macaroons")
    found = []
    for one in listed if isinstance(listed, list) else ():
        content = one.get("content") if isinstance(one, Mapping) else None
        if isinstance(content, str) and content.strip():
            site, until = one.get("ltaSite"), one.get("validUntil")
            name = site.get("name") if isinstance(site, Mapping) else None
            text = until if isinstance(until, str) else None
            found.append(Issued(name if isinstance(name, str) else "", content.strip(), text))
    return tuple(found)


def texts(listed: list[Any]) -> tuple[str, ...]:
    """The texts among them, each once."""
    return tuple(dict.fromkeys(one.strip() for one in listed if isinstance(one, str)))
