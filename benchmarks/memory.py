"""`make bench-memory`: what a run of 100,000 tests adds to the memory of the node that coordinates it, and works on it.

A small run goes before, so that whatever the first run loads is not counted. `peak` is the most that the node's process
had at any time while the large one went on (VmHWM), `after` what it has when that has ended.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measures import load, machine
from benchmarks.runner import cpu_of, node, ours
from benchmarks.suites import Suite

GOAL_MB = 100
TEXT = "import pytest\n\n\n@pytest.mark.parametrize('n', range({}))\ndef test_n(n):\n    assert n >= 0\n"


def memory(pid: int, field: str) -> float:
    """MB of a process, as /proc names them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=100_000)
    tests = parser.parse_args().tests
    print(machine(Path(tempfile.gettempdir())))
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name, node() as (home, pid):
        folders = {count: Path(name) / str(count) for count in (100, tests)}
        for count, folder in folders.items():
            folder.mkdir()
            (folder / "pytest.ini").write_text("[pytest]\n")
            (folder / "test_trivial.py").write_text(TEXT.format(count))
        suite = Suite("trivial")
        subprocess.run(ours(folders[100], suite, "--home", str(home)), check=True, capture_output=True)
        before, cpu = memory(pid, "VmRSS"), cpu_of(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        done = subprocess.run(ours(folders[tests], suite, "--home", str(home)), capture_output=True, text=True)
        peak, after, cpu = memory(pid, "VmHWM"), memory(pid, "VmRSS"), cpu_of(pid) - cpu
        print((done.stdout + done.stderr).strip().splitlines()[-1])
        print(f"{tests:,} tests: {before:.0f} MB before, {peak:.0f} MB at the peak, {after:.0f} MB after")
        print(f"added at the peak: {peak - before:.0f} MB (goal: under {GOAL_MB} for 100,000)")
        print(f"the node's CPU: {1e3 * cpu / tests:.2f} ms a test   ({load()})")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
