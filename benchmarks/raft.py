"""The figures of consensus, as one table: `make bench-raft`. What is measured, and how, is said in the modules."""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import commits, failover, replay
from benchmarks.measures import Table, load, machine, percentile, spread

SECTIONS = ("commits", "replay", "failover", "idle", "loaded")
BURNERS = 2
QUICK_TESTS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-raft", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few kills, small states, no waiting")
    parser.add_argument("--kills", type=int, help="coordinators killed, for 3 and for 5 voters; default 50")
    parser.add_argument("--voters", type=int, choices=(3, 5), action="append", help="of the failover; default both")
    parser.add_argument("--idle-minutes", type=float, help="default 10")
    parser.add_argument("--loaded-minutes", type=float, help="default 5")
    parser.add_argument("--tests", type=int, help="verdicts of the large state; default 1,000,000")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; may be repeated")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has PySyncObj")
    args = parser.parse_args()
    quick = args.quick
    args.kills = args.kills or (5 if quick else 50)
    args.idle_minutes = args.idle_minutes or (0.5 if quick else 10)
    args.loaded_minutes = args.loaded_minutes or (0.5 if quick else 5)
    args.tests = args.tests or (QUICK_TESTS if quick else 1_000_000)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        folder = Path(name)
        print(time.strftime("%Y-%m-%d"), machine(folder))
        for section in args.only or SECTIONS:
            place = folder / section
            place.mkdir(exist_ok=True)
            before = load()
            globals()[f"_{section}"](args, place, table)
            print(f"  ({section}: {before} before, {load()} after)", flush=True)
    print()
    print(table.markdown())


def _milliseconds(samples: list[float]) -> str:
    return spread([sample * 1000 for sample in samples], "ms", 1)


def _commits(args: argparse.Namespace, folder: Path, table: Table) -> None:
    """The disk before and after ours, so that what else used it meanwhile shows."""
    before = commits.syncs(folder)
    found = commits.ours(folder)
    after = commits.syncs(folder)
    for samples, when in ((before, "before"), (after, "after")):
        table.add(f"the disk's own syncs, {when}", f"{len(samples) / sum(samples):.0f} /s; {_milliseconds(samples)}")
    p50 = percentile(found["single"], 50) * 1000
    table.add("one command at a time, p50", f"{p50:.1f} ms", "< 10 ms idle")
    table.add("one command at a time, min / p50 / p90 / p99 / max", _milliseconds(found["single"]))
    table.add("processor of the leader for it", f"{found['processor'] * 1000:.2f} ms")
    table.add("64 proposers, a command each", f"{found['concurrent']:.0f} commands/s", ">= 1000")
    table.add("4 proposers, 64 commands each", f"{found['batched']:.0f} commands/s", ">= 1000")
    if args.peer_python is None:
        return
    for journals, what in ((None, "no journal"), (folder, "journal, not synced")):
        peer = commits.pysyncobj(args.peer_python, journals)
        p50 = percentile(peer["single"], 50) * 1000
        table.add(f"PySyncObj as shipped, {what}", f"p50 {p50:.1f} ms; {peer['concurrent']:.0f} commands/s")


def _replay(args: argparse.Namespace, folder: Path, table: Table) -> None:
    tests = str(args.tests)
    for entries, what, goal in ((False, "a snapshot and a tail", "< 5 s"), (True, "its entries alone", "")):
        place = str(folder / ("entries" if entries else "snapshot"))
        flags = ["--folder", place, "--tests", tests, *(["--entries"] if entries else [])]
        replay.in_fresh_process("prepare", *flags)
        found: dict[str, Any] = replay.in_fresh_process("start", *flags)
        figure = f"{found['seconds']:.2f} s ({found['processor']:.2f} s of processor)"
        table.add(f"serving {found['verdicts']:,} verdicts from {what}", figure, goal)
        grown = f"grown by {found['grown'] / 1e6:.0f} MB, peak of the process {found['peak'] / 1e6:.0f} MB"
        table.add(f"memory after it ({what})", grown, "< 500 MB")
    for batch in (64, 8):
        found = replay.in_fresh_process("hold", "--tests", tests, "--per-completion", str(batch))
        table.add(f"allocated, {batch} tests a completion", f"{found['traced'] / 1e6:.0f} MB", "< 500 MB")
        times = f"{found['capture'] * 1000:.1f} ms to capture, {found['encode']:.2f} s to encode, in pieces of at most"
        table.add(
            f"making its snapshot, {batch} tests a completion",
            f"{times} {found['longest'] * 1000:.1f} ms; {found['bytes'] / 1e6:.0f} MB",
        )


def _failover(args: argparse.Namespace, folder: Path, table: Table) -> None:
    for voters in args.voters or (3, 5):
        found = failover.failovers(folder / str(voters), voters, args.kills)
        what = f"{voters} voters, {args.kills} kills under load"
        p50, p99 = percentile(found.seconds, 50), percentile(found.seconds, 99)
        table.add(f"{what}: first commit after, p50 and p99", f"{p50:.2f} s and {p99:.2f} s", "< 0.8 s and < 2 s")
        table.add(f"{what}: min / p50 / p90 / p99 / max", spread(found.seconds))
        table.add(f"{what}: the same request without a kill", _milliseconds(found.idle))
        once = sum(term == 1 for term in found.terms)
        table.add(f"{what}: replaced by one election", f"{once} of {len(found.terms)}")


def _idle(args: argparse.Namespace, folder: Path, table: Table) -> None:
    before, after = failover.quiet_terms(folder / "mesh", args.idle_minutes)
    table.add(f"elections in {args.idle_minutes:g} min, idle", str(after - before), "0")


def _loaded(args: argparse.Namespace, folder: Path, table: Table) -> None:
    before, after = failover.loaded_terms(folder / "mesh", args.loaded_minutes, BURNERS)
    what = f"elections in {args.loaded_minutes:g} min under a suite that burns every slot and {BURNERS} burners"
    table.add(what, str(after - before), "0")


if __name__ == "__main__":
    main()
