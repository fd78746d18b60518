"""What is known of a run while it is followed: counts, failures, what runs now. Fed with events, asked by the views."""

import time
from dataclasses import dataclass, field
from typing import Any

OUTCOMES = ("failed", "passed", "skipped", "xfailed", "xpassed", "error")
"""In the order of pytest's last line."""

RUNNING_SHOWN_MAX = 64


@dataclass
class Tally:
    """`total` is None until the run is collected."""

    run: str
    total: int | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    bad: list[dict[str, Any]] = field(default_factory=list)
    """Verdicts "failed" and "error", as they came."""
    running: dict[str, str] = field(default_factory=dict)
    """Test -> worker, oldest first."""
    finished: dict[str, Any] | None = None
    began: float = field(default_factory=time.monotonic)

    def knows(self, event: dict[str, Any]) -> bool:
        """Whether it tells nothing new (a stream that is taken up begins with what is so)."""
        kind = event["event"]
        return (kind == "collected" and self.total is not None) or (kind == "started" and event["test"] in self.running)

    def feed(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "verdict":
            self.running.pop(event["test"], None)
            self.counts[event["outcome"]] = self.counts.get(event["outcome"], 0) + 1
            if event["outcome"] in ("failed", "error"):
                self.bad.append(event)
        elif kind == "started":
            self.running[event["test"]] = event["worker"]
            if len(self.running) > RUNNING_SHOWN_MAX:
                del self.running[next(iter(self.running))]
        elif kind == "collected":
            self.total = event["tests"]
        elif kind == "finished":
            self.finished = event

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began
