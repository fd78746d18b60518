"""When a member's ticks are due.

Ticks that only count are due together with the next one that may do something, or before whatever else happens, so that
an idle member sleeps. Times are seconds of any one clock.

Invariant: no tick is given early, and none is lost but those of a stall: a process that did not run must not believe in
the others' silence.
"""

from mesh.raft.options import TICK_SECONDS

CATCH_UP_TICKS_MAX = 2
"""After a stall, however long it was."""
ROUNDING_TICKS = 0.001
"""So much earlier a tick counts as due: a timer that rang rang."""


class Pace:
    def __init__(self, now: float) -> None:
        self._ticked = now
        """When the last tick was due."""
        self._planned = 1
        """Ticks until the one that may do something."""

    def plan(self, quiet_ticks: int) -> float:
        """When to look again, if so many ticks will only count and nothing else happens."""
        self._planned = 1 + quiet_ticks
        return self._ticked + self._planned * TICK_SECONDS

    def too_slow(self, quiet_ticks: int) -> bool:
        """Whether what was planned is later than what is needed now."""
        return 1 + quiet_ticks < self._planned

    def due(self, now: float) -> int:
        """How many ticks to give now."""
        elapsed = now - self._ticked
        due = int(elapsed / TICK_SECONDS + ROUNDING_TICKS)
        stalled = due > self._planned + CATCH_UP_TICKS_MAX
        self._ticked += elapsed if stalled else due * TICK_SECONDS
        self._planned = max(1, self._planned - due)
        return CATCH_UP_TICKS_MAX if stalled else due
