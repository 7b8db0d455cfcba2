"""What effects find when a backup was restored: done in a time of which the journal knows nothing."""

from __future__ import annotations

import pytest

from aglowd.effects.catalogue import WriteStatus
from aglowd.effects.jobs import SubmitJobs
from aglowd.effects.staging import StageFiles
from aglowd.effects.tokens import CreateTokens
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.store.lineage import RESTORED, line_of

from .outside import KEY, Outside

LOST = {RESTORED: 1.0e9}
SUBMIT = SubmitJobs(nodes=3, executable="/bin/sh", arguments=("run.sh",))
ROW = "{},229507,,16,4,244,229587,,16,4,244,P1,[CR]S*&\n"


async def test_pilots_whose_id_was_lost_are_found_by_their_tag(outside: Outside) -> None:
    first = await SUBMIT.do(outside.world, outside.intent())
    assert await SUBMIT.find(outside.world, outside.intent()) is None, "without a restore it would have been noted"
    assert await SUBMIT.find(outside.world, outside.intent(notes=LOST)) == first
    assert await SUBMIT.find(outside.world, outside.intent(key=f"{KEY}1/of/another", notes=LOST)) is None
    assert outside.wms.started == ["https://wms:9000/job0"]


async def test_a_lost_job_that_never_started_ran_nothing(outside: Outside) -> None:
    outside.wms.silent = True
    with pytest.raises(Unknown):
        await SUBMIT.do(outside.world, outside.intent())
    outside.wms.silent = False
    assert await SUBMIT.find(outside.world, outside.intent(notes=LOST)) is None


async def test_a_bookkeeping_without_tags_leaves_the_doubt_to_a_person(outside: Outside) -> None:
    outside.wms.silent = True
    with pytest.raises(Unknown, match="nobody can tell what was submitted"):
        await SUBMIT.find(outside.world, outside.intent(notes=LOST))


async def test_the_status_goes_on_from_our_own_later_word(outside: Outside) -> None:
    run = KEY.split("/")[0]
    outside.csv.write_text(ROW.format("SND"))
    for step, expect, status in (("claim", "SND", "AAA"), ("calibrated", "AAA", "CCC"), ("archived", "CCC", "ZZZ")):
        effect = WriteStatus(field="P1", expect=expect, status=status)
        await effect.do(outside.world, outside.intent(key=f"{run}/{step}/1/write_status/0"))
    calibrated = WriteStatus(field="P1", expect="AAA", status="CCC")
    ours = outside.intent(key=f"{run}/calibrated/1/write_status/0", notes=LOST)
    assert await calibrated.find(outside.world, ours) is None
    with pytest.raises(Permanent, match="found P1 in status 'ZZZ'"):
        await calibrated.do(outside.world, outside.intent(key=f"{run}/calibrated/1/write_status/0"))
    assert await calibrated.do(outside.world, ours) == {"status": "CCC"}
    assert await calibrated.find(outside.world, ours) == {"status": "CCC"}


@pytest.mark.parametrize("writer", ["a person", "another run"])
async def test_nobody_elses_word_is_overwritten_after_a_restore(outside: Outside, writer: str) -> None:
    outside.csv.write_text(ROW.format("RRR" if writer == "a person" else "SND"))
    if writer == "another run":
        await WriteStatus(field="P1", expect="SND", status="RRR").do(outside.world, outside.intent(key="other/a/1/w/0"))
    with pytest.raises(Permanent, match="found P1 in status 'RRR'"):
        await WriteStatus(field="P1", expect="AAA", status="CCC").do(outside.world, outside.intent(notes=LOST))
    assert outside.csv.read_text() == ROW.format("RRR")


async def test_tokens_that_were_used_up_are_not_made_a_second_time(outside: Outside) -> None:
    effect = CreateTokens(token_type="t", tokens={"t_1": {"type": "t"}, "t_2": {"type": "t"}})
    assert await effect.find(outside.world, outside.intent(notes=LOST)) is None, "they never were"
    outside.couch.deleted = {"t_1", "t_2"}
    with pytest.raises(Conflict, match="made and deleted after the backup"):
        await effect.find(outside.world, outside.intent(notes=LOST))
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent())
    assert await effect.find(outside.world, outside.intent(notes=LOST)) == {"created": 2}


async def test_a_staging_request_is_found_without_evidence_but_not_one_of_another_effect(outside: Outside) -> None:
    surls = ("srm://a/1", "srm://a/2")
    effect = StageFiles(surls=surls)
    done = await effect.do(outside.world, outside.intent())
    outside.lta.online[done["request"]] = surls
    assert await effect.find(outside.world, outside.intent(notes=LOST)) == done
    assert await effect.find(outside.world, outside.intent(notes=LOST, results=[done])) is None


async def test_a_lost_staging_request_may_have_been_for_more_than_is_missing_by_now(outside: Outside) -> None:
    """Asked for four, of which two are online when the restored daemon looks: it wants the other two."""
    lost = await outside.lta.stage(("srm://a/1", "srm://a/2", "srm://a/3", "srm://a/4"))
    effect = StageFiles(surls=("srm://a/3", "srm://a/4"), besides=("srm://a/1", "srm://a/2"))
    intent = outside.intent(notes=LOST)
    outside.lta.online[lost] = ()
    with pytest.raises(Temporary, match=f"requests {lost} are new and do not show all files: one may be ours"):
        await effect.find(outside.world, intent)
    for online in (("srm://a/1", "srm://a/2"), ("srm://a/1", "srm://a/2", "srm://a/4")):  # It is for four.
        outside.lta.online[lost] = online
        assert await effect.find(outside.world, intent) == {"request": lost, "also": ["srm://a/1", "srm://a/2"]}
    assert await effect.find(outside.world, outside.intent(evidence=[])) is None, "without a restore it is too large"


@pytest.mark.parametrize("more", [1, 500])
async def test_after_a_restore_a_strangers_request_with_a_file_of_ours_is_left_alone(
    outside: Outside, more: int
) -> None:
    files = ("srm://a/1", "srm://a/2")
    theirs = [f"srm://b/{number}" for number in range(more)]
    outside.lta.add((files[0], *theirs), staged=(files[0], *theirs[:1]))
    assert await StageFiles(surls=files).find(outside.world, outside.intent(notes=LOST)) is None


async def test_after_a_restore_a_finished_request_for_other_files_is_nobodys_concern(outside: Outside) -> None:
    others = ("srm://b/1", "srm://b/2", "srm://b/3")
    outside.lta.add(others, staged=others)
    assert await StageFiles(surls=("srm://a/1",)).find(outside.world, outside.intent(notes=LOST)) is None


def test_a_run_tells_its_line() -> None:
    assert line_of("P1-1") == ""
    assert line_of("P1-12r20261124020000") == "r20261124020000"
    assert line_of("r20261124020000-1") == ""
