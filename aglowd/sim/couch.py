"""The CouchDB subset over HTTP: what PiCaS clients use of CouchDB 3, with its status codes and its words.

One handler per kind of path; the rules live in `couchstore` and `couchviews`. Every request is one ledger line,
writes with what they wrote, so that the pilots' deeds (User-Agent `pilot`) and the clients' can be told apart.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Middleware

from aglowd.sim import couchfeed
from aglowd.sim.couchrequest import (
    BODY_MAX_BYTES,
    answer,
    decode_object,
    doc_row,
    id_range,
    read_options,
    read_query,
    read_rev,
    row_by_key,
    sent,
    written,
)
from aglowd.sim.couchstore import Body, CouchError, Database, Doc, bad_request, conflict, digest_of, not_found
from aglowd.sim.couchviews import Views, check_design
from aglowd.sim.faulthttp import STRIKE, reset
from aglowd.sim.world import World, digest

Handler = Callable[[web.Request, list[str]], Awaitable[web.StreamResponse]]
BY = web.AppKey("by", str)


class Couch:
    """The server: its databases, and how a request finds its handler."""

    def __init__(self, world: World, user: str, password: str) -> None:
        self._world = world
        self._admin = user
        self.members = {user: password}
        """Who may come in; of these only the first may change design documents."""
        self._databases: dict[str, tuple[Database, Views]] = {}
        self._ids = 0
        self._sessions: dict[str, str] = {}

    def app(self, middlewares: Iterable[Middleware] = (), by: str = "client") -> web.Application:
        """The HTTP application; the middlewares stand before it. `by`: who comes in by this door, if he does not say so."""
        app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=middlewares)
        app[BY] = by
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    def create(self, name: str) -> Database:
        """Make a database; the demo has two from the start."""
        start = str(int(self._world.clock.origin * 1e6) + len(self._databases))
        database = Database(name, start)
        self._databases[name] = (database, Views(database))
        return database

    def restart(self, *, recreate: bool = False) -> None:
        """Every database is opened anew, or was replicated into a new one."""
        for name, (database, _) in self._databases.items():
            database.restart(str(int(self._world.now() * 1e6)), recreate=recreate)
            self._databases[name] = (database, Views(database))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = [unquote(part) for part in request.rel_url.raw_path.split("/")[1:]]
        try:
            if path == ["_session"] and request.method == "POST":
                return await self._log_in(request)
            user = self._user_of(request)
            if user is None:
                self._note(request, "unauthorized", path="/".join(path))
                raise CouchError(401, "unauthorized", "Name or password is incorrect.")
            is_read = request.method in ("GET", "HEAD")
            if user != self._admin and path[1:2] == ["_design"] and len(path) == 3 and not is_read:
                raise CouchError(403, "forbidden", "You are not a db or server admin.")
            return await self._route(request, path)
        except CouchError as error:
            self._note(request, "refused", method=request.method, path="/".join(path), result=error.status)
            return answer({"error": error.error, "reason": error.reason}, error.status)

    def _user_of(self, request: web.Request) -> str | None:
        """Who asks, by password or by the cookie of a session; None for everybody else."""
        scheme, _, login = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return self._sessions.get(request.cookies.get("AuthSession", ""))
        try:
            user, _, password = base64.b64decode(login).decode().partition(":")
        except ValueError:
            return None
        return user if self._is_login(user, password) else None

    def _is_login(self, user: object, password: object) -> bool:
        return isinstance(user, str) and user in self.members and self.members[user] == password

    async def _log_in(self, request: web.Request) -> web.Response:
        """A cookie for name and password, which come as JSON or as a form."""
        is_form = request.content_type == "application/x-www-form-urlencoded"
        body = dict(await request.post()) if is_form else decode_object(await request.read())
        user = body.get("name")
        if not isinstance(user, str) or not self._is_login(user, body.get("password")):
            self._note(request, "unauthorized", path="_session")
            raise CouchError(401, "unauthorized", "Name or password is incorrect.")
        self._ids += 1
        cookie = digest(self._world.seed, "session", self._ids, size_bytes=16).hex()
        self._sessions[cookie] = user
        headers = {"Set-Cookie": f"AuthSession={cookie}; Version=1; Path=/; HttpOnly"}
        roles = ["_admin"] if user == self._admin else []
        return answer({"ok": True, "name": user, "roles": roles}, headers=headers)

    def end_sessions(self) -> None:
        """No cookie that was given out is worth anything any more, as after its time."""
        self._sessions.clear()

    async def _route(self, request: web.Request, path: list[str]) -> web.StreamResponse:
        if path == [""]:
            return answer({"couchdb": "Welcome", "version": "3.5.0", "vendor": {"name": "aglowd simulated grid"}})
        if path[0] == "_up":
            return answer({"status": "ok", "seeds": {}})
        if path[0] == "_all_dbs":
            return answer(sorted(self._databases))
        if path[0] == "_session":
            return answer({"ok": True, "userCtx": {"name": "user", "roles": ["_admin"]}})
        if path[0].startswith("_"):
            raise not_found()
        if len(path) == 1 or path[1:] == [""]:
            return await self._database(request, path[0])
        special: dict[str, Handler] = {
            "_bulk_docs": self._bulk_docs,
            "_all_docs": self._all_docs,
            "_changes": self._changes,
            "_local": self._local,
        }
        if path[1] in special:
            return await special[path[1]](request, path)
        if path[1] in ("_compact", "_ensure_full_commit", "_view_cleanup"):
            self._find(path[0])
            return answer({"ok": True, "instance_start_time": "0"}, 202 if path[1] == "_compact" else 201)
        if path[1] == "_design" and len(path) == 5 and path[3] == "_view":
            return await self._view(request, path)
        at = 3 if path[1] == "_design" else 2
        doc_id, attachment = "/".join(path[1:at]), "/".join(path[at:])
        if attachment:
            return await self._attachment(request, path[0], doc_id, attachment)
        return await self._document(request, path[0], doc_id)

    # --- databases

    async def _database(self, request: web.Request, name: str) -> web.Response:
        if request.method == "PUT":
            if name in self._databases:
                raise CouchError(412, "file_exists", "The database could not be created, the file already exists.")
            if not name[:1].islower() or name.lower() != name:
                raise bad_request(f"Name: '{name}'. Only lowercase characters.", "illegal_database_name")
            self.create(name)
            self._note(request, "create_database", database=name)
            return answer({"ok": True}, 201)
        database, _ = self._find(name)
        if request.method == "DELETE":
            del self._databases[name]
            self._note(request, "delete_database", database=name)
            return answer({"ok": True})
        if request.method == "POST":
            body = decode_object(await request.read())
            return self._saved(request, database, body.get("_id") or self._new_id(), body)
        live = sum(not doc.deleted for doc in database.docs.values())
        info = {
            "db_name": name,
            "update_seq": database.seq_text(database.seq),
            "doc_count": live,
            "doc_del_count": len(database.docs) - live,
            "instance_start_time": database.instance_start_time,
        }
        return answer(info)

    def _find(self, name: str) -> tuple[Database, Views]:
        if name not in self._databases:
            raise not_found("Database does not exist.")
        return self._databases[name]

    def _new_id(self) -> str:
        self._ids += 1
        return digest(self._world.seed, "uuid", self._ids, size_bytes=16).hex()

    # --- documents

    async def _document(self, request: web.Request, name: str, doc_id: str) -> web.Response:
        database, _ = self._find(name)
        rev = read_rev(request)
        if request.method in ("GET", "HEAD"):
            doc = database.get(doc_id)
            if rev is not None and rev != doc.rev:
                raise not_found()
            self._note(request, "get", id=doc_id)
            headers = {"ETag": f'"{doc.rev}"'}
            inline, told = (request.query.get(name) == "true" for name in ("attachments", "att_encoding_info"))
            return answer(doc.body(inline=inline, encoding_info=told), headers=headers)
        if request.method == "DELETE":
            doc = database.delete(doc_id, rev)
            self._note(request, "delete", id=doc_id, rev=rev, result=doc.rev)
            return written(doc, 200)
        if request.method != "PUT":
            raise CouchError(405, "method_not_allowed", "Only DELETE,GET,HEAD,PUT allowed")
        return self._saved(request, database, doc_id, decode_object(await request.read()), rev)

    def _saved(
        self, request: web.Request, database: Database, doc_id: str, body: Body, rev: str | None = None
    ) -> web.Response:
        if body.get("_id", doc_id) != doc_id:
            raise bad_request("Document ID must match the URL")
        doc = self._put(database, doc_id, body, rev)
        self._note(request, "put", database=database.name, doc=_described(doc))
        self._note_surls(doc)
        return written(doc, 201)

    def _put(self, database: Database, doc_id: str, body: Body, rev: str | None = None) -> Doc:
        if doc_id.startswith("_design/"):
            check_design(body)
        return database.put(doc_id, body, rev)

    async def _bulk_docs(self, request: web.Request, path: list[str]) -> web.Response:
        """Store many documents, each for itself: 201 with one row a document, errors among them."""
        database, _ = self._find(path[0])
        docs = decode_object(await request.read()).get("docs")
        if not isinstance(docs, list):
            raise bad_request("POST body must include `docs` parameter.")
        rows: list[Body] = []
        stored: list[Doc] = []
        strike = STRIKE.get()
        whole, refusing = len(docs), 0
        if strike is not None and strike.fault == "partial_bulk":
            docs = docs[: int(strike.value * whole) if strike.value < 1 else int(strike.value)]
        elif strike is not None:
            refusing = math.ceil(strike.value * whole) if strike.value < 1 else int(strike.value)
        for body in docs:
            if not isinstance(body, dict):
                raise bad_request("Document must be a JSON object")
            doc_id = body.get("_id") or self._new_id()
            try:
                if len(rows) < refusing:
                    raise conflict()
                doc = self._put(database, doc_id, body)
            except CouchError as error:
                rows.append({"id": doc_id, "error": error.error, "reason": error.reason})
                continue
            rows.append({"ok": True, "id": doc_id, "rev": doc.rev})
            stored.append(doc)
        refused = [row["id"] for row in rows if "error" in row]
        self._note(
            request, "bulk_docs", database=database.name, docs=[_described(doc) for doc in stored], refused=refused
        )
        for doc in stored:
            self._note_surls(doc)
        if strike is not None and strike.fault == "partial_bulk":
            return reset(request)
        return answer(rows, 201)

    async def _attachment(self, request: web.Request, name: str, doc_id: str, attachment: str) -> web.Response:
        database, _ = self._find(name)
        if request.method in ("GET", "HEAD"):
            part = database.get(doc_id).attachments.get(attachment)
            if part is None:
                raise not_found("Document is missing attachment")
            self._note(request, "get_attachment", id=doc_id, name=attachment)
            return sent(part, request)
        if request.method == "DELETE":
            doc = database.delete_attachment(doc_id, attachment, read_rev(request))
            self._note(request, "delete_attachment", id=doc_id, name=attachment, result=doc.rev)
            return written(doc, 200)
        data = await request.read()
        if request.headers.get("Content-MD5", digest_of(data)) != digest_of(data):
            raise bad_request("Possible message corruption.", "content_md5_mismatch")
        kind = request.headers.get("Content-Type", "application/octet-stream")
        created = database.find_live(doc_id) is None
        doc = database.put_attachment(doc_id, attachment, kind, data, read_rev(request))
        part = doc.attachments[attachment]
        self._note(request, "put_attachment", id=doc_id, name=attachment, digest=part.digest, length=len(data),
                   created=created, result=doc.rev)  # fmt: skip
        self._note_surls(doc)
        return written(doc, 201)

    async def _local(self, request: web.Request, path: list[str]) -> web.Response:
        database, _ = self._find(path[0])
        doc_id = "_local/" + "/".join(path[2:])
        if request.method == "PUT":
            database.local[doc_id] = decode_object(await request.read()) | {"_id": doc_id, "_rev": "0-1"}
            return answer({"ok": True, "id": doc_id, "rev": "0-1"}, 201)
        if doc_id not in database.local:
            raise not_found()
        if request.method == "DELETE":
            del database.local[doc_id]
            return answer({"ok": True, "id": doc_id, "rev": "0-0"})
        return answer(database.local[doc_id])

    # --- many documents

    async def _all_docs(self, request: web.Request, path: list[str]) -> web.Response:
        database, _ = self._find(path[0])
        options = await read_options(request)
        query = read_query(options)
        inline = options.get("attachments") in (True, "true")
        if query.keys is not None:
            rows = [row_by_key(database, key, query, inline=inline) for key in query.keys][query.window()]
        else:
            ids = database.sorted_ids()
            low, high = id_range(ids, query)
            chosen = ids[low:high][:: -1 if query.descending else 1]
            rows = [doc_row(database.docs[doc_id], query, inline=inline) for doc_id in chosen[query.window()]]
        self._note(request, "all_docs", rows=len(rows), include_docs=query.include_docs)
        total = len(database.sorted_ids())
        return answer({"total_rows": total, "offset": None if query.keys is not None else query.skip, "rows": rows})

    async def _view(self, request: web.Request, path: list[str]) -> web.Response:
        _, views = self._find(path[0])
        query = read_query(await read_options(request))
        body = await views.query(path[2], path[4], query)
        self._note(request, "view", design=path[2], view=path[4], rows=len(body["rows"]))
        return answer(body)

    async def _changes(self, request: web.Request, path: list[str]) -> web.StreamResponse:
        database, _ = self._find(path[0])
        options = await read_options(request)
        strike = STRIKE.get()
        if strike is not None and strike.fault == "since_refused":
            raise CouchError(
                int(strike.value) or 400, "bad_request", "Malformed sequence supplied in 'since' parameter."
            )
        feed = couchfeed.read_feed(options, request.headers, database)
        if strike is not None and strike.fault == "rewind":
            feed = replace(feed, since=max(0, feed.since - int(strike.value)))
        self._note(request, "changes", feed=feed.kind, since=str(options.get("since", "0"))[:12])
        if feed.kind == "continuous":
            return await couchfeed.stream(request, database, feed)
        return answer(await couchfeed.collect(database, feed))

    def _note_surls(self, doc: Doc) -> None:
        """Record, when a token gets its list of SURLs, which they are."""
        part = doc.attachments.get("srm.txt")
        if part is not None and part.revpos == int(doc.rev.partition("-")[0]):
            words = part.data.decode("utf-8", "replace").split()
            surls = [word for word in words if word.startswith("srm://")]
            self._world.note("couchdb", "token_surls", "world", id=doc.id, type=doc.fields.get("type"), surls=surls)

    def _note(self, request: web.Request, op: str, **arguments: object) -> None:
        agent = request.headers.get("User-Agent", "")
        by = agent if agent in ("pilot", "operator") else request.app[BY]
        self._world.note("couchdb", op, by, **arguments)


def _described(doc: Doc) -> Body:
    """What the ledger keeps of a written document: enough to judge by, not its whole body."""
    fields = doc.fields
    mark = fields.get("aglowd")
    names = _JUDGED if doc.rev.startswith("1-") else _JUDGED[:-3]
    chosen = {name: fields[name] for name in names if name in fields}
    described: Body = {"id": doc.id, "rev": doc.rev, **chosen}
    if doc.deleted:
        described["deleted"] = True
    if isinstance(mark, dict):
        # Whose token it is; and of the mark that a pilot leaves of itself, by whose key it runs and as which job.
        described |= {name: mark[name] for name in ("key", "pilot", "job") if name in mark}
    if doc.attachments:
        described["attachments"] = {name: part.digest for name, part in doc.attachments.items()}
    return described


# The inputs are there because a token that names an earlier result shows that its client saw that result.
_JUDGED = ("type", "OBSID", "STARTSB", "ABN", "PIPELINE_STEP", "lock", "done", "status", "output", "scrub_count",
           "Results_location", "RESULTS_DIR", "CAL2_SOLUTIONS", "INPUT_FILES")  # fmt: skip
