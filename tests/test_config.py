"""The configuration: typed, complete, all of its problems at once, and shown whole in `etc/aglowd.toml`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec import Struct

from aglowd import config as room
from aglowd.config import Config, load_config, read_secret
from aglowd.durations import duration_s
from aglowd.toml_file import ConfigError, Problem, TomlFile
from aglowd.wiring import shown_to_templates

SHIPPED = Path(__file__).parent.parent / "etc" / "aglowd.toml"

LEAST = """[catalogue]
path = "fields.csv"
srm_dir = "srm"
[sites.sara]
results = "file:///r"
archive = "file:///a"
"""


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "aglowd.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def problems_of(tmp_path: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    found = caught.value.problems
    assert {problem.file for problem in found} == {str(tmp_path / "aglowd.toml")}
    assert str(caught.value) == "\n".join(map(str, found))
    return list(found)


# --- the file that is shipped


def sections() -> Iterator[tuple[str, type[Struct]]]:
    """Every table with fixed keys, by its name in the file."""
    hints = get_type_hints(Config)
    for entry in msgspec.structs.fields(Config):
        kind = hints[entry.name]
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield entry.name, kind
    yield "sites.sara", room.SiteConfig


def shown_keys(text: str) -> dict[str, dict[str, str]]:
    """Table → key → the comment above it, for the keys of the file and for those that it shows as a comment."""
    found: dict[str, dict[str, str]] = {}
    table, comment = "", ""
    for line in text.splitlines():
        if header := re.fullmatch(r"\[([^\]]+)\]", line):
            table, comment = header[1], ""
            found[table] = {}
        elif key := re.match(r"(?:# )?([a-z][a-z_]*) = ", line):
            found[table][key[1]] = comment
            comment = ""
        elif line.startswith("#"):
            comment += line[1:]
        else:
            comment = ""
    return found


def test_the_shipped_file_can_be_loaded_as_it_is() -> None:
    config = load_config(SHIPPED)
    assert config.catalogue.pipeline == "sksp"
    assert set(config.sites) == {"sara"}


def test_the_shipped_file_names_every_key_and_no_other() -> None:
    shown = shown_keys(SHIPPED.read_text(encoding="utf-8"))
    wanted = {name: {entry.encode_name for entry in msgspec.structs.fields(kind)} for name, kind in sections()}
    assert {name: set(keys) for name, keys in shown.items() if name not in ("pools", "secrets")} == wanted
    tables = {entry.name for entry in msgspec.structs.fields(Config)}
    assert {name.partition(".")[0] for name in shown} == tables


def test_the_shipped_file_holds_the_defaults() -> None:
    data = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    assert data["pools"] == Config(catalogue=room.CatalogueConfig(""), sites={}).pools
    for name, kind in sections():
        table: dict[str, Any] = data
        for part in name.split("."):
            table = table[part]
        hints = get_type_hints(kind)
        for entry in msgspec.structs.fields(kind):
            if (name, entry.name) == ("catalogue", "path"):
                assert table["kind"] == "csv", "which needs it"
            elif name == "catalogue" and entry.name in room.CATALOGUES["mysql"].takes:
                assert entry.encode_name not in table, f"{name}.{entry.name} does not fit"
            elif entry.default is None:
                assert entry.encode_name not in table, f"{name}.{entry.name} is not set by default"
            elif not entry.required:
                default = entry.default if entry.default_factory is msgspec.NODEFAULT else entry.default_factory()
                assert msgspec.convert(table[entry.encode_name], hints[entry.name]) == default, f"{name}.{entry.name}"


def test_the_shipped_file_says_of_each_key_what_it_is_and_its_default() -> None:
    shown = shown_keys(SHIPPED.read_text(encoding="utf-8"))
    for name, kind in sections():
        for entry in msgspec.structs.fields(kind):
            comment = shown[name][entry.encode_name]
            where = f"{name}.{entry.name}: {comment}"
            assert len(comment) > 20, where
            if entry.required:
                assert "Required." in comment, where
                continue
            if entry.default is None:
                assert "Default: not set" in comment, where
            else:
                default = entry.default if entry.default_factory is msgspec.NODEFAULT else entry.default_factory()
                shown_default = comment.partition("Default: ")[2].rstrip()
                text = shown_default.removesuffix(".")
                assert (
                    msgspec.convert(tomllib.loads(f"x = {text}")["x"], get_type_hints(kind)[entry.name]) == default
                ), where
            if entry.name in ("poll", "gather", "settle", "minimum", "stop_timeout"):
                assert "Duration" in comment, where


# --- what is well


def test_the_least_that_is_needed_gives_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, LEAST)
    words = room.StatusesConfig("AAA", "SSS", "CCC", "TTT", "ZZZ", "RRR")
    assert config.catalogue == room.CatalogueConfig("srm", path="fields.csv", select=("SND",), statuses=words)
    assert config.sites == {"sara": room.SiteConfig("file:///r", "file:///a")}
    assert config.sites["sara"].picas == room.TokenBaseConfig()
    for name in ("daemon", "clock", "staging", "lta", "dcache", "picas", "jobs", "storage", "proxy", "pipelines"):
        assert getattr(config, name) == type(getattr(config, name))()
    assert config.pools == {}


def test_values_arrive_where_they_belong(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        LEAST
        + """[daemon]
