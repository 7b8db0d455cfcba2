"""Passwords and tokens from where users keep them, and the credentials that they become.

Each is looked for in this order, and the first place that has it wins: the file that the configuration names; a systemd
credential of its name; our own variables; GRID_LRT's variables; `~/.stagingrc`; `~/.awe/Environment.cfg`; and, for the
surveys database, `~/.surveys`. The others in the home directory and GRID_LRT's variables are for the LTA's own servers, so
they are asked only where the configured URL is one of these: a demo neither needs nor sends them.
What must stay true: a value is split off once and kept whole, whatever it holds; what is found is hidden in the log
before anybody sees it; a place that is missing is no place, one that is broken is named with its line, never its content.
Forms of the files: GRID_LRT and LiLF `stager_access.py` (v1), StageIT's client (v2).
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from aglowd import log
from aglowd.config import MAX_SECRET_CHARS, Config, TokenBaseConfig, read_secret, server_of
from aglowd.crash import seam
from aglowd.errors import Permanent
from aglowd.grid.gate import Credential
from aglowd.toml_file import ConfigError, Problem

MAX_FILE_BYTES = 1 << 16
"""Of a file with credentials; that of an AWE environment has a page."""
KEPT_SECRETS = 2
"""Of each credential the log hides so many: the last ones."""
REFERRED = "secret:"
"""What the names of the secrets of `[secrets]` begin with, among those of the credentials."""
LTA_DOMAIN = "astron.nl"
SYSTEMD_FORBIDDEN = 0o037
"""systemd's credentials belong to root, and an access list that lets us read shows as the group's right."""

_KEY = re.compile(r"[ \t]*([\w.-]+)[ \t]*(.*)", re.DOTALL)


class Found(Struct, frozen=True):
    """A secret, its user if its place names one, and that place (`~/.stagingrc:3`, `$AGLOWD_LTA_PASSWORD`)."""

    secret: str
    origin: str
    user: str = ""

    def __repr__(self) -> str:
        return f"Found({self.origin!r}, user={self.user!r})"


class Place(Struct, frozen=True):
    """Where a secret may be kept; None from `look`: it is not there. `path` is None for what cannot change."""

    path: Path | None
    look: Callable[[], Found | None]


class Secrets:
    """The credentials and the places that they come from. A file that changed thaws its credential."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self.credentials = {
            "lta": Credential("lta", user=config.lta.user or None),
            "picas": Credential("picas", user=config.picas.user or None),
            "dcache": Credential("dcache"),
            "webdav": Credential("webdav"),
            "stageit": Credential("stageit", scheme="Token"),
        }
        self._users = {"lta": config.lta.user, "picas": config.picas.user}
        if config.catalogue.kind == "mysql":
            self.credentials["catalogue"] = Credential("catalogue", user=config.catalogue.user)
            self._users["catalogue"] = config.catalogue.user
        for site, base in bases_of(config).items():
            name = credential_of(config, site)
            if name not in self.credentials:
                self.credentials[name] = Credential(name, user=base.user or None)
                self._users[name] = base.user
        self.origins: dict[str, str] = {}
        """Where each secret that we have was found."""
        # A broken file of another stager's token is no reason not to start.
        is_asked = {"stageit": any(site.staging == "stageit" for site in config.sites.values())}
        self._places = {name: places(name, config, environ) for name in _names(config) if is_asked.get(name, True)}
        self._seen: dict[str, dict[Path, tuple[int, ...]]] = {}
        self._hidden: dict[str, list[set[str]]] = {}
        self.renew()
        nowhere = sorted(name for name in config.secrets if f"{REFERRED}{name}" not in self.credentials)
        if nowhere:
            hint = "systemd: LoadCredential=NAME:PATH, or name its file in [secrets]"
            raise ConfigError(
                [Problem("$CREDENTIALS_DIRECTORY", 1, f"{name}: there is no such secret", hint) for name in nowhere]
            )
        # A site has a token of its own or none; others read these while `renew` runs in a thread.
        self._places = {name: found for name, found in self._places.items() if name in self.credentials}

    def get(self, name: str) -> str:
        """The secret of that name of `[secrets]`, as it is now; Permanent if there is none."""
        credential = self.credentials.get(f"{REFERRED}{name}")
        if credential is None or credential.token is None:
            raise Permanent(f"secret:{name} is not configured; name its file in [secrets]")
        return credential.token

    @seam
    def renew(self) -> list[str]:
        """Read what changed since the last time; returns the names. Blocks.

        ConfigError with the problems of all places that cannot be used, once the others have been read. What is nowhere
        to be found any more stays as it was: a home directory may be away for a while.
        """
        renewed: list[str] = []
        problems: list[Problem] = []
        for name, found_at in self._places.items():
            seen = self._seen.get(name)
            if seen is not None and all(_stamp(path) == stamp for path, stamp in seen.items()):
                continue
            try:
                found, asked = _first(found_at)
            except ConfigError as error:
                problems += error.problems
                continue
            self._seen[name] = asked
            if found is not None:
                self._take(name, found)
                renewed.append(name)
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))  # Two credentials may share a file.
        return renewed

    def _take(self, name: str, found: Found) -> None:
        credential = self.credentials.setdefault(name, Credential(name))
        if name in self._users:
            credential.user, credential.password = self._users[name] or found.user or None, found.secret
        else:
            credential.token = found.secret
        # The forms in which it travels, and in which a server repeats it; without the padding, which may be left out.
        texts = {found.secret}
        for text in (found.secret, f"{credential.user or ''}:{found.secret}"):
            texts |= {encode(text.encode()).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode)}
        for text in texts:
            log.register_secret(text)
        # The one before may still be under way, or good; what is older is hidden no more, unless it is another's too.
        hidden = self._hidden.setdefault(name, [])
        hidden.append(texts)
        gone = hidden.pop(0) if len(hidden) > KEPT_SECRETS else set()
        for text in gone.difference(*(texts for kept in self._hidden.values() for texts in kept)):
            log.forget_secret(text)
        self.origins[name] = found.origin
        credential.thaw()


