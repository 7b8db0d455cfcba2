"""What must never happen with real pilots: each is a process of its own, and the world sees only what it does outside.

As in `rules.py`, each rule has its test of a guilty and of an innocent ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aglowd.sim.history import History
from aglowd.sim.rules import Finding, Roots, list_archive
from aglowd.sim.storage import Storage, adler32


def marks_made_twice(history: History) -> Iterator[Finding]:
    """One key brought pilots in two submissions: at a real batch system, pilots say themselves that they run."""
    first: dict[str, str] = {}
    for mark in history.marks:
        if mark.key and first.setdefault(mark.key, submission(mark.job)) != submission(mark.job):
            what = f"{mark.key}: {first[mark.key]} and {submission(mark.job)}"
            yield Finding("submitted twice", what, mark.t, mark.key)


def submission(job: str) -> str:
    """What a pilot's job was submitted with: it is one of an array, or of several on this host, and ends in its number."""
    return re.split(r"[_-](?=\d+$)", job)[0]


def results_not_accepted(history: History, storage: Storage) -> Iterator[Finding]:
    """A done token of which not exactly one result was accepted, or another one than was made for it.

    What came of a lock that was taken away is no result, though its file may lie beside the one that is.
    """
    for name in sorted(history.done_tokens):
        token = history.tokens[name]
        since = max((t for t in token.reset if t <= token.ended[-1][0]), default=0.0)
        # A pilot may write twice what it says; who says something else is another one, or has changed its mind.
        urls = list(dict.fromkeys(one.url for one in token.accepted if one.t >= since))
        if len(urls) != 1 or not urls[0]:
            yield Finding("not one result accepted", f"{name}: {', '.join(urls) or 'none'}", token.ended[-1][0], name)
            continue
        source = history.find_made(name, urls[0])
        if source is None:
            yield Finding("accepted not made", f"{name}: {urls[0]} was not made for it", token.ended[-1][0], name)
            continue
        wanted = history.results[urls[0]]["adler32"]
        path = storage.find_path(urls[0])
        if path is not None and path.is_file() and adler32(path.read_bytes()) != wanted:
            yield Finding("accepted not made", f"{name}: {urls[0]} holds other bytes", token.ended[-1][0], name)


def archived_unaccepted(history: History, storage: Storage, roots: Roots) -> Iterator[Finding]:
    """A file that a pilot brought to the storage, and that is archived though no token says that it is its result."""
    for _, url in list_archive(storage, roots):
        source = history.origins.get(url, "")
        if source in history.uploads and source not in history.results:
            yield Finding("archived unaccepted", f"{url} from {source}", history.end, url)
