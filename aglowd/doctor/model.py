"""What the doctor says of one thing: how it is, in words, and what to do about it."""

from __future__ import annotations

from msgspec import Struct

OK, WARN, FAIL = "ok", "warn", "fail"
"""It works; it works, and will not for ever or not as it should; something that aglowd needs does not work."""


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """`area` gathers what belongs together; `next`: the next step for the operator, "" if there is none."""

    area: str
    name: str
    state: str
    what: str
    next: str = ""