log_format = "json"
effects = 1
[clock]
rate = 5000
origin = 1.5
[staging]
poll = "30s"
[dcache]
token_file = "t"
[picas]
database = "other"
[jobs]
arguments = ["a", "b"]
max_pilots = 1
[storage]
protected = ["file:///keep"]
deletable = ["file:///data/work", "gsiftp://h:2811/pnfs/"]
[proxy]
minimum = "6h"
[pipelines]
directory = "p"
[pools]
staging-sara = 2
""",
    )
    assert (config.daemon.log_format, config.daemon.effects) == ("json", 1)
    assert (config.clock.rate, config.clock.origin) == (5000.0, 1.5)
    assert duration_s(config.staging.poll) == 30.0
    assert config.dcache.token_file == "t"
    assert config.picas.database == "other"
    assert (config.jobs.arguments, config.jobs.max_pilots) == (("a", "b"), 1)
    assert config.storage.protected == ("file:///keep",)
    assert config.storage.deletable == ("file:///data/work", "gsiftp://h:2811/pnfs/")
    assert config.proxy.minimum == "6h"
    assert config.pipelines.directory == "p"
    assert config.pools == {"staging-sara": 2}


ROUTES = """
[picas]
url = "https://picas.example:6984"
user = "me"
password_file = "/etc/password"
pilots_url = "https://inside.example"
auth = "cookie"
[sites.juelich]
results = "file:///r"
archive = "file:///a"
fields_at_once = 3
[sites.juelich.picas]
database = "sksp2juelich"
[sites.juelich.jobs]
system = "none"
[sites.poznan]
process = "sara"
hosts = ["srm.psnc.example", "psnc2.pl"]
[sites.cork.picas]
url = "https://PICAS.example:6984/"
[sites.cork]
process = "sara"
[sites.far]
process = "sara"
picas = { url = "https://other.example", user = "you" }
"""


def test_routes_are_a_few_lines(tmp_path: Path) -> None:
    """A site's own token database changes single keys of the common one; a password stays with its server."""
    config = load(tmp_path, LEAST + ROUTES)
    common = room.TokenBaseConfig(
        "https://picas.example:6984", "sksp", "me", "/etc/password", "https://inside.example", "cookie"
    )
    bases = {name: site.picas for name, site in config.sites.items()}
    assert bases["sara"] == bases["poznan"] == common
    assert bases["juelich"] == msgspec.structs.replace(common, database="sksp2juelich")
    assert bases["cork"].password_file == "/etc/password", "the same server in another spelling"
    assert bases["far"] == room.TokenBaseConfig("https://other.example", "sksp", "you", auth="cookie")
    assert config.sites["juelich"].jobs.system == "none"
    shown = shown_to_templates(config)
    assert {name: place["name"] for name, place in shown["route"].items()} == {
        "sara": "sara",
        "juelich": "juelich",
        "poznan": "sara",
        "cork": "sara",
        "far": "sara",
    }
    assert shown["route"]["poznan"]["results"] == "file:///r"
    assert shown["route"]["poznan"] == shown["sites"]["sara"]
    assert shown["sites"]["poznan"]["name"] == "poznan"
    assert shown["route"]["juelich"]["pilots"]["max_pilots"] == 0


