"""`aglowctl help`: the help of a command, or what concerns all of them, in a few short texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click

from aglowd.cli import exits


def _exit_codes() -> str:
    codes = "\n".join(f"  {code}  {meaning}" for code, meaning in exits.ASKING.items())
    return f"""Exit codes

{codes}

5 and 8 are of `aglowctl wait` alone. Each command says what else 0 and 1 mean of it. What went
wrong, and what to do next, stands on stderr; stdout has the answer or nothing.
"""


def _environment() -> str:
    return """Environment

  AGLOWD_SOCKET  the control socket, as --socket; without either it is /run/aglowd/aglowd.sock
  NO_COLOR       if it is set to anything, no colour, also on a terminal
  COLUMNS        how wide the terminal is, if it does not tell

Piped, tables are aligned text without colour. Programs take --json: its keys stay as they are as
long as "schema" does. Names after Tab: aglowctl(1), or docs/install.md.
"""


def _patterns() -> str:
    return """Patterns and --state

Where a command takes several names, a name may be a pattern, as in a shell: * stands for any
letters, ? for one, [ab] for a or b, [!ab] for any other. Capital and small letters differ. Put it
into quotes, or the shell takes it for files. --state keeps what is in that state; without a name
it stands for all that is. A field named Q[1] is meant by just that name, and Q1 is not.

  aglowctl wait 'P2*'           all fields of which the name begins with P2
  aglowctl pause 'P22?+6[0-4]'  such as P229+62
  aglowctl explain --state failed
  aglowctl retry 'P2*' --state failed
  aglowctl forget 'P229_62-*'   all runs of P229+62: here a pattern is of the runs' ids

What stands for nothing is an error, whatever stands beside it, except of `aglowctl watch`: fields
may come. Commands that change something show first what it stands for; `aglowctl fields` lists it.
"""


TOPICS: Mapping[str, Callable[[], str]] = {
    "exit-codes": _exit_codes,
    "environment": _environment,
    "patterns": _patterns,
}


def _offered(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    main = context.find_root().command
    words = (*TOPICS, *(main.commands if isinstance(main, click.Group) else ()))
    return [word for word in words if word.startswith(begun)]


@click.command(name="help")
@click.argument("words", nargs=-1, metavar="[TOPIC|COMMAND]...", shell_complete=_offered)
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, or one of the topics exit-codes, environment and patterns.

    Example: aglowctl help exit-codes
    """
    if len(words) == 1 and words[0] in TOPICS:
        click.echo(TOPICS[words[0]](), nl=False)
        return
    assert context.parent is not None
    at = context.parent
    for word in words:
        command = at.command.get_command(at, word) if isinstance(at.command, click.Group) else None
        if command is None:
            raise click.UsageError(f"there is no command and no topic {' '.join(words)!r}; topics: {', '.join(TOPICS)}")
        at = click.Context(command, info_name=word, parent=at, **command.context_settings)
    click.echo(at.get_help())
