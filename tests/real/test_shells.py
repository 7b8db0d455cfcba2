"""Names after Tab, in the shells themselves: each has a terminal, reads what `make install` gives it, and asks a daemon."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from populated import WAITS

from tests.cli.test_aglowctl import Served, served  # noqa: F401 # A fixture.

COMMANDS = Path(sys.executable).parent
TIMEOUT_REAL_S = 30.0
BASH = 'PS1="rea""dy> "; source "{script}"\n'
ZSH = 'fpath=("{script.parent}" $fpath); autoload -Uz compinit; compinit -D -u; PS1="rea""dy> "\n'
FISH = 'source "{script}"; function fish_prompt; echo "rea""dy> "; end\n'
SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), "aglowctl", BASH),
    "zsh": (("zsh", "-f", "-i"), "_aglowctl", ZSH),
    "fish": (("fish", "--no-config", "-i"), "aglowctl.fish", FISH),
}
"""Shell → how it is begun, how its file is called, and what it is told first; a terminal shows that, too, so it does not hold READY."""
READY = "ready> "


class Terminal:
    """What is typed at a shell, and what it shows."""

    def __init__(self, argv: tuple[str, ...], environ: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()
        argv = ("setsid", "--ctty", *argv)
        self._shell = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def until(self, text: str) -> None:
        """Until it shows that."""
        loop = asyncio.get_running_loop()
        end = loop.time() + TIMEOUT_REAL_S
        while text not in self._shown:
            assert loop.time() < end, f"expected {text!r} to be shown; found {self._shown!r}"
            readable, _, _ = await asyncio.to_thread(select.select, [self._ours], [], [], 1.0)
            if readable:
                self._shown += os.read(self._ours, 65_536).decode()
        self._shown = self._shown.partition(text)[2]

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._ours)


@pytest.mark.parametrize(("typed", "completed"), [("aglowctl explain P2", WAITS), ("aglowctl candi", "candidates")])
@pytest.mark.parametrize("shell", SHELLS)
async def test_a_word_that_is_begun_is_completed(
    shell: str,
    typed: str,
    completed: str,
    served: Served,  # noqa: F811
    tmp_path: Path,
) -> None:
    argv, name, first = SHELLS[shell]
    assert shutil.which(argv[0]), f"{shell} is not installed"
    path = os.pathsep.join((str(COMMANDS), os.environ["PATH"]))
    environ = {"PATH": path, "HOME": str(tmp_path), "AGLOWD_SOCKET": str(served.path), "TERM": "dumb"}
    _, script, _ = await served.run(_AGLOWCTL_COMPLETE=f"{shell}_source")
    (tmp_path / name).write_text(script, encoding="utf-8")
    terminal = Terminal(argv, environ)
    try:
        terminal.type(first.format(script=tmp_path / name))
        await terminal.until(READY)
        terminal.type(f"{typed}\t")
        await terminal.until(f"{typed.rpartition(' ')[0]} {completed}")
    finally:
        terminal.close()
