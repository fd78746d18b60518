"""From when on something is told: thresholds, each with its unit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """What `[tool.mesh.alerts.rules]` may set. Times in seconds."""

    slow_factor: float = 3.5
    """A test is slow when it takes so many times as long as it used to,"""
    slow_seconds: float = 1.0
    """and so much longer."""
    failures_rate: float = 0.03
    """Failures jump when so large a part of the tests that passed before fails,"""
    failures_least: int = 3
    """and so many of them do."""
    flaky_flips: int = 5
    """A test is flaky when it changed between good and bad so often in its last runs,"""
    flaky_retries: int = 2
    """or passed only when it was tried again in so many of them."""
    host_chance: float = 0.01
    """A host is bad when its failures have at most this chance to be one."""
    flaps: int = 3
    """A node flaps when it went away and came back so often"""
    flap_seconds: float = 900.0
    """within this time."""
    disk_bytes: int = 2 * 2**30
    """A disk is full when a node has less than this left."""
    queue_seconds: float = 600.0
    """A run waits too long when nothing of it has been with a worker for this long."""
    replicas_seconds: float = 600.0
    """Content lacks copies when it has done so for this long."""
    quorum_seconds: float = 30.0
    """A mesh is without a quorum when nobody has led it for this long."""
    quarantine: bool = False
    """Whether a bad host gets no more tests,"""
    quarantine_seconds: float = 3_600.0
    """and for how long."""


RUNS_JUDGED_BY = 20
"""Of a project, the newest before a run."""
