#!/usr/bin/env python3
"""aglowd's pilot: takes PiCaS tokens of one type, one after the other, and runs the command that each one names.

It runs on a worker node with Python 3.6 or later and nothing else, in a directory that holds `picas.json`:
{"url", "database", "user", "password"}. `--help` tells its arguments. What must stay true:

- A token is done by one pilot only. Each lock has an id of its own (`aglowd.lock_id`), and whatever is written rests on a
  revision that was read with that id in it: a pilot that froze, and wakes after its token was given away, writes nothing.
- One result is accepted. Each lock uploads to a name of its own; the one that `Results_location` names is the result.
- No result is lost because somebody else changed a field, or because the database is away for hours.
- No token stays locked because something went wrong here: it becomes an error, or is given back.

Exit codes: 0 worked, had nothing to do, or was ended by a signal; 1 the database refused us or stayed away; 2 wrong
arguments or picas.json; 3 this node or the pilot itself is broken.
"""
# ruff: noqa: UP006, UP035, UP045 - newer ways to write types are unknown to Python 3.6.
# ruff: noqa: S310 - the addresses are those that the operator gave.

import argparse
import base64
import gzip
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid
import zlib
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, Optional, Set, Tuple
from urllib.parse import quote, unquote

HTTP_S = 60.0
CLAIM_PATIENCE_S = 1800.0
"""For a database that is away while we hold no result."""
LAST_S = 60.0
"""After a signal nothing is tried for longer: the batch system will soon kill us."""
KILL_S = 10.0
"""From SIGTERM to SIGKILL for a command: batch systems give us 30 s, and the token must be given back within them."""
UPLOAD_PAUSES_S = (2.0, 30.0, 300.0, 1800.0, 0.0)
HEAD_BYTES, TAIL_BYTES = 64 << 10, 192 << 10
"""What is kept of a command's stdout, and of its stderr."""
HISTORY = 20
BLOCK_BYTES = 4 << 20
JOB_IDS = (
    ("aglowd_job_id", "AGLOWD_JOB_ID"),
    ("dirac_job_id", "DIRACJOBID"),
    ("dirac_job_id", "JOBID"),
    ("wms_job_id", "GLITE_WMS_JOBID"),
    ("wms_job_id", "EDG_WL_JOBID"),
    ("arc_job_id", "GRID_GLOBAL_JOBID"),
    ("cream_job_id", "CREAM_JOBID"),
    ("slurm_job_id", "SLURM_JOB_ID"),
    ("pbs_job_id", "PBS_JOBID"),
)
"""Token field and variable. The grid's come before the cluster's: a grid job may run as a Slurm job somewhere."""

Document = Dict[str, Any]
Check = Callable[[], None]


class Conflict(Exception):
    """The document is not what it was when it was read."""


class Missing(Exception):
    """There is no such document, view or attachment."""


class Away(Exception):
    """The database did not answer while there was patience. Its arguments: the message, and whether it may have been done."""


class Busy(OSError):
    """The database, or what is in front of it, says that it did not take the request."""


class Refused(Exception):
    """The database says no, and asking again would not help. Its arguments: the message, and HTTP's status."""


class Fenced(Exception):
    """The token is no longer ours."""


class Stopped(Exception):
    """A signal told us to end."""


class Failed(Exception):
    """The token's own work failed: the message, and the exit code if it was the command's."""


def say(text: str) -> None:
    """One line to stderr, which the batch system brings home."""
    try:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} pilot: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # Nobody reads it any more, which is no reason to end the work.


