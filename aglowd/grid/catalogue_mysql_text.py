"""The surveys database as text: which columns there are, what is asked of them, and rows as fields. Pure.

Tables and columns: LiLF `surveys_db.py`, lotss-hba-survey `db_utils.py`, AGLOW `AGLOW_MySQL_utils.py`. Only `id`, `field` and
`status` of `observations` and `id` of `fields` must be there: copies of the database differ in the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from aglowd.errors import Permanent
from aglowd.grid.catalogue import MAX_FIELDS, NAME, NAME_EXPECTED, Row, Shown, statements
from aglowd.grid.surl import site_called

NEEDED = {"observations": ("id", "field", "status"), "fields": ("id",)}
OBSERVATION = (
    *("nchan", "dt", "nsb", "calibrator_id", "calibrator_nchan", "calibrator_dt", "calibrator_nsb"),
    *("bad_baselines", "demix_sources", "priority", "location"),
)
"""What is read of an observation, where it is there."""
KEY = "aglowd_key"
"""The column for the key of our writes, where somebody has added one."""
WRITES = "aglowd_writes"
"""The table for the keys of our writes, where our account may have one."""
TRANSACTIONAL = frozenset({"innodb", "xtradb", "rocksdb", "tokudb", "ndbcluster"})
MAX_WORD_CHARS = 64
"""Of a status."""
_NAME = re.compile(r".+_L(\d{1,12})", re.DOTALL)


class Columns(Struct, frozen=True):
    """The columns of each of the tables, and whether a write to `observations` can be undone."""

    observations: frozenset[str]
    fields: frozenset[str]
    has_writes: bool = False
    is_transactional: bool = True

    @property
    def keeps_keys(self) -> bool:
        """Whether the key of a write is written with it, all or nothing."""
        return KEY in self.observations or (self.has_writes and self.is_transactional)


def columns_of(rows: Sequence[Sequence[Any]], engine: str | None, database: str) -> Columns:
    """What information_schema says; Permanent names the tables and columns that are missing."""
    found: dict[str, set[str]] = {"observations": set(), "fields": set(), WRITES: set()}
    for table, column in rows:
        found.setdefault(str(table), set()).add(str(column).lower())
    missing = [f"{table}.{name}" for table, names in NEEDED.items() for name in names if name not in found[table]]
    if missing:
        raise Permanent(
            f"{database} has no {', '.join(missing)} that we may read; expected the tables observations and fields"
        )
    is_transactional = (engine or "").lower() in TRANSACTIONAL
    return Columns(frozenset(found["observations"]), frozenset(found["fields"]), bool(found[WRITES]), is_transactional)


def _read(columns: Columns) -> list[str]:
    """What is selected for a row, in the order of `row_of`; NULL for what is not there."""
    ours = [f"o.{name}" if name in columns.observations else "NULL" for name in OBSERVATION]
    return ["o.id", "o.field", "o.status", "f.priority" if "priority" in columns.fields else "NULL", *ours]


def rows_statement(columns: Columns) -> str:
    """All observations with their fields, one more than there may be."""
    return statements("catalogue_mysql")["rows"].format(columns=", ".join(_read(columns)), most=MAX_FIELDS + 1)


def stamp_statement(columns: Columns) -> str:
    """One number for all that is read. A NULL is a value of its own, or moving one to the next column would not show."""
    values = [f"COALESCE({name}, '~')" for name in _read(columns) if name != "NULL"]
    return statements("catalogue_mysql")["stamp"].format(values=", ".join(values))


def write_statement(columns: Columns, date: str = "") -> tuple[str, tuple[str, ...]]:
    """The write of a status, and what of us it takes beside: `user`, `cluster`, `node`, `key`, in this order.

    Where there is a column for keys, what stood in it is its last value. `date`: the column that gets the time, start_date or end_date, where it is there.
    """
    named = (("username", "user"), ("clustername", "cluster"), ("nodename", "node"), (KEY, "key"))
    ours = [(column, what) for column, what in named if column in columns.observations]
    more = "".join(f", {column} = %s" for column, _ in ours)
    more += f", {date} = NOW()" if date in columns.observations else ""
    key = f" AND COALESCE({KEY}, '') = %s" if KEY in columns.observations else ""
    return statements("catalogue_mysql")["write"].format(more=more, key=key), tuple(what for _, what in ours)


def look_statement(columns: Columns, *, hold: bool) -> str:
    """The status of one observation, with its key where there is a column for it."""
    key = f"o.{KEY}" if KEY in columns.observations else "NULL"
    return statements("catalogue_mysql")["look_and_hold" if hold else "look"].format(key=key)


def id_of(name: str) -> str:
    """The observation that a field of ours is: P22Hetdex04_L229511 → 229511; Permanent, absent, if it is none."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise Permanent(f"there is no field {name}; expected its name in the survey, _L and its OBSID", absent=True)
    return found[1]


