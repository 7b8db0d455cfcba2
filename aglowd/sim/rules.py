"""What must never happen, each rule a function from history to what it found against it.

A rule convicts on evidence in the ledger or in the storage tree, and only on that; each has its test of a guilty and
of an innocent ledger. `duplicates` and `lost` are counted, the others are violations.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from aglowd.sim.history import History, Line, Token
from aglowd.sim.storage import Storage, adler32
from aglowd.sim.tape import surl_path

Roots = tuple[str, ...]
KEY_TAG = "aglowd_key"
WAKEUP_GRACE_S = 48 * 3600.0
ENOUGH = 0.9
"""A client may go on before the last file or token: a reaction counts from when this fraction of them had come."""


class Finding(msgspec.Struct, frozen=True):
    """Something against the client: which rule, what exactly, at which world time; `subject` alone names the thing."""

    rule: str
    what: str
    t: float
    subject: str


class FieldExpectation(msgspec.Struct, frozen=True):
    """A field that should be in the archive: its target's SURLs, and those that the client said it left out."""

    surls: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class Expectation(msgspec.Struct, frozen=True):
    """What the run was meant to do; without it only rules that need no intent can judge."""

    archive_roots: Roots = ()
    """The URLs below which everything is archived; without any, the archive is not judged."""
    archived_step: str | None = None
    fields: dict[str, FieldExpectation] = {}
    reported: tuple[str, ...] = ()
    """Subjects of duplicates that the client itself reported."""
    finished: bool = True
    """Whether the client says that it has nothing left to do: then every wait must have been answered."""
    wakeup_grace_s: float = WAKEUP_GRACE_S


# --- duplicates -----------------------------------------------------------------------------------------------------


def surls_staged_twice(history: History) -> Iterator[Finding]:
    """A SURL requested again while it was online or in progress."""
    busy: dict[str, float] = {}
    for staging in sorted(history.stagings, key=lambda one: one.made):
        for at, surl in enumerate(staging.surls):
            if surl in staging.surls[:at] or busy.get(surl, 0.0) > staging.made:
                yield Finding("staged twice", f"request {staging.request} asked for {surl}", staging.made, surl)
        for surl in staging.surls:
            busy[surl] = max(busy.get(surl, 0.0), staging.busy_until(surl))


def tokens_created_twice(history: History) -> Iterator[Finding]:
    """A token made again after it was deleted; CouchDB itself refuses the same id while the first lives."""
    for token in history.tokens.values():
        for t in token.created[1:]:
            yield Finding("token created twice", token.id, t, token.id)


_PART = re.compile(r"\.part-[0-9a-f]{12}$")
"""How a file is called on its way into the archive."""


def files_archived_twice(history: History, roots: Roots) -> Iterator[Finding]:
    """A final name in the archive that was written more than once; what was renamed away, or is called a part, is none."""
    writes: dict[str, list[float]] = defaultdict(list)
    for transfer in history.transfers:
        if _below(transfer.dst, roots):
            writes[transfer.dst].append(transfer.t)
    for url in set(writes) - {one.src for one in history.transfers if one.op == "rename"}:
        if _PART.search(url):
            continue  # A copy that was given up on its way: it may be tried any number of times.
        for t in writes[url][1:]:
            yield Finding("archived twice", url, t, url)


def jobs_live_twice(history: History) -> Iterator[Finding]:
    """Two submissions with one key, the second started before the first had ended."""
    ended = {line["job"]: line["t"] for line in history.of_jobs("job_ended")}
    latest: dict[str, str] = {}
    for line in history.of_jobs("job_started"):
        key = line["tags"].get(KEY_TAG)
        if key is None:
            continue
        if key in latest and ended.get(latest[key], float("inf")) > line["t"]:
            yield Finding("live twice", f"{latest[key]} and {line['job']} both carry {key}", line["t"], key)
        latest[key] = line["job"]


# --- violations -----------------------------------------------------------------------------------------------------


def submitted_twice(history: History) -> Iterator[Finding]:
    """One key started two jobs, whether or not the first had ended."""
    first: dict[str, str] = {}
    for line in history.of_jobs("job_started"):
        key = line["tags"].get(KEY_TAG)
        if key is not None and first.setdefault(key, line["job"]) != line["job"]:
            yield Finding("submitted twice", f"{key}: {first[key]} and {line['job']}", line["t"], key)


def subbands_skipped(history: History, expect: Expectation) -> Iterator[Finding]:
    """A target file of a field that no token ever had in its list."""
    seen = {surl for token in history.tokens.values() for surl in token.surls}
    for name, wanted in expect.fields.items():
        excused = set(map(surl_path, wanted.left_out))
        for surl in wanted.surls:
            if surl_path(surl) not in seen | excused:
                yield Finding("subband skipped", f"{name}: {surl}", history.end, surl)