def merge(document: Document, *changes: Document) -> Document:
    """A copy with the changes in it: objects field by field, None takes a field away, anything else replaces it."""
    merged = dict(document)
    for name, value in (item for change in changes for item in change.items()):
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            old = merged.get(name)
            merged[name] = merge(old if isinstance(old, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def section(document: Document, *names: str) -> Document:
    """The object at that place in a token, {} if nothing is there."""
    found = document
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise Failed(f"found {type(found).__name__} at {' → '.join(names)}; expected an object")
    return found


class Halt:
    """Whether a signal has told us to end. Whoever waits, waits here."""

    def __init__(self) -> None:
        self.why, self.at = "", 0.0

    def catch(self, number: int, frame: Any) -> None:
        """The handler. It takes no locks, since it may run in the middle of anything."""
        if not self.why:
            self.at, self.why = time.monotonic(), signal.Signals(number).name

    def sleep(self, seconds: float) -> None:
        """A signal cuts the sleep short; after it nobody sleeps long."""
        before = self.why
        until = time.monotonic() + (min(seconds, 1.0) if before else seconds)
        while self.why == before and time.monotonic() < until:
            time.sleep(max(0.0, min(0.2, until - time.monotonic())))

    def tries(self, patience_s: float, first_s: float = 1.0) -> Iterator[None]:
        """Once, and again with growing pauses until they add up to the patience. The time of a frozen pilot does not count."""
        waited, pause_s = 0.0, first_s
        while True:
            yield
            if waited >= patience_s or (self.why and time.monotonic() > self.at + LAST_S):
                return
            self.sleep(pause_s * random.uniform(0.7, 1.3))
            waited, pause_s = waited + pause_s, min(pause_s * 2, 300.0)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """The password is for one server; no answer sends it to another."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Base:
    """The token database, CouchDB, as one user sees it."""

    def __init__(self, settings: Dict[str, str], halt: Halt) -> None:
        self.halt = halt
        self.url = f"{settings['url'].rstrip('/')}/{quote(settings['database'], safe='')}"
        basic = base64.b64encode(f"{settings['user']}:{settings['password']}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json", "User-Agent": "pilot"}
        context = ssl.create_default_context()
        if os.path.isdir(grid_cas()):
            context.load_verify_locations(capath=grid_cas())
            # From Python 3.13 on the default is stricter than many of the grid's authorities.
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        handlers = (NoRedirect(), urllib.request.HTTPSHandler(context=context))
        self._open = urllib.request.build_opener(*handlers).open

    def ask(self, method: str, path: str, body: Any = None, patience_s: float = 0.0, raw: bool = False) -> Any:
        """The answer's JSON; if `raw`, its bytes as stored and how they are encoded.

        Raises Conflict, Missing, Refused, and Away when patience is over.
        """
        problem, in_doubt = "", False
        for _ in self.halt.tries(patience_s):
            try:
                return self._ask_once(method, path, body, raw)
            except (OSError, http.client.HTTPException, ValueError) as error:
                in_doubt = in_doubt or not isinstance(error, Busy)
                problem = f"{method} {path}: {error or type(error).__name__}"
                say(f"the database does not answer as it should: {problem}")
        raise Away(f"{self.url} does not answer: {problem}", in_doubt)

    def _ask_once(self, method: str, path: str, body: Any, raw: bool) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Accept-Encoding": "gzip"} if raw else self._headers
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)
        try:
            with self._open(request, timeout=HTTP_S) as response:
                content, encoding = response.read(), response.headers.get("Content-Encoding")
        except urllib.error.HTTPError as error:
            with error:
                raise self._explain(error, f"{method} {path}") from None
        if raw:
            return content, encoding
        answer = json.loads(content.decode())
        if not isinstance(answer, dict) or (method == "PUT" and not isinstance(answer.get("rev"), str)):
            raise ValueError(f"found {content[:100]!r}; expected what CouchDB answers")
        return answer

    def _explain(self, error: urllib.error.HTTPError, what: str) -> Exception:
        """What an error answer means; an OSError is worth another try."""
        try:
            reason = str(json.loads(error.read(2000).decode())["reason"])
        except (ValueError, KeyError, TypeError):
            reason = ""  # It is not CouchDB who answers, but something in front of it.
        if error.code == 409:
            return Conflict(what)
        if error.code == 404 and reason and reason not in ("Database does not exist.", "no_db_file"):
            return Missing(f"{what}: {reason}")
        if error.code in (429, 503):
            return Busy(f"HTTP {error.code}")
        if error.code == 408 or error.code >= 500 or (error.code == 404 and not reason):
            return OSError(f"HTTP {error.code}")
        return Refused(f"{self.url} refuses {what}: HTTP {error.code} {reason}", error.code)


class Token:
    """A token that we want or hold: its document as last seen, and what of ours is not written yet.

    Two threads use it, the work and its heartbeat; they write in turn.
    """

    def __init__(self, base: Base, document: Document) -> None:
        self._base = base
        self.document = document
        self.path = quote(str(document["_id"]), safe="")
        self.lock, self.lock_id = int(time.time()), uuid.uuid4().hex
        self.is_fenced = self.is_refused = False
        self.in_doubt = False
        """Whether the outcome may have been written though nobody told us."""
        self._unwritten: Document = {}
        self._mutex = threading.Lock()

    def note(self, status: str, **fields: Any) -> None:
        """Remember fields for the next write, and when this status was reached."""
        with self._mutex:
            self._unwritten = merge(self._unwritten, {"status": status, "times": {status: int(time.time())}})
            self._unwritten.update(fields)

    def write(self, patience_s: float = 0.0, change: Optional[Callable[[Document], Document]] = None) -> None:
        """Write what was noted, a fresh beat and the change, on top of what others wrote. Raises Fenced, Away, Refused."""
        with self._mutex:
            if self.is_fenced:
                raise Fenced("seen before")
            problem = "others change it again and again"
            for _ in self._base.halt.tries(max(patience_s, 5.0), 0.1):
                new = merge(self.document, self._unwritten, change(self.document) if change else {})
                new = merge(new, {"aglowd": {"beat": int(time.time())}})
                try:
                    new["_rev"] = self._base.ask("PUT", self.path, new)["rev"]
                except Conflict:
                    self._read_again(patience_s)
                    continue
                except Away as error:
                    problem, self.in_doubt = error.args[0], self.in_doubt or error.args[1]
                    if not patience_s:
                        raise
                    continue
                self.document, self._unwritten = new, {}
                return
        raise Away(f"{self.path}: {problem}", self.in_doubt)

    def _read_again(self, patience_s: float) -> None:
        """Take what others wrote as what the next write rests on, if the token is still ours."""
        try:
            found = self._base.ask("GET", self.path, patience_s=patience_s)
        except Missing:
            self.is_fenced = True
            raise Fenced("it was deleted") from None
        mark = found.get("aglowd")
        lock_id = mark.get("lock_id") if isinstance(mark, dict) else None
        # Our own last write may have come through without its answer, hence the second value of done.
        is_open = found.get("done") in (0, self._unwritten.get("done"))
        if lock_id != self.lock_id or found.get("lock") != self.lock or not is_open:
            self.is_fenced = True
            status, lock, hostname = (found.get(name) for name in ("status", "lock", "hostname"))
            raise Fenced(f"found status {status!r}, lock {lock!r}, hostname {hostname!r}")
        self.document = found

    def beat(self) -> None:
        """Write what was noted and a fresh beat, if the database is there. Once it has refused us it is left in peace."""
        try:
            if not self.is_refused:
                self.write()
        except Away as error:
            say(f"{self.path}: not written for now: {error.args[0]}")
        except Refused as error:
            self.is_refused = True
            say(f"{self.path}: no more beats: {error}")

    def finish(self, patience_s: float, attachments: Document, fields: Document) -> None:
        """Write the outcome and the logs at once; without the logs if the database will not have them."""
        self.note(done=int(time.time()), _attachments=attachments, **fields)
        self.in_doubt = False
        try:
            self.write(patience_s)
        except Refused as error:
            if error.args[1] in (401, 403) or not self._unwritten.pop("_attachments", None):
                raise
            say(f"{self.path}: once more without logs: {error.args[0]}")
            self.write(patience_s)

    def give_back(self, patience_s: float, **entry: Any) -> None:
        """Let others have it, as PiCaS scrubs; the entry goes into its history."""

        def change(document: Document) -> Document:
            scrubs, mark = document.get("scrub_count"), document.get("aglowd")
            past = mark.get("history") if isinstance(mark, dict) else None
            history = [*(past if isinstance(past, list) else []), entry][-HISTORY:]
            return {"scrub_count": scrubs + 1 if isinstance(scrubs, int) else 1, "aglowd": {"history": history}}

        self.note("reset", lock=0, done=0, hostname="", output="")
        self.write(patience_s, change)


class Log:
    """A file that keeps the first and the last part of what a program prints, so that it never fills the disk."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - it stays open as long as the work.
        self._total = 0

    def fill(self, pipe: IO[bytes]) -> None:
        """Read the pipe to its end, whatever happens to the file: a program whose output nobody takes stands still."""
        for data in iter(lambda: os.read(pipe.fileno(), 1 << 16), b""):
            try:
                self._total += self._file.write(data) or 0
                self._shorten(HEAD_BYTES + 4 * TAIL_BYTES)
            except (OSError, ValueError):
                continue
        pipe.close()

    def _shorten(self, most: int) -> None:
        if self._file.seek(0, os.SEEK_END) > most:
            self._file.seek(-TAIL_BYTES, os.SEEK_END)
            tail = self._file.read(TAIL_BYTES)
            self._file.truncate(HEAD_BYTES)
            self._file.seek(HEAD_BYTES)
            self._file.write(b"\n[... %d bytes left out ...]\n" % (self._total - HEAD_BYTES - TAIL_BYTES) + tail)

    def content(self) -> bytes:
        self._shorten(HEAD_BYTES + TAIL_BYTES)
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        self._file.close()


def run(argv: List[str], check: Check, out: Log, err: Log, **how: Any) -> int:
    """Run a program in a process group of its own; its exit code, 128 + number for a signal.

    `check` is called twice a second; when it raises, the whole group ends before the exception goes on.
    """
    pipe: Any = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, **how)
    pumps = [
        threading.Thread(target=log.fill, args=(pipe,), daemon=True)
        for log, pipe in ((out, process.stdout), (err, process.stderr))
    ]
    for pump in pumps:
        pump.start()
    try:
        while True:
            try:
                code = process.wait(0.5)
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                check()
    finally:
        # What the program left behind in its group ends with it.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(KILL_S)
            except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                continue
        for pump in pumps:
            pump.join(10.0)  # What left the group may hold the pipes for ever.


def grid_cas() -> str:
    return os.environ.get("X509_CERT_DIR") or "/etc/grid-security/certificates"


class Place:
    """Where one result goes: its URL, and how a file gets there. Other schemes than file:// need a program on PATH."""

    PROGRAMS = (("gfal-copy", "gsiftp https davs"), ("globus-url-copy", "gsiftp"), ("curl", "https davs"))

    def __init__(self, url: str, check: Check, logs: str) -> None:
        self.url, self._check, self._logs = url, check, logs
        scheme, _, rest = url.partition("://")
        if scheme not in ("file", "gsiftp", "https", "davs") or (scheme == "file" and not rest.startswith("/")):
            raise Failed(f"found RESULTS_DIR with {url[:200]!r}; expected file:///, gsiftp://, https:// or davs://")
        self._path = unquote(rest) if scheme == "file" else ""
        usable = [name for name, schemes in self.PROGRAMS if scheme in schemes.split() and shutil.which(name)]
        if not self._path and not usable:
            raise OSError(f"no program on PATH can write to {scheme}://")
        self._program = usable[0] if usable else ""

    def put(self, source: str, size_bytes: int, adler32: int) -> None:
        """Copy the file and look whether it arrived; raises OSError."""
        timeout_s = 3600.0 + size_bytes / 1e6
        if self._path:
            self._write(source)
            self._compare("size", os.path.getsize(self._path), size_bytes)
        elif self._program == "gfal-copy":
            limit = str(int(timeout_s))
            self._run(["gfal-copy", "-f", "-p", "-t", limit, "-T", limit, f"file://{source}", self.url], timeout_s)
        elif self._program == "globus-url-copy":
            self._run(["globus-url-copy", "-cd", f"file://{source}", self.url], timeout_s)
        else:
            self._run(self._curl("--upload-file", source), timeout_s)
        if not self._path and shutil.which("gfal-stat"):
            found = re.search(r"^\s*Size:\s+(\d+)", self._run(["gfal-stat", self.url], 600.0), re.MULTILINE)
            self._compare("size", int(found.group(1)) if found else None, size_bytes)
        elif not self._path:
            say(f"{self.url}: there is no gfal-stat here, so its size is not checked")
        if not self._path and shutil.which("gfal-sum"):
            told = re.search(r"\b([0-9a-fA-F]{1,8})\s*$", self._run(["gfal-sum", self.url, "ADLER32"], timeout_s))
            self._compare("adler32", int(told.group(1), 16) if told else None, adler32)

    def _write(self, source: str) -> None:
        """As a file beside its name, which it gets when it is on the disk."""
        directory = os.path.dirname(self._path)
        os.makedirs(directory, exist_ok=True)
        with open(source, "rb") as reader, open(f"{self._path}.part", "wb") as writer:
            for block in iter(lambda: reader.read(BLOCK_BYTES), b""):
                self._check()
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        os.rename(f"{self._path}.part", self._path)
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    def _curl(self, *words: str) -> List[str]:
        """Identity and CAs are files that the job has; `davs` is how the grid writes https."""
        proxy = os.environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.getuid()}"  # noqa: S108 - where it lies by custom.
        identity = ["--cert", proxy, "--key", proxy] if os.path.isfile(proxy) else []
        trust = ["--capath", grid_cas()] if os.path.isdir(grid_cas()) else []
        fixed = ["curl", "--fail", "--silent", "--show-error", "--location"]
        return [*fixed, *identity, *trust, *words, re.sub("^davs:", "https:", self.url)]

    def _run(self, argv: List[str], timeout_s: float, check: Optional[Check] = None) -> str:
        until = time.monotonic() + timeout_s

        def watch() -> None:
            (check or self._check)()
            if time.monotonic() > until:
                raise OSError(f"{argv[0]} took longer than {timeout_s:.0f} s")

        out, err = Log(f"{self._logs}.out"), Log(f"{self._logs}.err")
        try:
            code = run(argv, watch, out, err)
            said, complaint = (log.content().decode("utf-8", "replace") for log in (out, err))
        finally:
            out.close()
            err.close()
        if code:
            raise OSError(f"{argv[0]} ended with {code}: {(complaint or said)[-300:].strip()}")
        return said

    def _compare(self, what: str, found: Optional[int], expected: int) -> None:
        if found != expected:
            raise OSError(f"{self.url}: found {what} {found} there; expected {expected}")

    def remove(self) -> None:
        """Withdraw what was written, as well as one can."""
        try:
            if self._path:
                for path in (self._path, f"{self._path}.part"):
                    if os.path.exists(path):
                        os.remove(path)
            elif shutil.which("gfal-rm"):
                self._run(["gfal-rm", self.url], 120.0, lambda: None)
            elif self._program == "curl":
                self._run(self._curl("--request", "DELETE"), 120.0, lambda: None)
            else:
                raise OSError("no program here can remove it")
        except OSError as error:
            say(f"{self.url} may be left there: {error}")


