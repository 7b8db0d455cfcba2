"""Whole days of the grid are decided again by `aglowd replay`: each decision is the same, and what was changed on purpose is found."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import structlog
from click.testing import CliRunner

from aglowd.cli.daemon import main
from aglowd.control.routes import shapes
from aglowd.control.schemas import Schemas
from aglowd.deciding import Means
from aglowd.grid import catalogue_csv
from aglowd.handlers.stage import Stage
from aglowd.handlers.wait_tokens import WaitTokens
from aglowd.model import Done, Outcome, Seen, StepView
from aglowd.replay import Replay, Replayed
from aglowd.store.decided import journal_of
from aglowd.wiring import handler_kinds, load_files, shown_to_templates
from tests.virtual.day import live
from tests.virtual.loop import VirtualLoop
from tests.virtual.script import write_script
from tests.virtual.setup import ORIGIN

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

SEED = 2
FOREVER = 1e12
DAY_S = 86_400.0


class Lived:
    """A world's days that are over: its configuration, and a copy of its database."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.config, self.journal = directory, directory / "aglowd.toml", directory / "copy.db"

    def again(self, *changed: Any, seed: int | None = None, most: int | None = None, **shown: Any) -> Replayed:
        loaded = load_files(self.config)
        handlers = handler_kinds() | {one.kind: one for one in changed}
        digests = {name: pipeline.digest for name, pipeline in loaded.pipelines.items()}
        with journal_of(self.journal) as db:
            means = Means(handlers, digests, {**shown_to_templates(loaded.config), **shown})
            return Replay(db, means, loaded.config.clock.rate, seed).play(0.0, FOREVER, (), most)

    def say(self, *words: str) -> tuple[int, str]:
        found = CliRunner().invoke(main, ["replay", *words, "--config", str(self.config)])
        return found.exit_code, found.output


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    directory = tmp_path_factory.mktemp("days")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    young_s, catalogue_csv._YOUNG_S = catalogue_csv._YOUNG_S, 0.0
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            verdict = runner.run(live(write_script(SEED), directory))
    finally:
        catalogue_csv._YOUNG_S = young_s
        structlog.reset_defaults()
    assert verdict.wrong == ()
    made = Lived(directory)
    for end in ("", "-wal"):
        shutil.copy(directory / "state" / f"aglowd.db{end}", f"{made.journal}{end}")
    return made


def test_every_decision_of_these_days_is_the_same(lived: Lived) -> None:
    found = lived.again()
    assert found.differences == ()
    assert (found.same, found.untold) == (found.found, {})
    assert found.found > 300


def test_none_rests_on_an_order_that_nothing_has(lived: Lived) -> None:
    for seed in (1, 2, 3):
        assert lived.again(seed=seed).differences == ()


def test_a_draw_is_the_same_for_the_same_seed(lived: Lived) -> None:
    class Slow(Stage):
        def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
            return super().react(step, params, Seen(seen.observations, seen.effects, seen.now + 5 * DAY_S))

    first, second, other = (lived.again(Slow(), seed=seed, most=80) for seed in (7, 7, 8))
    assert first.decisions == 80 < first.found
    assert first.differences
    assert first == second
    assert first.differences != other.differences


def test_a_handler_that_is_changed_is_found_where_it_decides_otherwise(lived: Lived) -> None:
    class Hasty(WaitTokens):
        def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
            outcome = super().react(step, params, seen)
            return Done({**outcome.outputs, "done": 0}) if isinstance(outcome, Done) else outcome

    found = lived.again(Hasty())
    assert found.different > 0
    assert {one.step for one in found.differences} <= {"solve_wait", "target_wait", "target2_wait"}
    assert all(one.would == "done: done = 0" for one in found.differences)
    assert found.same + found.different == found.found


def test_a_configuration_that_is_changed_is_found_where_it_counts(lived: Lived) -> None:
    shown = shown_to_templates(load_files(lived.config).config)
    sites = {name: {**site, "results": "gsiftp://elsewhere/results"} for name, site in shown["sites"].items()}
    found = lived.again(sites=sites, route=sites)
    assert found.different > 0
    assert any("gsiftp://elsewhere/results" in one.would for one in found.differences)


def test_the_command_tells_it(lived: Lived) -> None:
    code, said = lived.say("2017-07-14", "--journal", str(lived.journal))
    assert code == 0, said
    assert " 0 different, 0 untold\n" in said
    assert said.startswith("2017-07-14: ")
    code, said = lived.say(
        "2017-07-14T12:00:00Z", "--journal", str(lived.journal), "--seed", "3", "--most", "5", "--json"
    )
    answer = json.loads(said)
    jsonschema.validate(answer, json.loads(Schemas(shapes()).get("replayed") or b""))
    assert (code, answer["day"], answer["decisions"], answer["seed"]) == (0, "2017-07-14", 5, 3)
    assert ORIGIN // DAY_S * DAY_S == 1_499_990_400.0, "the day of the world's beginning is 2017-07-14"


