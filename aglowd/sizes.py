"""Amounts of data as people write and read them: `"5TB"`, `"64GB"`."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([kMGTP]?)B?\s*")


def size_bytes(text: str | int) -> int:
    """Bytes from `"5TB"`, `"64 GB"`, `"1.5TB"` (powers of ten, as the LTA counts) or a plain number; ValueError otherwise."""
    found = _SIZE.fullmatch(str(text)) if not isinstance(text, bool) else None
    if found is None:
        raise ValueError(f'{text!r} is no amount of data; expected a number and a unit, such as "5TB" or "64GB"')
    return round(float(found[1]) * _UNITS[found[2]])


def size_text(count: float) -> str:
    """Bytes as people say them: three digits and a unit."""
    for unit in ("P", "T", "G", "M", "k"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.3g} {unit}B"
    return f"{count:.0f} B"
