"""What the steps on files share: what they look at, which names they mean, and how many effects they ask for at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch

import msgspec

from aglowd.effects.files import is_temporary
from aglowd.model import Do, Effect, Json, Seen, Subject

MAX_WAVE_FILES = 8
"""Effects on files that a step has under way at once: as many as a site or a local disk has places (`grid.gate.Site`,
`threads.MOST`), so that all are used, nothing waits in their queue until it times out, a cancel leaves little that was
planned, and other steps come in between."""


def directory(url: str, occasion: str) -> Subject:
    """The files in a directory on storage. Each occasion is a subject of its own, so that its answer is never old."""
    return Subject("directory", occasion, {"url": url})


def tree(url: str, occasion: str) -> Subject:
    """The files in a directory and all below it."""
    return Subject("tree", occasion, {"url": url})


def name_of(url: str) -> str:
    """The last part of the URL."""
    return url.rstrip("/").rpartition("/")[2]


def is_below(url: str, root: str) -> bool:
    """Whether the URL lies in that directory, at any depth."""
    return url.startswith(root.rstrip("/") + "/")


def place_of(url: str, root: str, other: str) -> str:
    """Where the file lies below `other` as it does below `root`; right in it if it does not lie below `root`."""
    inner = url.removeprefix(root.rstrip("/") + "/") if root and is_below(url, root) else name_of(url)
    return f"{other.rstrip('/')}/{inner}"


def matching(files: Iterable[Json], pattern: str) -> list[Json]:
    """The entries whose names match, by URL; what an effect is still at work on is no file."""
    found = [file for file in files if fnmatch(name_of(file["url"]), pattern) and not is_temporary(file["url"])]
    return sorted(found, key=lambda file: str(file["url"]))


def next_wave(seen: Seen, effects: Sequence[Effect], by: str) -> Do | None:
    """The next of the effects, which are of one kind and differ in the input `by`; None when all were asked for."""
    asked = [record.inputs[by] for record in seen.effects if effects and record.kind == effects[0].kind]
    known = set(asked)
    left = {getattr(effect, by): effect for effect in effects if getattr(effect, by) not in known}
    wave = list(left.values())[:MAX_WAVE_FILES]
    numbered = [msgspec.structs.replace(effect, ordinal=number) for number, effect in enumerate(wave, len(asked))]
    return Do(tuple(numbered)) if numbered else None