class Work:
    """The work of one token, in a directory of its own: attachments in, the command, its result out."""

    def __init__(self, base: Base, token: Token, directory: str, secret: str) -> None:
        self._base, self._token, self._secret = base, token, secret
        self._top, self._inside = directory, os.path.join(directory, "work")
        self._results = os.path.join(self._inside, "results")
        self._config: Document = {}
        self.place: Optional[Place] = None
        self.logs: Dict[str, Log] = {}

    def check(self) -> None:
        """Raise when there is no sense in going on."""
        if self._token.is_fenced:
            raise Fenced("its heartbeat saw it")
        if self._base.halt.why:
            raise Stopped(self._base.halt.why)

    def do(self) -> Document:
        """All of it; url, size_bytes and adler32 of the result, {} if none is wanted. Raises Failed, or what else goes wrong."""
        self._config = section(self._token.document, "config.json")
        self._token.note("building_sandbox")
        os.makedirs(self._results)
        # What cannot succeed is seen before anything is computed.
        argv, url = self._command(), self._result_url()
        self._token.note("launched")
        self._enter("downloading")
        environment = self._environment()
        self._enter("running")
        self._execute(argv, environment)
        packed = self._pack(wanted=url is not None)
        if packed is None or url is None:
            return {}
        self._enter("uploading")
        return self._upload(packed[0], url + packed[1])

    def attachments(self) -> Document:
        """What the command printed, as it goes into the token."""
        stamp = time.strftime("%d/%m/%Y_%H.%M.%S", time.gmtime())
        return {
            f"{stamp}_{name}": {"content_type": "text/plain", "data": base64.b64encode(log.content()).decode()}
            for name, log in self.logs.items()
        }

    def _enter(self, status: str) -> None:
        self.check()
        self._token.note(status)
        self._token.beat()

    def _command(self) -> List[str]:
        """`config.json` → `command`, in the container that is named beside it, if one is."""
        given = self._config.get("command")
        if isinstance(given, str) and given.strip():
            argv = ["/bin/sh", "-c", given]
        elif isinstance(given, list) and given and all(isinstance(word, str) for word in given):
            argv = given
        else:
            raise Failed(f'found {given!r} as config.json → "command"; expected a shell line or a list of words')
        container = section(self._config, "container")
        if set(container) - {"singularity"}:
            raise Failed(f"found the container {', '.join(sorted(container))}; expected singularity")
        terms = section(container, "singularity")
        image = str(terms.get("img") or terms.get("SIMG") or "")
        if not image:
            return argv
        program = shutil.which("singularity") or shutil.which("apptainer")
        if program is None:
            raise OSError(f"neither singularity nor apptainer is on PATH, and the token wants {image}")
        image = os.path.abspath(image) if os.path.exists(image) else image
        return [program, "exec", "--bind", self._inside, "--pwd", self._inside, image, *argv]

    def _result_url(self) -> Optional[str]:
        """The result's URL but for its ending; None if the token names no place for one."""
        document = self._token.document
        directory = str(document.get("RESULTS_DIR") or "").rstrip("/")
        if not directory:
            return None
        name = re.sub(r"\.tar$", "", str(document.get("RESULT_NAME") or document["_id"]))
        url = f"{directory}/{re.sub('[^A-Za-z0-9_.+-]', '_', name)}-{self._token.lock_id[:12]}"
        Place(url, self.check, "")
        return url

    def _environment(self) -> Dict[str, str]:
        """The job's own, and the token's variables; the attachments that they name lie in the working directory."""
        # Launchers of others are given the password in a variable; the command has no use for it.
        secret = self._secret.encode()
        environment = {name: value for name, value in os.environ.items() if os.fsencode(value) != secret}
        for variable, field in section(self._config, "variables", "_token_keys").items():
            value = self._token.document.get(str(field))
            environment.pop(variable.lstrip("$"), None)
            if isinstance(value, list):
                value = " ".join(map(str, value))
            if value is not None:
                environment[variable.lstrip("$")] = value if isinstance(value, str) else json.dumps(value)
        for variable, name in section(self._config, "variables", "_attachments").items():
            self._fetch(str(name))
            environment[variable.lstrip("$")] = str(name)
        return environment

    def _fetch(self, name: str) -> None:
        stub = section(self._token.document, "_attachments").get(name)
        if stub is None or os.path.basename(name) != name or name in (".", "..", "results"):
            raise Failed(
                f"config.json names the attachment {name!r}; expected one that the token has, a plain file name"
            )
        found = ""
        for _ in range(3):
            self.check()
            try:
                path = f"{self._token.path}/{quote(name, safe='')}"
                stored, encoding = self._base.ask("GET", path, patience_s=CLAIM_PATIENCE_S, raw=True)
                # CouchDB compresses texts, and its digest is of what it stores.
                data = gzip.decompress(stored) if encoding == "gzip" else stored
            except Missing as error:
                raise Failed(f"the attachment {name} has gone: {error}") from error
            except (OSError, EOFError, zlib.error) as error:
                found = f"{type(error).__name__} in gzip"
                continue
            found = md5(stored)
            if stub.get("digest") in (found, md5(data)):
                with open(os.path.join(self._inside, name), "wb") as file:
                    file.write(data)
                return
        raise Failed(f"the attachment {name} is damaged: found digest {found}; expected {stub.get('digest')}")

    def _execute(self, argv: List[str], environment: Dict[str, str]) -> None:
        self.logs = {name: Log(os.path.join(self._top, name)) for name in ("stdout.txt", "stderr.txt")}
        try:
            code = run(argv, self.check, *self.logs.values(), cwd=self._inside, env=environment)
        except (OSError, ValueError) as error:
            raise Failed(f"the command cannot be started: {error}", 127) from error
        if code == 128 + signal.SIGTERM:
            # A batch system that ends us tells all our processes at once; then it is no failure of the command.
            self._base.halt.sleep(2.0)
        if code:
            self.check()
            raise Failed(f"the command ended with exit code {code}", code)

    def _pack(self, wanted: bool) -> Optional[Tuple[str, str]]:
        """The one file that is the result, and the ending of its name; None if there is none and none is wanted."""
        names = sorted(os.listdir(self._results)) if os.path.isdir(self._results) else []
        if bool(names) != wanted:
            lack = "left nothing in results/" if wanted else "left results, and the token has no RESULTS_DIR for them"
            raise Failed(f"the command ended well and {lack}")
        if not names:
            return None
        single = os.path.join(self._results, names[0])
        if len(names) == 1 and os.path.isfile(single):
            ending = re.search(r"(\.tar)?\.[A-Za-z0-9]{1,8}$", names[0])
            return single, ending.group(0) if ending else ""
        packed = os.path.join(self._top, "results.tar")
        with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT, dereference=True) as tar:
            for name in names:
                self.check()
                tar.add(os.path.join(self._results, name), arcname=name)
        return packed, ".tar"

    def _upload(self, path: str, url: str) -> Document:
        size_bytes, adler32 = os.path.getsize(path), 1
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(BLOCK_BYTES), b""):
                adler32 = zlib.adler32(block, adler32)
        self.place = Place(url, self.check, os.path.join(self._top, "copy"))
        for pause_s in UPLOAD_PAUSES_S:
            self.check()
            try:
                self.place.put(path, size_bytes, adler32)
                break
            except OSError as error:
                say(f"{url}: the upload failed: {error}")
                if not pause_s:
                    raise Failed(f"the result could not be uploaded: {error}") from error
                self._base.halt.sleep(pause_s)
        return {"url": url, "size_bytes": size_bytes, "adler32": adler32}


