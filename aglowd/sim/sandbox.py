"""The input sandbox of a job, as the tools that submit read it from beside the description."""

from __future__ import annotations

import posixpath

from aglowd.sim.jdl import Attributes
from aglowd.sim.tools import Call


async def read_sandbox(call: Call, jdl: str, attributes: Attributes) -> dict[str, bytes] | str:
    """The contents of the input sandbox by base name, or the name of the file that is missing."""
    given = attributes.get("inputsandbox", [])
    found: dict[str, bytes] = {}
    for name in given if isinstance(given, list) else [given]:
        if "://" in name and not name.startswith("file://"):
            continue  # The job fetches it from the grid itself.
        data = await call.read(name)
        if data is None:
            data = await call.read(posixpath.join(posixpath.dirname(jdl), name))
        if data is None:
            return str(name)
        found[posixpath.basename(name)] = data
    return found
