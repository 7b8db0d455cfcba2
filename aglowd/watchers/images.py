"""Container images that steps of kind `image_digest` look at: in a registry, or as a file on storage."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.effects.files import content_of
from aglowd.errors import Permanent
from aglowd.grid.registry import parse_image
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher

ROUND = "5m"


class Images(Watcher):
    """`image:<occasion>` (args: image) → `digest`, of a file its adler32 and size; or `problem`, if there is no such image."""

    kind = "image"

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each([[subject] for subject in subjects], self._ask)

    async def _ask(self, group: Sequence[Subject]) -> Observations:
        (subject,) = group
        try:
            digest = await self._digest(subject.args["image"])
        except Permanent as error:
            return [(subject, {"digest": "", "problem": str(error)})]
        return [(subject, {"digest": digest, "problem": ""})]

    async def _digest(self, image: str) -> str:
        if is_file(image):
            found = await content_of(self.world, image)
            if found is None:
                raise Permanent(f"{image} does not exist", absent=True)
            return f"adler32:{found.adler32:08x}-{found.size_bytes}"
        assert self.world.registry is not None
        return await self.world.registry.digest(parse_image(image))


def is_file(image: str) -> bool:
    """Whether the image is a file on storage, such as a `.sif`, and none of a registry."""
    return "://" in image and not image.startswith("docker://")
