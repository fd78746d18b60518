"""The numbers behind the overview sheet."""

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.views import charts
from mesh.views.charts import Histogram, RunBar, WorkerRow


def verdict(outcome: str = "passed", duration: float = 0.01, worker: str = "a", run: str = "1") -> dict[str, Any]:
    return {"run": run, "test": "t", "outcome": outcome, "duration": duration, "worker": worker}


def test_parts_of_a_run_add_up_in_the_order_of_a_bar() -> None:
    run = {
        "run": "7",
        "name": "networkx",
        "state": "running",
        "pending": 3,
        "leased": 2,
        "done": 6,
        "counts": {"skipped": 1, "failed": 1, "passed": 4, "error": 0},
        "wall_seconds": 2.5,
    }
    assert charts.task_status({"runs": [run]}).runs == (
        RunBar(
            run="7",
            name="networkx",
            state="running",
            total=11,
            done=6,
            parts=(("passed", 4), ("failed", 1), ("skipped", 1), ("leased", 2), ("pending", 3)),
            wall_seconds=2.5,
        ),
    )


def test_newest_runs_come_first_and_the_others_are_counted() -> None:
    status = charts.task_status({"runs": [{"run": str(number)} for number in (9, 100, 20, 3, 5, 6, 7, 8, 1, 2)]})
    assert [bar.run for bar in status.runs] == ["100", "20", "9", "8", "7", "6", "5", "3"]
    assert status.hidden == 2


def test_workers_are_compared_with_the_busiest_first() -> None:
    document = {
        "nodes": [
            {"peer": "a", "name": "one", "state": "alive", "slots": 4, "busy": 1},
            {"peer": "b", "name": "two", "state": "dead", "slots": 2, "busy": 0},
            {"peer": "c", "name": "client", "state": "alive", "slots": 0, "busy": 0},
        ],
        "verdicts": [
            verdict(duration=1.0),
            verdict("error", 3.0),
            verdict("skipped", 50.0),
            verdict("failed", 0.5, "b"),
            verdict("skipped", 0.0, "vanished-peer"),
        ],
    }
    assert charts.workers(document).rows == (
        WorkerRow("a", "one", "alive", 4, 1, tests=3, failures=1, busy_seconds=4.0, median=2.0),
        WorkerRow("b", "two", "dead", 2, 0, tests=1, failures=1, busy_seconds=0.5, median=0.5),
        WorkerRow("vanished-peer", "…hed-peer", "gone", 0, 0, tests=1, failures=0, busy_seconds=0.0, median=None),
    )


def test_workers_are_bounded() -> None:
    nodes = [{"peer": f"{number:02}", "slots": 1} for number in range(50)]
    crew = charts.workers({"nodes": nodes})
    assert [row.peer for row in crew.rows] == [f"{number:02}" for number in range(charts.WORKERS_MAX)]
    assert crew.hidden == 50 - charts.WORKERS_MAX
    assert charts.workers({"nodes": nodes}, charts.WORKERS_POSTER_MAX).hidden == 50 - charts.WORKERS_POSTER_MAX


def test_histogram_has_round_bounds_around_what_is_there() -> None:
    document = {
        "verdicts": [
            verdict(duration=0.003),
            verdict(duration=0.005),
            verdict("failed", 0.0199),
            verdict("passed", 0.02),
            verdict("skipped", 100.0),
        ]
    }
    assert charts.histogram(document) == Histogram(
        edges=(0.002, 0.005, 0.01, 0.02, 0.05),
        counts=(1, 1, 1, 1),
        failures=(0, 0, 1, 0),
        median=(0.005 + 0.0199) / 2,
        p95=0.02,
    )


def test_a_single_duration_stands_among_empty_bins() -> None:
    histogram = charts.histogram({"verdicts": [verdict(duration=0.3)]})
    assert histogram is not None
    assert histogram.edges == (0.1, 0.2, 0.5, 1.0, 2.0)
    assert histogram.counts == (0, 1, 0, 0)


def test_no_histogram_without_durations() -> None:
    assert charts.histogram({}) is None
    assert charts.histogram({"verdicts": [verdict("skipped", 5.0)]}) is None


@given(st.lists(st.floats(0, 1e9, allow_nan=False), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_every_duration_has_its_bin(durations: Sequence[float]) -> None:
    histogram = charts.histogram({"verdicts": [verdict(duration=duration) for duration in durations]})
    assert histogram is not None
    edges = histogram.edges
    assert sum(histogram.counts) == len(durations)
    assert len(edges) == len(histogram.counts) + 1 >= charts.BINS_MIN + 1
    for low, high, count in zip(edges, edges[1:], histogram.counts, strict=False):
        bottom = -math.inf if low == charts.DURATION_MIN else low
        top = math.inf if high == charts.DURATION_MAX else high
        assert count == sum(bottom <= duration < top for duration in durations)


def test_overall_numbers() -> None:
    document = {
        "nodes": [
            {"peer": "a", "state": "alive", "slots": 4, "busy": 3},
            {"peer": "b", "state": "dead", "slots": 8, "busy": 8},
            {"peer": "c", "state": "suspect", "slots": 2, "busy": 0},
        ],
        "runs": [
            {"run": "1", "state": "running", "pending": 5, "leased": 5, "counts": {"passed": 80, "failed": 10}},
            {"run": "2", "state": "passed", "counts": {"passed": 5, "skipped": 20, "xfailed": 5}},
        ],
        "verdicts": [verdict(duration=duration) for duration in (1.0, 2.0, 3.0)],
    }
    numbers = charts.overall(document)
    assert (numbers.nodes, numbers.alive, numbers.slots, numbers.busy) == (3, 1, 6, 3)
    assert (numbers.runs, numbers.active, numbers.tests, numbers.done) == (2, 1, 130, 120)
    assert (numbers.passed, numbers.bad, numbers.passed_share) == (85, 10, 0.9)
    assert (numbers.median, numbers.p95, numbers.test_seconds) == (2.0, 3.0, 6.0)


def test_overall_numbers_of_nothing() -> None:
    numbers = charts.overall({"nodes": [], "runs": [], "verdicts": []})
    assert (numbers.passed_share, numbers.median, numbers.p95) == (None, None, None)
    assert numbers.tests == numbers.nodes == 0


def test_quantile_is_one_of_the_values() -> None:
    assert charts.quantile([5.0, 1.0, 3.0], 0.95) == 5.0
    assert charts.quantile(list(range(1, 101)), 0.95) == 95
