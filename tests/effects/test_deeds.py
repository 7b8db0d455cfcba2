"""Deeds of staging, of jobs and of everything else: done once, they are found; not done, they are not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from aglowd.effects import DEEDS
from aglowd.effects.base import Deed
from aglowd.effects.catalogue import WriteStatus
from aglowd.effects.general import MAX_KEPT_CHARS, CallHttp, RunCommand
from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid.batch import Order
from aglowd.grid.stager import Progress

from .outside import KEY, Outside, Stager


def test_every_deed_can_be_done_and_found() -> None:
    for kind, deed in DEEDS.items():
        assert deed.kind == kind
        assert deed.do is not Deed.do
        assert deed.find is not Deed.find
        assert deed.needs_evidence == (deed.look_before is not Deed.look_before)


# --- staging

SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(4))
OTHERS = tuple(f"srm://srm.grid.sara.nl:8443/d/L2_SB{number:03d}_uv.tar" for number in range(4))
STAGE = StageFiles(surls=SURLS)


async def test_a_request_is_made_with_evidence_and_found(outside: Outside) -> None:
    outside.lta.add(OTHERS)
    before = await STAGE.look_before(outside.world)
    assert before == [100]
    intent = outside.intent(evidence=before)
    assert await STAGE.find(outside.world, intent) is None
    assert await STAGE.do(outside.world, intent) == {"request": 101}
    assert outside.lta.requests[101] == SURLS
    with pytest.raises(Temporary, match="do not show all files"):
        await STAGE.find(outside.world, intent)
    outside.lta.online[101] = SURLS[:1]
    assert await STAGE.find(outside.world, intent) == {"request": 101}
    assert STAGE.settling_s(outside.world) == 77.0


@pytest.mark.parametrize("status", ["failed", "aborted"])
async def test_a_new_request_that_was_given_up_keeps_nobody_waiting(outside: Outside, status: str) -> None:
    request = outside.lta.add(SURLS)
    outside.lta.shown[request] = Progress(status, len(SURLS), 0, None, "sara", False)
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None
    outside.lta.shown[request] = Progress("in progress", len(SURLS), 0, None, "sara", True)
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None


async def test_a_request_that_ended_and_shows_nothing_is_put_before_a_person(outside: Outside) -> None:
    request = outside.lta.add(SURLS)
    outside.lta.shown[request] = Progress("success", len(SURLS), 4, None, "sara", False)
    with pytest.raises(Unknown, match="one may be ours"):
        await STAGE.find(outside.world, outside.intent(evidence=[]))


async def test_an_old_request_is_never_taken_for_ours(outside: Outside) -> None:
    outside.lta.add(SURLS, staged=SURLS[:1])
    outside.lta.add(SURLS, staged=SURLS[:1])
    assert await STAGE.find(outside.world, outside.intent(evidence=[100, 101])) is None
    assert await STAGE.find(outside.world, outside.intent(evidence=[100])) == {"request": 101}


@pytest.mark.parametrize(
    ("count", "staged", "is_ours"),
    [
        (5, (), False),
        (5, SURLS[:1], False),
        (4, SURLS[:2], True),
        (None, SURLS, True),
        (4, OTHERS[:1], False),
        (4, (SURLS[0], OTHERS[0]), False),
    ],
)
async def test_by_what_a_new_request_is_known(
    outside: Outside, count: int | None, staged: tuple[str, ...], is_ours: bool
) -> None:
    outside.lta.add(SURLS, count=count, staged=staged)
    found = await STAGE.find(outside.world, outside.intent(evidence=[]))
    assert found == ({"request": 100} if is_ours else None)


async def test_of_two_new_requests_the_one_that_shows_our_files_is_ours(outside: Outside) -> None:
    outside.lta.add(OTHERS)
    outside.lta.add(SURLS, staged=SURLS[2:3])
    outside.lta.add(OTHERS, staged=OTHERS[:1])
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) == {"request": 101}


@pytest.mark.parametrize("new", [(SURLS,), (OTHERS,), (OTHERS, SURLS)])
async def test_of_new_requests_that_show_nothing_nobody_can_tell_yet(
    outside: Outside, new: tuple[tuple[str, ...]]
) -> None:
    """Saying "it did not happen" might ask for the same files twice; saying "ours" might take another field's request."""
    for surls in new:
        outside.lta.add(surls)
    with pytest.raises(Temporary, match="do not show all files"):
        await STAGE.find(outside.world, outside.intent(evidence=[]))


