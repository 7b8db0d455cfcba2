"""The legacy LTA stager: XML-RPC at `LtaStager`, which brings files from tape to disk.

What must stay true: what the stager answers is taken leniently (its `getprogress` gives texts, nothing, or a list), and
what it does not answer is never taken for success. A request that it no longer knows may have succeeded or not; asking
about one gives an empty answer, and the files must be asked for themselves.
Methods and statuses: GRID_LRT and LiLF `stager_access.py`; `getprogress` as recorded in GRID_LRT's LRT_demo notebook.
"""

from __future__ import annotations

import asyncio
import math
import re
import xmlrpc.client
from collections.abc import Mapping, Sequence
from typing import Any

from defusedxml.xmlrpc import DefusedExpatParser

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, unusable
from aglowd.grid.stager import Progress, Request, listed
from aglowd.grid.words import quoted, shown

STAGE_TIMEOUT_S = 300.0
"""A thousand SURLs take the stager a while."""
MAX_ANSWER_BYTES = 8 << 20
"""Thousands of requests, or tens of thousands of SURLs."""
MAX_WORD_CHARS = 100
"""A status is a word or two."""
MAX_NUMBER = 2**53
"""A larger request id or count is no such thing; below, a float is exact and the store can hold it."""

_REFUSED = re.compile(
    r"invalid|illegal|malformed|not allowed|denied|forbidden|not authori[sz]ed|no permission|too many|expected|must be",
    re.I,
)
_BUSY = re.compile(r"overload|too many|busy|try again|temporarily|maintenance|quota|queue is full", re.IGNORECASE)
_UNCERTAIN = re.compile(r"time(?:d\s*|-)?out|deadlock|lost connection|connection (?:reset|closed|lost)", re.IGNORECASE)
_ABSENT = re.compile(
    r"\bno (?:such )?(?:staging )?request|unknown (?:request|id)"
    r"|(?:request|id)\b.*\b(?:unknown|not found|does ?n[o']t exist)",
    re.IGNORECASE,
)


class LtaStager:
    """The stager's verbs. Request ids are ints on the wire: a text would be another XML-RPC type."""

    def __init__(self, http: Http, site: Site, credential: Credential, url: str) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = url

    @seam
    async def stage(self, surls: Sequence[str]) -> int:
        """Ask for the files; the id of the new request."""
        answer = await self._call("add_getid", listed(surls), write=True)
        number = integer(answer)
        if number is None:
            raise Unknown(f"LTA add_getid: found {shown(answer)} as the request's id; expected a number")
        return number

    @seam
    async def progress(self) -> dict[Request, Progress]:
        """All requests that the stager shows of us, in one call; one that it finished may be missing."""
        answer = await self._call("getprogress", write=False)
        if not answer:
            return {}  # None when nothing is active; LAnDmARk guards against an empty tuple.
        if not isinstance(answer, Mapping):
            raise Temporary(f"LTA getprogress: found {shown(answer)}; expected a table of requests")
        return {number: _progress(entry) for key, entry in answer.items() if (number := integer(key)) is not None}

    @seam
    async def status(self, request: Request) -> str:
        """The request's status in lower case, empty when the stager does not know it."""
        answer = await self._ask("getstatus", request)
        return word(answer) if isinstance(answer, str) else ""

    async def requested(self, request: Request) -> None:
        """The legacy stager never tells what a request is for, only what of it is online."""
        return

    @seam
    async def staged(self, request: Request) -> tuple[str, ...]:
        """The request's SURLs that are online, also while it goes on; none when the stager does not know it."""
        answer = await self._ask("getstagedurls", request)
        return tuple(surl.strip() for surl in answer if isinstance(surl, str)) if isinstance(answer, list) else ()

    @seam
    async def abort(self, request: Request) -> None:
        """Stop a running request or release what a finished one holds; absent when the stager does not know it."""
        await self._call("abort", request, write=True)

    async def reschedule(self, request: Request) -> None:
        """Put a request that is on hold or aborted back in the queue."""
        await self._call("reschedule", request, write=True)

    async def _ask(self, method: str, request: Request) -> Any:
        """A read about one request; None when the stager does not know it."""
        try:
            return await self._call(method, request, write=False)
        except Permanent as error:
            if error.absent:
                return None
            raise

    async def _call(self, method: str, *arguments: Any, write: bool) -> Any:
        try:
            body = xmlrpc.client.dumps(arguments, f"LtaStager.{method}").encode()
        except (TypeError, OverflowError, UnicodeError) as error:
            raise Permanent(f"LTA {method}: the arguments cannot be sent: {error}") from error
        reply = await self._http.request(
            "POST",
            self._url,
            site=self._site,
            credential=self._credential,
            write=write,
            data=body,
            headers={"Content-Type": "text/xml"},
            timeout_s=STAGE_TIMEOUT_S if method == "add_getid" else None,
            max_body_bytes=MAX_ANSWER_BYTES,
        )
        return await asyncio.to_thread(decode, reply.body, f"LTA {method}", write=write)


def decode(body: bytes, what: str, *, write: bool) -> Any:
    """The value in an XML-RPC answer; a fault becomes one of the three, and what is no XML-RPC counts as no answer."""
    unmarshaller = xmlrpc.client.Unmarshaller(use_builtin_types=True)
    try:
        parser = DefusedExpatParser(unmarshaller)
        parser.feed(body)
        parser.close()
        values: Any = unmarshaller.close()
        return values[0]
    except xmlrpc.client.Fault as fault:
        raise _fault(fault, what, write=write) from None  # The fault's own text repeats all of it.
    except Exception as error:  # The unmarshaller lets IndexError, KeyError, ValueError and others of its kind escape.
        raise unusable(f"{what}: the answer is not XML-RPC ({type(error).__name__})", write=write) from error


def _fault(fault: xmlrpc.client.Fault, what: str, *, write: bool) -> OutsideError:
    said = quoted(fault.faultString if isinstance(fault.faultString, str) else shown(fault.faultString))
    return refusal(said, f"{what}: fault {shown(fault.faultCode)}: {said}", write=write)


def refusal(said: str, text: str, *, write: bool) -> OutsideError:
    """The error, of that text, for what a stager said instead of an answer."""
    if _ABSENT.search(said):
        return Permanent(text, absent=True)
    if _UNCERTAIN.search(said):
        return unusable(text, write=write)
    if _BUSY.search(said):
        return Temporary(text)
    # A fault that we do not know may have come after the deed: only a plain refusal says that nothing was done.
    return Permanent(text) if _REFUSED.search(said) else unusable(text, write=write)


def _progress(entry: Any) -> Progress:
    """One entry, whose keys and types no document promises."""
    values = {str(k).strip().lower(): v for k, v in entry.items()} if isinstance(entry, Mapping) else {}
    return Progress(
        status=word(values.get("status")),
        file_count=integer(values.get("file count")),
        files_done=integer(values.get("files done")),
        percent=_number(values.get("percent done")),
        location=word(values.get("location")),
        flagged_abort=word(values.get("flagged abort")) in ("true", "1", "yes"),
    )


def word(value: Any) -> str:
    """A status, or another word or two, in lower case; empty when it is no text."""
    return str(value).strip().lower()[:MAX_WORD_CHARS] if isinstance(value, str | int | float) else ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def integer(value: Any) -> int | None:
    """A number of files or a request's id, as a number or a text; None for anything else."""
    number = _number(value)
    return int(number) if number is not None and number == int(number) and abs(number) <= MAX_NUMBER else None
