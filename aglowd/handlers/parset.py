"""Make a parset from a template: the values that belong to a field are filled in (AGLOW's modify_parset)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from aglowd.model import Done, Failed, Handler, Json, Outcome, Seen, StepView


class Parset(Handler):
    """Set keys of a parset. A key that the template does not have is an error: nothing is silently left out."""

    kind = "parset"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        template: str
        values: dict[str, Json] = {}

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        text = params.template
        unknown = []
        for key, value in params.values.items():
            line = re.compile(rf"^(\s*!?\s*{re.escape(key)}\s*=)[^\n#]*?(\s*(?:#[^\n]*)?)$", re.MULTILINE)
            found = line.findall(text)
            if len(found) != 1:
                unknown.append(f"{key} (found {len(found)} times)")
                continue
            before, behind = found[0]
            text = line.sub(f"{before} {_text(value)}{behind}".replace("\\", r"\\"), text)
        if unknown:
            return Failed(f"the parset template must hold each of these keys once: {', '.join(unknown)}", final=True)
        return Done({"parset": text})


def _text(value: Json) -> str:
    """A value as parsets write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value)
