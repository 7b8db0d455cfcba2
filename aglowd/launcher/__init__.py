"""The launcher: one file that travels with a pilot job and works off PiCaS tokens on a worker node.

`pilot.py` needs Python 3.6 and its standard library, nothing else; it imports nothing of aglowd, and nothing of aglowd
imports it. What belongs to it here is only how the daemon gets its text.
"""

from __future__ import annotations

from importlib.resources import files

NAME = "pilot.py"
"""What the file is called where it runs."""


def source() -> str:
    """The launcher's source text, to be put into a job's sandbox."""
    return (files(__name__) / NAME).read_text(encoding="utf-8")
