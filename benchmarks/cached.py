"""`make bench-cached`: networkx's suite on one node of this host, again with `--cached`: unchanged, and after edits.

An edit is a comment at a file's end. Who ran is compared with who was to: the tests that the run before had seen read
that file, those that are never reused, and the sample. SUITE: another one of `benchmarks/suites.py`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measures import machine
from benchmarks.suites import SUITES
from mesh.scheduler.reuse import SAMPLE_SHARE
from protocols.inputs import INDEX_FILE, unpack_index, unpacked_sets
from tests.processes.lab import Lab, lab

SLOTS = 2
UNCHANGED_SHARE_MAX = 0.1
"""Of the first run's time, that an unchanged one may take."""


@dataclass
class Ran:
    seconds: float
    cpu: float
    """Seconds of processor time, of the node and all its processes: that of a run does not depend on what else the
    host does."""
    tests: set[str]
    fresh: set[str]
    """Those that ran."""
    inputs: dict[str, frozenset[str]]
    """Test -> what it read, as the report lists it for later runs."""


def run(made: Lab, path: Path, *options: str) -> Ran:
    out = Path(tempfile.mkdtemp(dir=made.folder)) / "report"
    before, began = cpu(made), time.monotonic()
    made.mesh("run", str(path), "--report-dir", str(out), *options, home="a", check=False, timeout=1800)
    seconds = time.monotonic() - began
    used = cpu(made) - before
    entries = json.loads((out / "report.json").read_text())["tests"]
    inputs: dict[str, frozenset[str]] = {}
    if (out / INDEX_FILE).exists():
        index = unpack_index((out / INDEX_FILE).read_bytes())
        names = sorted(entry["test"] for entry in entries)
        manifest = manifest_of(made, index.manifest)
        sets = [frozenset(one) for one in unpacked_sets(index.names, index.sets)]
        inputs = {manifest[test]: sets[number] for test, number in zip(index.tests, index.of, strict=True)}
        assert inputs.keys() <= set(names)
    return Ran(
        seconds,
        used,
        {entry["test"] for entry in entries},
        {entry["test"] for entry in entries if not entry.get("reused")},
        inputs,
    )


def cpu(made: Lab) -> float:
    """Of the node's process, and of those that it started, ended ones too."""
    node = psutil.Process(made.nodes["a"].pid)
    return sum(sum(process.cpu_times()[:4]) for process in (node, *node.children(recursive=True)))


def manifest_of(made: Lab, cid: str) -> list[str]:
    from protocols.codec import decode
    from protocols.manifests import Manifest

    options = {key: value for key, value in made.options().items() if key != "text"}
    done = subprocess.run(made.command("cat", cid, home="a"), check=True, **options)
    return [test.id for test in decode(done.stdout, Manifest).tests]


def chosen(ran: Ran, root: Path) -> list[str]:
    """Three files of the suite: a test's own, one that some tests read, and one that nearly all do."""
    readers = Counter(name[5:] for inputs in ran.inputs.values() for name in inputs if name.startswith("file:"))
    modules = sorted(
        (count, name) for name, count in readers.items() if name.endswith(".py") and (root / name).exists()
    )
    own = [name for count, name in modules if name.rpartition("/")[2].startswith("test_") and count > 1]
    some = [name for count, name in modules if "test_" not in name and count <= len(ran.tests) / 2]
    return [*own[len(own) // 2 :][:1], *some[-1:], modules[-1][1]]


def row(what: str, ran: Ran, first: Ran | None = None, expected: set[str] | None = None) -> None:
    shares = f"{ran.seconds / first.seconds:>6.2f} {ran.cpu / first.cpu:>6.2f}" if first else f"{'':>13}"
    line = f"{what:<64} {ran.seconds:>7.1f} {ran.cpu:>7.1f} {shares} {len(ran.fresh):>6} "
    line += f"{len(ran.tests) - len(ran.fresh):>7}"
    if expected is not None:
        lacking, others = expected - ran.fresh, ran.fresh - expected
        line += f"  {len(expected):>6} {len(lacking):>7} {len(others):>7}"
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--suite", default="networkx", choices=[suite.name for suite in SUITES])
    options = parser.parse_args()
    (suite,) = [suite for suite in SUITES if suite.name == options.suite]
    print(machine(Path(tempfile.gettempdir())))
    print(f"{suite.requirement or suite.name}, {SLOTS} slots; a sample is {SAMPLE_SHARE:.0%} of what could be reused")
    print(f"{'':<64} {'seconds':>7} {'cpu':>7} {'share':>6} {'of cpu':>6} {'ran':>6} {'reused':>7}", end="")
    print(f"  {'due':>6} {'lacking':>7} {'sample':>7}")
    with tempfile.TemporaryDirectory() as name, lab(Path(name)) as made:
        root = Path(name) / "suite"
        shutil.copytree(suite.root(options.cache), root)
        made.start("a", slots=SLOTS)
        made.agreed("a")
        path = root / suite.arguments[-1] if suite.wheel else root
        words = () if suite.wheel else ("--", *suite.options)
        row("plain", run(made, path, *words))
        first = run(made, path, "--cached", *words)
        row("--cached, the first time", first)
        never = first.tests - first.inputs.keys()
        never |= {test for test, inputs in first.inputs.items() if any(is_unseen(name) for name in inputs)}
        again = run(made, path, "--cached", *words)
        row("--cached, unchanged", again, first, never)
        before = again
        for file in chosen(again, root):
            with (root / file).open("a") as edited:
                edited.write("\n# edited\n")
            due = {test for test, inputs in before.inputs.items() if f"file:{file}" in inputs} | never
            before = run(made, path, "--cached", *words)
            row(f"--cached, {file} edited", before, first, due)
    return 0 if again.seconds <= UNCHANGED_SHARE_MAX * first.seconds else 1


def is_unseen(name: str) -> bool:
    return name.startswith(("network:", "files:", "processes:"))


if __name__ == "__main__":
    sys.exit(main())