async def test_a_goal_that_is_reached_needs_no_request(outside: Outside) -> None:
    outside.dcache.where = dict.fromkeys(SURLS, "ONLINE")
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) == {"request": None}
    outside.dcache.where[SURLS[3]] = "NEARLINE"
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None
    del outside.dcache.where[SURLS[3]]
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None


async def test_a_request_is_released(outside: Outside) -> None:
    number = outside.lta.add(SURLS)
    effect = ReleaseFiles(request=number)
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"released": True}
    assert outside.lta.aborted == [number]
    assert await effect.find(outside.world, outside.intent()) == {"released": True}
    outside.lta.statuses[number] = "success"
    assert await effect.find(outside.world, outside.intent()) is None


async def test_what_a_dcache_cancelled_may_be_pinned_and_is_released_again(outside: Outside) -> None:
    name = "0b2c7d3e-5a49-5f0e-9d3c-1f2a3b4c5d6e"
    outside.lta.statuses = {name: "aborted"}  # type: ignore[dict-item] # This stager names requests as a dCache does.
    assert await ReleaseFiles(request=name).find(outside.world, outside.intent()) is None


async def test_a_request_that_the_stager_has_forgotten_holds_nothing(outside: Outside) -> None:
    found = await ReleaseFiles(request=7).do(outside.world, outside.intent())
    assert found["released"] is False
    assert "unknown request 7" in found["why"]


async def test_a_release_that_is_refused_is_not_taken_for_done(outside: Outside) -> None:
    async def refuse(request: int) -> None:
        raise Permanent(f"LTA abort: {request} is not yours")

    outside.lta.abort = refuse  # type: ignore[method-assign] # This stager refuses.
    with pytest.raises(Permanent, match="is not yours"):
        await ReleaseFiles(request=7).do(outside.world, outside.intent())


async def test_a_silent_request_that_another_effect_made_is_nobodys_riddle(outside: Outside) -> None:
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    other = outside.lta.add(("srm://b/1", "srm://b/2"))
    found = await deed.find(outside.world, outside.intent(evidence=[], results=[{"request": other}]))
    assert found is None


async def test_a_second_try_asks_only_for_what_is_not_online(outside: Outside) -> None:
    outside.dcache.where = {"srm://a/1": "ONLINE", "srm://a/2": "NEARLINE"}
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    result = await deed.do(outside.world, outside.intent(key=KEY, tries=1, evidence=[], notes={"repeated": True}))
    assert outside.lta.requests[result["request"]] == ("srm://a/2",)
    outside.dcache.where["srm://a/2"] = "ONLINE"
    assert await deed.do(outside.world, outside.intent(key=KEY, tries=1, evidence=[], notes={"repeated": True})) == {
        "request": None
    }
    assert len(outside.lta.requests) == 1


async def test_after_a_refused_try_all_files_are_asked_for(outside: Outside) -> None:
    outside.dcache.where = {"srm://a/1": "ONLINE", "srm://a/2": "NEARLINE"}
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    result = await deed.do(outside.world, outside.intent(tries=1, evidence=[]))
    assert outside.lta.requests[result["request"]] == ("srm://a/1", "srm://a/2")


# --- jobs

SUBMIT = SubmitJobs(
    nodes=3, executable="/bin/sh", arguments=("run.sh", "--key", "{key}", "--type", "t"), requirements="true"
)


