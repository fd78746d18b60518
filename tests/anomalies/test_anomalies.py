"""What is told of a project's runs, and what is not: on hosts as hosts are (`lab.py`), and in plain numbers."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.anomalies.exact import Stratum, binomial_tail, chance
from mesh.anomalies.meshwide import NodeSeen, RunSeen, Seen, meshwide, no_quorum
from mesh.anomalies.rules import Rules
from mesh.anomalies.slow import Durations
from mesh.anomalies.story import Row, subject_of
from mesh.state.alerts import fitted
from mesh.state.past import GOOD
from protocols.alerts import SUBJECT_CHARACTERS_MAX, AlertKind, Severity
from protocols.ids import PeerId, RunId
from tests.anomalies.lab import Lab


def told(lab: Lab, kind: AlertKind) -> list[str]:
    return [subject for about, subject in lab.active if about is kind]


@pytest.mark.parametrize("seed", [0, 1002])
def test_fifty_quiet_runs_raise_nothing(seed: int) -> None:
    """One in seventeen of such labs raises one: what befell a test there was as bad as a fault of its own."""
    lab = Lab(seed, files=24, per_file=6)
    for _ in range(50):
        assert not lab.run().findings


@pytest.mark.parametrize("seed", [3, 4])
def test_each_anomaly_is_told_within_one_run_and_over_when_it_is(seed: int) -> None:
    lab = Lab(seed, files=24, per_file=6)
    for _ in range(15):
        lab.run()
    slow = lab.slowest(seed)
    lab.slowed[slow] = 5.0
    lab.run()
    assert told(lab, AlertKind.SLOW_TEST) == [f"suite {slow}"]
    assert lab.active[AlertKind.SLOW_TEST, f"suite {slow}"].test == slow
    lab.slowed.clear()
    for _ in range(2):
        lab.run()
    assert not lab.active

    sick = lab.peers[seed % 3]
    lab.fails = lambda test, peer: peer == sick and sum(map(ord, test)) % 10 < 4
    lab.run()
    assert [kind for kind, _ in lab.active] == [AlertKind.BAD_HOST], "the host, and not its tests"
    assert told(lab, AlertKind.BAD_HOST) == [sick]
    lab.fails = lambda test, peer: False
    for _ in range(2):
        lab.run()
    assert not lab.active

    broken = ("tests/test_3.py", "tests/test_9.py", "tests/test_10.py")
    lab.fails = lambda test, peer: test.startswith(tuple(f"{file}::" for file in broken))
    lab.run()
    assert [kind for kind, _ in lab.active] == [AlertKind.FAILURES], "a commit, and no host"
    lab.run()
    assert told(lab, AlertKind.FAILURES) == ["suite"], "it is not over while they fail"
    lab.fails = lambda test, peer: False
    lab.run()
    assert not told(lab, AlertKind.FAILURES)


def test_a_test_is_not_taken_for_slow_because_it_ran_on_slow_hosts() -> None:
    """Six runs on a fast host and one that takes twice as long: one test was nearly always with the slow one."""
    lab = Lab(1, files=1, per_file=12)
    lab.run()
    fast, slow = lab.peers[:2]
    past = []
    for number in range(6):
        hosts = {name: (fast, slow)[(place + number) % 2] for place, name in enumerate(lab.names)}
        hosts[lab.names[0]] = slow if number else fast
        rows = {
            name: Row(GOOD, 2.0 if host == slow else 1.0, host, place)
            for place, (name, host) in enumerate(hosts.items())
        }
        past.append(replace(lab.past[0], rows=rows))
    durations = Durations(past)
    assert durations.medians[lab.names[0]] == pytest.approx(durations.medians[lab.names[1]])
    assert durations.of(lab.names[0]).deviations == pytest.approx([0.0] * 6)


def test_a_flaky_test_is_told_and_forgotten_when_it_is_steady() -> None:
    lab = Lab(5, files=12, per_file=4)
    for number in range(16):
        lab.fails = lambda test, peer, n=number: test == "tests/test_3.py::test_1[0]" and n % 3 == 0 and n > 3
        lab.run()
    assert [kind for kind, _ in lab.active] == [AlertKind.FLAKY_TEST]
    lab.fails = lambda test, peer: False
    for _ in range(10):
        lab.run()
    assert not lab.active


def test_a_run_of_what_failed_is_no_jump() -> None:
    """As `mesh retry` makes it: half of its tests fail again, and all of them failed before."""
    lab = Lab(6, files=12, per_file=4)
    for _ in range(4):
        lab.run()
    lab.fails = lambda test, peer: test.startswith("tests/test_3.py")
    lab.run()
    assert told(lab, AlertKind.FAILURES) == ["suite"]
    lab.active.clear()
    lab.names, lab.files = lab.names[12:16], 1
    lab.run()
    assert not told(lab, AlertKind.FAILURES)


strata = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)).map(
        lambda n: Stratum(n[0], min(n[0], n[1]), n[2], min(n[2], n[3]))
    ),
    max_size=3,
)


@given(strata)
@settings(max_examples=60, deadline=None)
def test_chances_are_those_of_counting_all_ways(strata: list[Stratum]) -> None:
    """Against brute force: every way to deal the bad ones within each stratum."""
    ways: dict[int, int] = {0: 1}
    seen = 0
    for one in strata:
        bad = one.bad_here + one.bad_elsewhere
        if one.here and one.elsewhere and bad:
            seen += one.bad_here
            dealt = {k: math.comb(one.here, k) * math.comb(one.elsewhere, bad - k) for k in range(bad + 1)}
            joined: dict[int, int] = {}
            for total, count in ways.items():
                for k, number in dealt.items():
                    joined[total + k] = joined.get(total + k, 0) + count * number
            ways = joined
    expected = sum(count for total, count in ways.items() if total >= seen) / sum(ways.values())
    assert chance(strata) == pytest.approx(expected, abs=1e-9)


def test_binomial_tails() -> None:
    assert binomial_tail(0, 5, 0.1) == 1.0
    assert binomial_tail(1, 5, 0.0) == 0.0
    assert binomial_tail(3, 5, 1.0) == 1.0
    assert binomial_tail(2, 3, 0.5) == pytest.approx(0.5)


LAB_1, LAB_2 = PeerId("12D3KooWlab1"), PeerId("12D3KooWlab2")


def seen(**changes: object) -> Seen:
    fields: dict[str, object] = {"now": 1_000.0, "nodes": (), "runs": (), "short": 0, "lost": 0, "short_for": 0.0}
    return Seen(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_is_wrong_with_the_mesh() -> None:
    rules = Rules()
    steady = NodeSeen(LAB_1, "lab-1", here=True, disk_free=50 * 2**30, returns=(10.0, 20.0, 30.0))
    flapping = NodeSeen(LAB_2, "lab-2", here=True, disk_free=2**28, returns=(900.0, 950.0, 990.0))
    gone = NodeSeen(PeerId("gone"), "gone", here=False, disk_free=0, returns=())
    found = meshwide(rules, seen(nodes=[steady, flapping, gone], short=3, lost=1, short_for=700.0))
    assert [(one.kind, one.subject, one.severity) for one in found] == [
        (AlertKind.FLAPPING_NODE, LAB_2, Severity.WARNING),
        (AlertKind.FULL_DISK, LAB_2, Severity.CRITICAL),
        (AlertKind.UNDER_REPLICATED, "content", Severity.CRITICAL),
    ]
    (queued,) = meshwide(rules, seen(runs=[RunSeen(RunId(7), "a", 700.0, "no GPU"), RunSeen(RunId(8), "b", 5.0, "")]))
    assert (queued.kind, queued.subject, queued.run, queued.detail) == (AlertKind.LONG_QUEUE, "7", 7, "no GPU")
    assert meshwide(rules, seen(short=3, short_for=5.0)) == []
    assert no_quorum(rules, 29.0, 3, 1) is None
    told = no_quorum(rules, 31.0, 3, 1)
    assert told is not None
    assert "1 of 3 voters" in told.detail


def test_findings_fit_the_log() -> None:
    rules = Rules(queue_seconds=0.0)
    (queued,) = meshwide(rules, seen(runs=[RunSeen(RunId(7), "n" * 900, 700.0, "r" * 9_000)]))
    assert len(fitted(queued).summary) <= 300
    assert len(subject_of("p", "t" * 5_000)) <= SUBJECT_CHARACTERS_MAX
    assert subject_of("p", "t" * 5_000) != subject_of("p", "t" * 5_001)
