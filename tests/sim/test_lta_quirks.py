"""The legacy stager's odd forms: each is what the server really says, and the adapter reads it as the plain one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Site
from aglowd.grid.lta import LtaStager
from aglowd.grid.stager import Progress
from aglowd.sim.world import HOUR_S, MINUTE_S

from .ways import FILES, WAYS, There, standing_grid

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAY = WAYS["legacy"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[There]:
    async with standing_grid(tmp_path_factory.mktemp("lta")) as found:
        yield found


@pytest.fixture
def lta(there: There) -> LtaStager:
    there.forget()
    login = WAY.credential(there.ready["credentials"])
    return LtaStager(there.http, Site("there", there.clock), login, there.ready["lta_url"])


async def raw(lta: LtaStager, method: str, *arguments: Any) -> Any:
    """The very answer, as XML-RPC has it."""
    return await lta._call(method, *arguments, write=False)


async def held_request(there: There, lta: LtaStager) -> int:
    """A request that is on hold now."""
    for _ in range(60):
        request = await lta.stage(there.files())
        there.pass_s(25 * MINUTE_S)
        if await lta.status(request) == "on hold":
            return request
    raise AssertionError("chance holds one request in seven")


async def test_nothing_is_told_as_nil_or_as_an_empty_list(there: There, lta: LtaStager) -> None:
    assert await raw(lta, "getprogress") is None
    for verb in (lambda: raw(lta, "getprogress"), lta.progress):
        there.strike("lta", "empty_list", "getprogress")
        assert await verb() in ([], {})
    assert await lta.progress() == {}


async def test_right_after_it_was_made_a_request_may_not_be_shown(there: There, lta: LtaStager) -> None:
    there.strike("lta", "late", "add_getid", value=60)
    request = await lta.stage(there.files())
    assert await raw(lta, "getprogress") is None
    assert await lta.progress() == {}
    assert await lta.status(request) == ""


async def test_a_fault_at_submission_may_come_before_the_deed_or_after_it(there: There, lta: LtaStager) -> None:
    there.strike("lta", "fault_before", "add_getid")
    with pytest.raises(Temporary, match="overloaded"):
        await lta.stage(there.files())
    assert await lta.progress() == {}
    there.strike("lta", "fault_after", "add_getid")
    with pytest.raises(Unknown, match="timed out"):
        await lta.stage(there.files())
    assert len(await lta.progress()) == 1


async def test_an_id_is_a_text(there: There, lta: LtaStager) -> None:
    there.strike("lta", "text_id", "add_getid")
    request = await lta.stage(there.files())
    assert isinstance(request, int)
    assert request in await lta.progress()
    there.strike("lta", "text_id", "add_getid")
    assert await raw(lta, "add_getid", there.files()) == str(request + 1)


async def test_an_id_that_is_sent_as_a_text_names_nothing(there: There, lta: LtaStager) -> None:
    """It is another XML-RPC type; the adapter sends numbers."""
    request = await lta.stage(there.files())
    assert await lta.status(request) == "new"
    with pytest.raises(Permanent) as caught:
        await raw(lta, "getstatus", str(request))
    assert caught.value.absent


@pytest.mark.parametrize(("fault", "location"), [("odd_types", "sara"), ("odd_keys", ""), ("odd_words", "sara")])
async def test_an_entry_in_another_form_says_the_same(there: There, lta: LtaStager, fault: str, location: str) -> None:
    request, other = await lta.stage(there.files()), await lta.stage(there.files())
    await lta.abort(other)
    plain, entries = await lta.progress(), await raw(lta, "getprogress")
    assert plain == {
        request: Progress("new", FILES, 0, 0.0, "sara", False),
        other: Progress("aborted", FILES, 0, 0.0, "sara", True),
    }
    there.strike("lta", fault, "getprogress")
    odd = await raw(lta, "getprogress")
    assert odd.keys() == entries.keys()
    assert all(odd[key] != entries[key] for key in odd)
    there.strike("lta", fault, "getprogress")
    assert await lta.progress() == {
        number: msgspec.structs.replace(seen, location=location) for number, seen in plain.items()
    }


async def test_the_forms_that_were_recorded_and_that_clients_guard_against(there: There, lta: LtaStager) -> None:
    request = str(await lta.stage(there.files()))
    (entry,) = (await raw(lta, "getprogress")).values()
    assert len(entry) == 7
    assert {type(value) for value in entry.values()} == {str}
    found = {}
    for fault in ("odd_types", "odd_keys", "odd_words"):
        there.strike("lta", fault, "getprogress")
        found[fault] = (await raw(lta, "getprogress"))[request]
    assert (found["odd_types"]["File count"], found["odd_types"]["Percent done"]) == (FILES, 0.0)
    assert found["odd_types"]["Flagged abort"] is False
    assert "location " not in found["odd_keys"]
    assert found["odd_keys"]["Priority"] == ["none"]
    assert found["odd_words"]["Status"] == " NEW\n"


async def test_a_status_has_any_case_and_blanks(there: There, lta: LtaStager) -> None:
    request = await lta.stage(there.files())
    for verb, status in ((lambda: raw(lta, "getstatus", request), " NEW\n"), (lambda: lta.status(request), "new")):
        there.strike("lta", "odd_words", "getstatus")
        assert await verb() == status


async def test_a_held_request_is_flagged_when_it_is_aborted(there: There, lta: LtaStager) -> None:
    """`Flagged abort` is true while the status still says what it was."""
    request = await held_request(there, lta)
    assert (await lta.progress())[request].state == "on hold"
    there.strike("lta", "flagged", "abort", value=300)
    await lta.abort(request)
    assert await lta.status(request) == "on hold"
    seen = (await lta.progress())[request]
    assert (seen.status, seen.flagged_abort, seen.state) == ("on hold", True, "aborted")
    there.pass_s(301)
    assert await lta.status(request) == "aborted"
    assert (await lta.progress())[request].status == "aborted"


async def test_a_hold_lasts_for_hours_and_ends(there: There, lta: LtaStager) -> None:
    request = await held_request(there, lta)
    there.pass_s(HOUR_S / 2)
    assert await lta.status(request) == "on hold"
    there.pass_s(2 * HOUR_S)
    assert await lta.status(request) == "in progress"


async def test_a_request_of_which_no_file_exists_fails(there: There, lta: LtaStager) -> None:
    request = await lta.stage([f"{there.files()[0]}.gone"])
    there.pass_s(25 * MINUTE_S)
    seen = (await lta.progress()).get(request)
    while seen is not None and seen.state in ("scheduled", "on hold"):
        there.pass_s(10 * MINUTE_S)
        seen = (await lta.progress()).get(request)
    assert seen is None or seen.state == "failed"
    assert await lta.staged(request) == ()
