"""Documents of made-up meshes for the tests of the views: deterministic, of any size."""

import hashlib
import random
from typing import Any

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def peer(number: int) -> str:
    return "12D3KooW" + hashlib.sha256(b"%d" % number).hexdigest()[:44]


def topology_document(count: int, name: str = "lab-{}", dense: bool = True) -> dict[str, Any]:
    """`count` nodes of all roles, the first the coordinator; the sixth and its neighbours are not alive."""
    generator = random.Random(count)
    states = {5: "dead", 6: "suspect", 7: "draining"}
    nodes = [
        {
            "peer": peer(number),
            "name": name.format(number),
            "role": "auto" if number < 5 else ("auto", "client", "coordinator", "worker")[number % 4],
            "state": states.get(number, "alive"),
            "coordinator": number == 0,
            "raft": "voter" if number < 5 else "learner" if number % 4 == 2 else "",
            "slots": 0 if number % 4 == 1 else 4 + number % 3,
            "busy": 0 if number % 4 == 1 else number % 5,
        }
        for number in range(count)
    ]
    links = [
        {"a": peer(a), "b": peer(b), "rtt": generator.choice((0.0004, 0.006, 0.05, 0.18)) * generator.uniform(0.7, 1.4)}
        for a in range(count)
        for b in range(a)
        if 5 not in (a, b) and (dense or b == 0 or generator.random() < 0.2)
    ]
    return {"mesh": "k51qzi5uqu5d", "nodes": nodes, "links": links}


def overview_document(count: int, verdicts: int, runs: int = 1, name: str = "lab-{}") -> dict[str, Any]:
    """`count` nodes that did `verdicts` tests in `runs` runs, of which the newest goes on."""
    generator = random.Random(verdicts)
    topology = topology_document(count, name)
    workers = [node["peer"] for node in topology["nodes"] if node["slots"]]
    done: list[dict[str, Any]] = []
    documents = []
    for run in range(runs):
        counts: dict[str, int] = {}
        share = verdicts // runs
        for test in range(share):
            outcome = generator.choices(
                ("passed", "failed", "error", "skipped", "xfailed", "xpassed"), (90, 2, 1, 4, 2, 1)
            )[0]
            counts[outcome] = counts.get(outcome, 0) + 1
            done.append(
                {
                    "run": str(run),
                    "test": f"tests/test_things.py::test_{test}",
                    "outcome": outcome,
                    "duration": generator.lognormvariate(-3.5, 1.8),
                    "worker": generator.choice(workers),
                }
            )
        newest = run == runs - 1
        documents.append(
            {
                "run": str(run),
                "name": name.format(run),
                "state": "running" if newest else "failed",
                "pending": share // 4 if newest else 0,
                "leased": share // 10 if newest else 0,
                "done": share,
                "counts": counts,
                "wall_seconds": share * 0.05,
            }
        )
    return {
        "generated": 1_779_000_000.0,
        "mesh": "k51qzi5uqu5d",
        "coordinator": peer(0) if count else "",
        "term": 3,
        "nodes": topology["nodes"],
        "runs": documents,
        "verdicts": done,
    }
