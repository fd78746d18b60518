"""`make bench-memory`: what a run of 100,000 tests adds to the memory of its coordinator, and of its worker.

Two nodes, one that only coordinates and one that only works. A small run goes before, so that whatever the first run
loads is not counted. `peak` is the most that a node's process had at any time while the large one went on (VmHWM),
`after` what it has when that has ended.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.measures import load, machine
from benchmarks.runner import cpu_of
from benchmarks.suites import TRIVIAL
from tests.processes.lab import lab

GOAL_MB = 100


def memory(pid: int, field: str) -> float:
    """MB of a process, as /proc names them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=100_000)
    tests = parser.parse_args().tests
    print(machine(Path(tempfile.gettempdir())))
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name, lab(Path(name)) as made:
        made.start("coordinates", "--role", "coordinator")
        made.start("works", "--role", "worker", "--join", made.ticket("coordinates"), slots=2)
        roots = {count: made.suite(str(count), TRIVIAL.format(count)) for count in (100, tests)}
        made.mesh("run", str(roots[100]), home="coordinates")
        pids = {node: process.pid for node, process in made.nodes.items()}
        before = {node: (memory(pid, "VmRSS"), cpu_of(pid)) for node, pid in pids.items()}
        for pid in pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        made.mesh("run", str(roots[tests]), home="coordinates")
        for node, pid in pids.items():
            rest, cpu = before[node]
            peak = memory(pid, "VmHWM")
            goal = f", goal: under {GOAL_MB} for 100,000" if node == "coordinates" else ""
            print(f"{node}: {rest:.0f} MB before, {memory(pid, 'VmRSS'):.0f} MB after {tests:,} tests")
            each = 1e3 * (cpu_of(pid) - cpu) / tests
            print(f"  added at the peak: {peak - rest:.0f} MB{goal}; CPU {each:.3f} ms a test")
        print(load())
    return 0


if __name__ == "__main__":
    sys.exit(main())
