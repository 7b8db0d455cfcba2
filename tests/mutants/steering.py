"""Mistakes in how people steer runs: cancel, retry, skip, pause, and what nobody waits for any more."""

from __future__ import annotations

from .kinds import JOURNAL, RUNS, SQL, STORE, Mutant, mutant

CANCEL_TESTS = "tests/reactor/test_cancel.py"
RETRY_TESTS = "tests/reactor/test_retry.py"
PAUSE_TESTS = "tests/reactor/test_pauses.py"
CANCELS = STORE + "cancels.py"
RETRIES = STORE + "retries.py"
PAUSES = STORE + "pauses.py"
STEER = STORE + "steer.py"
CHOICE = "aglowd/choice.py"
CHOICE_TESTS = "tests/test_choice.py"
SEVERAL_TESTS = "tests/cli/test_several.py"

STEERED: tuple[Mutant, ...] = (
    mutant(
        "a cancelled step does not wait for the run that it had begun",
        CANCEL_TESTS,
        RUNS,
        "if step.stopping and (child := _stopping_child(db, at)):",
        "if False and (child := _stopping_child(db, at)):",
    ),
    mutant(
        "shared work is cancelled for all",
        CANCEL_TESTS,
        CANCELS,
        "if _is_stoppable(run) and not waiting:",
        "if _is_stoppable(run):",
    ),
    mutant(
        "nobody notices that the last waiter has gone",
        CANCEL_TESTS,
        STORE + "store.py",
        "            runs.finish(db, decision, self._outputs_of, now, changes)\n"
        "            at_once.abandon(db, decision, self._outputs_of, now, changes)\n",
        "            runs.finish(db, decision, self._outputs_of, now, changes)\n",
    ),
    mutant(
        "who joins work on its way out fails with it",
        CANCEL_TESTS,
        "aglowd/handlers/run.py",
        'if ended is None or ended.get("abandoned"):',
        "if ended is None:",
    ),
    mutant(
        "a cancelled run with a failed step has failed",
        CANCEL_TESTS,
        "aglowd/rules.py",
        "    if is_cancelled:\n        return RunState.CANCELLED\n",
        "",
    ),
    mutant(
        "a step that goes back keeps its attempt",
        RETRY_TESTS,
        SQL,
        "SET state = 'pending', attempt = attempt + (started IS NOT NULL),",
        "SET state = 'pending', attempt = attempt,",
    ),
    mutant(
        "retries are counted from the first attempt on",
        RETRY_TESTS,
        RUNS,
        "not failed.final and step.attempt - step.base <= plan.retries",
        "not failed.final and step.attempt <= plan.retries",
    ),
    mutant(
        "the end of shared work that is retried is still shown to who joins",
        RETRY_TESTS,
        RETRIES,
        '        db.execute(queries()["forget_observation"], {"key": runs.run_subject(run["key"]).key, "at": now})\n',
        "",
    ),
    mutant(
        "the end of a step that goes back is still shown to who waits for it",
        RETRY_TESTS,
        RETRIES,
        '        db.execute(queries()["forget_observation"], {"key": f"{STEP}:{plan.run}/{name}", "at": now})\n',
        "",
    ),
    mutant(
        "what is at work is thrown back",
        RETRY_TESTS,
        RETRIES,
        "    busy = sorted(name for name in names if states[name] in AT_WORK)\n",
        "    busy: list[str] = []\n",
    ),
    mutant(
        "one goes on before the catalogue was written back",
        RETRY_TESTS,
        STORE + "fresh.sql",
        "e.attempt = 0 AND e.kind = 'write_status'",
        "e.attempt = 0 AND e.kind = 'nothing'",
    ),
    mutant(
        "only who asks is served by a retry of shared work",
        RETRY_TESTS,
        SQL,
        "WHERE s.child = :key AND s.state = 'failed' AND s.inherited = 0",
        "WHERE s.child = :key AND s.state = 'gone' AND s.inherited = 0",
    ),
    mutant(
        "a command is carried out on whatever there is now",
        RETRY_TESTS,
        STEER,
        "made = planned(lambda: plan(db, order, tools.graph_of), version, since_then)",
        "made = plan(db, order, tools.graph_of)",
    ),
    mutant(
        "a step with live effects is passed over",
        RETRY_TESTS,
        RETRIES,
        "    if live:\n",
        "    if False:\n",
    ),
    mutant(
        "a decision made before a pause is committed in it",
        PAUSE_TESTS,
        RUNS,
        'if db.execute(queries()["is_held"], at).fetchone() is not None:',
        "if False:",
    ),
    mutant(
        "a pause takes its time from the timeout",
        PAUSE_TESTS,
        PAUSES,
        '            db.execute(queries()["lengthen_deadline"], {**here, "by_s": by_s})\n',
        "            pass\n",
    ),
    mutant(
        "a free place is offered to a step that is held",
        PAUSE_TESTS,
        SQL,
        "  AND NOT EXISTS (SELECT 1 FROM held AS h WHERE h.run = s.run AND h.name = s.name)\n"
        "ORDER BY s.priority DESC, s.since, s.run, s.name LIMIT 1;",
        "ORDER BY s.priority DESC, s.since, s.run, s.name LIMIT 1;",
    ),
    mutant(
        "a name that stands for nothing is passed over beside others",
        CHOICE_TESTS,
        CHOICE,
        "            if not meant:\n",
        "            if not meant and not found:\n",
    ),
    mutant(
        "a state that none is in means all",
        CHOICE_TESTS,
        CHOICE,
        "        if not left:\n",
        "        if not left:\n            return found\n        if False:\n",
    ),
    mutant(
        "names with a state are exact",
        CHOICE_TESTS,
        CHOICE,
        "bool(self.names) and not self.state and all(",
        "bool(self.names) and all(",
    ),
    mutant(
        "a name that looks like a pattern is one, whoever has it",
        CHOICE_TESTS,
        CHOICE,
        "            if things[name] is None and is_pattern(name) and name not in known:\n",
        "            if is_pattern(name):\n",
    ),
    mutant(
        "a hold takes whatever fields a pattern means by now",
        SEVERAL_TESTS,
        PAUSES,
        "planned(lambda: plan(db, verb, holds, fields), version, lambda since, _: _changes(db, fields, since))",
        "plan(db, verb, holds, fields)",
    ),
    mutant(
        "who can forget nothing any more is not told what has changed",
        SEVERAL_TESTS,
        "aglowd/store/plans.py",
        '        check_version("", version, lambda since: changes(since, None))\n',
        "",
    ),
    mutant(
        "what was forgotten since is no change",
        SEVERAL_TESTS,
        "aglowd/store/forgetting.py",
        ", even_forgotten=True)",
        ")",
    ),
    mutant(
        "a hold takes any number of fields",
        SEVERAL_TESTS,
        PAUSES,
        '    check_number(len(named), "fields")\n',
        "",
    ),
    mutant(
        "what is held and gone cannot be let go by a pattern",
        SEVERAL_TESTS,
        PAUSES,
        'if scope == "field" and verb == "resume"]',
        'if scope == "field" and verb == "none"]',
    ),
    mutant(
        "what is planned is done although its step is being cancelled",
        CANCEL_TESTS,
        JOURNAL,
        'row["stopping"] != "" and not row["stop"]',
        'row["stopping"] == "timeout" and not row["stop"]',
    ),
)
