"""The directory that Slurm's worker nodes share with us: Slurm carries no files, and writes logs where it is told.

What must stay true: a sandbox is complete under its name or not there at all, nobody else may read it, and neither its name
nor anything else that is shown to others follows from the secrets in it. What nobody has used for long is removed on the way.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from aglowd.errors import Permanent, Temporary

KEY_BYTES = 32
LOGS = "logs"
MAX_LOG_BYTES = 64 << 20
"""Of one log so much is fetched."""

_KEY = "key"
_NEW = ".new-"
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}")
_SANDBOX = re.compile(r"[0-9a-f]{64}")


class Spool:
    """Sandboxes, each in a directory of its own that all submissions with the same files share, and `logs/`.

    What was not used for `keep_s` real seconds is removed. All its verbs block, and raise OSError.
    """

    def __init__(self, path: Path, *, keep_s: float) -> None:
        self.path = path.absolute()
        self.logs = self.path / LOGS
        self._keep_s = keep_s

    def place(self, sandbox: Mapping[str, str]) -> Path:
        """Where these files lie or will lie. A digest with a key of our own: a plain one would let a password be guessed."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True, mode=0o700)
        digest = hmac.new(self._key(), digestmod=hashlib.sha256)
        for name, content in sorted(sandbox.items()):
            for text in (name, content):
                data = _encoded(text)
                digest.update(len(data).to_bytes(8, "big") + data)
        return self.path / digest.hexdigest()

    def keep(self, place: Path, sandbox: Mapping[str, str]) -> None:
        """See to it that the files lie there, on disk, and count as used now."""
        for name in sandbox:
            if not _FILE.fullmatch(name):
                raise Permanent(f"sandbox: found file name {name[:100]!r}; expected letters, digits and _ . + -")
        try:
            os.utime(place)
        except FileNotFoundError:
            self._write(place, sandbox)
        self._forget(place.stat().st_mtime)

    def copy_logs(self, names: Iterable[str], directory: Path, prefix: str) -> Path | None:
        """Copies of these logs in a new directory; None if there is none of them."""
        found = [self.logs / name for name in names if (self.logs / name).is_file()]
        if not found:
            return None
        directory.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        for log in found:
            # A link that a pilot put there is not followed.
            with suppress(FileNotFoundError), open(os.open(log, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
                (place / log.name).write_bytes(source.read(MAX_LOG_BYTES))
        return place

    def _key(self) -> bytes:
        path = self.path / _KEY
        for _ in range(2):
            with suppress(FileNotFoundError):
                key = path.read_bytes()
                if len(key) != KEY_BYTES:
                    raise Temporary(f"{path}: found {len(key)} bytes; expected {KEY_BYTES}: remove it")
                return key
            new = self.path / f"{_NEW}{secrets.token_hex(8)}"
            _write_file(new, secrets.token_bytes(KEY_BYTES))
            with suppress(FileExistsError):  # Somebody was faster; theirs is as good.
                os.link(new, path)
            new.unlink()
        raise FileNotFoundError(2, "the key of the names is gone again", str(path))

    def _write(self, place: Path, sandbox: Mapping[str, str]) -> None:
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.path))
        try:
            for name, content in sandbox.items():
                _write_file(new / name, _encoded(content))
            _sync(new)
            try:
                new.rename(place)
            except OSError:
                if not place.is_dir():  # Else somebody was faster, with the same files.
                    raise
            _sync(self.path)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _forget(self, now: float) -> None:
        """Remove what is too old. `now` is the file system's own time, which may be another one than this host's."""
        with os.scandir(self.path) as found:
            old = [entry for entry in found if _SANDBOX.fullmatch(entry.name) or entry.name.startswith(_NEW)]
        with os.scandir(self.logs) as found:
            old += found
        for entry in old:
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < now - self._keep_s:
                    if entry.is_dir(follow_symlinks=False):
                        # What is removed in part must not be there under its name.
                        going = self.path / f"{_NEW}{secrets.token_hex(8)}"
                        os.rename(entry.path, going)
                        shutil.rmtree(going, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Permanent(f"sandbox: a text cannot be written as UTF-8: {error.reason}") from error


def _write_file(path: Path, data: bytes) -> None:
    """On disk when it returns."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
