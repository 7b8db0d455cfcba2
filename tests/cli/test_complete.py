"""What a shell is offered, by click's own protocol, in front of a real store and a real socket."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from populated import ARCHIVED, OFFERED, WAITS, WRONG

from .test_aglowctl import ARGV, Served, served  # noqa: F401 # A fixture.


async def offered(served: Served, line: str, **env: str) -> list[str]:  # noqa: F811
    """What bash would show for that line, of which the last word is begun."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(shlex.split(line)) - (not line.endswith(" ")))}
    code, out, err = await served.run(**{"_AGLOWCTL_COMPLETE": "bash_complete", **asked, **env})
    assert (code, err) == (0, "")
    return [row.partition(",")[2] for row in out.splitlines() if row]


OTHERS = (ARCHIVED, WRONG, OFFERED, "calibrator/L229587")


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("aglowctl show ", [ARCHIVED, WAITS, WRONG, OFFERED, "calibrator/L229587"]),
        ("aglowctl explain P1", [ARCHIVED]),
        ("aglowctl explain calibrator/", ["calibrator/L229587"]),
        ("aglowctl wait P14+30 P1", []),
        ("aglowctl events --field P2", [WAITS]),
        ("aglowctl explain Q", []),
        ("aglowctl skip P229+62 ", ["archive", "calibrator", "stage", "tokens", *OTHERS]),
        ("aglowctl done P14+30 P229+62 s", ["stage"]),
        ("aglowctl done P229+62 stage P", [ARCHIVED, WRONG, OFFERED]),
        ("aglowctl fields --state off", ["offered"]),
        ("aglowctl skip P229+62 s", ["stage"]),
        ("aglowctl skip P9+9 s", []),
        ("aglowctl wat", ["watch"]),
        ("aglowctl help exit", ["exit-codes"]),
    ],
)
async def test_bash_is_offered_what_there_is(served: Served, line: str, names: list[str]) -> None:  # noqa: F811
    assert sorted(await offered(served, line)) == sorted(names)


async def test_zsh_and_fish_are_offered_the_same(served: Served) -> None:  # noqa: F811
    asked = {"COMP_WORDS": "aglowctl show P2", "COMP_CWORD": "2"}
    _, out, _ = await served.run(**{"_AGLOWCTL_COMPLETE": "zsh_complete", **asked})
    assert out.splitlines() == ["plain", WAITS, "_"]
    asked = {"COMP_WORDS": "aglowctl show P2", "COMP_CWORD": "P2"}
    _, out, _ = await served.run(**{"_AGLOWCTL_COMPLETE": "fish_complete", **asked})
    assert WAITS in out


async def test_the_socket_that_the_line_names_is_asked(served: Served) -> None:  # noqa: F811
    line = f"aglowctl --socket {served.path} show P2"
    assert await offered(served, line, AGLOWD_SOCKET="/nowhere.sock") == [WAITS]


async def test_no_daemon_is_no_word(served: Served, tmp_path: Path) -> None:  # noqa: F811
    assert await offered(served, "aglowctl show P", AGLOWD_SOCKET="/nowhere.sock") == []
    assert await offered(served, "aglowctl skip P229+62 ", AGLOWD_SOCKET="/nowhere.sock") == []

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_unix_server(nonsense, tmp_path / "mail.sock"):
        assert await offered(served, "aglowctl show P", AGLOWD_SOCKET=str(tmp_path / "mail.sock")) == []


async def test_a_daemon_that_says_nothing_is_given_a_second(served: Served, tmp_path: Path) -> None:  # noqa: F811
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(silence, tmp_path / "mute.sock"):
        assert await offered(served, "aglowctl show P", AGLOWD_SOCKET=str(tmp_path / "mute.sock")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    env = {**os.environ, "_AGLOWCTL_COMPLETE": f"{shell}_source"}
    out = subprocess.run([*ARGV], env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"_AGLOWCTL_COMPLETE={shell}_complete" in out


def test_bash_takes_the_script(tmp_path: Path) -> None:
    env = {**os.environ, "_AGLOWCTL_COMPLETE": "bash_source"}
    out = subprocess.run([*ARGV], env=env, capture_output=True, text=True, check=True, timeout=60).stdout
    script = tmp_path / "aglowctl"
    script.write_text(out, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", f"source {script} && complete -p aglowctl"], capture_output=True, text=True, check=True
    )
    assert "-F _aglowctl_completion aglowctl" in done.stdout