async def test_a_job_is_registered_noted_and_started(outside: Outside) -> None:
    intent = outside.intent()
    assert await SUBMIT.find(outside.world, intent) is None
    job = "https://wms:9000/job0"
    assert await SUBMIT.do(outside.world, intent) == {"jobs": [job], "nodes": 3}
    assert outside.wms.started == [job]
    assert outside.noted == [{"job": job}]
    assert outside.wms.orders[job] == Order(
        KEY,
        3,
        "/bin/sh",
        ("run.sh", "--key", KEY, "--type", "t"),
        {"picas.json": "{}", "run.sh": "#!/bin/sh"},
        "true",
    )
    assert await SUBMIT.find(outside.world, intent) == {"jobs": [job], "nodes": 3}


async def test_a_system_that_registers_nothing_is_looked_at_for_our_key(outside: Outside) -> None:
    outside.wms.registers = False
    intent = outside.intent()
    assert await SUBMIT.find(outside.world, intent) is None
    assert await SUBMIT.do(outside.world, intent) == {"jobs": ["https://wms:9000/job0"], "nodes": 3}
    assert outside.noted == []
    assert await SUBMIT.find(outside.world, intent) == {"jobs": ["https://wms:9000/job0"], "nodes": 3}
    assert await SUBMIT.find(outside.world, outside.intent(key="another/s/1/submit_jobs/0")) is None


async def test_pilots_that_the_system_forgot_are_found_by_the_marks_that_they_left(outside: Outside) -> None:
    outside.wms.registers = False
    outside.couch.marks[KEY] = ("17_3", "17_4")
    assert await SUBMIT.find(outside.world, outside.intent()) == {"jobs": ["17_3", "17_4"], "nodes": 3}

    async def away(key: str) -> tuple[str, ...]:
        raise Temporary("the database is away")

    couch: Any = outside.couch
    couch.find_pilots = away
    with pytest.raises(Unknown, match="the database is away"):
        await SUBMIT.find(outside.world, outside.intent())


async def test_pilots_are_submitted_where_their_site_says(outside: Outside) -> None:
    deed = SubmitJobs(nodes=1, executable="x", arguments=(), site="sara")
    assert await deed.do(outside.world, outside.intent()) == {"jobs": ["https://wms:9000/job0"], "nodes": 1}
    with pytest.raises(Permanent, match="no site 'poznan' is configured; known: sara"):
        await SubmitJobs(nodes=1, executable="x", arguments=(), site="poznan").do(outside.world, outside.intent())


async def test_the_id_is_noted_before_the_job_is_started(outside: Outside) -> None:
    outside.wms.silent = True
    intent = outside.intent()
    with pytest.raises(Unknown):
        await SUBMIT.do(outside.world, intent)
    assert intent.notes == {"job": "https://wms:9000/job0"}
    assert await SUBMIT.find(outside.world, intent) is None, "it was registered and never started"
    outside.wms.silent = False
    assert await SUBMIT.do(outside.world, intent) == {"jobs": ["https://wms:9000/job0"], "nodes": 3}
    assert list(outside.wms.jobs) == outside.wms.started == ["https://wms:9000/job0"]


@pytest.mark.parametrize("state", ["queued", "running", "done_ok", "done_failed", "aborted", "cancelled", "lost"])
async def test_a_job_in_any_later_state_was_started(outside: Outside, state: str) -> None:
    outside.wms.jobs["https://w/0"] = state
    notes = {"job": "https://w/0", "transferred": True}
    assert await SUBMIT.find(outside.world, outside.intent(notes=notes)) == {"jobs": ["https://w/0"], "nodes": 3}


async def test_a_job_that_the_bookkeeping_does_not_know_says_nothing(outside: Outside) -> None:
    notes = {"job": "https://w/0", "transferred": True}
    with pytest.raises(Unknown, match="says nothing of https://w/0"):
        await SUBMIT.find(outside.world, outside.intent(notes=notes))


