"""What is known of one outside system is older than what is known of another: nothing is concluded from the two together."""

from __future__ import annotations

import pytest

from aglowd.sim.faults import Script
from tests.virtual.script import DAY_S
from tests.virtual.test_operator import FIELD, Scene, new_scene

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]


async def test_pilots_whose_tokens_cannot_be_counted_are_not_said_to_have_done_nothing() -> None:
    """The token database answers no query of ours for two days; the pilots, which reach it, do all their work meanwhile."""
    async with new_scene() as scene:
        await scene.until("submit", "/target_submit/")
        while "of 6 tokens done, 6 to do" not in await told(scene):
            await scene.simulation.sleep(60.0)
        age_s = scene.simulation.now()
        scene.simulation.plan[0].add(
            Script(
                system="couchdb", fault="error_before", op="view", count=10**9, from_s=age_s, until_s=age_s + 2 * DAY_S
            )
        )
        await scene.simulation.sleep(2 * DAY_S)
        assert "counting the tokens again" in await told(scene)
        assert waves(scene) == 1, "no pilots are started for tokens that may be done"
        assert await scene.until_ended() == ("archived", "")


async def told(scene: Scene) -> str:
    """Why the field waits."""
    return str(await scene.simulation.daemon._store.explain(FIELD))


def waves(scene: Scene) -> int:
    """Submissions of pilots for the target's first pass."""
    return sum("/target_submit/" in str(line) or "/target_wait/" in str(line) for line in scene.lines("submit"))
