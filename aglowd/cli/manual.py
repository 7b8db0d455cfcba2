"""The manual pages aglowctl(1) and aglowd(8), made of the commands themselves: `python -m aglowd.cli.manual DIRECTORY`.

One page a program, because who looks for a command that he does not know searches one page. What must stay true: nothing
stands in them that the commands do not say by themselves, and so nothing in them can be out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from aglowd import __version__
from aglowd.cli import exits, topics
from aglowd.cli.control import main as aglowctl
from aglowd.cli.daemon import main as aglowd

PAGES: Mapping[str, tuple[click.Group, int, Mapping[int, str]]] = {
    "aglowctl": (aglowctl, 1, exits.ASKING),
    "aglowd": (aglowd, 8, exits.RUNNING),
}


def page_of(name: str) -> str:
    """The page of that program in roff."""
    group, section, codes = PAGES[name]
    what, *more = _paragraphs(group)
    context = click.Context(group, info_name=name, **group.context_settings)
    other, at = next((other, page[1]) for other, page in PAGES.items() if other != name)
    lines = [
        f'.TH {name.upper()} {section} "" "aglowd {__version__}" "aglowd"',
        *(".SH NAME", f"{_text(name)} \\- {_text(what[0].lower() + what[1:].rstrip('.'))}"),
        *(".SH SYNOPSIS", f".B {_text(name)}", _text(" ".join(group.collect_usage_pieces(context)))),
        ".nh",
        *(".SH DESCRIPTION", _text(what), *_more(more), *_example(group)),
        *(".SH OPTIONS", *_options(group, context)),
        *(".SH COMMANDS", *_commands(group, context)),
        ".SH EXIT STATUS",
    ]
    for code, meaning in codes.items():
        lines += [".TP", f".B {code}", _text(meaning)]
    if name == "aglowctl":
        for topic in (topics.TOPICS["environment"](), topics.TOPICS["patterns"]()):
            head, body = topic.split("\n", 1)
            lines += [f".SH {head.upper()}", ".nf", _text(body.strip("\n")), ".fi"]
    lines += [".SH SEE ALSO", f".BR {other} ({at}),", "the pages in share/doc/aglowd"]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = click.Context(command, info_name=name, parent=context)
        yield f".SS {_text(' '.join((inner.command_path, *command.collect_usage_pieces(inner))))}"
        first, *more = _paragraphs(command)
        # That each has --help stands once, above.
        options = _options(command, inner, but="help")
        yield from (_text(first), *_more(more), *options, *_example(command))
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _more(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from (".PP", _text(paragraph))


def _example(command: click.Command) -> Iterator[str]:
    if command.epilog:
        yield from (".PP", ".nf", _text(command.epilog.replace("\b", "").strip()), ".fi")


def _options(command: click.Command, context: click.Context, but: str = "") -> Iterator[str]:
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and record[1] and param.name != but:
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _paragraphs(command: click.Command) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))]


def _text(text: str) -> str:
    """The text, of which roff takes nothing as its own; what is no ASCII by its number, for every roff."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    lines = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in safe).split("\n")
    # Where a line begins with a dot or a quote, roff would look for a request.
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def main(directory: Path) -> None:
    """Write all pages below that directory, as `man` looks for them."""
    for name, (_, section, _) in PAGES.items():
        path = directory / f"man{section}" / f"{name}.{section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page_of(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
