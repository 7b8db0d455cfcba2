"""The gate: a refused credential is used by nobody, and a site that wants quiet gets it from everybody."""

from __future__ import annotations

import asyncio

import pytest

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site


def test_a_frozen_credential_keeps_its_first_reason_until_it_is_thawed() -> None:
    credential = Credential("lta", user="me", password="s3cret")
    credential.check()
    credential.freeze("refused")
    credential.freeze("again")
    with pytest.raises(Temporary, match="credential lta is frozen: refused"):
        credential.check()
    credential.thaw()
    credential.check()


def test_secrets_are_in_no_repr_and_are_cut_out_of_texts() -> None:
    credential = Credential("lta", user="me", password="s3cret", token="t0ken")
    assert "s3cret" not in repr(credential)
    assert "t0ken" not in repr(credential)
    assert credential.redact("s3cret and t0ken") == "*** and ***"


async def test_a_site_that_wants_quiet_is_not_asked_and_says_how_long() -> None:
    clock = Clock(rate=1000)
    site = Site("couch", clock)
    site.back_off(60_000, "too many")
    site.back_off(1, "a shorter wish")
    with pytest.raises(Temporary, match="too many") as caught:
        async with site.slot():
            pytest.fail("the site was asked")
    assert caught.value.retry_after_s is not None
    assert 50_000 < caught.value.retry_after_s <= 60_000
    assert site.health.backing_off_until is not None


async def test_quiet_ends_by_world_time() -> None:
    site = Site("couch", Clock(rate=1_000_000))
    site.back_off(1000, "busy")  # A thousandth of a second.
    await asyncio.sleep(0.01)
    async with site.slot():
        pass
    assert site.health.backing_off_until is None


async def test_no_more_than_its_places_at_once_and_who_waited_sees_the_quiet() -> None:
    site = Site("couch", Clock(), concurrency=2)
    inside, most, free = 0, 0, asyncio.Event()

    async def visit() -> None:
        nonlocal inside, most
        async with site.slot():
            inside += 1
            most = max(most, inside)
            await free.wait()
            inside -= 1

    visits = [asyncio.ensure_future(visit()) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)  # Two get in, three wait.
    site.back_off(3600, "enough")
    free.set()
    ended = await asyncio.gather(*visits, return_exceptions=True)
    assert most == 2
    assert [type(end) for end in ended] == [type(None)] * 2 + [Temporary] * 3


@pytest.mark.parametrize(("error", "in_a_row"), [(Temporary("x"), 1), (Unknown("x"), 1), (Permanent("x"), 0)])
async def test_health_counts_failures_and_an_answer_ends_the_count(error: Exception, in_a_row: int) -> None:
    site = Site("couch", Clock())
    with pytest.raises(type(error)):
        async with site.slot():
            raise error
    assert site.health.failures_in_a_row == in_a_row
    assert (site.health.last_failure is not None) == bool(in_a_row)
    async with site.slot():
        pass
    assert site.health.failures_in_a_row == 0
    assert site.health.last_success is not None
