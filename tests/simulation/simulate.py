"""`make simulate SEEDS=… RIG=…`: many simulated lives, on every core of the machine, and what was done to them.

A rig is a function `run(seed) -> Outcome`: `core` and `storms` are cores only (`raft_chaos`, with and without calm
stretches), `mesh` is the real services (`mesh_chaos`). A life depends on its seed and the code alone, so that its seed
replays a failure. SEEDS is a list of `17` (that one), `0-9999` (those) and `+500` (that many, drawn afresh).
"""

import argparse
import faulthandler
import multiprocessing
import os
import secrets
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module

from tests.simulation.life import Outcome

RIGS = {
    "core": ("tests.simulation.raft_chaos", "run"),
    "storms": ("tests.simulation.raft_chaos", "storms"),
    "mesh": ("tests.simulation.mesh_chaos", "run"),
}
PROGRESS_SECONDS = 10.0
HANG_SECONDS = 120.0
"""Of real time, for one seed: then the stacks are printed."""
FRESH_SEEDS_MAX = 10**9
STORY_LINES = 60


def seeds_of(text: str) -> list[int]:
    found: list[int] = []
    for part in text.replace(" ", ",").split(","):
        if part.startswith("+"):
            base = secrets.randbelow(FRESH_SEEDS_MAX)
            found += range(base, base + int(part))
        elif "-" in part:
            first, last = part.split("-")
            found += range(int(first), int(last) + 1)
        elif part:
            found.append(int(part))
    return found


def rig_of(name: str) -> Callable[[int], Outcome]:
    module, function = RIGS[name]
    run: Callable[[int], Outcome] = getattr(import_module(module), function)
    return run


def live(job: tuple[str, int]) -> tuple[int, Outcome | None, str]:
    """In a process of its own: (seed, what came of it, the failure's text)."""
    rig, seed = job
    faulthandler.dump_traceback_later(HANG_SECONDS)
    try:
        outcome = rig_of(rig)(seed)
    except Exception as error:
        return seed, None, "".join(traceback.format_exception(error))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return seed, Outcome(outcome.node_seconds, outcome.faults), ""  # a story is of no use to those who count


class Tally:
    def __init__(self, rig: str) -> None:
        self.rig = rig
        self.seeds = 0
        self.node_seconds = 0.0
        self.faults: Counter[str] = Counter()
        self.start = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.node_seconds += outcome.node_seconds
        self.faults += outcome.faults

    def line(self) -> str:
        hours, minutes = self.node_seconds / 3600, (time.monotonic() - self.start) / 60
        return (
            f"{self.rig}: {self.seeds} seeds, {hours:.1f} simulated node-hours in {minutes:.2f} min: "
            f"{hours / minutes:.0f} node-hours a minute"
        )

    def table(self) -> Iterator[str]:
        width = max(map(len, self.faults), default=0)
        yield from (f"  {kind:<{width}}  {count:>12,}" for kind, count in sorted(self.faults.items()))


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def one(rig: str, seed: int) -> int:
    """A single seed is told in full."""
    outcome = rig_of(rig)(seed)
    print("\n".join(outcome.story[-STORY_LINES:]))
    tally = Tally(rig)
    tally.add(outcome)
    said = f"seed {seed}: {outcome.node_seconds / 3600:.2f} simulated node-hours, story {outcome.digest}"
    print(said, *tally.table(), sep="\n")
    return 0


def many(rig: str, seeds: list[int], processes: int) -> int:
    print(f"{rig}: seeds {seeds[0]} to {seeds[-1]} at {commit()}, {processes} processes", flush=True)
    tally = Tally(rig)
    told = tally.start
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for seed, outcome, failure in pool.imap_unordered(live, ((rig, seed) for seed in seeds)):
            if outcome is None:
                print(
                    failure, f"seed {seed} failed at {commit()}; replay: make simulate RIG={rig} SEEDS={seed}", sep="\n"
                )
                return 1
            tally.add(outcome)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                print(tally.line(), flush=True)
    print(tally.line(), *tally.table(), sep="\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="simulated lives of a mesh")
    parser.add_argument("seeds", help="17, 0-9999, +500 (fresh ones), or several of them")
    parser.add_argument("--rig", choices=sorted(RIGS), default="core")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seeds = seeds_of(options.seeds)
    if len(seeds) == 1:
        return one(options.rig, seeds[0])
    return many(options.rig, seeds, options.processes)


if __name__ == "__main__":
    sys.exit(main())
