"""What of all that happens people are told by themselves, and in which words. Pure.

What must stay true: a text is one line, has an end, holds no secret, and names what can be asked further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aglowd.log import redact_text
from aglowd.model import Json

TOLD = (
    "RunEnded",
    "EffectDoubtful",
    "DuplicateFound",
    "StrangerFound",
    "StatusSetByOthers",
    "TroubleBegan",
    "TroubleEnded",
)
"""The kinds of events; of runs that ended only those that failed."""
MAX_LINES = 50
"""Of one message; what else there is, is counted."""
MAX_TEXT_CHARS = 500
"""Of one line."""


def text_of(event: Mapping[str, Json]) -> str:
    """What one event tells people."""
    data = event["data"] if isinstance(event["data"], dict) else {}
    why = data.get("reason") or data.get("what") or data.get("why") or data.get("cut") or "no reason is known"
    kind = event["kind"]
    if kind == "RunEnded":
        text = f"{event['field']}: run {event['run']} failed: {why}"
    elif kind == "EffectDoubtful":
        text = f"{event['field']}: in doubt: {event['effect']}: {why} (aglowctl doubt)"
    elif kind == "StatusSetByOthers":
        text = f"{event['field']}: its status was set by others while {event['run']} is at work: {why}"
    elif kind == "TroubleBegan":
        text = f"{data.get('name', '?')}: {why}"
    elif kind == "TroubleEnded":
        text = f"{data.get('name', '?')}: well again"
    else:
        text = f"the audit found: {why} (aglowctl doubt)"
    return " ".join(redact_text(text).split())[:MAX_TEXT_CHARS]


def message_of(events: Sequence[Mapping[str, Json]], host: str) -> tuple[str, str, dict[str, Any]]:
    """One message of all of them: its subject, its text, and the same for programs."""
    lines = [text_of(event) for event in events]
    more = len(lines) - MAX_LINES
    first = lines[0] if len(lines) == 1 else f"{len(lines)} messages"
    subject = f"aglowd at {host}: {first}"
    shown = [f"{_at(event)} {line}" for event, line in zip(events[:MAX_LINES], lines[:MAX_LINES], strict=True)]
    rest = [f"and {more} more: aglowctl events"] if more > 0 else []
    text = "\n".join([f"aglowd at {host}:", *shown, *rest]) + "\n"
    notices = [
        {**{key: event[key] for key in ("id", "at", "kind", "field", "run", "step")}, "text": line}
        for event, line in zip(events[:MAX_LINES], lines[:MAX_LINES], strict=True)
    ]
    return subject, text, {"schema": 1, "host": host, "text": text, "notices": notices, "more": max(more, 0)}


def _at(event: Mapping[str, Json]) -> str:
    return datetime.fromtimestamp(event["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
