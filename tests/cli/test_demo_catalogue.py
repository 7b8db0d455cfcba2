"""The catalogues of the demo: what the daemon is told of each, and what is said where MariaDB is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from aglowd.cli.demo_catalogue import DemoCatalogue
from aglowd.errors import AglowError
from aglowd.sim import mariadb


@pytest.mark.parametrize(("kind", "name"), [("csv", "fields.csv"), ("own", "catalogue.db")])
async def test_files_of_the_demo(tmp_path: Path, kind: str, name: str) -> None:
    catalogue = DemoCatalogue(kind, tmp_path / "fields.csv", tmp_path)
    async with catalogue.running():
        assert catalogue.table == {"path": str(tmp_path / name), "select": ["SND", "JND"]}


async def test_packages_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mariadb.shutil, "which", lambda program, path: None)
    catalogue = DemoCatalogue("mysql", tmp_path / "fields.csv", tmp_path)
    with pytest.raises(AglowError, match="--catalogue mysql starts a MariaDB of its own: mariadbd is not installed; "):
        async with catalogue.running():
            raise AssertionError("it runs")
    for package in ("mariadb-server-core", "mariadb-client-core"):
        assert package in mariadb.PACKAGES.values()
