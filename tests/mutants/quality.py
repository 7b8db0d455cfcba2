"""Mistakes in what is told of results: records, verdicts, subbands that may be missing, and secrets that are kept."""

from __future__ import annotations

from .kinds import EFFECTS, SQL, STORE, Mutant, mutant

RECORD_TESTS = "tests/test_provenance.py tests/handlers/test_provenance.py"
MISSING_TESTS = "tests/handlers/test_missing.py"
VERDICT_TESTS = "tests/store/test_verdicts.py tests/cli/test_quality.py"
SECRET_TESTS = "tests/test_secret_references.py"

QUALITY: tuple[Mutant, ...] = (
    # --- records
    mutant("the first word on a file counts", RECORD_TESTS, "aglowd/chronicle/files.py", "step.ended or 0.0, step.name", "-(step.ended or 0.0), step.name"),
    mutant("a copy of a later attempt is told again", RECORD_TESTS, "aglowd/chronicle/files.py", 'found[result["url"]] = Archived(', 'found[done.record.key] = Archived('),
    mutant("a record waits for a silent site for ever", RECORD_TESTS, "aglowd/handlers/provenance.py", "and left_s > 0", "and left_s"),
    mutant("a later attempt writes over the first record", RECORD_TESTS, "aglowd/handlers/provenance.py", "if step.attempt == 1", "if step.attempt"),
    mutant("what a pilot says of its result is not believed", RECORD_TESTS, "aglowd/chronicle/work.py", 'told.get("size_bytes"), told.get("adler32")\n', 'None, None\n'),
    mutant("a token at which nobody looked has failed", RECORD_TESTS, "aglowd/chronicle/__init__.py", '("made", "done", "todo", "locked")', '("done", "todo", "locked")'),
    mutant("a list of a directory is believed without its checksums", "tests/grid/test_dcache.py", "aglowd/grid/dcache.py", "and None not in (info.size_bytes, info.adler32)", ""),
    mutant("a site that forbids it is asked for ever", "tests/watchers/test_records.py", "aglowd/watchers/inputs.py", 'return [(subject, {"files": {}, "problem": str(error)})]', "raise"),
    # --- verdicts
    mutant("an old verdict serves a new attempt", f"{VERDICT_TESTS} tests/handlers/test_await_approval.py", "aglowd/handlers/await_approval.py", "verdict(params.question, params.show, step.key)", 'verdict(params.question, params.show, f"{step.run}/{step.name}")'),
    mutant("a verdict is given twice", VERDICT_TESTS, f"{STORE}verdicts.py", 'if row["version"] > 0:', "if False:"),
    mutant("a step that waits no more is judged", VERDICT_TESTS, SQL, "JOIN waits AS w ON w.subject = s.key AND w.active = 1\nJOIN runs AS r ON r.id = w.run WHERE s.kind = :kind AND :name", "JOIN waits AS w ON w.subject = s.key\nJOIN runs AS r ON r.id = w.run WHERE s.kind = :kind OR :name"),
    mutant("what is rejected is tried again", f"{VERDICT_TESTS} tests/handlers/test_await_approval.py", "aglowd/handlers/await_approval.py", ", final=True)", ")"),
    # --- subbands
    mutant("a gap may be one longer", MISSING_TESTS, "aglowd/handlers/missing.py", "gap[1] - gap[0] >= policy.gap", "gap[1] - gap[0] > policy.gap"),
    mutant("a beam that is missing as a whole does not count", MISSING_TESTS, "aglowd/handlers/missing.py", "for number in (*here, *beams_of)}", "for number in here}"),
    mutant("nothing at all is enough", MISSING_TESTS, "aglowd/handlers/missing.py", 'return "no subband is there"', 'return ""'),
    mutant("the fraction decides beside the policy", MISSING_TESTS, "aglowd/handlers/stage.py", "if not lacking if params.missing else is_enough(", "if is_enough("),
    # --- secrets
    mutant("a reference may stand anywhere at the decision", SECRET_TESTS, "aglowd/deciding.py", '    wrong = references.misplaced(rendered, getattr(handler.Params, "takes_secrets", ()))\n', '    wrong = ""\n'),
    mutant("a reference may stand anywhere in a file", SECRET_TESTS, "aglowd/pipeline_file.py", '        wrong = references.misplaced(step.params, getattr(params, "takes_secrets", ()))\n', '        wrong = ""\n'),
    mutant("what a program prints keeps the secret", SECRET_TESTS, f"{EFFECTS}general.py", "hide_secrets(ended.stdout)[-MAX_KEPT_CHARS:]", "ended.stdout[-MAX_KEPT_CHARS:]"),
    mutant("the last words of a program are cut before they are hidden", SECRET_TESTS, f"{EFFECTS}general.py", "hide_secrets(ended.stderr or ended.stdout)[-500:]", "hide_secrets((ended.stderr or ended.stdout)[-500:])"),
    mutant("what a service answers keeps the secret", SECRET_TESTS, f"{EFFECTS}general.py", 'hide_secrets(reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace"))', 'reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace")'),
    mutant("a page that is waited for keeps the secret", "tests/world/test_secret_parameters.py", "aglowd/watchers/pages.py", 'hide_secrets(self.body.decode("utf-8", "replace"))', 'self.body.decode("utf-8", "replace")'),
    mutant("a secret that is too short to be hidden is taken", "tests/test_credentials.py", "aglowd/credentials.py", "len(found.secret) < log.MIN_SECRET_CHARS", "len(found.secret) < 0"),
)  # fmt: skip
