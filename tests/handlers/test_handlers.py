"""What holds for every kind of step, whatever it sees: it decides, says why and until when, and decides the same again."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aglowd.chronicle import record_of
from aglowd.effects import DEEDS
from aglowd.grid.batch import FINAL
from aglowd.grid.batch import STATES as STATES_OF_JOBS
from aglowd.handlers import HANDLERS
from aglowd.model import (
    Do,
    Done,
    Effect,
    EffectRecord,
    EffectState,
    Failed,
    Handler,
    Json,
    Outcome,
    Spawn,
    Subject,
    Wait,
)
from aglowd.store.runs import STEP as STEP_END
from aglowd.store.verdicts import KIND as VERDICT
from aglowd.watchers import WATCHERS
from tests.records import material

from .conftest import NOW, STEP, ended, seen
from .test_submit import PILOTS

SURLS = [f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(12)]
JOBS = ["https://w/0", "https://w/1"]
TOKENS = [f"t:SB{number:03d}" for number in range(12)]
CONFIG: dict[str, Json] = {"PicasApiVersion": 0.5, "Job": {"variables": {}}, "Token": {}}
STATUSES = [
    "new", "scheduled", "in progress", "on hold", "success", "partial success", "completed", "failed", "aborted", "gone", "?",
]  # fmt: skip

PARAMS: dict[str, st.SearchStrategy[dict[str, Json]]] = {
    "release_field": st.just({"field": "P1", "expect": "AAA", "status": "SND"}),
    "set_status": st.just({"expect": "SND", "status": "AAA"}),
    "srm_list": st.fixed_dictionaries(
        {"path": st.just("/srm1.txt"), "obsid": st.sampled_from(["L1", "L2"]), "nominal": st.integers(1, 20)},
        optional={"site": st.sampled_from(["sara", "juelich"])},
    ),
    "stage": st.fixed_dictionaries(
        {"surls": st.lists(st.sampled_from(SURLS), unique=True)},
        optional={
            "threshold": st.floats(0, 1),
            "requests": st.integers(0, 4),
            "linger": st.sampled_from(["0s", "1h"]),
            "stall": st.sampled_from(["1h", "3d"]),
            "exclude": st.lists(st.sampled_from(["SB000", "SB001"])),
        },
    ),
    "release": st.fixed_dictionaries(
        {"requests": st.lists(st.integers(0, 9) | st.uuids().map(str), unique=True, max_size=4)},
        optional={
            "surls": st.lists(st.sampled_from(SURLS), unique=True),
            "until": st.lists(st.sampled_from(["check", "other"]), unique=True),
            "since": st.sampled_from([NOW, NOW - 6 * 86_400]),
        },
    ),
    "parset": st.fixed_dictionaries(
        {
            "template": st.text(st.sampled_from("ab=#!\n \\1"), max_size=60),
            "values": st.dictionaries(
                st.sampled_from(["a", "b", "a.b"]), st.text() | st.lists(st.integers()), max_size=2
            ),
        }
    ),
    "check_staged": st.fixed_dictionaries(
        {"surls": st.lists(st.sampled_from(SURLS), unique=True)},
        optional={"threshold": st.floats(0, 1), "required": st.booleans()},
    ),
    "build_sandbox": st.fixed_dictionaries(
        {
            "sandbox": st.dictionaries(
                st.sampled_from(["git", "scripts"]), st.sampled_from([{"url": "/srv/x"}, {"url": ""}, [], "x"])
            ),
            "directory": st.just("file:///x"),
        }
    ),
    "create_tokens": st.one_of(
        st.fixed_dictionaries({"surls": st.lists(st.sampled_from(SURLS), unique=True)}),
        st.fixed_dictionaries(
            {"files": st.lists(st.sampled_from(["file:///a", "file:///b", "file:///c"]), unique=True)}
        ),
    ).flatmap(
        lambda given_: st.integers(0, 5).map(
            lambda group: {**given_, "token_type": "t", "config": CONFIG, "group": group}
        )
    ),
    "attach": st.fixed_dictionaries({"srm": st.dictionaries(st.sampled_from(TOKENS), st.text(), min_size=1)}),
    "submit": st.integers(1, 300).map(lambda tokens: {"token_type": "t", "tokens": tokens, "pilots": PILOTS}),
    "wait_tokens": st.fixed_dictionaries(
        {
            "token_type": st.just("t"),
            "tokens": st.integers(1, 12),
            "jobs": st.lists(st.sampled_from(JOBS), unique=True),
            "pilots": st.just(PILOTS),
            "threshold": st.floats(0, 1),
            "scrubs": st.integers(0, 3),
        }
    ),
    "cancel_jobs": st.lists(st.sampled_from(JOBS), unique=True).map(lambda jobs: {"jobs": jobs}),
    "modify_tokens": st.sampled_from(
        [
            {"action": "reset", "state": "error"},
            {"action": "set", "values": {"NCPU": 8}},
            {"action": "delete", "archive": "file:///x", "tokens": TOKENS[:1]},
        ]
    ).map(lambda given_: {**given_, "token_type": "t"}),
    "collect": st.sampled_from(["", "file:///r"]).map(lambda place: {"token_type": "t", "directory": place}),
    "tokens_to_surls": st.fixed_dictionaries({"token_type": st.just("t"), "required": st.booleans()}),
    "check_results": st.just({"token_type": "t", "directory": "file:///r"}),
    "check_files": st.fixed_dictionaries(
        {"directory": st.just("file:///r"), "at_least": st.integers(0, 3), "required": st.booleans()},
        optional={"pattern": st.sampled_from(["*", "*.tar", "[a", ""])},
    ),
    "count_files": st.fixed_dictionaries({"directory": st.just("file:///r"), "minimum": st.integers(0, 3)}),
    "wait_files": st.one_of(
        st.fixed_dictionaries({"count": st.integers(1, 3)}),
        st.fixed_dictionaries(
            {
                "expected": st.integers(1, 3) | st.lists(st.sampled_from(["a", "b.tar", "c"])),
                "threshold": st.floats(0, 1),
            }
        ),
    ).map(lambda given_: {**given_, "directory": "file:///r", "stall": "2h"}),
    "files_to_surls": st.sampled_from(["srm", "gsiftp", "webdav", "as_is"]).map(
        lambda scheme: {"directory": "file:///r", "scheme": scheme}
    ),
    "make_directory": st.just({"directory": "file:///x/"}),
    "copy_files": st.fixed_dictionaries(
        {
            "files": st.lists(st.sampled_from(["file:///r/a", "file:///s/a", "file:///r/b"])),
            "directory": st.just("file:///x"),
        }
    ),
    "copy_tree": st.fixed_dictionaries(
        {"directory": st.just("file:///x"), "source": st.sampled_from(["file:///r", "file:///s/"])},
        optional={"files": st.lists(st.sampled_from(["file:///r/a", "file:///q/a", "file:///r/d/b"]))},
    ),
    "delete_files": st.fixed_dictionaries(
        {"directory": st.just("file:///r"), "copies": st.just("file:///x"), "required": st.booleans()}
        | {"empty_directories": st.booleans()},
        optional={"files": st.lists(st.sampled_from(["file:///r/a", "file:///q/a", "file:///r/d/b"]))},
    ),
    "archive_tokens": st.fixed_dictionaries(
        {"token_types": st.lists(st.sampled_from("tuv"), unique=True, min_size=1), "directory": st.just("file:///x")}
    ),
    "run": st.fixed_dictionaries(
        {"pipeline": st.sampled_from(["calibrator", "none"])},
        optional={"share": st.sampled_from(["", "cal"]), "params": st.dictionaries(st.text(), st.integers())},
    ),
    "provenance": st.sampled_from(["1h", "6h"]).map(lambda patience: {"directory": "file:///x", "patience": patience}),
    "await_approval": st.fixed_dictionaries({}, optional={"question": st.text(), "show": st.lists(st.text())}),
    "command": st.fixed_dictionaries({"argv": st.lists(st.text(), min_size=1)}),
    "http": st.fixed_dictionaries(
        {"url": st.just("http://h/"), "method": st.sampled_from(["GET", "POST"])},
        optional={"until": st.sampled_from(["", "status == 200", "'x' in body", "body.state == 'ready'"])},
    ),
    "git_head": st.sampled_from(["", "c0ffee"]).map(lambda known: {"url": "file:///r", "known": known}),
    "image_digest": st.sampled_from(["file:///x.sif", "quay.example/a"]).map(lambda image: {"image": image}),
}

RESULTS_FILES = st.lists(
    st.fixed_dictionaries({"url": st.sampled_from(["file:///r/a", "file:///r/b.tar"]), "size_bytes": st.integers(0, 5)})
)
DONE_OR_OTHER = st.lists(st.sampled_from(TOKENS), unique=True)

OBSERVED: dict[str, st.SearchStrategy[Json]] = {
    "srm_list": st.one_of(
        st.fixed_dictionaries({"problems": st.lists(st.text(min_size=1), min_size=1)}),
        st.lists(st.integers(0, 30), unique=True, min_size=1).map(
            lambda subbands: {"path": "/srm1.txt", "obsid": "L1", "site": "sara", "surls": SURLS, "subbands": subbands}
        ),
    ),
    "proxy": st.integers(-100_000, 100_000).map(lambda left: {"valid_until": NOW + left}),
    "staging": st.fixed_dictionaries(
        {
            "status": st.sampled_from(STATUSES),
            "done": st.none() | st.integers(0, 9),
            "total": st.none() | st.integers(0, 9),
            "percent": st.none() | st.floats(0, 100),
        }
    ),
    "window": st.integers(0, 6).map(lambda files: {"files": files, "why": "" if files else "full"}),
    "step": st.sampled_from(["done", "failed", "absent"]).map(lambda state: {"state": state}),
    "tokens": st.dictionaries(st.sampled_from(["todo", "locked", "done", "error", "other"]), st.integers(0, 15)),
    "results": st.tuples(DONE_OR_OTHER, DONE_OR_OTHER).map(
        lambda both: {
            "done": {name: f"file:///r/{name}" for name in both[0]},
            "other": {name: "error" for name in both[1] if name not in both[0]},
        }
    ),
    "job": st.tuples(st.sampled_from(STATES_OF_JOBS), st.sampled_from(STATES_OF_JOBS)).map(
        lambda both: {
            "state": both[0],
            "words": "x",
            "reason": "",
            "final": both[0] in FINAL,
            "nodes": {"n": both[1]},
        }
    ),
    "pilots": st.integers(0, 9).map(lambda pilots: {"pilots": pilots, "why": "" if pilots else "full"}),
    "troubled": st.dictionaries(
        st.sampled_from(TOKENS),
        st.tuples(
            st.sampled_from(["locked", "error", "other"]), st.integers(0, 4), st.sampled_from(["", "n", "x"])
        ).map(
            lambda fact: {
                "state": fact[0],
                "rev": f"{fact[1]}-a",
                "job": fact[2],
                "host": "",
                "retries": fact[1],
                "since": NOW - fact[1] * 100_000,
                "lock": 1,
            }
        ),
    ),
    "selection": st.dictionaries(
        st.sampled_from(TOKENS),
        st.tuples(st.booleans(), st.sampled_from([None, "", "file:///r/a", ["file:///r/a", "file:///r/b"], 3])).map(
            lambda both: {"rev": "1-a", "held": both[0], "value": both[1]}
        ),
    ).map(lambda tokens: {"tokens": tokens}),
    "directory": RESULTS_FILES.map(lambda files: {"absent": not files, "files": files}),
    "tree": st.tuples(RESULTS_FILES, st.sampled_from(["", "", "too many"])).map(
        lambda both: {"absent": not both[0], "files": both[0], "problem": both[1]}
    ),
    "arrivals": RESULTS_FILES.map(
        lambda files: {"absent": not files, "files": [{**file, "quiet": file["size_bytes"] > 2} for file in files]}
    ),
    "http": st.fixed_dictionaries(
        {
            "status": st.sampled_from([200, 503]),
            "body": st.text() | st.dictionaries(st.just("state"), st.text(), min_size=1),
        }
    ),
    "git_head": st.sampled_from(["", "no branch"]).map(lambda problem: {"commit": "c0ffee", "problem": problem}),
    "image": st.sampled_from(["", "no image"]).map(lambda problem: {"digest": "sha256:0", "problem": problem}),
    "provenance": st.sampled_from([record_of([material()], NOW), record_of([material(steps=(), effects=())], NOW)]).map(
        msgspec.to_builtins
    ),
    "inputs": st.sampled_from([{}, {SURLS[0]: {"size_bytes": 1, "adler32": None}}]).map(
        lambda files: {"files": files, "problem": ""}
    ),
    "verdict": st.booleans().map(
        lambda approved: {"approved": approved, "verdict": "poor", "reason": "seen", "uid": 7, "at": NOW}
    ),
    "run": st.sampled_from(["done", "failed", "cancelled"]).map(
        lambda state: {"run": "r-1", "state": state, "reason": "why", "outputs": {"x": 1}}
    ),
}
RESULTS: dict[str, st.SearchStrategy[Json]] = {
    "copy_file": st.booleans().map(
        lambda copied: {"url": "file:///x/a", "size_bytes": 1, "adler32": 1, "copied": copied}
    ),
    "stage_files": st.fixed_dictionaries({"request": st.none() | st.integers(1, 99)}),
    "reset_tokens": st.integers(0, 3).map(lambda left: {"reset": 3, "left": left}),
    "modify_tokens": st.integers(0, 3).map(lambda left: {"modified": 3, "left": left}),
    "release_files": st.booleans().map(lambda released: {"released": released}),
    "archive_tokens": st.just({"url": "file:///x/t", "size_bytes": 1, "adler32": 1, "revisions": {"t:1": "1-a"}}),
    "build_sandbox": st.just({"url": "file:///x/s.tar.gz", "size_bytes": 1, "adler32": 1, "commits": {"git": "abc"}}),
    "call_http": st.just({"status": 200, "body": "x"}),
}


@st.composite
def observation(draw: st.DrawFn, subject: Subject) -> Json:
    if subject.kind == "locality":
        surls = subject.args["surls"]
        missing = [surl for surl in surls if draw(st.booleans())]
        words = st.sampled_from(["NEARLINE", "NEARLINE", "LOST", "NONE", "UNAVAILABLE", "UNKNOWN"])
        away = {surl: word for surl in missing if (word := draw(words)) != "NEARLINE"}
        copies = {surl: f"{surl}.new" for surl, word in away.items() if word == "LOST" and draw(st.booleans())}
        return {"missing": missing, "away": away, "copies": copies, "counts": {}}
    return draw(OBSERVED[subject.kind])


@st.composite
def outcome_of(draw: st.DrawFn, effect: Effect) -> EffectRecord:
    if draw(st.integers(0, 9)) == 0:
        return ended(effect, None, EffectState.REJECTED, "it is forbidden")
    if effect.kind == "submit_jobs":
        return ended(effect, {"job": f"https://new/{effect.ordinal}", "nodes": 1})
    return ended(effect, draw(RESULTS.get(effect.kind, st.just({"well": True}))))


def assert_is_a_decision(outcome: Outcome) -> None:
    """What the reactor and the store may rely on."""
    if isinstance(outcome, Do):
        assert outcome.effects
        keys = [(effect.kind, effect.ordinal) for effect in outcome.effects]
        assert len(set(keys)) == len(keys)
        for effect in outcome.effects:
            assert DEEDS[effect.kind] is type(effect)
            assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(effect)), type(effect)) == effect
    elif isinstance(outcome, Wait):
        assert outcome.subjects
        assert outcome.reason
        assert 0 < outcome.due_s <= 7 * 86_400
        assert {subject.kind for subject in outcome.subjects} <= {
            STEP_END,
            VERDICT,
            *(watcher.kind for watcher in WATCHERS),
        }
        assert len({subject.key for subject in outcome.subjects}) == len(outcome.subjects)
    elif isinstance(outcome, Spawn):
        assert outcome.reason
        assert outcome.key
        assert outcome.due_s > 0
    elif isinstance(outcome, Failed):
        assert outcome.reason
    else:
        assert isinstance(outcome, Done)
        msgspec.json.encode(outcome.outputs)


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.kind)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_life_of_every_kind(handler: type[Handler], data: st.DataObject) -> None:
    given_ = data.draw(PARAMS[handler.kind])
    params = msgspec.convert(given_, handler.Params)
    observed: dict[str, Json] = {}
    rows: list[EffectRecord] = []
    outcome = handler().start(STEP, params)
    assert handler().start(STEP, msgspec.convert(given_, handler.Params)) == outcome
    for _ in range(25):
        assert_is_a_decision(outcome)
        if isinstance(outcome, Do):
            known = {(row.kind, row.ordinal) for row in rows}
            assert known.isdisjoint((effect.kind, effect.ordinal) for effect in outcome.effects), "it was done already"
            rows += [data.draw(outcome_of(effect)) for effect in outcome.effects]
        elif isinstance(outcome, Wait | Spawn):
            subjects = outcome.subjects if isinstance(outcome, Wait) else (Subject("run", outcome.key),)
            for subject in subjects:
                if data.draw(st.integers(0, 3)):
                    observed[subject.key] = data.draw(observation(subject))
        else:
            return
        rows.sort(key=lambda row: (row.kind, row.ordinal))
        now = NOW + data.draw(st.integers(0, 10_000))
        outcome = handler().react(STEP, params, seen(observed, *rows, now=now))
        again = handler().react(STEP, msgspec.convert(given_, handler.Params), seen(dict(observed), *rows, now=now))
        assert again == outcome
        left = handler().stop(STEP, params, seen(observed, *rows, now=now))
        if left is not None:
            assert_is_a_decision(left)
            stopped = [*rows, *(ended(effect, {"well": True}) for effect in left.effects)]
            assert handler().stop(STEP, params, seen(observed, *stopped, now=now)) is None, "a stop has an end"


def test_the_table_of_contents_names_each_kind_once() -> None:
    kinds = [handler.kind for handler in HANDLERS]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == set(PARAMS)


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.kind)
def test_parameters_are_frozen_and_complete(handler: type[Handler]) -> None:
    config: Any = handler.Params.__struct_config__
    assert config.frozen
    assert config.forbid_unknown_fields
    assert inspect.getdoc(handler)


def test_a_kind_that_does_not_say_how_it_reacts_is_told() -> None:
    class Nothing(Handler):
        kind = "nothing"

    with pytest.raises(NotImplementedError, match="step kind nothing"):
        Nothing().start(STEP, None)
    assert Nothing().stop(STEP, None, seen()) is None