def results_skipped(history: History, expect: Expectation) -> Iterator[Finding]:
    """A result of an earlier pass of an archived field that no later token ever had as an input."""
    if expect.archived_step is None:
        return
    named: set[str] = set()
    for line in history.of("couchdb", "put", "bulk_docs"):
        for doc in [line["doc"]] if line["op"] == "put" else line["docs"]:
            named.update(_named_inputs(doc))
    archived = {surl_path(surl).rpartition("/")[0] for wanted in expect.fields.values() for surl in wanted.surls}
    for url, line in history.results.items():
        token = history.tokens.get(line["token"])
        if token is None or line["pipeline_step"] == expect.archived_step or line["token"] not in history.done_tokens:
            continue
        of_field = any(surl_path(surl).rpartition("/")[0] in archived for surl in token.surls)
        if of_field and url not in named:
            yield Finding("result skipped", f"{line['token']}: {url}", history.end, url)


def inputs_not_there(history: History) -> Iterator[Finding]:
    """A job that ran on a file that was not online, on a result that did not exist, or without its parset."""
    rules = {"input_offline": "input not online", "input_missing": "input missing", "parset_missing": "parset missing"}
    for line in history.of("pilot", *rules):
        subject = line.get("surl") or line.get("url") or line["token"]
        yield Finding(rules[line["op"]], f"{line['token']}: {subject}", line["t"], subject)


def archived_corrupt(history: History, storage: Storage, roots: Roots) -> Iterator[Finding]:
    """An archived file whose bytes are not those of the result that it was copied from, or is named after."""
    by_name: dict[str, set[str]] = defaultdict(set)
    for url in history.results:
        by_name[url.rpartition("/")[2]].add(url)
    for path, url in list_archive(storage, roots):
        source = history.origins.get(url, "")
        sources = {source} if source in history.results else by_name[path.name]
        wanted = {history.results[one]["adler32"] for one in sources}
        found = adler32(path.read_bytes())
        if wanted and found not in wanted:
            what = f"{url} has {found}, {', '.join(sorted(sources))} has {', '.join(map(str, sorted(wanted)))}"
            yield Finding("archived corrupt", what, history.end, url)


def deleted_unarchived(history: History, storage: Storage, roots: Roots) -> Iterator[Finding]:
    """A token that a client deleted, and whose document is in no tar.gz of the archive."""
    kept = archived_documents(storage, roots)
    for token in history.tokens.values():
        if token.deleted and token.id not in kept:
            yield Finding("deleted unarchived", token.id, token.deleted[-1], token.id)


def stagings_unanswered(history: History, expect: Expectation) -> Iterator[Finding]:
    """A staging request that finished, and nobody used its files, released them or asked again.

    Who does, in the end, has reacted when he first looked where they are; looking alone is no reaction.
    """
    looks: dict[str, list[float]] = defaultdict(list)
    for line in history.of("dcache", "archiveinfo", "namespace"):
        for directory in line["directories"]:
            looks[directory].append(line["t"])
    used: dict[str, list[float]] = defaultdict(list)
    for line in history.of("couchdb", "token_surls"):
        for surl in line["surls"]:
            used[surl_path(surl)].append(line["t"])
    for staging in history.stagings:
        for surl in staging.surls:
            used[surl].append(staging.made)
    for staging in history.stagings:
        if staging.aborted <= staging.finished:
            continue
        since = _quantile(sorted(staging.online.values()), staging.finished)
        answers = sorted(t for surl in staging.surls for t in used[surl] if t >= since and t != staging.made)
        if staging.aborted < float("inf"):
            answers.append(staging.aborted)
        if not answers and _is_late(None, staging.finished, history, expect):
            yield _dropped(f"staging request {staging.request}", staging.finished, None, str(staging.request))
            continue
        for directory in {surl_path(surl).rpartition("/")[0] for surl in staging.surls}:
            answers += [t for t in looks[directory] if t >= since]
        first = min(answers, default=None)
        if _is_late(first, staging.finished, history, expect):
            yield _dropped(f"staging request {staging.request}", staging.finished, first, str(staging.request))


