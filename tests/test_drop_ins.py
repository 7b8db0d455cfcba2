"""Several files as one configuration: what counts, and that a problem names the file in which it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from aglowd import toml_file
from aglowd.config import Config, config_of, load_config
from aglowd.toml_file import ConfigError, Problem, TomlFiles

MAIN = """[catalogue]
path = "fields.csv"
srm_dir = "srm"
max_fields = 5
select = ["SND", "JND"]
[sites.sara]
results = "file:///r"
archive = "file:///a"
[pools]
copies = 2
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "aglowd.toml"
    path.write_text(MAIN)
    (tmp_path / "aglowd.d").mkdir()
    return path


def drop(main: Path, name: str, text: str) -> Path:
    path = main.parent / "aglowd.d" / name
    path.write_text(text)
    return path


def problems_of(main: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(main)
    return list(caught.value.problems)


def test_a_later_file_wins_key_by_key(main: Path) -> None:
    drop(main, "20.toml", "[catalogue]\nmax_fields = 7\n[pools]\nmore = 1\n[daemon]\neffects = 3\n")
    drop(main, "10.toml", '[catalogue]\nmax_fields = 6\nselect = ["SND"]\npoll = "1m"\n')
    config = load_config(main)
    assert (config.catalogue.max_fields, config.catalogue.poll, config.catalogue.path) == (7, "1m", "fields.csv")
    assert config.catalogue.select == ("SND",), "a list is replaced, not added to"
    assert config.pools == {"copies": 2, "more": 1}, "a table is merged"
    assert config.daemon.effects == 3


def test_a_site_may_stand_in_a_file_of_its_own(main: Path) -> None:
    drop(main, "juelich.toml", '[sites.juelich]\nresults = "file:///jr"\narchive = "file:///ja"\n')
    drop(main, "limits.toml", "[sites.sara]\nfiles_at_once = 9\n")
    sites = load_config(main).sites
    assert set(sites) == {"sara", "juelich"}
    assert (sites["sara"].files_at_once, sites["sara"].results) == (9, "file:///r")


def test_without_the_directory_the_file_is_all_there_is(main: Path) -> None:
    (main.parent / "aglowd.d").rmdir()
    assert load_config(main).catalogue.max_fields == 5


def test_a_problem_names_the_file_and_the_line_of_the_value_that_counts(main: Path) -> None:
    first = drop(main, "10.toml", '[catalogue]\nmax_fields = "many"\n[daemon]\n\neffects = 0\ncolour = 1\n')
    second = drop(
        main, "20.toml", "\n\n[catalogue]\nmax_fields = 0\n[sites.juelich]\narchive = 'a'\n[pools]\nb = 'x'\n"
    )
    assert [(one.file, one.line, one.what) for one in problems_of(main)] == [
        (str(first), 5, "daemon.effects: 0 is too small"),
        (str(first), 6, "unknown key 'colour'"),
        (str(second), 4, "catalogue.max_fields: 0 is too small"),
        (str(second), 5, "the key 'sites.juelich.results' is missing"),
        (str(second), 8, "pools.b: Expected `int`, got `str`"),
    ]


def test_what_does_not_fit_together_is_told_where_the_later_word_stands(main: Path) -> None:
    late = drop(main, "10.toml", '[catalogue]\nkind = "own"\nhost = "h"\n[sites.sara]\nprocess = "moon"\n')
    found = [(one.file, one.line, one.what) for one in problems_of(main)]
    assert (str(late), 3, "catalogue.host does not fit kind = 'own'") in found
    assert (str(late), 5, "no site 'moon' is configured") in found


def test_all_files_that_are_no_toml_are_told_at_once(main: Path) -> None:
    main.write_text("[catalogue\n")
    one, two = drop(main, "10.toml", "x = \n"), drop(main, "20.toml", "y = [\n")
    assert {problem.file for problem in problems_of(main)} == {str(main), str(one), str(two)}


@pytest.mark.parametrize("name", ["10-limits.conf", "README", "10.toml.txt", "10.TOML"])
def test_a_file_of_another_type_is_named(main: Path, name: str) -> None:
    other = drop(main, name, "")
    (problem,) = problems_of(main)
    assert (problem.file, problem.what) == (str(other), f"{name!r} is no .toml file")


@pytest.mark.parametrize("name", [".10.toml.swp", "10.toml~", "10.toml.rpmsave", "10.toml.dpkg-old", "10.bak", ".keep"])
def test_what_editors_and_packages_leave_is_passed_over(main: Path, name: str) -> None:
    drop(main, name, "this is no TOML")
    assert load_config(main).catalogue.max_fields == 5


def test_a_directory_and_too_many_files_are_refused(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (main.parent / "aglowd.d" / "sub.toml").mkdir()
    (problem,) = problems_of(main)
    assert problem.what == "a directory is no drop-in"
    monkeypatch.setattr(toml_file, "MAX_DROP_INS", 1)
    drop(main, "10.toml", "")
    (problem,) = problems_of(main)
    assert problem.what == "there are 2 files in it; expected 1 at most"


def test_a_drop_in_that_leads_nowhere_is_told(main: Path) -> None:
    (main.parent / "aglowd.d" / "10.toml").symlink_to("nothing")
    (problem,) = problems_of(main)
    assert "cannot be read" in problem.what


def test_a_table_and_a_value_of_one_name(main: Path) -> None:
    """The later one counts, whichever it is."""
    drop(main, "10.toml", "pools = 3\n")
    (problem,) = problems_of(main)
    assert (Path(problem.file).name, problem.line) == ("10.toml", 1)
    drop(main, "20.toml", "[pools]\nb = 1\n")
    assert load_config(main).pools == {"b": 1}


def test_two_files_that_are_nested_deep(main: Path) -> None:
    deep = ".".join("a" * 2000) + " = 1\n"
    drop(main, "10.toml", deep)
    drop(main, "20.toml", deep)
    (problem,) = problems_of(main)
    assert "nested too deep" in problem.what


def test_where_a_value_comes_from(main: Path) -> None:
    late = drop(main, "10.toml", "[catalogue]\n\nmax_fields = 6\n")
    files = TomlFiles.read(main)
    assert isinstance(config_of(files), Config)
    assert files.origin(("catalogue", "max_fields")) == f"{late}:3"
    assert files.origin(("catalogue", "srm_dir")) == f"{main}:3"
    assert files.origin(("catalogue", "poll")) == ""


@pytest.mark.parametrize(
    ("operators", "wrong"),
    [
        ('["lofar", 1000]', ""),
        ("[-1]", "-1"),
        ('["a b"]', "'a b'"),
        ('["1000"]', "'1000'"),
        ("[4294967295]", "4294967295"),
    ],
)
def test_operators_are_names_or_uids(main: Path, operators: str, wrong: str) -> None:
    drop(main, "10.toml", f"[daemon]\noperators = {operators}\n")
    if not wrong:
        assert load_config(main).daemon.operators == ("lofar", 1000)
        return
    (problem,) = problems_of(main)
    assert (problem.line, problem.what) == (2, f"daemon.operators: {wrong} is no user")


def test_a_group_is_a_name(main: Path) -> None:
    drop(main, "10.toml", "[daemon]\nsocket_group = 'a b'\n")
    (problem,) = problems_of(main)
    assert problem.what == "daemon.socket_group: 'a b' is no name of a group"