async def test_a_job_of_which_the_bookkeeping_says_nothing_was_not_started_for_sure(outside: Outside) -> None:
    outside.wms.jobs["https://w/0"] = "unknown"
    notes = {"job": "https://w/0", "transferred": True}
    with pytest.raises(Unknown):
        await SUBMIT.find(outside.world, outside.intent(notes=notes))


async def test_a_job_is_cancelled(outside: Outside) -> None:
    outside.wms.jobs = {"https://w/0": "running", "https://w/1": "done_ok"}
    effect = CancelJobs(job="https://w/0")
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"job": "https://w/0", "named": True, "absent": False}
    for job in ("https://w/0", "https://w/1"):
        known = {"job": job, "named": True, "absent": False}
        assert await CancelJobs(job=job).find(outside.world, outside.intent()) == known
        assert await CancelJobs(job=job).do(outside.world, outside.intent()) == known
    assert outside.wms.cancelled == ["https://w/0"], "what has ended is not cancelled"


async def test_a_job_that_is_not_shown_is_cancelled_all_the_same(outside: Outside) -> None:
    effect = CancelJobs(job="https://w/2")
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"job": "https://w/2", "named": False, "absent": True}
    outside.wms.hidden = {"https://w/3"}
    outside.wms.jobs = {"https://w/3": "running"}
    assert await CancelJobs(job="https://w/3").do(outside.world, outside.intent()) == {
        "job": "https://w/3", "named": False, "absent": False,
    }  # fmt: skip
    assert outside.wms.jobs == {"https://w/3": "cancelled"}


async def test_after_a_restore_a_job_without_its_sandbox_does_not_hide_the_one_that_was_started_since(
    outside: Outside,
) -> None:
    started = "https://wms:9000/started"
    outside.wms.jobs[started], outside.wms.orders[started] = "running", Order(KEY, 2, "/bin/sh", ())
    notes = {"job": "https://wms:9000/old", "transferred": False, "restored": 1.0}
    deed = SubmitJobs(nodes=2, executable="/bin/sh", arguments=())
    assert await deed.find(outside.world, outside.intent(notes=notes)) == {"jobs": [started], "nodes": 2}


# --- programs and web services