class Pilot:
    """Takes tokens until none is left, its time is over, or a signal comes."""

    def __init__(self, options: argparse.Namespace, settings: Dict[str, str]) -> None:
        self.halt = Halt()
        self._options, self._secret = options, settings["password"]
        self._base = Base(settings, self.halt)
        self._hostname = socket.gethostname()
        self._job_field, self._job = find_job(os.environ, self._hostname)
        self._seen: Dict[str, Any] = {}
        self._odd: Set[str] = set()
        self._began = time.monotonic()

    def run(self) -> int:
        """Work; the exit code."""
        mark = {"pilot": self._options.key, "type": self._options.type, "job": self._job, "hostname": self._hostname}
        try:
            self._mark(started=int(time.time()), ended=None, why="", **mark)
            why, code = self._take_tokens(), 0
        except Missing as error:
            why, code = f"error: there is no view of tokens to do: {error}", 1
        except (Refused, Away) as error:
            why, code = f"error: {error.args[0]}", 1
            if error.args[1:] in ((401,), (403,)):
                say(why)
                return code  # One refusal is final: the mark is not tried.
        except Exception as error:
            why, code = f"error: {type(error).__name__}: {error}", 3
            traceback.print_exc()
        say(f"ends: {why}")
        self._mark(ended=int(time.time()), why=why)
        return code

    def _mark(self, **fields: Any) -> None:
        """Leave a mark in the database, so that it can be told which pilots ran. Nothing hangs on it."""
        name = f"aglowd:pilot:{self._job}"
        path = quote(name, safe="")
        try:
            try:
                document = self._base.ask("GET", path, patience_s=LAST_S)
            except Missing:
                document = {"_id": name}
            document["aglowd"] = {**section(document, "aglowd"), **fields}
            self._base.ask("PUT", path, document, LAST_S)
        except (Away, Conflict, Missing, Failed, Refused) as error:
            if error.args[1:] == (401,):
                raise
            say(f"the mark {name} is not written: {error.args[0]}")

    def _take_tokens(self) -> str:
        """Do what there is to do; why it ended."""
        taken, pause_s = 0, 1.0
        idle_since: Optional[float] = None
        while not self.halt.why:
            if self._options.max_time is not None and time.monotonic() - self._began >= self._options.max_time:
                return "time over"
            if self._options.max_tokens is not None and taken >= self._options.max_tokens:
                return "tokens done"
            names = [row["id"] for row in self._todo() if row["id"] not in self._odd]
            token = self._claim(names)
            if token is not None:
                self._work(token)
                taken, pause_s, idle_since = taken + 1, 1.0, None
                continue
            if names:
                # Others were quicker; there are tokens for all.
                idle_since = None
                self.halt.sleep(random.uniform(0.0, pause_s))
            else:
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since >= self._options.idle:
                    return "nothing left"
                self.halt.sleep(min(pause_s, self._options.idle))
            pause_s = min(pause_s * 2, 60.0)
        return self.halt.why

    def _todo(self) -> List[Dict[str, Any]]:
        """Rows of some tokens that are to be done: of the type's own view, or where that is missing of aglowd's over all types."""
        own = f"_design/{quote(self._options.type, safe='')}/_view/todo?limit=100"
        key = quote(json.dumps([self._options.type, "todo"]), safe="")
        common = f"_design/aglowd/_view/states?reduce=false&limit=100&key={key}"
        try:
            found = self._base.ask("GET", own, patience_s=CLAIM_PATIENCE_S)
        except Missing as missing:
            try:
                found = self._base.ask("GET", common, patience_s=CLAIM_PATIENCE_S)
            except Missing:
                raise missing from None
        return list(found.get("rows", []))

    def _claim(self, names: List[str]) -> Optional[Token]:
        """One of these tokens, locked for us; None if others took all that we tried."""
        for name in random.sample(names, min(10, len(names))):
            try:
                document = self._base.ask("GET", quote(name, safe=""), patience_s=CLAIM_PATIENCE_S)
            except Missing:
                continue
            if [document.get(field) for field in ("type", "lock", "done")] != [self._options.type, 0, 0]:
                if self._seen.get(name) == document["_rev"]:
                    # Twice unchanged in a view that it does not belong to, so nobody has just taken it.
                    say(f"{name} is listed as to do, and its type, lock or done says otherwise: left to people")
                    self._odd.add(name)
                self._seen[name] = document["_rev"]
                continue
            token = Token(self._base, document)
            # What earlier locks left there would be taken for ours.
            fields: Document = {field: None for field, _ in JOB_IDS}
            fields.update({self._job_field: self._job} if self._job_field else {})
            fields.update(output="", exit_code="", progress=0, launcher_status=None, Results_location="")
            mark = {"lock_id": token.lock_id, "result": None}
            token.note("pulling_container", lock=token.lock, hostname=self._hostname, aglowd=mark, **fields)
            try:
                token.write(CLAIM_PATIENCE_S)
            except Fenced:
                continue
            return token
        return None

    def _work(self, token: Token) -> None:
        """All that happens to a token that we hold. Raises what must end the pilot."""
        say(f"{token.path}: taken, lock {token.lock_id}")
        ended = threading.Event()
        beats = threading.Thread(target=self._keep_beating, args=(token, ended), daemon=True)
        beats.start()
        top, work, fields, broken = "", None, {}, None
        try:
            try:
                top = tempfile.mkdtemp(prefix="aglowd-", dir=self._options.scratch)
                work = Work(self._base, token, top, self._secret)
                result = work.do()
                fields = {"status": "done", "output": 0, "exit_code": 0, "progress": 1}
                fields.update(result and {"Results_location": result["url"], "aglowd": {"result": result}})
            except Failed as error:
                fields = failure(*error.args)
            except (Fenced, Stopped, Away):
                raise
            except Exception as error:
                # It may be this node, which would spoil the next token as well.
                traceback.print_exc()
                fields, broken = failure(f"{type(error).__name__}: {error}"), error
            finally:
                ended.set()
                beats.join()
        except Fenced as error:
            say(f"{token.path} is not ours any more, nothing is written: {error}")
            self._withdraw(work)
        except (Stopped, Away) as error:
            self._withdraw(work)
            self._give_back(token, error.args[0])
        else:
            self._finish(token, work, fields)
        finally:
            for log in work.logs.values() if work else ():
                log.close()
            shutil.rmtree(top, ignore_errors=True)
        if broken is not None:
            raise broken

    def _keep_beating(self, token: Token, ended: threading.Event) -> None:
        while not ended.wait(self._options.heartbeat):
            try:
                token.beat()
            except Fenced:
                return  # The token knows; the work looks at it.
            except Exception as error:
                say(f"{token.path}: a beat failed: {error!r}")

    def _finish(self, token: Token, work: Optional[Work], fields: Document) -> None:
        """Write the outcome, for as long as there is patience."""
        if fields["status"] != "done":
            self._withdraw(work)
        try:
            token.finish(self._options.patience, work.attachments() if work else {}, fields)
            say(f"{token.path}: {fields['status']} {fields.get('launcher_status', '')}")
        except Fenced as error:
            say(f"{token.path} is not ours any more, its outcome is dropped: {error}")
            if not token.in_doubt:
                self._withdraw(work)
        except (Away, Refused):
            # It may have been written all the same, so the result stays where it is.
            say(f"{token.path}: it is not known whether this was written: {json.dumps(fields)}")
            raise

    def _give_back(self, token: Token, why: str) -> None:
        try:
            token.give_back(
                self._options.patience, at=int(time.time()), why=why, job=self._job, hostname=self._hostname
            )
            say(f"{token.path}: given back: {why}")
        except Fenced as error:
            say(f"{token.path} is not ours any more: {error}")

    @staticmethod
    def _withdraw(work: Optional[Work]) -> None:
        if work is not None and work.place is not None:
            say(f"{work.place.url} is withdrawn")
            work.place.remove()


