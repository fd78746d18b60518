"""What the model of durations learns, and what it does not let itself be told."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.scheduler.durations import DURATION_DEFAULT, ByLength, length_of
from mesh.scheduler.prediction import (
    EVIDENCE_RUNS,
    FACTOR_MAX,
    OBSERVATIONS_MAX,
    STEP_TESTS,
    Learning,
    Model,
    Record,
    by_length,
    learnt,
    weighted_median,
)
from protocols.ids import Cid, PeerId

A, B = PeerId("a"), PeerId("b")


def record(seconds: dict[str, float], workers: dict[str, PeerId] | None = None, bundle: str = "b") -> Record:
    peers = sorted({*(workers or {}).values(), A})
    ran = [peers.index((workers or {}).get(test, A)) for test in seconds]
    return Record(Cid(bundle), list(seconds), list(seconds.values()), ran, peers)


def expected(model: Model, *tests: str) -> list[float]:
    return list(model.estimates(tests))


def many(seed: int, tests: int = 800, spread: float = 0.0) -> dict[str, float]:
    """Tests from 2 ms to 1 s; with noise by seed and spread."""
    noise = random.Random(seed)
    return {
        f"m{n % 7}.py::test_{n}": 0.002 * 1.03 ** (n % 200) * noise.lognormvariate(0.0, spread) for n in range(tests)
    }


class TestLevels:
    def test_one_run_is_what_is_expected_of_the_next(self) -> None:
        model = learnt([record({"a.py::x": 2.0, "a.py::y": 0.5})])
        assert expected(model, "a.py::y", "a.py::x") == pytest.approx([0.5, 2.0])

    def test_the_likes_of_a_test_the_nearest_first(self) -> None:
        model = learnt([record({"a.py::f[1]": 1.0, "a.py::f[2]": 3.0, "a.py::g": 10.0, "b.py::h": 100.0})])
        middles = [3.0, math.sqrt(3.0), 3.0, math.sqrt(30.0)]
        assert expected(model, "a.py::f[2]", "a.py::f[9]", "a.py::new", "c.py::new") == pytest.approx(middles)
        assert model.estimates(["a.py::f[9]", "a.py::new"]).known, "half of them are known by their function"
        assert not model.estimates(["a.py::f[9]", "a.py::new", "a.py::other"]).known

    def test_nothing_known(self) -> None:
        made = learnt([]).estimates(["a", "b"])
        assert list(made) == pytest.approx([DURATION_DEFAULT] * 2)
        assert not made.known
        assert not learnt([record({"y.py::a": 1.0})]).estimates(["x.py::a", "x.py::b"]).known
        assert len(learnt([record({"a": 0.0})])) == 0, "tests without a verdict tell nothing"

    def test_a_run_of_a_part_does_not_hide_what_was_known_of_the_rest(self) -> None:
        model = learnt([record({"a.py::x": 1.0}), record({"a.py::x": 1.0, "a.py::y": 7.0})])
        assert expected(model, "a.py::y") == pytest.approx([7.0])

    def test_one_cold_cache_is_not_remembered(self) -> None:
        runs = [record({**many(seed, spread=0.05), "cold.py::x": 1.0}) for seed in range(5)]
        runs[0] = record({**many(0, spread=0.05), "cold.py::x": 40.0})
        (seconds,) = expected(learnt(runs), "cold.py::x")
        assert seconds < 1.1, "the mean would be 8.8"

    def test_a_busy_run_does_not_pass_for_slow_tests(self) -> None:
        """Half of the tests ran in a run that took thrice as long only: they are as long as the others all the same."""
        quiet = many(1)
        busy = {test: seconds * 3 for test, seconds in many(1).items()}
        part = {test: seconds for n, (test, seconds) in enumerate(quiet.items()) if n % 2}
        model = learnt([record(busy), record(part), record(part), record(part)])
        for test, seconds in quiet.items():
            assert expected(model, test)[0] == pytest.approx(seconds, rel=0.2), "not three times that"

    def test_a_test_that_became_slower_is_believed_after_some_runs(self) -> None:
        runs = [record({**many(seed, spread=0.05), "a.py::x": 5.0 if seed < 3 else 1.0}) for seed in range(5)]
        assert expected(learnt(runs), "a.py::x")[0] > 4.0

    def test_only_the_last_few_observations_count(self) -> None:
        new = [record({**many(seed, spread=0.05), "a.py::x": 1.0}) for seed in range(OBSERVATIONS_MAX)]
        old = [record({**many(9, spread=0.05), "a.py::x": 99.0})] * 3
        assert expected(learnt([*new, *old]), "a.py::x") == pytest.approx(expected(learnt(new), "a.py::x"), rel=0.05)

    def test_observations_of_another_bundle_weigh_less(self) -> None:
        def made(bundle: str) -> float:
            return expected(learnt([record({"a": 1.0}), record({"a": 4.0}, bundle=bundle)]), "a")[0]

        assert 1.0 < made("other") < made("b") < 4.0


class TestWorkers:
    @staticmethod
    def runs(number: int, slower: float, spread: float = 0.1) -> list[Record]:
        """About half of the tests on B in each run, and which half that is changes."""
        found = []
        for seed in range(number):
            seconds = many(seed, spread=spread)
            halves = random.Random(seed)
            on_b = {test: B for test in seconds if halves.random() < 0.5}
            found.append(record({t: s * (slower if t in on_b else 1.0) for t, s in seconds.items()}, on_b))
        return found

    def test_a_slow_one_is_known_after_some_runs(self) -> None:
        made = learnt(self.runs(EVIDENCE_RUNS, 4.0)).estimates(list(many(0)))
        assert made.factor(B) / made.factor(A) == pytest.approx(4.0, rel=0.15)
        assert made.factor(PeerId("new")) == 1.0
        for n, seconds in enumerate(many(0).values()):
            assert made[n] * made.factor(A) == pytest.approx(seconds, rel=0.4)

    def test_a_run_or_two_tell_nothing(self) -> None:
        made = learnt(self.runs(EVIDENCE_RUNS - 1, 4.0)).estimates(["x"])
        assert (made.factor(A), made.factor(B)) == (1.0, 1.0)

    def test_who_is_now_slower_and_now_faster_is_neither(self) -> None:
        runs = [run for n in range(3) for run in self.runs(1, 2.0 if n % 2 else 0.5)]
        assert learnt(runs).estimates(["x"]).factor(B) == 1.0

    def test_it_is_bounded(self) -> None:
        made = learnt(self.runs(6, 1e6)).estimates(["x"])
        assert made.factor(B) == pytest.approx(FACTOR_MAX)
        assert made.factor(A) == pytest.approx(1 / FACTOR_MAX)


class TestUpperEstimates:
    def test_nine_of_ten_stay_under_them(self) -> None:
        model = learnt([record(many(seed, 400, spread=0.5)) for seed in range(4)])
        actual = many(99, 400, spread=0.5)
        made = model.estimates(list(actual))
        under = sum(took <= made.high(n) for n, took in enumerate(actual.values()))
        assert 0.85 < under / len(actual) < 0.95
        assert all(made.high(n) > made[n] for n in range(len(made)))

    def test_without_noise_they_are_what_is_expected(self) -> None:
        made = learnt([record(many(0))] * 3).estimates(list(many(0)))
        assert all(made.high(n) == pytest.approx(made[n], rel=1e-5) for n in range(len(made)))

    def test_with_one_run_nothing_is_known_of_the_noise(self) -> None:
        made = learnt([record(many(0))]).estimates(list(many(0)))
        assert [made.high(n) for n in range(9)] == list(made)[:9]

    def test_in_bulk_they_are_averages(self) -> None:
        made = learnt([record(many(seed, 400, spread=0.8)) for seed in range(4)]).estimates(list(many(0, 400)))
        actual = math.fsum(many(0, 400).values()) * math.exp(0.8**2 / 2)
        bulk = made.in_bulk()
        assert made.total(0, 400) < 0.9 * actual, "medians"
        assert bulk.total(0, 400) == pytest.approx(actual, rel=0.15)
        assert bulk.known == made.known
        without = learnt([record(many(0))] * 3).estimates(list(many(0)))
        assert list(without.in_bulk()) == pytest.approx(list(without), rel=1e-5)

    def test_few_of_a_length_are_joined_by_the_lengths_next_to_it(self) -> None:
        found = {1: [1.0] * 60, 2: [2.0], 4: [4.0] * 60, 9: [9.0]}
        made = by_length(found, len)
        assert made == ByLength(1, (121, 121, 121, 121, 122, 122, 122, 122, 122))
        assert by_length({5: [5.0]}, sum) == ByLength(5, (5.0,))
        assert [made(seconds) for seconds in (0.001, 1.0, 1e9)] == [121, 121, 122], "beyond the ends, the nearest"


class TestSteps:
    def test_the_caller_has_its_turn(self) -> None:
        tests = {f"t{n}": 1.0 for n in range(3 * STEP_TESTS)}
        turns = sum(1 for _ in Learning([record(tests)] * 2))
        assert turns >= 2 * 3 + 3, "each run, and each look over the tests, in steps"

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from([f"m{n % 2}.py::f{n % 3}[{n}]" for n in range(9)]),
                st.one_of(st.floats(1e-6, 1e4), st.just(0.0), st.just(1e6)),
                max_size=9,
            ),
            max_size=7,
        )
    )
    def test_whatever_was_seen_there_is_an_estimate(self, runs: list[dict[str, float]]) -> None:
        model = learnt([record(seconds) for seconds in runs])
        made = model.estimates(["m0.py::f0[0]", "m1.py::f1[99]", "new.py::x"])
        seen = [max(seconds, 0.0001) for run in runs for seconds in run.values() if seconds > 0]
        assert len(model) == len({test for run in runs for test, seconds in run.items() if seconds > 0})
        for n in range(3):
            assert 0 < made[n] <= made.high(n) < math.inf
            if len(runs) == 1 and seen:
                assert min(seen) * 0.99 <= made[n] <= max(seen) * 1.01

    @given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=9))
    def test_a_weighted_median_is_that_of_repeated_values(self, pairs: list[tuple[int, int]]) -> None:
        repeated = sorted(value for value, weight in pairs for _ in range(weight))
        half = len(repeated) // 2
        middle = repeated[half] if len(repeated) % 2 else (repeated[half - 1] + repeated[half]) / 2
        assert weighted_median([(float(value), float(weight)) for value, weight in pairs]) == middle

    def test_lengths_are_factors_of_two(self) -> None:
        assert [length_of(seconds) - length_of(1.0) for seconds in (0.25, 0.5, 1.0, 1.9, 2.0)] == [-2, -1, 0, 0, 1]
