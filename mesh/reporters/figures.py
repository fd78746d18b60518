"""What several reports tell in numbers: the slowest tests, and how the work was shared out."""

from dataclasses import dataclass
from typing import Any

from mesh.reporters.model import BAD, Report


@dataclass(slots=True)
class Share:
    """What one worker did."""

    name: str
    tests: int = 0
    bad: int = 0
    seconds: float = 0.0
    """Of tests, over all its slots."""


def slowest(report: Report, most: int) -> list[dict[str, Any]]:
    """Entries of the tests that took longest, by their verdicts' attempts; reused verdicts took nothing."""
    ran = [entry for entry in report.tests if not entry.get("reused")]
    return sorted(ran, key=lambda entry: (-entry["duration"], entry["test"]))[:most]


def by_worker(report: Report) -> list[Share]:
    """Who has most first."""
    shares: dict[str, Share] = {}
    for entry in report.tests:
        if entry.get("reused") or not entry["worker"]:
            continue
        share = shares.setdefault(entry["worker"], Share(report.host(entry["worker"])))
        share.tests += 1
        share.bad += entry["outcome"] in BAD
        share.seconds += entry["duration"]
    return sorted(shares.values(), key=lambda share: (-share.tests, share.name))
