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
    """Of a step that waits: what happens by itself, and where one sees more or does something about it."""
    waits: dict[str, str] = {}
    for wait in entry.get("waits_for", ()):
        kind, _, name = wait["subject"].partition(":")
        waits.setdefault(kind, name)
    due = "in any case it is decided again when it is due"
    if "verdict" in waits:
        here = f"{entry['run']} {entry['step']}"
        return (
            "it goes on when a person has said yes, and fails at a no: "
            f"aglowctl approve {here}, or aglowctl reject {here}"
        )
    if "proxy" in waits:
        return f"pilots are submitted as soon as the proxy lives long enough, nothing need be restarted: voms-proxy-init; {due}"
    if "tokens" in waits:
        token_type, _, site = waits["tokens"].partition("@")
        here = f"{token_type} --site {site}" if site else token_type
        told = f"it follows its tokens, and gives back those whose pilots are gone: aglowctl tokens list {here}"
        return f"{told}; its jobs: aglowctl jobs; {due}" if "job" in waits or "pilots" in waits else f"{told}; {due}"
    if "pilots" in waits:
        return f"pilots are started when others have ended; whose they are: aglowctl jobs; {due}"
    if "run" in waits:
        return f"it goes on when that run has ended, what it does stands below: aglowctl explain {waits['run']}; {due}"
    if "step" in waits:
        return f"it goes on when {waits['step'].rpartition('/')[2]} has ended; {due}"
    if any("problem" in (wait["evidence"] or ()) for wait in entry.get("waits_for", ())):
        return f"it goes on when the configuration is mended and read anew: systemctl restart aglowd; {due}"
    if "staging" in waits:
        return f"files come by themselves, and a request that does not move for the step's `stall` is made anew; {due}"
    if "window" in waits:
        return f"its files are asked for when there is room for them; who else stages: aglowctl fields --state running; {due}"
    if "locality" in waits:
        return f"where its files are is looked up by itself; {due}"
    return "it is decided again when what it waits for changes, and in any case when it is due"