def test_a_route_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        LEAST
        + """[sites.juelich]
process = "moon"
[sites.poznan]
hosts = ["a b", "x.example"]
results = "r"
[sites.cork]
process = "sara"
hosts = ["x.example"]
fields_at_once = 0
""",
    )
    assert [(problem.line, problem.what) for problem in found] == [
        (8, "no site 'moon' is configured"),
        (9, "the key 'sites.poznan.archive' is missing"),
        (10, "'a b' is no name of a host"),
        (14, "'x.example' is a host of poznan already"),
        (15, "sites.cork.fields_at_once: 0 is too small"),
    ]
    assert found[0].hint == "known: cork, juelich, poznan, sara"


# --- what is not


def test_every_problem_of_the_keys_is_told_with_its_line(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """colour = 1
[catalogue]
srm_dir = 3
selct = ["SND"]
[sites.sara]
results = "r"
archive = "a"
[daemon]
effects = "many"
socet = "x"
[pools]
a = "b"
[lta]
url = 5
""",
    )
    assert [(problem.line, problem.what) for problem in found] == [
        (1, "unknown key 'colour'"),
        (2, "the key 'catalogue.path' is missing"),
        (3, "catalogue.srm_dir: Expected `str`, got `int`"),
        (4, "unknown key 'selct'"),
        (9, "daemon.effects: Expected `int`, got `str`"),
        (10, "unknown key 'socet'"),
        (12, "pools.a: Expected `int`, got `str`"),
        (14, "lta.url: Expected `str`, got `int`"),
    ]
    hints = {problem.what: problem.hint for problem in found}
    assert "catalogue, clock, daemon" in hints["unknown key 'colour'"]
    assert "max_fields, password_file, path, pipeline" in hints["unknown key 'selct'"]
    assert "it has no default" in hints["the key 'catalogue.path' is missing"]


@pytest.mark.parametrize("missing", ["catalogue", "sites"])
def test_a_table_that_is_required(tmp_path: Path, missing: str) -> None:
    whole = tomllib.loads(LEAST)
    text = "".join(part for part in re.split(r"(?m)^(?=\[)", LEAST) if not part.startswith(f"[{missing}"))
    assert set(tomllib.loads(text)) == set(whole) - {missing}
    (problem,) = problems_of(tmp_path, text)
    assert problem.what == f"the key '{missing}' is missing"


@pytest.mark.parametrize(
    ("table", "line", "what"),
    [
        ("[daemon]\nlog_format = 'xml'", 8, "daemon.log_format: 'xml' is not known"),
        ("[daemon]\nlog_level = 'loud'", 8, "daemon.log_level: 'loud' is not known"),
        ("[daemon]\nstop_timeout = '20'", 8, "daemon.stop_timeout: '20' is no duration"),
        ("[daemon]\neffects = 0", 8, "daemon.effects: 0 is too small"),
        ("[daemon]\nprocesses = -1", 8, "daemon.processes: -1 is too small"),
        ("[clock]\n\nrate = 0", 9, "clock.rate: 0.0 must be positive"),
        ("[staging]\npoll = '5 minutes'", 8, "staging.poll: '5 minutes' is no duration"),
        ("[staging]\nsettle = '0s'", 8, "staging.settle: it must be longer than nothing"),
        ("[dcache]\npoll = 'x'", 8, "dcache.poll: 'x' is no duration"),
        ("[picas]\ngather = 'x'", 8, "picas.gather: 'x' is no duration"),
        ("[picas]\npoll = '0m'", 8, "picas.poll: it must be longer than nothing"),
        ("[jobs]\npoll = '-1h'", 8, "jobs.poll: '-1h' is no duration"),
        ("[jobs]\nnodes_per_submission = 0", 8, "jobs.nodes_per_submission: 0 is too small"),
        ("[jobs]\nmax_pilots = 0", 8, "jobs.max_pilots: 0 is too small"),
        ("[storage]\npoll = ''", 8, "storage.poll: '' is no duration"),
        *(
            (f"[storage]\ndeletable = ['file:///ok', '{root}']", 8, "storage.deletable: a root is no directory's URL")
            for root in ("", "/data/work", "file://", "file:///", "gsiftp://h:2811", "gsiftp://h:2811/", "x://h//d")
        ),
        ("[proxy]\nminimum = '12'", 8, "proxy.minimum: '12' is no duration"),
        ("[proxy]\npoll = '1y'", 8, "proxy.poll: '1y' is no duration"),
        ("[pools]\na = 1\nstaging = 0", 9, "pools.staging: 0 is too small"),
    ],
)
def test_a_value_that_makes_no_sense(tmp_path: Path, table: str, line: int, what: str) -> None:
    (problem,) = problems_of(tmp_path, f"{LEAST}{table}\n")
    assert problem.line == line
    assert problem.what.startswith(what)


