"""What the steps on files share: what they look at, which names they mean, and how many effects they ask for at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch

import msgspec

from aglowd.effects.files import is_temporary
from aglowd.errors import AglowError
from aglowd.model import Do, Effect, Json, Seen, Subject

MAX_WAVE_FILES = 8
"""Effects on files that a step has under way at once: as many as a site or a local disk has places (`grid.gate.Site`,
`threads.MOST`), so that all are used, nothing waits in their queue until it times out, a cancel leaves little that was
planned, and other steps come in between."""

MAX_DIRECTORIES = 100
"""Different directories in which the files of one step may lie: each is listed."""


def directory(url: str, occasion: str) -> Subject:
    """The files in a directory on storage. Each occasion is a subject of its own, so that its answer is never old."""
    return Subject("directory", occasion, {"url": url})


def directories_of(urls: Iterable[str]) -> list[str]:
    """The directories in which the files lie; AglowError if they are too many to be listed."""
    found = sorted({url.rpartition("/")[0] for url in urls})
    if len(found) > MAX_DIRECTORIES:
        raise AglowError(f"the files lie in {len(found)} directories; expected at most {MAX_DIRECTORIES}")
    return found


def look_into(urls: Sequence[str], occasion: str, seen: Seen) -> tuple[tuple[Subject, ...], list[Json] | None]:
    """The directories as subjects, and the files in them; None until each was looked into."""
    subjects = tuple(directory(url, f"{occasion}/{number}") for number, url in enumerate(urls))
    listings = [seen.of(subject) for subject in subjects]
    if None in listings:
        return subjects, None
    return subjects, [file for listing in listings for file in listing["files"]]


def urls_in(outputs: Mapping[str, Json], names: Iterable[str]) -> list[str]:
    """The URLs in these outputs, each of which is one or a list of them; AglowError for one that is neither."""
    found: list[str] = []
    for name in names:
        value = outputs.get(name)
        for url in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(url, str) or "://" not in url:
                raise AglowError(f"the output {name!r} is no URL and no list of URLs: {str(value)[:200]}")
            found.append(url)
    return found


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