def md5(data: bytes) -> str:
    """A digest as CouchDB writes it."""
    return "md5-" + base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: S324 - CouchDB's choice.


def failure(text: str, code: int = 1) -> Document:
    return {"status": "error", "output": code, "exit_code": code, "launcher_status": text}


def find_job(environment: Mapping[str, str], hostname: str) -> Tuple[str, str]:
    """The token's field for the job id ("" = none), and the id under which whoever submitted us knows us."""
    for field, variable in JOB_IDS:
        job = environment.get(variable)
        if variable == "JOBID" and not any(name.startswith("DIRAC") for name in environment):
            continue  # Anybody may call a variable so.
        if job and field == "slurm_job_id" and environment.get("SLURM_ARRAY_JOB_ID"):
            job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
        if job:
            return field, job
    return "", f"{hostname}:{os.getpid()}"


def read_settings(path: str) -> Dict[str, str]:
    """What stands in picas.json, which nobody else may read from now on; raises OSError and ValueError."""
    if os.stat(path).st_mode & 0o077:
        os.chmod(path, 0o600)
    with open(path, encoding="utf-8") as file:
        settings: Dict[str, str] = json.load(file)
    names = ("url", "database", "user", "password")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(name), str) for name in names):
        raise ValueError(f"expected an object with texts for {', '.join(names)}")
    if not re.match(r"https?://[^@\s]+$", settings["url"]):
        raise ValueError("expected a url of http:// or https:// without a user in it")
    return settings


