"""Where scenes are played: a story brings a world to a moment, and there all blocks of that scene are typed in a real shell.

What must stay true: a world stands still while something is typed, so what is shown is the same each time. The few names that
belong to the machine (directories, the process, who types) are shown as those of an installation.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.screens.pages import PROMPT, ROOT, Block, kept, of_scene
from tests.virtual.loop import VirtualLoop

MARK = "=== {} ==="
PID = "9944"
ASKS = "[y/N]: "
"""Whoever is asked says yes; a terminal would show it."""
HOST = "lofar-ui"
UID = "1000"

AGLOWCTL = """#!/bin/bash
# As installed; where it would go on for ever, somebody looks until nothing new comes, and presses Ctrl-C.
# Whoever runs the tests in the background lets their children ignore Ctrl-C.
INT='import signal; signal.signal(signal.SIGINT, signal.default_int_handler)'
real() { exec "$PYTHON" -c "$INT; from aglowd.cli.PROGRAM import main; main(prog_name='NAME')" "$@"; }
[ "$1" = watch ] || real "$@"
coproc { real "$@"; }
watcher=$COPROC_PID
exec 3<&"${COPROC[0]}"
read -r line <&3 && echo "$line"
while read -r -t 1 line <&3; do echo "$line"; done
kill -INT "$watcher"
wait "$watcher"
"""

Names = Iterable[tuple[str, str]]
"""What the pages say, and what is there in its place; the longer before what it begins with."""


def installed(directory: Path) -> Names:
    """Where an installation has what lies in the directory of a world."""
    return (
        ("/run/aglowd/aglowd.sock", f"{directory}/s"),
        ("/var/lib/aglowd", f"{directory}/state"),
        ("/backup", f"{directory}/backup"),
        ("/etc/aglowd", f"{directory}"),
    )


class Stage:
    """What a story shows, and what came of it."""

    def __init__(self, story: str) -> None:
        self.story = story
        self.made: dict[Block, str] = {}
        self.wrong: list[str] = []
        self.played: list[str] = []

    async def show(self, moment: str, directory: Path, names: Names = ()) -> None:
        """Type there what the blocks of this scene say."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        scene = f"{self.story}/{moment}"
        assert scene not in self.played, scene
        self.played.append(scene)
        with loop.held():
            await self._type(scene, Shell(directory, tuple(names)))

    async def _type(self, scene: str, shell: Shell) -> None:
        for block in of_scene(scene):
            parts, code = await shell.type(block.commands, is_strict=not block.is_made)
            where = f"{block.page}.md:{block.line} [{scene}]"
            if not block.is_made:
                if code != 0:
                    self.wrong.append(f"{where}: exit code {code}\n{''.join(parts)}")
                continue
            if len(parts) != len(block.commands) or "Traceback" in "".join(parts):
                self.wrong.append(f"{where}: it was not typed to its end\n{''.join(parts)}")
            shown = zip(block.commands, parts, strict=False)
            heads = "" if block.command else PROMPT
            text = "".join(f"{heads}{typed}\n{said}" if heads else said for typed, said in shown)
            self.made[block] = kept(block, text)


Story = Callable[[Stage], Awaitable[None]]
STORIES: dict[str, Story] = {}
"""First part of a scene's name → what plays its scenes."""


def story(name: str) -> Callable[[Story], Story]:
    def keep(play: Story) -> Story:
        assert name not in STORIES, name
        STORIES[name] = play
        return play

    return keep


class Shell:
    """A real shell in that directory, with the real commands."""

    def __init__(self, directory: Path, names: tuple[tuple[str, str], ...]) -> None:
        self.directory = directory
        self.names = (*names, (HOST, socket.gethostname()))
        self.today = datetime.now(UTC).date().isoformat()
        self.bin = directory / "typed"
        self.bin.mkdir(exist_ok=True)
        for name, program in (("aglowctl", "control"), ("aglowd", "daemon")):
            path = self.bin / name
            path.write_text(AGLOWCTL.replace("PROGRAM", program).replace("NAME", name), encoding="utf-8")
            path.chmod(0o755)

    async def type(self, commands: list[str], *, is_strict: bool) -> tuple[list[str], int]:
        """What each of them showed, and how the last ended. Strictly, the first that fails is the last."""
        lines = ["exec < <(yes y 2> /dev/null)", "set -e" if is_strict else "code=0"]
        for number, command in enumerate(commands):
            lines.append(f"echo; echo '{MARK.format(number)}'")
            lines.append(self._real(command) if is_strict else f"(exit $code); {self._real(command)}\ncode=$?")
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", "\n".join(lines)),
            cwd=self.directory,
            env={
                "PATH": os.pathsep.join((str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"])),
                "PYTHON": sys.executable,
                "PYTHONPATH": str(ROOT),
                "HOME": str(self.directory),
                "AGLOWD_SOCKET": str(self.directory / "s"),
                "PYTHONUNBUFFERED": "1",
                "COLUMNS": "200",
                "LC_ALL": "C.UTF-8",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        parts = re.split(rf"\n?^{MARK.format('[0-9]+')}\n", self._shown(said.decode()), flags=re.MULTILINE)[1:]
        return [f"{part.rstrip()}\n" if part.strip() else "" for part in parts], process.returncode or 0

    def _real(self, command: str) -> str:
        for shown, real in self.names:
            command = re.sub(rf"{re.escape(shown)}\b", real, command)
        return command

    def _shown(self, said: str) -> str:
        for shown, real in self.names:
            said = re.sub(rf"{re.escape(real)}\b", shown, said)
        said = said.replace(ASKS, f"{ASKS}y\n")
        said = re.sub(rf"\bpid {os.getpid()}\b", f"pid {PID}", said)
        said = re.sub(rf"\buid {os.getuid()}\b", f"uid {UID}", said)
        # What is dated by the host's own clock, such as the log, is of this day.
        said = re.sub(rf"\b{self.today}T[0-9:]{{8}}Z", "2017-07-14T02:40:09Z", said)
        said = re.sub(rf"\b{self.today.replace('-', '')}T[0-9]{{6}}Z", "20170714T024009Z", said)
        return re.sub(r"[ \t]+$", "", said, flags=re.MULTILINE)
