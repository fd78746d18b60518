"""What a trial's mesh runs: a suite of 300 tests of mixed durations that is made from the seed, or a real one."""

import random
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.processes.lab import ROOT

SECONDS = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.1, 0.2, 0.4)
"""What a test takes: asleep, so that many nodes can run on few cores."""

BODIES = {
    "passed": "",
    "failed": "    assert n < 0, f'as it should be: {n}'\n",
    "skipped": "    pytest.skip('not here')\n",
    "xfailed": "    pytest.xfail('known')\n",
}

HEAD = "import time\nimport pytest\n\n@pytest.fixture(scope='module')\ndef ground():\n    yield 'ground'\n"


@dataclass(frozen=True, slots=True)
class Suite:
    path: Path
    """What `mesh run` is given."""
    expected: Mapping[str, str]
    """Test -> the outcome that it has wherever it runs; empty where only the runs know."""


def networkx(folder: Path, rng: random.Random) -> Suite:
    """About a thousand short tests of the installed networkx."""
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    return Suite(demo["suite"](folder) / "classes", {})


def ours(folder: Path, rng: random.Random, modules: int = 12, tests: int = 25) -> Suite:
    """About one test in ten does not pass."""
    folder = folder / "suite"
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    expected = {}
    for module in range(modules):
        text = HEAD
        left = tests
        part = 0
        while left:
            count = min(left, rng.randint(1, 6))
            outcome = rng.choices(list(BODIES), (90, 4, 3, 3))[0]
            seconds = rng.choice(SECONDS)
            text += (
                f"\n\n@pytest.mark.parametrize('n', range({count}))\ndef test_{part}(n, ground):\n"
                f"    time.sleep({seconds})\n    print('n is', n)\n{BODIES[outcome]}"
            )
            expected |= {f"test_part{module:02}.py::test_{part}[{n}]": outcome for n in range(count)}
            left -= count
            part += 1
        (folder / f"test_part{module:02}.py").write_text(text)
    return Suite(folder, expected)


SUITES: dict[str, Callable[[Path, random.Random], Suite]] = {
    "ours": ours,
    "short": partial(ours, modules=8, tests=15),
    "networkx": networkx,
}
