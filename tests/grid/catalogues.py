"""What the contract of catalogues is tried on: each with three fields on offer, and a person who changes statuses by hand."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.grid.catalogue import Catalogue
from aglowd.grid.catalogue_csv import CsvCatalogue, read_rows
from aglowd.grid.catalogue_mysql import MySqlCatalogue, Whoami
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.grid.gate import Credential, Site
from aglowd.grid.mysql import MySql, Place

LINE = "SND,{},x,8,2.01,242,229507,x,8,2.01,244,{},[CR]S\n"
OBSIDS = {"P1+10": 229509, "P2+20": 229511, "P3+30": 229513}
MANY = {f"P{number}": 300_000 + number for number in range(100, 140)}


class House(Struct):
    """A catalogue with these fields. `spec` is enough for another process to build it, with the name of its daemon."""

    spec: dict[str, Any]
    names: tuple[str, ...]
    many: tuple[str, ...]
    offered: str
    claimed: str
    done: str
    by_hand: Callable[[str, str], Awaitable[None]]
    keeps_keys: bool = True
    """Whether it has a place for the keys of writes. If not, a kill in the middle of one may leave a doubt."""

    def catalogue(self, daemon: str = "daemon-1") -> Catalogue:
        return build(self.spec, daemon)


def build(spec: dict[str, Any], daemon: str) -> Catalogue:
    """The catalogue of that spec, as the daemon of that name has it."""
    if spec["kind"] == "csv":
        return CsvCatalogue(Path(spec["path"]), daemon)
    if spec["kind"] == "own":
        return OwnCatalogue(Path(spec["path"]), daemon, offered=("SND",))
    credential = Credential("catalogue", user=spec["user"], password=spec["password"])
    place = Place("127.0.0.1", 1, spec["database"], spec["socket"])
    return MySqlCatalogue(
        MySql(Site("catalogue", Clock()), credential, place),
        Whoami(daemon, "Spider", "somebody", "ui1"),
        Path(spec["marks"]) / f"{daemon}.json",
        offered=("Observed",),
        starts=("DI_started",),
        ends=("Archived",),
    )


def text_of_all() -> str:
    return "".join(LINE.format(obsid, name) for name, obsid in {**OBSIDS, **MANY}.items())


def csv_house(tmp_path: Path) -> House:
    path = tmp_path / "fields.csv"
    path.write_text(text_of_all())
    age(path)

    async def by_hand(name: str, status: str) -> None:
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(status + line[3:] if f",{name}," in line else line for line in lines))

    spec = {"kind": "csv", "path": str(path)}
    return House(spec, tuple(OBSIDS), tuple(MANY), "SND", "AAA", "ZZZ", by_hand)


def age(path: Path) -> None:
    """As if it had been written a while ago: what is young is never taken for unchanged."""
    os.utime(path, (time.time() - 100, time.time() - 100))


async def own_house(tmp_path: Path) -> House:
    path = tmp_path / "catalogue.db"
    await OwnCatalogue(path, "somebody").add(read_rows(text_of_all(), "x", ("SND",)))

    async def by_hand(name: str, status: str) -> None:
        db = sqlite3.connect(path)
        with db:
            db.execute("UPDATE fields SET status = ? WHERE name = ?", (status, name))
        db.close()

    spec = {"kind": "own", "path": str(path)}
    return House(spec, tuple(OBSIDS), tuple(MANY), "SND", "AAA", "ZZZ", by_hand)
