"""What is broken, where, and which tests should notice it first.

A mutation replaces text that must stand in the source exactly once, so that the list cannot rot unseen
(test_list.py looks on every test run). Each is a mistake that somebody could make, not a typo: it compiles, and the
sunny day passes.
"""

from __future__ import annotations

from typing import NamedTuple

STORE = "aglowd/store/"
EFFECTS = "aglowd/effects/"
GRID = "aglowd/grid/"

DB_TESTS = "tests/store/test_db.py"
STORE_TESTS = "tests/store/test_store.py"
ENGINE_TESTS = "tests/effects/test_engine.py"
DEED_TESTS = "tests/effects/test_deeds.py"
FILE_TESTS = "tests/effects/test_files.py"
TREE_TESTS = "tests/handlers/test_copy_tree.py"
ARRIVAL_TESTS = "tests/watchers/test_trees.py"
REACTOR_TESTS = "tests/test_reactor.py"
STORAGE_TESTS = "tests/grid/test_storage.py"
CATALOGUE_TESTS = "tests/grid/test_catalogue_csv.py"
HTTP_TESTS = "tests/grid/test_http.py"
FEED_TESTS = "tests/watchers/test_tokens.py"
WATCHER_TESTS = "tests/watchers/test_base.py"
OVERTAKEN_TESTS = "tests/model/test_overtaken.py"
LOOK_TESTS = "tests/watchers/test_looks.py"
WINDOW_TESTS = "tests/watchers/test_windows.py"


class Edit(NamedTuple):
    """`old` stands in the file once and becomes `new`."""

    path: str
    old: str
    new: str


