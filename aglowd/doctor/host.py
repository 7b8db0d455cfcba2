"""What can be told of this host and of our own files, without asking anybody: directories, disk, limits, versions, secrets.

What must stay true: nothing is written, not even for a try; every function here may block.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import resource
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from aglowd import __version__
from aglowd.config import Config
from aglowd.credentials import Secrets
from aglowd.doctor.model import FAIL, OK, WARN, Check
from aglowd.durations import duration_text
from aglowd.grid.macaroons import caveats_of, moment
from aglowd.store.place import NETWORK, file_system

FREE_FAIL_BYTES, FREE_WARN_BYTES = 200 << 20, 2 << 30
"""Of the state directory's disk: below the first nothing can be relied upon, below the second a backup may not fit."""
FREE_INODES = 1000
FILES_FAIL, FILES_WARN = 256, 1024
"""Open files that the process may have."""
TASKS_WARN = 256
"""Processes and threads that its user may have."""
ENDS_SOON_S = 3 * 86_400.0
SQLITE = (3, 35)
"""The oldest that knows RETURNING."""

TOOLS: Mapping[str, tuple[str, ...]] = {
    "glite": ("glite-wms-job-submit", "glite-wms-job-status", "glite-wms-job-cancel", "glite-wms-job-output"),
    "slurm": ("sbatch", "squeue", "scancel", "scontrol"),
    "dirac": ("dirac-wms-job-submit", "dirac-wms-job-status", "dirac-wms-job-kill", "dirac-wms-job-get-output"),
    "gfal": ("gfal-ls", "gfal-stat", "gfal-sum", "gfal-copy", "gfal-mkdir", "gfal-rename", "gfal-rm"),
    "xattr": ("gfal-xattr",),
    "git": ("git",),
}
"""What each way of working starts."""


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


# --- directories and disk


def check_directories(config: Config) -> Iterator[Check]:
    """The directories and files that the configuration names: there, ours, and nobody else's to write."""
    state = Path(config.daemon.state_dir)
    yield _directory("state directory", state, write=True, private=True)
    yield _directory("directory of the socket", Path(config.daemon.socket).parent, write=True)
    yield _directory("SRM lists", Path(config.catalogue.srm_dir))
    if config.pipelines.directory:
        yield _directory("pipelines", Path(config.pipelines.directory))
    if config.catalogue.kind == "csv":
        path = Path(config.catalogue.path)
        yield _directory("directory of the fields file", path.parent, write=True)
        is_usable = os.access(path, os.R_OK | os.W_OK)
        what = f"{path} can be read and written" if is_usable else f"{path} is not there, or cannot be read and written"
        yield Check("directories", "fields file", OK if is_usable else FAIL, what, "" if is_usable else _own(path))


def _directory(name: str, path: Path, *, write: bool = False, private: bool = False) -> Check:
    def check(state: str, what: str, step: str = "") -> Check:
        return Check("directories", name, state, f"{path} {what}", step)

    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return check(FAIL, "is not there", f"mkdir -p {path}, owned by the daemon's user")
    except OSError as error:
        return check(FAIL, f"cannot be looked at: {error.strerror}", _own(path))
    if not stat.S_ISDIR(mode):
        return check(FAIL, "is no directory", "name another one in the configuration")
    if not os.access(path, os.R_OK | os.X_OK | (os.W_OK if write else 0)):
        return check(FAIL, f"cannot be {'written' if write else 'read'} by uid {os.geteuid()}", _own(path))
    if private and mode & 0o022:
        return check(WARN, f"can be written by others (mode {stat.S_IMODE(mode):04o})", f"chmod go-w {path}")
    return check(OK, f"can be {'written' if write else 'read'}")


def _own(path: Path) -> str:
    return f"look at who may: ls -ld {path}"


def check_disk(config: Config) -> Iterator[Check]:
    """How much room there is for the database, and on which kind of file system."""
    state = Path(config.daemon.state_dir)
    try:
        room, kind = os.statvfs(state), file_system(state)
    except OSError as error:
        yield Check("disk", "state directory", WARN, f"it cannot be told: {error.strerror}")
        return
    free = room.f_bavail * room.f_frsize
    database = state / "aglowd.db"
    size = database.stat().st_size if database.exists() else 0
    state_of = FAIL if free < FREE_FAIL_BYTES else WARN if free < max(FREE_WARN_BYTES, 2 * size) else OK
    what = f"{_gib(free)} are free at {state}; the database has {_gib(size)}"
    yield Check(
        "disk", "room", state_of, what, "" if state_of == OK else "make room: aglowd waits when the disk is full"
    )
    if room.f_files and room.f_favail < FREE_INODES:
        yield Check("disk", "files", FAIL, f"only {room.f_favail} more files can be made at {state}", "remove files")
    if kind in NETWORK:
        what = f"{state} lies on a network file system ({kind}), where the database cannot be safe"
        yield Check("disk", "file system", FAIL, what, "set daemon.state_dir to a directory on a local disk")


# --- limits and versions