def main() -> int:
    parser = argparse.ArgumentParser(description="Work off PiCaS tokens of one type.")
    add = parser.add_argument
    add("--type", required=True, help="of the tokens; the name of their design document")
    add("--key", default="", help="what the submitter knows this pilot by; it goes into the mark")
    add("--heartbeat", type=float, default=600.0, help="seconds between two signs of life in the token")
    add("--max-time", type=float, help="seconds after which no new token is taken")
    add("--max-tokens", type=int, help="how many tokens are taken at most")
    add("--scratch", default=os.environ.get("TMPDIR") or ".", help="where working directories are made")
    add("--idle", type=float, default=0.0, help="seconds to wait for new tokens when none is left")
    add("--patience", type=float, default=6 * 3600.0, help="seconds for which the database may be away at the end")
    options = parser.parse_args()
    options.scratch = os.path.abspath(options.scratch)
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9_.+-]*$", options.type) or options.heartbeat <= 0:
        parser.error("expected a token type of letters, digits and _.+-, and a heartbeat of more than 0 seconds")
    if not os.path.isdir(options.scratch):
        parser.error(f"found no directory at {options.scratch}")
    try:
        settings = read_settings("picas.json")
    except (OSError, ValueError) as error:
        parser.error(f"picas.json: {error}")
    pilot = Pilot(options, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pilot.halt.catch)
    return pilot.run()


if __name__ == "__main__":
    sys.exit(main())
