"""What is asked for the record of a field: the sites about its inputs, and our own store about everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from support import begin

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary
from aglowd.grid.dcache import FileInfo
from aglowd.handlers.provenance import inputs, record
from aglowd.model import Json
from aglowd.provenance import Record
from aglowd.store.store import Store
from aglowd.watchers.inputs import Inputs
from aglowd.watchers.records import Records

from .conftest import WAITING, world_of

SURLS = ("srm://srm.grid.sara.nl:8443/d/L1_SB000_uv.tar", "srm://srm.grid.sara.nl:8443/d/L1_SB001_uv.tar")


class Site:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def contents(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        assert tuple(surls) == SURLS
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(zip(surls, self.answer, strict=False))


async def look(store: Store, clock: Clock, answers: dict[str, Any]) -> dict[str, Json]:
    def archive(site: str) -> Site:
        if site not in answers:
            raise Permanent(f"no site {site!r} is configured")
        return Site(answers[site])

    watcher = Inputs(world_of(clock, archive=archive), store, 300.0)
    subjects = [inputs(site, SURLS, "P1-1/a/1") for site in (*answers, "nowhere")]
    return {subject.args["site"]: data for subject, data in await watcher.look(subjects)}


async def test_sizes_and_checksums_are_told_as_far_as_the_site_tells_them(store: Store, clock: Clock) -> None:
    found = await look(store, clock, {"sara": [FileInfo("ONLINE", 7, 8, 9.0)], "juelich": Permanent("it is forbidden")})
    assert found == {
        "sara": {"files": {SURLS[0]: {"size_bytes": 7, "adler32": 8}}, "problem": ""},
        "juelich": {"files": {}, "problem": "it is forbidden"},
        "nowhere": {"files": {}, "problem": "no site 'nowhere' is configured"},
    }


async def test_a_site_that_is_away_says_nothing_and_keeps_no_other_answer_back(store: Store, clock: Clock) -> None:
    found = await look(store, clock, {"sara": Temporary("away"), "juelich": []})
    assert "sara" not in found
    assert found["juelich"] == {"files": {}, "problem": ""}


async def test_a_record_is_what_the_store_knows_now(store: Store, clock: Clock) -> None:
    run = await begin(store, WAITING, "P1")
    ((_, data),) = await Records(world_of(clock), store, 300.0).look([record(run, f"{run}/wait/1")])
    found = msgspec.convert(data, Record)
    assert (found.field, found.run, found.state) == ("P1", run, "running")
    assert [one.name for one in found.steps] == ["wait"]


@pytest.mark.parametrize("name", ["P1", "P1-1"])
async def test_a_run_is_known_by_its_id_and_by_its_field(store: Store, name: str) -> None:
    await begin(store, WAITING, "P1")
    assert [one.run.id for one in await store.materials(name)] == ["P1-1"]
    assert await store.materials("P9") == ()


async def test_a_run_that_never_was_is_no_part_of_a_record(store: Store, clock: Clock) -> None:
    """Outputs of a step that was called done are a person's word."""
    run = await begin(store, WAITING, "P1")
    said = {"outputs": '{"run": "nope-1"}', "run": run}
    await store.db.write(
        lambda db: db.execute("UPDATE steps SET kind = 'run', outputs = :outputs WHERE run = :run", said)
    )
    ((_, found),) = await Records(world_of(clock), store, 300.0).look([record(run, f"{run}/wait/1")])
    assert [one["id"] for one in found["runs"]] == [run]
