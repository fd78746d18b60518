"""Reports in memory for the reporters to be tested with: documents as `mesh.state.report` writes them."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mesh.reporters.model import Report
from mesh.state import junit
from mesh.state.report import record_line
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import Outcome, Phase, Record

RIG, LAPTOP = PeerId("12D3KooWRigRigRig"), PeerId("12D3KooWLaptopLap")
NAMES = {RIG: "rig", LAPTOP: "laptop <2>"}
BEGAN = 1_796_000_000.0


class Held:
    """`mesh.reporters.model.Files` of a dictionary; names in "records/" are in their order."""

    def __init__(self, files: dict[str, bytes], artifacts: Sequence[Path] = (), tree: Path | None = None) -> None:
        self.files = files
        self._artifacts = list(artifacts)
        self._tree = tree

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def lines(self, name: str) -> Iterator[bytes]:
        for held, data in self.files.items():
            if held == name or held.startswith(f"{name}/"):
                yield from data.splitlines(keepends=True)

    def artifacts(self, beginning: str) -> list[Path]:
        return [path for path in self._artifacts if path.name.startswith(beginning)]

    def tree(self, bundle: str, name: str) -> Path | None:
        return self._tree


def record(test: str, outcome: Outcome = Outcome.PASSED, **fields: Any) -> Record:
    seconds = fields.pop("duration", 0.25)
    call = {Outcome.ERROR: "failed", Outcome.XFAILED: "skipped", Outcome.XPASSED: "passed"}.get(outcome, outcome.value)
    phases = (Phase("setup", "passed", 0.0), Phase("call", call, seconds), Phase("teardown", "passed", 0.0))
    given = {"started": BEGAN, "worker": RIG, "slot": 0, "attempt": 1, "phases": phases, **fields}
    return Record(test, outcome, seconds, **given)


def report_of(
    records: Sequence[Record],
    tries: Sequence[Record] = (),
    head: dict[str, Any] | None = None,
    others: dict[str, bytes] | None = None,
    **asked: Any,
) -> Report:
    """`tries`: bad ones before the verdict of a record with the same test."""
    counts = Counter(one.outcome for one in records)
    bad = any(one.outcome.bad for one in records)
    earlier = {one.test: one for one in tries}
    document = {
        "run": "17",
        "name": "suite",
        "project": "suite",
        "command": None,
        "submitted_at": BEGAN - 1,
        "state": "failed" if bad else "passed",
        "exit_code": int(bad),
        "reason": "",
        "counts": {outcome.value: counts[outcome] for outcome in Outcome},
        "wall_seconds": 3.5,
        "workers": [RIG, LAPTOP],
        "names": NAMES,
        "environment": None,
        "tests": [_entry(one, earlier.get(one.test)) for one in sorted(records, key=lambda one: one.test)],
        **(head or {}),
    }
    xml = [junit.head([counts[outcome] for outcome in Outcome], 3.5, BEGAN - 1, "rig")]
    xml += [*(junit.case(one) for one in records), junit.tail()]
    files = {
        "report.json": json.dumps(document).encode(),
        "junit.xml": b"".join(xml),
        "records/000000-000001.jsonl": b"".join(_line(place, one) for place, one in enumerate(records)),
        **({"tries.jsonl": b"".join(_line(0, one) for one in tries)} if tries else {}),
        **(others or {}),
    }
    return Report("bafyreport", Held(files), **asked)


def _line(place: int, one: Record) -> bytes:
    return record_line(TestIndex(place), one, Cid(f"bafyrecord{place}"))


def _entry(one: Record, tried: Record | None) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if tried is not None:
        told["truth"] = "failed" if one.outcome.bad else "flaky" if tried.worker == one.worker else "host"
        told["attempts"] = [
            {"attempt": each.attempt, "worker": each.worker, "name": NAMES[each.worker], "outcome": each.outcome.value}
            for each in (tried, one)
        ]
        told["blamed_hosts"] = [NAMES[tried.worker]] if told["truth"] == "host" else []
    return {
        "test": one.test,
        "outcome": one.outcome.value,
        "duration": one.duration,
        "worker": one.worker,
        "attempt": one.attempt,
        "record": "bafyrecord",
        "flaky": tried is not None and not one.outcome.bad,
        **told,
    }


NASTY = "tests/test_a.py::test_nasty[</script><img src=x onerror=alert(1)>|`&\"'\x00\x1b[31m]"
TRACE = """    def test_bad():
        x = "<b>one</b>"
