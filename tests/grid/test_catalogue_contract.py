"""The contract of catalogues: nobody's word is overwritten, one of many wins, and after a kill the truth can be told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from aglowd.errors import Permanent, Unknown

from .catalogues import OBSIDS, House

ROOT = Path(__file__).parent.parent.parent
CLAIMERS = 20
PROCESSES = 4
KILLS = 3


async def test_every_field_is_listed(house: House) -> None:
    catalogue = house.catalogue()
    rows = {row.name: row for row in await catalogue.rows()}
    assert set(house.names) | set(house.many) == set(rows)
    assert {row.problem for row in rows.values()} == {None}
    row = rows[house.names[1]]
    assert (row.status, row.field_name, row.site) == (house.offered, "P2+20", "sara")
    assert (row.target_obsid, row.calibrator_obsid) == (f"L{OBSIDS['P2+20']}", "L229507")
    assert (row.target_freq_resolution, row.target_time_resolution, row.target_subbands) == (8, 2.01, 242)
    assert (row.calibrator_freq_resolution, row.calibrator_time_resolution, row.calibrator_subbands) == (8, 2.01, 244)
    assert row.baseline_filter == "[CR]S"
    await catalogue.close()


async def test_a_status_is_written_over_the_expected_one_alone(house: House) -> None:
    catalogue, name = house.catalogue(), house.names[0]
    assert await catalogue.read_status(name) == (house.offered, None)
    await catalogue.write_status(name, house.offered, house.claimed, "P1-1/claim/1/write_status/0")
    await catalogue.write_status(name, house.offered, house.claimed, "P1-1/claim/1/write_status/0")
    assert await catalogue.read_status(name) == (house.claimed, "P1-1/claim/1/write_status/0")
    with pytest.raises(Permanent, match=f"found .*{house.claimed}.*expected .*{house.offered}"):
        await catalogue.write_status(name, house.offered, house.claimed, "other/claim/1/write_status/0")
    await catalogue.write_status(name, house.claimed, house.done, "P1-1/end/1/write_status/0")
    assert await catalogue.read_status(name) == (house.done, "P1-1/end/1/write_status/0")
    assert await catalogue.read_status(house.names[1]) == (house.offered, None)
    for work in (catalogue.read_status("P9_L9"), catalogue.write_status("P9_L9", "a", house.claimed, "k")):
        with pytest.raises(Permanent, match="no field P9_L9") as caught:
            await work
        assert caught.value.absent
    await catalogue.close()


async def test_the_same_word_may_be_written_anew(house: House) -> None:
    """Catalogues have fewer words than pipelines: what was ours under one key is ours under the next."""
    catalogue, name = house.catalogue(), house.names[0]
    await catalogue.write_status(name, house.offered, house.claimed, "P1-1/claim/1/write_status/0")
    await catalogue.write_status(name, house.claimed, house.claimed, "P1-1/staged/1/write_status/0")
    assert await catalogue.read_status(name) == (house.claimed, "P1-1/staged/1/write_status/0")
    await catalogue.close()


async def test_a_word_set_by_hand_is_told_from_ours_and_stays(house: House) -> None:
    catalogue, name = house.catalogue(), house.names[0]
    await catalogue.write_status(name, house.offered, house.claimed, "k/1")
    await house.by_hand(name, house.done)
    assert await catalogue.read_status(name) == (house.done, None)
    with pytest.raises(Permanent, match=f"found .*{house.done}"):
        await catalogue.write_status(name, house.claimed, house.offered, "k/2")
    assert await catalogue.read_status(name) == (house.done, None)
    await catalogue.close()


async def test_a_release_is_one_more_write(house: House) -> None:
    mine, theirs, name = house.catalogue("mine#1"), house.catalogue("theirs#2"), house.names[0]
    await mine.write_status(name, house.offered, house.claimed, "mine/1")
    await mine.write_status(name, house.claimed, house.offered, "mine/2")
    await theirs.write_status(name, house.offered, house.claimed, "theirs/1")
    with pytest.raises(Permanent):
        await mine.write_status(name, house.offered, house.claimed, "mine/3")
    assert await theirs.read_status(name) == (house.claimed, "theirs/1")
    await mine.close()
    await theirs.close()


async def test_what_a_daemon_holds_is_taken_from_it_by_its_name_alone(house: House) -> None:
    """It is gone for good; if it is not after all, it writes nothing any more."""
    gone, heir, name = house.catalogue("gone#1"), house.catalogue("heir#2"), house.names[0]
    await gone.write_status(name, house.offered, house.claimed, "gone/1")
    if not house.keeps_keys:  # Nobody sees there who has it, so nobody can take it from him.
        assert await heir.holder(name) == ""
        with pytest.raises(Permanent, match="nobody could tell who of several has taken it"):
            await heir.write_status(name, house.claimed, house.claimed, "heir/1", "gone#1")
        await gone.close()
        await heir.close()
        return
    for of in ("", "else#3"):
        with pytest.raises(Permanent, match="the word of another aglowd, gone#1 by gone/1"):
            await heir.write_status(name, house.claimed, house.claimed, "heir/1", of)
    with pytest.raises(Permanent, match=f"found .*{house.claimed}.*expected .*{house.offered}"):
        await heir.write_status(name, house.offered, house.claimed, "heir/1", "gone#1")
    for _ in range(2):
        await heir.write_status(name, house.claimed, house.claimed, "heir/1", "gone#1")
    assert (await heir.read_status(name), await gone.read_status(name)) == (
        (house.claimed, "heir/1"),
        (house.claimed, None),
    )
    with pytest.raises(Permanent, match="the word of another aglowd, heir#2 by heir/1"):
        await gone.write_status(name, house.claimed, house.done, "gone/2")
    await gone.close()
    await heir.close()


async def test_the_stamp_is_another_one_after_every_change(house: House) -> None:
    catalogue, name = house.catalogue(), house.names[0]
    first = await catalogue.stamp()
    assert first
    assert await catalogue.stamp() == first
    seen = [first]
    await house.by_hand(name, house.done)
    seen.append(await catalogue.stamp())
    await house.by_hand(name, house.offered)
    await catalogue.write_status(name, house.offered, house.claimed, "k/1")
    seen.append(await catalogue.stamp())
    # Back to what it was: a release by hand after a claim of ours must not look like nothing.
    await house.by_hand(name, house.offered)
    seen.append(await catalogue.stamp())
    assert len({stamp for stamp in seen if stamp}) == len([stamp for stamp in seen if stamp])
    await catalogue.close()


async def claims_of(house: House, names: Sequence[str], expect: str, status: str) -> list[tuple[str, str]]:
    """What the claimers in several processes win, and as which daemon, all let go at the same moment."""
    words = json.dumps([expect, status])
    processes = []
    for number in range(PROCESSES):
        argv = (json.dumps(house.spec), f"d#{number}", str(CLAIMERS // PROCESSES), words, json.dumps(list(names)))
        processes.append(await start(*argv))
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
    told = [(await process.communicate())[0] for process in processes]
    return [(name, daemon) for one in told for name, daemon in json.loads(one)]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.grid.claimer",
        *arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_of_twenty_claimers_of_one_field_one_wins(house: House) -> None:
    name = house.names[0]
    ((won, daemon),) = await claims_of(house, [name], house.offered, house.claimed)
    assert won == name
    catalogue = house.catalogue(daemon)
    assert await catalogue.read_status(name) == (house.claimed, f"{name}-1/claim/1/write_status/0")
    await catalogue.close()


async def test_twenty_claimers_win_each_field_of_a_list_once(house: House) -> None:
    names = house.many[:6]
    won = await claims_of(house, names, house.offered, house.claimed)
    assert sorted(name for name, _ in won) == sorted(names)


async def test_of_twenty_claimers_to_the_status_that_is_there_one_wins(house: House) -> None:
    """What another program has begun keeps its status when it is taken over, so the status alone tells nobody from the next."""
    names = house.names[:2]
    for name in names:
        await house.by_hand(name, house.done)
    won = await claims_of(house, names, house.done, house.done)
    if house.keeps_keys:
        assert sorted(name for name, _ in won) == sorted(names)
        catalogue = house.catalogue(dict(won)[names[0]])
        assert await catalogue.read_status(names[0]) == (house.done, f"{names[0]}-1/claim/1/write_status/0")
        await catalogue.close()
    else:
        assert won == [], "nobody could be told from the next"


async def test_what_another_daemon_holds_is_refused_and_it_is_named(house: House) -> None:
    mine, theirs, name = house.catalogue("mine#1"), house.catalogue("theirs#2"), house.names[0]
    key = "P1-1/claim/1/write_status/0"
    await mine.write_status(name, house.offered, house.claimed, key)
    assert await mine.holder(name) == ""
    assert await theirs.read_status(name) == (house.claimed, None), "the same key of another daemon is not ours"
    with pytest.raises(Permanent):
        await theirs.write_status(name, house.offered, house.claimed, key)
    if not house.keeps_keys:
        assert await theirs.holder(name) == ""
        with pytest.raises(Permanent, match=r"nobody could tell.* ALTER TABLE observations ADD aglowd_key"):
            await theirs.write_status(name, house.claimed, house.claimed, key)
    else:
        assert await theirs.holder(name) == f"mine#1 by {key}"
        for status in (house.claimed, house.done):
            with pytest.raises(Permanent, match=f"{house.claimed}.* is the word of another aglowd, mine#1 by {key}"):
                await theirs.write_status(name, house.claimed, status, key)
    assert await mine.read_status(name) == (house.claimed, key)
    await mine.write_status(name, house.claimed, house.done, "P1-1/end/1/write_status/0")
    await mine.close()
    await theirs.close()


async def test_a_person_may_give_back_what_another_daemon_holds(house: House) -> None:
    """That daemon may be gone for good. Who gives a field back claims nothing, and whoever wrote an offer, it is for all."""
    mine, theirs, name = house.catalogue("mine#1"), house.catalogue("theirs#2"), house.names[0]
    await mine.write_status(name, house.offered, house.claimed, "P1-1/claim/1/write_status/0")
    await theirs.write_status(name, house.claimed, house.offered, "release-1/release/1/release_field/0")
    await mine.write_status(name, house.offered, house.claimed, "P1-2/claim/1/write_status/0")
    await house.by_hand(name, house.offered)
    await theirs.write_status(name, house.offered, house.claimed, "P1-1/claim/1/write_status/0")
    assert await theirs.read_status(name) == (house.claimed, "P1-1/claim/1/write_status/0")
    await mine.close()
    await theirs.close()


@pytest.mark.parametrize("turn", range(KILLS))
async def test_after_a_kill_in_the_middle_the_truth_is_told(house: House, turn: int) -> None:
    words = json.dumps([house.offered, house.claimed])
    process = await start(json.dumps(house.spec), "killed", "0", words, json.dumps(list(house.many)))
    assert process.stdout is not None
    for _ in range(5 + 7 * turn):
        await process.stdout.readline()
    process.kill()
    told = (await process.communicate())[0].decode().split()
    catalogue = house.catalogue("killed")
    doubts = 0
    for name in house.many:
        try:
            status, key = await catalogue.read_status(name)
        except Unknown:
            doubts += 1
            continue
        assert (status, key) in ((house.offered, None), (house.claimed, f"run/{name}")), told
        await catalogue.write_status(name, house.offered, house.claimed, f"run/{name}")
        assert await catalogue.read_status(name) == (house.claimed, f"run/{name}")
    assert doubts <= (not house.keeps_keys)
    await catalogue.close()
