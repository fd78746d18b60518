"""Recorded histories: what the tests of a project took, run after run, on which worker; kept to judge predictions by.

    python -m benchmarks.histories NAME REPORT_DIR...

packs the `report.json`s that `mesh run --report-dir` wrote, the oldest first, into benchmarks/histories/NAME.json.gz.
Workers and bundles are numbers in there; durations have three digits.

Those that are there are of two workers of a slot each, on two cores with a load of 4 to 7 from elsewhere: much noise.
`click` (8.5.1), `networkx` (3.6.1, generators, centrality and flow), `mesh` (six versions of this project over its
history, tests/protocols, state, scheduler and disk), and `unlike`: some of click's, one worker held to 0.4 of a core.
"""

import gzip
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.scheduler.prediction import Record
from protocols.ids import Cid, PeerId

FOLDER = Path(__file__).resolve().parent / "histories"


@dataclass(frozen=True, slots=True)
class Recorded:
    name: str
    records: tuple[Record, ...]
    """The oldest first."""


def load(path: Path) -> Recorded:
    document = json.loads(gzip.decompress(path.read_bytes()))
    return Recorded(path.name.partition(".")[0], tuple(_record(document["tests"], run) for run in document["runs"]))


def _record(tests: list[str], run: dict[str, Any]) -> Record:
    workers = run["workers"]
    return Record(
        Cid(str(run["bundle"])),
        [tests[index] for index in _ranged(run["tests"])],
        [micros / 1e6 for micros in run["micros"]],
        [int(letter, 36) for letter in workers],
        [PeerId(str(number)) for number in range(int(max(workers, default="0"), 36) + 1)],
    )


def _ranged(ranges: list[list[int]]) -> list[int]:
    return [index for first, count in ranges for index in range(first, first + count)]


def pack(reports: list[Path]) -> bytes:
    """The same of the same reports, to the byte."""
    documents = [json.loads((report / "report.json").read_text()) for report in reports]
    ran = [[test for test in document["tests"] if test["worker"] and test["duration"] > 0] for document in documents]
    names = sorted({test["test"] for tests in ran for test in tests})
    place = {name: number for number, name in enumerate(names)}
    bundles = list(dict.fromkeys(document["bundle"] for document in documents))
    workers = list(dict.fromkeys(test["worker"] for tests in ran for test in tests))
    runs = []
    for document, tests in zip(documents, ran, strict=True):
        ordered = sorted(tests, key=lambda test: place[test["test"]])
        runs.append(
            {
                "bundle": bundles.index(document["bundle"]),
                "tests": _ranges([place[test["test"]] for test in ordered]),
                "micros": [int(float(f"{test['duration'] * 1e6:.3g}")) for test in ordered],
                "workers": "".join(f"{workers.index(test['worker'])}" for test in ordered),
            }
        )
    return gzip.compress(json.dumps({"tests": names, "runs": runs}, separators=(",", ":")).encode(), mtime=0)


def _ranges(indices: list[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for index in indices:
        if found and sum(found[-1]) == index:
            found[-1][1] += 1
        else:
            found.append([index, 1])
    return found


def main() -> int:
    name, *reports = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json.gz"
    path.write_bytes(pack([Path(report) for report in reports]))
    print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
