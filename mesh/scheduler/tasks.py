"""Sharding: a manifest's tests as tasks.

A task is contiguous, of one scope and one requirement, its tests wait for the same others, and it is small enough to
be a unit of balance: where history tells, at most `TASK_SECONDS_MAX`, so that a long test stands alone and can go
first; so does one that contends with others. The plan splits tasks further when the end of a run asks for it; it never
joins them.
Rejected: one task a test (a million-test run would be a million
decisions), one task a module (the longest module would bound the run).
"""

from mesh.scheduler.durations import Estimates
from mesh.state.model import Task
from protocols.manifests import Manifest

TASK_TESTS_MIN = 64
"""A task may have this many tests; in manifests beyond `TASKS_AIM` times that, more."""
TASKS_AIM = 4_096
TASK_SECONDS_MAX = 2.0


def shard(manifest: Manifest, estimates: Estimates) -> tuple[Task, ...]:
    """A partition of the manifest's tests, in order; `estimates` has one entry for each."""
    tests_max = max(TASK_TESTS_MIN, len(manifest.tests) // TASKS_AIM)
    tasks = []
    first = 0
    seconds = 0.0
    cuts = {edge for one in manifest.dependencies for edge in (one.first, one.first + one.count)}
    for index, test in enumerate(manifest.tests):
        before = manifest.tests[first]
        expected = estimates[index]
        if index > first and (
            (test.scope, test.requirement) != (before.scope, before.requirement)
            or index in cuts
            or index - first >= tests_max
            or index in estimates.contending
            or first in estimates.contending
            or (estimates.known and seconds + expected > TASK_SECONDS_MAX)
        ):
            tasks.append(Task(first, index - first, before.requirement))
            first, seconds = index, 0.0
        seconds += expected
    if manifest.tests:
        tasks.append(Task(first, len(manifest.tests) - first, manifest.tests[first].requirement))
    return tuple(tasks)