def check_limits() -> Iterator[Check]:
    """How many files and processes we may have."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    state = FAIL if 0 <= files < FILES_FAIL else WARN if 0 <= files < FILES_WARN else OK
    step = "" if state == OK else "systemd: LimitNOFILE=65536; a shell: ulimit -n 65536"
    yield Check("limits", "open files", state, f"{_count(files)} may be open at once, {_count(most)} at most", step)
    tasks, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    state = WARN if 0 <= tasks < TASKS_WARN else OK
    step = "" if state == OK else "systemd: TasksMax= and LimitNPROC=; a shell: ulimit -u 4096"
    yield Check("limits", "processes", state, f"{_count(tasks)} processes and threads of this user", step)


def _count(limit: int) -> str:
    return "any number of" if limit == resource.RLIM_INFINITY else str(limit)


def check_versions() -> Iterator[Check]:
    """Ourselves, Python, SQLite and the libraries that we need."""
    old = sqlite3.sqlite_version_info < SQLITE
    what = f"aglowd {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.platform()}"
    yield Check("versions", "aglowd", FAIL if old else OK, what, "install SQLite 3.35 or later" if old else "")
    found, missing = [], []
    with suppress(metadata.PackageNotFoundError):
        for line in metadata.requires("aglowd") or ():
            if "extra ==" in line:
                continue
            name = line.partition(";")[0].split(">")[0].split("=")[0].strip()
            try:
                found.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                missing.append(name)
    step = f"pip install {' '.join(missing)}" if missing else ""
    what = f"missing: {', '.join(missing)}" if missing else ", ".join(found) or "aglowd is not installed as a package"
    yield Check("versions", "libraries", FAIL if missing else OK, what, step)


def tools_of(config: Config, *, git: bool) -> list[str]:
    """Which of TOOLS this configuration works with."""
    jobs = [config.jobs, *(site.jobs for site in config.sites.values())]
    systems = {one.system for one in jobs if not (one.system == "dirac" and one.setup)}
    urls = [url for site in config.sites.values() for url in (site.results, site.archive)]
    if any(url.partition("://")[0] in ("gsiftp", "srm", "root") for url in urls):
        systems.add("gfal")
    if config.dcache.ask == "xattr":
        systems.add("xattr")
    return [name for name in TOOLS if name in systems or (name == "git" and git)]


def check_tools(config: Config, where: Callable[[str], str | None], *, git: bool) -> Iterator[Check]:
    """The programs that are started: each way of working needs all of its own."""
    for name in tools_of(config, git=git):
        missing = [tool for tool in TOOLS[name] if where(tool) is None]
        what = f"not found: {', '.join(missing)}" if missing else f"there: {', '.join(TOOLS[name])}"
        step = "install them, or name their directory in daemon.tool_path" if missing else ""
        yield Check("tools", name, FAIL if missing else OK, what, step)
    for key, argv in (("notify.command", config.notify.command), ("proxy.renew", config.proxy.renew)):
        if argv and where(argv[0]) is None:
            yield Check("tools", key, FAIL, f"{argv[0]} is not there, or cannot be run", f"correct {key}")


# --- secrets


def check_credentials(config: Config, secrets: Secrets, now: float) -> Iterator[Check]:
    """Each password and token: where it was found, who can read it, whether it was refused, and until when it is good."""
    used = {site.staging for site in config.sites.values()}
    wanted = {"picas": True, "lta": "legacy" in used, "stageit": "stageit" in used, "catalogue": True}
    for name, credential in sorted(secrets.credentials.items()):
        secret = credential.token or credential.password
        if not secret:
            if wanted.get(name, False):
                step = "docs/configure.md, Secrets, lists the places where it is looked for"
                yield Check("credentials", name, WARN, "no password and no token was found for it", step)
            continue
        origin = secrets.origins.get(name, "somewhere")
        what = f"found in {origin}{_mode_of(origin)}"
        if credential.user:
            what += f", user {credential.user}"
        if credential.frozen is not None:
            yield Check("credentials", name, FAIL, f"it is frozen: {credential.frozen}", f"put a new one into {origin}")
            continue
        ends = ends_at(secret)
        if ends is None:
            yield Check("credentials", name, OK, what)
        elif ends <= now:
            yield Check(
                "credentials", name, FAIL, f"{what}; it has ended {duration_text(now - ends)} ago", "get a new one"
            )
        else:
            state = WARN if ends - now < ENDS_SOON_S else OK
            what += f"; it is good for {duration_text(ends - now)}"
            yield Check("credentials", name, state, what, "get a new one in time" if state == WARN else "")


def _mode_of(origin: str) -> str:
    path, _, line = origin.rpartition(":")
    with suppress(OSError):
        if line.isdecimal():
            return f" (mode {stat.S_IMODE(os.stat(os.path.expanduser(path)).st_mode):04o})"
    return ""


def ends_at(secret: str) -> float | None:
    """Until when a token says that it is good: a JSON web token its `exp`, a macaroon its first `before`; None if nothing says it."""
    parts = secret.split(".")
    if len(parts) == 3:
        with suppress(ValueError, TypeError):
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
            if isinstance(claims, dict) and "exp" in claims:
                return float(claims["exp"])
    told = (caveat.partition(":") for caveat in caveats_of(secret))
    ends = [moment(value.strip()) for name, _, value in told if name.strip() == "before"]
    return min((end for end in ends if end is not None), default=None)
