"""The process that runs one pilot on this host, and outlives the daemon that started it.

A program of its own, `python -ISs local_supervisor.py DIRECTORY`, of the standard library alone. What must stay true: at
most one pilot ever runs for a directory, because whoever comes second finds the lock taken or a record written; what runs
is recorded before it runs; and nothing that the pilot started is left when its end is recorded. Times are real seconds,
as the limits of every batch system are, but for `at`, which the daemon's clock reads too.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

LOCK = "lock"
ORDER = "order.json"
PID = "pid.json"
EXIT = "exit.json"
CANCEL = "cancel.json"
STDOUT = "stdout.txt"
STDERR = "stderr.txt"
WORK = "work"
PLACES = ".places"
TURN = "turn"

CANCELLED = "cancel"
WALL_TIME = "wall time"
SIGNAL = "signal"
NOT_STARTED = "not started"

LOOK_S = 0.2
"""How often the one whose turn it is looks for a free place."""
AGAIN_S = 5.0
"""How often a kill, or a record for which there is no room on the disk, is tried again."""
SWEEP_S = 10.0
"""How long we wait for killed processes; one that hangs in the kernel is left to it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PLACE_TAKEN = signal.SIGUSR1
_WAITED_FOR = {*_ENDS, signal.SIGCHLD, _PLACE_TAKEN}


def boot_id() -> str:
    """Which start of this host it is."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def started_at(pid: int) -> int | None:
    """When the process began, in ticks since boot (field 22 of its stat); None if there is none, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def write_record(name: str, values: dict[str, Any], directory: str = ".") -> None:
    """A record that is there as a whole or not at all, also after a power failure."""
    path = os.path.join(directory, name)
    part = os.path.join(directory, f".{name}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(fd)
    os.rename(part, path)
    sync(directory)


def sync(directory: str) -> None:
    """See to it that the names in the directory survive a power failure."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def main(directory: str) -> int:
    """Start the supervisor of this directory's pilot; 0 when it is known by its record, or there was one already."""
    try:
        said = _start(directory)
    except OSError as error:
        said = str(error)
    sys.stderr.write(said)
    return 1 if said else 0


def _start(directory: str) -> str:
    """Why it cannot be started, or nothing."""
    os.umask(0o077)
    os.chdir(directory)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""
    if os.path.exists(PID) or os.path.exists(EXIT):
        return ""
    heard, tell = os.pipe()
    if os.fork() == 0:
        _supervise(lock, tell)
    os.close(tell)
    said = os.read(heard, 4096)
    return "" if said == b"ok" else said.decode("utf-8", "replace") or "it ended at once"


def _supervise(lock: int, tell: int) -> NoReturn:
    try:
        os.setsid()
        _close_all_but(lock, tell)
        # They are fetched one by one from here on, so that none comes at a bad moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        with open(ORDER, encoding="utf-8") as file:
            order: dict[str, Any] = json.load(file)
        ordered_real = os.stat(ORDER).st_mtime
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            group = file.read().strip().rpartition("\n")[2].rpartition(":")[2]
        me = {"pid": os.getpid(), "started": started_at(os.getpid()), "boot": boot_id(), "cgroup": group}
        write_record(PID, me)
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode()[:4096])
        os._exit(1)
    with suppress(OSError):  # Whoever started us may be gone already.
        os.write(tell, b"ok")
    os.close(tell)
    try:
        end = _live(order, me)
    except BaseException as error:
        end = {"by": NOT_STARTED, "reason": f"{type(error).__name__}: {error}"}
    at = order["ordered_at"] + (time.time() - ordered_real) * order["rate"]
    _record_end({"code": None, "signal": None, "by": "", "reason": "", **end, "at": at})
    os._exit(0)


def _live(order: dict[str, Any], me: dict[str, Any]) -> dict[str, Any]:
    """Wait for a place, run the pilot, and say how it ended."""
    # Cancelling marks the directory, then looks for our record; we wrote that, and look for the mark now: one sees the other.
    if os.path.exists(CANCEL):
        return {"by": CANCELLED}
    place = _take_place(order["most"])
    if place is None or signal.sigpending() & set(_ENDS):
        return {"by": _asker()}
    # A pilot whose supervisor was killed goes on using its place.
    os.set_inheritable(place, True)
    heard, go = os.pipe()
    pilot = os.fork()
    if pilot == 0:
        _become(order, heard, go, me["pid"])
    os.close(heard)
    try:
        write_record(PID, {**me, "pilot": {"pid": pilot, "started": started_at(pilot)}})
        os.write(go, b"g")
    finally:
        # Without that word it ends by itself: no pilot runs that no record knows.
        os.close(go)
    return _watch(pilot, order["wall_time_s"], order["notice_s"])


