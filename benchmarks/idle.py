"""`make bench-idle`: how much of a run its slots stand idle, on three nodes of this host with 1, 1 and 2 slots.

The tests sleep, so that two cores are enough for it, and for longer on slower nodes (`SPEEDS`, told to the nodes as a
label). A run of the same suite before it, the *first* one, makes the durations known; there they are guessed. Of each
slot: the time without a test, from the run's first start to the start of its last test anywhere, the time to the first
test included.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measures import load, machine
from tests.processes.lab import Lab, lab

SLOTS = {"a": 1, "b": 1, "c": 2}
SPEEDS = {"a": 1.0, "b": 0.7, "c": 1.4}
IDLE_MAX = 0.05
ROUNDS = 3
SUITES = {
    "short": "[0.05] * 1000",
    "mixed": "[0.05 * (1 + n % 40) for n in range(200)]",
    "long": "[1.0 + 0.25 * (n % 17) for n in range(60)]",
}
"""Seconds of each test on a node of speed 1."""
TEXT = """
import os, time
import pytest

@pytest.mark.parametrize("seconds", {seconds})
def test_sleeps(seconds):
    time.sleep(seconds / float(os.environ["BENCH_SPEED"]))
"""


def idle(folder: Path) -> list[float]:
    """Of each slot, by a run's report: the part of its time without a test."""
    slots: dict[tuple[str, int], list[tuple[float, float]]] = {}
    lines = [line for path in (folder / "records").iterdir() for line in path.read_text().splitlines()]
    for line in lines:
        record = json.loads(line)
        slots.setdefault((record["worker"], record["slot"]), []).append((record["started"], record["duration"]))
    starts = [start for tests in slots.values() for start, _ in tests]
    first, last = min(starts), max(starts)
    return [
        1 - sum(max(0.0, min(start + seconds, last) - start) for start, seconds in tests) / (last - first)
        for tests in slots.values()
    ] + [1.0] * (sum(SLOTS.values()) - len(slots))


@dataclass(frozen=True, slots=True)
class Round:
    """One run."""

    tests: int
    seconds: float
    idle: list[float]
    """Of each slot, the least first."""


def measure(made: Lab, root: Path, out: Path) -> Round:
    finished = list(made.events("run", str(root), "--report-dir", str(out), home="a"))[-1]
    return Round(finished["tests"], finished["wall_seconds"], sorted(idle(out)))


def show(name: str, rounds: list[Round]) -> None:
    slots = zip(*(one.idle for one in rounds), strict=True)
    told = "  ".join(f"{statistics.median(parts):>6.1%}" for parts in slots)
    seconds = statistics.median(one.seconds for one in rounds)
    print(f"{name:<14} {rounds[0].tests:>6} {seconds:>6.1f} s  {told}    {load()}", flush=True)


def main() -> int:
    print(machine(Path(tempfile.gettempdir())))
    print(f"{'suite':<14} {'tests':>6} {'run':>8}  idle by slot, medians of {ROUNDS} (goal: none over {IDLE_MAX:.0%})")
    with tempfile.TemporaryDirectory() as name, lab(Path(name)) as made:
        made.variables = {node: {"BENCH_SPEED": str(speed)} for node, speed in SPEEDS.items()}
        made.start("a", "--label", f"speed={SPEEDS['a']}", slots=SLOTS["a"])
        for node in ("b", "c"):
            ticket = made.ticket("a")
            made.start(node, "--label", f"speed={SPEEDS[node]}", "--join", ticket, slots=SLOTS[node])
        made.agreed(*SLOTS)
        for suite, seconds in SUITES.items():
            root = made.suite(suite, TEXT.format(seconds=seconds))
            rounds = [measure(made, root, made.folder / f"{suite}-{number}") for number in range(1 + ROUNDS)]
            show(f"{suite}, first", rounds[:1])
            show(suite, rounds[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
