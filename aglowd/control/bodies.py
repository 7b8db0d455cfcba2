"""The orders that the control socket alone takes; those of others stand with who carries them out."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aglowd.steering import FieldState, Names


class Verdict(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of a doubtful effect or of a finding: `ref` names what is to be adopted."""

    key: str
    action: Literal["adopt", "retry", "forget"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    ref: str = ""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of what a step shows him; `step`: "" if only one waits for that."""

    approved: bool
    verdict: Literal["good", "moderate", "poor"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    step: str = ""


class FieldChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which fields are asked for: by names, patterns or a state."""

    targets: Names = ()
    state: FieldState = ""


class BackupOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the daemon shall write a backup, as an absolute path; `replace`: even over an older one."""

    path: Annotated[str, Meta(pattern="^/", max_length=4096)]
    replace: bool = False


class ReloadOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """That the configuration shall be read anew; with `dry_run` nothing is changed."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    dry_run: bool = False
