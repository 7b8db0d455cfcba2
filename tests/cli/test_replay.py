"""`aglowd replay` in front of a running daemon: it asks for a copy, reads that, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import begin, settle_all

from aglowd.cli.daemon import main
from aglowd.cli.replay import DAY_S, day_of

from .seated import seated
from .test_quality import ASKING

NOON = 1_000_000_000.0 // DAY_S * DAY_S + DAY_S / 2


async def test_without_a_file_the_daemon_is_asked_for_a_copy_which_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    async with seated(tmp_path) as daemon:
        await begin(daemon.store, ASKING)
        await settle_all(daemon.reactor)
        config = tmp_path / "replay.toml"
        text = (tmp_path / "aglowd.toml").read_text(encoding="utf-8")
        config.write_text(text.replace(f"{tmp_path}/state/s", f"{tmp_path}/s"), encoding="utf-8")
        words = ["replay", "2001-09-09", "--config", str(config)]
        found = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--json"])
        assert found.exit_code == 0, found.output
        answer = json.loads(found.stdout.splitlines()[-1])  # Above it the server says that it made a copy.
        assert (answer["journal"], answer["same"], answer["different"], answer["untold"]) == (None, 1, 0, {})
        assert list(place.iterdir()) == []
        found = await asyncio.to_thread(CliRunner().invoke, main, [*words, "P9*"])
        assert found.exit_code == 2
        assert "nothing was decided on P9* on 2001-09-09; " in found.output
        assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "days_ago"),
    [("today", 0), ("now", 0), ("yesterday", 1), ("2d", 2), ("13h", 1), ("2001-09-07", 2), ("2001-09-08T23:59:59Z", 1)],
)
def test_a_day_is_said_in_many_ways(said: str, days_ago: int) -> None:
    assert day_of(said, NOON) == NOON - DAY_S / 2 - days_ago * DAY_S


def test_what_is_no_day_is_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"'someday' is no time; expected .* or today or yesterday"):
        day_of("someday", NOON)
