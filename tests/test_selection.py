"""Which fields are taken next: limits, priorities, balance, and that nobody waits for ever."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aglowd.selection import Candidate, Limits, Verdict, select

SITES = ("sara", "juelich", "poznan")
PRIORITIES = st.tuples(st.integers(-1, 2), st.integers(-1, 2))
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.just(""),
        priority=PRIORITIES,
        site=st.sampled_from((*SITES, "", "elsewhere")),
        hindrance=st.sampled_from(("", "", "", "paused")),
        problem=st.sampled_from(("", "", "", "5 columns")),
    ),
    max_size=30,
).map(lambda listed: [msgspec.structs.replace(one, name=f"P{number}") for number, one in enumerate(listed)])
RUNNING = st.dictionaries(st.sampled_from((*SITES, "")), st.integers(0, 5))
LIMITS = st.builds(
    Limits, total=st.integers(1, 12), sites=st.fixed_dictionaries({site: st.integers(1, 6) for site in SITES})
)


def taken(verdicts: tuple[Verdict, ...]) -> list[str]:
    return [verdict.name for verdict in verdicts if verdict.is_taken]


@given(CANDIDATES, RUNNING, LIMITS)
def test_no_limit_is_exceeded_and_nobody_is_taken_who_must_not_be(
    candidates: list[Candidate], running: dict[str, int], limits: Limits
) -> None:
    verdicts = select(candidates, running, limits)
    assert sorted(verdict.name for verdict in verdicts) == sorted(one.name for one in candidates), "each once"
    by_name = {one.name: one for one in candidates}
    used = Counter(running)
    for name in taken(verdicts):
        one = by_name[name]
        used[one.site] += 1
        assert used.total() <= limits.total
        assert used[one.site] <= (limits.sites or {}).get(one.site, limits.total)
        assert min(one.priority) >= 0
        assert not one.hindrance + one.problem
        assert one.site != "elsewhere"
    for verdict in verdicts:
        assert verdict.is_taken != bool(verdict.why), "each other one says why not"
        one = by_name[verdict.name]
        is_lost = bool(one.problem) or (one.site == "elsewhere" and not one.hindrance)
        assert verdict.is_refused == is_lost


@given(CANDIDATES, RUNNING, LIMITS)
def test_whoever_is_passed_over_by_a_lower_priority_or_left_out_met_a_limit(
    candidates: list[Candidate], running: dict[str, int], limits: Limits
) -> None:
    verdicts = select(candidates, running, limits)
    by_name = {one.name: one for one in candidates}
    chosen = [by_name[name] for name in taken(verdicts)]
    assert [one.priority for one in chosen] == sorted((one.priority for one in chosen), reverse=True)
    used = Counter(running) + Counter(one.site for one in chosen)
    for verdict in verdicts:
        one = by_name[verdict.name]
        if verdict.is_taken or one.hindrance or one.problem or one.site == "elsewhere" or min(one.priority) < 0:
            continue
        at_site = (limits.sites or {}).get(one.site, limits.total)
        assert used.total() >= limits.total or used[one.site] >= at_site, "there is room, and it is left"
        lower = [other for other in chosen if other.priority < one.priority]
        assert not lower or used[one.site] >= at_site, "one of a lower priority took its place"


@given(st.lists(st.sampled_from(SITES), min_size=1, max_size=20), RUNNING, st.integers(1, 20))
def test_among_equals_the_site_with_the_fewest_comes_first(
    sites: list[str], running: dict[str, int], most: int
) -> None:
    candidates = [Candidate(f"P{number}", site=site) for number, site in enumerate(sites)]
    used, left = Counter(running), list(candidates)
    for name in taken(select(candidates, running, Limits(most))):
        (one,) = (one for one in left if one.name == name)
        assert used[one.site] == min(used[other.site] for other in left)
        assert one is next(other for other in left if used[other.site] == used[one.site]), "as the catalogue has them"
        used[one.site] += 1
        left.remove(one)


@given(CANDIDATES, st.integers(1, 3))
def test_balance_lets_nobody_wait_for_ever(candidates: list[Candidate], most: int) -> None:
    """Runs end in turn: every field that may be taken at all is, in at most as many rounds as there are fields."""
    limits = Limits(most, dict.fromkeys(SITES, 1))
    left, running, rounds = list(candidates), list[Candidate](), 0
    while True:
        names = set(taken(select(left, Counter(one.site for one in running), limits)))
        running += [one for one in left if one.name in names]
        left = [one for one in left if one.name not in names]
        if not running:
            break
        running.pop(0)
        rounds += 1
    assert rounds <= len(candidates)
    assert all(one.hindrance or one.problem or one.site == "elsewhere" or min(one.priority) < 0 for one in left), (
        "one that could be taken never was"
    )


def test_a_site_with_nothing_but_skipped_fields_keeps_nobody_back_and_each_reason_is_told() -> None:
    candidates = [
        Candidate("skipped", (-1, 7), "juelich"),
        Candidate("second", (0, 1), "sara"),
        Candidate("first", (5, -0), "sara"),
        Candidate("third", (0, 0), "sara"),
        Candidate("moon", site="moon"),
        Candidate("paused", hindrance="it is paused"),
    ]
    assert select(candidates, {}, Limits(9, {"sara": 2, "juelich": 2})) == (
        Verdict("first", is_taken=True),
        Verdict("second", is_taken=True),
        Verdict("third", is_next=True, why="2 fields are under way at sara, and its fields_at_once is 2"),
        Verdict("skipped", why="the priority of its observation is -1: it is skipped"),
        Verdict(
            "moon",
            is_refused=True,
            why="its data lie at 'moon', which is no configured site; expected one of juelich, sara",
        ),
        Verdict("paused", why="it is paused"),
    )
    full = select([Candidate("next")], {"": 1, "sara": 2}, Limits(3))
    assert full == (Verdict("next", is_next=True, why="3 fields are under way, and max_fields is 3"),)
