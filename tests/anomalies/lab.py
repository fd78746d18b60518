"""A project that runs again and again on hosts that are as hosts are: each with its pace, none ever quite the same.

A test's duration scatters by some 5 to 20 %, one in a hundred takes up to 2.5 times as long for no reason; a host is
slower or faster than the others, differs from run to run, is loaded by somebody else now and then, and stands still for
a moment. One run in five has a failure that nobody can repeat. Files are handed out whole, in stretches.
"""

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.anomalies.judge import About, Judgement, judge
from mesh.anomalies.rules import Rules
from mesh.anomalies.story import Story, story
from mesh.state.past import Results, Whole
from protocols.alerts import AlertKind, Finding
from protocols.history import PastRun
from protocols.ids import PeerId, RunId
from protocols.manifests import Outcome

PASSED, FAILED = Outcome.PASSED.code, Outcome.FAILED.code


@dataclass
class Lab:
    seed: int
    files: int = 40
    per_file: int = 8
    hosts: int = 3
    rules: Rules = field(default_factory=Rules)
    slowed: dict[str, float] = field(default_factory=dict)
    """Test -> how many times as long it takes from now on."""
    fails: Callable[[str, PeerId], bool] = lambda test, peer: False
    past: list[Story] = field(default_factory=list)
    active: dict[About, Finding] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.names = [
            f"tests/test_{file}.py::test_{n // 2}[{n % 2}]" for file in range(self.files) for n in range(self.per_file)
        ]
        self.base = [10 ** self.random.uniform(-2.3, 0.9) for _ in self.names]
        self.scatter = [self.random.uniform(0.05, 0.2) for _ in self.names]
        self.peers = [PeerId(f"12D3KooWhost{n}") for n in range(self.hosts)]
        self.factors = [self.random.uniform(0.7, 1.5) for _ in self.peers]

    def run(self) -> Judgement:
        """One more run, judged; alerts are raised and cleared as a mesh would."""
        rng = self.random
        number = len(self.past) + 1
        pace = [factor * rng.lognormvariate(0, 0.1) * (rng.uniform(1.5, 3) if rng.random() < 0.05 else 1)
                for factor in self.factors]  # fmt: skip
        owners = [rng.randrange(self.hosts) for _ in range(self.files)]
        odd = rng.randrange(len(self.names)) if rng.random() < 0.2 else -1
        held = rng.randrange(len(self.names)) if rng.random() < 0.2 else -1
        first = rng.randrange(len(self.names)) if rng.random() < 0.2 else len(self.names)
        loaded, load = owners[min(first // self.per_file, self.files - 1)], rng.uniform(1.5, 6)
        lasting = rng.randrange(2, 30)
        micros, outcomes, workers = array("q"), bytearray(), bytearray()
        for place, name in enumerate(self.names):
            host = owners[place // self.per_file]
            took = self.base[place] * pace[host] * rng.lognormvariate(0, self.scatter[place])
            took *= self.slowed.get(name, 1.0)
            if rng.random() < 0.01:
                took *= rng.uniform(1, 2.5)
            if host == loaded and first <= place and lasting:
                took *= load
                lasting -= 1
            took += rng.uniform(0.1, 0.9) if place == held else 0
            bad = place == odd or self.fails(name, self.peers[host])
            micros.append(round(took * 1e6))
            outcomes.append(FAILED if bad else PASSED)
            workers.append(host)
        counts = (len(outcomes) - outcomes.count(FAILED), outcomes.count(FAILED), 0, 0, 0, 0)
        run = PastRun(
            f"bafy{number}", RunId(number), "lab", "suite", "suite", "passed", 0, number * 1e3, number * 1e3 + 100,
            len(outcomes), counts, sum(micros) / 1e6, 0, 1.0, 2 * self.hosts, None, None,
            tuple((peer, f"lab-{n}") for n, peer in enumerate(self.peers)),
        )  # fmt: skip
        results = Results(bytes(outcomes), micros, bytes(workers), bytes(len(outcomes)))
        told = story(Whole(run, b"", results), self.names)
        blamed = [peer for kind, peer in self.active if kind is AlertKind.BAD_HOST]
        judged = judge(self.rules, told, self.past, self.active.keys(), [PeerId(peer) for peer in blamed])
        self.past.insert(0, told)
        for finding in judged.findings:
            self.active[finding.kind, finding.subject] = finding
        for about in judged.over:
            del self.active[about]
        return judged

    def slowest(self, place: int = 0) -> str:
        """A test of about a second, or less."""
        order = sorted(range(len(self.names)), key=lambda index: abs(self.base[index] - 0.8))
        return self.names[order[place]]
