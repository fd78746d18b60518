"""How long a slot may be at what it does. Pure."""

from mesh.ports import WorkItem

COLLECT_SECONDS_MAX = 900.0
"""For a whole collection, and for a slot to collect one file."""
PLUGIN_GRACE_SECONDS = 2.0
"""What pytest-timeout, where it is installed, has for a nicer end of a test that it also limits."""
TEARDOWN_SECONDS_MAX = 60.0
"""For the fixtures that outlive a test, once all tests have ended."""


def of(
    runs: bool, item: WorkItem | None, waits: bool, job_seconds: float, plugin_limits: bool
) -> tuple[float, float] | None:
    """(seconds until the slot is killed, seconds that it was allowed); None: no limit. `item`: what it `runs`, unless
    that was killed; `waits`: tests are queued in it; `job_seconds`: for a test without a limit of its own, 0: none."""
    if not runs:
        return (COLLECT_SECONDS_MAX, COLLECT_SECONDS_MAX) if waits else None
    allowed = 0.0 if item is None else item.timeout or job_seconds
    if item is None or allowed <= 0:
        return None
    nicer = plugin_limits and item.timeout not in (0.0, job_seconds)
    return allowed + PLUGIN_GRACE_SECONDS * nicer, allowed