def name_of(field: str, observation: object) -> str:
    """A field of the survey may have been observed several times: each observation is a field of ours."""
    return f"{field}_L{observation}"


def joined_key(key: str, daemon: str, status: str) -> str:
    """What stands in our column: the key, whose it is, and for which status it stands."""
    return f"{key}@{daemon} {status}"


def shown_by(text: str, status: str) -> Shown:
    """The status that is shown, with the key in our column if it stands for that."""
    word, _, of = text.partition(" ")
    key, _, daemon = word.partition("@")
    if of != status:
        return Shown(status)
    return Shown(status, key, daemon)  # An older release left the key alone.


def rows_of(records: Sequence[Sequence[Any]], where: str, takeable: Collection[str]) -> tuple[Row, ...]:
    """The observations as fields; Permanent if there are more than there may be."""
    if len(records) > MAX_FIELDS:
        raise Permanent(f"{where}: expected at most {MAX_FIELDS} observations")
    return tuple(row_of(record, where, takeable) for record in records)


def row_of(record: Sequence[Any], where: str, takeable: Collection[str]) -> Row:
    """One observation joined to its field, as `rows_statement` selects them.

    What cannot be used is named in `problem` if the status is one at which a field is taken, or taken over: what else is wrong
    in the survey's history is no concern of ours.
    """
    observation, field, status, field_priority = record[0], _text(record[1]), _text(record[2]), record[3]
    values: Mapping[str, Any] = dict(zip(OBSERVATION, record[4:], strict=True))
    problems: list[str] = []
    name = name_of(field, observation)
    if not field or not NAME.fullmatch(name):
        what = f"found field {field[:80]!r}; expected {NAME_EXPECTED}, with _L and the OBSID behind it"
        problems.append(what if field else "found no field; expected the name of one")
        name = f"L{observation}"
    if not str(observation).isdecimal():
        problems.append(f"found id {str(observation)[:80]!r}; expected digits, without L")
    calibrator = _text(values["calibrator_id"]).removeprefix("L")
    if not calibrator.isdecimal():
        problems.append(f"found calibrator_id {calibrator[:80]!r}; expected digits")
    numbers: dict[str, float | None] = {}
    for column in ("nchan", "dt", "nsb", "calibrator_nchan", "calibrator_dt", "calibrator_nsb"):
        try:
            numbers[column] = _number(values[column])
        except ValueError:
            numbers[column] = None
            problems.append(f"found {column} {_text(values[column])[:80]!r}; expected a number")
    found = []
    for what, value in (("priority", values["priority"]), ("priority of the field", field_priority)):
        try:
            found.append(round(_finite(value)))
        except ValueError:
            found.append(0)
            problems.append(f"found {what} {_text(value)[:80]!r}; expected a whole number")
    return Row(
        name=name,
        status=status,
        target_obsid=f"L{observation}",
        target_freq_resolution=_whole(numbers["nchan"]),
        target_time_resolution=numbers["dt"],
        target_subbands=_whole(numbers["nsb"]),
        calibrator_obsid=f"L{calibrator}" if calibrator else "",
        calibrator_freq_resolution=_whole(numbers["calibrator_nchan"]),
        calibrator_time_resolution=numbers["calibrator_dt"],
        calibrator_subbands=_whole(numbers["calibrator_nsb"]),
        baseline_filter=_text(values["bad_baselines"]),
        demix_sources=_text(values["demix_sources"]),
        field_name=field,
        priority=(found[0], found[1]),
        site=site_called(_text(values["location"])),
        problem=f"{where}, observation {observation}: {'; '.join(problems)}"
        if problems and status in takeable
        else None,
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)).strip()


def _finite(value: object) -> float:
    """The number, NULL as 0; ValueError for what is none."""
    number = float(_text(value) or 0)
    if not abs(number) < 1e9:
        raise ValueError(f"{number} is no number")
    return number


def _number(value: object) -> float | None:
    """A positive number; None for zero, less, and NULL: in the survey's tables these say that nobody knows."""
    number = _finite(value)
    return number if number > 0 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