def test_a_difference_is_one_line_and_the_exit_code_says_that_there_is_one(lived: Lived) -> None:
    text = lived.config.read_text(encoding="utf-8")
    other = lived.directory / "other.toml"
    other.write_text(text.replace("/results/sara", "/elsewhere/sara"), encoding="utf-8")
    shown = []
    for day in ("2017-07-14", "2017-07-15"):
        found = CliRunner().invoke(
            main, ["replay", day, "P22*", "--journal", str(lived.journal), "--config", str(other)]
        )
        shown += found.output.splitlines()
        assert found.exit_code in (0, 1)
    lines = [line for line in shown if "would be" in line]
    assert lines
    assert all(" P22Hetdex04 P22Hetdex04-1/" in line and "was " in line for line in lines)


def test_what_cannot_be_decided_again_is_refused_in_words(lived: Lived, tmp_path: Path) -> None:
    junk = tmp_path / "junk.db"
    junk.write_text("no database", encoding="utf-8")
    code, said = lived.say("2017-07-14", "--journal", str(junk))
    assert (code, "is no backup" in said) == (75, True), said
    code, said = lived.say("2017-07-14", "--journal", str(tmp_path / "none.db"))
    assert (code, "is no file" in said) == (75, True), said
    code, said = lived.say("2017-07-14", "--journal", str(tmp_path / ("x" * 300)))
    assert (code, "is no backup: " in said) == (75, True), said
    code, said = lived.say("2017-07-14", "--journal", str(lived.directory / "state" / "aglowd.db"))
    assert (code, "is the database of aglowd itself" in said) == (75, True), said
    code, said = lived.say("2011-01-01", "--journal", str(lived.journal))
    assert (code, said) == (0, "2011-01-01: nothing was decided, so nothing is different\n")
    code, said = lived.say("someday", "--journal", str(lived.journal))
    assert (code, "today or yesterday" in said) == (2, True), said
    code, said = lived.say("999999w", "--journal", str(lived.journal))
    assert (code, "'999999w' is no day that has a date" in said) == (2, True), said
    code, said = lived.say("2017-07-14", "--journal", str(lived.journal), "--most", "3")
    assert (code, "--seed" in said) == (2, True), said
    code, said = lived.say("2017-07-14")
    assert (code, "name a backup with --journal FILE" in said) == (3, True), said


@pytest.mark.parametrize("nobody", ["nobody", "Z*", ""])
def test_a_name_that_stands_for_nothing_is_refused_whatever_stands_beside_it(lived: Lived, nobody: str) -> None:
    for beside in ((), ("P22Hetdex04",)):
        for day in ("2017-07-14", "2011-01-01"):
            code, said = lived.say(day, *beside, nobody, "--journal", str(lived.journal))
            assert (code, f"there is no field {nobody!r}; see aglowctl fields" in said) == (2, True), said
    code, said = lived.say("2011-01-01", "P22Hetdex04", "--journal", str(lived.journal))
    assert (code, "nothing was decided" in said) == (0, True), said


def test_the_names_are_those_of_the_fields_that_are_meant(lived: Lived) -> None:
    def decisions(*fields: str) -> int:
        said = lived.say("2017-07-14", *fields, "--journal", str(lived.journal), "--json")[1]
        return int(json.loads(said)["decisions"])

    assert 0 < decisions("P22Hetdex04") == decisions("P22Hetdex04", "P22Hetdex0[4]") < decisions()


def test_who_may_not_read_a_file_is_told_by_the_code_of_that_file(
    lived: Lived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # Root may read everything, others may not.
    (tmp_path / "aglowd.toml").mkdir()
    found = CliRunner().invoke(main, ["replay", "today", "--config", str(tmp_path / "aglowd.toml")])
    assert (found.exit_code, "cannot be read" in found.output) == (78, True), found.output
    (tmp_path / "junk.db").touch()
    code, said = lived.say("2017-07-14", "--journal", str(tmp_path / "junk.db"))
    assert (code, "junk.db is " in said) == (75, True), said


def test_the_copy_is_left_as_it_is(lived: Lived) -> None:
    before = [(path, path.read_bytes()) for path in sorted(lived.directory.glob("copy.db*"))]
    lived.say("2017-07-14", "--journal", str(lived.journal))
    assert [(path, path.read_bytes()) for path in sorted(lived.directory.glob("copy.db*"))] == before
