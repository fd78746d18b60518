"""Wall time of suites on two slots: `make bench-runner`. Serial pytest, xdist in its modes, and ours, interleaved.

Ours, three ways: `known`, on a node that is up and has run the suite before (its durations are known, its bundle is
there, its processes may be warm); `first`, on a node that is up and has never seen it; `cold`, plain `mesh run`, which
starts a node of its own. Each way has the same interpreter, pytest and plugins; each round runs all of them once, in
turn, on a machine that others use too: so only ratios within a table mean something.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measures import load, machine
from benchmarks.suites import SUITES, Suite

SLOTS = 2
ROUNDS = 3
XDIST_MODES = ("load", "worksteal", "loadscope", "loadfile")
START_SECONDS_MAX = 60.0
RUN_SECONDS_MAX = 1_200.0
COLD_SECONDS_MIN = 5.0
"""Suites that take less, in the best of xdist's modes, have no goal for a cold start."""
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no")
MESH = (sys.executable, "-m", "mesh")


@dataclass(slots=True)
class Way:
    """One way to run a suite, and what its runs took."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of the command and what it waited for; for ours on a node that is up: of the node's own process alone."""
    said: str = ""
    """The last line of its last run."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(way: Way, command: Sequence[str], folder: Path, own: Callable[[], float] | None = None) -> None:
    """Run it once; `own`: a process's CPU seconds so far, instead of the command's."""
    before = own() if own else 0.0
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        alarm = _kill_later(process.pid)
        try:
            _, _, usage = os.wait4(process.pid, 0)
        finally:
            alarm()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        way.seconds.append(time.monotonic() - began)
        process.returncode = 0
        out.seek(0)
        lines = [line for line in out.read().decode(errors="replace").splitlines() if line.strip()]
    way.cpu.append(own() - before if own else usage.ru_utime + usage.ru_stime)
    told = [line for line in lines if " passed" in line or " failed" in line or "error" in line.lower()]
    way.said = (told or lines or ["nothing"])[-1].strip("= ")


def _kill_later(pid: int) -> Callable[[], None]:
    """Kills the group when `RUN_SECONDS_MAX` are over; what it returns calls that off."""

    def end(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, RUN_SECONDS_MAX)
    return lambda: signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def node() -> Iterator[tuple[Path, int]]:
    """A mesh of one node that is up: its home and its process."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        home = Path(name)
        command = [sys.executable, "node.py", "--home", name, "--slots", str(SLOTS), "--no-mdns"]
        command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--log-level", "error"]
        with open(home / "node.log", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + START_SECONDS_MAX
            while not _works(home):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(f"the node did not start:\n{(home / 'node.log').read_text()}")
                time.sleep(0.2)
            yield home, process.pid
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _works(home: Path) -> bool:
    """Whether a test could be granted to it by now: a shell command goes through."""
    if not (home / "api.json").exists():
        return False
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        (Path(name) / "pytest.ini").write_text("[pytest]\n")
        command = [*MESH, "run", name, "--home", str(home), "--exec", "true", "--progress", "off"]
        return subprocess.run(command, capture_output=True, timeout=START_SECONDS_MAX).returncode == 0


def cpu_of(pid: int) -> float:
    """CPU seconds of one process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ours(folder: Path, suite: Suite, *options: str) -> list[str]:
    return [*MESH, "run", str(folder), "--progress", "off", *options, "--", *suite.options]


def measure(suite: Suite, cache: Path, rounds: int, modes: Sequence[str], serial: bool) -> dict[str, Way]:
    """Every way of running the suite, `rounds` times in turn."""
    folder = suite.root(cache)
    ways = {name: Way(name) for name in (*(["serial"] if serial else []), *modes, "known", "first", "cold")}
    for _ in range(rounds):
        if serial:
            timed(ways["serial"], [*PYTEST, *suite.options], folder)
        for mode in modes:
            timed(ways[mode], [*PYTEST, "-n", str(SLOTS), "--dist", mode, *suite.options], folder)
        with node() as (home, pid):
            for name in ("first", "known"):
                command = ours(folder, suite, "--home", str(home))
                timed(ways[name], command, Path.cwd(), lambda pid=pid: cpu_of(pid))  # type: ignore[misc]
        timed(ways["cold"], ours(folder, suite, "-n", str(SLOTS)), Path.cwd())
    return ways


def timeline(suite: Suite, cache: Path) -> list[str]:
    """Where the time of a run goes: on a node that is up, the first time and again. Seconds since the command began."""
    folder = suite.root(cache)
    lines = []
    with node() as (home, _):
        for name in ("first", "known"):
            target = home / f"report-{name}"
            began, epoch = time.monotonic(), time.time()
            marks: dict[str, float] = {}
            command = [*MESH, "run", str(folder), "--home", str(home), "--json", "--report-dir", str(target)]
            with subprocess.Popen([*command, "--", *suite.options], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    event = json.loads(line)["event"]
                    if event == "verdict":
                        marks.setdefault("first verdict", time.monotonic() - began)
                        event = "last verdict"
                    marks[event] = time.monotonic() - began
            marks["exit"] = time.monotonic() - began
            spans = [_span(line) for path in sorted(target.glob("records/*")) for line in path.open()]
            marks["first start"] = min(start for start, _ in spans) - epoch
            marks["last end"] = max(end for _, end in spans) - epoch
            told = sorted((when, what) for what, when in marks.items())
            lines.append(f"{suite.name}, {name}: " + ", ".join(f"{what} {when:.2f}" for when, what in told))
    return lines


def _span(line: str) -> tuple[float, float]:
    record = json.loads(line)
    return record["started"], record["started"] + record["duration"]


def row(suite: Suite, ways: dict[str, Way]) -> str:
    """A line of the table: seconds, and in brackets the ratio to the best of xdist's modes."""
    best = min((ways[mode] for mode in XDIST_MODES if mode in ways), key=lambda way: way.median)
    cells = [suite.name, f"{ways['serial'].median:.1f}" if "serial" in ways else "-", f"{best.median:.1f} {best.name}"]
    cells.append(f"{max(ways[mode].median for mode in XDIST_MODES if mode in ways):.1f}")
    for name in ("known", "first", "cold"):
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ways[name].seconds, best.seconds, strict=True))
        cells.append(f"{ways[name].median:.1f} ({ratio:.2f})")
    cells.append(f"{ways['known'].cpu[-1]:.1f}")
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| suite | serial | xdist's best | worst | ours, known | ours, first | ours, cold | node's CPU, known |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-runner", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="of " + ", ".join(suite.name for suite in SUITES))
    parser.add_argument("--cache", type=Path, required=True, help="where suites are unpacked")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--modes", nargs="+", choices=XDIST_MODES, default=XDIST_MODES, help="of xdist")
    parser.add_argument("--no-serial", action="store_true")
    parser.add_argument("--timeline", action="store_true", help="only where the time of a run goes")
    args = parser.parse_args()
    unknown = set(args.suites) - {suite.name for suite in SUITES}
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    cache = args.cache.absolute()
    print(time.strftime("%Y-%m-%d"), machine(Path(tempfile.gettempdir())), load(), flush=True)
    rows = []
    for suite in SUITES:
        if args.suites and suite.name not in args.suites:
            continue
        if args.timeline:
            print("\n".join(timeline(suite, cache)), flush=True)
            continue
        ways = measure(suite, cache, 1 if args.quick else args.rounds, args.modes, not args.no_serial)
        for way in ways.values():
            spread = " ".join(f"{seconds:.2f}" for seconds in way.seconds)
            print(f"{suite.name:10} {way.name:10} {spread} s, CPU {way.cpu[-1]:.2f} s: {way.said}", flush=True)
        print(f"  ({load()})" + (f", bound {suite.bound:.1f} s" if suite.bound else ""), flush=True)
        rows.append(row(suite, ways))
    if rows:
        print(f"\n{HEAD}\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
