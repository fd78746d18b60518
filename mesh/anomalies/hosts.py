"""A host on which tests fail that pass elsewhere.

What is counted is what passed when it last ran (elsewhere, if it ever did), and does not now. That a commit broke it
is the other explanation, and a file's tests run on one host as a rule: so what is compared is, within each function
that ran on several hosts (its parameters, and tries after a bad one), the tests here with those elsewhere, and beside
them whole files, those that ran here alone with those that ran elsewhere alone. One broken file is one such unit,
however many tests it has. Both are strata of one exact test, over the newest runs together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.anomalies.exact import Stratum, chance
from mesh.anomalies.rules import Rules
from mesh.anomalies.story import Story
from mesh.state.model import NO_WORKER
from mesh.state.past import BAD, GOOD
from protocols.ids import PeerId

RUNS = 5
"""The newest ones, that are judged together."""

FUNCTIONS_MIN = 3
"""In which tests were bad here, in the newest run."""

ALL_TESTS_MIN = 6
ALL_CHANCE = 0.05
"""Where all of so many tests are bad here, and none is elsewhere, less is enough: a small suite can't say more."""

NOW_CHANCE = 0.01
"""In the newest run alone, at most: what a host did some runs ago is no reason to blame it again."""

FINE_UNITS_MIN = 5
FINE_CHANCE = 0.05
"""A host with so many units in a run, and failures that are as likely by chance, is bad no longer."""


@dataclass(frozen=True, slots=True)
class BadHost:
    peer: PeerId
    name: str
    bad: int
    """Tests that failed there in the newest run, though they passed when they last ran, or when tried elsewhere."""
    ran: int
    elsewhere: float
    """The rate of the same on the other hosts."""
    probability: float
    tests: tuple[str, ...]
    """Some of them."""


def bad_hosts(rules: Rules, story: Story, past: Sequence[Story]) -> tuple[list[BadHost], list[PeerId]]:
    """Hosts of a run that are bad, the worst first; and those that are fine now."""
    hosts = sorted({row.worker for row in story.rows.values()} | {peer for _, peer in story.tries})
    hosts = [peer for peer in hosts if peer != NO_WORKER]
    if len(hosts) < 2:
        return [], []
    runs = [_Units(one, past[place:]) for place, one in enumerate((story, *past[: RUNS - 1]))]
    found: list[BadHost] = []
    fine: list[PeerId] = []
    for peer in hosts:
        newest = runs[0].strata(peer)
        at_once = chance(newest)
        units = sum(stratum.here for stratum in newest)
        bad = sorted(runs[0].bad_at(peer))
        functions = {test.partition("[")[0] for test in bad}
        together = min(at_once, chance([stratum for run in runs for stratum in run.strata(peer)]))
        ran, others, bad_others = runs[0].sums(peer)
        all_here = len(bad) >= max(ran, ALL_TESTS_MIN) and bool(others) and not bad_others
        sure = together <= rules.host_chance / len(hosts) and at_once <= NOW_CHANCE
        if len(functions) >= FUNCTIONS_MIN and (sure or (all_here and at_once <= ALL_CHANCE)):
            rate = bad_others / others if others else 0.0
            found.append(BadHost(peer, story.name_of(peer), len(bad), ran, rate, together, tuple(bad[:10])))
        elif units >= FINE_UNITS_MIN and at_once > FINE_CHANCE:
            fine.append(peer)
    found.sort(key=lambda one: (one.probability, one.peer))
    return found, fine


class _Units:
    """One run's tests, as they can be compared between hosts."""

    def __init__(self, story: Story, past: Sequence[Story]) -> None:
        self._seen: dict[str, list[tuple[str, PeerId, bool]]] = {}
        """By function: each test, who ran it, and whether it turned bad there."""
        tried = {test for test, _ in story.tries}
        for test, row in story.rows.items():
            if row.worker == NO_WORKER:
                continue
            before = [one.rows[test] for one in past if test in one.rows]
            elsewhere = [seen for seen in before if seen.worker != row.worker]
            last = next((seen.kind for seen in elsewhere or before), None)
            if row.kind == GOOD or (row.kind == BAD and (last == GOOD or test in tried)):
                self._seen.setdefault(test.partition("[")[0], []).append((test, row.worker, row.kind == BAD))
        for test, peer in story.tries:
            if test in story.rows and story.rows[test].kind == GOOD:
                self._seen.setdefault(test.partition("[")[0], []).append((test, peer, True))

    def bad_at(self, peer: PeerId) -> set[str]:
        return {test for seen in self._seen.values() for test, host, bad in seen if bad and host == peer}

    def sums(self, peer: PeerId) -> tuple[int, int, int]:
        """(tests here, tests elsewhere, and how many of these turned bad)."""
        seen = [one for each in self._seen.values() for one in each]
        elsewhere = [bad for _, host, bad in seen if host != peer]
        return len(seen) - len(elsewhere), len(elsewhere), sum(elsewhere)

    def strata(self, peer: PeerId) -> list[Stratum]:
        """Functions that ran here and elsewhere, each a stratum; files that ran in one place alone, together one."""
        made: list[Stratum] = []
        files: dict[str, list[tuple[bool, bool]]] = {}
        """By file: of each test whose function ran in one place alone, whether that was here, and whether it is bad."""
        for function, seen in self._seen.items():
            here = [bad for _, host, bad in seen if host == peer]
            elsewhere = [bad for _, host, bad in seen if host != peer]
            if here and elsewhere:
                made.append(Stratum(len(here), sum(here), len(elsewhere), sum(elsewhere)))
            else:
                rest = files.setdefault(function.partition("::")[0], [])
                rest += [(True, bad) for bad in here] + [(False, bad) for bad in elsewhere]
        alone: list[tuple[bool, bool]] = []
        for rest in files.values():
            if len({is_here for is_here, _ in rest}) == 1:
                alone.append((rest[0][0], any(bad for _, bad in rest)))
            else:
                made.append(_once(rest))
        mine = [bad for is_here, bad in alone if is_here]
        others = [bad for is_here, bad in alone if not is_here]
        made.append(Stratum(len(mine), sum(mine), len(others), sum(others)))
        return made


def _once(rest: Sequence[tuple[bool, bool]]) -> Stratum:
    """A file whose functions ran here and there: all of them here count as one unit, and those elsewhere."""
    here = any(bad for is_here, bad in rest if is_here)
    elsewhere = any(bad for is_here, bad in rest if not is_here)
    return Stratum(1, int(here), 1, int(elsewhere))