def token_sets_unanswered(history: History, expect: Expectation) -> Iterator[Finding]:
    """A token type whose tokens have all ended, and no client touched them or their results."""
    types: dict[str, list[Token]] = defaultdict(list)
    for token in history.tokens.values():
        types[token.type].append(token)
    touched = _touched_results(history)
    for name, tokens in types.items():
        if not all(token.ended and token.ended[-1][0] >= max([0.0, *token.reset]) for token in tokens):
            continue  # Some are still to be done, so there is nothing yet to react to.
        ends = sorted(token.ended[-1][0] for token in tokens)
        last, since = ends[-1], _quantile(ends, ends[-1])
        strong = [t for t in touched[name] if t >= since]
        weak = [t for token in tokens for t in (*token.reset, *token.deleted, *token.created[1:]) if t >= last]
        first = min([*strong, *weak], default=None)
        if _is_late(first, last, history, expect):
            yield _dropped(f"token type {name}", last, first, name)


def _touched_results(history: History) -> dict[str, list[float]]:
    """When clients looked at or used what a token type produced, by type."""
    owners: dict[str, set[str]] = defaultdict(set)
    for url, line in history.results.items():
        for place in (url, url.rpartition("/")[0]):
            owners[place].add(line["type"])
    touched: dict[str, list[float]] = defaultdict(list)
    for line in history.lines:
        if line["by"] != "client":
            continue
        urls: list[str] = []
        if line["system"] == "storage":
            urls = line["urls"]
        elif line["system"] == "couchdb" and line["op"] in ("put", "bulk_docs"):
            docs = [line["doc"]] if line["op"] == "put" else line["docs"]
            urls = [url for doc in docs for url in _named_inputs(doc)]
        for url in urls:
            for name in owners.get(url.rstrip("/"), ()):
                touched[name].append(line["t"])
    return touched


def _named_inputs(doc: Line) -> list[str]:
    found: list[str] = []
    for name in ("CAL2_SOLUTIONS", "INPUT_FILES"):
        given = doc.get(name) or ()
        found += given.split() if isinstance(given, str) else given
    return found


def _dropped(what: str, ended: float, first: float | None, subject: str) -> Finding:
    when = "" if first is None else f" for {(first - ended) / 3600:.0f} hours"
    return Finding("dropped wake-up", f"{what} ended and nobody reacted{when}", ended, subject)


def _is_late(answer: float | None, since: float, history: History, expect: Expectation) -> bool:
    """Whether a reaction did not come in time; before the run's end, one that is still due is not late."""
    if since > history.end:
        return False
    if answer is not None:
        return answer > since + expect.wakeup_grace_s
    return expect.finished or history.end > since + expect.wakeup_grace_s


def _quantile(times: list[float], otherwise: float) -> float:
    return times[int(ENOUGH * (len(times) - 1))] if times else otherwise


# --- the archive ----------------------------------------------------------------------------------------------------


def lost_results(history: History, storage: Storage, roots: Roots, step: str) -> Iterator[Finding]:
    """Result files of done tokens of the archived pass whose bytes are nowhere in the archive."""
    kept = {(adler32(data), len(data)) for data in (path.read_bytes() for path, _ in list_archive(storage, roots))}
    for url, line in history.results.items():
        if line["pipeline_step"] != step or line["token"] not in history.done_tokens:
            continue
        if (line["adler32"], line["size"]) not in kept:
            yield Finding("lost", url, line["t"], url)


def list_archive(storage: Storage, roots: Roots) -> list[tuple[Path, str]]:
    """The files below the archive's roots, with their URLs."""
    found: list[tuple[Path, str]] = []
    for root in roots:
        base = storage.find_path(root)
        if base is not None:
            files = sorted(path for path in base.rglob("*") if path.is_file())
            found += [(path, f"{root.rstrip('/')}/{path.relative_to(base)}") for path in files]
    return found


def archived_documents(storage: Storage, roots: Roots) -> frozenset[str]:
    """The ids of all documents in tar.gz files of the archive."""
    packed = [path for path, _ in list_archive(storage, roots) if path.name.endswith((".tar.gz", ".tgz"))]
    return frozenset().union(*(_documents(path.read_bytes()) for path in packed))


def _documents(data: bytes) -> frozenset[str]:
    """The `_id` of every member that is a JSON object with one; a broken archive keeps nothing safe."""
    found: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data)), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".json"):
                    body = msgspec.json.decode(file.read())
                    # Other JSON may lie beside the documents: a configuration, a list of files.
                    found.update([str(body["_id"])] if isinstance(body, dict) and "_id" in body else [])
    except (tarfile.TarError, OSError, EOFError, zlib.error, msgspec.DecodeError):
        return frozenset()
    return frozenset(found)


def _below(url: str, roots: Roots) -> bool:
    return any(url.startswith(root.rstrip("/") + "/") for root in roots)
