"""Every block of the pages is what the commands show, or can be typed, or is read by the parser that it is for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from aglowd.pipeline_file import load_pipeline
from aglowd.wiring import load_files
from tests.screens import pages
from tests.screens.elsewhere import TESTED, UNTRIED, place_of
from tests.screens.pages import BLOCKS, ROOT, Block
from tests.screens.played import play
from tests.screens.stage import STORIES
from tests.test_docs import handler_kinds

FILES = [block for block in BLOCKS if block.is_file and place_of(block.page, block.lines) is None]
AGAIN = "python -m tests.screens"
OWN = '[pipeline]\nname = "own"\n[steps.tokens]\nkind = "create_tokens"\ntoken_type = "t"\nconfig = {{ file = "{}" }}\nsurls = ["{}"]\n'
SURL = "srm://srm.grid.sara.nl:8443/d/L1_SB000_uv.tar"


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.world
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(STORIES))
def test_the_pages_show_what_the_commands_show(name: str) -> None:
    stage = play(name)
    wrong = [*stage.wrong]
    for block, text in stage.made.items():
        wrong += pages.differences(block, text)
    assert not wrong, "\n".join((*wrong, f"if that is as it shall be: {AGAIN} {name}"))
    claimed = {block.scene for block in BLOCKS if block.scene.partition("/")[0] == name}
    assert claimed == {*stage.played}, "a scene is shown on no page, or played by nobody"


def test_every_scene_has_its_story() -> None:
    assert {block.scene.partition("/")[0] for block in BLOCKS if block.scene} == {*STORIES}


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_every_block_is_held_to_something(block: Block) -> None:
    listed = place_of(block.page, block.lines)
    assert bool(block.scene) + (listed is not None) + (block in FILES) == 1, block.text


def test_what_is_listed_is_there_once_and_names_tests_that_exist() -> None:
    found = [place for block in BLOCKS if (place := place_of(block.page, block.lines)) is not None]
    assert sorted(found) == sorted((*TESTED, *UNTRIED))
    assert [test for test in TESTED.values() if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("block", FILES, ids=name_of)
def test_a_file_is_one_that_the_product_reads(block: Block, tmp_path: Path) -> None:
    text = block.text.replace("…", "...")
    if text.startswith("#!"):
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    elif block.language == "json":
        shown = msgspec.json.decode(text)
        if "Token" in shown:
            (tmp_path / "token.json").write_text(text, encoding="utf-8")
            (tmp_path / "own.toml").write_text(OWN.format(tmp_path / "token.json", SURL), encoding="utf-8")
            kinds = {kind: handler.Params for kind, handler in handler_kinds().items()}
            assert load_pipeline(tmp_path / "own.toml", kinds).steps
    else:
        (tmp_path / "aglowd.d").mkdir()
        least = next(one for one in FILES if one.page == "docs/configure" and "srm_dir" in one.text)
        # The least configuration has a fields file, which is in the way of another kind.
        lines = [line for line in least.lines if not (line.startswith("path") and "\nkind = " in text)]
        (tmp_path / "aglowd.toml").write_text("\n".join(lines), encoding="utf-8")
        (tmp_path / "aglowd.d" / "10-shown.toml").write_text(text, encoding="utf-8")
        assert load_files(tmp_path / "aglowd.toml").pipelines


def test_the_synopsis_of_the_launcher_names_all_its_options() -> None:
    (block,) = (block for block in BLOCKS if block.text.startswith("python3 pilot.py"))
    pilot = [sys.executable, str(ROOT / "aglowd" / "launcher" / "pilot.py"), "--help"]
    told = subprocess.run(pilot, capture_output=True, text=True, check=True).stdout
    assert {*re.findall(r"--[\w-]+", block.text)} == {*re.findall(r"--[\w-]+", told)} - {"--help"}


@pytest.mark.world
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_demo_ends_as_the_page_says(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "P14Hetdex04: archived" in block.lines)
    done = subprocess.run(
        [sys.executable, "-c", "from aglowd.cli.daemon import main; main()", "demo"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=550,
        check=True,
    )
    last = done.stdout.splitlines()[-len(block.lines) :]
    # How long it takes, and how often it asks meanwhile, is another number on each machine.
    told, shown = (re.sub(r"[\d.]+", "N", "\n".join(lines)) for lines in (last, block.lines))
    assert told == shown