async def test_a_program_is_run(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", "echo one; echo $1 >> $0", str(outside.file("ran")), "a b; c"))
    assert await effect.do(outside.world, outside.intent()) == {"rc": 0, "stdout": "one\n"}
    assert outside.file("ran").read_text() == "a b; c\n"


async def test_only_the_end_of_what_a_program_prints_is_kept(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x; echo end"))
    found = await effect.do(outside.world, outside.intent())
    assert len(found["stdout"]) == MAX_KEPT_CHARS
    assert found["stdout"].endswith("xend\n")


async def test_a_program_that_fails(outside: Outside) -> None:
    argv = ("sh", "-c", "echo said; echo wrong >&2; exit 3")
    with pytest.raises(Permanent, match=r"sh ended with 3, expected \[0\]: wrong"):
        await RunCommand(argv=argv).do(outside.world, outside.intent())
    assert (await RunCommand(argv=argv, ok=(0, 3)).do(outside.world, outside.intent()))["rc"] == 3
    with pytest.raises(Temporary, match="cannot be started"):
        await RunCommand(argv=("no-such-program",)).do(outside.world, outside.intent())
    with pytest.raises(Unknown, match="was killed after"):
        await RunCommand(argv=("sleep", "60"), timeout_s=0.1).do(outside.world, outside.intent())


async def test_whether_a_program_has_run(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", ": > $0", str(outside.file("made"))), creates=outside.url("made"))
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent())
    assert await effect.find(outside.world, outside.intent()) == {"rc": 0, "stdout": ""}
    assert await RunCommand(argv=("true",), repeatable=True).find(outside.world, outside.intent()) is None
    with pytest.raises(Unknown, match="give it `creates` or `repeatable`"):
        await RunCommand(argv=("true",)).find(outside.world, outside.intent())


async def test_a_web_service_is_called_with_our_key(outside: Outside) -> None:
    found = await CallHttp(method="POST", url="http://h/x", body={"a": 1}).do(outside.world, outside.intent())
    assert found == {"status": 200, "body": '{"state": "ok"}'}
    assert outside.web.asked == [("POST", "http://h/x", True, {"a": 1}, {"Idempotency-Key": KEY})]
    outside.web.body = b"x" * (MAX_KEPT_CHARS + 1)
    long = await CallHttp(method="GET", url="http://h/x").do(outside.world, outside.intent())
    assert len(long["body"]) == MAX_KEPT_CHARS


async def test_only_a_call_that_may_be_repeated_shares_a_connection(outside: Outside) -> None:
    for repeatable in (False, True):
        await CallHttp(method="PUT", url="http://h/x", repeatable=repeatable).do(outside.world, outside.intent())
    assert outside.web.kept == [False, True]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_a_call_that_may_be_repeated_is(outside: Outside, method: str) -> None:
    assert await CallHttp(method=method, url="http://h/").find(outside.world, outside.intent()) is None


async def test_nobody_can_tell_of_a_call_that_may_not(outside: Outside) -> None:
    assert await CallHttp(method="POST", url="http://h/", repeatable=True).find(outside.world, outside.intent()) is None
    for method in ("POST", "PATCH"):
        with pytest.raises(Unknown, match=f"whether {method} http://h/ arrived"):
            await CallHttp(method=method, url="http://h/").find(outside.world, outside.intent())
    assert outside.web.asked == []


# --- the catalogue

ROW = "{},229511,x,4,4,244,229507,x,4,4,244,P1,\n"


async def test_a_status_is_written_and_found_as_ours(outside: Outside) -> None:
    outside.csv.write_text(ROW.format("SND"))
    effect = WriteStatus(field="P1", expect="SND", status="AAA")
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"status": "AAA"}
    assert outside.csv.read_text() == ROW.format("AAA")
    assert await effect.find(outside.world, outside.intent()) == {"status": "AAA"}
    assert await effect.find(outside.world, outside.intent(key="another")) is None
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"status": "AAA"}


async def test_nobodys_word_is_overwritten_unseen(outside: Outside) -> None:
    outside.csv.write_text(ROW.format("RRR"))
    effect = WriteStatus(field="P1", expect="SND", status="AAA")
    with pytest.raises(Permanent, match="found P1 in status 'RRR'; expected 'SND'"):
        await effect.do(outside.world, outside.intent())
    assert outside.csv.read_text() == ROW.format("RRR")
    outside.csv.write_text(ROW.format("AAA"))
    assert await effect.find(outside.world, outside.intent()) is None, "the status is right, but it is not of our hand"
    with pytest.raises(Permanent) as caught:
        await WriteStatus(field="P2", expect="SND", status="AAA").find(outside.world, outside.intent())
    assert caught.value.absent


@pytest.mark.parametrize(("elsewhere", "is_ours"), [("tape", True), ("sara", False), ("gone", False)])
async def test_the_number_of_a_request_at_another_stager_is_not_taken_for_ours(
    outside: Outside, elsewhere: str, is_ours: bool
) -> None:
    """Site `tape` has a stager of its own, which has given the same number to a request of another effect."""
    outside.world.stagers = {**outside.world.stagers, "tape": cast(Any, Stager())}
    lost = await outside.lta.stage(SURLS)
    outside.lta.online[lost] = SURLS[:1]
    intent = outside.intent(evidence=[], results=[{"request": lost}], results_at=elsewhere)
    assert await STAGE.find(outside.world, intent) == ({"request": lost} if is_ours else None)


def test_a_person_may_say_that_a_status_was_ours_by_its_name() -> None:
    effect = WriteStatus(field="P1", expect="SND", status="AAA")
    assert effect.adopted("AAA") == {"status": "AAA"}
    with pytest.raises(AglowError, match="'AAA', not 'CCC'"):
        effect.adopted("CCC")
