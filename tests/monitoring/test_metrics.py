"""Metrics without a node: histograms, the queue's numbers, and the text that Prometheus reads."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.api.scrape_token import scrape_token
from mesh.measures import ApiMeasures, Histogram
from mesh.monitoring.exposition import exposed
from mesh.scheduler.feasibility import Need
from mesh.scheduler.waiting import Waiting
from mesh.state.ledger import Ledger
from mesh.state.model import Task
from mesh.views.metrics import Family, band_names, by, counted_families, histogram, queue_families
from protocols.errors import UsageError
from tests.state.state_builder import ALICE, Builder


def samples(families: list[Family]) -> dict[tuple[str, str], float]:
    """(sample's name, its one label's value) -> value, read back by the library's own parser."""
    text, _ = exposed(families, "text/plain")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_value_on_a_bound_is_within_it() -> None:
    made = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        made.observe(value)
    assert made.cumulative() == [(1.0, 2), (2.0, 4), (float("inf"), 5)]
    told = samples([histogram("mesh_x_seconds", "x", made)])
    assert told["mesh_x_seconds_bucket", "2"] == 4
    assert told["mesh_x_seconds_bucket", "+Inf"] == told["mesh_x_seconds_count", ""] == 5
    assert told["mesh_x_seconds_sum", ""] == 14.0


def test_methods_and_openmetrics() -> None:
    api = ApiMeasures()
    api.answered("GET", 200, 0.001)
    api.answered("BREW", 405, 0.001)
    assert dict(api.requests) == {("GET", 200): 1, ("other", 405): 1}
    text, content_type = exposed([by("counter", "mesh_x", "x", "a", [('"\\\n', 1.0)])], "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert b'mesh_x_total{a="\\"\\\\\\n"} 1.0' in text


def test_the_queue_by_band_and_reason() -> None:
    assert band_names()[0] == "0-9"
    assert band_names()[-1] == "90-100"
    builder = Builder()
    run = builder.running(Task(0, 6), priority=100)
    builder.grant(run.id, ALICE, Task(0, 2))
    builder.submit(nonce=b"later", priority=7)
    waiting = [
        Waiting(run.id, "gpu", 2, 1.0, (), wanted=Need("gpu")),
        Waiting(run.id, "", 1, 1.0, (), is_busy=True),
    ]
    told = samples(queue_families(builder.state, waiting, 2, 160.0))
    assert told["mesh_queue_tests", "90-100"] == 4
    assert told["mesh_leased_tests", "90-100"] == 2
    assert told["mesh_queue_oldest_seconds", "0-9"] == told["mesh_queue_oldest_seconds", "90-100"] == 60
    assert told["mesh_queue_oldest_seconds", "50-59"] == 0
    assert [told["mesh_waiting_tests", reason] for reason in ("slot", "worker", "hosts", "held", "other")] == [
        1, 2, 0, 0, 1,
    ]  # fmt: skip
    assert told["mesh_open_runs", "running"] == told["mesh_open_runs", "queued"] == 1
    assert (told["mesh_workers", ""], told["mesh_open_leases", ""]) == (2, 1)
    assert samples(counted_families(Ledger()))["mesh_tests_total", "xpassed"] == 0


def test_the_token_is_made_once_or_given(tmp_path: Path) -> None:
    made = scrape_token(tmp_path)
    assert scrape_token(tmp_path) == made
    assert len(made) >= 32
    assert (tmp_path / "metrics.token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "metrics.token").write_text("one-for-the-whole-lab\n")
    assert scrape_token(tmp_path) == "one-for-the-whole-lab"
    for wrong in ("", "short", "two words of it here", "\xe4" * 20):
        (tmp_path / "metrics.token").write_text(wrong)
        with pytest.raises(UsageError, match=r"metrics\.token"):
            scrape_token(tmp_path)
