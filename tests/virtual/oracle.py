"""What must be true of the store at every moment: the promises as queries, and the journal against the world's ledger.

The queries run on a connection of their own, so they see what is committed and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from aglowd.store import views

LIVE = "('planned', 'open', 'unknown', 'doubt')"

PROMISES = {
    "G4: an attempt ended while one of its effects had not": f"""
        SELECT e.key FROM effects AS e JOIN steps AS s ON s.run = e.run AND s.name = e.step
        WHERE e.state IN {LIVE} AND (s.attempt <> e.attempt OR s.state NOT IN ('working', 'waiting', 'ready'))""",
    "G3: an effect is done that was never intended": """
        SELECT key FROM effects WHERE state = 'done' AND intended IS NULL""",
    "G6: a live effect that nobody takes up": f"""
        SELECT key FROM effects WHERE state IN {LIVE} AND next_at IS NULL""",
    "G6: a working step without a live effect and without a mark": f"""
        SELECT run || '/' || name FROM steps AS s WHERE state = 'working' AND dirty IS NULL AND due IS NULL
        AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.step = s.name AND e.attempt = s.attempt
                        AND e.state IN {LIVE})""",
    "G6: a wait without reason or date": """
        SELECT run || '/' || name FROM steps WHERE state = 'waiting' AND (due IS NULL OR reason = '')""",
    "G6: a ready step that nobody will ask": """
        SELECT run || '/' || name FROM steps WHERE state = 'ready' AND dirty IS NULL AND due IS NULL AND pool = ''""",
    "G6: a run that nothing moves": """
        SELECT id FROM runs AS r WHERE state = 'running'
        AND NOT EXISTS (SELECT 1 FROM steps AS s WHERE s.run = r.id AND s.state IN ('ready', 'working', 'waiting'))""",
    "a run ended before its steps": """
        SELECT r.id FROM runs AS r JOIN steps AS s ON s.run = r.id WHERE r.state <> 'running'
        AND s.state IN ('pending', 'ready', 'working', 'waiting')""",
    "two runs with one key at once": """
        SELECT key FROM runs WHERE state = 'running' GROUP BY key HAVING count(*) > 1""",
    "a step waits for nothing": """
        SELECT run || '/' || name FROM steps AS s WHERE state = 'waiting' AND dirty IS NULL
        AND NOT EXISTS (SELECT 1 FROM waits AS w WHERE w.run = s.run AND w.step = s.name AND w.active = 1)""",
}
"""What a promise forbids → the query that must find nothing, in any committed state."""

Line = dict[str, Any]


class Oracle:
    """One world's judge: `check` after every step, `at_the_end` when all is quiet. Each returns what is wrong."""

    def __init__(self, database: Path, ledger: Path) -> None:
        self._db = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._ledger = ledger.open("rb")
        self._rest = b""
        self._settled: dict[str, tuple[str, str]] = {}
        self._versions: dict[str, int] = {}
        self._seen = self._told = -1
        self._fields: dict[str, tuple[str, str]] = {}
        self.lines: list[Line] = []
        self.checks = 0

    def close(self) -> None:
        self._db.close()
        self._ledger.close()

    def read(self) -> None:
        """Take in what the ledger has got since the last time; it must have been flushed."""
        *whole, self._rest = (self._rest + self._ledger.read()).split(b"\n")
        self.lines.extend(map(msgspec.json.decode, whole))

    def check(self) -> list[str]:
        """What is wrong now; without a commit since the last time nothing can be."""
        version = self._version()
        if version == self._seen:
            return []
        self._seen = version
        self.checks += 1
        self._db.execute("BEGIN")  # One committed state for all the queries.
        try:
            wrong = [f"{what}: {row[0]}" for what, sql in PROMISES.items() for row in self._db.execute(sql)]
            wrong += self._final()
            wrong += self._versions_rise()
            wrong += self._intent_first()
        finally:
            self._db.execute("COMMIT")
        return wrong

    def _version(self) -> int:
        """Changes with each commit of the daemon's."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _final(self) -> Iterator[str]:
        """Done and rejected are final."""
        rows = "SELECT key, state, coalesce(result, '') FROM effects WHERE state IN ('done', 'rejected')"
        now = {key: (state, result) for key, state, result in self._db.execute(rows)}
        for key, was in self._settled.items():
            if now.get(key) != was:
                yield f"G4: a settled effect changed: {key} was {was}, is {now.get(key)}"
        self._settled = now

    def _versions_rise(self) -> Iterator[str]:
        now = dict(self._db.execute("SELECT key, version FROM subjects"))
        for key, was in self._versions.items():
            if now.get(key, -1) < was:
                yield f"G1: the observation of {key} fell from version {was} to {now.get(key)}"
        self._versions = now

    def _intent_first(self) -> Iterator[str]:
        """Whatever the world shows as done with a key of ours, the journal had intended it before."""
        intended = {key for (key,) in self._db.execute("SELECT key FROM effects WHERE intended IS NOT NULL")}
        for key in self._started():
            if key not in intended:
                yield f"G3: the world shows {key}, the journal never intended it"

    def _started(self) -> Counter[str]:
        """How many jobs the batch system started, by the key that they carry."""
        return Counter(
            line["tags"]["aglowd_key"]
            for line in self.lines
            if line["op"] == "job_started" and "aglowd_key" in line["tags"]
        )

    def fields(self) -> dict[str, tuple[str, str]]:
        """Each field's state and its reason, as `aglowctl` shows them."""
        version = self._version()
        if version != self._told:
            rows = views.list_fields(self._db)
            self._fields, self._told = (
                {str(one["field"]): (str(one["state"]), str(one["reason"])) for one in rows},
                version,
            )
        return self._fields

    def what_moves(self) -> list[str]:
        """Each step that has begun and not ended, and each live effect: for whoever must find out why nothing moves."""
        steps = (
            "SELECT run || '/' || name || ' ' || state || ' due ' || coalesce(due, '-') || ': ' || reason FROM steps"
        )
        effects = f"SELECT key || ' ' || state || ' at ' || coalesce(next_at, '-') || ': ' || reason FROM effects WHERE state IN {LIVE}"
        where = " WHERE state IN ('ready', 'working', 'waiting')"
        return [row[0] for sql in (steps + where, effects) for row in self._db.execute(sql)]

    def at_the_end(self) -> list[str]:
        """The journal against the ledger, key by key, and the file itself."""
        wrong = [*self.check(), *self._jobs(), *self._requests(), *self._tokens()]
        for (verdict,) in self._db.execute("PRAGMA integrity_check"):
            if verdict != "ok":
                wrong.append(f"integrity_check: {verdict}")
        live = f"SELECT key, state, reason FROM effects WHERE state IN {LIVE}"
        wrong += [f"never settled: {key} is {state}: {reason}" for key, state, reason in self._db.execute(live)]
        return wrong

    def _effects(self, kind: str) -> list[tuple[str, str, Any, Any, int]]:
        """key, state, inputs, result and whether it was repeated, of all effects of a kind."""
        repeated = "json_extract(notes, '$.repeated') IS NOT NULL"
        rows = self._db.execute(f"SELECT key, state, inputs, result, {repeated} FROM effects WHERE kind = ?", (kind,))
        return [
            (key, state, msgspec.json.decode(inputs), None if result is None else msgspec.json.decode(result), again)
            for key, state, inputs, result, again in rows
        ]

    def _jobs(self) -> Iterator[str]:
        started = self._started()
        for key, state, _, result, _ in self._effects("submit_jobs"):
            truth = started[key]
            if (truth == 1) != (state == "done") or truth > 1:
                yield f"G4: {key} is {state} ({result}), the world started it {truth} times"

    def _requests(self) -> Iterator[str]:
        made = {line["result"]: line for line in self.lines if line["op"] == "request_made"}
        effects = self._effects("stage_files")
        known = Counter(result["request"] for _, _, _, result, _ in effects if result)
        for key, state, _, result, _ in effects:
            request = (result or {}).get("request")
            if state == "done" and request is not None and (request not in made or known[request] > 1):
                yield f"G4: {key} is done by request {request}, which is not its own"
        findings = {key for (key,) in self._db.execute("SELECT key FROM findings")}
        ours = {key: {*inputs["surls"], *(result or {}).get("also", ())} for key, _, inputs, result, _ in effects}
        for request, line in made.items():
            mine = [key for key, files in ours.items() if files.issuperset(line["surls"])]
            if not mine:
                yield f"G3: the world has request {request}, the journal has no intent for it"
            repeated = any(key in mine and again for key, _, _, _, again in effects)  # The next audit tells of it.
            if request not in known and f"staging:lta/{request}" not in findings and not repeated:
                yield f"G4: request {request} belongs to no effect, and nobody was told"

    def _tokens(self) -> Iterator[str]:
        written = [line for line in self.lines if line["system"] == "couchdb" and line["op"] == "bulk_docs"]
        created = {doc["id"] for line in written for doc in line["docs"] if doc.get("type") and not doc.get("deleted")}
        for key, state, inputs, _, _ in self._effects("create_tokens"):
            missing = set(inputs["tokens"]) - created
            if state == "done" and missing:
                yield f"G4: {key} is done, and the world never saw {len(missing)} of its tokens"