class Mutant(NamedTuple):
    """One mistake, and the tests of which one must notice it."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def mutant(name: str, tests: str, path: str, *pairs: str) -> Mutant:
    """Of one file: old, new, old, new, …"""
    edits = tuple(Edit(path, old, new) for old, new in zip(pairs[::2], pairs[1::2], strict=True))
    return Mutant(name, tuple(tests.split()), edits)


ENGINE = EFFECTS + "engine.py"
JOURNAL = STORE + "journal.py"
RUNS = STORE + "runs.py"
FACTS = STORE + "facts.py"
DB = STORE + "db.py"
VERBS = STORE + "store.py"
SQL = STORE + "queries.sql"

MUTANTS: tuple[Mutant, ...] = (
    # --- the engine: intent, deed, outcome
    mutant(
        "an unknown outcome is not looked for",
        ENGINE_TESTS,
        ENGINE,
        "            await self._find(live, deed)\n",
        "            await self._intend_and_do(live, deed)\n",
    ),
    mutant(
        "the intent is written after the deed",
        ENGINE_TESTS,
        ENGINE,
        "        await self._store.intend(live, evidence)\n",
        "",
        "        await self._do(msgspec.structs.replace(live, record=record), deed)\n",
        "        await self._do(msgspec.structs.replace(live, record=record), deed)\n"
        "        await self._store.intend(live, evidence)\n",
    ),
    mutant(
        "an effect is settled before it is done",
        ENGINE_TESTS,
        ENGINE,
        "            result = await deed.do(self._world, self._intent(live))\n",
        "            await self._store.settle(live, EffectState.DONE, None)\n"
        "            result = await deed.do(self._world, self._intent(live))\n",
    ),
    mutant(
        "an unknown outcome counts as not happened",
        ENGINE_TESTS,
        ENGINE,
        "put_off(live, EffectState.UNKNOWN, reason, self._backoff_s(live.record))",
        "put_off(live, EffectState.PLANNED, reason, self._backoff_s(live.record))",
    ),
    mutant(
        "one look that finds nothing is always believed",
        ENGINE_TESTS,
        ENGINE,
        "decides = settle_s <= 0 or",
        "decides = True or",
    ),
    mutant(
        "a refused look ends the effect",
        ENGINE_TESTS,
        ENGINE,
        "        except Conflict as error:\n",
        "        except Permanent as error:\n",
    ),
    mutant(
        "nothing is ever in doubt",
        ENGINE_TESTS,
        ENGINE,
        "state = EffectState.DOUBT if doubt else EffectState.UNKNOWN",
        "state = EffectState.UNKNOWN",
    ),
    mutant(
        "an absence from before the last intent is kept",
        ENGINE_TESTS,
        SQL,
        "intended = :now, absent = NULL, looks = 0",
        "intended = :now, looks = 0",
        "SET absent = NULL, next_at = :now WHERE state = 'unknown';",
        "SET next_at = :now WHERE state = 'unknown';",
    ),
    mutant(
        "a busy site costs a try",
        ENGINE_TESTS,
        ENGINE,
        "tried=after_s is None, absent_at=live.record.absent_at)",
        "tried=True, absent_at=live.record.absent_at)",
    ),
    mutant("notes are not handed back", ENGINE_TESTS, ENGINE, ", dict(record.notes), note", ", {}, note"),
    mutant(
        "a stopped attempt begins its effects all the same", ENGINE_TESTS, ENGINE, "if live.withdrawn:", "if False:"
    ),
    # --- the journal
    mutant(
        "what was in flight stays open after a crash",
        ENGINE_TESTS,
        VERBS,
        '            db.execute(queries()["recover_effects"], {"now": self.clock.now()})\n',
        "",
    ),
    mutant(
        "the inputs of an effect may change",
        ENGINE_TESTS,
        JOURNAL,
        'if found["digest"] != _digest(inputs):',
        "if False:",
    ),
    mutant(
        "the outcome of an effect wakes nobody",
        STORE_TESTS,
        JOURNAL,
        '    db.execute(queries()["mark_step"], {"run": live.run, "step": live.step, "now": now})\n    changes.dirty = True\n\n\n'
        "def put_off(",
        "\n\ndef put_off(",
    ),
    mutant(
        "an attempt ends while its effects live",
        ENGINE_TESTS,
        RUNS,
        "    if live:\n        raise AglowError",
        "    if False:\n        raise AglowError",
    ),
    mutant(
        "a step is asked while its effects live",
        ENGINE_TESTS,
        SQL,
        "e.attempt = s.attempt\n                  AND e.state IN",
        "e.attempt = s.attempt\n                  AND 0 AND e.state IN",
    ),
    mutant(
        "what an operator gave up is done all the same",
        OVERTAKEN_TESTS,
        JOURNAL,
        '_one(db.execute(queries()["intend_effect"], values), live)',
        'db.execute(queries()["intend_effect"], values)',
    ),
    mutant(
        "an absence is believed over a restart",
        OVERTAKEN_TESTS,
        SQL,
        "SET absent = NULL, next_at = :now WHERE state = 'unknown';",
        "SET next_at = :now WHERE state = 'unknown';",
    ),
    # --- the store: one writer, whole commits
    mutant(
        "two daemons on one state directory",
        DB_TESTS,
        DB,
        "        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
    ),
    mutant("a failing transaction leaves its half behind", DB_TESTS, DB, 'db.execute("ROLLBACK TO one")', "pass"),
    mutant("synchronous is off", DB_TESTS, DB, "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"),
    mutant("no write-ahead log", DB_TESTS, DB, "PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE"),
    mutant(
        "a cancelled caller takes its write with it",
        DB_TESTS,
        DB,
        "return await asyncio.shield(future)",
        "return await future",
        "                    batch.append(entry)\n",
        "                    batch += [] if entry[1].cancelled() else [entry]\n",
    ),
    mutant(
        "a write is answered before its commit",
        DB_TESTS,
        DB,
        '        db.execute("COMMIT")\n    except Exception as error:\n',
        "    except Exception as error:\n",
        "            self.commits += 1\n",
        "            with suppress(sqlite3.Error):\n"
        '                await self._writer.run(lambda db: db.execute("COMMIT"))\n'
        "            self.commits += 1\n",
    ),
    mutant(
        "the bells ring before the commit",
        STORE_TESTS,
        VERBS,
        "await self.db.write(lambda db: transaction(db, self.clock.now(), changes))",
        "await self.db.write(lambda db: (transaction(db, self.clock.now(), changes), self.bells.ring(changes))[0])",
    ),
    mutant(
        "the cursor is committed apart from its facts",
        STORE_TESTS,
        VERBS,
        "        return await self._change(lambda db, now, changes: facts.ingest(db, source, cursor, listed, now, changes))\n",
        "        await self._change(lambda db, now, changes: facts.ingest(db, source, cursor, (), now, changes))\n"
        "        return await self._change(lambda db, now, changes: facts.ingest(db, source, None, listed, now, changes))\n",
    ),
    # --- facts and wake-ups
    mutant(
        "what is known already is recorded again",
        STORE_TESTS,
        FACTS,
        'row is None or (row["version"] > 0 and row["data"] == text)',
        "row is None",
    ),
    mutant(
        "a first observation of nothing is kept back",
        STORE_TESTS,
        FACTS,
        'row is None or (row["version"] > 0 and row["data"] == text)',
        'row is None or row["data"] == text or (row["version"] == 0 and text == "null")',
    ),
    mutant(
        "an observation wakes nobody",
        STORE_TESTS,
        FACTS,
        '        db.execute(queries()["mark_waiting"], {"subject": key, "now": now})\n',
        "",
    ),
    mutant(
        "an observation between look and wait is slept over",
        STORE_TESTS,
        RUNS,
        "        if version > seen:\n",
        "        if False:\n",
    ),
    mutant(
        "a decision clears marks that it did not see",
        STORE_TESTS,
        SQL,
        "SET dirty = NULL WHERE run = :run AND name = :step AND wanted = :wanted;",
        "SET dirty = NULL WHERE run = :run AND name = :step;",
    ),
    mutant(
        "a decision clears no mark",
        REACTOR_TESTS,
        SQL,
        "SET dirty = NULL WHERE run = :run AND name = :step AND wanted = :wanted;",
        "SET dirty = NULL WHERE run = :run AND name = :step AND wanted < 0;",
    ),
    mutant(
        "nobody is asked when its time has come",
        STORE_TESTS,
        SQL,
        "WHERE due <= :now AND state IN ('ready', 'waiting', 'working');",
        "WHERE 0;",
    ),
    mutant(
        "an attempt may take for ever",
        REACTOR_TESTS,
        SQL,
        "WHERE deadline <= :now AND state IN ('working', 'waiting') RETURNING",
        "WHERE 0 RETURNING",
    ),
    mutant(
        "a decision from an old look is committed",
        STORE_TESTS,
        RUNS,
        'if row is None or row["version"] != step.version or row["stopping"] != step.stopping:',
        "if row is None:",
    ),
    mutant("a full pool lets everybody in", REACTOR_TESTS, RUNS, "if used < decision.pool_limit:", "if True:"),
    mutant(
        "shared work is started again by everybody",
        REACTOR_TESTS,
        RUNS,
        'if latest is None or latest["state"] in (RunState.FAILED, RunState.CANCELLED):',
        'if latest is None or latest["state"] != RunState.RUNNING:',
    ),
    mutant("a poisoned step is asked for ever", REACTOR_TESTS, RUNS, "if faults >= MAX_FAULTS", "if faults < 0"),
    # --- watchers
    mutant(
        "a new subject waits for the next round",
        WATCHER_TESTS,
        "aglowd/watchers/base.py",
        "or (version == 0 and not self.whole)\n",
        "\n",
    ),
    mutant(
        "a hint whose look failed is forgotten",
        WATCHER_TESTS,
        "aglowd/watchers/base.py",
        "hints |= set() if seen else early",
        "pass",
    ),
    mutant(
        "every hint is a look of its own",
        WATCHER_TESTS,
        "aglowd/watchers/base.py",
        "early_at = now + HINTS_APART_S * late",
        "early_at = now",
    ),
    mutant(
        "what happened while there was no channel is never looked for",
        "tests/watchers/test_events.py",
        "aglowd/watchers/events.py",
        "                        self._take(Hint(None))  # Nobody",
        "                        pass  # Nobody",
        "                self._take(Hint(directory))  # It may",
        "                pass  # It may",
    ),
    mutant(
        "who is overtaken takes the channel back",
        "tests/watchers/test_events.py",
        "aglowd/watchers/events.py",
        "self._takeovers += isinstance(error, Overtaken)",
        "pass",
    ),
    mutant(
        "the feed goes on from a wrong place",
        FEED_TESTS,
        "aglowd/watchers/tokens.py",
        "            since = cursor.last_seq\n",
        "            since = info.update_seq\n",
    ),
    mutant(
        "a feed that begins again counts nothing",
        FEED_TESTS,
        "aglowd/watchers/tokens.py",
        '            since = cursor.last_seq\n        self._tell("")\n',
        "            since = cursor.last_seq\n",
        '                await self._set_cursor("", "")\n                self._tell("")\n',
        '                await self._set_cursor("", "")\n',
    ),
    mutant(
        "a request that the stager has forgotten counts as success",
        LOOK_TESTS,
        "aglowd/watchers/staging.py",
        'status or "gone"',
        'status or "success"',
    ),
    mutant(
        "a request that the stager has forgotten is waited for",
        "tests/handlers/test_stage.py",
        "aglowd/handlers/stage.py",
        'OVER = FINAL | {"gone"}',
        "OVER = FINAL",
    ),
    mutant(
        "the stager's word is taken for the file",
        "tests/handlers/test_stage.py",
        "aglowd/handlers/stage.py",
        '        missing: list[str] = looked.data["missing"]\n',
        '        missing: list[str] = [] if asked else looked.data["missing"]\n',
    ),
    mutant(
        "a directory that may not be seen is an empty one",
        LOOK_TESTS,
        "aglowd/watchers/directories.py",
        "            if not error.absent:\n",
        "            if False:\n",
    ),
    # --- the deeds
    mutant(
        "any new request is taken for ours",
        DEED_TESTS,
        EFFECTS + "staging.py",
        "if staged & wanted and staged <= among:",
        "if staged:",
    ),
    mutant(
        "an old request is taken for ours",
        DEED_TESTS,
        EFFECTS + "staging.py",
        "known = others.union(intent.evidence or ())",
        "known = others",
    ),
    mutant(
        "a silent new request is not waited for",
        DEED_TESTS,
        EFFECTS + "staging.py",
        "        if untold:\n",
        "        if False:\n",
    ),
    mutant(
        "a lost request is never larger than what is missing by now",
        "tests/effects/test_restored.py",
        EFFECTS + "staging.py",
        "wanted.union(self.besides) if intent.is_restored else wanted",
        "wanted",
    ),
    mutant(
        "a write of which a part was refused did not happen",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        "raise Temporary(text) if len(refused) == len(documents) else Unknown(text)",
        "raise Temporary(text)",
    ),
    mutant(
        "the audit takes a larger request for a twin",
        "tests/test_audit.py",
        "aglowd/audit.py",
        " and size <= len(surls)",
        "",
    ),
    mutant(
        "a second try is told from what came after the look",
        "tests/test_audit.py",
        ENGINE,
        "await self._intend_and_do(live, deed, evidence)\n        else:",
        "await self._look_and_do(live, deed)\n        else:",
    ),
    mutant(
        "a job is started before its id is noted",
        DEED_TESTS,
        EFFECTS + "jobs.py",
        '            await intent.note({"job": job, "transferred": registered.transferred})\n',
        "",
    ),
    mutant(
        "pilots are submitted whatever the proxy says",
        "tests/handlers/test_submit.py",
        "aglowd/handlers/submit.py",
        "    if left_s >= needed_s:\n",
        "    if True:\n",
    ),
    mutant(
        "somebody else's token is ours",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        '            if _owner(str(_mark(document).get("key", ""))) != _owner(intent.key):\n',
        "            if False:\n",
    ),
    mutant(
        "tokens are put over those that exist",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        "            if name not in present\n",
        "            if name\n",
    ),
    mutant(
        "a token that was refused counts as created",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        "    refused = [row for row in rows if not row.ok]\n    if",
        "    refused = [row for row in rows if row is None]\n    if",
    ),
    mutant(
        "tokens are deleted though their archive has changed",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        "        if found_sum != self.adler32:\n",
        "        if False:\n",
    ),
    mutant(
        "tokens are deleted though they have changed",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        'if document["_rev"] != self.revisions[name])',
        "if False)",
    ),
    mutant(
        "a copy gets its name unread",
        DEED_TESTS,
        EFFECTS + "files.py",
        "    if found != content:\n        await world.storage.remove(part)\n",
        "    if False:\n        await world.storage.remove(part)\n",
    ),
    mutant(
        "a copy overwrites what differs",
        FILE_TESTS,
        EFFECTS + "files.py",
        '        raise Conflict(f"{url} exists and differs',
        '        await world.storage.remove(url)\n        return None\n        raise Conflict(f"{url} exists and differs',
    ),
    mutant(
        "of two files of one checksum the size is no matter",
        FILE_TESTS,
        EFFECTS + "files.py",
        "    if found != content:\n        await world.storage.remove(part)\n",
        "    if found.adler32 != content.adler32:\n        await world.storage.remove(part)\n",
    ),
    mutant(
        "a directory counts as a file",
        FILE_TESTS,
        EFFECTS + "files.py",
        '    if entry.is_dir:\n        raise Conflict(f"{url} is a directory, where',
        '    if False:\n        raise Conflict(f"{url} is a directory, where',
    ),
    mutant(
        "the last copy is removed",
        FILE_TESTS,
        EFFECTS + "files.py",
        "            await self._check_copy(world, aside)\n",
        "",
    ),
    mutant(
        "a copy of the right size is not read",
        FILE_TESTS,
        EFFECTS + "files.py",
        "        if copy != content:\n            raise Permanent",
        "        if copy is None:\n            raise Permanent",
    ),
    mutant(
        "another name of the same file counts as a copy",
        FILE_TESTS,
        EFFECTS + "files.py",
        "            await world.storage.rename(self.url, aside)\n",
        "            await self._check_copy(world, self.url)\n            await world.storage.rename(self.url, aside)\n",
        "            await self._check_copy(world, aside)\n            await world",
        "            await world",
    ),
    mutant(
        "a file that is not removed after all loses its name",
        FILE_TESTS,
        EFFECTS + "files.py",
        "        await world.storage.rename(aside, url)\n    except",
        "        pass\n    except",
    ),
    mutant(
        "a removal that was killed half way counts as done",
        FILE_TESTS,
        EFFECTS + "files.py",
        "        for url in (self.url, aside_of(self.url, intent.key)):\n",
        "        for url in (self.url,):\n",
    ),
    mutant(
        "a copy need not be named",
        FILE_TESTS,
        EFFECTS + "files.py",
        "            if self.unsafe_without_copy:\n",
        "            if self.unsafe_without_copy or not self.copy:\n",
    ),
    mutant(
        "everything may be removed",
        FILE_TESTS,
        EFFECTS + "base.py",
        '        if not any(url.startswith(root.rstrip("/") + "/") for root in self.deletable):\n',
        "        if False:\n",
    ),
    mutant(
        "a root may be left by dots",
        FILE_TESTS,
        EFFECTS + "base.py",
        'if "?" in url or any(part in ("", ".", "..") for part in path.split("/")[1:]):',
        "if False:",
    ),
    mutant(
        "what is protected can be removed through another door",
        FILE_TESTS,
        EFFECTS + "base.py",
        "            if is_one_place and",
        "            if False and",
    ),
    mutant(
        "the journal names all files at once",
        TREE_TESTS,
        "aglowd/handlers/files.py",
        "list(left.values())[:MAX_WAVE_FILES]",
        "list(left.values())",
    ),
    mutant(
        "a file is removed against the copy of its namesake",
        TREE_TESTS,
        "aglowd/handlers/files.py",
        """    inner = url.removeprefix(root.rstrip("/") + "/") if root and is_below(url, root) else name_of(url)\n""",
        "    inner = name_of(url)\n",
    ),
    mutant(
        "a tree that is too large is cut",
        ARRIVAL_TESTS,
        "aglowd/watchers/trees.py",
        '                    return _tree((), problem=f"{root} holds more than {MAX_TREE_FILES} files")\n',
        "                    return _tree(files[:MAX_TREE_FILES])\n",
    ),
    mutant(
        "one look at a file tells that it is whole",
        ARRIVAL_TESTS,
        "aglowd/watchers/arrivals.py",
        '"quiet": began - sizes[file["url"]][1] >= quiet_s',
        '"quiet": self.clock.now() - sizes[file["url"]][1] >= quiet_s',
    ),
    mutant(
        "a file that is still written counts as come",
        "tests/handlers/test_wait_files.py",
        "aglowd/handlers/wait_files.py",
        'for file in here if file["quiet"] and file["size_bytes"]]',
        'for file in here if file["size_bytes"]]',
    ),
    mutant(
        "nothing is protected",
        DEED_TESTS,
        EFFECTS + "base.py",
        "if place == root_place and parts[: len(root_parts)] == root_parts:",
        "if False:",
    ),
    mutant(
        "what is protected is compared as it is spelled",
        FILE_TESTS,
        EFFECTS + "base.py",
        "        place = site_of(place)\n",
        "        pass\n",
        'plain_path(place, "/" + unquote(_MANAGER.sub("", path), errors="surrogateescape"))',
        "path",
    ),
    # --- the grid
    mutant(
        "a local file takes the place of another",
        STORAGE_TESTS,
        GRID + "files.py",
        "        os.link(source, path, follow_symlinks=False)\n",
        "        os.replace(source, path)\n        return\n",
        "    if os.path.lexists(path):\n        raise _exists(path)\n    part = ",
        "    part = ",
    ),
    mutant(
        "a part file is not on the disk when it gets its name",
        STORAGE_TESTS,
        GRID + "files.py",
        "            os.fsync(fd)\n            _give_name(part, path)\n",
        "            _give_name(part, path)\n",
    ),
    mutant(
        "a rename at a far storage does not look first",
        STORAGE_TESTS,
        GRID + "storage.py",
        "        if await self.stat(url) is not None:\n",
        "        if False:\n",
    ),
    mutant(
        "a status is written over somebody's word",
        CATALOGUE_TESTS,
        GRID + "catalogue_csv.py",
        "            if row.status != expect:\n",
        "            if False:\n",
    ),
    mutant(
        "the catalogue is written without its lock",
        CATALOGUE_TESTS,
        GRID + "catalogue_csv.py",
        "                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
    ),
    mutant(
        "a change of the catalogue in between is lost",
        CATALOGUE_TESTS,
        GRID + "catalogue_csv.py",
        "        if seen is not None and _is_other(seen, os.stat(path)):\n",
        "        if False:\n",
    ),
    mutant(
        "a 401 freezes nothing",
        HTTP_TESTS,
        GRID + "http.py",
        '            credential.freeze(f"refused by {site.name} ({what}: HTTP 401)")\n',
        "",
    ),
    mutant(
        "a site that wants quiet is asked on",
        HTTP_TESTS,
        GRID + "http.py",
        "                site.back_off(wait_s, text)\n",
        "                pass\n",
    ),
    mutant(
        "a write whose answer was lost did not happen",
        HTTP_TESTS,
        GRID + "http.py",
        "return Unknown(what) if write else Temporary(what)",
        "return Temporary(what)",
    ),
    mutant(
        "a 500 after a write did not happen",
        HTTP_TESTS,
        GRID + "http.py",
        "        return Unknown(text) if write else Temporary(text)\n\n    def _retry_after_s",
        "        return Temporary(text)\n\n    def _retry_after_s",
    ),
    mutant(
        "only the first process of a group is killed",
        "tests/grid/test_proc.py",
        GRID + "proc.py",
        "os.killpg(transport.get_pid(), signal.SIGKILL)",
        "os.kill(transport.get_pid(), signal.SIGKILL)",
    ),
    mutant(
        "a start that is cancelled leaves a grandchild behind",
        "tests/grid/test_proc.py::test_a_cancellation_while_it_starts_kills_the_whole_group",
        GRID + "proc.py",
        "return (await asyncio.shield(starting))[0]",
        "return (await starting)[0]",
    ),
    mutant(
        "a killed write did not happen",
        "tests/grid/test_proc.py",
        GRID + "proc.py",
        "return Unknown(text) if write else Temporary(text)",
        "return Temporary(text)",
    ),
    # --- time and secrets
    mutant(
        "timers follow the wall clock",
        "tests/test_clock.py",
        "aglowd/clock.py",
        "self._monotonic = monotonic",
        "self._monotonic = wall",
        "self._anchor_monotonic = monotonic()",
        "self._anchor_monotonic = wall()",
    ),
    mutant(
        "a password is shown",
        "tests/test_log.py",
        "aglowd/log.py",
        "        text = text.replace(secret, HIDDEN)\n",
        "        pass\n",
    ),
    mutant(
        "a look waits for copies at the same place",
        STORAGE_TESTS,
        GRID + "files.py",
        "(place, timeout_s is not None)",
        "(place, False)",
    ),
    mutant(
        "one SURL is asked for letter by letter",
        "tests/sim/test_stager_contract.py",
        GRID + "stager.py",
        "    if isinstance(surls, str):\n",
        "    if isinstance(surls, bytes):\n",
    ),
    mutant(
        "windows of bulk requests are as large as others",
        WINDOW_TESTS,
        "aglowd/watchers/windows.py",
        "limits.site_request_files.get(site, limits.request_files)",
        "limits.request_files",
    ),
    mutant(
        "the room that is being taken is taken for files of the usual size",
        WINDOW_TESTS,
        "aglowd/watchers/windows.py",
        "turn.granted * (turn.file_bytes or limits.file_bytes)",
        "turn.granted * limits.file_bytes",
    ),
    mutant(
        "a file that the tools may not see is not there",
        "tests/grid/test_gfal_archive.py",
        GRID + "gfal.py",
        "                if not error.absent:\n                    raise\n                told",
        "                told",
        "write=False, ok=_FORBIDDEN)",
        "write=True)",
    ),
    mutant(
        "WebDAV answers may bring entities along",
        "tests/fuzz/test_webdav_text.py",
        GRID + "webdav_text.py",
        "fromstring(body, forbid_dtd=True)",
        "fromstring(body, forbid_entities=False, forbid_external=False)",
    ),
    mutant(
        "properties that a WebDAV server lacks count as empty ones",
        "tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        'if (propstat.findtext(f"{_DAV}status") or "HTTP/1.1 200").split()[1:2] == ["200"]:',
        "if True:",
    ),
    mutant(
        "two spellings of a WebDAV name are two names",
        "tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        '    path = unquote_to_bytes(urlsplit(url).path.encode("utf-8", "surrogateescape"))\n',
        '    path = urlsplit(url).path.encode("utf-8", "surrogateescape")\n',
    ),
    mutant(
        "a size may have any number of digits",
        "tests/fuzz/test_webdav_text.py tests/grid/test_webdav.py",
        GRID + "webdav_text.py",
        're.compile(r"[0-9]{1,19}")',
        're.compile(r"[0-9]+")',
    ),
    mutant(
        "a directory goes with what a WebDAV server tells nothing of",
        "tests/grid/test_webdav.py",
        GRID + "webdav.py",
        "depth=1, unreadable=True)",
        "depth=1)",
    ),
    mutant(
        "a directory goes with its dot files",
        "tests/grid/test_storage_contract.py",
        GRID + "gfal.py",
        '["gfal-ls", "-a", url]',
        '["gfal-ls", url]',
    ),
)
