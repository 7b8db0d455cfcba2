"""Look at which version something is that others change: a branch in git, a container image."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.grid.registry import parse_image
from aglowd.handlers.base import HOUR_S
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait


class GitHead(Handler):
    """The commit at which a branch or tag of a repository is, and whether it is another one than `known`.

    Outputs: `commit`, `changed`.
    """

    kind = "git_head"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        url: str
        ref: str = "HEAD"
        known: str = ""

        def __post_init__(self) -> None:
            if not self.url or self.url.startswith("-") or not self.ref or self.ref.startswith("-"):
                raise ValueError("say the repository's `url`, and a branch, tag or full `ref` of it")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = Subject("git_head", step.key, {"url": params.url, "ref": params.ref})
        found = seen.of(subject)
        if found is None:
            return Wait((subject,), f"asking {params.url} for {params.ref}", HOUR_S)
        if found["problem"]:
            return Failed(found["problem"])
        return Done({"commit": found["commit"], "changed": found["commit"] != params.known})


class ImageDigest(Handler):
    """What tells a container image's content: in a registry the digest of its manifest, of a file its checksum and size.

    Outputs: `digest`, `changed`: whether it is another one than `known`.
    """

    kind = "image_digest"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        image: str
        known: str = ""

        def __post_init__(self) -> None:
            if "://" not in self.image or self.image.startswith("docker://"):
                parse_image(self.image)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = Subject("image", step.key, {"image": params.image})
        found = seen.of(subject)
        if found is None:
            return Wait((subject,), f"looking at the image {params.image}", HOUR_S)
        if found["problem"]:
            return Failed(found["problem"])
        return Done({"digest": found["digest"], "changed": found["digest"] != params.known})
