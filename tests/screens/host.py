"""A host on which no daemon runs: one is configured, tried, restored."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from aglowd.clock import Clock
from tests.screens.pages import ROOT, blocks_of
from tests.screens.stage import Names, Stage, installed, story
from tests.support import opened

CONFIG = """[daemon]
state_dir = "{0}/state"
socket = "{0}/s"
[catalogue]
kind = "own"
srm_dir = "{0}"
[sites.sara]
results = "file://{0}/results"
archive = "file://{0}/archive"
[jobs]
system = "none"
"""
STAND_INS = {"systemctl": "exit 0", "sudo": 'shift 2; exec "$@"'}
"""What needs root, and is no part of what is shown."""


def names_of(directory: Path) -> Names:
    return (
        *installed(directory),
        ("$SHARE", f"{ROOT}/etc"),
    )


@story("host")
async def configure(stage: Stage) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        for made in ("state", "backup", "aglowd.d", "typed"):
            (directory / made).mkdir()
        for program, text in STAND_INS.items():
            (directory / "typed" / program).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            (directory / "typed" / program).chmod(0o755)
        (directory / ".local").mkdir()
        (directory / ".local" / "bin").symlink_to(directory / "typed")
        config = directory / "aglowd.toml"
        config.write_text(CONFIG.format(directory), encoding="utf-8")
        async with opened(directory / "backup" / "aglowd-2026-11-24.db", Clock()):
            pass  # A backup of a daemon to which nothing has happened yet.
        (limits,) = (block for block in blocks_of("docs/configure") if block.text.startswith("# aglowd.d/"))
        (directory / "aglowd.d" / "20-limits.toml").write_text(limits.text, encoding="utf-8")
        await stage.show("configured", directory, names_of(directory))
        await stage.show("restored", directory, names_of(directory))
        (directory / "aglowd.d" / "20-limits.toml").unlink()
        config.write_text(CONFIG.format(directory).replace("[sites.sara]", 'selekt = ["SND"]\n[sites.sara]'), "utf-8")
        await stage.show("wrong", directory, names_of(directory))
        config.write_text(CONFIG.format(directory), encoding="utf-8")
        database = directory / "state" / "aglowd.db"
        whole = database.read_bytes()
        database.write_bytes(whole[: -len(whole) // 4] + b"\0" * (len(whole) // 4))
        await stage.show("damaged", directory, names_of(directory))
