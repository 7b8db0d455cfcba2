"""The fenced blocks of the pages, and what each of them claims to be.

A comment before the fence, which no reader sees, says where a block's commands are run:

- `<!-- scene: survey/staging -->`: lines that begin with `$ ` are commands, and what stands below each is what it shows;
  a block without such lines is commands alone, all of which end well.
- `<!-- scene: survey/staging: aglowctl status | grep pool -->`: the block is what that command shows.

What must stay true: a block that is neither of these, nor a file that the product reads, is listed by name in `elsewhere`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parent.parent.parent
HELD_ELSEWHERE = frozenset(
    {
        "changelog",
        "contributing",
        "design",
        "events",
        "index",
        "logs",
        "pipelines",
        "promises",
        "reference",
        "step-api",
        "stuck",
    }
)
"""Pages whose blocks other tests hold to the product, or which have none."""
ORDER = (
    "start",
    "run",
    "recover",
    "install",
    "configure",
    "jobs",
    "tokens",
    "launcher",
    "provenance",
    "quirks",
    "from-aglow",
)
"""In which blocks of one scene are typed; the pages that are not named come behind."""
PAGES = {page.stem for page in (ROOT / "docs").glob("*.md")} - HELD_ELSEWHERE
NAMES = ("README", *(f"docs/{name}" for name in (*ORDER, *sorted(PAGES.difference(ORDER)))))
BLOCK = re.compile(
    r"(?:^(?P<mark>[ ]*<!-- scene: (?P<scene>[\w/-]+)(?:: (?P<command>.+?))? -->)\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)
PROMPT = "$ "


class Block(Struct, frozen=True):
    """One block. `line` is where its fence stands; `begin` and `end` are where its text does in the page's."""

    page: str
    line: int
    begin: int
    end: int
    indent: str
    language: str
    scene: str
    command: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def commands(self) -> list[str]:
        """What is typed."""
        if self.command:
            return [self.command]
        typed = [line.removeprefix(PROMPT) for line in self.lines if line.startswith(PROMPT)]
        return typed or self.lines

    @property
    def is_made(self) -> bool:
        """Whether what the commands show is part of it."""
        return bool(self.command) or any(line.startswith(PROMPT) for line in self.lines)

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or a part of one."""
        return not self.scene and (
            self.language in ("toml", "json", "python", "yaml") or self.text.startswith(("[", "#!"))
        )


def path_of(page: str) -> Path:
    return ROOT / f"{page}.md"


def blocks_of(page: str) -> Iterator[Block]:
    text = path_of(page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        indent, (begin, end) = found["indent"], found.span("text")
        yield Block(
            page=page,
            line=text.count("\n", 0, begin),
            begin=begin,
            end=end,
            indent=indent,
            language=found["language"],
            scene=found["scene"] or "",
            command=found["command"] or "",
            text=re.sub(rf"^{indent}", "", found["text"], flags=re.MULTILINE),
        )


BLOCKS = tuple(block for page in NAMES for block in blocks_of(page))


def of_scene(scene: str) -> list[Block]:
    return [block for block in BLOCKS if block.scene == scene]


def fits(shown: str, line: str) -> bool:
    """Whether the line is what the page shows; there, … stands for what is another each time."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), line) is not None


def kept(block: Block, text: str) -> str:
    """What the block shall say, now that its commands show this: lines with … stay where they are still true."""
    lines, old = text.splitlines(), block.lines
    if len(lines) == len(old):
        lines = [was if "…" in was and fits(was, now) else now for was, now in zip(old, lines, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def differences(block: Block, text: str) -> list[str]:
    """Each line of the page that is another one, with its place."""
    was, now = block.lines, text.splitlines()
    found = []
    for number in range(max(len(was), len(now))):
        left, right = (lines[number] if number < len(lines) else "(nothing)" for lines in (was, now))
        if left != right:
            found.append(f"{block.page}.md:{block.line + 1 + number} [{block.scene}]\n  was: {left}\n  is:  {right}")
    return found


def write(made: Mapping[Block, str]) -> int:
    """Put the texts into the pages; returns how many of them are new."""
    for page in {block.page for block in made}:
        text = path_of(page).read_text(encoding="utf-8")
        for block in sorted((one for one in made if one.page == page), key=lambda one: one.begin, reverse=True):
            new = "".join(f"{block.indent}{line}".rstrip() + "\n" for line in made[block].splitlines())
            text = text[: block.begin] + new + text[block.end :]
        path_of(page).write_text(text, encoding="utf-8")
    return sum(text != block.text for block, text in made.items())
