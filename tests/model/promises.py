"""The promises as questions to the file and to the far side's own list: what must be true after whatever happened.

It reads through a connection of its own, so that it sees what is committed and nothing else, and it never asks the code
that it judges.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from model.shore import ENOUGH, Shore

BECOMES = {
    "StepReset": "pending",
    "StepReady": "ready",
    "StepWorks": "working",
    "StepWaits": "waiting",
    "AttemptFailed": "ready",
    "StepDone": "done",
    "StepFailed": "failed",
    "StepSkipped": "skipped",
    "StepCancelled": "cancelled",
}
LIVE = "('planned', 'open', 'unknown', 'doubt')"


class Oracle:
    """Remembers what has ended and how high each version stood."""

    def __init__(self, path: Path, world: Shore) -> None:
        self.world = world
        self._reader = sqlite3.connect(path, isolation_level=None)
        self._reader.row_factory = sqlite3.Row
        self._ended: dict[str, Any] = {}
        self._versions: dict[str, int] = {}
        self._held: dict[str, int] = {}
        """Step → its effects, of those that were held when it was looked last."""

    def close(self) -> None:
        self._reader.close()

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """What a second reader of the file sees at this moment: a commit is the only thing that has happened."""
        return [dict(row) for row in self._reader.execute(sql, values)]

    def cursor(self) -> str | None:
        return next((row["value"] for row in self.rows("SELECT value FROM cursors WHERE source = 'toy'")), None)

    def judge(self, known: Mapping[str, tuple[int, Any]], cursor: int, words: Iterable[str]) -> None:
        """`known`: version and value of each subject as told; `cursor`: the last one told; `words`: an operator's."""
        self._judge_effects()
        self._judge_steps()
        self._judge_runs()
        self._judge_log()
        for row in self.rows("SELECT key, version, data FROM subjects"):
            self._never_falls(row["key"], row["version"])
            if row["key"] in known:
                assert (row["version"], int(row["data"])) == known[row["key"]], f"{row['key']} is told wrongly (G1)"
        assert self.cursor() == (str(cursor) if cursor else None), "the cursor is not that of the last facts (G1)"
        said = self.rows(
            "SELECT json_extract(data, '$.reason') AS reason FROM events "
            "WHERE kind LIKE 'Doubt%' OR kind LIKE '%Ordered' OR kind IN ('Paused', 'Resumed', 'Drained')"
        )
        assert {row["reason"] for row in said} >= set(words), "the word of an operator is not in the log (G9)"

    def _judge_effects(self) -> None:
        """G3 and G4; that an intent stands before a deed is looked at by the far side itself."""
        last_words = Counter(
            row["effect"]
            for row in self.rows("SELECT effect FROM events WHERE kind IN ('EffectDone', 'EffectRejected')")
        )
        for row in self.rows("SELECT * FROM effects"):
            key, state, things = row["key"], row["state"], self.world.truths(row["key"])
            told = f"{key} is {state} ({row['reason']}) and happened {len(things)} times"
            assert last_words[key] == (state in ("done", "rejected")), (
                f"{key}: told to have ended {last_words[key]} times"
            )
            assert state != "done" or things, told
            if key in self.world.late:
                continue  # What shows later than the settling time may happen twice: the audit's affair.
            assert len(things) <= 1, told
            assert state not in ("planned", "rejected") or not things, told
            if state == "done" and row["kind"] != "noted":
                assert row["result"] == str(things[0]), f"{key} is taken for {row['result']}, and it is {things[0]}"
            assert state in ("done", "rejected") or row["next_at"] is not None, f"{key} is never taken up again"
        unknown = self.world.keys() - {row["key"] for row in self.rows("SELECT key FROM effects")}
        assert not unknown, f"done without an intent: {unknown}"
        over = self.rows(
            f"SELECT e.key, s.state FROM effects AS e JOIN steps AS s ON s.run = e.run AND s.name = e.step "
            f"WHERE e.state IN {LIVE} AND (e.attempt < s.attempt OR s.state IN ('done', 'failed', 'skipped', 'cancelled'))",
        )
        assert not over, f"an attempt ended while its effects live: {over}"

    def _judge_steps(self) -> None:
        """G6: every step that has not ended is on its way, and whatever waits says why and until when."""
        stuck = self.rows(
            f"SELECT s.run, s.name, s.state, s.reason FROM steps AS s "
            f"WHERE s.state IN ('ready', 'working', 'waiting') AND s.dirty IS NULL AND s.due IS NULL "
            f"AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.run = s.run AND e.step = s.name AND e.state IN {LIVE}) "
            f"AND NOT (s.state = 'ready' AND s.pool <> '' AND EXISTS (SELECT 1 FROM steps AS o "
            f"         WHERE o.pool = s.pool AND o.state IN ('working', 'waiting'))) "
            f"AND NOT EXISTS (SELECT 1 FROM pauses AS p, runs AS r WHERE r.id = s.run AND p.name IN ('', r.field))",
        )
        assert not stuck, f"nobody will ever ask: {stuck}"
        dumb = self.rows(
            "SELECT s.run, s.name FROM steps AS s WHERE s.state = 'waiting' AND (s.reason = '' OR s.due IS NULL OR NOT EXISTS "
            "(SELECT 1 FROM waits AS w WHERE w.run = s.run AND w.step = s.name AND w.active = 1))",
        )
        assert not dumb, f"waits for nothing, or without a reason or an end: {dumb}"
        asleep = self.rows(
            "SELECT s.run, s.name, w.subject FROM steps AS s JOIN waits AS w ON w.run = s.run AND w.step = s.name "
            "JOIN subjects AS t ON t.key = w.subject WHERE s.state = 'waiting' AND s.dirty IS NULL AND s.faults = 0 AND w.active = 1 "
            "AND (t.kind = 'run' AND t.data IS NOT NULL OR t.kind = 'toy' AND t.data = ?)",
            str(ENOUGH),
        )
        assert not asleep, f"what they wait for has come, and they sleep: {asleep}"
        self._judge_held()
        for row in self.rows("SELECT run, name, attempt, version, wanted FROM steps"):
            for name in ("attempt", "version", "wanted"):
                self._never_falls(f"{row['run']}/{row['name']}.{name}", row[name])

    def _judge_held(self) -> None:
        """What was held and still is has no new effects, unless it is being cancelled or skipped."""
        held = {
            f"{row['run']}/{row['name']}": row["effects"]
            for row in self.rows(
                "SELECT s.run, s.name, (SELECT count(*) FROM effects AS e WHERE e.run = s.run AND e.step = s.name) AS effects "
                "FROM steps AS s JOIN runs AS r ON r.id = s.run JOIN pauses AS p ON p.name IN ('', r.field) "
                "WHERE p.mode = 'pause' AND s.stopping IN ('', 'timeout')",
            )
        }
        new = {at: count for at, count in held.items() if count > self._held.get(at, count)}
        assert not new, f"what is paused decides something new: {new}"
        self._held = held

    def _judge_runs(self) -> None:
        """What has ended is never touched again, unless a person says so; what has not has something left to do."""
        orders = Counter(
            row["run"]
            for row in self.rows("SELECT run FROM events WHERE kind IN ('RetryOrdered', 'SkipOrdered', 'DoneOrdered')")
        )
        for table, columns, run in (("runs", "id", "id"), ("steps", "run || '/' || name", "run")):
            for row in self.rows(f"SELECT {columns} AS at, * FROM {table} WHERE ended IS NOT NULL"):
                at = f"{table} {row['at']} after {orders[row[run]]} orders"
                assert self._ended.setdefault(at, row) == row, f"{row['at']} changed after its end"
        late = self.rows("SELECT id FROM runs WHERE state IN ('done', 'failed') AND stopping <> ''")
        assert not late, f"cancelled, and ended otherwise: {late}"
        idle = self.rows(
            "SELECT id FROM runs AS r WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM steps AS s WHERE s.run = r.id "
            "AND s.state IN ('ready', 'working', 'waiting'))",
        )
        assert not idle, f"no step of these runs will ever move: {idle}"

    def _judge_log(self) -> None:
        """The log tells how each step stands, and from what everything followed."""
        for row in self.rows(
            "SELECT s.run || '/' || s.name AS at, s.state, s.attempt, s.reason, s.said, e.kind, e.data FROM steps AS s "
            "LEFT JOIN events AS e ON e.id = (SELECT max(id) FROM events AS o WHERE o.run = s.run AND o.step = s.name "
            "  AND (o.kind LIKE 'Step%' OR o.kind IN ('AttemptFailed', 'HandlerRaised')))"
        ):
            if row["kind"] is None:
                assert (row["state"], row["said"]) == ("pending", 0), (
                    f"the log does not tell that {row['at']} is {row['state']}"
                )
                continue
            told = json.loads(row["data"])
            if "cut" in told:
                continue
            failed = row["kind"] == "AttemptFailed"
            state = told["state"] if row["kind"] == "HandlerRaised" else BECOMES[row["kind"]]
            said = (state, told["attempt"] + failed, told["said"] if failed else told["reason"])
            stands = (row["state"], row["attempt"], row["reason"])
            if row["state"] != "done":
                assert said == stands, f"the log says of {row['at']}: {said}, and it stands so: {stands}"
            assert said[:2] == stands[:2], f"the log says of {row['at']}: {said}, and it stands so: {stands}"
        wrong = self.rows("SELECT id, kind, cause FROM events WHERE cause >= id")
        assert not wrong, f"what follows came before: {wrong}"
        stray = self.rows("SELECT id, kind, step FROM events WHERE step <> '' AND cause = 0")
        assert not stray, f"nobody knows why: {stray}"

    def _never_falls(self, name: str, version: int) -> None:
        assert version >= self._versions.get(name, 0), f"the version of {name} fell"
        self._versions[name] = version
