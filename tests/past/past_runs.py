"""Past runs made up: a project whose tests take what they take, on hosts that pass or fail them."""

from array import array
from collections.abc import Mapping, Sequence

from mesh.state.past import Results
from protocols.history import PastRun
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Outcome

HOSTS = (PeerId("12D3KooWlab1"), PeerId("12D3KooWlab2"), PeerId("12D3KooWlab3"))
NAMES = ("lab-1", "lab-2", "lab-3")


def past(
    number: int,
    outcomes: Sequence[Outcome],
    seconds: Sequence[float],
    hosts: Sequence[int] = (),
    project: str = "suite",
    flaky: tuple[int, ...] = (),
    **changes: object,
) -> tuple[PastRun, Results]:
    """Run `number`, which ended at 1,000 s times that; the i-th test on the host of that number (by default the
    first)."""
    counts = [0] * len(Outcome)
    for outcome in outcomes:
        counts[outcome.code] += 1
    fields: Mapping[str, object] = {
        "key": f"bafyreport{number}",
        "run": RunId(number),
        "mesh": "lab",
        "project": project,
        "name": project,
        "state": "failed" if counts[Outcome.FAILED.code] else "passed",
        "exit_code": 0,
        "submitted_at": 1_000.0 * number - 100,
        "at": 1_000.0 * number,
        "tests": len(outcomes),
        "counts": tuple(counts),
        "test_seconds": sum(seconds),
        "reused": 0,
        "queue_seconds": 20.0,
        "slots": 2,
        "report": Cid(f"bafyreport{number}"),
        "manifest": Cid("bafkmanifest"),
        "workers": tuple(zip(HOSTS, NAMES, strict=True)),
        "flaky": flaky,
        **changes,
    }
    results = Results(
        bytes(outcome.code for outcome in outcomes),
        array("q", [round(each * 1e6) for each in seconds]),
        bytes(hosts) if hosts else bytes(len(outcomes)),
        bytes([1]) * len(outcomes),
    )
    return PastRun(**fields), results  # type: ignore[arg-type]