def _take_place(most: int) -> int | None:
    """The open, locked file of a place among the pilots of this host; None if somebody asks us to end before."""
    places = os.path.join("..", PLACES)
    found: list[int] = []
    main_thread = threading.get_ident()

    def wait() -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        turn = os.open(os.path.join(places, TURN), flags, 0o600)
        fcntl.flock(turn, fcntl.LOCK_EX)
        files = [os.open(os.path.join(places, str(number)), flags, 0o600) for number in range(most)]
        while not found:
            for file in files:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.append(file)
                    break
            else:
                time.sleep(LOOK_S)
        for file in {turn, *files} - {found[0]}:
            os.close(file)

    def wait_and_tell() -> None:
        try:
            wait()
        finally:
            signal.pthread_kill(main_thread, _PLACE_TAKEN)

    thread = threading.Thread(target=wait_and_tell, daemon=True)
    thread.start()
    if signal.sigwait({*_ENDS, _PLACE_TAKEN}) in _ENDS:
        return None
    thread.join()
    if not found:
        raise OSError(f"{os.path.abspath(places)}: there is no place to be had")
    return found[0]


def _become(order: dict[str, Any], heard: int, go: int, supervisor: int) -> NoReturn:
    """Turn this process into the pilot, once we hear that it is recorded."""
    try:
        os.close(go)
        os.setsid()
        # When the supervisor dies, so shall the pilot, whose limits nobody would watch.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        for fd, name in ((1, STDOUT), (2, STDERR)):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.dup2(file, fd)
        os.nice(order["nice"])
        if order["memory_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"],) * 2)
        if order["cpu_s"] is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_s"], order["cpu_s"] + 30))
        os.chdir(WORK)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and who is executed would too.
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() != supervisor or os.read(heard, 1) != b"g":
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        environment = {**os.environ, "AGLOWD_JOB_ID": order["job"]}
        os.execvpe(order["argv"][0], order["argv"], environment)  # noqa: S606 # No shell is wanted: the words are an argv.
    except BaseException as error:
        os.write(2, f"the pilot cannot be started: {error}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _watch(pilot: int, wall_time_s: float, notice_s: float) -> dict[str, Any]:
    """Wait for the pilot's end, or bring it about: a word at first, a kill when the notice has passed."""
    begun = time.monotonic()
    warn_at, kill_at = begun + max(wall_time_s / 2, wall_time_s - notice_s), begun + wall_time_s
    by = ""
    while True:
        end = _ended(pilot)
        if end is not None:
            break
        now = time.monotonic()
        if now >= kill_at:
            _signal_group(pilot, signal.SIGKILL)
            kill_at = now + AGAIN_S
        elif now >= warn_at and not by:
            by = WALL_TIME
            _signal_group(pilot, signal.SIGTERM)
        wake_at = kill_at if by else min(warn_at, kill_at)
        got = signal.sigtimedwait(_WAITED_FOR, max(0.0, wake_at - now))
        if got is not None and got.si_signo in _ENDS and by in ("", WALL_TIME):
            by = _asker()
            _signal_group(pilot, signal.SIGTERM)
            kill_at = min(kill_at, time.monotonic() + notice_s)
    # It is not reaped yet, so the number of its group is still its own.
    _signal_group(pilot, signal.SIGKILL)
    _sweep()
    if end.si_code == os.CLD_EXITED:
        return {"code": end.si_status, "by": by}
    return {"signal": end.si_status, "by": by}


def _asker() -> str:
    return CANCELLED if os.path.exists(CANCEL) else SIGNAL


def _ended(pilot: int) -> os.waitid_result | None:
    """How the pilot ended, if it did; what else became ours and ended is reaped."""
    while True:
        end = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if end is None or end.si_pid == pilot:
            return end
        os.waitpid(end.si_pid, 0)


def _sweep() -> None:
    """Kill what the pilot left behind: it became ours when its parent ended, so nobody else can have its number."""
    until = time.monotonic() + SWEEP_S
    me = os.getpid()
    with suppress(ChildProcessError):  # None is left.
        while time.monotonic() < until:
            with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:
                for child in file.read().split():
                    with suppress(PermissionError):
                        os.kill(int(child), signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)


def _signal_group(pilot: int, number: int) -> None:
    """Signal the pilot and its group; before it has made one, itself: no word to it is lost."""
    # What is left of it may have taken other rights: that is beyond us.
    with suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pilot, number)
        except ProcessLookupError:
            os.kill(pilot, number)


def _record_end(end: dict[str, Any]) -> None:
    """Write how it ended, however long the disk is full, and remove what it worked with: there are secrets among that."""
    while True:
        try:
            write_record(EXIT, end)
        except FileNotFoundError:
            return  # Somebody removed the directory: nobody wants to know.
        except OSError:
            shutil.rmtree(WORK, ignore_errors=True)
            time.sleep(AGAIN_S)
        else:
            shutil.rmtree(WORK, ignore_errors=True)
            return


def _close_all_but(*kept: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
