"""The outside as the deeds meet it: honest small systems with the adapters' verbs and errors, and real local storage.

Each keeps what was done to it, so that a test asks the system, and never the deed, what has happened.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aglowd.clock import Clock
from aglowd.effects.base import Intent, World
from aglowd.errors import Permanent, Unknown
from aglowd.grid.batch import JobStatus, Order
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.gate import Site
from aglowd.grid.http import Reply
from aglowd.grid.picas import BulkRow
from aglowd.grid.proc import Processes
from aglowd.grid.stager import Progress
from aglowd.grid.storage import Storage
from aglowd.model import EffectRecord, EffectState, Json

KEY = "P1-1/step/1/effect/0"


class Stager:
    """The LTA's memory of our requests."""

    def __init__(self) -> None:
        self.requests: dict[int, tuple[str, ...]] = {}
        self.shown: dict[int, Progress] = {}
        self.online: dict[int, tuple[str, ...]] = {}
        self.statuses: dict[int, str] = {}
        self.aborted: list[int] = []
        self.tells: dict[int, tuple[str, ...]] | None = None
        """What each request is for, if this stager tells."""

    def add(self, surls: Sequence[str], *, count: int | None = -1, staged: Sequence[str] = ()) -> int:
        """A request, whoever made it; `count` is what the stager says of its size."""
        number = 100 + len(self.requests)
        self.requests[number] = tuple(surls)
        size = len(set(surls)) if count == -1 else count
        self.shown[number] = Progress("in progress", size, len(staged), None, "sara", False)
        self.online[number] = tuple(staged)
        return number

    async def stage(self, surls: Sequence[str]) -> int:
        return self.add(surls)

    async def progress(self) -> dict[int, Progress]:
        return dict(self.shown)

    async def status(self, request: int) -> str:
        return self.statuses.get(request, "")

    async def requested(self, request: int) -> tuple[str, ...] | None:
        return self.tells.get(request, ()) if self.tells is not None else None

    async def staged(self, request: int) -> tuple[str, ...]:
        return self.online.get(request, ())

    async def abort(self, request: int) -> None:
        if request not in self.requests:
            raise Permanent(f"LTA abort: unknown request {request}", absent=True)
        self.aborted.append(request)
        self.statuses[request] = "aborted"


class Pool:
    """Where files are."""

    def __init__(self) -> None:
        self.where: dict[str, str] = {}

    async def localities(self, surls: Sequence[str]) -> dict[str, str]:
        return {surl: self.where[surl] for surl in surls if surl in self.where}


class Couch:
    """Documents with revisions and attachments, as CouchDB keeps them. `races`: documents that change under a writer."""

    def __init__(self) -> None:
        self.docs: dict[str, dict[str, Any]] = {}
        self.bodies: dict[tuple[str, str], bytes] = {}
        self.designs: dict[str, Mapping[str, Any]] = {}
        self.writes: list[str] = []
        self.races: set[str] = set()
        self.deleted: set[str] = set()
        self.marks: dict[str, tuple[str, ...]] = {}
        """Key of a submission → the jobs whose pilots left it."""

    def put(self, document: Mapping[str, Any]) -> str:
        """Write the document as somebody else would, whatever revision it has; the new revision."""
        name = document["_id"]
        number = int(self.docs[name]["_rev"].partition("-")[0]) + 1 if name in self.docs else 1
        new = copy.deepcopy(dict(document))
        stubs = {}
        for attachment, entry in new.get("_attachments", {}).items():
            if "data" in entry:
                self.bodies[name, attachment] = body = base64.b64decode(entry["data"])
                digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
                entry = {
                    "content_type": entry["content_type"],
                    "digest": f"md5-{digest}",
                    "length": len(body),
                    "stub": True,
                }
            stubs[attachment] = entry
        if stubs:
            new["_attachments"] = stubs
        new["_rev"] = (
            f"{number}-{hashlib.md5(repr(sorted(new.items())).encode(), usedforsecurity=False).hexdigest()[:6]}"
        )
        self.docs[name] = new
        return str(new["_rev"])

    def change(self, name: str, **values: Any) -> None:
        self.put({**self.docs[name], **values})

    async def get_docs(self, ids: Sequence[str], *, attachments: bool = False) -> dict[str, dict[str, Any] | None]:
        found: dict[str, dict[str, Any] | None] = {name: copy.deepcopy(self.docs.get(name)) for name in ids}
        for name, document in found.items():
            if attachments and document is not None:
                for attachment, entry in document.get("_attachments", {}).items():
                    del entry["stub"]
                    entry["data"] = base64.b64encode(self.bodies[name, attachment]).decode()
        return found

    async def list_deleted(self, ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in ids if name in self.deleted)

    async def bulk(self, docs: Sequence[dict[str, Any]]) -> dict[str, BulkRow]:
        rows = {}
        for document in docs:
            name = document["_id"]
            if name in self.races:
                self.races.discard(name)
                self.change(name, hostname="a pilot") if name in self.docs else self.put({"_id": name, "type": "other"})
            there = self.docs.get(name)
            if (there or {}).get("_rev") != document.get("_rev"):
                rows[name] = BulkRow(ok=False, error="conflict", reason="Document update conflict.")
                continue
            self.writes.append(name)
            if document.get("_deleted"):
                del self.docs[name]
                rows[name] = BulkRow(ok=True, rev="9-gone")
            else:
                rows[name] = BulkRow(ok=True, rev=self.put(document))
        return rows

    async def list_ids(self, token_type: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, document in self.docs.items() if document.get("type") == token_type))

    async def find_pilots(self, key: str) -> tuple[str, ...]:
        return self.marks.get(key, ())

    async def list_pilot_docs(self, token_type: str) -> list[dict[str, Any]]:
        return [doc for doc in self.docs.values() if doc.get("aglowd", {}).get("pilot_of") == token_type]

    async def ensure_design(self, name: str, doc: Mapping[str, Any]) -> None:
        self.designs[name] = doc

    async def delete_design(self, name: str) -> None:
        self.designs.pop(name, None)


