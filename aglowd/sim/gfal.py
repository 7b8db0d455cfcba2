"""The `gfal-*` executables: gfal2-util 1.8's arguments, output, error lines and exit codes (errno of the failure).

Recorded from the real tools on `file://` paths; other protocols behave alike here, where the real plugins add texts of
their own behind the dash.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from aglowd.sim.proxy import Proxy
from aglowd.sim.storage import Storage, adler32, list_contents
from aglowd.sim.tape import Tape
from aglowd.sim.tools import Answer, Call, Command, Options, Usage, parse
from aglowd.sim.world import World

LOCAL = "errno reported by local system call "
_COMMON_FLAGS = "-v -vv -vvv|--verbose -4 -6"
_COMMON_VALUED = "-t|--timeout -D|--definition -E|--cert --key -C|--client-info --log-file"


class GfalError(Exception):
    """What the tool says after `error:`, with the errno that is its exit code."""

    def __init__(self, number: int, text: str | None = None) -> None:
        super().__init__(text or LOCAL + os.strerror(number))
        self.number = number

    def line(self, tool: str) -> str:
        return f"{tool} error: {self.number} ({os.strerror(self.number)}) - {self}\n"


class Gfal:
    """One method an executable; each gets its options and returns what is printed."""

    def __init__(self, world: World, storage: Storage, tape: Tape, proxy: Proxy) -> None:
        self._world = world
        self._proxy = proxy
        self._storage = storage
        self._tape = tape
        self._tools = {
            "gfal-ls": (self._ls, "-a|--all -l|--long -d|--directory -H|--human-readable --full-time",
                        "--time-style --color --xattr", 1),
            "gfal-stat": (self._stat, "", "", 1),
            "gfal-mkdir": (self._mkdir, "-p|--parents", "-m|--mode", 1),
            "gfal-copy": (self._copy, "-f|--force -p|--parent --just-copy", "-K|--checksum -T|--transfer-timeout "
                          "-n|--nbstreams -s|--src-spacetoken -S|--dst-spacetoken --checksum-mode", 2),
            "gfal-rename": (self._rename, "", "", 2),
            "gfal-sum": (self._sum, "", "", 2),
            "gfal-rm": (self._rm, "-r|-R|--recursive --just-delete", "", 1),
            "gfal-xattr": (self._xattr, "", "", 1),
        }  # fmt: skip

    def commands(self) -> dict[str, Command]:
        return dict.fromkeys(self._tools, self.run)

    async def run(self, call: Call) -> Answer:
        """Answer one process, and write it to the ledger."""
        work, flags, valued, least = self._tools[call.tool]
        try:
            options = parse(call.argv, f"{flags} {_COMMON_FLAGS}", f"{valued} {_COMMON_VALUED}")
            if len(options.rest) < least:
                raise Usage("the following arguments are required: file")
        except Usage as usage:
            return Answer(stderr=f"usage: {call.tool} [-h] [-V] [-v] …\n{call.tool}: error: {usage}\n", rc=2)
        noted: dict[str, Any] = {"urls": options.rest, "flags": sorted(options.flags)}
        try:
            # A pilot has a proxy of its own, delegated when it was submitted.
            is_expired = not call.job and self._proxy.find_timeleft(call.proxy) == 0
            if is_expired and any(not _is_local(url) for url in options.rest):
                raise GfalError(errno.ECOMM, "globus_gsi_credential: The proxy credential expired 0 minutes ago")
            # Pilots find room: faults strike who is judged, not them.
            with self._storage.full(self._storage.is_full and not call.job):
                answer = work(options, noted)
        except GfalError as error:
            answer = Answer(stderr=error.line(call.tool), rc=error.number)
        except OSError as error:
            failure = GfalError(error.errno or errno.EIO)
            answer = Answer(stderr=failure.line(call.tool), rc=failure.number)
        if call.job:
            noted["job"] = call.job
        self._world.note("storage", call.tool.removeprefix("gfal-"), call.by, **noted, result=answer.rc)
        return answer

    def _path(self, url: str) -> Path:
        path = self._storage.find_path(url)
        if path is None:
            text = f"Protocol not supported or path/url invalid: {url}"
            raise GfalError(errno.EPROTONOSUPPORT, text)
        return path

    def _ls(self, options: Options, noted: dict[str, Any]) -> Answer:
        url = options.rest[0]
        path = self._path(url)
        names = [url]
        if stat.S_ISDIR(path.stat().st_mode) and "--directory" not in options.flags:
            names = [*((".", "..") if "--all" in options.flags else ()), *sorted(os.listdir(path))]
            # Without -a the tool hides dot files, the simulator's own unfinished ones among them.
            names = [name for name in names if "--all" in options.flags or not name.startswith(".")]
        noted["entries"] = len(names)
        if "--long" not in options.flags:
            return Answer("".join(f"{name}\n" for name in names))
        full_time = "--full-time" in options.flags
        lines = (_long_line(path if name == url else path / name, name, full_time=full_time) for name in names)
        return Answer("".join(lines))

    def _stat(self, options: Options, noted: dict[str, Any]) -> Answer:
        url = options.rest[0]
        info = self._path(url).stat()
        kind = "directory" if stat.S_ISDIR(info.st_mode) else "regular file"
        mode = f"{stat.S_IMODE(info.st_mode):04o}/{stat.filemode(info.st_mode)}"
        times = {"Access": info.st_atime, "Modify": info.st_mtime, "Change": info.st_ctime}
        lines = [f"  File: '{url}'", f"  Size: {info.st_size}\t{kind}",
                 f"Access: ({mode})\tUid: {info.st_uid}\tGid: {info.st_gid}\t"]  # fmt: skip
        lines += [
            f"{name}: {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}.000000" for name, at in times.items()
        ]
        return Answer("".join(f"{line}\n" for line in lines))

    def _mkdir(self, options: Options, noted: dict[str, Any]) -> Answer:
        for url in options.rest:
            path = self._path(url)
            if "--parents" in options.flags:
                if not path.is_file():  # It is content with a file, too.
                    path.mkdir(parents=True, exist_ok=True)
            elif not url.startswith("file://") and path.parent.parent == self._storage.root:
                path.mkdir(parents=True)  # A host's root directory always exists.
            else:
                path.mkdir()
        return Answer()

    def _copy(self, options: Options, noted: dict[str, Any]) -> Answer:
        source_url, url = options.rest[:2]
        source, path = self._path(source_url), self._path(url)
        if source.is_dir():  # With all that is in it, and without being asked to.
            shutil.copytree(source, path, dirs_exist_ok=True)
            return Answer()
        try:
            data = source.read_bytes()
        except OSError as error:
            number = error.errno or errno.EIO
            raise GfalError(number, f"Could not stat the source: {LOCAL}{os.strerror(number)}") from error
        if path.is_dir():  # Without a word, it goes into the directory.
            url, path = f"{url.rstrip('/')}/{source.name}", path / source.name
        if path.exists() and "--force" not in options.flags:
            raise GfalError(errno.EEXIST, f"Destination {url} exists and overwrite is not set")
        said = f"Copying {len(data)} bytes {source_url} => {url}\n"
        checksum = adler32(data)
        noted.update(src=source_url, dst=url, size=len(data), adler32=checksum, holds=list_contents(data))
        expected = options.values.get("--checksum", "").partition(":")[2]
        try:
            if expected and int(expected, 16) != int(checksum, 16):
                text = "SOURCE CHECKSUM MISMATCH Source checksum and user-specified checksum do not match: "
                raise GfalError(errno.EIO, f"{text}{checksum} != {expected}")
            if "--parent" in options.flags:
                path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.is_dir():
                text = f"Could not open destination: {LOCAL}{os.strerror(errno.ENOENT)}"
                raise GfalError(errno.ENOENT, text)
            if self._storage.is_full and not _is_local(url):
                path.write_bytes(data[: len(data) // 2])
                raise GfalError(errno.ENOSPC, f"DESTINATION WRITE: {LOCAL}{os.strerror(errno.ENOSPC)}")
            path.write_bytes(data)
            self._storage.tell(url, "IN_CREATE", "IN_CLOSE_WRITE")
        except GfalError as error:
            return Answer(said, error.line("gfal-copy"), error.number)
        return Answer(said)

    def _rename(self, options: Options, noted: dict[str, Any]) -> Answer:
        source, path = map(self._path, options.rest[:2])
        noted.update(src=options.rest[0], dst=options.rest[1], replaced=path.exists())
        if not source.exists() and not _is_local(options.rest[0]):
            text = "globus_ftp_client: the server responded with an error 501 Invalid command arguments."
            raise GfalError(errno.ECOMM, text)
        if source.is_file():
            data = source.read_bytes()
            noted.update(size=len(data), adler32=adler32(data))
        os.rename(source, path)
        self._storage.tell(options.rest[1], "IN_MOVED_TO")
        return Answer()

    def _sum(self, options: Options, noted: dict[str, Any]) -> Answer:
        url, algorithm = options.rest[:2]
        if algorithm.upper() != "ADLER32":
            raise GfalError(errno.ENOSYS, f"Checksum type {algorithm} not supported")
        try:
            return Answer(f"{url} {adler32(self._path(url).read_bytes())}\n")
        except IsADirectoryError as error:
            text = f"Error during checksum calculation, read: {LOCAL}{os.strerror(errno.EISDIR)}"
            raise GfalError(errno.EISDIR, text) from error

    def _rm(self, options: Options, noted: dict[str, Any]) -> Answer:
        said, rc, removed = "", 0, []
        for url in options.rest:
            path = self._path(url)
            if not path.exists():
                said, rc = f"{said}{url}\tMISSING\n", errno.ENOENT
            elif path.is_dir() and "--recursive" not in options.flags:
                error = GfalError(errno.EISDIR, f"Can not remove {url}, is a directory")
                return Answer(said, error.line("gfal-rm"), error.number)
            else:
                lines = _remove(path, url)
                removed += [line.partition("\t")[0] for line in lines]
                self._storage.tell(url, "IN_DELETE")
                said += "".join(f"{line}\n" for line in lines)
        noted["removed"] = removed
        return Answer(said, rc=rc)

    def _xattr(self, options: Options, noted: dict[str, Any]) -> Answer:
        url, *names = options.rest
        file = self._tape.find_file(url) if url.startswith("srm://") else None
        if file is None:
            self._path(url).stat()
        if file is None or names[:1] != ["user.status"]:
            raise GfalError(errno.ENODATA)
        word = file.locality(self._world.now())
        # Its own spelling ends in a blank: gfal_constants.h.
        return Answer("NEARLINE \n" if word == "NEARLINE" else f"{word}\n")


def _is_local(url: str) -> bool:
    return url.startswith("file://") or "://" not in url


def _long_line(path: Path, name: str, *, full_time: bool) -> str:
    info = path.stat()
    when = time.strftime("%Y-%m-%d %H:%M" if full_time else "%b %d %H:%M", time.localtime(info.st_mtime))
    mode = stat.filemode(info.st_mode)
    return f"{mode} {info.st_nlink:>3} {info.st_uid:<5} {info.st_gid:<5} {info.st_size:>9} {when} {name}\t\n"


def _remove(path: Path, url: str) -> list[str]:
    """Remove a file, or a directory from its leaves up; a line each."""
    if not path.is_dir():
        path.unlink()
        return [f"{url}\tDELETED"]
    lines = [line for name in sorted(os.listdir(path)) for line in _remove(path / name, f"{url.rstrip('/')}/{name}")]
    shutil.rmtree(path)
    return [*lines, f"{url}\tRMDIR"]
