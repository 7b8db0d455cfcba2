"""What happens to a step next by itself, and which command helps: the last line of what `explain` says of it. Pure.

What must stay true: whatever a step stands still for, a command is named that a person can give as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aglowd.model import EffectState, StepState

Entry = Mapping[str, Any]
"""A step, as `explain` shows it."""


def next_of(entry: Entry, stopping: str) -> str:
    """What comes next, and what a person may do; `stopping`: why the step is being ended, or ''."""
    run = entry["run"]
    is_ending = stopping not in ("", "timeout")
    if entry["state"] == StepState.FAILED:
        return f"nothing by itself; to go on from here: aglowctl retry {run}"
    doubt = next((effect["key"] for effect in entry["effects"] if effect["state"] == EffectState.DOUBT), None)
    if doubt is not None:
        return (
            "aglowd looks for it once an hour; who can tell whether it happened says so: "
            f"aglowctl doubt adopt {doubt} REF, aglowctl doubt retry {doubt}, or aglowctl doubt forget {doubt}"
        )
    resume = entry.get("resume") or "aglowctl resume"
    if entry["effects"]:
        what = "aglowd goes on with the effect by itself"
        if any(effect["state"] == EffectState.UNKNOWN for effect in entry["effects"]):
            what += ": it looks first whether it happened (aglowctl doubt)"
        elif any(effect["reason"] for effect in entry["effects"]):
            what += ": how the system does that it needs, says aglowctl status"
        if is_ending:
            return f"{what}; then what it left outside is undone, and it ends"
        return (
            f"{what}; then it is held: {resume}" if entry["held"] else f"{what}; to give it up: aglowctl cancel {run}"
        )
    if entry["held"]:
        return f"nothing new until it is resumed: {resume}"
    if is_ending:
        return "what it left outside is undone, then it ends"
    no_longer = f"not to wait any longer: aglowctl skip {run} {entry['step']}, or aglowctl cancel {run}"
    if entry["state"] == StepState.READY and entry["due"] is None:
        return (
            f"it begins as soon as there is a place; who has the places: aglowctl fields --state running; {no_longer}"
        )
    if entry["state"] == StepState.READY:
        return f"the next attempt begins by itself; {no_longer}"
    return f"{_helps(entry)}; {no_longer}"


def _helps(entry: Entry) -> str:
    """Of a step that waits: when it goes on, and where one sees more."""
    waits: dict[str, str] = {}
    for wait in entry.get("waits_for", ()):
        kind, _, name = wait["subject"].partition(":")
        waits.setdefault(kind, name)
    if "verdict" in waits:
        return (
            "it goes on when a person has said yes, and fails at a no: "
            f"aglowctl approve {entry['run']} {entry['step']}, or aglowctl reject {entry['run']} {entry['step']}"
        )
    told = "it is decided again when what it waits for changes, and in any case when it is due"
    if "proxy" in waits:
        return f"{told}; a new proxy is seen within proxy.poll, and nothing need be restarted: voms-proxy-init"
    if "tokens" in waits:
        token_type, _, site = waits["tokens"].partition("@")
        told += f"; its tokens one by one: aglowctl tokens list {token_type}{f' --site {site}' if site else ''}"
        return f"{told}; its jobs: aglowctl jobs" if "job" in waits or "pilots" in waits else told
    if "pilots" in waits:
        return f"{told}; whose pilots run: aglowctl jobs"
    if any("problem" in (wait["evidence"] or {}) for wait in entry.get("waits_for", ()) if wait["evidence"]):
        return f"{told}; what is mended in the configuration is read at the next start: systemctl restart aglowd"
    if "staging" in waits:
        told += "; a request of which nothing moves for the step's `stall` is given up and made anew"
    if "window" in waits:
        return f"{told}; who else stages: aglowctl fields --state running"
    if "run" in waits:
        return f"{told}; what that does stands below: aglowctl explain {waits['run']}"
    return told
