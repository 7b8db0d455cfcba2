"""SURLs and their lists: every spelling becomes one, all real lists can be read, and every problem is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from GRID_LRT.Staging.srmlist import srmlist
from hypothesis import given
from hypothesis import strategies as st

from aglowd.grid.surl import (
    DOORS,
    MAX_SURL_CHARS,
    Door,
    Surl,
    SurlList,
    SurlListError,
    below,
    find_srm_host,
    gsiftp_of,
    learn_hosts,
    parse_surl,
    plain_path,
    read_srm_list,
    site_called,
    site_of,
    surl_of,
    webdav_of,
)

from .conftest import DATA

NAME = "L229507_SB007_uv.dppp.MS_9aafa18e.tar"
SARA = f"srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/229507/{NAME}"
JUELICH = f"srm://lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops/projects/lc3_008/229507/{NAME}"
POZNAN = f"srm://lta-head.lofar.psnc.pl:8443/lofar/ops/projects/lc4_034/229507/{NAME}"
LISTS = sorted(DATA.glob("srm/*.txt"))


def other(number: int, text: str = SARA) -> str:
    return text.replace("SB007", f"SB{number:03d}")


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SurlListError) as caught:
        read_srm_list(text, "srm1.txt")
    return caught.value.problems


@pytest.mark.parametrize(
    "spelling",
    [
        SARA,
        f"{SARA}\r\n",
        f"  {SARA}\tfile:///{NAME}\n",
        f"file:///{NAME} {SARA}",
        SARA.replace(":8443", ""),
        SARA.replace(":8443/", ":8443//"),
        SARA.replace(":8443/", ":8443/srm/managerv2?SFN=/"),
        SARA.replace(":8443/", "/srm/managerv2?SFN=//"),
        SARA.replace("srm.grid", "SRM.Grid"),
        SARA.replace("srm://srm.grid.sara.nl:8443", "gsiftp://gridftp.grid.sara.nl:2811"),
    ],
)
def test_every_spelling_becomes_the_canonical_one(spelling: str) -> None:
    surl = parse_surl(spelling)
    assert str(surl) == SARA
    assert (surl.obsid, surl.subband, surl.name) == ("L229507", 7, NAME)


def test_a_doubled_slash_at_poznan_and_a_directory_that_looks_like_an_obsid() -> None:
    surl = parse_surl(POZNAN.replace("/lofar/", "//lofar/L1/"))
    assert surl.path.startswith("/lofar/L1/ops")
    assert surl.obsid == "L229507"


def test_pulsar_data_has_no_subband() -> None:
    assert parse_surl(SARA.replace("_SB007_uv.dppp.MS", "_SAP000_B013_P000_bf")).subband is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "one SURL"),
        ("junk", "junk"),
        ("http://srm.grid.sara.nl/L1_SB001.tar", "http"),
        (SARA.replace("8443", "8444"), "port 8444"),
        (SARA.replace("grid.sara.nl:", "example.org:"), "srm.example.org"),
        (SARA.replace("srm.grid.sara.nl:", "grid.sara.nl.evil.org:"), "evil"),
        (SARA.replace("L229507_", "M229507_"), "M229507_SB007"),
        (f"{SARA} {JUELICH}", "one SURL"),
        (f"{SARA} x y", "one SURL"),
        (SARA + "?x=1", "x=1"),
        (SARA.replace("/lofar/", "/../"), "plain directories"),
        (SARA.replace("/lofar/", '/"/'), "plain directories"),
        (SARA.rpartition("/")[0] + "/", "file name ''"),
    ],
)
def test_what_is_no_surl_is_named_with_what_was_expected(text: str, found: str) -> None:
    with pytest.raises(ValueError, match=re.escape(found)) as caught:
        parse_surl(text)
    assert "expected" in str(caught.value)


def test_sites_and_doors_are_grid_lrts() -> None:
    for text, site in ((SARA, "sara"), (JUELICH, "juelich"), (POZNAN, "poznan")):
        theirs = srmlist()
        theirs.append(text)
        surl = parse_surl(text)
        assert site_of(surl.host) == theirs.lta_location == site
        assert [gsiftp_of(surl)] == list(theirs.gsi_links())
        assert str(parse_surl(gsiftp_of(surl))) == text
        assert [parse_surl(link) for link in theirs.gfal_links()] == [surl]


@pytest.mark.parametrize("path", LISTS, ids=[path.stem for path in LISTS])
def test_the_real_lists_can_be_read_and_say_what_grid_lrt_says(path: Path) -> None:
    text = path.read_text()
    found, theirs = read_srm_list(text, str(path)), srmlist()
    for line in text.splitlines():
        theirs.append(line)
    assert found.surls == tuple(theirs)
    assert (found.obsid, found.site) == (theirs.obsid, theirs.lta_location)
    assert found.obsid == path.stem.replace("srm", "L")
    assert len(found.subbands) == len(found.surls) > 230


def test_there_are_23_real_lists() -> None:
    assert len(LISTS) == 23


def test_blank_lines_repetitions_and_line_ends_do_not_matter() -> None:
    text = f"\ufeff{other(3)}\r\n\r\n{other(1)} file:///x\n{other(3)}\n"
    assert read_srm_list(text, "p") == SurlList("p", "L229507", "sara", (other(3), other(1)), (1, 3))


def test_all_problems_are_told_at_once_with_file_and_line() -> None:
    problems = problems_of(
        "\n".join(
            [
                other(1),
                other(2).replace("L229507", "L229509"),
                other(3, JUELICH),
                SARA.replace("_SB007", ""),
                "junk",
                other(1).replace("9aafa18e", "0badcafe"),
            ]
        )
    )
    assert [problem.partition(": ")[0] for problem in problems] == [f"srm1.txt:{line}" for line in (2, 3, 4, 5, 6)]
    for problem, word in zip(
        problems, ("L229509", "juelich", "no subband", "junk", "second file of subband 1"), strict=True
    ):
        assert word in problem
        assert "expected" in problem


@pytest.mark.parametrize("text", ["", "\n \r\n\n"])
def test_an_empty_list_is_a_problem(text: str) -> None:
    assert problems_of(text) == (
        "srm1.txt:1: found no SURL; expected one a line, srm://HOST:8443/…/L<OBSID>_SB<subband>_….tar",
    )


def test_the_number_of_problems_is_bounded() -> None:
    problems = problems_of("junk\n" * 5000)
    assert len(problems) == 101
    assert "4900 problems more" in problems[-1]


@given(st.lists(st.text() | st.sampled_from([SARA, JUELICH, other(8), "srm://", "//pnfs"]), max_size=5))
def test_any_text_is_a_list_or_a_list_of_problems(lines: list[str]) -> None:
    with suppress(SurlListError):
        assert read_srm_list("\n".join(lines), "p").surls


@given(st.integers(0, len(SARA) - 1), st.text(max_size=3))
def test_a_mutated_surl_is_a_surl_or_a_value_error(at: int, text: str) -> None:
    try:
        surl = parse_surl(SARA[:at] + text + SARA[at + 1 :])
    except ValueError:
        return
    assert parse_surl(str(surl)) == surl


# --- one file behind all doors

PROJECTS = {
    "sara": "/pnfs/grid.sara.nl/data/lofar/ops/projects",
    "juelich": "/pnfs/fz-juelich.de/data/lofar/ops/projects",
    "poznan": "/lofar/ops/projects",
}
ALL_DOORS = {**DOORS, "poznan": Door("https://dav.lofar.psnc.pl:2880/data")}
HERE = {site: Door(f"http://127.0.0.1:1/{site}", root) for site, root in PROJECTS.items()}
SARA_FILE, JUELICH_FILE, POZNAN_FILE = f"lc2_038/229507/{NAME}", f"lc3_008/229507/{NAME}", f"lc4_034/229507/{NAME}"


@pytest.mark.parametrize(
    ("url", "surl"),
    [
        (SARA, SARA),
        (SARA.replace(":8443/", ":8443/srm/managerv2?SFN=//"), SARA),
        (SARA.replace("srm.grid.sara.nl", "srm.grid.surfsara.nl"), SARA),
        (SARA.replace("srm://srm.grid.sara.nl:8443", "gsiftp://gridftp.grid.surfsara.nl"), SARA),
        (f"https://webdav.grid.surfsara.nl:2882/{SARA_FILE}", SARA),
        (f"https://WEBDAV.grid.surfsara.nl:2882//{SARA_FILE}?authz=hunter2", SARA),
        (f"https://webdav.grid.surfsara.nl:2880{PROJECTS['sara']}/{SARA_FILE}", SARA),
        (f"https://webdav.grid.surfsara.nl{PROJECTS['sara']}/{SARA_FILE}", SARA),
        (f"https://webdav.grid.surfsara.nl:2882/{PROJECTS['sara']}/{SARA_FILE}", SARA),
        (f"https://lofar-webdav.grid.sara.nl:2881{PROJECTS['sara']}/{SARA_FILE}", SARA),
        (f"https://lofar-download.grid.surfsara.nl/lofigrid/SRMFifoGet.py?surl={SARA}", SARA),
        (f"https://lofar-download.grid.sara.nl/lofigrid/SRMFifoGet.py?surl={SARA.replace('/', '%2F')}\n", SARA),
        (JUELICH.replace("srm://lofar-srm", "gsiftp://dcachepool7").replace("8443", "2811"), JUELICH),
        (f"https://dcache-lofar.fz-juelich.de:2880{PROJECTS['juelich']}/{JUELICH_FILE}", JUELICH),
        (f"https://lofar-download.fz-juelich.de/webserver-lofar/SRMFifoGet.py?surl={JUELICH}", JUELICH),
        (POZNAN.replace("/lofar/", "//data/lofar/"), POZNAN),
        (POZNAN.replace("srm://lta-head", "gsiftp://door02").replace(":8443", "").replace("/lofar/", "/data/lofar/"), POZNAN),
        (f"https://dav.man.poznan.pl:2880/data{PROJECTS['poznan']}/{POZNAN_FILE}", POZNAN),
        (f"https://lta-download.lofar.psnc.pl/lofigrid/SRMFifoGet.py?surl={POZNAN}", POZNAN),
        (f"https://lta-head.lofar.psnc.pl/webserver-lofar/SRMFifoGet.py?surl={POZNAN}", POZNAN),
    ],
)  # fmt: skip
def test_every_url_leads_back_to_the_surl(url: str, surl: str) -> None:
    assert str(surl_of(url)) == surl


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("", "a URL of srm"),
        ("ftp://webdav.grid.surfsara.nl/x", "a URL of srm"),
        (f"https://example.org/{SARA_FILE}", "example.org"),
        (f"https://webdav.grid.surfsara.nl.example.org:2882/{SARA_FILE}", "example.org"),
        (f"https://webdav.grid.surfsara.nl:2880/{SARA_FILE}", "below /lofar/ops/projects"),
        (f"https://lofar-webdav.grid.sara.nl:2880/SKSP/{NAME}", "below /lofar/ops/projects"),
        (f"https://dav.lofar.psnc.pl:2880/{POZNAN_FILE}", "below /lofar/ops/projects"),
        ("https://webdav.grid.surfsara.nl:2882/lc2_038/readme.txt", "readme.txt"),
        (f"https://webdav.grid.surfsara.nl:2882/lc2_038/%2e%2e/{NAME}", "plain directories"),
        (f"https://webdav.grid.surfsara.nl:2882/lc2%0a038/{NAME}", "plain directories"),
        (f"https://webdav.grid.surfsara.nl:2882/lc2%2520038/{NAME}", "plain directories"),
        (f"https://lofar-download.fz-juelich.de/SRMFifoGet.py?surl=https://x/{NAME}", "srm://"),
        ("https://" + "x" * MAX_SURL_CHARS, "at most 2000"),
    ],
)
def test_what_leads_to_no_surl_is_named(url: str, found: str) -> None:
    with pytest.raises(ValueError, match=re.escape(found)) as caught:
        surl_of(url)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://webdav.grid.surfsara.nl:2880/x?authz=hunter2",
        "https://me:hunter2@webdav.grid.surfsara.nl:2882/x",
        f"https://webdav.grid.surfsara.nl:2880/{SARA_FILE}?authz=hunter2",
    ],
)
def test_a_url_that_is_refused_shows_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        surl_of(url)
    assert "hunter2" not in str(caught.value)


def test_webdav_urls_of_the_three_sites() -> None:
    assert webdav_of(parse_surl(SARA)) == f"https://webdav.grid.surfsara.nl:2882/{SARA_FILE}"
    whole = f"https://webdav.grid.surfsara.nl:2882{PROJECTS['sara']}/{SARA_FILE}"
    assert webdav_of(parse_surl(SARA), root="") == webdav_of(parse_surl(SARA), root="/") == whole
    assert webdav_of(parse_surl(SARA), root=f"{PROJECTS['sara']}/lc2_038/").endswith(f":2882/229507/{NAME}")
    assert webdav_of(parse_surl(JUELICH)) == (
        f"https://dcache-lofar.fz-juelich.de:2882{PROJECTS['juelich']}/{JUELICH_FILE}"
    )
    with pytest.raises(ValueError, match="no WebDAV door of poznan is known; expected one of sara, juelich"):
        webdav_of(parse_surl(POZNAN))
    assert webdav_of(parse_surl(POZNAN), ALL_DOORS) == (
        f"https://dav.lofar.psnc.pl:2880/data/lofar/ops/projects/{POZNAN_FILE}"
    )
    assert webdav_of(parse_surl(POZNAN), {"poznan": Door("http://[::1]:1/", "/data/lofar/ops/projects")}) == (
        f"http://[::1]:1/{POZNAN_FILE}"
    )


def test_a_name_is_quoted_and_a_door_may_be_written_in_capitals() -> None:
    surl, doors = parse_surl(SARA.replace("_uv", "_a+b")), {"sara": Door("https://DAV.example.org/x", PROJECTS["sara"])}
    assert webdav_of(surl, doors).startswith("https://DAV.example.org/x/lc2_038/229507/L229507_SB007_a%2Bb.")
    assert surl_of(webdav_of(surl, doors), doors) == surl


@pytest.mark.parametrize("root", ["/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2", "/pnfs/grid.sara.nl/user", "/x"])
def test_a_file_that_is_not_below_the_root_has_no_url(root: str) -> None:
    with pytest.raises(ValueError, match="expected one below"):
        webdav_of(parse_surl(SARA), root=root)


def test_paths_below_a_root() -> None:
    assert below("sara", "/a/b/", "/a//b/c") == "/c"
    assert below("sara", "/a/b", "/a/b") == "/"
    assert below("sara", "", "/a//b") == "/a//b"
    assert (
        below("poznan", "/data/lofar/ops", "/lofar/ops/x") == below("poznan", "/lofar/ops", "/data/lofar/ops/x") == "/x"
    )
    assert plain_path("poznan", "/data/lofar") == "/lofar"
    assert plain_path("poznan", "/data/lofarish") == "/data/lofarish"
    assert plain_path("sara", "//data/lofar") == "/data/lofar"


def test_sites_by_all_their_names_and_hosts() -> None:
    for names, site in (
        ("SURF sara Sara surfsara", "sara"),
        ("Juelich JUELICH FZJ Jülich", "juelich"),
        ("Poznan POZNAN PSNC Poznań", "poznan"),
    ):
        assert {site_called(f" {name} ") for name in names.split()} == {site}
    assert site_called("Elsewhere") == "elsewhere"
    for host, site in (
        ("surf.nl", "sara"),
        ("dcacheview.grid.surfsara.nl", "sara"),
        ("a.man.poznan.pl", "poznan"),
        ("a.psnc.pl", "poznan"),
    ):
        assert site_of(host) == site


@pytest.fixture
def learnt() -> Iterator[None]:
    learn_hosts({"sara": ("srm.new-door.example", "old.example"), "cork": ("srm.cork.example", "cork.ie")})
    yield
    learn_hosts({})


@pytest.mark.usefixtures("learnt")
def test_hosts_that_the_configuration_adds_tell_where_data_lie() -> None:
    assert site_of("srm.new-door.example") == site_of("a.old.example") == "sara"
    assert str(parse_surl("srm://old.example:8443/pnfs/L1_SB000_uv.tar")) == (
        "srm://srm.grid.sara.nl:8443/pnfs/L1_SB000_uv.tar"
    ), "one site, one spelling"
    there = parse_surl("srm://x.cork.ie:8443/pnfs/L1_SB000_uv.tar")
    assert (site_of(there.host), str(there)) == ("cork", "srm://srm.cork.example:8443/pnfs/L1_SB000_uv.tar")
    assert gsiftp_of(there) == "gsiftp://srm.cork.example:2811/pnfs/L1_SB000_uv.tar"
    assert (find_srm_host("cork"), find_srm_host("moon")) == ("srm.cork.example", None)
    found = read_srm_list(f"{there}\n", "list")
    assert (found.site, found.surls) == ("cork", (str(there),))
    with pytest.raises(ValueError, match=r"\*\.cork\.ie, \*\.grid\.sara\.nl"):
        site_of("moon.example")


def test_what_was_learnt_is_replaced_not_heaped() -> None:
    learn_hosts({"cork": ("cork.ie",)})
    learn_hosts({})
    with pytest.raises(ValueError, match="cork"):
        site_of("cork.ie")


NAMES = st.from_regex(r"[A-Za-z0-9_.+=,:@!~^{}()*$&;|`-]{1,20}", fullmatch=True).filter(lambda name: name.strip("."))


@given(st.sampled_from(list(PROJECTS)), st.lists(NAMES, min_size=1, max_size=3), st.integers(1, 10**6), NAMES)
def test_a_file_comes_back_from_every_door(site: str, directories: list[str], obsid: int, rest: str) -> None:
    host = {"sara": "srm.grid.sara.nl", "juelich": "lofar-srm.fz-juelich.de", "poznan": "lta-head.lofar.psnc.pl"}[site]
    surl = parse_surl(f"srm://{host}:8443{PROJECTS[site]}/{'/'.join(directories)}/L{obsid}_{rest}")
    assert isinstance(surl, Surl)
    for url in (
        str(surl),
        gsiftp_of(surl),
        webdav_of(surl, ALL_DOORS),
        webdav_of(surl, ALL_DOORS, root=""),
        webdav_of(surl, HERE),
        webdav_of(surl, HERE, root=""),
        f"https://lofar-download.grid.sara.nl/lofigrid/SRMFifoGet.py?surl={surl}",
    ):
        assert surl_of(url, {**ALL_DOORS, **HERE} if "127.0.0.1" in url else ALL_DOORS) == surl


@given(st.text() | st.from_regex(r"https://webdav\.grid\.surfsara\.nl:2882/[ -~]{0,40}", fullmatch=True))
def test_any_text_is_a_surl_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert surl_of(webdav_of(surl_of(text))) == surl_of(text)