def test_values_of_the_catalogue_and_of_sites_that_make_no_sense(tmp_path: Path) -> None:
    text = "[sites]\n[catalogue]\npath = 'p'\nsrm_dir = 's'\nselect = []\npoll = 'often'\nmax_fields = 0\n"
    found = problems_of(tmp_path, text)
    assert [(problem.line, problem.what.partition(" ")[0], bool(problem.hint)) for problem in found] == [
        (1, "sites:", True),
        (6, "catalogue.poll:", False),
        (7, "catalogue.max_fields:", True),
    ]


def test_all_values_that_make_no_sense_are_told_at_once(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path, LEAST + "[daemon]\nlog_level = 'x'\nlog_format = 'x'\n[clock]\nrate = -1.0\n[proxy]\npoll = 'x'\n"
    )
    assert [problem.line for problem in found] == [8, 9, 11, 13]


def test_an_unknown_key_hides_no_bad_value(tmp_path: Path) -> None:
    found = problems_of(tmp_path, LEAST + "[daemon]\nsocet = 'x'\n[staging]\npoll = 'often'\n[clock]\nrate = -1.0\n")
    assert [problem.line for problem in found] == [8, 10, 12]


def test_each_problem_of_each_site_is_told_at_its_line(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """[catalogue]
path = "p"
srm_dir = "s"
[sites.sara]
results = "r"
[sites.juelich]
results = "r"
archive = 5
colour = "red"
""",
    )
    assert [problem.line for problem in found] == [4, 8, 9]
    assert "archive" in found[0].what
    assert "sara" in found[0].what


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[catalogue]\npath = \n")
    assert problem.line == 2
    assert problem.what.startswith("this is not TOML")
    (problem,) = problems_of(tmp_path, "[catalogue]\nselect = [\n\n")
    assert problem.line >= 2


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml:1: cannot be read: .*No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:1: cannot be read"):
        load_config(tmp_path / "latin.toml")


def test_lines_of_keys_of_all_spellings() -> None:
    text = 'top = 1\n[a."b c"]\n"x y" = 1\n[a.d]\nlong = """\nnot = "a key"\n"""\nlast.one = 2\n[[list]]\nk = 1\n'
    file = TomlFile("f", text)
    assert file.line("top") == 1
    assert file.line("a", "b c") == 2
    assert file.line("a", "b c", "x y") == 3
    assert file.line("a", "d", "not") == 4, "a line of a long text is no key; its table stands in for it"
    assert file.line("a", "d", "last", "one") == 8
    assert file.line("list", "k") == 10
    assert file.line("nowhere") == 1
    assert str(file.problem(("top",), "bad", "mend it")) == "f:1: bad\n    hint: mend it"


