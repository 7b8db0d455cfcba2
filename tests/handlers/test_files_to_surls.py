"""Files in a directory as SURLs, and what their names tell."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.effects.files import MakeDirectory
from aglowd.grid.surl import GSIFTP, parse_surl
from aglowd.handlers.files import directory
from aglowd.handlers.files_to_surls import WEBDAV, FilesToSurls, named_in, spelled
from aglowd.handlers.make_directory import MakeDirectoryStep
from aglowd.model import Do, Done, Json, Outcome

from .conftest import STEP, done_all, params, rejected, seen, the_failure, the_wait

DATA = "/pnfs/grid.sara.nl/data/lofar/p/L1"
WHERE = f"gsiftp://gridftp.grid.sara.nl:2811{DATA}"


def convert(*names: str, where: str = WHERE, size: int = 1, **values: Json) -> Outcome:
    given_ = params(FilesToSurls, directory=where, **values)
    subject = directory(where, STEP.key)
    assert the_wait(FilesToSurls().start(STEP, given_), subject) == f"looking into {where}"
    listing = {"absent": False, "files": [{"url": f"{where}/{name}", "size_bytes": size} for name in names]}
    return FilesToSurls().react(STEP, given_, seen({subject.key: listing}))


NAMES = ("L1_SB001_uv.tar", "L1_SB000_uv.tar", "L1_SB003_uv.tar")


@pytest.mark.parametrize(
    ("scheme", "door"),
    [
        ("srm", "srm://srm.grid.sara.nl:8443"),
        ("gsiftp", "gsiftp://gridftp.grid.sara.nl:2811"),
        ("webdav", "https://webdav.grid.surfsara.nl:2880"),
        ("as_is", "gsiftp://gridftp.grid.sara.nl:2811"),
    ],
)
def test_files_by_each_door(scheme: str, door: str) -> None:
    assert convert(*NAMES, scheme=scheme, nominal=4) == Done(
        {
            "surls": [f"{door}{DATA}/{name}" for name in sorted(NAMES)],
            "count": 3,
            "obsids": ["L1"],
            "subbands": [0, 1, 3],
            "missing": [2],
        }
    )


def test_names_that_tell_nothing_are_listed_as_they_are() -> None:
    outcome = convert("b.tar", "a.txt", "L2_summary.tar", "L1_SB1.tar", where="file:///r", scheme="as_is")
    assert outcome == Done(
        {
            "surls": [f"file:///r/{name}" for name in ("L1_SB1.tar", "L2_summary.tar", "a.txt", "b.tar")],
            "count": 4,
            "obsids": ["L1", "L2"],
            "subbands": [],
            "missing": [],
        }
    )


def test_a_name_that_has_no_such_url_is_told() -> None:
    reason = the_failure(convert(*NAMES, "readme.txt"), final=True)
    assert reason.startswith("1 files have no URL of srm: readme.txt: found file name 'readme.txt'; expected L<OBSID>_")
    poznan = "gsiftp://gridftp.lofar.psnc.pl:2811/lofar/ops"
    assert "no WebDAV door of poznan is known" in the_failure(
        convert(*NAMES, where=poznan, scheme="webdav"), final=True
    )
    assert isinstance(convert(*NAMES, "readme.txt", pattern="*.tar"), Done)


def test_no_file_is_no_list() -> None:
    assert the_failure(convert()) == f"{WHERE} holds no file like *"
    assert the_failure(convert(*NAMES, size=0)) == f"{WHERE} holds no file like *", "an empty file is none"
    assert the_failure(convert(*NAMES, pattern="*.gz")) == f"{WHERE} holds no file like *.gz"


@pytest.mark.parametrize("values", [{"scheme": "https"}, {"nominal": 0}])
def test_parameters_that_make_no_sense(values: dict[str, Json]) -> None:
    with pytest.raises(msgspec.ValidationError):
        params(FilesToSurls, directory=WHERE, **values)


@given(
    site=st.sampled_from(sorted(WEBDAV)),
    directories=st.lists(
        st.from_regex(r"[a-zA-Z0-9_.-]{1,8}", fullmatch=True).filter(lambda part: part.strip(".")), max_size=4
    ),
    obsid=st.integers(1, 999_999),
    subband=st.none() | st.integers(0, 1000),
)
def test_every_door_shows_the_same_file(site: str, directories: list[str], obsid: int, subband: int | None) -> None:
    name = f"L{obsid}_uv.tar" if subband is None else f"L{obsid}_SB{subband:03d}_uv.tar"
    surl = f"srm://{GSIFTP[site][0]}:8443/{'/'.join([*directories, name])}"
    by_gsiftp = spelled(surl, "gsiftp")
    assert spelled(spelled(by_gsiftp, "srm"), "gsiftp") == by_gsiftp
    assert parse_surl(spelled(by_gsiftp, "srm")) == parse_surl(surl)
    assert spelled(surl, "webdav") == spelled(by_gsiftp, "webdav") == WEBDAV[site].url + quote(parse_surl(surl).path)
    assert named_in(surl) == named_in(by_gsiftp) == (f"L{obsid}", subband)
    assert spelled(surl, "as_is") == surl


# --- directories


def test_a_directory_is_made_once() -> None:
    values = params(MakeDirectoryStep, directory="file:///x/y/")
    outcome = MakeDirectoryStep().start(STEP, values)
    assert outcome == Do((MakeDirectory(url="file:///x/y"),))
    made = seen({}, *done_all(outcome, {"url": "file:///x/y"}))
    assert MakeDirectoryStep().react(STEP, values, made) == Done({"url": "file:///x/y"})
    refused = seen({}, rejected(MakeDirectory(url="file:///x/y")))
    assert the_failure(MakeDirectoryStep().react(STEP, values, refused)) == "make directory: it is forbidden"
