"""Mistakes in what is kept of the past: runs that are packed, events that go, room that is given back."""

from __future__ import annotations

from .kinds import JOURNAL, SQL, STORE, Mutant, mutant

ARCHIVE, UNPACKED, VACUUM = f"{STORE}archive.py", f"{STORE}unpacked.py", f"{STORE}vacuum.py"
ARCHIVE_TESTS = "tests/store/test_archive.py"
VACUUM_TESTS = "tests/store/test_vacuum.py"
UPKEEP_TESTS = "tests/test_upkeep.py"
ROUND_TESTS, LEFT_TESTS = "tests/store/test_packing_rounds.py", "tests/watchers/test_left_jobs.py"

PACKED: tuple[Mutant, ...] = (
    # --- which runs
    mutant("a run that holds something is packed", ARCHIVE_TESTS, ARCHIVE, "any(why_needed(db, run, terms.pinned_s, now) for run in runs)", "False"),
    mutant("the latest run that failed is packed", ARCHIVE_TESTS, SQL, "AND (r.state = 'done' OR EXISTS (SELECT 1 FROM runs AS o WHERE o.key = r.key AND o.created > r.created))", ""),
    mutant("a part is packed without its run", ARCHIVE_TESTS, SQL, "  AND (r.key = r.field OR NOT EXISTS (\n    SELECT 1", "  AND (1 OR NOT EXISTS (\n    SELECT 1"),
    mutant("a run is packed without its parts", ARCHIVE_TESTS, ARCHIVE, '"own_parts"], {"run": row["id"]}', '"get_run"], {"run": row["id"]}'),
    mutant("all runs go in one transaction", ARCHIVE_TESTS, ARCHIVE, "        if gone == RUNS_AT_ONCE:\n            return Turn(packed, place)\n", ""),
    mutant("a transaction looks at all runs", ROUND_TESTS, SQL, "ORDER BY r.ended, r.id LIMIT :most;", "ORDER BY r.ended, r.id;"),
    mutant("a round looks anew at who must stay", ROUND_TESTS, SQL, "  AND (r.ended, r.id) > (:ended, :run) AND r.key", "  AND (r.ended, r.id) > (-1, '') AND r.key"),
    mutant("a round ends before its time", ROUND_TESTS, ARCHIVE, "place if len(rows) == LOOKS_AT_ONCE else None", "None"),
    mutant("the upkeep's round is one transaction", UPKEEP_TESTS, "aglowd/upkeep.py", "packed + turn.packed, turn.next", "packed + turn.packed, None"),
    mutant("whether jobs that were left have ended is not asked", LEFT_TESTS, "aglowd/watchers/base.py", "                chosen += await self.left()\n", "                pass\n"),
    mutant("jobs that have ended are asked for", LEFT_TESTS, SQL, "  AND NOT coalesce(json_extract(data, '$.final'), 0) ORDER BY key;", "  ORDER BY key;"),
    mutant("jobs that were never looked at are left", ROUND_TESTS, SQL, "  AND NOT coalesce(json_extract(data, '$.final'), 0) ORDER BY key;", "  AND NOT json_extract(data, '$.final') ORDER BY key;"),
    mutant("jobs that steps wait for are asked for twice", ROUND_TESTS, SQL, "WHERE kind = 'job' AND NOT EXISTS (SELECT 1 FROM waits WHERE subject = s.key AND active = 1)\n", "WHERE kind = 'job'\n"),
    mutant("a job that nobody can tell of keeps its run for ever", "tests/store/test_forgetting.py", f"{STORE}forgetting.py", 'if state == "unknown":', "if False:"),
    mutant("a job that is not named once counts as ended", "tests/store/test_forgetting.py", f"{STORE}forgetting.py", '; {ended}" if left_s > 0 else ""', '; {ended}" if False else ""'),
    mutant("what was last seen of a job that was left is forgotten", LEFT_TESTS, "aglowd/watchers/jobs.py", "[*await self.store.observed(self.kind), *await self.store.unended_jobs()]", "await self.store.observed(self.kind)"),
    # --- what stays
    mutant("what is ours outside is packed, too", ARCHIVE_TESTS, ARCHIVE, "OURS = (STAGES, RELEASES, SUBMITS, ", "OURS = (STAGES, RELEASES, "),
    mutant("an effect that is slim has its old digest", ARCHIVE_TESTS, ARCHIVE, "journal.digest_of(inputs)}", 'effect["digest"]}'),
    mutant("what people said is packed", ARCHIVE_TESTS, SQL, " AND json_extract(data, '$.uid') IS NULL\n", "\n"),
    mutant("what another one waits for is dropped", ARCHIVE_TESTS, SQL, "DELETE FROM subjects WHERE key IN (SELECT value FROM json_each(:keys))\n  AND NOT EXISTS (SELECT 1 FROM waits AS w WHERE w.subject = subjects.key);", "DELETE FROM subjects WHERE key IN (SELECT value FROM json_each(:keys));"),
    mutant("the end of shared work is dropped", ARCHIVE_TESTS, SQL, "AND +e.kind = 'SubjectChanged') AND s.kind <> 'run'", "AND +e.kind = 'SubjectChanged')"),
    mutant("what is made good late is never done", ARCHIVE_TESTS, SQL, "LEFT JOIN steps AS s ON s.run = e.run AND s.name = e.step\nWHERE", "JOIN steps AS s ON s.run = e.run AND s.name = e.step\nWHERE"),
    mutant("a packed run is steered", ARCHIVE_TESTS, f"{STORE}steer.py", 'if run["archived"] is not None:', "if False:"),
    mutant("a forgotten run stays packed", ARCHIVE_TESTS, f"{STORE}forgetting.py", '"slim_effects", "drop_from_archive"', '"slim_effects"'),
    # --- reading again
    mutant("what a field shares is not unpacked", ARCHIVE_TESTS, UNPACKED, "                queue.append(row[\"field\"])\n", ""),
    mutant("what is unpacked stays", ARCHIVE_TESTS, UNPACKED, '        db.execute("ROLLBACK TO unpacked")\n', ""),
    mutant("a slim effect is told beside the whole one", ARCHIVE_TESTS, UNPACKED, "SELECT * FROM main.effects WHERE key NOT IN (SELECT key FROM packed_effects) UNION ALL", "SELECT * FROM main.effects UNION ALL"),
    mutant("the packed are not counted", ARCHIVE_TESTS, f"{STORE}differences.py", "count + packed[kind]:", "count:"),
    # --- events, and room
    mutant("old events stay while there is room", "tests/test_limits.py", JOURNAL, "0 if old is None else int(old[\"id\"])", "0"),
    mutant("all free pages go", VACUUM_TESTS, VACUUM, 'max(SPARE_PAGES, found["pages"] // 10)', "0"),
    mutant("pages go all at once", VACUUM_TESTS, VACUUM, "min(spare, PAGES_AT_ONCE)", "spare"),
    mutant("a database in use is rewritten", VACUUM_TESTS, VACUUM, "    lock = take_lock(path)\n", "    lock = os.open(path, os.O_RDONLY)\n"),
    mutant("a round that fails ends the upkeep", UPKEEP_TESTS, "aglowd/upkeep.py", "            except Exception as error:", "            except ValueError as error:"),
)  # fmt: skip