class Wms:
    """A batch system: registered jobs, and which of them were started."""

    system = "toy"
    registers = True
    settle_s = 0.0

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.orders: dict[str, Order] = {}
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.silent = False
        self.hidden: set[str] = set()

    async def prepare(self, order: Order) -> str | None:
        if not self.registers:
            return None
        return self._new(order)

    def _new(self, order: Order) -> str:
        job = f"https://wms:9000/job{len(self.jobs)}"
        self.jobs[job], self.orders[job] = "submitted", order
        return job

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        if self.silent:
            raise Unknown("the WMS says nothing")
        job = prepared or self._new(order)
        self.started.append(job)
        self.jobs[job] = "queued"
        return (job,)

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        if self.silent and prepared is None:
            raise Unknown("nobody can tell what was submitted")
        found = [prepared] if prepared else [job for job, order in self.orders.items() if order.key == key]
        for job in found:
            if self.jobs.get(job, "unknown") == "unknown":
                raise Unknown(f"the bookkeeping says nothing of {job} (yet)")
        return tuple(job for job in found if self.jobs[job] != "submitted")

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        return {job: JobStatus(job, self.jobs[job]) for job in jobs if job in self.jobs.keys() - self.hidden}

    async def cancel(self, job: str) -> None:
        if job not in self.jobs:
            raise Permanent(f"there is no job {job}", absent=True)
        self.cancelled.append(job)
        self.jobs[job] = "cancelled"


class Web:
    """A web service that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bool, Json, Mapping[str, str]]] = []
        self.kept: list[bool] = []
        """Of each request whether it may share its connection."""
        self.body = b'{"state": "ok"}'

    async def request(
        self,
        method: str,
        url: str,
        *,
        site: Site,
        write: bool,
        json: Json = None,
        headers: Mapping[str, str] | None = None,
        is_kept: bool = False,
    ) -> Reply:
        self.asked.append((method, url, write, json, headers or {}))
        self.kept.append(is_kept)
        return Reply(200, {}, self.body)


class Damaging(Storage):
    """A site that loses a bit of the next `damaged` copies and uploads on their way."""

    damaged = 0

    async def copy(self, source: str, destination: str) -> None:
        await super().copy(source, destination)
        await self._lose(destination)

    async def upload(self, data: bytes | Path, destination: str) -> None:
        await super().upload(data, destination)
        await self._lose(destination)

    async def _lose(self, url: str) -> None:
        if self.damaged:
            self.damaged -= 1
            path = Path(url.removeprefix("file://"))
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


class Outside:
    """All of them, wired as the daemon would."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        (tmp_path / "work").mkdir()
        (tmp_path / "site").mkdir()
        clock = Clock()
        self.lta, self.dcache, self.couch, self.wms, self.web = Stager(), Pool(), Couch(), Wms(), Web()
        self.processes = Processes(env={"PATH": os.environ["PATH"]})
        self.storage = Damaging(self.processes, Site("storage", clock))
        self.csv = tmp_path / "fields.csv"
        absent: Any = None
        self.world = World(
            clock=clock,
            http=cast(Any, self.web),
            processes=self.processes,
            stagers={"": cast(Any, self.lta), "sara": cast(Any, self.lta)},
            archives={"": cast(Any, self.dcache), "sara": cast(Any, self.dcache)},
            token_bases={"": cast(Any, self.couch), "sara": cast(Any, self.couch)},
            batches={"": cast(Any, self.wms), "sara": cast(Any, self.wms)},
            storage=self.storage,
            proxy=absent,  # No deed asks for the proxy.
            catalogue=CsvCatalogue(self.csv, "here", clock=clock),
            web=Site("web", clock),
            work_dir=tmp_path / "work",
            sandboxes={site: {"picas.json": "{}", "run.sh": "#!/bin/sh"} for site in ("", "sara")},
            staging_settle_s=77.0,
            deletable=((tmp_path / "site").as_uri(),),
        )
        self.noted: list[dict[str, Json]] = []

    def url(self, name: str) -> str:
        return (self.path / "site" / name).as_uri()

    def file(self, name: str) -> Path:
        return self.path / "site" / name

    def files(self) -> list[str]:
        return sorted(os.fspath(path.relative_to(self.path / "site")) for path in (self.path / "site").rglob("*"))

    def intent(
        self,
        *,
        key: str = KEY,
        tries: int = 0,
        evidence: Json = None,
        notes: dict[str, Json] | None = None,
        results: Sequence[Json] = (),
        results_at: str = "",
    ) -> Intent:
        """`results`: what other effects of the kind returned, which asked that site."""
        known = dict(notes or {})

        async def others() -> list[EffectRecord]:
            inputs = {"site": results_at}
            return [EffectRecord("other", "kind", 0, EffectState.DONE, inputs, 1, result, "") for result in results]

        async def note(more: dict[str, Json]) -> None:
            known.update(more)
            self.noted.append(dict(more))

        return Intent(key, 0.0, tries, evidence, known, note, others)
