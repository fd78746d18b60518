"""Exact conditional tests (Fisher, 1935; Mantel and Haenszel's strata): is something worse here than elsewhere?"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stratum:
    """Units that are alike: so many of them here, and of these so many bad; the same elsewhere."""

    here: int
    bad_here: int
    elsewhere: int
    bad_elsewhere: int


def chance(strata: Iterable[Stratum]) -> float:
    """The probability that so many of the bad ones, or more, are here, if it made no difference where a unit is: within
    each stratum they fall as if drawn by lot. 1 where nothing could tell."""
    counts = [1.0]
    seen = 0
    for stratum in strata:
        bad = stratum.bad_here + stratum.bad_elsewhere
        if not (stratum.here and stratum.elsewhere and bad):
            continue
        seen += stratum.bad_here
        counts = _convolved(counts, _hypergeometric(stratum.here, stratum.elsewhere, bad))
    return min(1.0, math.fsum(counts[seen:]))


def binomial_tail(count: int, of: int, rate: float) -> float:
    """The probability of at least `count` of `of`, each with this rate."""
    if count <= 0:
        return 1.0
    if rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    logs = (_log_choose(of, k) + k * math.log(rate) + (of - k) * math.log1p(-rate) for k in range(count, of + 1))
    return min(1.0, math.fsum(math.exp(each) for each in logs))


def _hypergeometric(here: int, elsewhere: int, bad: int) -> list[float]:
    """How likely each number of the bad ones is to be here, from none on."""
    total = _log_choose(here + elsewhere, bad)
    return [
        math.exp(_log_choose(here, k) + _log_choose(elsewhere, bad - k) - total) if bad - k <= elsewhere else 0.0
        for k in range(min(here, bad) + 1)
    ]


def _log_choose(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)


def _convolved(one: list[float], other: list[float]) -> list[float]:
    made = [0.0] * (len(one) + len(other) - 1)
    for i, p in enumerate(one):
        if p > 0.0:
            for j, q in enumerate(other):
                made[i + j] += p * q
    return made