# --- secrets


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_is_the_one_line_of_a_file_of_ones_own(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    path.write_text(" s3 cret \r\nnot this\n")
    path.chmod(mode)
    assert read_secret(str(path)) == " s3 cret "


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_secret_that_others_can_reach_is_refused_and_not_shown(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"others can read this secret .mode {mode:04o}.") as caught:
        read_secret(str(path))
    assert caught.value.problems[0].hint == f"chmod 600 {path}"
    assert "s3cret" not in str(caught.value)


def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the secret cannot be read"):
        read_secret(os.fspath(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('webhook = "hooks.example/x"', "notify.webhook: it is no URL"),
        ('smtp = "mx.example.org"', "notify.smtp: 'mx.example.org' is no mail relay"),
        ('mail_to = ["lofar"]', "notify.mail_to: there is no mail address in it"),
        ('mail_to = ["a@example.org, b@example.org"]', "notify.mail_to: there is no mail address in it"),
        ('gather = "0s"', "notify.gather: it must be longer than nothing"),
        ('apart = "later"', "notify.apart: 'later' is no duration"),
        ('command = "tell"', "notify.command: Expected `array`, got `str`"),
    ],
)
def test_a_way_to_tell_that_cannot_work_is_told_before_it_is_needed(tmp_path: Path, text: str, what: str) -> None:
    (problem,) = problems_of(tmp_path, f"{LEAST}[notify]\n{text}\n")
    assert problem.line == 8
    assert problem.what.startswith(what)


# --- kinds of catalogues

SITE = '[sites.sara]\nresults = "file:///r"\narchive = "file:///a"\n'


def catalogue_of(tmp_path: Path, text: str) -> room.CatalogueConfig:
    return load(tmp_path, f"[catalogue]\nsrm_dir = 's'\n{text}\n{SITE}").catalogue


def test_each_kind_calls_things_its_own_way(tmp_path: Path) -> None:
    surveys = catalogue_of(
        tmp_path, "kind = 'mysql'\ntunnel = 'lofar.herts.ac.uk'\n[catalogue.statuses]\nfailed = 'Failed'"
    )
    assert (surveys.select, surveys.host, surveys.port) == (("Observed",), "127.0.0.1", 3306)
    words = room.StatusesConfig("DI_started", "DI_started", "DI_cal_done", "DI_Processed", "Archived", "Failed")
    assert surveys.statuses == words
    own = catalogue_of(tmp_path, "kind = 'own'\nselect = ['NEW']")
    assert (own.path, own.select) == ("/var/lib/aglowd/catalogue.db", ("NEW",))
    assert own.statuses.claimed == "AAA"
    assert catalogue_of(tmp_path, "kind = 'own'\npath = '/c.db'").path == "/c.db"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "the key 'catalogue.path' is missing"),
        ("path = 'f.csv'\nhost = 'h'", 4, "catalogue.host does not fit kind = 'csv'"),
        ("kind = 'mysql'\npath = 'f.csv'", 4, "catalogue.path does not fit kind = 'mysql'"),
        ("kind = 'own'\ntunnel = 'h'", 4, "catalogue.tunnel does not fit kind = 'own'"),
        ("kind = 'oracle'", 3, "catalogue.kind: 'oracle' is not known"),
        ("kind = 'mysql'\nport = 0", 4, "catalogue.port: 0 is no port"),
        ("kind = 'mysql'\nsocket = '/s'\ntunnel = 'h'", 4, "catalogue.socket: there is no way to it through a tunnel"),
        ("kind = 'own'\nstatuses = { claimd = 'A' }", 4, "unknown key 'claimd'"),
        ("path = 'f'\nstatuses = { claimed = 'SND' }", 4, "catalogue.statuses.claimed: 'SND' offers a field"),
        ("path = 'f'\n[catalogue.statuses]\nfailed = 'a b'", 5, "catalogue.statuses.failed: 'a b' is no word"),
    ],
)
def test_what_does_not_fit_the_kind_is_named(tmp_path: Path, text: str, line: int, what: str) -> None:
    (problem,) = problems_of(tmp_path, f"[catalogue]\nsrm_dir = 's'\n{text}\n{SITE}")
    assert (problem.line, problem.what.startswith(what), bool(problem.hint)) == (line, True, True), problem
