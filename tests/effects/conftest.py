"""Everything that deeds ask, in memory or in a directory of the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from .outside import Outside


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path)
