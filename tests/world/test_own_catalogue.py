"""A field that was imported into aglowd's own catalogue goes all its way."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from aglowd.cli.demo import Demo

from .small import FIELD, run_to_end, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]


async def test_a_field_of_our_own_catalogue_is_archived(tmp_path_factory: pytest.TempPathFactory) -> None:
    path: Path = tmp_path_factory.mktemp("w")
    options = msgspec.structs.replace(write_world(path / "in", subbands=6), catalogue="own")
    fields, report, _ = await run_to_end(Demo(options, path / "state"))
    assert states(fields) == {FIELD: "archived"}
    assert fields[0]["catalogue_status"] == "ZZZ"
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
