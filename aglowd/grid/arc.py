"""ARC's computing element, through the REST interface of A-REX.

What must stay true: pilots are submitted in two phases. A job whose description names files waits for them, so its id is
known before anything runs, and sending the files once more does no harm. Live states come from the list of all our jobs
(`action=status` is up to a minute behind), and how a job ended from its document. Words and quirks: `arc_text.py`.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.arc_text import (
    ENDED,
    JOB_ID,
    STATES,
    WAITING,
    Document,
    code_of,
    document_of,
    entries,
    named,
    reason_of,
    status_of,
    word_of,
)
from aglowd.grid.batch import CHUNK_IDS, JobStatus, Order, Terms
from aglowd.grid.descriptions import describe
from aglowd.grid.gate import Site
from aglowd.grid.http import Http, Reply, Sink, Tls, unusable
from aglowd.grid.proxy import RENEW
from aglowd.grid.sandbox import output_directory
from aglowd.parts import in_parts

KEY_FILE = "aglowd.key"
"""What pilots without files wait for: a job that waits for nothing runs at once."""
PRINTED = ("session/stdout.txt", "session/stderr.txt", "diagnose/errors")
"""What a pilot printed, as the template has it, and A-REX's own log of the job."""
TIMEOUT_S = 120.0
"""A list of ten thousand jobs takes A-REX some seconds."""
OUTPUT_TIMEOUT_S = 1800.0
HANDSHAKES = 5
"""A-REX 6.17 breaks some TLS handshakes, one in five hundred to one in fifty, while it closes other connections."""

_WRONG = re.compile(
    r"description parser|parse job description|too big|[Qq]ueues? |Bad name for executable|external plugin"
)
"""Why A-REX never takes a description. All else (no room, limits, no new jobs for now) may pass; nothing runs either way."""
_RELATION = r'\((?:[^()"]|"[^"]*"|\((?:[^()"]|"[^"]*")*\))*\)'
_RELATIONS = re.compile(rf"\s*(?:{_RELATION}\s*)*")


