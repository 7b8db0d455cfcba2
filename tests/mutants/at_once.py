"""Mistakes in what is decided at once, in when pages are asked, and in what of that is read and written."""

from __future__ import annotations

from .kinds import (
    ENGINE,
    ENGINE_TESTS,
    JOURNAL,
    LOOK_TESTS,
    RUNS,
    SQL,
    STORE,
    STORE_TESTS,
    WATCHER_TESTS,
    Mutant,
    mutant,
)

AT_ONCE, FACTS, PAGES, REACTOR, VERBS = (
    f"{STORE}at_once.py",
    f"{STORE}facts.py",
    "aglowd/watchers/pages.py",
    "aglowd/reactor.py",
    f"{STORE}store.py",
)
AT_ONCE_TESTS = "tests/reactor/test_at_once.py"
DEED_TESTS = "tests/effects/test_deeds.py"

AT_ONCE_AND_PAGES: tuple[Mutant, ...] = (
    # --- what follows is in the commit
    mutant("who waits for what was seen is left to a turn", AT_ONCE_TESTS, FACTS, "    changes.marked.append((run, step))\n", "    changes.dirty = True\n"),
    mutant("what becomes ready is left to a turn", AT_ONCE_TESTS, RUNS, "            changes.marked.append((run, name))\n", "            changes.dirty = True\n"),
    mutant("the step of an effect that has ended is left to a turn", AT_ONCE_TESTS, JOURNAL, "    changes.marked.append((live.run, live.step))\n", "    changes.dirty = True\n"),
    mutant("without a reactor nobody is told of what is marked", STORE_TESTS, VERBS, "            changes.dirty |= bool(changes.marked)\n", ""),
    mutant("what is left is told to nobody", AT_ONCE_TESTS, AT_ONCE, "            changes.dirty = True\n", "            pass\n"),
    mutant("all is decided in one transaction", AT_ONCE_TESTS, AT_ONCE, " if asked <= AT_ONCE_MOST else None", ""),
    mutant("half of a decision that cannot be carried through stays", AT_ONCE_TESTS, VERBS, "                    start_over(db)\n", ""),
    mutant("a place in a pool is taken out of turn", AT_ONCE_TESTS, REACTOR, "        if step.pool and work.step.state is StepState.READY:\n            return None\n", ""),
    mutant("nothing is logged of what was decided at once", AT_ONCE_TESTS, VERBS, "                    decider.tell(decision)\n", "                    pass\n"),
    mutant("a turn commits what it decided before another step moved", AT_ONCE_TESTS, RUNS, "    if moment != decision.work.moment:\n", "    if False:\n"),
    mutant("after a reload the old configuration goes on to be decided by", AT_ONCE_TESTS, REACTOR, "step is None or self._views[-1][1] != self._shown:", "step is None:"),
    mutant("a client that hangs up takes the bells with it", AT_ONCE_TESTS, VERBS, "        return await self.db.write(begin, tell)\n", "        result = await self.db.write(begin)\n        tell()\n        return result\n"),
    # --- what is taken up
    mutant("each end of an effect is a look into the journal", ENGINE_TESTS, ENGINE, "            if self._has_more or live.record.key not in self._settled:\n                self", "            if True:\n                self"),
    mutant("what is due again before its place is free waits for the net", ENGINE_TESTS, ENGINE, "if self._has_more or live.record.key not in self._settled:", "if self._has_more:"),
    mutant("what waited for a place is forgotten", ENGINE_TESTS, ENGINE, "                    self._has_more = len(found) == room\n", ""),
    mutant("a place that became free during a look stays free", ENGINE_TESTS, ENGINE, "                    if self._has_more and len(self.busy) < self.most:", "                    if False:"),
    # --- timers
    mutant("each timer wakes who keeps time", AT_ONCE_TESTS, VERBS, "if changes.timer_at < self.timer_at:", "if changes.timer_at < math.inf:"),
    mutant("an earlier timer wakes nobody", AT_ONCE_TESTS, VERBS, "        self.bells.timer_at = math.inf if at is None else at\n", "        self.bells.timer_at = 0.0\n"),
    # --- what is looked at
    mutant("a look that saw nothing is written down", WATCHER_TESTS, "aglowd/watchers/base.py", "bool(observations) and await self", "await self"),
    mutant("a new subject is found at the next round", WATCHER_TESTS, SQL, "WHERE kind = :kind AND version = 0 AND EXISTS", "WHERE kind = :kind AND version < 0 AND EXISTS"),
    mutant("a hint is forgotten", WATCHER_TESTS, SQL, "WHERE +kind = :kind AND key IN (SELECT value FROM json_each(:keys)) AND EXISTS", "WHERE +kind = :kind AND key IN ('') AND EXISTS"),
    mutant("pages that began together are asked together for ever", LOOK_TESTS, PAGES, "now + interval_s * self.clock.jitter(0.5) / 1.5", "now + interval_s"),
    mutant("a page drifts with what is late", LOOK_TESTS, PAGES, "max(turn.at, now - LATE * interval_s) + interval_s", "now + interval_s"),
    mutant("an answer that is known is written down", LOOK_TESTS, PAGES, " if self._told.get(page.key) != digests[page.key]]", "]"),
    mutant("who waits for a page no more is never found out", LOOK_TESTS, PAGES, "                self._doubtful.update(page.key for page, _ in news)\n", ""),
    mutant("a new page is found by the next list", LOOK_TESTS, PAGES, "        if is_told or doubtful:\n", "        if doubtful:\n"),
    mutant("a turn that was given anew is taken as it was", LOOK_TESTS, PAGES, "    while heap and time_of(heap[0][1]) != heap[0][0]:\n        heappop(heap)\n", ""),
    mutant("a page that hangs is asked again", LOOK_TESTS, PAGES, "                    if page.key not in self._asked:\n", "                    if True:\n"),
    mutant("what cannot be asked is never asked again", LOOK_TESTS, PAGES, "            self._asked.discard(page.key)\n            self.miss([page], error)\n", "            self.miss([page], error)\n"),
    mutant("what went wrong with a page once is never over", LOOK_TESTS, PAGES, 'self.failures, self.last_error, self.last_ok = 0, "", self.clock.now()', "self.last_ok = self.clock.now()"),
    mutant("pages that are seldom due make the watcher blind", LOOK_TESTS, PAGES, "        self.last_ok = now\n", ""),
    mutant("another answer is taken for the one before", LOOK_TESTS, PAGES, 'hashlib.blake2b(b"%d %b" % self, digest_size=16)', 'hashlib.blake2b(b"%d" % self.status, digest_size=16)'),
    mutant("a call that may not be repeated shares its connection", DEED_TESTS, "aglowd/effects/general.py", "is_kept=self.repeatable,", "is_kept=True,"),
)  # fmt: skip
