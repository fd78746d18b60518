"""One trial: a mesh of real nodes in hosts of their own, runs of a real suite without a pause, faults one after
another, then peace, and the history of it all checked.

A seed gives the plan (which faults, whom they strike, for how long) and the suite. What the machine makes of it is its
own affair: a trial that failed is tried again by its seed, and explained by its story and the nodes' logs, which stay.
"""

import bisect
import contextlib
import itertools
import math
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.disk.log import RaftDisk
from mesh.ports import Saved
from protocols.errors import MeshError
from tests.chaos.histories import Coordinated, Findings, History, check
from tests.chaos.lan import SwitchedHosts
from tests.chaos.suite import SUITES, Suite
from tests.chaos.witness import Seen, Witness
from tests.processes.lab import PATIENCE, ROOT, Lab
from tests.processes.namespaces import hosts_of

RUN_SECONDS_MAX = 300.0
"""For a run, from its submission; faults in it included."""
PROGRESS_SECONDS_MAX = 90.0
"""Until there is a verdict again once a fault is over."""
LONG_SECONDS = 2.0
"""A wait for a verdict that is told."""
AFTERMATH_SECONDS = 10.0
"""For which a wait for a verdict is still put down to a fault that is over."""
PROGRESS_VERDICTS = 15
POLL_SECONDS = 0.05
SMALL_DISK = "48m"
STOP_SECONDS_MAX = 45.0
"""For a node whose disk is full to notice."""