class Arc:
    """The verbs for the computing element at `url` (https://HOST:PORT/arex). Without `ca_dir` the system's authorities count."""

    system = "arc"
    registers = True
    settle_s = 0.0

    def __init__(
        self, http: Http, site: Site, terms: Terms, url: str, *, proxy: Path | None, ca_dir: Path | None
    ) -> None:
        self._http = http
        self._site = site
        self._terms = terms
        self._url = f"{url.rstrip('/')}/rest/1.0/jobs"
        self._proxy = proxy
        self._ca_dir = ca_dir
        self._tls: tuple[tuple[int, int, int] | None, Tls] | None = None
        """Made from what the proxy's file held then: its inode, time and size."""

    async def prepare(self, order: Order) -> str:
        """Make the jobs known, all in one request; they wait for their files. Their ids, with blanks between them.

        What A-REX made before it refused the rest never runs: it gives up in some minutes what gets no files.
        """
        if not _RELATIONS.fullmatch(order.requirements):
            raise Permanent(f"requirements {order.requirements[:100]!r}: expected xRSL relations, (NAME = VALUE) each")
        text = describe(msgspec.structs.replace(order, sandbox=_files(order)), self._terms)
        reply = await self._ask("POST", "?action=new", write=True, data=text.encode(), content_type="application/rsl")
        jobs = entries(reply, "submitting jobs", write=True)
        for job in jobs:
            if not code_of(job).startswith("20"):
                failure = Permanent if _WRONG.search(reason_of(job)) else Temporary
                raise failure(f"submitting jobs: A-REX says {code_of(job)}: {reason_of(job)}")
        ids = dict.fromkeys(name for name, _ in named(jobs))
        if len(ids) != order.count:
            raise Unknown(f"submitting jobs: found {len(ids)} job ids; expected {order.count}")
        return " ".join(ids)

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Send their files to those jobs that wait for them; the others run already, or did.

        If A-REX has given all of them up before they had their files, none of them ran, and there are new ones.
        """
        jobs = (prepared or await self.prepare(order)).split()
        known = await self._sort(jobs) if prepared else _Sorted(jobs)
        if not known.waiting and not known.ran:
            jobs = (await self.prepare(order)).split()
            known = _Sorted(jobs)
        sent = [self._send(job, name, content) for job in known.waiting for name, content in _files(order).items()]
        failures = [one for one in await asyncio.gather(*sent, return_exceptions=True) if one is not None]
        for failure in failures:
            if not isinstance(failure, OutsideError):
                raise failure
        if (
            len(failures) == len(sent)
            and not known.ran
            and failures
            and all(isinstance(one, Temporary) for one in failures)
        ):
            raise failures[0]
        if failures:
            raise Unknown(f"{len(failures)} of {len(sent)} files of pilots were not sent: {failures[0]}")
        return tuple(job for job in jobs if job in known.ran or job in known.waiting)

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The jobs that were let run; none while one of those that were prepared waits for files, which `submit` sends again."""
        try:
            known = await self._sort(prepared.split()) if prepared else _Sorted()
            if known.waiting:
                return ()
            return tuple(known.ran) or await self._find_named(key)
        except Temporary as error:
            raise Unknown(f"nobody can tell what was submitted with the key {key}: {error}") from error

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status: one list for all, then the documents of those that ended, 500 in a call."""
        return (await self._look(jobs))[0] if jobs else {}

    async def cancel(self, job: str) -> None:
        """Ask for the job's end; its status tells when it has come. One that has ended stays as it is."""
        _check([job])
        told = dict(named(await self._tell("kill", [job], write=True)))
        if job not in told:
            raise Unknown(f"cancelling {job}: A-REX says nothing of it")
        if code_of(told[job]) == "404":
            raise Permanent(f"cancelling {job}: there is no such job", absent=True)
        if not code_of(told[job]).startswith("20"):
            raise Unknown(f"cancelling {job}: A-REX says {code_of(told[job])}: {reason_of(told[job])}")

    async def output(self, job: str, directory: Path) -> Path:
        """Fetch what the job printed, and A-REX's log of it; the job keeps both."""
        _check([job])
        place = await asyncio.to_thread(output_directory, directory, job)
        try:
            found = {path for path in PRINTED if await self._fetch(f"/{job}/{path}", place / path.rpartition("/")[2])}
            if not found.intersection(PRINTED[:2]):
                seen = (await self.status([job])).get(job)
                if seen is None:
                    raise Permanent(f"the output of {job}: there is no such job", absent=True)
                if not found or not seen.is_final:
                    raise Temporary(f"the output of {job}: there is nothing yet")
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
            raise
        return place

    async def list_ours(self) -> dict[str, JobStatus]:
        """All jobs under this proxy that A-REX still keeps, a week by default."""
        words = await self._list()
        documents = await self._documents(job for job in words if words[job] in ENDED)
        return {job: status_of(job, word, documents.get(job)) async for job, word in in_parts(words.items())}

    # --- looks

    async def _look(self, jobs: Collection[str]) -> tuple[dict[str, JobStatus], dict[str, Document]]:
        """The statuses of these jobs, and the documents of those that ended. What A-REX does not know is left out."""
        _check(jobs)
        listed = await self._list()
        words = {job: listed[job] for job in jobs if job in listed}
        # The list holds only jobs in states that we know of, and an empty one may be a fault: the others are asked for.
        silent = [job for job in dict.fromkeys(jobs) if job not in words]
        told = await self._in_chunks("status", silent)
        words |= {job: word_of(told[job]) for job in silent if job in told and code_of(told[job]) == "200"}
        documents = await self._documents(job for job in words if words[job] in ENDED)
        found = {job: status_of(job, word, documents.get(job)) async for job, word in in_parts(words.items())}
        for job in silent:
            if job not in told or code_of(told[job]) not in ("200", "404"):
                found[job] = JobStatus(job, "unknown", reason="A-REX said nothing about it")
        return found, documents

    async def _sort(self, jobs: Sequence[str]) -> _Sorted:
        """Which of these jobs wait for files, and which were let run. Unknown if that cannot be told of one of them."""
        seen, documents = await self._look(jobs)
        waiting, ran = [], []
        for job in jobs:
            status = seen.get(job)
            if status is None or status.state == "unknown" or (status.words in ENDED and not status.is_final):
                raise Unknown(f"A-REX does not tell (yet) what became of {job}")
            if status.words in WAITING:
                waiting.append(job)
            elif job not in documents or documents[job].ran:
                ran.append(job)
        return _Sorted(waiting, ran)

    async def _list(self) -> dict[str, str]:
        """The live state of each of our jobs, by its id."""
        reply = await self._ask("GET", f"?state={','.join(STATES)}", write=False)
        jobs = await asyncio.to_thread(entries, reply, "listing jobs", write=False)
        return {job: word_of(told) async for job, told in in_parts(named(jobs))}

    async def _documents(self, jobs: Iterable[str]) -> dict[str, Document]:
        told = await self._in_chunks("info", list(jobs))
        found = {job: document_of(one) async for job, one in in_parts(told.items())}
        return {job: document for job, document in found.items() if document is not None}

    async def _find_named(self, key: str) -> tuple[str, ...]:
        """What carries the key and was let run, whoever has its id; Unknown if one of them has only a part of its files."""
        words = await self._list()
        documents = await self._documents(words)
        # In its first moments a job has no name yet.
        untold = [
            job
            for job, word in words.items()
            if job not in documents
            or not (documents[job].name or {word, documents[job].word}.isdisjoint({*WAITING, ""}))
        ]
        if untold:
            raise Unknown(f"A-REX does not tell (yet) the names of {len(untold)} jobs")
        known = await self._sort([job for job, document in documents.items() if document.name == key])
        for job in known.waiting:
            if (await self._ask("GET", f"/{job}/session/", write=False)).body.strip():
                raise Unknown(f"{job} has files of its pilot, and does not run yet")
        return tuple(known.ran)

    async def _in_chunks(self, action: str, jobs: Sequence[str]) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = {}
        for start in range(0, len(jobs), CHUNK_IDS):
            told |= named(await self._tell(action, jobs[start : start + CHUNK_IDS], write=False))
        return told

    # --- requests

    async def _tell(self, action: str, jobs: Sequence[str], *, write: bool) -> list[dict[str, Any]]:
        body = msgspec.json.encode({"job": [{"id": job} for job in jobs]})
        reply = await self._ask("POST", f"?action={action}", write=write, data=body, content_type="application/json")
        found = entries(reply, f"action={action}", write=write)
        if not found:
            raise unusable(
                f"action={action}: the answer is empty, as it is for a request that A-REX cannot read", write=write
            )
        return found

    async def _send(self, job: str, name: str, content: str) -> None:
        reply = await self._ask("PUT", f"/{job}/session/{name}", write=True, data=content.encode())
        if reply.body.strip():
            raise Unknown(f"sending {name} to {job}: found an answer of {len(reply.body)} bytes; expected an empty one")

    async def _fetch(self, path: str, target: Path) -> bool:
        """Write what stands there into a new file; False if there is nothing."""
        file = await asyncio.to_thread(open, target, "xb")

        async def keep(block: bytes) -> None:
            await asyncio.to_thread(file.write, block)

        try:
            await self._ask("GET", path, write=False, sink=keep)
        except Permanent as error:
            if not error.absent:
                raise
            await asyncio.to_thread(target.unlink)
            return False
        finally:
            await asyncio.to_thread(file.close)
        return True

    async def _ask(self, method: str, path: str, *, write: bool, **more: Any) -> Reply:
        """One request, begun anew while nothing but the handshake fails: then nothing of it was sent."""
        for attempt in range(HANDSHAKES):
            try:
                return await self._try(method, path, write=write, **more)
            except Temporary as error:
                if error.retry_after_s != 0.0 or attempt == HANDSHAKES - 1:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _try(
        self,
        method: str,
        path: str,
        *,
        write: bool,
        data: bytes | None = None,
        content_type: str = "application/octet-stream",
        sink: Sink | None = None,
    ) -> Reply:
        headers = {"Accept": "application/json"} | ({} if data is None else {"Content-Type": content_type})
        reply = await self._http.request(
            method,
            f"{self._url}{path}",
            site=self._site,
            write=write,
            data=data,
            headers=headers,
            sink=sink,
            timeout_s=TIMEOUT_S if sink is None else OUTPUT_TIMEOUT_S,
            ok=frozenset({403}),
            tls=await asyncio.to_thread(self._identity) if self._url.startswith("https:") else None,
        )
        if reply.status == 403:
            who = f"the proxy {self._proxy}" if self._proxy else "nobody: no proxy is configured"
            raise Temporary(f"{self._url}: A-REX has no account for {who} (HTTP 403)")
        return reply

    def _identity(self) -> Tls:
        """The proxy as its file holds it now: people renew it while we run. Blocks."""
        try:
            found = self._proxy.stat() if self._proxy else None
            held = (found.st_ino, found.st_mtime_ns, found.st_size) if found else None
            if self._tls is None or self._tls[0] != held:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                # With TLS 1.3 far more handshakes break, and a proxy is refused only after the request has been sent.
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                if self._ca_dir is None:
                    context.load_default_certs()
                else:
                    context.load_verify_locations(capath=self._ca_dir)
                if self._proxy:
                    # The password keeps OpenSSL from asking for one at a terminal, should the key need it.
                    context.load_cert_chain(self._proxy, password="")
                self._tls = held, Tls(f"the proxy {self._proxy}", context)
        except OSError as error:
            raise Temporary(
                f"the proxy {self._proxy} cannot be used: {error.strerror or type(error).__name__}; {RENEW}"
            ) from error
        return self._tls[1]


class _Sorted(Struct, frozen=True):
    """Jobs that wait for their files, and jobs that were let run, whatever became of them."""

    waiting: Sequence[str] = ()
    ran: Sequence[str] = ()


def _files(order: Order) -> Mapping[str, str]:
    """What the jobs wait for."""
    return order.sandbox or {KEY_FILE: order.key}


def _check(jobs: Iterable[str]) -> None:
    for job in jobs:
        if not JOB_ID.fullmatch(job):
            raise Permanent(f"found job id {job[:100]!r}; expected letters and digits, as A-REX gives them")
