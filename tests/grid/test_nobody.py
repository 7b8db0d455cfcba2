"""A site whose pilots somebody else starts: nothing is submitted, nothing is known, nothing breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from aglowd.errors import Permanent
from aglowd.grid.batch import Batch, Order
from aglowd.grid.nobody import Nobody


async def test_nothing_can_be_submitted() -> None:
    nobody: Batch = Nobody()
    order = Order("k", 1, "/bin/true", ())
    assert (nobody.system, nobody.registers, await nobody.prepare(order)) == ("none", False, None)
    with pytest.raises(Permanent, match="somebody else starts its pilots"):
        await nobody.submit(order, None)


async def test_nothing_is_known(tmp_path: Path) -> None:
    nobody = Nobody()
    assert await nobody.find("k") == ()
    assert await nobody.status(["a"]) == {}
    assert await nobody.list_ours() == {}
    for verb in (nobody.cancel("a"), nobody.output("a", tmp_path)):
        with pytest.raises(Permanent) as caught:
            await verb
        assert caught.value.absent


def test_the_docs_say_what_none_means() -> None:
    section = (Path(__file__).parent.parent.parent / "docs" / "jobs.md").read_text().partition("\n## none\n")[2]
    assert "somebody else" in section.partition("\n## ")[0]
