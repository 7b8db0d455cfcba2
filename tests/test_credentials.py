"""Secrets from where users keep them: which place wins, nothing is cut, broken places are named and never quoted."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aglowd import log
from aglowd.config import (
    MAX_SECRET_CHARS,
    CatalogueConfig,
    Config,
    DcacheConfig,
    LtaConfig,
    PicasConfig,
    SiteConfig,
    StageitConfig,
)
from aglowd.credentials import KEPT_SECRETS, MAX_FILE_BYTES, Found, Secrets, _values, tunnel_user
from aglowd.errors import Permanent
from aglowd.toml_file import ConfigError, Problem

SECRET = "hunter2=a:b='c' #d"
SITES = {"sara": SiteConfig("r", "a"), "juelich": SiteConfig("r", "a")}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    log._secrets.clear()
    yield
    log._secrets.clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / ".awe").mkdir(parents=True)
    return tmp_path / "home"


def private(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def changed(path: Path, text: str) -> None:
    """Written again, a second later, without waiting for it."""
    at = path.stat().st_mtime_ns + 1_000_000_000 if path.exists() else 1_000_000_000
    private(path, text)
    os.utime(path, ns=(at, at))


def config(**sections: object) -> Config:
    return Config(**{"catalogue": CatalogueConfig("srm"), "sites": SITES, **sections})


def secrets(home: Path, environ: Mapping[str, str] | None = None, **sections: object) -> Secrets:
    return Secrets(config(**sections), {"HOME": str(home), **(environ or {})})


def login(found: Secrets, name: str = "lta") -> tuple[str | None, str | None, str | None]:
    credential = found.credentials[name]
    return credential.user, credential.password, found.origins.get(name)


def problem_of(home: Path, environ: Mapping[str, str] | None = None, **sections: object) -> Problem:
    with pytest.raises(ConfigError) as caught:
        secrets(home, environ, **sections)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)
    (problem,) = caught.value.problems
    return problem


# --- where


def test_the_first_place_that_has_it_wins(home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "systemd"
    file = private(tmp_path / "lta.password", "of-config\n")
    private(directory / "lta", "of-systemd\n")
    private(home / ".stagingrc", "user=me\npassword=of-rc\n")
    private(home / ".awe" / "Environment.cfg", "database_user : me\ndatabase_password : of-awe\n")
    environ = {
        "CREDENTIALS_DIRECTORY": str(directory),
        "AGLOWD_LTA_USER": "me",
        "AGLOWD_LTA_PASSWORD": "of-ours",
        "LOFAR_LTA_USER": "me",
        "LOFAR_LTA_PWD": "of-grid-lrt",
    }
    told = [login(secrets(home, environ, lta=LtaConfig(user="me", password_file=str(file))))]
    lta = LtaConfig(user="me")
    told.append(login(secrets(home, environ, lta=lta)))
    (directory / "lta").unlink()
    told.append(login(secrets(home, environ, lta=lta)))
    environ["AGLOWD_LTA_PASSWORD"] = ""
    told.append(login(secrets(home, environ, lta=lta)))
    del environ["LOFAR_LTA_PWD"]
    told.append(login(secrets(home, environ, lta=lta)))
    (home / ".stagingrc").unlink()
    told.append(login(secrets(home, environ, lta=lta)))
    (home / ".awe" / "Environment.cfg").unlink()
    told.append(login(secrets(home, environ, lta=lta)))
    assert told == [
        ("me", "of-config", f"{file}:1"),
        ("me", "of-systemd", "$CREDENTIALS_DIRECTORY/lta"),
        ("me", "of-ours", "$AGLOWD_LTA_PASSWORD"),
        ("me", "of-grid-lrt", "$LOFAR_LTA_PWD"),
        ("me", "of-rc", "~/.stagingrc:2"),
        ("me", "of-awe", "~/.awe/Environment.cfg:2"),
        ("me", None, None),
    ]


def test_tokens_and_the_tokens_of_sites(home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "systemd"
    private(directory / "dcache-sara", "of-sara\r\nnot this\n")
    environ = {
        "CREDENTIALS_DIRECTORY": str(directory),
        "AGLOWD_STAGEIT_TOKEN": "of-stageit",
        "AGLOWD_DCACHE_TOKEN": "of-dcache",
        "AGLOWD_PICAS_USER": "me",
        "AGLOWD_PICAS_PASSWORD": "of-picas",
    }
    found = secrets(home, environ)
    tokens = {name: credential.token for name, credential in found.credentials.items() if credential.token}
    assert tokens == {"stageit": "of-stageit", "dcache": "of-dcache", "dcache-sara": "of-sara"}
    assert login(found, "picas") == ("me", "of-picas", "$AGLOWD_PICAS_PASSWORD")
    assert {name: credential.scheme for name, credential in found.credentials.items()} == {
        "lta": "Bearer",
        "picas": "Bearer",
        "dcache": "Bearer",
        "webdav": "Bearer",
        "stageit": "Token",
        "dcache-sara": "Bearer",
    }
    files = {name: str(private(tmp_path / name, f"{name}\n")) for name in ("one", "two")}
    found = secrets(
        home, environ, dcache=DcacheConfig(token_file=files["one"]), stageit=StageitConfig(token_file=files["two"])
    )
    assert (found.credentials["dcache"].token, found.credentials["stageit"].token) == ("one", "two")
    assert "dcache-juelich" not in found.credentials
    assert secrets(home, {"AGLOWD_DCACHE_JUELICH_TOKEN": "x" * 9}).credentials["dcache-juelich"].token == "x" * 9


def test_without_any_place_there_is_no_secret(home: Path) -> None:
    found = secrets(home)
    assert set(found.credentials) == {"lta", "picas", "dcache", "webdav", "stageit"}
    assert all(one.password is one.token is None for one in found.credentials.values())
    assert found.origins == {}
    assert found.renew() == []
    assert Secrets(config(), {}).origins == {}


@pytest.mark.parametrize(
    "text",
    [
        "api_token=hunter2token\n",
        "# mine\n\nhostname = sdc.astron.nl\napi_token =  hunter2token \r\n",
        "hostname=https://SDC.astron.nl/\r\nAPI_TOKEN=hunter2token",
        "\ufeffapi_token=hunter2token\nuser=old\npassword=older\n",
    ],
)
def test_stagingrc_with_a_token(home: Path, text: str) -> None:
    private(home / ".stagingrc", text)
    found = secrets(home)
    assert found.credentials["stageit"].token == "hunter2token"
    assert found.credentials["lta"].password == ("older" if "older" in text else None)
    line = next(number for number, line in enumerate(text.split("\n"), 1) if "hunter2" in line)
    assert found.origins["stageit"] == f"~/.stagingrc:{line}"


def test_a_token_for_another_server_is_not_sent_to_this_one(home: Path) -> None:
    private(home / ".stagingrc", "api_token=hunter2\nhostname=sdc-dev.astron.nl\n")
    problem = problem_of(home)
    assert (problem.file, problem.line) == (str(home / ".stagingrc"), 2)
    assert "sdc.astron.nl" in problem.what
    found = secrets(home, stageit=StageitConfig(url="https://sdc-dev.astron.nl/stageit/api/staging"))
    assert found.credentials["stageit"].token == "hunter2"


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "astron.nl.example.org", "notastron.nl", "[::1"])
def test_the_ltas_own_secrets_are_for_its_own_servers(home: Path, host: str) -> None:
    """A demo neither needs them nor sends them anywhere, and does not mind how they are kept."""
    private(home / ".stagingrc", "user=me\npassword=hunter2\napi_token=hunter2\n", 0o644)
    private(home / ".awe" / "Environment.cfg", b"\0")
    environ = {"LOFAR_LTA_USER": "me", "LOFAR_LTA_PWD": "hunter2"}
    url = f"http://{host}/x"
    found = secrets(home, environ, lta=LtaConfig(url=url), stageit=StageitConfig(url=url))
    assert found.origins == {}


def test_a_password_of_somebody_else_is_no_use(home: Path) -> None:
    private(home / ".stagingrc", "user=other\npassword=of-rc\n")
    private(home / ".awe" / "Environment.cfg", "database_user : me\ndatabase_password : of-awe\n")
    assert login(secrets(home)) == ("other", "of-rc", "~/.stagingrc:2")
    assert login(secrets(home, lta=LtaConfig(user="me"))) == ("me", "of-awe", "~/.awe/Environment.cfg:2")
    assert login(secrets(home, lta=LtaConfig(user="third"))) == ("third", None, None)


# --- what


@pytest.mark.parametrize(
    ("path", "text", "user", "password"),
    [
        (".stagingrc", f"user=me\npassword={SECRET}\n", "me", SECRET),
        (".stagingrc", f" user =  m:e \r\n\tpassword\t= {SECRET}\t\r\n", "m:e", SECRET),
        (".stagingrc", "password='quoted'\nuser=\"q\"\n", '"q"', "'quoted'"),
        (".stagingrc", "user=a\npassword=b=\nuser=c\npassword=d==\n", "c", "d=="),
        (".stagingrc", "# user=no\n\n[x]\nusername=no\npassword_hint=no\nodd line\nuser=me\npassword=#x\n", "me", "#x"),
        (".stagingrc", "USER=me\npassword=a\x85b\u2028c é\n", "me", "a\x85b\u2028c é"),
        (".awe/Environment.cfg", f"[global]\ndatabase_user : me\ndatabase_password : {SECRET}\n", "me", SECRET),
        (".awe/Environment.cfg", "database_password:a:b=c:\ndatabase_user:me\ndatabase_name : x\n", "me", "a:b=c:"),
        (".awe/Environment.cfg", "\ufeffdatabase_user: me\r\ndatabase_password: =x\r\n", "me", "=x"),
    ],
)
def test_values_are_split_once_and_kept_whole(home: Path, path: str, text: str, user: str, password: str) -> None:
    private(home / path, text)
    assert login(secrets(home))[:2] == (user, password)


def test_a_comment_in_another_encoding_does_not_matter_but_a_secret_does(home: Path) -> None:
    private(home / ".stagingrc", b"# Andr\xe9\nuser=me\npassword=abcd\n")
    assert login(secrets(home))[1] == "abcd"
    private(home / ".stagingrc", b"# Andr\xe9\nuser=me\npassword=hunter2\xe9\n")
    problem = problem_of(home)
    assert (problem.line, problem.what) == (3, "the secret is no line of UTF-8 text")


@settings(max_examples=100)
@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1))
def test_any_password_comes_back_whole(tmp_path_factory: pytest.TempPathFactory, password: str) -> None:
    path = private(tmp_path_factory.mktemp("any") / "rc", f"user=me\r\npassword = {password} \r\n")
    assert _values(path, "=", ("user", "password"), "password")["password"] == (password.strip(" \t\r"), 2)


# --- what is wrong


@pytest.mark.parametrize(
    ("path", "text", "line", "what"),
    [
        (".stagingrc", "user=me\n", 1, "user without password"),
        (".stagingrc", "\npassword=hunter2\n", 2, "a password without its user"),
        (".stagingrc", "user=me\npassword=\n", 2, "the secret is empty"),
        (".stagingrc", "user=me\npassword: hunter2=x\n", 2, "password has no value"),
        (".stagingrc", "user=me\npassword hunter2\n", 2, "password has no value"),
        (".stagingrc", "user=me\npassword=hunter2\0\n", 1, "no text file"),
        (".stagingrc", "user=me\npassword=hunter2\rx\n", 2, "no line of UTF-8 text"),
        (".stagingrc", "api_token\n", 1, "api_token has no value"),
        (".stagingrc", "x\napi_token=\n", 2, "the secret is empty"),
        (".awe/Environment.cfg", "database_user : me\ndatabase_password = hunter2:x\n", 2, "database_password has no value"),
        (".awe/Environment.cfg", "[global]\ndatabase_user : me\n", 2, "database_user without database_password"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_line(home: Path, path: str, text: str, line: int, what: str) -> None:
    private(home / path, text)
    problem = problem_of(home)
    assert problem.file.endswith(path)
    assert (problem.line, what in problem.what) == (line, True)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
@pytest.mark.parametrize("path", [".stagingrc", ".awe/Environment.cfg"])
def test_a_file_that_others_can_read_is_refused(home: Path, path: str, mode: int) -> None:
    sign, before = ("=", "") if path == ".stagingrc" else (":", "database_")
    file = private(home / path, f"{before}user{sign}me\n{before}password{sign}hunter2\n", mode)
    problem = problem_of(home)
    assert problem == Problem(str(file), 2, f"others can read this secret (mode {mode:04o})", f"chmod 600 {file}")
    private(home / path, "nothing = of ours\n", mode)
    assert secrets(home).origins == {}


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_what_systemd_lets_us_read_by_its_access_list_is_well(home: Path, mode: int) -> None:
    private(home / "lta", "hunter2\n", mode)
    found = secrets(home, {"CREDENTIALS_DIRECTORY": str(home)}, lta=LtaConfig(user="me"))
    assert found.credentials["lta"].password == "hunter2"


@pytest.mark.parametrize("mode", [0o444, 0o404, 0o460, 0o410])
def test_what_everybody_could_read_is_not(home: Path, mode: int) -> None:
    path = private(home / "lta", "hunter2\n", mode)
    problem = problem_of(home, {"CREDENTIALS_DIRECTORY": str(home)}, lta=LtaConfig(user="me"))
    assert (problem.file, problem.hint) == (str(path), f"chmod 600 {path}")


def test_a_file_of_another_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = private(home / ".stagingrc", "api_token=hunter2\n")
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        assert f"another user (uid {owner})" in problem_of(home).what
    else:
        assert secrets(home).credentials["stageit"].token == "hunter2", "root's own files are well"
        os.chown(path, 12345, -1)
        assert "another user (uid 12345)" in problem_of(home).what


def test_a_pipe_a_directory_and_a_closed_home(home: Path, tmp_path: Path) -> None:
    os.mkfifo(home / ".stagingrc", 0o600)
    with pytest.raises(ConfigError, match=r"\.stagingrc:1: it is no text file"):
        secrets(home)
    (home / ".stagingrc").unlink()
    (home / ".stagingrc").mkdir()
    with pytest.raises(ConfigError, match=r"\.stagingrc:1: it cannot be read: Is a directory"):
        secrets(home)
    (home / ".stagingrc").rmdir()
    (home / ".stagingrc").symlink_to(home / ".stagingrc")
    with pytest.raises(ConfigError, match=r"\.stagingrc:1: it cannot be read: "):
        secrets(home)
    assert secrets(private(tmp_path / "file", "x")).origins == {}


def test_a_file_and_a_secret_are_so_long(home: Path) -> None:
    line = "api_token=hunter2\n"
    private(home / ".stagingrc", line + "#" * (MAX_FILE_BYTES - len(line)))
    assert secrets(home).credentials["stageit"].token == "hunter2"
    private(home / ".stagingrc", line + "#" * (MAX_FILE_BYTES - len(line) + 1))
    with pytest.raises(ConfigError, match=f"longer than {MAX_FILE_BYTES} bytes"):
        secrets(home)
    private(home / ".stagingrc", "api_token=" + "x" * MAX_SECRET_CHARS)
    assert secrets(home).origins
    private(home / ".stagingrc", "api_token=" + "x" * (MAX_SECRET_CHARS + 1))
    with pytest.raises(ConfigError, match=f"longer than {MAX_SECRET_CHARS} characters"):
        secrets(home)


def test_a_variable_that_is_no_secret(home: Path) -> None:
    assert problem_of(home, {"AGLOWD_LTA_PASSWORD": "hunter2"}).file == "$AGLOWD_LTA_PASSWORD"
    for value in ("hunter2\nX", "hunter2\udcff", "hunter2" * MAX_SECRET_CHARS):
        assert problem_of(home, {"AGLOWD_STAGEIT_TOKEN": value}).file == "$AGLOWD_STAGEIT_TOKEN"


def test_all_problems_are_told_at_once(home: Path, tmp_path: Path) -> None:
    private(home / ".stagingrc", "user=me\napi_token=\n")
    with pytest.raises(ConfigError) as caught:
        secrets(home, picas=PicasConfig(password_file=str(tmp_path / "none")))
    assert len(caught.value.problems) == 3


# --- again


def test_a_file_that_changed_thaws_its_credential(home: Path) -> None:
    rc, awe = home / ".stagingrc", home / ".awe" / "Environment.cfg"
    changed(rc, "user=me\npassword=first\napi_token=token-one\n")
    changed(awe, "database_user : me\ndatabase_password : awe\n")
    found = secrets(home)
    lta, stageit = found.credentials["lta"], found.credentials["stageit"]
    for credential in (lta, stageit):
        credential.freeze("HTTP 401")
    assert found.renew() == []
    changed(awe, "database_user : me\ndatabase_password : other\n")
    assert found.renew() == [], "nobody asked that file"
    assert (lta.frozen, stageit.frozen) == ("HTTP 401", "HTTP 401")
    changed(rc, "user=you\npassword=second\napi_token=token-one\n")
    assert found.renew() == ["lta", "stageit"]
    assert (lta.frozen, stageit.frozen) == (None, None)
    assert login(found) == ("you", "second", "~/.stagingrc:2")
    assert found.renew() == []


def test_a_place_that_comes_first_may_appear_later_and_one_that_goes_takes_nothing_along(home: Path) -> None:
    awe = home / ".awe" / "Environment.cfg"
    changed(awe, "database_user : me\ndatabase_password : awe\n")
    found = secrets(home)
    changed(home / ".stagingrc", "user=me\npassword=of-rc\n")
    assert found.renew() == ["lta"]
    assert login(found)[1] == "of-rc"
    (home / ".stagingrc").unlink()
    awe.unlink()
    assert found.renew() == []
    assert login(found) == ("me", "of-rc", "~/.stagingrc:2")


def test_the_log_hides_the_last_secrets_of_a_credential_and_no_more(home: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    changed(file, "token-number-0\n")
    changed(other, "token-number-0\n")
    found = secrets(home, dcache=DcacheConfig(token_file=str(file)), stageit=StageitConfig(token_file=str(other)))
    most = 0
    for number in range(1, 30):
        changed(file, f"token-number-{number}\n")
        found.renew()
        most = max(most, len(log._secrets))
        if number == 10:
            at_ten = most
    said = [number for number in range(30) if "***" in log.redact_text(f"token-number-{number}".ljust(40))]
    assert said == [0, *range(30 - KEPT_SECRETS, 30)], "the first is still another's"
    assert most == at_ten


def test_sites_have_token_files_of_their_own(home: Path, tmp_path: Path) -> None:
    files = {name: str(private(tmp_path / name, f"of-{name}\n")) for name in ("frontend", "door")}
    sara = structs.replace(SITES["sara"], dcache_token_file=files["frontend"], webdav_token_file=files["door"])
    found = Secrets(structs.replace(config(), sites={**SITES, "sara": sara}), {"HOME": str(home)})
    tokens = {name: credential.token for name, credential in found.credentials.items() if credential.token}
    assert tokens == {"dcache-sara": "of-frontend", "webdav-sara": "of-door"}
    missing = structs.replace(sara, webdav_token_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="none"):
        Secrets(structs.replace(config(), sites={"sara": missing}), {"HOME": str(home)})


def test_a_site_gets_no_credential_while_others_look_at_them(home: Path, tmp_path: Path) -> None:
    """`renew` runs in a thread, beside those who go through the credentials."""
    found = secrets(home, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    private(tmp_path / "dcache-sara", "token-one\n")
    assert found.renew() == []
    assert "dcache-sara" not in found.credentials


def test_one_that_cannot_be_read_holds_up_no_other(home: Path, tmp_path: Path) -> None:
    rc, token = home / ".stagingrc", tmp_path / "token"
    changed(rc, "user=me\npassword=first\n")
    changed(token, "token-one\n")
    found = secrets(home, dcache=DcacheConfig(token_file=str(token)))
    changed(rc, "user=me\n")
    changed(token, "token-two\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="user without password"):
            found.renew()
    assert found.credentials["dcache"].token == "token-two"
    assert login(found)[1] == "first"
    token.unlink()
    changed(rc, "user=me\npassword=third\n")
    with pytest.raises(ConfigError, match="the secret cannot be read"):
        found.renew()
    assert login(found)[1] == "third"


# --- secret


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_what_is_found_is_hidden_in_every_form(home: Path, encode: Callable[[bytes], bytes]) -> None:
    secret = "hunter2>?>?\xff"
    private(home / ".stagingrc", f"user=me\npassword={secret}\napi_token={secret}tok\n")
    found = secrets(home)
    for text in (secret, f"me:{secret}", f"{secret}tok"):
        sent = encode(text.encode()).decode()
        for form in (text, sent, sent.rstrip("=")):
            said = log.redact_text(f"x {form} y")
            assert "hunter2" not in said
            assert sent.rstrip("=") not in said
            assert "***" in said
    shown = [repr(found), repr(found.credentials), repr(found.origins), repr(Found(secret, "$X", "me"))]
    assert not [text for text in shown if "hunter2" in text]
    assert repr(Found(secret, "$X", "me")) == str(Found(secret, "$X", "me")) == "Found('$X', user='me')"


# --- of pipelines


def test_secrets_of_pipelines_come_from_files_and_from_systemd(home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "systemd"
    private(directory / "mail", "of-systemd\n")
    file = private(tmp_path / "api.token", f"{SECRET}\n")
    found = secrets(home, {"CREDENTIALS_DIRECTORY": str(directory)}, secrets={"mail": "", "a-p_i": str(file)})
    assert (found.get("mail"), found.get("a-p_i")) == ("of-systemd", SECRET)
    for text in (SECRET, "of-systemd", base64.b64encode(SECRET.encode()).decode().rstrip("=")):
        assert text not in log.redact_text(f"it said {text} here")
        assert log.hide_secrets(f"it said {text} here") == "it said *** here"
    with pytest.raises(Permanent, match="secret:other is not configured"):
        found.get("other")
    changed(file, "another-one\n")
    assert found.renew() == ["secret:a-p_i"]
    assert found.get("a-p_i") == "another-one"


@pytest.mark.parametrize(
    ("text", "mode", "what"),
    [
        ("hunter2-x", 0o644, "others can read this secret"),
        ("", 0o600, "the secret is empty"),
        ("abc", 0o600, "shorter than 4 characters: it cannot be hidden"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_secret_of_a_pipeline_that_cannot_be_used_is_told(
    home: Path, tmp_path: Path, text: str | None, mode: int, what: str
) -> None:
    file = tmp_path / "api.token"
    if text is not None:
        private(file, text, mode)
    assert what in problem_of(home, secrets={"api": str(file)}).what


def test_a_secret_of_a_pipeline_that_is_nowhere_is_told_at_the_start(home: Path, tmp_path: Path) -> None:
    told = problem_of(home, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, secrets={"mail": ""})
    assert "mail: there is no such secret" in told.what
    assert "mail: there is no such secret" in problem_of(home, secrets={"mail": ""}).what


SURVEYS = CatalogueConfig("srm", kind="mysql", user="survey_user", tunnel="lofar.herts.ac.uk")


def test_the_surveys_database_has_its_password_where_the_team_keeps_it(home: Path) -> None:
    private(home / ".surveys", "hunter2\nssh_me\nkey\n")
    found = secrets(home, catalogue=SURVEYS)
    credential = found.credentials["catalogue"]
    assert (credential.user, credential.password) == ("survey_user", "hunter2")
    assert found.origins["catalogue"] == "~/.surveys:1"
    assert tunnel_user(config(catalogue=SURVEYS), {"HOME": str(home)}) == "ssh_me"
    named = structs.replace(SURVEYS, tunnel_user="other")
    assert tunnel_user(config(catalogue=named), {"HOME": str(home)}) == "other"
    assert tunnel_user(config(catalogue=SURVEYS), {"HOME": str(home / "nowhere")}) == ""
    assert "catalogue" not in secrets(home).credentials, "other kinds have none"


def test_surveys_that_others_can_read_are_refused(home: Path) -> None:
    private(home / ".surveys", "hunter2\nssh_me\n").chmod(0o640)
    with pytest.raises(ConfigError, match="others can read this secret") as caught:
        secrets(home, catalogue=SURVEYS)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="others can read this secret"):
        tunnel_user(config(catalogue=SURVEYS), {"HOME": str(home)})
