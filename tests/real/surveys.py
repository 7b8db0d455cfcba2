"""The surveys database for the tests, with the fields of the contract of catalogues in it."""

from __future__ import annotations

from pathlib import Path

from aglowd.sim.mariadb import DATABASE, USER, MariaDb
from tests.grid.catalogues import MANY, OBSIDS, House, text_of_all

PLAIN, PLAIN_PASSWORD = "plain", "only statuses"
"""An account that may read, and update observations: no more."""


async def house(database: MariaDb, tmp_path: Path, way: str) -> House:
    """`way`: "table" of our own, "column", or no place for keys: we may make "no table", or there are "no transactions"."""
    await database.clear()
    if way == "column":
        await database.sql("ALTER TABLE observations ADD aglowd_key VARCHAR(600);")
    elif way == "no transactions":
        await database.sql("ALTER TABLE observations ENGINE = MyISAM;")
    await database.sql(
        f"DROP USER IF EXISTS '{PLAIN}'@'localhost'; CREATE USER '{PLAIN}'@'localhost' IDENTIFIED BY '{PLAIN_PASSWORD}'; "
        f"GRANT SELECT ON {DATABASE}.* TO '{PLAIN}'@'localhost'; "
        f"GRANT UPDATE ON {DATABASE}.observations TO '{PLAIN}'@'localhost';"
    )
    await database.fill(line.split(",") for line in text_of_all().splitlines())

    async def by_hand(name: str, status: str) -> None:
        await database.sql(f"UPDATE observations SET status = '{status}' WHERE id = {name.rpartition('_L')[2]};")

    is_plain = way == "no table"
    spec = {
        "kind": "mysql",
        "socket": str(database.socket),
        "database": DATABASE,
        "user": PLAIN if is_plain else USER,
        "password": PLAIN_PASSWORD if is_plain else database.password,
        "marks": str(tmp_path),
    }
    names = tuple(f"{name}_L{obsid}" for name, obsid in OBSIDS.items())
    many = tuple(f"{name}_L{obsid}" for name, obsid in MANY.items())
    return House(spec, names, many, "Observed", "DI_started", "Archived", by_hand, not way.startswith("no "))
