"""Mistakes in what keeps pilots alive and gives tokens back."""

from __future__ import annotations

from .kinds import DEED_TESTS, EFFECTS, LOOK_TESTS, Mutant, mutant

WAIT = "aglowd/handlers/wait_tokens.py"
WAIT_TESTS = "tests/handlers/test_wait_tokens.py"
CREW = "aglowd/handlers/pilots.py"
CREW_TESTS = "tests/handlers/test_submit.py tests/handlers/test_wait_tokens.py"
TURNS = "aglowd/watchers/pilots.py"
TURN_TESTS = "tests/watchers/test_pilots.py"
TROUBLED = "aglowd/watchers/troubled.py"
TROUBLED_TESTS = "tests/watchers/test_troubled.py"

PILOTS: tuple[Mutant, ...] = (
    mutant(
        "a token that a living job holds is given back",
        WAIT_TESTS,
        WAIT,
        'return f"lease: its job {token[\'job\']} is over ({state})" if state in FINAL else ""',
        "return f\"lease: its job {token['job']} is over ({state})\"",
    ),
    mutant(
        "a token of a job that nobody knows is given back at once",
        WAIT_TESTS,
        WAIT,
        'if crew.unseen or seen.now - token["since"] < wall_time_s:',
        "if crew.unseen:",
    ),
    mutant(
        "a job that was not looked at yet is nobody's",
        WAIT_TESTS,
        WAIT,
        'if crew.unseen or seen.now - token["since"] < wall_time_s:',
        'if seen.now - token["since"] < wall_time_s:',
    ),
    mutant(
        "a failed token is given back again and again on what was seen once",
        WAIT_TESTS,
        WAIT,
        'if (name, token["rev"]) in handled:',
        "if False:",
    ),
    mutant(
        "failed tokens are given back for ever",
        WAIT_TESTS,
        WAIT,
        'elif token["retries"] < params.scrubs:',
        "elif True:",
    ),
    mutant(
        "it is the end although a failed token is not known by name",
        WAIT_TESTS,
        WAIT,
        "is_over = work.is_told and not work.open",
        "is_over = not work.open",
    ),
    mutant(
        "pilots that die at once are replaced at once",
        WAIT_TESTS,
        WAIT,
        "            if rest_s > 0:\n",
        "            if False:\n",
    ),
    mutant(
        "pilots that die at once are replaced by as many",
        WAIT_TESTS,
        WAIT,
        "want = 1 if fruitless or is_sick else want",
        "want = 1 if is_sick else want",
    ),
    mutant(
        "a broken worker node eats pilot after pilot",
        WAIT_TESTS,
        WAIT,
        "want = 1 if fruitless or is_sick else want",
        "want = 1 if fruitless else want",
    ),
    mutant(
        "pilots are judged by a count from before their end",
        WAIT_TESTS,
        WAIT,
        "        if crew.ended and seen.of(again) is None:\n",
        "        if False:\n",
    ),
    mutant(
        "an older count is believed",
        WAIT_TESTS,
        WAIT,
        "latest = max(counted, key=lambda count: count.at)",
        "latest = counted[0]",
    ),
    mutant(
        "a second count is taken for a change",
        WAIT_TESTS,
        WAIT,
        "min(one.at for one in counted if one.data == counts)",
        "latest.at",
    ),
    mutant(
        "a wave of which some live did nothing",
        WAIT_TESTS,
        WAIT,
        "is_over = not crew.alive or ended * 2 >= (pilots or len(crew.states))",
        "is_over = True",
    ),
    mutant(
        "pilots are started that find nothing to take",
        WAIT_TESTS,
        WAIT,
        "want = min(min(work.open, params.pilots.max_pilots) - crew.alive, work.free)",
        "want = min(work.open, params.pilots.max_pilots) - crew.alive",
    ),
    mutant(
        "jobs that are left at the end run on",
        WAIT_TESTS,
        WAIT,
        "            if crew.going:\n",
        "            if False:\n",
    ),
    mutant(
        "a job that nobody looked at is gone",
        WAIT_TESTS,
        CREW,
        "for state in self.states.values()) + len(self.unseen)",
        "for state in self.states.values())",
    ),
    mutant(
        "a turn that was granted is let go while the proxy is renewed",
        CREW_TESTS,
        CREW,
        "return waiting if granted is None else Wait((proxy_of(pilots), turn), waiting.reason, waiting.due_s)",
        "return waiting",
    ),
    mutant(
        "pilots that live take no room",
        TURN_TESTS,
        TURNS,
        '            alive[job.args.get("site", "")] += _alive(data)\n',
        "            pass\n",
    ),
    mutant(
        "turns that are held take no room",
        TURN_TESTS,
        TURNS,
        "    for turn in turns:\n        used[turn.site] += turn.granted\n",
        "",
    ),
    mutant(
        "only the sites have limits",
        TURN_TESTS,
        TURNS,
        "while asking and used.total() < limit:",
        "while asking:",
    ),
    mutant(
        "who beats is silent",
        TROUBLED_TESTS,
        TROUBLED,
        "moved = last.moved if last is not None and last.rev == token.rev else now",
        "moved = last.moved if last is not None else now",
    ),
    mutant(
        "another holder is the same one",
        TROUBLED_TESTS,
        TROUBLED,
        "since = last.since if last is not None and last.lock == token.lock else now",
        "since = last.since if last is not None else now",
    ),
    mutant(
        "after a restart nobody was ever silent",
        TROUBLED_TESTS,
        TROUBLED,
        "        await self._recall(subjects)\n",
        "        pass\n",
    ),
    mutant(
        "a token that changed since it was seen is given back",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        'return state_of(document) != "done" if rev is None else document["_rev"] == rev',
        "return True",
    ),
    mutant(
        "a token that is given back forgets what became of it",
        DEED_TESTS,
        EFFECTS + "tokens.py",
        '"history": [*(past if isinstance(past, list) else []), entry][-MAX_HISTORY:],',
        '"history": [entry],',
    ),
    mutant(
        "a submission that the system forgot is made again though its pilots left their marks",
        DEED_TESTS,
        EFFECTS + "jobs.py",
        "        if not jobs and not batch.registers:\n",
        "        if False:\n",
    ),
    mutant(
        "what is absent once is lost",
        LOOK_TESTS,
        "aglowd/watchers/jobs.py",
        "        if now - silence.since >= self.lost_after_s and silence.looks >= SILENT_LOOKS:\n",
        "        if True:\n",
    ),
)