def _names(config: Config) -> list[str]:
    """Of all credentials that this configuration may have."""
    of_databases = (credential_of(config, site) for site in config.sites)
    of_sites = (f"{system}-{site}" for system in ("dcache", "webdav") for site in config.sites)
    of_pipelines = (f"{REFERRED}{name}" for name in config.secrets)
    common = (
        "lta",
        "picas",
        "dcache",
        "webdav",
        "stageit",
        *(["catalogue"] if config.catalogue.kind == "mysql" else []),
    )
    return list(dict.fromkeys((*common, *of_databases, *of_sites, *of_pipelines)))


def list_origins(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Credential → where it is kept, "" if it is nowhere, or what is wrong with that place. It is read, and forgotten."""
    origins: dict[str, str] = {}
    for name in _names(config):
        try:
            found, _ = _first(places(name, config, environ))
        except ConfigError as error:
            origins[name] = "; ".join(f"{one.file}:{one.line}: {one.what}" for one in error.problems)
        else:
            origins[name] = "" if found is None else found.origin
    return origins


def bases_of(config: Config) -> dict[str, TokenBaseConfig]:
    """Site → how its token database is reached; "" → the common one."""
    return {"": config.picas, **{name: site.picas for name, site in config.sites.items()}}


def credential_of(config: Config, site: str) -> str:
    """The name of the credential for that site's token database: its own if it is of another server, user or file."""
    own, common = bases_of(config)[site], config.picas
    is_common = server_of(own.url) == server_of(common.url) and (own.user, own.password_file) == (
        common.user,
        common.password_file,
    )
    return "picas" if is_common else f"picas-{site}"


def places(name: str, config: Config, environ: Mapping[str, str]) -> tuple[Place, ...]:
    """Where the credential of that name may be kept, in the order in which they are asked."""
    if name.startswith(REFERRED):
        return (_of_pipelines(name.removeprefix(REFERRED), config, environ),)
    system, _, of_site = name.partition("-")
    site = config.sites.get(of_site)
    user, file, url = {
        "lta": (config.lta.user, config.lta.password_file, config.lta.url),
        "picas": (config.picas.user, config.picas.password_file, ""),
        "catalogue": (config.catalogue.user, config.catalogue.password_file, ""),
        "dcache": ("", config.dcache.token_file, ""),
        "webdav": ("", config.storage.token_file, ""),
        "stageit": ("", config.stageit.token_file, config.stageit.url),
    }.get(name, ("", getattr(site, f"{system}_token_file", ""), ""))
    if site is not None and system == "picas":
        user, file = site.picas.user, site.picas.password_file
    if file:
        return (Place(Path(file), partial(_of_config, file)),)
    has_login = system in ("lta", "picas", "catalogue")
    found: list[Place] = []
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        found.append(Place(Path(directory, name), partial(_of_systemd, Path(directory, name))))
    own = f"AGLOWD_{name.upper().replace('-', '_')}_"
    secret = own + ("PASSWORD" if has_login else "TOKEN")
    found.append(Place(None, partial(_of_environment, environ, f"{own}USER", secret)))
    if f".{_host(url)}".endswith(f".{LTA_DOMAIN}"):
        found += _of_the_lta(name, _host(url), environ)
    if name == "catalogue":
        surveys = Path(environ.get("HOME") or "/", ".surveys")
        found.append(Place(surveys, partial(_of_surveys, surveys)))
    if not has_login:
        return tuple(found)
    return tuple(Place(place.path, partial(_fitting, place.look, user)) for place in found)


def _of_pipelines(name: str, config: Config, environ: Mapping[str, str]) -> Place:
    """Where a secret of `[secrets]` is kept: in the file that stands there, else in the systemd credential of its name."""
    file = config.secrets[name]
    if file:
        return Place(Path(file), lambda: _hidable(_of_config(file), file))
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return Place(None, lambda: None)
    path = Path(directory, name)
    return Place(path, lambda: _hidable(_of_systemd(path), str(path)))


def _hidable(found: Found | None, file: str) -> Found | None:
    """A secret of a pipeline may come back in whatever a program or a service says: it must be one that can be hidden."""
    if found is not None and len(found.secret) < log.MIN_SECRET_CHARS:
        raise _problem(file, 1, f"the secret is shorter than {log.MIN_SECRET_CHARS} characters: it cannot be hidden")
    return found


def tunnel_user(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Who digs the tunnel to the surveys database: as configured, or as the team keeps it, behind the password.

    "" = nobody says; ConfigError where others can read that file.
    """
    named = config.catalogue
    if named.tunnel_user or not named.tunnel:
        return named.tunnel_user
    read = _read(Path(named.password_file or Path(environ.get("HOME") or "/", ".surveys")), 0o077)
    if read is None:
        return ""
    text, unsafe = read
    if unsafe is not None:
        raise ConfigError([unsafe])
    return text.partition("\n")[2].partition("\n")[0].strip()


def _of_surveys(path: Path) -> Found | None:
    """The first line of the file of LiLF's `surveys_db.py`."""
    read = _read(path, 0o077)
    if read is None:
        return None
    text, unsafe = read
    if unsafe is not None:
        raise ConfigError([unsafe])
    return _usable(text.partition("\n")[0].rstrip(), str(path), 1, origin="~/.surveys:1")


def _of_the_lta(name: str, host: str, environ: Mapping[str, str]) -> list[Place]:
    """The places of the LTA's own clients, for the stager that is the server `host`."""
    home = Path(environ.get("HOME") or "/")
    rc, awe = home / ".stagingrc", home / ".awe" / "Environment.cfg"
    if name == "stageit":
        return [Place(rc, partial(_token_of, rc, host))]
    return [
        Place(None, partial(_of_environment, environ, "LOFAR_LTA_USER", "LOFAR_LTA_PWD")),
        Place(rc, partial(_login_of, rc, "~/.stagingrc", "=", "user", "password")),
        Place(awe, partial(_login_of, awe, "~/.awe/Environment.cfg", ":", "database_user", "database_password")),
    ]


def _first(found_at: tuple[Place, ...]) -> tuple[Found | None, dict[Path, tuple[int, ...]]]:
    """What the first place has, and how the files looked that were asked for it."""
    asked: dict[Path, tuple[int, ...]] = {}
    for place in found_at:
        if place.path is not None:
            asked[place.path] = _stamp(place.path)
        found = place.look()
        if found is not None:
            return found, asked
    return None, asked


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _fitting(look: Callable[[], Found | None], user: str) -> Found | None:
    """What is there for that user ("" = whoever it is); a password of somebody else is no use."""
    found = look()
    if found is None or (user and found.user not in ("", user)):
        return None
    if not (user or found.user):
        file, _, line = found.origin.rpartition(":")
        where = (file, int(line)) if line.isdigit() else (found.origin, 1)
        raise _problem(*where, "a password without its user", "the user can also stand in the configuration")
    return found


def _of_config(file: str) -> Found:
    return _usable(read_secret(file), file, 1, origin=f"{file}:1")


def _of_systemd(path: Path) -> Found | None:
    read = _read(path, SYSTEMD_FORBIDDEN)
    if read is None:
        return None
    text, unsafe = read
    if unsafe is not None:
        raise ConfigError([unsafe])
    return _usable(text.partition("\n")[0].rstrip("\r"), str(path), 1, origin=f"$CREDENTIALS_DIRECTORY/{path.name}")


def _of_environment(environ: Mapping[str, str], user: str, secret: str) -> Found | None:
    if not environ.get(secret):
        return None
    return _usable(environ[secret], f"${secret}", 1, origin=f"${secret}", user=environ.get(user, ""))


def _login_of(path: Path, name: str, separator: str, user: str, password: str) -> Found | None:
    values = _values(path, separator, (user, password), password)
    if password not in values:
        if user in values:
            raise _problem(str(path), values[user][1], f"{user} without {password}", f"{password} {separator} …")
        return None
    secret, line = values[password]
    return _usable(secret, str(path), line, origin=f"{name}:{line}", user=values.get(user, ("", 0))[0])


def _token_of(path: Path, host: str) -> Found | None:
    values = _values(path, "=", ("api_token", "hostname"), "api_token")
    if "api_token" not in values:
        return None
    named, line = values.get("hostname", ("", 0))
    if named and _host(named if "//" in named else f"//{named}") != host:
        hint = "take hostname out, or change url in [stageit]"
        raise _problem(str(path), line, f"this token is not for {host}, which [stageit] names", hint)
    secret, line = values["api_token"]
    return _usable(secret, str(path), line, origin=f"~/.stagingrc:{line}")


def _values(path: Path, separator: str, keys: tuple[str, ...], secret: str) -> dict[str, tuple[str, int]]:
    """Key → its value and line. Of a key that comes twice the last counts, as for the clients that the file is for.

    Blanks around a value go, quotes stay, and there are no comments behind it: all of these may be part of a password.
    Who may read the file matters only if the secret is in it.
    """
    read = _read(path, 0o077)
    if read is None:
        return {}
    text, unsafe = read
    values: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        match = _KEY.match(line)
        key = match[1].lower() if match else ""
        if match is None or key not in keys:
            continue
        if not match[2].startswith(separator):
            raise _problem(str(path), number, f"{key} has no value", f"{key} {separator} …")
        values[key] = match[2][1:].strip(" \t\r"), number
    if secret in values and unsafe is not None:
        raise _problem(unsafe.file, values[secret][1], unsafe.what, unsafe.hint)
    return values


def _read(path: Path, forbidden: int) -> tuple[str, Problem | None] | None:
    """The text of a file, and what is wrong with who owns it and may read it; None if there is no such file."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(status.st_mode) else b"\0"
    except OSError as error:
        if not _is_there(path):
            return None
        raise _problem(str(path), 1, f"it cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _problem(str(path), 1, f"it is longer than {MAX_FILE_BYTES} bytes")
    if b"\0" in data:
        raise _problem(str(path), 1, "it is no text file")
    mode, unsafe = stat.S_IMODE(status.st_mode), None
    if mode & forbidden:
        unsafe = Problem(str(path), 1, f"others can read this secret (mode {mode:04o})", f"chmod 600 {path}")
    elif status.st_uid not in (0, os.geteuid()):
        hint = f"chown {os.geteuid()} {path}"
        unsafe = Problem(str(path), 1, f"this secret is in a file of another user (uid {status.st_uid})", hint)
    return data.decode("utf-8-sig", "surrogateescape"), unsafe


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for who writes into a pipe of that name."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_there(path: Path) -> bool:
    """Whether there is such a file as far as we are allowed to see; a home directory may be closed to us."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _usable(secret: str, file: str, line: int, *, origin: str, user: str = "") -> Found:
    """The secret, if it can be one."""
    if not secret:
        raise _problem(file, line, "the secret is empty")
    if len(secret) > MAX_SECRET_CHARS:
        raise _problem(file, line, f"the secret is longer than {MAX_SECRET_CHARS} characters")
    if any(sign in "\r\n\0" or "\ud800" <= sign <= "\udfff" for sign in secret):
        raise _problem(file, line, "the secret is no line of UTF-8 text")
    return Found(secret, origin, user)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _problem(file: str, line: int, what: str, hint: str = "") -> ConfigError:
    return ConfigError([Problem(file, line, what, hint)])
