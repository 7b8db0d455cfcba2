"""Effects: the only way to change the outside world. One file per kind of deed; `engine.py` carries them out."""

from __future__ import annotations

from collections.abc import Mapping

from aglowd.effects import catalogue, directories, files, general, jobs, sandboxes, staging, token_archive, tokens
from aglowd.effects.base import Deed

DEEDS: Mapping[str, type[Deed]] = {
    deed.kind: deed
    for room in (staging, tokens, token_archive, jobs, files, directories, sandboxes, catalogue, general)
    for deed in room.DEEDS
}
"""Every kind of effect by its name in the journal."""
