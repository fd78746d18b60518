"""A state of a million verdicts: what it takes to make one from a snapshot or from the log, to keep it, and to make a
snapshot of it while the mesh goes on.

Seconds are given twice, of the clock and of the processor: on a shared machine only the second can be compared.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trio

from mesh.consensus import Consensus
from mesh.disk.log import RaftDisk
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import capture, encode_state, encode_steps
from protocols.codec import decode, encode
from protocols.commands import COMMANDS, Collected, Command, Complete, Found, Grant, Register, Submit, TaskRange
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import RunSpec
from protocols.raft import Configuration, Entry, EntryKind, HardState, Snapshot
from tests.fakes.network import Lan

ME = PeerId("12D3KooWBenchmarkOfOneVoterThatServesAMillionVerdicts1")
MESH = "1000.benchmark"
TASK_TESTS = 64
LEASE_TESTS = 2048
WORKERS = 50
TAIL_ENTRIES = 2000
"""After the snapshot, in the log of the node that starts."""
OUTCOMES = bytes([0] * 97 + [1, 2, 3])


class Clock:
    """Wall and processor seconds of a `with` block."""

    def __enter__(self) -> "Clock":
        self._wall, self._processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.processor = time.process_time() - self._processor

    def __str__(self) -> str:
        return f"{self.wall:.2f} s ({self.processor:.2f} s of processor)"


def commands(tests: int, per_completion: int) -> Iterator[Command]:
    """A log in which one run of `tests` tests is submitted, collected, granted and completed."""
    peers = [PeerId(f"12D3KooW{number:044d}") for number in range(WORKERS)]
    yield Found(MESH)
    for peer in peers:
        yield Register(peer, f"host-{peer[-2:]}", 1, 8)
    submitted = 1 + len(peers) + 1
    spec = RunSpec(bundle=Cid("bafybundle"), name="suite", project="suite", submitter=peers[0])
    yield Submit(b"n" * 16, spec, 1000.0)
    yield Grant(submitted, peers[0], 1, ())  # type: ignore[arg-type]
    tasks = tuple(TaskRange(first, min(TASK_TESTS, tests - first)) for first in range(0, tests, TASK_TESTS))
    yield Collected(submitted + 1, Cid("bafkmanifest"), tests, tasks)  # type: ignore[arg-type]
    index = submitted + 2
    rng = random.Random(1)
    for number, first in enumerate(range(0, tests, LEASE_TESTS)):
        end = min(first + LEASE_TESTS, tests)
        yield Grant(submitted, peers[number % WORKERS], 1, tasks[first // TASK_TESTS : -(-end // TASK_TESTS)])  # type: ignore[arg-type]
        index += 1
        lease = index
        for start in range(first, end, per_completion):
            indexes = tuple(TestIndex(test) for test in range(start, min(start + per_completion, end)))
            outcomes = bytes(rng.choices(OUTCOMES, k=len(indexes)))
            durations = tuple(rng.randrange(1, 10_000_000) for _ in indexes)
            yield Complete(lease, Cid(f"bafkreigh2akiscaildc{start:039d}"), indexes, outcomes, durations)  # type: ignore[arg-type]
            index += 1


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prepare(folder: Path, tests: int, per_completion: int, snapshot: bool) -> None:
    """The disk of a node: all in a snapshot but for a tail of entries, or all in entries."""
    encoded = [encode(command) for command in commands(tests, per_completion)]
    entries = [Entry(index, 1, EntryKind.NORMAL, data) for index, data in enumerate(encoded, start=1)]
    state = CoordinatorState()
    at = max(1, len(entries) - TAIL_ENTRIES) if snapshot else 1
    for entry in entries[:at]:
        apply(state, entry.index, decode(entry.data, *COMMANDS))

    async def write() -> None:
        with RaftDisk(folder / "log.sqlite") as disk:
            await disk.save_snapshot(Snapshot(at, 1, Configuration(voters=(ME,)), encode_state(state)))
            await disk.save(HardState(1, None, len(entries)), entries[at:])

    trio.run(write)


async def _serve(disk: RaftDisk) -> tuple[Consensus, float]:
    """Until this node leads, and has applied all: then it serves."""
    async with Lan().node(ME) as network, trio.open_nursery() as nursery:
        member = Consensus(mesh=MESH, network=network, disk=disk, rng=random.Random(0))
        nursery.start_soon(member.run)
        version = 0
        while not member.is_leader:
            version = await member.wait_changed(version)
        at = time.perf_counter()
        nursery.cancel_scope.cancel()
    return member, at


def start(folder: Path) -> dict[str, float]:
    """Start on that disk, in this fresh process: seconds to serving, and what memory grew by."""
    gc.collect()
    before = resident()
    begin, processor = time.perf_counter(), time.process_time()
    with RaftDisk(folder / "log.sqlite") as disk:
        member, at = trio.run(_serve, disk)
    took, busy = at - begin, time.process_time() - processor
    run = next(iter(member.state.runs.values()))
    state, verdicts = member.state, run.done
    del member
    gc.collect()
    return {
        "seconds": took,
        "processor": busy,
        "verdicts": verdicts,
        "grown": resident() - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "index": state.applied,
    }


def hold(tests: int, per_completion: int) -> dict[str, float]:
    """Apply it all in this fresh process, with every allocation counted; then take a snapshot of it."""
    made = iter(commands(tests, per_completion))
    tracemalloc.start()
    state = CoordinatorState()
    for index, command in enumerate(made, start=1):
        apply(state, index, decode(encode(command), *COMMANDS))
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    with Clock() as capturing:
        captured = capture(state)
    longest, total, size = 0.0, 0.0, 0
    pieces = encode_steps(captured)
    while True:
        with Clock() as step:
            piece = next(pieces, None)
        if piece is None:
            break
        size += len(piece)
        longest, total = max(longest, step.processor), total + step.processor
    return {"traced": traced, "capture": capturing.processor, "longest": longest, "encode": total, "bytes": size}


def in_fresh_process(*arguments: str) -> dict[str, Any]:
    """This module's `main` with `arguments`: memory is measured in a process that did nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.replay", *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["prepare", "start", "hold"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tests", type=int, default=1_000_000)
    parser.add_argument("--per-completion", type=int, default=64)
    parser.add_argument("--entries", action="store_true")
    args = parser.parse_args(argv)
    if args.what == "prepare":
        with contextlib.suppress(FileExistsError):
            args.folder.mkdir()
        prepare(args.folder, args.tests, args.per_completion, not args.entries)
        print("{}")
    elif args.what == "start":
        print(json.dumps(start(args.folder)))
    else:
        print(json.dumps(hold(args.tests, args.per_completion)))


if __name__ == "__main__":
    main(sys.argv[1:])
