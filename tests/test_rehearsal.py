"""What a run would do, before there is one: the shipped pipelines with their real handlers, and templates of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import Played, do, graph, step
from support import Put as PutEffect

from aglowd.config import load_config
from aglowd.model import Failed, Outcome, Seen, StepView
from aglowd.rehearsal import Rehearsal
from aglowd.wiring import handler_kinds, load_pipelines, shown_to_templates

ROOT = Path(__file__).parent.parent
FIELD = {
    "name": "P1",
    "status": "SND",
    "baseline_filter": "",
    "target": {"obsid": "L229511", "freq_resolution": 8, "time_resolution": 4.0},
    "calibrator": {"obsid": "L229507", "freq_resolution": 8, "time_resolution": 2.0},
}


def rehearsed(*steps: Any, plays: Any = None, **values: Any) -> dict[str, dict[str, Any]]:
    pipeline = graph("p", *steps, **values)
    rehearsal = Rehearsal({"played": Played(plays)}, {"p": "digest"}, {"sites": {"sara": {"results": "gsiftp://x"}}})
    told = rehearsal.play(pipeline, "P1-1", "P1", {"name": "P1", "site": "sara"}, {"depth": 3})
    return {entry["step"]: entry for entry in told}


def test_the_survey_pipeline_is_shown_step_by_step() -> None:
    pipelines = load_pipelines("", "sksp")
    shown = shown_to_templates(load_config(ROOT / "etc" / "aglowd.toml"))
    rehearsal = Rehearsal(handler_kinds(), {name: one.digest for name, one in pipelines.items()}, shown)
    told = {one["step"]: one for one in rehearsal.play(pipelines["sksp"], "P1-1", "P1", FIELD, {})}
    assert told.keys() == pipelines["sksp"].steps.keys()
    assert not [one for one in told.values() if "problem" in one]
    assert told["claim"]["decision"]["effects"] == [
        {
            "key": "P1-1/claim/1/write_status/0",
            "kind": "write_status",
            "inputs": {"ordinal": 0, "field": "P1", "expect": "SND", "status": "AAA", "of": ""},
        }
    ]
    assert told["target_list"]["decision"]["does"] == "waits"
    assert told["target_stage"]["params"]["surls"] == "<steps.target_list.outputs.surls>"
    assert told["target_stage"]["unknown"] == "its parameters rest on what earlier steps put out"
    assert told["archive"]["params"]["directory"] == "<route[steps.target_list.outputs.site].archive>/P1-1"
    assert "decision" not in told["archive_tokens"], "a decision was made from a name that is not known yet"
    assert "L229511_SB*_uv*" in told["target_attach"]["params"]["shared"]["Pre-Facet-Target-1.parset"]
    assert told["status_failed"]["skipped"].startswith("its condition does not hold")


def test_every_shipped_pipeline_can_be_rehearsed_with_parameters_that_are_not_known() -> None:
    pipelines = load_pipelines("", "sksp")
    shown = shown_to_templates(load_config(ROOT / "etc" / "aglowd.toml"))
    rehearsal = Rehearsal(handler_kinds(), {name: one.digest for name, one in pipelines.items()}, shown)
    for pipeline in pipelines.values():
        params = dict.fromkeys(pipeline.params, "x")
        told = rehearsal.play(pipeline, "P1-1", "P1", FIELD, params)
        assert [one["step"] for one in told] == sorted(pipeline.steps, key=[one["step"] for one in told].index)


def test_what_a_pure_step_puts_out_is_known_to_those_behind_it() -> None:
    told = rehearsed(
        step("a", params={"say": "{{ field.site }}"}),
        step("b", "a", params={"say": "{{ steps.a.outputs.say }} {{ params.depth }} {{ run.id }}"}),
    )
    assert told["b"]["params"] == {"say": "sara 3 P1-1"}
    assert told["b"]["decision"] == {"does": "ends", "outputs": {"say": "sara 3 P1-1"}}


def test_what_is_not_known_is_named_and_asked_nothing() -> None:
    later = do(PutEffect(what="x"))
    told = rehearsed(
        step("a"),
        step("bare", "a", params={"say": "{{ steps.a.outputs.n }}"}),
        step(
            "deep", "a", params={"say": "{{ sites[steps.a.outputs.site].results }}/{{ steps.a.outputs.files[0].url }}"}
        ),
        step("cut", "a", params={"say": "{{ steps.a.outputs.obsid[1:] }}"}),
        step("sum", "a", params={"say": "{{ steps.a.outputs.one + steps.a.outputs.other + [1] }}"}),
        step("times", "a", params={"say": "{{ steps.a.outputs.n * 2 }}"}),
        step("each", "a", params={"say": "{% for x in steps.a.outputs.list %}{{ x }}{% endfor %}"}),
        step("same", "a", params={"say": "{{ steps.a.outputs.n == 2 }}"}),
        step("first", "a", params={"say": "{{ first(steps.a.outputs.n, 2) }}"}),
        step("whole", "a", params={"say": "{{ steps.a.outputs | length }}"}),
        step("part", "a", params={"say": "{{ sites.sara.results }}"}),
        step("maybe", "a", when="steps.a.outputs.n > 3"),
        step("behind", "maybe", params={"say": "{{ steps.maybe.outputs.say }}"}),
        step("pooled", "a", pool="p-{{ steps.a.outputs.site }}"),
        plays={"a": later},
    )
    said = {name: entry["params"].get("say") for name, entry in told.items()}
    assert said["bare"] == "<steps.a.outputs.n>"
    assert said["deep"] == "<sites[steps.a.outputs.site].results>/<steps.a.outputs.files[0].url>"
    assert said["cut"] == "<steps.a.outputs.obsid[1:]>"
    assert said["sum"] == "<steps.a.outputs.one + steps.a.outputs.other + [1]>"
    assert said["times"] == "{{ steps.a.outputs.n * 2 }}"
    assert said["each"].startswith("{% for")
    assert said["same"] == "{{ steps.a.outputs.n == 2 }}"
    assert said["first"] == "<steps.a.outputs.n>"
    assert said["whole"] == "{{ steps.a.outputs | length }}"
    assert said["part"] == "gsiftp://x"
    assert told["maybe"]["when"] == "steps.a.outputs.n > 3"
    assert told["pooled"]["pool"] == "p-<steps.a.outputs.site>"
    unknown = {"bare", "deep", "cut", "sum", "times", "each", "same", "first", "whole"}
    assert {name for name, entry in told.items() if "unknown" in entry} == unknown


def test_problems_are_told_where_they_are() -> None:
    def defect(view: StepView, params: Any, seen: Seen) -> Outcome:
        raise RuntimeError("a defect")

    told = rehearsed(
        step("a", params={"say": "{{ field.nothing }}"}),
        step("b", params={"number": "x"}),
        step("c"),
        step("d"),
        step("e", when="field.nothing"),
        plays={"c": defect, "d": lambda *_: Failed("no tape")},
    )
    assert "nothing" in told["a"]["problem"]
    assert "Expected `int`, got `str`" in told["b"]["problem"]
    assert told["c"]["problem"] == "its handler raised RuntimeError: a defect"
    assert told["d"]["problem"] == "no tape"
    assert told["e"]["problem"].startswith("when: ")


def test_a_skipped_step_takes_those_with_it_that_hang_on_it_alone() -> None:
    told = rehearsed(step("b", "a"), step("a", when="field.site == 'juelich'"), step("c", "a", join="done"))
    assert list(told) == ["a", "b", "c"]
    assert told["a"]["skipped"] == "its condition does not hold: field.site == 'juelich'"
    assert told["b"]["skipped"] == "every step that it needs is skipped"
    assert "skipped" not in told["c"]


@pytest.mark.parametrize("field", [FIELD, {**FIELD, "status": "ZZZ"}])
def test_a_rehearsal_changes_nothing_that_it_is_given(field: dict[str, Any]) -> None:
    before = repr(field)
    rehearsed(step("a", params={"say": "{{ field }}"}))
    assert repr(field) == before