>       assert x == 2
E       AssertionError: assert '<b>one</b>' == 2

tests/test_a.py:14: AssertionError"""


def sample(**asked: Any) -> Report:
    """One test of every sort, with what a suite may print."""
    records = [
        record("tests/test_a.py::test_good", properties=(("speed", "9 < 10"),), stdout="fine\n"),
        record(
            "tests/test_a.py::test_bad", Outcome.FAILED, message="assert '<b>one</b>' == 2", longrepr=TRACE,
            stdout="before ``` </pre><script>alert(2)</script>\n::error::not ours\n", stderr="x" * 70_000, attempt=2,
        ),
        record(NASTY, Outcome.ERROR, message="a\x1b[31m|`b`", longrepr="", artifacts=Cid("bafyleft"), worker=LAPTOP),
        record("tests/test_b.py::TestX::test_skip", Outcome.SKIPPED, message="later", started=BEGAN + 1),
        record("tests/test_b.py::test_xfail", Outcome.XFAILED, message="known", started=BEGAN + 1.5),
        record("tests/test_b.py::test_xpass", Outcome.XPASSED, message="surprise", started=BEGAN + 2),
        record("tests/test_b.py::test_flaky", attempt=2, worker=LAPTOP, started=BEGAN + 1, duration=1.5),
    ]  # fmt: skip
    tries = [
        record("tests/test_a.py::test_bad", Outcome.FAILED, message="first", longrepr="E first"),
        record("tests/test_b.py::test_flaky", Outcome.ERROR, message="host", longrepr="E host"),
    ]
    others = {
        "warnings.json": b'{"total": 2, "warnings": [{"text": "a.py:1: <old>", "count": 2, "tests": ["t"]}]}',
        "distributions.txt": b"pluggy 1.6.0\npytest 9.2.0\n",
        "teardowns.json": json.dumps([{"worker": RIG, "name": "rig", "error": "E   RuntimeError: left"}]).encode(),
    }
    return report_of(records, tries, {"teardowns": 1}, others, **asked)


def many(count: int, seed: int = 1) -> Report:
    """A large run on four hosts of four slots."""
    chance = random.Random(seed)
    hosts = [PeerId(f"12D3KooWHost{number}") for number in range(4)]
    free = {(host, slot): BEGAN for host in hosts for slot in range(4)}
    records = []
    for number in range(count):
        (host, slot), start = min(free.items(), key=lambda one: one[1])
        seconds = chance.lognormvariate(-3.5, 1.2)
        free[host, slot] = start + seconds + 0.002
        sort = chance.random()
        outcome = Outcome.FAILED if sort < 0.004 else Outcome.SKIPPED if sort < 0.03 else Outcome.PASSED
        told = {"message": "assert 1 == 2", "longrepr": TRACE, "stdout": "said\n" * 20} if outcome.bad else {}
        name = f"tests/unit/test_{number // 40:03d}.py::test_case[{number % 40}]"
        records.append(record(name, outcome, duration=seconds, started=start, worker=host, slot=slot, **told))
    names = {host: f"lab-{place}" for place, host in enumerate(hosts, 1)}
    wall = max(free.values()) - BEGAN
    return report_of(records, head={"workers": hosts, "names": names, "wall_seconds": wall, "name": "large"})
