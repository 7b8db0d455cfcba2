"""The grid's storage: every remote URL is a real file below one directory, one sub directory a host.

Clients and real pilots reach it through the `gfal-*` executables, simulated pilots write their results to it directly.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

_REMOTE = re.compile(r"(gsiftp|srm|https?|davs?|root)://([^/:]+)(?::\d+)?(?:/srm/managerv2\?SFN=)?(/.*)?")


def adler32(data: bytes) -> str:
    """The checksum as grid storage writes it: eight hex digits."""
    return f"{zlib.adler32(data):08x}"


def list_contents(data: bytes) -> list[str]:
    """The checksums of the files in a tar archive; of anything else its own alone."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            files = [tar.extractfile(member) for member in tar if member.isfile()]
            return [adler32(file.read()) for file in files if file is not None]
    except (tarfile.TarError, EOFError):
        return [adler32(data)]


class Storage:
    """Maps URLs to files below `root`; `file://` URLs are the real paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_full = False
        """Nothing that a client copies here finds room; a file that was begun stays half written."""
        self.told: Callable[[str, str], None] | None = None
        """Is told of each file that changes on a remote door: its path, and what happened in inotify's words."""
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def full(self, is_full: bool = True) -> Iterator[None]:
        """Full, or not, for one call only."""
        before, self.is_full = self.is_full, is_full
        try:
            yield
        finally:
            self.is_full = before

    def find_path(self, url: str) -> Path | None:
        """Where the URL's bytes are; None when no protocol is known for it."""
        if url.startswith("file://"):
            return Path(url.removeprefix("file://"))
        found = _REMOTE.fullmatch(url)
        if found is None:
            return None
        # Normalised from the root, so that no `..` leads out of the host's directory.
        return self.root / found[2] / posixpath.normpath(unquote(found[3] or "/")).lstrip("/")

    def exists(self, url: str) -> bool:
        path = self.find_path(url)
        return path is not None and path.is_file()

    def write(self, url: str, data: bytes) -> None:
        """Put a file in place at once, whole, with its parent directories."""
        path = self.find_path(url)
        if path is None:
            raise ValueError(f"no storage for {url}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        os.replace(part, path)
        self.tell(url, "IN_CREATE", "IN_CLOSE_WRITE")

    def tell(self, url: str, *masks: str) -> None:
        """These things happened to the file."""
        found = _REMOTE.fullmatch(url)
        if found is not None and found[3] and self.told is not None:
            for mask in masks:
                self.told(posixpath.normpath(found[3]), mask)
