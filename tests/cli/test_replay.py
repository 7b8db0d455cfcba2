"""`aglowd replay` in front of a running daemon: it asks for a copy, reads that, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from support import begin, settle_all

from aglowd.cli import replay
from aglowd.cli.daemon import main
from aglowd.cli.render import iso
from aglowd.cli.replay import DAY_S, day_of
from aglowd.errors import AglowError
from aglowd.replay import Replayed

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
        assert "there is no field 'P9*'" in found.output
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
    for text in ("999999w", f"{'9' * 40}w"):
        with pytest.raises(ValueError, match="is no day that has a date; expected one of the years 1 to 9999"):
            day_of(text, NOON)


@pytest.mark.parametrize(
    ("whole_since", "page"),
    [
        (None, ["2001-09-09: nothing was decided, so nothing is different"]),
        (NOON, [f"the log is whole since {iso(NOON)}", "2001-09-09: nothing was decided, so nothing is different"]),
    ],
)
def test_a_day_without_decisions_is_told_and_what_the_log_may_have_lost(
    whole_since: float | None, page: list[str]
) -> None:
    nothing = Replayed(0, 0, 0, 0, {}, (), whole_since)
    answer = {"day": "2001-09-09", "journal": None, "seed": None, **msgspec.to_builtins(nothing)}
    assert replay._page(answer) == page


class Terminal(io.StringIO):
    """Somebody looks on."""

    def isatty(self) -> bool:
        return True

    def line(self) -> str:
        """What stands on its last line: what is written later stands above what was there."""
        shown = ""
        for part in self.getvalue().split("\r"):
            shown = part + shown[len(part) :]
        return shown


def test_how_far_it_is_stands_on_a_line_that_is_empty_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "QUIET_REAL_S", 0.0)
    monkeypatch.setattr(replay, "TOLD_REAL_S", 0.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def fail() -> None:
        with replay._progress() as tell:
            tell(26, 27)
            assert terminal.line() == "26 of 27 decisions"
            raise AglowError("the copy is damaged")

    with pytest.raises(AglowError):
        fail()
    assert terminal.line().strip() == ""
    assert terminal.getvalue().endswith("\r")


def test_nothing_is_told_of_how_far_it_is_where_nobody_looks_on_or_it_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for terminal, quiet_s in ((io.StringIO(), 0.0), (Terminal(), 3600.0)):
        monkeypatch.setattr(replay, "QUIET_REAL_S", quiet_s)
        monkeypatch.setattr(sys, "stderr", terminal)
        with replay._progress() as tell:
            tell(26, 27)
        assert terminal.getvalue() == ""