COORDINATING = re.compile(r"mesh\.coordinator\.service: coordinating in term (\d+)")


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the story."""

    at: float
    words: str


@dataclass(slots=True)
class Struck:
    """A fault that was injected: when, until when."""

    kind: str
    began: float
    ended: float = 0.0


@dataclass
class Trial:
    """What faults act upon (faults.py)."""

    rng: random.Random
    lan: SwitchedHosts
    made: Lab
    names: tuple[str, ...]
    suite: Suite
    witness: Witness
    began: float = field(default_factory=time.monotonic)
    story: list[Told] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    peers: dict[str, str] = field(default_factory=dict)
    """Peer IDs by name."""
    up: set[str] = field(default_factory=set)
    """Nodes that run and can be reached."""
    small: str = ""
    """The node whose home is a small tmpfs."""
    submitter: str = ""
    killed_tests: bool = False
    struck: list[Struck] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When a run was open."""
    reports: dict[str, dict[str, object]] = field(default_factory=dict)
    """`report.json` by run."""
    _over: threading.Event = field(default_factory=threading.Event)
    _current: Seen | None = None

    # For faults

    def tell(self, words: str) -> None:
        self.story.append(Told(time.monotonic() - self.began, words))

    def coordinator(self) -> str:
        """Who coordinates, as far as the last that any node said goes."""
        peers = {self.peers[name]: name for name in self.up or self.names}
        for _, _, status in reversed(self.witness.statuses):
            if status["agreed"] and status["coordinator"] in peers:
                return peers[status["coordinator"]]
        return min(peers.values())

    def pick(self, role: str) -> str:
        """A node for a fault to strike."""
        if role == "coordinator":
            return self.coordinator()
        if role == "submitter" and self.submitter in self.up:
            return self.submitter
        others = sorted(self.up - {self.coordinator()})
        return self.rng.choice(others or sorted(self.up))

    def kill(self, *names: str) -> None:
        self.up -= set(names)
        for name in names:
            self.made.nodes[name].send_signal(signal.SIGKILL)
        for name in names:
            self.made.nodes[name].wait(PATIENCE)

    def start(self, *names: str) -> None:
        for name in names:
            self.made.start(name)
        self.up |= set(names)

    def wait(self, seconds: float) -> None:
        """Let it last; ends early when the trial is over."""
        self._over.wait(seconds)

    def lines(self) -> list[str]:
        """The story."""
        story = sorted(self.story, key=lambda told: told.at)
        return [f"{told.at:7.2f} s  {told.words}" for told in story] + [f"WRONG: {words}" for words in self.wrong]

    def runs(self) -> list[str]:
        return sorted({seen.run for seen in self.witness.seen if seen.run}, key=int)

    def others(self, name: str) -> list[str]:
        return [other for other in self.names if other != name]

    # Load

    def load(self, rng: random.Random) -> None:
        """Keep one run open, submitted at one node and watched at another, until the trial is over."""
        while not self._over.is_set():
            living = sorted(self.up)
            if not living:
                time.sleep(POLL_SECONDS)
                continue
            self.submitter = rng.choice(living)
            began = time.monotonic()
            seen = self.witness.submit(str(self.suite.path), self.submitter)
            self._current = seen
            while not seen.run and not seen.ended:
                time.sleep(POLL_SECONDS)
            if not seen.run:
                self.tell(f"not accepted at {self.submitter}: {seen.ended}")
                continue
            accepted = time.monotonic()
            watcher = rng.choice([name for name in self.names if name != self.submitter])
            watched = self.witness.follow(seen.run, watcher)
            while not (seen.whole or watched.whole):
                if time.monotonic() - began > RUN_SECONDS_MAX:
                    self.fail(f"run {seen.run} is not over {RUN_SECONDS_MAX:g} s after its submission")
                if self.wrong:
                    return
                time.sleep(POLL_SECONDS)
            self.spans.append((accepted, time.monotonic()))
            self.tell(f"run {seen.run} of {self.submitter} is over ({seen.ended or 'finished'})")

    def verdict_times(self) -> list[float]:
        """When each verdict was first seen anywhere."""
        first: dict[tuple[str, str], float] = {}
        for seen in list(self.witness.seen):
            for event, at in zip(list(seen.events), list(seen.times), strict=False):
                if event["event"] == "verdict":
                    key = (seen.run, event["test"])
                    first[key] = min(at, first.get(key, at))
        return sorted(first.values())

    def until_busy(self) -> None:
        """Until a run is well under way, and not yet near its end."""
        deadline = time.monotonic() + PROGRESS_SECONDS_MAX
        while not self._over.is_set():
            seen = self._current
            of_run = [each for each in list(self.witness.seen) if seen and each.run == seen.run]
            done = max((each.verdicts for each in of_run), default=0)
            tests = max((each.tests for each in of_run), default=0)
            if tests // 20 < done < tests * 3 // 4:
                return
            if time.monotonic() > deadline:
                self.fail(f"no run was under way within {PROGRESS_SECONDS_MAX:g} s")
            self.look_after_nodes()
            time.sleep(POLL_SECONDS)

    def until_progress(self, since: float) -> None:
        """Until there are verdicts later than `since`: more than one worker's outbox held, unless the run is over."""
        while not self._over.is_set():
            times = self.verdict_times()
            if sum(time > since for time in times) >= PROGRESS_VERDICTS or any(end > since for _, end in self.spans):
                return
            if time.monotonic() - since > PROGRESS_SECONDS_MAX:
                self.fail(f"no verdict within {PROGRESS_SECONDS_MAX:g} s after a fault was over")
            self.look_after_nodes()
            time.sleep(POLL_SECONDS)

    def look_after_nodes(self) -> None:
        """A node that nobody killed runs."""
        for name in sorted(self.up):
            code = self.made.nodes[name].poll()
            if code is not None:
                said = (self.made.folder / f"{name}.log").read_text(errors="replace").splitlines()
                self.fail(f"{name} ended by itself with code {code}: {''.join(said[-1:])}")

    def fail(self, words: str) -> None:
        """Something is wrong, and the trial over."""
        self.wrong.append(words)
        self._over.set()

    def end(self) -> None:
        self._over.set()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial."""

    seed: int
    folder: Path
    findings: Findings
    story: tuple[str, ...]
    gaps: tuple[tuple[str, float], ...]
    """(fault, the longest that nobody saw a verdict from its beginning until things went on)."""
    quiet: float
    """The same outside of any fault."""
    seconds: float


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "mesh-chaos", str(path)], check=True)
    try:
        yield
    finally:
        aside = path.with_name(f"{path.name}.kept")
        shutil.copytree(path, aside, ignore=shutil.ignore_patterns("ballast", "bundles"), dirs_exist_ok=True)
        subprocess.run(["umount", "-l", str(path)], check=True)


def run_trial(seed: int, folder: Path, plan: Sequence[str], nodes: int, suite: str = "ours") -> Outcome:
    """Needs root, namespaces and /dev/net/tun. `folder`, new, keeps the story, and the nodes' logs and homes."""
    rng = random.Random(seed)
    names = tuple("abcdefg"[:nodes])
    began = time.monotonic()
    folder.mkdir(parents=True)
    written = SUITES[suite](folder, rng)
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(hosts_of(SwitchedHosts, *names))
        made = Lab(folder)
        small = rng.choice(names)
        stack.enter_context(small_disk(made.home(small)))
        stack.callback(_end, made)
        made.prefix = {name: lan.within(name) for name in names}
        made.variables = {name: {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'chaos' / 'clock'}"} for name in names}
        witness = Witness(made, lan.namespace)
        trial = Trial(rng, lan, made, names, written, witness, up=set(names), small=small)
        stack.callback(lambda: (folder / "story.txt").write_text("\n".join(trial.lines())))
        stack.callback(witness.stop)
        stack.callback(trial.end)
        trial.tell(f"seed {seed}: {nodes} nodes, the disk of {small} is small; {', '.join(plan)}")
        findings = Findings()
        try:
            made.form(*names)
            trial.peers = {name: made.peer(name) for name in names}
            witness.look(*names)
            _torment(trial, plan, random.Random(f"{seed} load"))
            if not trial.wrong:
                _retell(trial)
            findings = check(_history(trial))
        except (AssertionError, MeshError, OSError) as error:
            trial.wrong.append(f"{type(error).__name__}: {error}")
        findings.wrong[:0] = trial.wrong
        gaps, quiet = _gaps(trial)
    return Outcome(seed, folder, findings, tuple(trial.lines()), gaps, quiet, time.monotonic() - began)


def _torment(trial: Trial, plan: Sequence[str], rng: random.Random) -> None:
    """One fault after another, each in the middle of a run; then the last run goes to its end."""
    from tests.chaos.faults import KINDS

    load = threading.Thread(target=trial.load, args=(rng,), daemon=True)
    load.start()
    for kind in plan:
        trial.until_busy()
        if trial.wrong:
            break
        struck = Struck(kind, time.monotonic(), math.inf)
        trial.struck.append(struck)
        KINDS[kind](trial)
        struck.ended = time.monotonic()
        trial.tell(f"{kind} is over")
        trial.until_progress(struck.ended)
    trial.end()
    load.join(RUN_SECONDS_MAX + PATIENCE)


def _retell(trial: Trial) -> None:
    """Everybody is well, and every node tells all runs from their beginning."""
    made, witness = trial.made, trial.witness
    made.agreed(*trial.names)
    trial.tell("all nodes agree")
    again = [witness.follow(run, name) for run in trial.runs() for name in trial.names]
    deadline = time.monotonic() + PATIENCE
    while not all(seen.whole for seen in again) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    trial.wrong += [f"run {seen.run} can't be read at {seen.where}: {seen.ended}" for seen in again if not seen.whole]
    for run in trial.runs():
        report = witness.report(run, trial.rng.choice(trial.names))
        if report is None:
            trial.wrong.append(f"run {run} has no report that can be read")
        else:
            trial.reports[run] = report
    status = made.agreed(*trial.names)[0]
    witness.statuses.append((time.monotonic(), "all", status))


def _history(trial: Trial) -> History:
    """The nodes end, all at once, and their disks are read."""
    made, statuses = trial.made, [status for _, _, status in trial.witness.statuses if status["agreed"]]
    trial.kill(*trial.names)
    trial.witness.stop()
    voters = [name for name in trial.names if statuses and trial.peers[name] in statuses[-1]["voters"]]
    logs = {name: _read(made.home(name) / "log.sqlite") for name in voters}
    committed = max((status["commit_index"] for status in statuses), default=0)
    streams = [seen.stream() for seen in trial.witness.seen if seen.run]
    return History(
        logs, committed, streams, list(_coordinated(trial)), trial.reports, trial.suite.expected, trial.killed_tests
    )


def _read(path: Path) -> Saved:
    with RaftDisk(path) as disk:
        return disk.load()


def _coordinated(trial: Trial) -> Iterator[Coordinated]:
    """Who coordinated in which term, by the nodes' logs and by what their API said."""
    made = trial.made
    for name in trial.names:
        for term in COORDINATING.findall((made.folder / f"{name}.log").read_text()):
            yield Coordinated(int(term), trial.peers[name], f"log of {name}")
    for at, name, status in trial.witness.statuses:
        if status["agreed"] and status["coordinator"]:
            source = f"status of {name} at {at - trial.began:.2f} s"
            yield Coordinated(status["term"], status["coordinator"], source)


def _gaps(trial: Trial) -> tuple[tuple[tuple[str, float], ...], float]:
    """The longest wait from a verdict to the next, or to its run's end: for each fault, and outside of all. What a run
    takes until its first verdict (collection, checkout) is not the mesh's recovery."""
    points = sorted([*trial.verdict_times(), *(end for _, end in trial.spans)])
    waits = [
        (before, after)
        for before, after in itertools.pairwise(points)
        if any(start <= before and after <= end for start, end in trial.spans)
    ]
    worst = [0.0] * len(trial.struck)
    quiet = 0.0
    for before, after in waits:
        last = bisect.bisect_right(trial.struck, after, key=lambda struck: struck.began) - 1
        if last >= 0 and before <= trial.struck[last].ended + AFTERMATH_SECONDS:
            worst[last] = max(worst[last], after - before)
        else:
            quiet = max(quiet, after - before)
    for before, after in waits:
        if after - before > LONG_SECONDS:
            trial.story.append(Told(after - trial.began, f"a verdict, after {after - before:.1f} s without"))
    return tuple(zip((struck.kind for struck in trial.struck), worst, strict=True)), quiet


def _end(made: Lab) -> None:
    """Kill what is left, stopped processes too, and wait until it is gone."""
    for process in made.nodes.values():
        if process.poll() is None:
            process.kill()
    for process in made.nodes.values():
        process.wait()
    made.until(lambda: not made.leftovers(), "every process is gone")
