"""`make chaos`: trial after trial, and a table of what was done and how long a verdict was waited for.

    python -m tests.chaos [--minutes M | --trials N] [--seed S] [--faults K] [--nodes N] [--plan KIND,KIND]
                          [--suite ours|short|networkx] [--out DIR]

The first two trials are fixed: the coordinator's link down for exactly 20 s, and all nodes killed at once. A trial that
fails prints its seed and its story; its nodes' logs and homes stay in DIR. Needs root, on Linux: network namespaces and
/dev/net/tun.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.faults import KINDS
from tests.chaos.lan import lacks_switch
from tests.chaos.suite import SUITES
from tests.chaos.trial import Outcome, run_trial

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIXED = (("cut-coordinator-20s",), ("kill-all",))
SHUFFLED = tuple(kind for kind in KINDS if kind != "cut-coordinator-20s")


def plans(seed: int, faults: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(seed, faults) of each trial: every kind comes about equally often."""
    yield from ((seed, plan) for plan in FIXED)
    waiting: list[str] = []
    while True:
        seed += 1
        rng = random.Random(f"{seed} plan")
        while len(waiting) < faults:
            waiting += rng.sample(SHUFFLED, len(SHUFFLED))
        plan, waiting = tuple(waiting[:faults]), waiting[faults:]
        yield seed, plan


def main() -> int:
    options = _options()
    missing = lacks_switch()
    if missing:
        print(f"make chaos: {missing}", file=sys.stderr)
        return 2
    out = options.out or Path(tempfile.mkdtemp(prefix="mesh-chaos-"))
    done: list[Outcome] = []
    began = time.monotonic()
    trials = [(options.seed, tuple(options.plan.split(",")))] if options.plan else plans(options.seed, options.faults)
    for number in STOPS:
        signal.signal(number, _interrupt)
    print(f"chaos: seed {options.seed}, into {out}", flush=True)
    try:
        for number, (seed, plan) in enumerate(trials):
            late = time.monotonic() - began > options.minutes * 60
            if number and (number == options.trials or (late and not options.trials)):
                break
            print(f"trial {number + 1}: seed {seed}: {', '.join(plan)}", flush=True)
            outcome = run_trial(seed, out / f"trial-{number + 1}", plan, options.nodes, options.suite)
            done.append(outcome)
            _report(outcome, plan, options)
    except KeyboardInterrupt:
        print("interrupted: everything that was started is gone", file=sys.stderr)
    print(table(done))
    failed = [outcome for outcome in done if outcome.findings.wrong]
    if not failed and not options.out:
        shutil.rmtree(out)
    return 1 if failed or not done else 0


def _interrupt(number: int, frame: object) -> None:
    """The first Ctrl-C or SIGTERM ends the trial; what comes while everything is put away is not heard."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=0, help="instead of minutes")
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, which is printed")
    parser.add_argument("--faults", type=int, default=5, help="in a trial")
    parser.add_argument("--nodes", type=int, default=4, choices=range(3, 8))
    parser.add_argument("--plan", default="", help=f"one trial with these: {', '.join(KINDS)}")
    parser.add_argument("--suite", choices=list(SUITES), default="ours")
    parser.add_argument("--out", type=Path, help="keep everything there")
    options = parser.parse_args()
    options.seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    unknown = set(filter(None, options.plan.split(","))) - set(KINDS)
    if unknown:
        parser.error(f"no such faults: {', '.join(sorted(unknown))}")
    return options


def _report(outcome: Outcome, plan: tuple[str, ...], options: argparse.Namespace) -> None:
    found = outcome.findings
    verdict = f"FAILED: {len(found.wrong)} things are wrong" if found.wrong else "ok"
    print(
        f"  {verdict}; {found.runs} runs, {found.verdicts} verdicts, {found.terms} terms, {found.entries} entries, "
        f"{found.lost_attempts} attempts lost, {found.refused} late verdicts refused, {outcome.seconds:.0f} s",
        flush=True,
    )
    if found.wrong:
        print("  the story:", *(f"    {line}" for line in outcome.story), "  what is wrong:", sep="\n")
        print(*(f"    {line}" for line in found.wrong), sep="\n")
        print(f"  logs and homes: {outcome.folder}")
        again = f"SEED={outcome.seed} PLAN={','.join(plan)} NODES={options.nodes} SUITE={options.suite}"
        print(f"  again: make chaos {again}", flush=True)


def table(done: list[Outcome]) -> str:
    """Faults by kind, with the waits for a verdict that they caused."""
    rows = [("FAULT", "TIMES", "WORST GAP", "MEDIAN GAP")]
    for kind in KINDS:
        gaps = sorted(gap for outcome in done for struck, gap in outcome.gaps if struck == kind)
        if gaps:
            rows.append((kind, str(len(gaps)), f"{gaps[-1]:.1f} s", f"{gaps[len(gaps) // 2]:.1f} s"))
    quiet = sorted(outcome.quiet for outcome in done)
    if quiet:
        rows.append(("(between faults)", "", f"{quiet[-1]:.1f} s", f"{quiet[len(quiet) // 2]:.1f} s"))
    lines = ["  ".join([row[0].ljust(22), *(cell.rjust(10) for cell in row[1:])]) for row in rows]
    sums = {
        what: sum(getattr(outcome.findings, what) for outcome in done)
        for what in ("runs", "verdicts", "lost_attempts", "refused")
    }
    lines.append(
        f"{len(done)} trials, {sum(bool(o.findings.wrong) for o in done)} failed; {sums['runs']} runs, "
        f"{sums['verdicts']} verdicts, {sums['lost_attempts']} attempts lost, {sums['refused']} late verdicts refused"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
