"""Tests that pass no longer: many at once, or one that can't make up its mind.

Only what passed before counts, test by test: a run of the tests that failed last (`mesh retry`) is no jump, and a suite
with a known bad corner has no alert for it. What is compared with is the second worst of the project's past runs, so
that one broken commit long ago does not hide the next.
"""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mesh.anomalies.exact import binomial_tail
from mesh.anomalies.rules import Rules
from mesh.anomalies.story import Story
from mesh.state.past import BAD, GOOD, flips_of
from protocols.ids import PeerId

RUNS_MIN = 3
"""Before a run, to say that it is unlike them."""
CHANCE = 1e-3
"""That so many failures come about at the rate of before."""
WORSE = 2.0
"""Times the rate of before."""

TROUBLED = 3
"""A run with so many bad tests more than twice the usual number had a trouble of its own: it makes no test flaky."""
FLAKY_RUNS = 20
QUIET_RUNS = 10
"""After which a test that did not flip is flaky no longer."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Tests that were good in their last run and are bad now; of how many that were good."""

    tests: tuple[str, ...]
    of: int
    before: float
    """The rate in the second worst of the runs before."""


def newly_bad(story: Story, past: Sequence[Story], without: Collection[PeerId] = ()) -> tuple[list[str], int]:
    """Tests that were good when they last ran (`past`: the newest first), and are bad; of how many that were good."""
    bad: list[str] = []
    of = 0
    for test, row in story.rows.items():
        if row.worker in without:
            continue
        last = next((seen.rows[test] for seen in past if test in seen.rows), None)
        if last is not None and last.kind == GOOD:
            of += 1
            if row.kind == BAD:
                bad.append(test)
    return bad, of


def jump(rules: Rules, story: Story, past: Sequence[Story], without: Collection[PeerId] = ()) -> Jump | None:
    """Whether failures jump in a run; `without`: hosts that are to blame themselves."""
    if len(past) < RUNS_MIN:
        return None
    bad, of = newly_bad(story, past, without)
    if len(bad) < rules.failures_least or len(bad) < rules.failures_rate * of:
        return None
    rates = []
    total = 0
    for place in range(len(past) - 1):
        before, base = newly_bad(past[place], past[place + 1 :])
        if base:
            rates.append(len(before) / base)
            total += base
    usual = sorted(rates)[-2] if len(rates) > 1 else 0.0
    if len(bad) < WORSE * usual * of or binomial_tail(len(bad), of, max(usual, 1 / (total + 2))) > CHANCE:
        return None
    return Jump(tuple(sorted(bad)), of, usual)


def calm(rules: Rules, story: Story, past: Sequence[Story]) -> bool:
    """Whether a jump is over: of the tests that usually pass, few are bad, in a run of most of the tests."""
    usual = {
        test
        for test in {test for seen in past for test in seen.rows}
        if 2 * sum(seen.rows[test].kind == BAD for seen in past if test in seen.rows)
        < sum(test in seen.rows for seen in past)
    }
    ran = [row for test, row in story.rows.items() if test in usual]
    bad = sum(row.kind == BAD for row in ran)
    return 2 * len(ran) >= len(usual) and (bad < rules.failures_least or bad < rules.failures_rate * len(ran) / 2)


@dataclass(frozen=True, slots=True)
class Flaky:
    test: str
    flips: int
    retried: int
    """Runs in which it passed only when it was tried again."""
    runs: int


def flaky_tests(
    rules: Rules, story: Story, past: Sequence[Story], without: Collection[PeerId] = ()
) -> tuple[list[Flaky], list[str]]:
    """Tests that are flaky, and showed it in this run, the worst first; and those that have been steady for long."""
    most = TROUBLED + 2 * statistics.median(one.bad for one in (story, *past[: FLAKY_RUNS - 1]))
    if story.bad >= most:
        return [], []
    every = [story, *(one for one in past[: FLAKY_RUNS - 1] if one.bad < most)]
    found: list[Flaky] = []
    fine: list[str] = []
    for test in story.rows:
        ran = [one for one in every if test in one.rows and one.rows[test].worker not in without]
        if not ran or ran[0] is not story:
            continue
        kinds = [one.rows[test].kind for one in ran]
        retried = [test in one.flaky for one in ran]
        flips = flips_of(kinds)
        shows = retried[0] or kinds[:1] != kinds[1:2]
        if shows and (flips >= rules.flaky_flips or sum(retried) >= rules.flaky_retries):
            found.append(Flaky(test, flips, sum(retried), len(kinds)))
        elif len(kinds) >= QUIET_RUNS and len(set(kinds[:QUIET_RUNS])) == 1 and not any(retried[:QUIET_RUNS]):
            fine.append(test)
    found.sort(key=lambda one: (-one.flips - one.retried, one.test))
    return found, fine
