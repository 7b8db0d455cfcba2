"""The manual pages: every command stands there with its options and its example, and roff takes them without a word."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from aglowd.cli import exits, manual

PAGES = {name: manual.page_of(name) for name in manual.PAGES}


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


COMMANDS = [one for name, (group, _, _) in manual.PAGES.items() for one in ((name, group), *commands(group, name))]


def plain(page: str) -> str:
    """The page as a reader has it, but for its lines."""
    page = re.sub(r"\\\[u([0-9A-F]{4,})\]", lambda found: chr(int(found[1], 16)), page)
    return page.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_each_command_has_help_an_example_and_an_entry_in_the_manual(name: str, command: click.Command) -> None:
    page = plain(PAGES[name.split()[0]])
    assert command.help
    assert "Example:" not in command.help
    example = (command.epilog or "").removeprefix("\b\n")
    assert example.startswith(f"Example: {name}" if " " in name else f"Example: {name} ")
    assert f"\n{example}\n" in page
    assert " ".join(re.split(r"\n\s*\n", command.help)[0].split()) in page
    if " " in name:
        assert re.search(rf"^\.SS {re.escape(name)}( \[|$| [A-Z])", page, re.MULTILINE)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help
            assert option.help in page
            assert all(re.search(rf"^\.B .*{re.escape(text)}\b", page, re.MULTILINE) for text in option.opts)


def test_the_exit_codes_stand_there() -> None:
    for name, codes in (("aglowctl", exits.ASKING), ("aglowd", exits.RUNNING)):
        for code, meaning in codes.items():
            assert f".TP\n.B {code}\n{meaning}\n" in plain(PAGES[name])


def test_they_are_written_where_man_looks_and_roff_takes_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "aglowd.cli.manual", str(tmp_path)], check=True, timeout=60)
    paths = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.?"))
    assert [str(path) for path in paths] == ["man1/aglowctl.1", "man8/aglowd.8"]
    assert all((tmp_path / path).read_text(encoding="utf-8").isascii() for path in paths)
    if shutil.which("groff") is None:
        pytest.skip("there is no groff")
    for path in paths:
        argv = ["groff", "-man", "-ww", "-Tutf8", str(tmp_path / path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh", "aglowd.spec"])
def test_the_packages_bring_them_and_the_completions_along(script: str) -> None:
    text = (Path(__file__).parents[2] / "packaging" / script).read_text(encoding="utf-8")
    pages = ("aglowd.cli.manual",) if script == "install.sh" else ("man1/aglowctl.1", "man8/aglowd.8")
    for what in (*pages, "bash-completion/completions/aglowctl", "zsh/site-functions/_aglowctl", "aglowctl.fish"):
        assert what in text
